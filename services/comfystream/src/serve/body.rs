//! Bodies of requests: how they may look, how long they may be, how long they may take.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use super::error::Failure;

/// The type of a body, without its parameters, in small letters.
fn mime(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let name = text.split(';').next().unwrap_or_default();
    Some(name.trim().to_ascii_lowercase())
}

/// Refuses every type but one. A body without a type is refused, too: a form of another site could send it.
pub(crate) fn expect_type(headers: &HeaderMap, wanted: &str) -> Result<(), Failure> {
    match mime(headers) {
        Some(found) if found == wanted => Ok(()),
        found => Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type",
            match found {
                Some(found) => format!("the body is {found:.64}"),
                None => "the body has no Content-Type".into(),
            },
            format!("send {wanted}, and say so in Content-Type"),
        )),
    }
}

/// Refuses who takes nothing of the type that is answered.
pub(crate) fn accepts(headers: &HeaderMap, wanted: &str) -> Result<(), Failure> {
    let mut given = headers.get_all(header::ACCEPT).iter().peekable();
    if given.peek().is_none() {
        return Ok(());
    }
    let family = wanted.split('/').next().unwrap_or_default();
    let fits = |range: &str| {
        let (name, parameters) = range.split_once(';').unwrap_or((range, ""));
        let name = name.trim().to_ascii_lowercase();
        let zero = parameters
            .split(';')
            .any(|each| matches!(each.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        !zero && (name == "*/*" || name == wanted || name.strip_suffix("/*") == Some(family))
    };
    let any = given.any(|value| value.to_str().is_ok_and(|text| text.split(',').any(fits)));
    if any {
        return Ok(());
    }
    Err(Failure::new(
        StatusCode::NOT_ACCEPTABLE,
        "not_acceptable",
        format!("the answer is {wanted}, which Accept leaves out"),
        format!("send Accept: {wanted}, or none"),
    ))
}

/// The whole body.
pub(crate) async fn read(body: Body, limit: usize, time: Duration) -> Result<Vec<u8>, Failure> {
    let read = tokio::time::timeout(time, to_bytes(body, limit)).await;
    match read {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) => {
            let too_long =
                std::error::Error::source(&error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
            Err(if too_long {
                Failure::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "body_too_large",
                    format!("the body has more than {limit} bytes"),
                    "send less; GET /api/config tells the limits",
                )
            } else {
                Failure::new(
                    StatusCode::BAD_REQUEST,
                    "body_broken",
                    format!("the body ends early: {error}"),
                    "send all of it",
                )
            })
        }
        Err(_) => Err(Failure::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_late",
            format!("the body did not come within {} s", time.as_secs_f64()),
            "send it at once",
        )),
    }
}

/// A body as text.
pub(crate) fn text(bytes: Vec<u8>) -> Result<String, Failure> {
    let malformed = |_| {
        Failure::new(
            StatusCode::BAD_REQUEST,
            "text_malformed",
            "the body is not UTF-8",
            "send text",
        )
    };
    String::from_utf8(bytes).map_err(malformed)
}

/// A body as JSON. What it has to look like is asked afterwards: that is another refusal.
pub(crate) fn json(bytes: &[u8]) -> Result<Value, Failure> {
    let malformed = |error| {
        Failure::new(
            StatusCode::BAD_REQUEST,
            "json_malformed",
            format!("the body is no JSON: {error}"),
            "send JSON",
        )
    };
    serde_json::from_slice(bytes).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn types_of_bodies_are_compared_without_parameters() {
        for (value, fits) in [
            ("application/sdp", true),
            ("Application/SDP; charset=utf-8", true),
            ("text/plain", false),
            ("", false),
            ("application/sdpx", false),
        ] {
            let checked = expect_type(&headers(header::CONTENT_TYPE, value), "application/sdp");
            assert_eq!(checked.is_ok(), fits, "{value}");
        }
        assert!(expect_type(&HeaderMap::new(), "application/sdp").is_err());
    }

    #[test]
    fn accept_is_honoured() {
        for (value, fits) in [
            ("*/*", true),
            ("text/html, application/*;q=0.5", true),
            ("application/sdp", true),
            ("application/sdp;q=0", false),
            ("text/html", false),
            ("", false),
        ] {
            assert_eq!(
                accepts(&headers(header::ACCEPT, value), "application/sdp").is_ok(),
                fits,
                "{value}"
            );
        }
        assert!(accepts(&HeaderMap::new(), "application/sdp").is_ok());
    }

    #[tokio::test]
    async fn bodies_are_bounded() {
        let second = Duration::from_secs(1);
        assert_eq!(read(Body::from("1234"), 4, second).await, Ok(b"1234".to_vec()));
        let failure = read(Body::from("12345"), 4, second).await.unwrap_err();
        assert_eq!(failure.status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn bodies_are_text_and_json() {
        assert_eq!(json(b"[1]"), Ok(serde_json::json!([1])));
        for wrong in [&b"{"[..], b"", b"\xff", b"1 2"] {
            assert_eq!(json(wrong).unwrap_err().status, StatusCode::BAD_REQUEST);
        }
        assert!(text(vec![0xff]).is_err());
    }
}

//! Who may use the service, and which web pages.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::error::Failure;

/// Whether a request bears the token, where one is asked for.
pub(crate) fn allowed(app: &App, headers: &HeaderMap) -> bool {
    let Some(token) = &app.settings.token else {
        return true;
    };
    bearer(headers).is_some_and(|given| same(given.as_bytes(), token.expose().as_bytes()))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// In a time that depends on the lengths alone.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b));
    // What is not looked at cannot be left early.
    std::hint::black_box(differ) == 0 && a.len() == b.len()
}

/// Refuses who does not bear the token. Preflights cannot.
pub(crate) async fn token(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.method() == Method::OPTIONS || allowed(&app, request.headers()) {
        return next.run(request).await;
    }
    let message = match bearer(request.headers()) {
        Some(_) => "the token is another one",
        None => "a token is asked for",
    };
    Failure::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        message,
        "send Authorization: Bearer and the token that the service was started with",
    )
    .into_response()
}

/// Tells browsers which pages may read what is answered, and answers their preflights.
pub(crate) async fn cors(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allow = origin.and_then(|origin| allow_origin(&app.settings.cors, &origin));
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        && request.headers().contains_key(header::ORIGIN);
    let path = request.uri().path();
    // These say something of their own when asked for their options.
    let own = path.starts_with("/whip") || path.starts_with("/whep");
    let mut response = if preflight && !own {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    if !app.settings.cors.is_empty() {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    if let Some(allow) = allow {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allow);
        for (name, value) in if preflight { PREFLIGHT } else { EXPOSE } {
            headers.insert(name.clone(), HeaderValue::from_static(value));
        }
    }
    response
}

const PREFLIGHT: &[(HeaderName, &str)] = &[
    (
        header::ACCESS_CONTROL_ALLOW_METHODS,
        "GET, HEAD, POST, PATCH, DELETE, OPTIONS",
    ),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "Authorization, Content-Type, If-Match, If-None-Match",
    ),
    (header::ACCESS_CONTROL_MAX_AGE, "600"),
];
const EXPOSE: &[(HeaderName, &str)] = &[(
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    "Location, ETag, Link, Accept-Post, Accept-Patch, Retry-After, WWW-Authenticate",
)];

/// What `Access-Control-Allow-Origin` is to say; None: nothing.
fn allow_origin(origins: &[String], origin: &HeaderValue) -> Option<HeaderValue> {
    if origins.iter().any(|each| each == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    let known = origins
        .iter()
        .any(|each| each.as_bytes().eq_ignore_ascii_case(origin.as_bytes()));
    known.then(|| origin.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole() {
        for (a, b, equal) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a", "ab", false),
            ("", "", true),
            ("ab", "a", false),
        ] {
            assert_eq!(same(a.as_bytes(), b.as_bytes()), equal, "{a} {b}");
        }
    }

    #[test]
    fn bearer_is_found_however_it_is_spelt() {
        for (value, token) in [
            ("Bearer x", Some("x")),
            ("bearer  x ", Some("x")),
            ("Basic x", None),
            ("x", None),
            ("Bearer", None),
        ] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
            assert_eq!(bearer(&headers), token, "{value}");
        }
    }

    #[test]
    fn origins_are_let_in_by_name() {
        let origin = HeaderValue::from_static("https://page.example");
        let check = |origins: &[&str]| {
            let origins: Vec<String> = origins.iter().map(ToString::to_string).collect();
            allow_origin(&origins, &origin)
        };
        assert_eq!(check(&[]), None);
        assert_eq!(check(&["https://other.example"]), None);
        assert_eq!(
            check(&["https://other.example", "https://page.example"]),
            Some(origin.clone())
        );
        assert_eq!(check(&["*"]), Some(HeaderValue::from_static("*")));
    }
}

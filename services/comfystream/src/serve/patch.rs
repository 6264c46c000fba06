//! What a PATCH of a session asks for (RFC 9725, 4.3; RFC 8840), from its headers and fragment alone.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::error::Failure;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Add the candidates.
    Candidates,
    /// Start ICE anew.
    Restart,
}

/// The tag of a session whose peer has this user fragment.
pub(crate) fn tag(ufrag: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || "+/-_".contains(*c);
    format!("\"{}\"", ufrag.chars().filter(plain).collect::<String>())
}

/// Looks at the condition and at the fragment. `ufrag` is the one that the peer has.
pub(crate) fn decide(headers: &HeaderMap, fragment: &str, ufrag: &str) -> Result<Verdict, Failure> {
    let condition = condition(headers.get_all(header::IF_MATCH).iter(), &tag(ufrag))?;
    let new = fragment_ufrag(fragment)?;
    match (condition, new) {
        // The star asks for a restart, and a restart brings another user fragment.
        (Condition::Any, Some(new)) if new != ufrag => Ok(Verdict::Restart),
        (Condition::Tag, Some(new)) if new != ufrag => Err(Failure::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "restart_without_star",
            "the fragment has another a=ice-ufrag than the session",
            "send If-Match: * to start ICE anew",
        )),
        (Condition::Any | Condition::Tag, _) => Ok(Verdict::Candidates),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Any,
    Tag,
}

fn condition<'a>(values: impl Iterator<Item = &'a HeaderValue>, tag: &str) -> Result<Condition, Failure> {
    let mut given = false;
    for value in values {
        given = true;
        let Ok(text) = value.to_str() else { continue };
        for each in text.split(',').map(str::trim) {
            if each == "*" {
                return Ok(Condition::Any);
            }
            // Weak tags never match here (RFC 9110, 13.1.1).
            if each == tag {
                return Ok(Condition::Tag);
            }
        }
    }
    Err(if given {
        Failure::new(
            StatusCode::PRECONDITION_FAILED,
            "etag_mismatch",
            "If-Match names another state of the session",
            "send the ETag of the newest answer, or * to start ICE anew",
        )
    } else {
        Failure::new(
            StatusCode::PRECONDITION_REQUIRED,
            "etag_missing",
            "the request has no If-Match",
            "send the ETag of the newest answer",
        )
    })
}

/// Its user fragment; an error where the text is no fragment of SDP.
fn fragment_ufrag(fragment: &str) -> Result<Option<&str>, Failure> {
    let lines = fragment.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let mut found = None;
    let mut any = false;
    for line in lines {
        any = true;
        if !matches!(
            line.as_bytes(),
            [b'a' | b'm' | b'c' | b's' | b'o' | b'v' | b't', b'=', ..]
        ) {
            return Err(malformed(format!("{line:.64} is no line of SDP")));
        }
        found = found.or_else(|| line.strip_prefix("a=ice-ufrag:"));
    }
    match any {
        true => Ok(found),
        false => Err(malformed("the fragment is empty".into())),
    }
}

fn malformed(message: String) -> Failure {
    Failure::new(
        StatusCode::BAD_REQUEST,
        "fragment_malformed",
        message,
        "send application/trickle-ice-sdpfrag as RFC 8840 has it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAGMENT: &str = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=candidate:1 1 udp 1 10.0.0.1 5000 typ host\r\na=end-of-candidates\r\n";

    fn with(if_match: &[&'static str], fragment: &str, ufrag: &str) -> Result<Verdict, u16> {
        let headers = if_match
            .iter()
            .map(|value| (header::IF_MATCH, HeaderValue::from_static(value)))
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            });
        decide(&headers, fragment, ufrag).map_err(|failure| failure.status.as_u16())
    }

    #[test]
    fn conditions_decide() {
        for (if_match, ufrag, verdict) in [
            (&[][..], "abcd", Err(428)),
            (&["\"abcd\""], "abcd", Ok(Verdict::Candidates)),
            (&["\"x\", \"abcd\""], "abcd", Ok(Verdict::Candidates)),
            (&["\"x\"", "\"abcd\""], "abcd", Ok(Verdict::Candidates)),
            (&["\"old\""], "abcd", Err(412)),
            (&["W/\"abcd\""], "abcd", Err(412)),
            (&["abcd"], "abcd", Err(412)),
            (&[""], "abcd", Err(412)),
            (&["*"], "old", Ok(Verdict::Restart)),
            (&["*"], "abcd", Ok(Verdict::Candidates)),
            (&["\"old\""], "old", Err(422)),
        ] {
            assert_eq!(with(if_match, FRAGMENT, ufrag), verdict, "{if_match:?} {ufrag}");
        }
    }

    #[test]
    fn fragments_are_lines_of_sdp() {
        let tag = &["\"abcd\""][..];
        for (fragment, verdict) in [
            ("", Err(400)),
            ("\r\n\r\n", Err(400)),
            ("hello", Err(400)),
            ("{\"candidate\":\"\"}", Err(400)),
            (
                "a=candidate:1 1 udp 1 10.0.0.1 5000 typ host\n",
                Ok(Verdict::Candidates),
            ),
        ] {
            assert_eq!(with(tag, fragment, "abcd"), verdict, "{fragment}");
        }
    }

    #[test]
    fn a_tag_is_one_whatever_the_peer_sends() {
        assert_eq!(tag("ab+/9"), "\"ab+/9\"");
        assert_eq!(tag("a\"b\r\n"), "\"ab\"");
    }
}

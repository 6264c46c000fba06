//! Fragments of SDP that carry ICE candidates (RFC 8840): what WHIP and WHEP clients send after their offer.

use super::Error;

/// Bytes of a fragment.
const BYTES: usize = 64 << 10;
/// Candidates of a fragment.
const CANDIDATES: usize = 100;

/// A fragment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) ice_ufrag: Option<String>,
    pub(crate) ice_pwd: Option<String>,
    pub(crate) candidates: Vec<Candidate>,
}

/// A way to reach the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The line of media that it is for.
    pub(crate) line: u32,
    /// `candidate:...`.
    pub(crate) text: String,
}

impl Fragment {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::Candidate(why);
        if text.len() > BYTES {
            return Err(wrong(format!("it has {} bytes, and {BYTES} are taken", text.len())));
        }
        let mut fragment = Self::default();
        let mut line: Option<u32> = None;
        for (number, text) in text.lines().enumerate() {
            let text = text.trim_end();
            let Some((key, value)) = text.split_once('=') else {
                if text.is_empty() {
                    continue;
                }
                return Err(wrong(format!("line {} is not like a=...", number + 1)));
            };
            match (key, value) {
                ("m", _) => line = Some(line.map_or(0, |line| line + 1)),
                ("a", "end-of-candidates") => (),
                ("a", value) if value.starts_with("candidate:") => {
                    if fragment.candidates.len() == CANDIDATES {
                        return Err(wrong(format!("it has more than {CANDIDATES} candidates")));
                    }
                    // foundation, component, transport, priority, address, port, "typ", kind
                    if value.split(' ').count() < 8 {
                        return Err(wrong(format!("line {} is no candidate", number + 1)));
                    }
                    fragment.candidates.push(Candidate {
                        line: line.unwrap_or(0),
                        text: value.to_owned(),
                    });
                }
                ("a", value) => match value.split_once(':') {
                    Some(("ice-ufrag", value)) => fragment.ice_ufrag = Some(value.to_owned()),
                    Some(("ice-pwd", value)) => fragment.ice_pwd = Some(value.to_owned()),
                    // mid, group and options repeat what the offer said.
                    _ => (),
                },
                _ => (),
            }
        }
        if fragment == Self::default() && !text.contains("end-of-candidates") {
            return Err(wrong("it has neither candidates nor credentials".into()));
        }
        Ok(fragment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_belong_to_their_lines() {
        let fragment = Fragment::parse(
            "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
             a=candidate:1 1 udp 2130706431 192.0.2.1 3478 typ host\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n\
             a=candidate:2 1 udp 2130706431 192.0.2.1 3479 typ host\r\na=end-of-candidates\r\n",
        )
        .unwrap();
        assert_eq!(fragment.ice_ufrag.as_deref(), Some("EsAw"));
        let lines: Vec<u32> = fragment.candidates.iter().map(|candidate| candidate.line).collect();
        assert_eq!(lines, [0, 1]);
        assert!(fragment.candidates[1].text.starts_with("candidate:2 1 udp"));
    }

    #[test]
    fn garbage_is_refused_with_its_reason() {
        for (text, why) in [
            ("", "neither"),
            ("hello", "line 1"),
            ("a=candidate:1 1 udp", "line 1 is no candidate"),
            ("a=mid:0\n", "neither"),
        ] {
            let error = Fragment::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        let many = "a=candidate:1 1 udp 1 192.0.2.1 1 typ host\n".repeat(CANDIDATES + 1);
        assert!(Fragment::parse(&many).unwrap_err().to_string().contains("more than"));
        assert!(Fragment::parse(&"a".repeat(BYTES + 1)).is_err());
    }
}

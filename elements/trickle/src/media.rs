//! Caps and MIME types of a channel.

use comfy_core::trickle::payload::Kind;
use comfy_core::trickle::wire::value;

const TS: &str = "video/mpegts";

/// The type of a channel for these caps.
pub(crate) fn mime(caps: &gst::CapsRef) -> String {
    match caps.structure(0).map(|structure| structure.name().as_str()) {
        Some(TS) => value::MPEG_TS.into(),
        Some(name) => name.into(),
        None => value::UNKNOWN_TYPE.into(),
    }
}

/// Whether buffers of these caps are to be cut at key pictures.
pub(crate) fn is_ts(caps: &gst::CapsRef) -> bool {
    caps.structure(0).is_some_and(|structure| structure.name() == TS)
}

/// Caps of what a channel carries; None: unknown, whoever comes next has to find out.
pub(crate) fn caps(kind: Kind, mime: Option<&str>) -> Option<gst::Caps> {
    match kind {
        Kind::Ts => {
            let caps = gst::Caps::builder(TS)
                .field("systemstream", true)
                .field("packetsize", 188);
            Some(caps.build())
        }
        Kind::Json => Some(gst::Caps::new_empty_simple("application/json")),
        Kind::Lines => Some(gst::Caps::new_empty_simple("application/x-ndjson")),
        Kind::Bytes => {
            let name = mime?.split(';').next()?.trim();
            let allowed = |c: char| c.is_ascii_alphanumeric() || "/-_.:+".contains(c);
            let valid = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(allowed);
            (valid && name != value::UNKNOWN_TYPE).then(|| gst::Caps::new_empty_simple(name))
        }
    }
}

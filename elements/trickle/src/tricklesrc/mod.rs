//! SECTION: tricklesrc
//!
//! Reads a channel of a trickle server: each segment while it is still being written, the next one asked for before
//! this one ends.
//!
//! Caps and memory: from the server's Content-Type, or from the first bytes where it has none: `video/mpegts` in whole
//! packets, `application/json` one document per buffer, `application/x-ndjson` one line per buffer, the server's type
//! for anything else. Buffers are the network's memory, not copied.
//! Latency: live, 0 to unlimited: buffers carry the time they arrived at, and a demuxer makes a steady time line of it.
//! Metas: none. DISCONT where segments were skipped, because this reader was too slow or the server lost them.
//! Messages: element message `tricklesrc` with `state` = `reading` at the first byte, `jump` with the number of
//! segments that were skipped, `torn` when a segment broke off.
//!
//! EOS when the channel ends; with `on-missing=wait` it waits for the channel instead. Of several addresses in `url`
//! the next is tried when one fails. A handler of trickle:// and trickles://, so that `uridecodebin` and `playbin` play
//! such addresses.
//!
//! ```text
//! gst-launch-1.0 tricklesrc url=trickle://localhost:3389/cam ! tsdemux ! h264parse ! avdec_h264 ! videoconvert \
//!   ! autovideosink
//! ```
//!
//! Since: 0.1

use gst::prelude::*;

mod imp;
mod settings;

glib::wrapper! {
    /// The element.
    pub struct TrickleSrc(ObjectSubclass<imp::TrickleSrc>)
        @extends gst_base::PushSrc, gst_base::BaseSrc, gst::Element, gst::Object,
        @implements gst::URIHandler;
}

/// What happens when the channel does not exist.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstTrickleSrcOnMissing")]
pub enum OnMissing {
    /// The stream ends.
    #[default]
    #[enum_value(name = "EOS: the stream ends", nick = "eos")]
    Eos,
    /// It begins when somebody publishes.
    #[enum_value(name = "Wait: until somebody publishes", nick = "wait")]
    Wait,
}

/// What happens to a reader that is too slow.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstTrickleSrcLagPolicy")]
pub enum LagPolicy {
    /// It goes on at the live edge.
    #[default]
    #[enum_value(name = "Jump: go on at the live edge", nick = "jump")]
    Jump,
    /// It is an error.
    #[enum_value(name = "Error: stop with an error", nick = "error")]
    Error,
    /// It goes on at the oldest segment there is.
    #[enum_value(
        name = "Earliest: go on at the oldest segment that the server may still have",
        nick = "earliest"
    )]
    Earliest,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "tricklesrc",
        gst::Rank::PRIMARY,
        TrickleSrc::static_type(),
    )
}

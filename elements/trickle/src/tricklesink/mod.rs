//! SECTION: tricklesink
//!
//! Publishes to a channel of a trickle server: segments that are read while they are written. Each buffer goes out at
//! once, and the next segment's request is open before it is needed.
//!
//! Caps and memory: `video/mpegts` becomes segments that a decoder can begin with: PAT, PMT, then a key picture, cut
//! at the first one after `segment-duration`, which is asked for upstream with a force-key-unit event. Anything else
//! (`application/json`, `application/x-ndjson`, any) becomes one segment per buffer, or per `segment-duration` with
//! `cut=duration`. Buffers are sent from their own memory, not copied.
//! Latency: none added. Buffers are not synchronised to the clock unless `sync` is set: a file wants `sync=true`.
//! Metas: none.
//! Messages: element message `tricklesink` with `state` = `publishing` when the server has a segment for the first
//! time or again, `dropping` when there is no room for one, `closed` when the channel was ended by somebody else; a
//! warning, once, when segments are lost or the server does not answer.
//!
//! The streaming thread never waits longer than `max-wait`. What finds no room until then is dropped up to the next
//! place where a segment may begin, and counted. EOS waits for the server's last answer, at most `eos-timeout`. A
//! handler of trickle:// and trickles://.
//!
//! ```text
//! gst-launch-1.0 videotestsrc num-buffers=60 is-live=true ! video/x-raw,width=320,height=240,framerate=30/1 \
//!   ! x264enc tune=zerolatency speed-preset=ultrafast ! mpegtsmux ! tricklesink url=trickle://localhost:3389/cam
//! ```
//!
//! Since: 0.1

use gst::prelude::*;

mod imp;
mod session;
mod settings;

glib::wrapper! {
    /// The element.
    pub struct TrickleSink(ObjectSubclass<imp::TrickleSink>)
        @extends gst_base::BaseSink, gst::Element, gst::Object,
        @implements gst::URIHandler;
}

/// Where segments begin.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstTrickleSinkCut")]
pub enum Cut {
    /// By what is published.
    #[default]
    #[enum_value(name = "Auto: MPEG-TS at key pictures, anything else at each buffer", nick = "auto")]
    Auto,
    /// At each buffer.
    #[enum_value(name = "Buffer: each buffer is a segment", nick = "buffer")]
    Buffer,
    /// At the first buffer after a time.
    #[enum_value(name = "Duration: at the first buffer after segment-duration", nick = "duration")]
    Duration,
}

/// Whether the channel is created before something is published.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstTrickleSinkCreate")]
pub enum Create {
    /// Where the server allows it.
    #[default]
    #[enum_value(
        name = "Auto: create it; where the server refuses, expect it to exist",
        nick = "auto"
    )]
    Auto,
    /// Or it is an error.
    #[enum_value(name = "Always: a refusal is an error", nick = "always")]
    Always,
    /// It exists, or the first segment creates it.
    #[enum_value(name = "Never: it exists, or the first segment creates it", nick = "never")]
    Never,
}

/// The number of the first segment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstTrickleSinkStart")]
pub enum Start {
    /// The next one, and what an earlier run left open is ended.
    #[default]
    #[enum_value(name = "Reset: the next one; what an earlier run left open is ended", nick = "reset")]
    Reset,
    /// The next one.
    #[enum_value(name = "Next: the next one; what others write is left open", nick = "next")]
    Next,
    /// Property start-seq.
    #[enum_value(name = "Seq: the number in start-seq", nick = "seq")]
    Seq,
}

/// What happens when there is no room.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstTrickleSinkLeaky")]
pub enum Leaky {
    /// Wait, within a bound.
    #[default]
    #[enum_value(name = "None: wait for room, at most max-wait", nick = "none")]
    None,
    /// Drop at once.
    #[enum_value(
        name = "Keyframe: drop at once, up to where the next segment may begin",
        nick = "keyframe"
    )]
    Keyframe,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "tricklesink",
        gst::Rank::PRIMARY,
        TrickleSink::static_type(),
    )
}

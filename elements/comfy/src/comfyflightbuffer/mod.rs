//! SECTION: comfyflightbuffer
//!
//! Collects whole batches before the model starts, then keeps it fed: a bounded queue with its own thread, to stand
//! before `comfybatch`.
//!
//! Caps and memory: any; frames are never mapped, and caps, allocation and context queries pass through.
//! Latency: min (P - 1) frame durations, where P = `threshold` x `batch-size` frames are collected before the first
//! leaves; max `max-batches` x `batch-size` frame durations. A leaky buffer never promises more than it holds.
//! Metas: none read or written. Frames that carry GST_BUFFER_FLAG_NON_DROPPABLE are dropped last.
//! Messages: element message `comfyflightbuffer` when its state changes (`filling`, `running`, `underrun`,
//! `overrun`), with fill, capacity, threshold and, while filling, the expected time to start; QOS messages for
//! frames that were dropped because downstream was late.
//!
//! ```text
//! gst-launch-1.0 videotestsrc is-live=true num-buffers=60 ! video/x-raw,format=RGB,width=320,height=240,framerate=30/1 \
//!   ! comfyflightbuffer batch-size=4 threshold=1 ! comfybatch batch-size=4 ! comfyinfer backend=null ! comfyunbatch ! fakesink
//! ```
//!
//! Since: 0.1

use gst::prelude::*;

mod imp;
mod report;
mod state;

glib::wrapper! {
    /// The element.
    pub struct ComfyFlightBuffer(ObjectSubclass<imp::ComfyFlightBuffer>) @extends gst::Element, gst::Object;
}

/// What happens to frames when the buffer is full.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstComfyFlightBufferLeaky")]
pub enum Leaky {
    /// Upstream waits; nothing is dropped.
    #[default]
    #[enum_value(name = "None: block upstream, drop nothing", nick = "none")]
    None,
    /// The oldest frame goes: least delay after a stall.
    #[enum_value(name = "Oldest: drop the frame that waits longest", nick = "oldest")]
    Oldest,
    /// The arriving frame goes.
    #[enum_value(name = "Newest: drop the arriving frame", nick = "newest")]
    Newest,
    /// The frame whose neighbours are closest goes: even motion under lasting overload.
    #[enum_value(name = "Thin: drop so that the frames left are evenly spaced", nick = "thin")]
    Thin,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "comfyflightbuffer",
        gst::Rank::NONE,
        ComfyFlightBuffer::static_type(),
    )
}

//! SECTION: comfybatch
//!
//! Makes batches: N frames, of one stream or of several, become one buffer that carries them by reference. No pixel
//! is copied.
//!
//! Caps and memory: `video/x-raw` with any memory in; `video/x-comfy-batch` with the same memory out. Frames of
//! different caps never share a batch.
//! Latency: min (N - 1) frame durations, or the timeout when that is shorter, and nothing when a `comfyflightbuffer`
//! upstream already collects N frames; max N frame durations. With several live inputs, the largest min and the
//! smallest max of them.
//! Metas: writes ComfyBatchMeta, which holds the frames and the serialized events between them. A batch's offset is
//! the number of its first frame in its stream, and its offset end that plus the number of frames.
//! Messages: element message `comfybatch` when streams come and go.
//!
//! ```text
//! gst-launch-1.0 videotestsrc num-buffers=8 ! video/x-raw,format=RGB ! comfybatch name=b batch-size=4 ! comfyinfer backend=null \
//!   ! comfyunbatch name=u u.src_0 ! fakesink videotestsrc num-buffers=8 ! video/x-raw,format=RGB ! b. u.src_1 ! fakesink
//! ```
//!
//! Since: 0.1

use gst::prelude::*;

mod imp;
mod state;

glib::wrapper! {
    /// The element.
    pub struct ComfyBatch(ObjectSubclass<imp::ComfyBatch>) @extends gst::Element, gst::Object;
}

/// Whose frames go first when several streams have more than a batch takes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstComfyBatchPolicy")]
pub enum Policy {
    /// In order of arrival.
    #[default]
    #[enum_value(name = "Arrival: the frame that came first", nick = "arrival")]
    Arrival,
    /// One of each stream in turn.
    #[enum_value(name = "Round robin: one frame of each stream in turn", nick = "round-robin")]
    RoundRobin,
    /// Smallest running time first.
    #[enum_value(
        name = "Earliest deadline: the frame with the smallest running time",
        nick = "earliest-deadline"
    )]
    EarliestDeadline,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "comfybatch", gst::Rank::NONE, ComfyBatch::static_type())
}

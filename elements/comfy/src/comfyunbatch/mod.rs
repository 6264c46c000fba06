//! SECTION: comfyunbatch
//!
//! Gives the frames of a batch back, one by one, each stream on its own pad, in order, with the PTS, DTS, duration,
//! offset, flags and metas of the frame that went in; the serialized events that stood between the frames stand
//! there again.
//!
//! Caps and memory: `video/x-comfy-batch` in, `video/x-raw` with the same memory out. Pad `src_0` is always there;
//! `src_1` and so on appear and go with their streams.
//! Latency: min 0, max 2 N frame durations, which its queues hold so that a burst does not block the model.
//! Metas: reads ComfyBatchMeta; those of the frames stay on them.
//! Messages: none.
//!
//! ```text
//! gst-launch-1.0 videotestsrc num-buffers=8 ! video/x-raw,format=RGB ! comfybatch batch-size=4 ! comfyinfer backend=null ! comfyunbatch ! fakesink
//! ```
//!
//! Since: 0.1

use gst::prelude::*;

mod imp;
mod state;
mod streams;

glib::wrapper! {
    /// The element.
    pub struct ComfyUnbatch(ObjectSubclass<imp::ComfyUnbatch>) @extends gst::Element, gst::Object;
}

/// When frames leave.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstComfyUnbatchPacing")]
pub enum Pacing {
    /// As soon as they are there; a synchronising sink paces them.
    #[default]
    #[enum_value(name = "None: at once, in bursts of a batch", nick = "none")]
    None,
    /// At their time on the pipeline's clock.
    #[enum_value(name = "PTS: each at its time, for sinks that do not synchronise", nick = "pts")]
    Pts,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "comfyunbatch",
        gst::Rank::NONE,
        ComfyUnbatch::static_type(),
    )
}

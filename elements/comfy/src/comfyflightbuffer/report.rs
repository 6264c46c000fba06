//! What the element says about itself: messages and `stats`.

use comfy_core::flight::{self, Change, FlightBuffer};

/// The element message of a change.
pub(super) fn change(change: &Change, stats: &flight::Stats) -> gst::Structure {
    let builder = gst::Structure::builder("comfyflightbuffer")
        .field("fill", stats.fill as u32)
        .field("capacity", stats.capacity as u32)
        .field("threshold", stats.threshold_frames as u32);
    let builder = match change {
        Change::Filling { expected, .. } => {
            let start = expected.and_then(|d| gst::ClockTime::try_from(d).ok());
            builder.field("state", "filling").field_if_some("expected-start", start)
        }
        Change::Running => builder.field("state", "running"),
        Change::Underrun => builder.field("state", "underrun"),
        Change::Overrun { dropped } => builder.field("state", "overrun").field("dropped", *dropped),
    };
    builder.build()
}

/// The property `stats`.
pub(super) fn stats<T>(buffer: &FlightBuffer<T>) -> gst::Structure {
    let stats = buffer.stats();
    let name = match buffer.state() {
        flight::State::Filling => "filling",
        flight::State::Running => "running",
        flight::State::Underrun => "underrun",
    };
    gst::Structure::builder("stats")
        .field("state", name)
        .field("fill", stats.fill as u32)
        .field("peak-fill", stats.peak_fill as u32)
        .field("capacity", stats.capacity as u32)
        .field("threshold", stats.threshold_frames as u32)
        .field("frames-in", stats.frames_in)
        .field("frames-out", stats.frames_out)
        .field("dropped-overrun", stats.dropped_overrun)
        .field("dropped-late", stats.dropped_late)
        .field("underruns", stats.underruns)
        .field("overruns", stats.overruns)
        .build()
}

//! What a flight buffer has counted.

/// Counters since the buffer was made, and gauges at the moment of the call.
///
/// `frames_in` is always `frames_out + dropped_overrun + dropped_late + flushed + fill`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames that arrived: queued or dropped on arrival. One that found the buffer full and has to be offered again
    /// is not counted yet.
    pub frames_in: u64,
    /// Frames released downstream.
    pub frames_out: u64,
    /// Frames dropped because the buffer was full, or was made smaller.
    pub dropped_overrun: u64,
    /// Frames dropped because downstream has no use for them any more.
    pub dropped_late: u64,
    /// Frames thrown away by flushes.
    pub flushed: u64,
    /// Times the buffer stayed empty for too long.
    pub underruns: u64,
    /// Times the buffer became full, counted again only after it has been below full by one batch.
    pub overruns: u64,
    /// Frames held now.
    pub fill: usize,
    /// The most frames held at once.
    pub peak_fill: usize,
    /// Markers held now.
    pub markers: usize,
    /// Frames the buffer holds at most.
    pub capacity: usize,
    /// Frames collected before the first release.
    pub threshold_frames: usize,
}

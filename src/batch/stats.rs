//! What a batcher has counted.

use super::Reason;

/// Counters since the batcher was made, and gauges at the moment of the call.
///
/// `frames_in` is always `frames_out + frames_flushed + waiting`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames taken in.
    pub frames_in: u64,
    /// Frames handed out in batches.
    pub frames_out: u64,
    /// Frames thrown away by flushes.
    pub frames_flushed: u64,
    /// Batches with frames.
    pub batches: u64,
    /// Batches with frames, by [`Reason`] in its order of declaration.
    pub batches_by_reason: [u64; Reason::COUNT],
    /// Times only markers went out.
    pub marker_batches: u64,
    /// Streams known, those that are leaving included.
    pub streams: usize,
    /// Frames waiting now.
    pub waiting: usize,
    /// The most frames that waited at once.
    pub peak_waiting: usize,
}

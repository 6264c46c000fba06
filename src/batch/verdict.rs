//! What a batcher is told, and what it answers.

use std::time::Duration;

/// Markers a stream holds at most; [`Batcher::leave`](super::Batcher::leave) may add one to them.
pub const MAX_MARKERS: usize = 1024;

/// The largest batch.
pub const MAX_BATCH_SIZE: usize = 64;

/// Whose frames go first. Within a stream the order never changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// In the order of arrival. Fastest; a stream with more frames gets more of the batch.
    #[default]
    Arrival,
    /// One frame of each stream in turn. The turn carries over between batches: streams that always have frames
    /// waiting are served equally, within one frame.
    RoundRobin,
    /// The earliest deadline first, frames without one last, ties by arrival. Does not share fairly: a stream whose
    /// deadlines are always later may wait for ever under overload.
    EarliestDeadline,
}

/// How a batcher behaves. May be changed at any time with [`Batcher::configure`](super::Batcher::configure).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Frames in a full batch, 1 to [`MAX_BATCH_SIZE`]; values outside are brought inside.
    pub size: usize,
    /// How long a frame waits for others. `None`: until the batch is full.
    pub timeout: Option<Duration>,
    /// Whose frames go first.
    pub policy: Policy,
    /// Frames a stream may have waiting. Never less than `size` (0 = `size`): one stream must be able to fill a batch.
    pub queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            size: 1,
            timeout: None,
            policy: Policy::Arrival,
            queue: 0,
        }
    }
}

/// Why a batch was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It has as many frames as it may.
    Full,
    /// A frame, or a marker with no frame behind it, has waited long enough.
    Timeout,
    /// A stream says that it has no frames for longer than the batch may wait.
    Gap,
    /// Another group follows: a stream's caps differ.
    Caps,
    /// A segment follows.
    Segment,
    /// A stream ends or leaves.
    Eos,
    /// A flush follows.
    Flush,
    /// Everything held was asked for, or a stream can hold no more markers.
    Drain,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = 8;
}

/// What became of an offered frame.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Offer<T> {
    /// It waits for its batch.
    Queued,
    /// Its stream has as many frames waiting as it may: wait until a batch has left, then offer it again.
    Full(T),
    /// No such stream: it never joined, or is leaving.
    Unknown(T),
}

/// What became of an offered marker.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Mark<M> {
    /// It has its place.
    Queued,
    /// Its stream holds [`MAX_MARKERS`]: wait until a batch has left, then offer it again.
    Full(M),
    /// No such stream: it never joined, or is leaving.
    Unknown(M),
}

/// What became of a request to leave.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Leave<M> {
    /// The stream goes as soon as what it holds is out.
    Leaving,
    /// No such stream: it never joined, or is leaving already.
    Unknown(Option<M>),
}

/// What a marker does to the frames before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cut {
    /// Nothing: it goes with the next frame of its stream. With no frame behind it, it waits for one, for the timeout,
    /// counted from its own arrival, or for a cut in its stream.
    No,
    /// Everything queued before it in its stream leaves now, as a partial batch if need be, then the marker.
    Before(Reason),
}

/// A piece of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<K, T, M> {
    /// A frame to be run.
    Frame {
        /// The stream it came on.
        stream: K,
        /// The frame.
        frame: T,
    },
    /// Something to be passed on at this place in its stream.
    Marker {
        /// The stream it came on.
        stream: K,
        /// The marker.
        marker: M,
    },
}

/// What leaves next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// The entries just written.
    Batch {
        /// The group of all its frames; without frames, that of the last batch that had some, or 0.
        group: u64,
        /// Frames among the entries. With 0 there are only markers, at least one.
        frames: usize,
        /// Why it was closed.
        reason: Reason,
        /// When its oldest frame arrived; without frames, its first marker.
        first_arrival: Duration,
    },
    /// Nothing yet. Ask again when something was offered, or at this time: a batch is due then.
    WaitUntil(Duration),
    /// Nothing yet. Ask again when something was offered.
    Idle,
}

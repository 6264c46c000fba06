//! What a buffer is told, and what it answers.

use std::time::Duration;

/// Markers a buffer holds at most.
pub const MAX_MARKERS: usize = 1024;

/// The largest batch.
pub const MAX_BATCH_SIZE: usize = 64;

/// What happens to frames when the buffer is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Leaky {
    /// Nothing is dropped: the newcomer waits upstream.
    #[default]
    None,
    /// The oldest frame goes. A short freeze, then fresh frames: for a stall that is over.
    Oldest,
    /// The newcomer goes. What is held grows old: for sources whose earlier frames matter most.
    Newest,
    /// The frame whose neighbours are closest together goes, so that the survivors stay evenly spaced: for a source
    /// that is faster than the model for good.
    Thin,
}

/// How a buffer behaves. May be changed at any time with [`FlightBuffer::configure`](super::FlightBuffer::configure).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Frames in a batch, 1 to [`MAX_BATCH_SIZE`]; values outside are brought inside.
    pub batch_size: usize,
    /// Batches collected before the first release; 0 = none. Never more than `max_batches`.
    pub threshold: usize,
    /// Batches held at most, at least 1.
    pub max_batches: usize,
    /// What happens to frames when the buffer is full.
    pub leaky: Leaky,
    /// Collect up to the threshold again after an underrun.
    pub rebuffer: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_size: 1,
            threshold: 2,
            max_batches: 5,
            leaky: Leaky::None,
            rebuffer: false,
        }
    }
}

impl Settings {
    /// Frames held at most.
    pub fn capacity(&self) -> usize {
        self.frames(self.max_batches.max(1))
    }

    /// Frames collected before the first release.
    pub fn threshold_frames(&self) -> usize {
        self.frames(self.threshold.min(self.max_batches.max(1)))
    }

    pub(super) fn batch_frames(&self) -> usize {
        self.batch_size.clamp(1, MAX_BATCH_SIZE)
    }

    fn frames(&self, batches: usize) -> usize {
        self.batch_frames().saturating_mul(batches)
    }
}

/// What is known about a frame besides its content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// Running time at which the frame is to be shown.
    pub time: Option<Duration>,
    /// How long it is to be shown.
    pub duration: Option<Duration>,
    /// Not to be dropped while another frame can go.
    pub priority: bool,
}

/// Why a frame was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The buffer was full.
    Overrun,
    /// Downstream is past it.
    Late,
}

/// What became of an offered frame.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Admit<T> {
    /// It is held.
    Queued,
    /// There is no room and nothing may be dropped: wait until a frame has left, then offer it again.
    Full(T),
    /// The offered frame itself is dropped.
    Dropped(T, Why),
    /// It is held; this one is dropped to make room.
    Displaced(T, Why),
}

/// What a marker does to frames that are held before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Marker {
    /// It keeps its place. Frames before it may still be held.
    Ordered,
    /// Frames before it wait no longer: the end of the stream, a serialized query, a gap. A peer may be blocked until
    /// it comes out, so that no further frame would arrive to reach the threshold.
    Releases,
}

/// What became of an offered marker.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Mark<T> {
    /// It is held.
    Queued,
    /// [`MAX_MARKERS`] are held: wait until one has left, then offer it again.
    Full(T),
}

/// What leaves next.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Next<T> {
    /// A frame to pass on.
    Frame {
        /// The frame.
        frame: T,
        /// A frame between the one released before and this one was dropped, or the buffer was flushed.
        discont: bool,
    },
    /// A marker to pass on.
    Marker(T),
    /// A frame that is dropped.
    Drop(T, Why),
    /// Nothing yet. Ask again when something was offered, or at this time, only to notice an underrun.
    WaitUntil(Duration),
    /// Nothing yet. Ask again when something was offered.
    Idle,
}

/// Where the buffer stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Collecting; frames are held.
    #[default]
    Filling,
    /// Passing frames on.
    Running,
    /// Ran empty. Frames are passed on as they come; none has come.
    Underrun,
}

/// A change worth telling the application, told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The first frame, or a further whole batch, was collected.
    Filling {
        /// Frames collected.
        fill: usize,
        /// Frames wanted.
        threshold: usize,
        /// Time until they are there, at the known frame duration.
        expected: Option<Duration>,
    },
    /// Frames are passed on from now.
    Running,
    /// Nothing has come for too long.
    Underrun,
    /// The buffer became full. Told at most once a second; the counters know of each.
    Overrun {
        /// Frames dropped for want of room since the buffer was made.
        dropped: u64,
    },
}

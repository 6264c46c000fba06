//! What a server knows of a channel: a window of segments, who writes them, who reads them, who waits.
//!
//! Segments are numbered, and live in as many slots as the window has ([`WINDOW`](super::wire::WINDOW)); one of them
//! takes its slot from the one five numbers away. *Next-write* is the number that has not begun yet. Who holds a segment
//! that has left the window reads on in what there is of it.
//!
//! A [`Channel`] wakes nobody by itself. Who has to wait leaves something to be woken by, of any type `W`, and the
//! caller collects from [`Channel::take_woken`] whom to wake, after every call that changes something and outside its
//! lock. All calls of one look and one wait belong under the same lock.

mod pages;
mod ring;

use std::time::Duration;

use bytes::Bytes;

pub use ring::{Channel, Reader, Writer};

/// How a channel behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bytes in a segment at most.
    pub max_segment: usize,
    /// Readers at a time.
    pub max_readers: usize,
    /// Writers at a time, preconnected ones included.
    pub max_writers: usize,
    /// Where the reference does what it should not.
    pub dialect: Dialect,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_segment: 64 << 20,
            max_readers: 1024,
            max_writers: 256,
            dialect: Dialect::default(),
        }
    }
}

/// What to do where the reference server does what it should not. [`Dialect::reference`] does as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// A POST that stores nothing may lower next-write: one to a number that has ended, one without a body.
    pub empty_post_goes_back: bool,
    /// When a publisher starts over at a lower number, segments with higher numbers stay and are served as if new; and
    /// a POST that begins after one with a higher number, though opened before it, lowers next-write.
    pub restart_keeps_old: bool,
    /// A segment whose writers are gone is ended after this time, or when a higher number begins; `None` = never.
    pub abort_grace: Option<Duration>,
    /// A writer whose segment was taken away in the middle is answered at once, not when it ends.
    pub tell_lost_writers: bool,
    /// Readers of an empty segment that is ended for them are told of a next-write that has not advanced yet.
    pub late_advance: bool,
    /// A segment keeps its channel alive only when it begins, not while it grows.
    pub only_begin_is_activity: bool,
    /// A segment of a channel without a type has an empty `Content-Type`.
    pub empty_type: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            empty_post_goes_back: false,
            restart_keeps_old: false,
            abort_grace: Some(Duration::from_secs(10)),
            tell_lost_writers: false,
            late_advance: false,
            only_begin_is_activity: false,
            empty_type: false,
        }
    }
}

impl Dialect {
    /// What the reference does, defects included.
    pub fn reference() -> Self {
        Self {
            empty_post_goes_back: true,
            restart_keeps_old: true,
            abort_grace: None,
            tell_lost_writers: false,
            late_advance: true,
            only_begin_is_activity: true,
            empty_type: true,
        }
    }
}

/// The answer to [`Channel::open_write`].
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum OpenWrite {
    /// Write, beginning whenever there is something.
    Opened {
        /// Who writes.
        writer: Writer,
        /// The number of the segment.
        seq: u64,
        /// Somebody else writes it too. What both write is joined as it comes.
        shared: bool,
    },
    /// The segment has ended. What would be written is not kept: answer at once.
    Ended {
        /// The number of the segment.
        seq: u64,
    },
    /// The channel has as many writers as it may.
    Full,
    /// The channel has ended.
    Closed,
}

/// The answer to [`Channel::append`].
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Append {
    /// Kept.
    Stored,
    /// Not kept: nobody can find the segment any more. Go on, so that the publisher can end as it wants to.
    Dropped,
    /// Not kept: the segment has ended before this writer's first byte. Answer at once.
    Ended {
        /// The whole channel has.
        closed: bool,
    },
    /// Not kept: the segment would become too large. It has been ended, and this writer should go.
    TooLarge,
}

/// The answer to [`Channel::writing`].
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// Go on.
    Open,
    /// The segment has ended before this writer's first byte, or is lost and writers are told: answer at once.
    Ended {
        /// The whole channel has.
        closed: bool,
    },
}

/// The answer to [`Channel::finish`].
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Nothing was written.
    pub empty: bool,
    /// The channel had ended before anything was.
    pub closed: bool,
}

/// The answer to [`Channel::open_read`].
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum OpenRead {
    /// Read, beginning with [`Channel::head`].
    Opened(Reader),
    /// There is no such segment.
    Missing {
        /// Next-write.
        latest: u64,
    },
    /// The channel has as many readers as it may.
    Full,
    /// The channel has ended.
    Closed,
}

/// What is known of a segment when its first byte has come, or it has ended without one.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Neither has happened.
    Wait,
    /// It has bytes.
    Data {
        /// Its number.
        seq: u64,
        /// Next-write when it was asked for, if that was another number.
        latest: Option<u64>,
    },
    /// It has ended without a byte.
    Empty {
        /// Its number.
        seq: u64,
        /// Next-write.
        latest: u64,
        /// The channel has ended.
        closed: bool,
    },
}

/// What a reader gets next.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// These bytes.
    Data(Bytes),
    /// Nothing yet.
    Wait,
    /// Nothing more.
    End,
}

/// The answer to [`Channel::delete`].
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delete {
    /// The segment has ended.
    Ended,
    /// There is no such segment.
    Missing,
}

/// Counters and gauges of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Next-write.
    pub next_write: u64,
    /// Readers, waiting ones included.
    pub readers: usize,
    /// Writers, waiting ones included.
    pub writers: usize,
    /// What is kept costs so many bytes.
    pub held: usize,
    /// Bytes written.
    pub bytes_in: u64,
    /// Bytes read, by all readers.
    pub bytes_out: u64,
    /// Segments that have begun.
    pub begun: u64,
    /// Segments ended because their writers were gone.
    pub orphans: u64,
    /// Segments ended because they became too large.
    pub too_large: u64,
    /// Bytes that came for segments nobody can find.
    pub dropped: u64,
}

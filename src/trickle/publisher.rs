//! Which number a segment gets, and what becomes of it when a request fails.
//!
//! The caller opens one POST for each number that [`Publisher::allocate`] gives out, the next one before the current
//! one is written, and reports every answer to [`Publisher::answered`]. Numbers are given out here and nowhere else, so
//! two segments never share one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::wire::{Answer, MAX_SEQ, WINDOW, status};

/// Where numbering begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// At next-write, telling the server that this is a restarted publisher: what an earlier run left open is ended.
    #[default]
    Reset,
    /// At next-write, leaving open what others write.
    Next,
    /// Here, without asking.
    Number(u64),
}

/// Dead numbers in a row that are put up with: a window's worth is what a publisher finds that starts over.
const DEAD: u32 = 2 * WINDOW as u32;

/// How a publisher behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Where numbering begins.
    pub start: Start,
    /// Segments that may await their answer at once, the preconnected one not counted; at least 1.
    pub in_flight: usize,
    /// Pause before a segment is tried again.
    pub retry: Duration,
    /// Failed segments in a row after which the publisher gives up; `None` = never.
    pub failures: Option<u32>,
    /// The pause after a failed segment doubles from `retry` up to this.
    pub backoff: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            start: Start::default(),
            in_flight: 3,
            retry: Duration::from_millis(250),
            failures: Some(3),
            backoff: Duration::from_secs(5),
        }
    }
}

/// Why nothing more can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Over {
    /// The channel has ended.
    Closed,
    /// There is no such channel, and the server makes none.
    NoChannel,
    /// The server refuses us, with this status: 401, 403.
    Refused(u16),
    /// Too many segments in a row have failed.
    Failed,
    /// Numbers have run out.
    Exhausted,
    /// The caller has stopped it.
    Stopped,
}

/// What to do for a new segment.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocate {
    /// Ask for next-write first, `GET {channel}/next`, and report it with [`Publisher::found`].
    Ask,
    /// Open a POST of this number, with the reset header if `reset`.
    Open {
        /// The number.
        seq: u64,
        /// Send the reset header.
        reset: bool,
    },
    /// Too many segments await their answer: the server is slow. Drop this one and report it with
    /// [`Publisher::dropped`].
    Busy,
    /// Wait until then: the last segment has failed.
    Wait(Duration),
    /// Nothing can be published any more.
    Over(Over),
}

/// How a POST ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Answered(Answer),
    /// Without one: no connection, or it broke.
    Broken,
}

/// How far the body of a POST had come when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// No byte of it left us.
    Nothing,
    /// Some did.
    Some,
    /// All of it, and its end.
    All,
}

/// What becomes of a segment.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The server has it.
    Done,
    /// Send it again under the same number, from its start, at that time.
    Retry(Duration),
    /// The number is dead and nothing was sent: give the segment a new one, with [`Publisher::allocate`].
    Renumber,
    /// It is lost. The next one begins at a place where a receiver can begin, a keyframe.
    Skip {
        /// Send `DELETE {channel}/{seq}`, so that no reader hangs in what was sent.
        delete: bool,
    },
    /// It is lost, and nothing more can be published.
    Over(Over),
}

/// Counters of a [`Publisher`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Numbers given out.
    pub opened: u64,
    /// Segments the server has.
    pub done: u64,
    /// Segments sent a second time.
    pub retried: u64,
    /// Segments that got a second number.
    pub renumbered: u64,
    /// Segments lost on the way.
    pub lost: u64,
    /// Segments dropped because too many awaited their answer.
    pub dropped: u64,
}

/// Gives out numbers. See the [module](self).
#[derive(Debug)]
pub struct Publisher {
    settings: Settings,
    /// `None`: not known yet.
    next: Option<u64>,
    reset: bool,
    open: BTreeMap<u64, Open>,
    failed: u32,
    /// Numbers found dead since a segment arrived.
    dead: u32,
    wait: Option<Duration>,
    over: Option<Over>,
    stats: Stats,
}

#[derive(Debug, Default)]
struct Open {
    begun: bool,
    retried: bool,
}

impl Publisher {
    /// A publisher that has given out nothing.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            next: match settings.start {
                Start::Number(seq) => Some(seq),
                Start::Reset | Start::Next => None,
            },
            reset: settings.start == Start::Reset,
            open: BTreeMap::new(),
            failed: 0,
            dead: 0,
            wait: None,
            over: None,
            stats: Stats::default(),
        }
    }

    /// What `GET {channel}/next` has said; `None` = no answer came.
    ///
    /// A server that does not know the question answers 400 or 404 and is taken to be at 0. Where publishing needs a
    /// channel that exists, the first POST says so.
    pub fn found(&mut self, now: Duration, answer: Option<&Answer>) -> Option<Over> {
        match answer {
            Some(answer) if answer.status == status::OK && answer.closed => self.end(Over::Closed),
            Some(answer) if answer.status == status::OK && answer.latest.is_some() => self.next = answer.latest,
            Some(answer) if is_refusal(answer.status) => self.end(Over::Refused(answer.status)),
            Some(answer) if matches!(answer.status, 200..500) => {
                self.next = Some(0);
                // It does not know the header either, and our first segment may join one that is being written.
                self.reset = false;
            }
            Some(_) | None => self.failed_once(now),
        }
        self.over
    }

    /// A number for a new segment, or why there is none.
    pub fn allocate(&mut self, now: Duration) -> Allocate {
        if let Some(over) = self.over {
            return Allocate::Over(over);
        }
        if let Some(until) = self.wait.filter(|until| now < *until) {
            return Allocate::Wait(until);
        }
        let begun = self.open.values().filter(|open| open.begun).count();
        if begun >= self.settings.in_flight.max(1) || self.open.len() > self.settings.in_flight.max(1) {
            return Allocate::Busy;
        }
        let Some(seq) = self.next else {
            return Allocate::Ask;
        };
        if seq > MAX_SEQ {
            self.end(Over::Exhausted);
            return Allocate::Over(Over::Exhausted);
        }
        self.next = Some(seq + 1);
        self.open.insert(seq, Open::default());
        self.stats.opened += 1;
        Allocate::Open {
            seq,
            reset: std::mem::take(&mut self.reset),
        }
    }

    /// A segment is being written: its first byte is on its way.
    pub fn begun(&mut self, seq: u64) {
        if let Some(open) = self.open.get_mut(&seq) {
            open.begun = true;
        }
    }

    /// The POST of a number has ended.
    ///
    /// `Sent` tells a number that was lost while it waited (nothing sent) from a segment that is cut.
    pub fn answered(&mut self, now: Duration, seq: u64, outcome: &Outcome, sent: Sent) -> Verdict {
        let Some(open) = self.open.remove(&seq) else {
            return Verdict::Skip { delete: false };
        };
        let newer = self.open.range(seq..).any(|(_, open)| open.begun);
        match outcome {
            Outcome::Answered(answer) if answer.closed => self.give_up(Over::Closed),
            Outcome::Answered(Answer {
                status: status::NO_CHANNEL,
                ..
            }) => self.give_up(Over::NoChannel),
            Outcome::Answered(answer) if is_refusal(answer.status) => self.give_up(Over::Refused(answer.status)),
            Outcome::Answered(answer) if (200..300).contains(&answer.status) => match sent {
                Sent::All => {
                    self.failed = 0;
                    self.dead = 0;
                    self.wait = None;
                    self.stats.done += 1;
                    Verdict::Done
                }
                Sent::Nothing if self.dead < DEAD && !newer => {
                    self.dead += 1;
                    self.stats.renumbered += 1;
                    Verdict::Renumber
                }
                Sent::Nothing | Sent::Some => self.lose(now, false),
            },
            Outcome::Broken if sent == Sent::Nothing && !open.retried && !newer => {
                let at = now.saturating_add(self.settings.retry);
                self.open.insert(seq, Open { retried: true, ..open });
                self.stats.retried += 1;
                Verdict::Retry(at)
            }
            Outcome::Answered(_) | Outcome::Broken => self.lose(now, sent != Sent::Nothing),
        }
    }

    /// The caller has abandoned an open segment. True if the server should hear of it, with `DELETE`.
    pub fn abandoned(&mut self, seq: u64) -> bool {
        let open = self.open.remove(&seq);
        self.stats.lost += u64::from(open.is_some());
        open.is_some_and(|open| open.begun)
    }

    /// The caller has closed a preconnected POST that it no longer needs. Its number is free again if it was the last.
    pub fn unused(&mut self, seq: u64) {
        if self.open.remove(&seq).is_some() && self.next == Some(seq + 1) {
            self.next = Some(seq);
            self.stats.opened -= 1;
        }
    }

    /// A segment will not be answered any more, because publishing is over.
    pub fn cut_off(&mut self) {
        self.stats.lost += 1;
    }

    /// A segment was dropped before it had a number.
    pub fn dropped(&mut self) {
        self.stats.dropped += 1;
    }

    /// Why nothing more can be published.
    pub fn over(&self) -> Option<Over> {
        self.over
    }

    /// Segments that await their answer, preconnected ones included.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn end(&mut self, over: Over) {
        self.over.get_or_insert(over);
    }

    fn give_up(&mut self, over: Over) -> Verdict {
        self.end(over);
        self.stats.lost += 1;
        Verdict::Over(over)
    }

    fn lose(&mut self, now: Duration, delete: bool) -> Verdict {
        self.stats.lost += 1;
        self.failed_once(now);
        match self.over {
            Some(over) => Verdict::Over(over),
            None => Verdict::Skip { delete },
        }
    }

    fn failed_once(&mut self, now: Duration) {
        let pause = self.settings.retry.saturating_mul(1 << self.failed.min(16));
        self.wait = Some(now.saturating_add(pause.min(self.settings.backoff)));
        self.failed = self.failed.saturating_add(1);
        if self.settings.failures.is_some_and(|failures| self.failed >= failures) {
            self.end(Over::Failed);
        }
    }
}

fn is_refusal(status: u16) -> bool {
    matches!(status, 401 | 403)
}

//! Which segment is read next, and what to do when it is not there.
//!
//! The caller sends one GET for what [`Subscriber::ask`] names, hands every answer to [`Subscriber::answered`], and does
//! what the verdict says. While it reads one segment it may ask for the next: the position moves when the head of an
//! answer arrives, not when its body ends.

use std::time::Duration;

use super::wire::{Answer, MAX_SEQ, WINDOW, Wanted, status};

/// What becomes of a reader that has fallen out of the window, or further behind than it may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum LagPolicy {
    /// It goes on at the live edge. What lies between is counted.
    #[default]
    Jump,
    /// It ends with [`Over::Lagged`].
    Error,
    /// It goes on at the oldest segment that the server may still have.
    Earliest,
}

/// How a subscriber behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Where reading begins.
    pub start: Wanted,
    /// When the channel does not exist: wait for it instead of ending. One that was read and is then gone has ended,
    /// unless the server was away in between.
    pub wait_for_channel: bool,
    /// Segments that may lie between what is read and the live edge; `None` = what the server keeps.
    pub max_lag: Option<u64>,
    /// What happens beyond that.
    pub lag: LagPolicy,
    /// Failures in a row after which the subscriber gives up; `None` = never.
    pub failures: Option<u32>,
    /// Pause after a failure.
    pub retry: Duration,
    /// Pause when the server is not as far as we are.
    pub behind: Duration,
    /// A GET without an answer is sent again after this.
    pub reissue: Duration,
    /// A segment in which no byte arrives for this long is taken for broken.
    pub stall: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            start: Wanted::Current,
            wait_for_channel: false,
            max_lag: None,
            lag: LagPolicy::default(),
            failures: Some(5),
            retry: Duration::from_millis(500),
            behind: Duration::from_millis(250),
            reissue: Duration::from_secs(20),
            stall: Duration::from_secs(30),
        }
    }
}

/// How often a server may say that it is not as far as we are, before it is taken at its word.
const PATIENCE: u32 = 20;

/// Why reading is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Over {
    /// The channel has ended.
    Closed,
    /// There is no such channel; if something was read before, it has ended.
    NoChannel,
    /// The server refuses us, with this status: 401, 403.
    Refused(u16),
    /// Too many failures in a row.
    Failed,
    /// The reader is too slow, and its policy is [`LagPolicy::Error`].
    Lagged,
    /// The caller has stopped it.
    Stopped,
}

/// How a GET ended before it gave a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Answered(Answer),
    /// Without one: no connection, or it broke.
    Broken,
    /// Nothing came for [`Settings::reissue`].
    Silent,
}

/// What to do.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Read the body. Ask for the next segment at once.
    Read {
        /// Its number.
        seq: u64,
        /// Segments that were skipped before it, so far as known.
        gap: u64,
        /// It does not continue what was read before.
        discont: bool,
        /// Segments that had begun after it when it was asked for.
        lag: u64,
        /// Bytes of it that were read before the connection broke: leave them out.
        resume: u64,
    },
    /// Ask again at once.
    Ask,
    /// Ask again at that time.
    AskAt(Duration),
    /// It is over.
    Over(Over),
}

/// Counters of a [`Subscriber`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segments whose body was to be read.
    pub read: u64,
    /// Segments without a byte.
    pub empty: u64,
    /// Segments that were skipped.
    pub skipped: u64,
    /// Times the position has moved to another place than the next segment.
    pub jumps: u64,
    /// Answers that never came, and such that made no sense.
    pub failures: u64,
    /// Segments taken up again after their connection broke.
    pub resumed: u64,
}

/// Chooses what is read. See the [module](self).
#[derive(Debug)]
pub struct Subscriber {
    settings: Settings,
    wanted: Wanted,
    /// The number after the one that was read last, or the one to begin with.
    expected: Option<u64>,
    discont: bool,
    resume: u64,
    failed: u32,
    /// The channel is there, as far as is known.
    reading: bool,
    behind: u32,
    /// The server is another one than before, and may count differently.
    moved: bool,
    over: Option<Over>,
    stats: Stats,
}

impl Subscriber {
    /// A subscriber that has read nothing.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            wanted: settings.start,
            expected: settings.start.number(),
            discont: false,
            resume: 0,
            failed: 0,
            reading: false,
            behind: 0,
            moved: false,
            over: None,
            stats: Stats::default(),
        }
    }

    /// What to GET.
    pub fn ask(&self) -> Wanted {
        self.wanted
    }

    /// Begins at another place. What is read from there is a discontinuity.
    pub fn seek(&mut self, wanted: Wanted) {
        self.wanted = wanted;
        self.expected = wanted.number();
        self.discont = true;
        self.resume = 0;
        self.failed = 0;
        self.behind = 0;
        self.over = None;
    }

    /// Another server is asked from now on. The position stays if that one knows it.
    pub fn moved(&mut self) {
        self.moved = true;
        self.reading = false;
        self.failed = 0;
        self.behind = 0;
        self.over = None;
    }

    /// The answer to what [`ask`](Self::ask) named.
    pub fn answered(&mut self, now: Duration, outcome: &Outcome) -> Verdict {
        if let Some(over) = self.over {
            return Verdict::Over(over);
        }
        match outcome {
            Outcome::Silent => Verdict::Ask,
            Outcome::Broken => self.failure(now),
            Outcome::Answered(answer) if answer.closed => self.end(Over::Closed),
            Outcome::Answered(answer) => match answer.status {
                status::OK => self.found(now, answer),
                status::MISSING => self.missing(now, answer.latest),
                // Between two segments, with nothing gone wrong: it was deleted, as when a waiting GET is told so.
                status::NO_CHANNEL if self.settings.wait_for_channel && (self.failed > 0 || !self.reading) => {
                    self.wanted = self.settings.start;
                    self.reading = false;
                    if self.stats.read > 0 {
                        // The one that comes is another channel, and counts anew, or goes on where its publisher is.
                        self.wanted = self.settings.start_or_live();
                        self.expected = None;
                        self.discont = true;
                    }
                    self.resume = 0;
                    Verdict::AskAt(now.saturating_add(self.settings.retry))
                }
                status::NO_CHANNEL => self.end(Over::NoChannel),
                refused @ (401 | 403) => self.end(Over::Refused(refused)),
                _ => self.failure(now),
            },
        }
    }

    /// The body of a segment has ended as it should.
    pub fn finished(&mut self, _seq: u64) {
        self.failed = 0;
        self.resume = 0;
    }

    /// The body of a segment broke off after so many bytes. It is asked for again, and what was read is left out.
    pub fn broke(&mut self, now: Duration, seq: u64, bytes: u64) -> Verdict {
        self.wanted = Wanted::Number(seq);
        self.resume = bytes;
        self.failure(now)
    }

    /// Why it is over.
    pub fn over(&self) -> Option<Over> {
        self.over
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn found(&mut self, now: Duration, answer: &Answer) -> Verdict {
        let said = answer.seq.and_then(|seq| u64::try_from(seq).ok());
        let asked = match self.wanted {
            Wanted::Number(seq) => Some(seq),
            Wanted::Next | Wanted::Current => None,
        };
        // None comes after the last number there is.
        let Some(seq) = said.or(asked).filter(|seq| *seq <= MAX_SEQ) else {
            return self.failure(now);
        };
        let lag = answer.latest.map_or(0, |latest| latest.saturating_sub(seq + 1));
        self.behind = 0;
        self.moved = false;
        self.reading = true;
        if self.settings.max_lag.is_some_and(|max| lag > max) && self.resume == 0 {
            let latest = answer.latest.unwrap_or(seq);
            match self.settings.lag {
                LagPolicy::Error => return self.end(Over::Lagged),
                // The one being written: it is there, and it is the newest that is.
                LagPolicy::Jump => return self.jump(latest.saturating_sub(1)),
                LagPolicy::Earliest => (),
            }
        }
        if answer.empty {
            self.failed = 0;
            self.stats.empty += 1;
            self.step(seq);
            return Verdict::Ask;
        }
        let resumed = self.resume > 0 && self.expected == Some(seq + 1);
        let resume = if resumed { std::mem::take(&mut self.resume) } else { 0 };
        let gap = self.gap(seq);
        let discont = !resumed && (gap > 0 || self.discont || self.expected.is_some_and(|expected| seq < expected));
        self.resume = 0;
        self.discont = false;
        self.stats.skipped += gap;
        self.stats.resumed += u64::from(resumed);
        self.stats.read += u64::from(!resumed);
        self.step(seq);
        Verdict::Read {
            seq,
            gap,
            discont,
            lag,
            resume,
        }
    }

    fn missing(&mut self, now: Duration, latest: Option<u64>) -> Verdict {
        self.resume = 0;
        let Some(latest) = latest else {
            self.wanted = Wanted::Next;
            return self.failure(now);
        };
        let wanted = match self.wanted {
            Wanted::Number(wanted) => wanted,
            // It has nothing yet, or something far ahead is all it has.
            Wanted::Next | Wanted::Current => return self.again(now, Wanted::Next),
        };
        if wanted <= latest && latest - wanted < WINDOW as u64 {
            // It should be there. Older servers say this of a segment without a byte: go on after it.
            self.stats.empty += 1;
            self.behind = 0;
            self.step(wanted);
            return Verdict::Ask;
        }
        if wanted < latest {
            return match self.settings.lag {
                LagPolicy::Error => self.end(Over::Lagged),
                LagPolicy::Jump => self.jump(latest),
                LagPolicy::Earliest => self.jump(latest - (WINDOW as u64 - 1)),
            };
        }
        self.behind += 1;
        if self.moved || self.behind > PATIENCE || wanted - latest > WINDOW as u64 {
            // Not a little behind but another count: a publisher that has restarted, another server.
            self.moved = false;
            self.discont = true;
            self.expected = None;
            self.stats.jumps += 1;
            return self.again(now, self.settings.start_or_live());
        }
        Verdict::AskAt(now.saturating_add(self.settings.behind))
    }

    fn again(&mut self, now: Duration, wanted: Wanted) -> Verdict {
        self.wanted = wanted;
        Verdict::AskAt(now.saturating_add(self.settings.behind))
    }

    fn jump(&mut self, to: u64) -> Verdict {
        self.wanted = Wanted::Number(to);
        self.discont = true;
        self.behind = 0;
        self.stats.jumps += 1;
        Verdict::Ask
    }

    fn gap(&self, seq: u64) -> u64 {
        self.expected.map_or(0, |expected| seq.saturating_sub(expected))
    }

    fn step(&mut self, seq: u64) {
        self.expected = Some(seq + 1);
        self.wanted = Wanted::Number(seq + 1);
    }

    fn failure(&mut self, now: Duration) -> Verdict {
        self.failed = self.failed.saturating_add(1);
        self.stats.failures += 1;
        if self.settings.failures.is_some_and(|failures| self.failed > failures) {
            return self.end(Over::Failed);
        }
        Verdict::AskAt(now.saturating_add(self.settings.retry))
    }

    fn end(&mut self, over: Over) -> Verdict {
        self.over = Some(over);
        Verdict::Over(over)
    }
}

impl Settings {
    /// Where to begin in a channel whose numbers are not the ones that were read.
    fn start_or_live(&self) -> Wanted {
        match self.start {
            Wanted::Number(_) => Wanted::Current,
            start => start,
        }
    }
}

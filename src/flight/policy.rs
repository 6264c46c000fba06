//! The buffer itself. Read [`FlightBuffer::admit`], [`FlightBuffer::mark`] and [`FlightBuffer::next`] first.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Admit, Change, Leaky, MAX_MARKERS, Mark, Marker, Next, Settings, State, Stats, Timing, Why};

/// Arrivals from which an unknown frame duration is learnt.
const LEARNT_FROM: u32 = 16;

/// An overrun is told at most this often: behind a fast source the buffer is full all the time, as it should be.
const OVERRUN_PAUSE: Duration = Duration::from_secs(1);

/// Changes kept for a caller that has not asked yet.
const MAX_CHANGES: usize = 4;

/// Collects frames before the first release, then passes them on. See the [module](super).
#[derive(Debug)]
pub struct FlightBuffer<T> {
    settings: Settings,
    capacity: usize,
    threshold: usize,
    slots: VecDeque<Slot<T>>,
    fill: usize,
    state: State,
    /// When a frame last left. Read only when running and empty: one has left then.
    last_left: Duration,
    /// Nothing but markers has come since one that [`Marker::Releases`]: the silence is meant.
    tail_released: bool,
    /// The next frame to be queued follows a dropped one.
    discont: bool,
    /// The latest time handed in.
    now: Duration,
    /// Full was not counted yet, or the buffer has been below full by one batch since.
    overrun_armed: bool,
    /// An overrun was counted and is still to be told.
    overrun_owed: bool,
    /// When one was told last.
    overrun_told: Option<Duration>,
    /// Whole batches told while filling; `None` until the first frame.
    batches_told: Option<usize>,
    changes: VecDeque<Change>,
    given_duration: Option<Duration>,
    learning: Learning,
    earliest: Option<Duration>,
    stats: Stats,
}

#[derive(Debug)]
enum Slot<T> {
    Frame(Held<T>),
    Marker(T),
}

#[derive(Debug)]
struct Held<T> {
    frame: T,
    timing: Timing,
    /// Its number among all arrivals, dropped ones included.
    arrival: u64,
    discont: bool,
}

impl<T> FlightBuffer<T> {
    /// An empty buffer that is filling.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            capacity: settings.capacity(),
            threshold: settings.threshold_frames(),
            slots: VecDeque::new(),
            fill: 0,
            state: State::Filling,
            last_left: Duration::ZERO,
            tail_released: false,
            discont: false,
            now: Duration::ZERO,
            overrun_armed: true,
            overrun_owed: false,
            overrun_told: None,
            batches_told: None,
            changes: VecDeque::with_capacity(MAX_CHANGES),
            given_duration: None,
            learning: Learning::default(),
            earliest: None,
            stats: Stats::default(),
        }
    }

    /// Changes the settings at once.
    ///
    /// Frames beyond a smaller capacity are not lost in silence: with a leaky rule they come out of
    /// [`next`](Self::next) as [`Next::Drop`], without one they leave in order and newcomers wait until there is room.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
        self.capacity = settings.capacity();
        self.threshold = settings.threshold_frames();
        self.settle();
    }

    /// Offers a frame.
    pub fn admit(&mut self, now: Duration, frame: T, timing: Timing) -> Admit<T> {
        self.now = now;
        let full = self.fill >= self.capacity;
        if full && self.settings.leaky == Leaky::None {
            return Admit::Full(frame);
        }
        self.learning.arrival(now, timing.time);
        let arrival = self.stats.frames_in;
        self.stats.frames_in += 1;
        let discont = std::mem::take(&mut self.discont);
        self.slots.push_back(Slot::Frame(Held {
            frame,
            timing,
            arrival,
            discont,
        }));
        self.fill += 1;
        if full {
            // Queued first and chosen among all: every rule then is one search over one queue.
            let index = self.victim();
            let newcomer = index + 1 == self.slots.len();
            let frame = self.drop_at(index, Why::Overrun);
            return if newcomer {
                Admit::Dropped(frame, Why::Overrun)
            } else {
                self.tail_released = false;
                Admit::Displaced(frame, Why::Overrun)
            };
        }
        self.tail_released = false;
        self.stats.peak_fill = self.stats.peak_fill.max(self.fill);
        self.settle();
        Admit::Queued
    }

    /// Offers something that keeps its place among the frames: an event, a query.
    ///
    /// Markers are never dropped. While the buffer is filling, one that stands before the first frame leaves at once.
    pub fn mark(&mut self, item: T, marker: Marker) -> Mark<T> {
        if self.stats.markers >= MAX_MARKERS {
            return Mark::Full(item);
        }
        self.slots.push_back(Slot::Marker(item));
        self.stats.markers += 1;
        let releases = marker == Marker::Releases;
        self.tail_released |= releases;
        // A full queue of markers blocks the very thread that would bring the frames the hold waits for.
        if self.fill > 0 && self.state == State::Filling && (releases || self.stats.markers == MAX_MARKERS) {
            self.run();
        }
        Mark::Queued
    }

    /// What leaves now.
    pub fn next(&mut self, now: Duration) -> Next<T> {
        self.now = now;
        if self.fill > self.capacity && self.settings.leaky != Leaky::None {
            let index = self.victim();
            return Next::Drop(self.drop_at(index, Why::Overrun), Why::Overrun);
        }
        match self.slots.pop_front() {
            None => self.nothing(now),
            Some(Slot::Marker(item)) => {
                self.stats.markers -= 1;
                Next::Marker(item)
            }
            Some(Slot::Frame(held)) if self.is_late(&held.timing) => {
                self.slots.push_front(Slot::Frame(held));
                let frame = self.drop_at(0, Why::Late);
                self.left(now);
                Next::Drop(frame, Why::Late)
            }
            Some(Slot::Frame(held)) if self.state == State::Filling => {
                self.slots.push_front(Slot::Frame(held));
                Next::Idle
            }
            Some(Slot::Frame(held)) => {
                self.fill -= 1;
                self.stats.frames_out += 1;
                self.left(now);
                Next::Frame {
                    frame: held.frame,
                    discont: held.discont,
                }
            }
        }
    }

    /// Empties the buffer and starts over: filling, with no end of stream behind it.
    ///
    /// Everything held is handed out, frames and markers, in order. The earliest time is forgotten with the running
    /// times it belonged to; the frame duration and the counters stay. The next frame released is a `discont`.
    pub fn flush(&mut self) -> impl Iterator<Item = T> + use<'_, T> {
        self.stats.flushed += self.fill as u64;
        self.stats.markers = 0;
        self.fill = 0;
        self.collect();
        self.tail_released = false;
        self.discont = true;
        self.overrun_armed = true;
        self.overrun_owed = false;
        self.changes.clear();
        self.learning.restart_if_unfinished();
        self.earliest = None;
        self.slots.drain(..).map(|slot| match slot {
            Slot::Frame(held) => held.frame,
            Slot::Marker(item) => item,
        })
    }

    /// For a reader that wants no more frames up to a marker for which `resumes` holds: answers those before it, or all
    /// where there is none, and whether there is one. Markers keep their places; the next frame is a `discont`.
    pub fn skip_to(&mut self, resumes: impl Fn(&T) -> bool) -> (Vec<T>, bool) {
        let is_it = |slot: &Slot<T>| matches!(slot, Slot::Marker(item) if resumes(item));
        let found = self.slots.iter().position(is_it);
        let before = found.unwrap_or(self.slots.len());
        let (mut skipped, mut discont) = (Vec::new(), true);
        for (at, slot) in std::mem::take(&mut self.slots).into_iter().enumerate() {
            match slot {
                Slot::Frame(held) if at < before => skipped.push(held.frame),
                Slot::Frame(mut held) => {
                    held.discont |= std::mem::take(&mut discont);
                    self.slots.push_back(Slot::Frame(held));
                }
                marker => self.slots.push_back(marker),
            }
        }
        self.discont |= discont;
        self.fill -= skipped.len();
        self.stats.flushed += skipped.len() as u64;
        self.rearm();
        (skipped, found.is_some())
    }

    /// Sets the frame duration that the caps promise. `None` or zero: learn it from what arrives, beginning anew.
    pub fn set_frame_duration(&mut self, duration: Option<Duration>) {
        self.given_duration = duration.filter(|duration| !duration.is_zero());
        if self.given_duration.is_none() {
            self.learning = Learning::default();
        }
    }

    /// The frame duration, given or learnt.
    ///
    /// It is learnt from the first 16 arrivals: count over span, never a mean of gaps, which swings with bursts. The
    /// span is one of running times, or of arrivals (`now`) when a frame came without a time.
    pub fn frame_duration(&self) -> Option<Duration> {
        self.given_duration.or(self.learning.learnt)
    }

    /// Sets the running time before which downstream has no use for a frame.
    ///
    /// Unless the buffer is [`Leaky::None`], frames that end before it leave as [`Next::Drop`] with [`Why::Late`] as
    /// they come to the head, held or not; frames with priority or without a time never do.
    pub fn set_earliest(&mut self, earliest: Option<Duration>) {
        self.earliest = earliest;
    }

    /// Where the buffer stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The oldest change not yet told. Ask after every call that may change something, until there is none.
    pub fn take_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// What the buffer adds to the latency of the pipeline, at least and at most.
    ///
    /// With P frames to collect and a frame duration T the least is (P - 1) T, not P T: the first frame waits for the
    /// arrival of P - 1 others, and leaves the moment the last of them is there. The most is what a full buffer holds.
    pub fn latency(&self, frame_duration: Duration) -> (Duration, Duration) {
        let min = times(frame_duration, self.threshold.saturating_sub(1));
        (min, times(frame_duration, self.capacity))
    }

    /// Frames held.
    pub fn fill(&self) -> usize {
        self.fill
    }

    /// True if neither frames nor markers are held.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// True if the next frame would find no room, be it dropped, displace another or have to wait.
    pub fn is_full(&self) -> bool {
        self.fill >= self.capacity
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        Stats {
            fill: self.fill,
            capacity: self.capacity,
            threshold_frames: self.threshold,
            ..self.stats
        }
    }

    /// Draws the conclusions from a fill or settings that changed.
    fn settle(&mut self) {
        match self.state {
            State::Filling if self.fill == 0 => {}
            State::Filling if self.fill >= self.threshold => self.run(),
            State::Filling => self.tell_filling(),
            State::Underrun if self.fill > 0 => self.run(),
            State::Underrun | State::Running => {}
        }
        self.rearm();
        if self.fill < self.capacity {
            return;
        }
        if self.overrun_armed {
            (self.overrun_armed, self.overrun_owed) = (false, true);
            self.stats.overruns += 1;
        }
        let may_tell = self
            .overrun_told
            .is_none_or(|told| self.now.saturating_sub(told) >= OVERRUN_PAUSE);
        if self.overrun_owed && may_tell {
            (self.overrun_owed, self.overrun_told) = (false, Some(self.now));
            self.tell(Change::Overrun {
                dropped: self.stats.dropped_overrun,
            });
        }
    }

    fn run(&mut self) {
        self.state = State::Running;
        self.tell(Change::Running);
    }

    fn collect(&mut self) {
        self.state = State::Filling;
        self.batches_told = None;
    }

    fn tell_filling(&mut self) {
        let batches = self.fill / self.settings.batch_frames();
        if self.batches_told.is_none_or(|told| batches > told) {
            self.batches_told = Some(batches);
            let expected = self
                .frame_duration()
                .map(|duration| times(duration, self.threshold - self.fill));
            self.tell(Change::Filling {
                fill: self.fill,
                threshold: self.threshold,
                expected,
            });
        }
    }

    fn tell(&mut self, change: Change) {
        // A caller that never asks costs a bounded memory, and hears the newest when it does.
        if self.changes.len() == MAX_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
    }

    fn rearm(&mut self) {
        if self.fill + self.settings.batch_frames() <= self.capacity {
            self.overrun_armed = true;
        }
    }

    /// A frame left through `next`.
    fn left(&mut self, now: Duration) {
        self.last_left = now;
        self.rearm();
    }

    /// The answer of an empty queue.
    fn nothing(&mut self, now: Duration) -> Next<T> {
        if self.state != State::Running || self.tail_released {
            return Next::Idle;
        }
        let Some(duration) = self.frame_duration() else {
            return Next::Idle;
        };
        // Two frames at least: one that is late by less than its own duration is jitter.
        let patience = times(duration, self.settings.batch_frames().max(2));
        let until = self.last_left.saturating_add(patience);
        if now < until {
            return Next::WaitUntil(until);
        }
        self.stats.underruns += 1;
        self.tell(Change::Underrun);
        if self.settings.rebuffer {
            self.collect();
        } else {
            self.state = State::Underrun;
        }
        Next::Idle
    }

    fn is_late(&self, timing: &Timing) -> bool {
        let Some(earliest) = self.earliest else { return false };
        let Some(time) = timing.time else { return false };
        if timing.priority || self.settings.leaky == Leaky::None {
            return false;
        }
        let duration = timing.duration.or(self.frame_duration()).unwrap_or_default();
        time.saturating_add(duration) < earliest
    }

    /// Takes a frame out of the order; the one behind it no longer follows on.
    fn drop_at(&mut self, index: usize, why: Why) -> T {
        match why {
            Why::Overrun => self.stats.dropped_overrun += 1,
            Why::Late => self.stats.dropped_late += 1,
        }
        self.fill -= 1;
        let Some(Slot::Frame(held)) = self.slots.remove(index) else {
            unreachable!("a dropped slot holds a frame")
        };
        let behind = self.slots.range_mut(index..).find_map(|slot| match slot {
            Slot::Frame(held) => Some(held),
            Slot::Marker(_) => None,
        });
        match behind {
            Some(behind) => behind.discont = true,
            None => self.discont = true,
        }
        held.frame
    }

    /// The slot of the frame that has to go. There is at least one frame.
    fn victim(&self) -> usize {
        let first = || self.frames().next();
        let last = || self.frames().next_back();
        let chosen = match self.settings.leaky {
            Leaky::Oldest | Leaky::None => self.frames().find(|(_, held)| !held.timing.priority).or_else(first),
            Leaky::Newest => self.frames().rfind(|(_, held)| !held.timing.priority).or_else(last),
            Leaky::Thin => self
                .closest(|held| !held.timing.priority)
                .or_else(|| first().filter(|(_, held)| !held.timing.priority))
                .or_else(|| last().filter(|(_, held)| !held.timing.priority))
                .or_else(|| self.closest(|_| true))
                .or_else(first),
        };
        chosen.expect("a full buffer holds a frame").0
    }

    /// Of the frames between the first and the last, the one whose neighbours are closest together; of several, the
    /// oldest. If any frame has no time all are judged by their numbers: the two cannot be compared.
    fn closest(&self, may_go: impl Fn(&Held<T>) -> bool) -> Option<(usize, &Held<T>)> {
        let timed = self.frames().all(|(_, held)| held.timing.time.is_some());
        let place = |held: &Held<T>| match held.timing.time {
            Some(time) if timed => time,
            _ => Duration::from_nanos(held.arrival),
        };
        let before = self.frames();
        let middle = self.frames().skip(1);
        let behind = self.frames().skip(2);
        before
            .zip(middle)
            .zip(behind)
            .filter(|((_, (_, held)), _)| may_go(held))
            .min_by_key(|(((_, before), _), (_, behind))| place(behind).abs_diff(place(before)))
            .map(|((_, middle), _)| middle)
    }

    fn frames(&self) -> impl DoubleEndedIterator<Item = (usize, &Held<T>)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| match slot {
            Slot::Frame(held) => Some((index, held)),
            Slot::Marker(_) => None,
        })
    }
}

/// Learns the frame duration from the first arrivals.
#[derive(Debug, Default)]
struct Learning {
    learnt: Option<Duration>,
    arrivals: u32,
    timed: u32,
    times: Span,
    nows: Span,
}

impl Learning {
    fn arrival(&mut self, now: Duration, time: Option<Duration>) {
        if self.learnt.is_some() {
            return;
        }
        self.arrivals += 1;
        self.nows.include(now);
        if let Some(time) = time {
            self.timed += 1;
            self.times.include(time);
        }
        if self.arrivals == LEARNT_FROM {
            let span = if self.timed == LEARNT_FROM {
                &self.times
            } else {
                &self.nows
            };
            // N arrivals are N - 1 durations apart.
            let learnt = span.length() / (LEARNT_FROM - 1);
            *self = Self {
                learnt: Some(learnt).filter(|learnt| !learnt.is_zero()),
                ..Self::default()
            };
        }
    }

    /// Times before a flush and after it make no span.
    fn restart_if_unfinished(&mut self) {
        if self.learnt.is_none() {
            *self = Self::default();
        }
    }
}

#[derive(Debug, Default)]
struct Span(Option<(Duration, Duration)>);

impl Span {
    fn include(&mut self, time: Duration) {
        let (low, high) = self.0.unwrap_or((time, time));
        self.0 = Some((low.min(time), high.max(time)));
    }

    fn length(&self) -> Duration {
        self.0.map_or(Duration::ZERO, |(low, high)| high - low)
    }
}

fn times(duration: Duration, count: usize) -> Duration {
    duration.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

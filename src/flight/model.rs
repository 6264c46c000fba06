//! The buffer compared with a slow and plainly right one, over random sequences.

use std::time::Duration;

use proptest::prelude::*;

use super::sequences::{self, pick, same};
use super::*;

#[test]
fn model_agrees_on_every_random_sequence() {
    sequences::check(event, play);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn model_agrees_on_sequences_that_shrink(words in prop::collection::vec(any::<u64>(), 1..200)) {
        play(&words).map_err(TestCaseError::fail)?;
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Admit {
        time: Option<i64>,
        duration: Option<u64>,
        priority: bool,
    },
    Mark(Marker),
    ManyMarks(Marker),
    Next,
    Step(u64),
    Flush,
    Configure(Settings),
    FrameDuration(Option<u64>),
    Earliest(Option<i64>),
}

fn event(word: u64) -> Event {
    match word & 0xff {
        0..95 => Event::Admit {
            // Around the beat of 10 ms, sometimes out of order, sometimes unknown.
            time: (word >> 8 & 0xf != 0).then(|| pick(word, 12, &[0, 0, 0, 0, 3, -4, 8, -15])),
            duration: (word >> 20 & 1 == 0).then_some(10),
            priority: word >> 24 & 3 == 0,
        },
        95..105 => Event::Mark(Marker::Ordered),
        105..112 => Event::Mark(Marker::Releases),
        112..170 => Event::Next,
        170..220 => Event::Step(pick(word, 8, &[1, 5, 10, 10, 10, 20, 80, 1000])),
        220..223 => Event::Flush,
        223..235 => Event::Configure(settings(word)),
        235..242 => Event::FrameDuration(pick(word, 8, &[None, Some(0), Some(10), Some(10), Some(40)])),
        // A thousand markers are slow and interesting only rarely.
        242 if word >> 8 & 0xff == 0 => Event::ManyMarks(pick(word, 16, &[Marker::Ordered, Marker::Releases])),
        242..248 => Event::Earliest(pick(word, 8, &[None, Some(0), Some(-20), Some(20), Some(10)])),
        _ => Event::Next,
    }
}

fn settings(word: u64) -> Settings {
    Settings {
        batch_size: pick(word, 16, &[1, 1, 2, 3, 4, 0]),
        threshold: pick(word, 24, &[0, 1, 2, 3]),
        max_batches: pick(word, 32, &[0, 1, 2, 3, 4]),
        leaky: pick(word, 40, &[Leaky::None, Leaky::Oldest, Leaky::Newest, Leaky::Thin]),
        rebuffer: word >> 48 & 1 == 0,
    }
}

fn play(words: &[u64]) -> Result<(), String> {
    let first = settings(words[0].rotate_left(8));
    let mut world = World {
        buffer: FlightBuffer::new(first),
        model: Model::new(first),
        now: Duration::from_secs(3),
        offered: 0,
        frames: 0,
        last_out: None,
        gone: 0,
        shrunk: false,
    };
    for word in words {
        world.event(event(*word))?;
    }
    world.end()
}

struct World {
    buffer: FlightBuffer<u32>,
    model: Model,
    now: Duration,
    offered: u32,
    frames: u32,
    /// The last item that left in order.
    last_out: Option<u32>,
    /// Items that left in any way.
    gone: usize,
    /// The capacity was made smaller than the fill.
    shrunk: bool,
}

impl World {
    fn event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Admit {
                time,
                duration,
                priority,
            } => {
                self.frames += 1;
                let time = time.map(|off| at(i64::from(self.frames) * 10 + off));
                let timing = Timing {
                    time,
                    duration: duration.map(Duration::from_millis),
                    priority,
                };
                let (buffer, model) = (&mut self.buffer, &mut self.model);
                let admit = same!(
                    buffer.admit(self.now, self.offered, timing),
                    model.admit(self.now, self.offered, timing)
                );
                self.offered += 1;
                self.gone += usize::from(admit != Admit::Queued);
            }
            Event::Mark(marker) => self.mark(marker)?,
            Event::ManyMarks(marker) => {
                for _ in 0..=MAX_MARKERS {
                    self.mark(marker)?;
                }
            }
            Event::Next => drop(self.next()?),
            Event::Step(ms) => self.now += Duration::from_millis(ms),
            Event::Flush => {
                let flushed: Vec<u32> = self.buffer.flush().collect();
                self.gone += same!(flushed, self.model.flush()).len();
            }
            Event::Configure(settings) => {
                self.buffer.configure(settings);
                self.model.configure(settings);
                self.shrunk = self.buffer.fill() > settings.capacity();
            }
            Event::FrameDuration(ms) => {
                self.buffer.set_frame_duration(ms.map(Duration::from_millis));
                self.model.set_frame_duration(ms.map(Duration::from_millis));
            }
            Event::Earliest(off) => {
                let earliest = off.map(|off| at(i64::from(self.frames) * 10 + off));
                self.buffer.set_earliest(earliest);
                self.model.earliest = earliest;
            }
        }
        let changes: Vec<Change> = std::iter::from_fn(|| self.buffer.take_change()).collect();
        same!(changes, std::mem::take(&mut self.model.changes));
        same!(self.buffer.state(), self.model.state);
        same!(self.buffer.frame_duration(), self.model.frame_duration());
        same!(self.buffer.fill(), self.model.frames().len());
        same!(self.buffer.is_empty(), self.model.items.is_empty());
        self.invariants()
    }

    fn mark(&mut self, marker: Marker) -> Result<(), String> {
        let mark = same!(
            self.buffer.mark(self.offered, marker),
            self.model.mark(self.offered, marker)
        );
        self.offered += 1;
        self.gone += usize::from(mark != Mark::Queued);
        Ok(())
    }

    fn next(&mut self) -> Result<Next<u32>, String> {
        let next = same!(self.buffer.next(self.now), self.model.next(self.now));
        match next {
            Next::Frame { frame: item, .. } | Next::Marker(item) => {
                if self.last_out.is_some_and(|last| last >= item) {
                    return Err(format!("{item} left after {:?}", self.last_out));
                }
                self.last_out = Some(item);
                self.gone += 1;
            }
            Next::Drop(..) => self.gone += 1,
            Next::WaitUntil(time) if time <= self.now => return Err(format!("waits until {time:?}, which is past")),
            Next::WaitUntil(_) | Next::Idle => {}
        }
        Ok(next)
    }

    fn invariants(&mut self) -> Result<(), String> {
        let stats = self.buffer.stats();
        let out = stats.frames_out + stats.dropped_overrun + stats.dropped_late + stats.flushed;
        same!(stats.frames_in, out + stats.fill as u64);
        same!(self.offered as usize, self.gone + stats.fill + stats.markers);
        self.shrunk &= stats.fill > stats.capacity;
        if stats.fill > stats.capacity && !self.shrunk || stats.markers > MAX_MARKERS {
            return Err(format!("holds too much: {stats:?}"));
        }
        if self.buffer.state() == State::Filling && stats.fill > 0 && stats.fill >= stats.threshold_frames {
            return Err(format!("collects for ever: {stats:?}"));
        }
        Ok(())
    }

    /// Nothing stays behind a marker that releases.
    fn end(mut self) -> Result<(), String> {
        while self.buffer.stats().markers == MAX_MARKERS {
            self.event(Event::Next)?;
        }
        self.event(Event::Mark(Marker::Releases))?;
        while !matches!(self.next()?, Next::Idle) {}
        same!(self.buffer.is_empty(), true);
        self.invariants()
    }
}

fn at(ms: i64) -> Duration {
    Duration::from_millis((100 + ms) as u64)
}

/// One thing in the queue; a marker has no timing.
#[derive(Debug, Clone, Copy)]
struct Item {
    id: u32,
    frame: Option<Timing>,
    /// Its number among everything that ever happened to the order: offers and flushes.
    place: usize,
    arrival: u64,
}

/// The buffer as one would say it: one list, searched from the front for every answer.
struct Model {
    settings: Settings,
    items: Vec<Item>,
    state: State,
    changes: Vec<Change>,
    given: Option<Duration>,
    learnt: Option<Duration>,
    /// Arrivals and times, until there are enough to learn from.
    arrivals: Vec<(Duration, Option<Duration>)>,
    earliest: Option<Duration>,
    /// Places of dropped frames and of flushes.
    breaks: Vec<usize>,
    released: usize,
    places: usize,
    arrived: u64,
    dropped: u64,
    empty_since: Option<Duration>,
    silence_is_meant: bool,
    told_batches: Option<usize>,
    told_full: bool,
    now: Duration,
    /// Full, and nobody knows yet.
    untold_full: bool,
    last_told_full: Option<Duration>,
}

impl Model {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            items: Vec::new(),
            state: State::Filling,
            changes: Vec::new(),
            given: None,
            learnt: None,
            arrivals: Vec::new(),
            earliest: None,
            breaks: Vec::new(),
            released: 0,
            places: 0,
            arrived: 0,
            dropped: 0,
            empty_since: None,
            silence_is_meant: false,
            told_batches: None,
            told_full: false,
            now: Duration::ZERO,
            untold_full: false,
            last_told_full: None,
        }
    }

    fn batch(&self) -> usize {
        if self.settings.batch_size == 0 {
            1
        } else {
            self.settings.batch_size
        }
    }

    fn capacity(&self) -> usize {
        self.batch()
            * if self.settings.max_batches == 0 {
                1
            } else {
                self.settings.max_batches
            }
    }

    fn threshold(&self) -> usize {
        (self.batch() * self.settings.threshold).min(self.capacity())
    }

    fn frames(&self) -> Vec<Item> {
        self.items.iter().copied().filter(|item| item.frame.is_some()).collect()
    }

    fn frame_duration(&self) -> Option<Duration> {
        self.given.or(self.learnt)
    }

    fn set_frame_duration(&mut self, duration: Option<Duration>) {
        self.given = duration.filter(|duration| *duration > Duration::ZERO);
        if self.given.is_none() {
            self.learnt = None;
            self.arrivals.clear();
        }
    }

    fn configure(&mut self, settings: Settings) {
        self.settings = settings;
        self.conclude();
    }

    fn admit(&mut self, now: Duration, id: u32, timing: Timing) -> Admit<u32> {
        self.now = now;
        let frames = self.frames();
        let room = frames.len() < self.capacity();
        if !room && self.settings.leaky == Leaky::None {
            return Admit::Full(id);
        }
        self.learn(now, timing.time);
        self.places += 1;
        let item = Item {
            id,
            frame: Some(timing),
            place: self.places,
            arrival: self.arrived,
        };
        self.arrived += 1;
        self.items.push(item);
        let verdict = if room {
            Admit::Queued
        } else {
            let victim = self.drop_one();
            if victim == id {
                Admit::Dropped(id, Why::Overrun)
            } else {
                Admit::Displaced(victim, Why::Overrun)
            }
        };
        if !matches!(verdict, Admit::Dropped(..)) {
            self.silence_is_meant = false;
        }
        if room {
            self.conclude();
        }
        verdict
    }

    fn learn(&mut self, now: Duration, time: Option<Duration>) {
        if self.learnt.is_some() {
            return;
        }
        self.arrivals.push((now, time));
        if self.arrivals.len() == 16 {
            let mut all: Vec<Duration> = self.arrivals.iter().filter_map(|(_, time)| *time).collect();
            if all.len() < 16 {
                all = self.arrivals.iter().map(|(now, _)| *now).collect();
            }
            all.sort();
            self.learnt = Some((all[15] - all[0]) / 15).filter(|learnt| *learnt > Duration::ZERO);
            self.arrivals.clear();
        }
    }

    fn mark(&mut self, id: u32, marker: Marker) -> Mark<u32> {
        let markers = self.items.len() - self.frames().len();
        if markers == MAX_MARKERS {
            return Mark::Full(id);
        }
        self.places += 1;
        self.items.push(Item {
            id,
            frame: None,
            place: self.places,
            arrival: 0,
        });
        if marker == Marker::Releases {
            self.silence_is_meant = true;
        }
        let release = marker == Marker::Releases || markers + 1 == MAX_MARKERS;
        if release && self.state == State::Filling && !self.frames().is_empty() {
            self.state = State::Running;
            self.changes.push(Change::Running);
        }
        Mark::Queued
    }

    fn next(&mut self, now: Duration) -> Next<u32> {
        self.now = now;
        if self.frames().len() > self.capacity() && self.settings.leaky != Leaky::None {
            return Next::Drop(self.drop_one(), Why::Overrun);
        }
        let Some(head) = self.items.first().copied() else {
            return self.next_of_nothing(now);
        };
        let Some(timing) = head.frame else {
            self.items.remove(0);
            return Next::Marker(head.id);
        };
        let end = timing.time.map(|time| {
            time + timing
                .duration
                .unwrap_or_else(|| self.frame_duration().unwrap_or(Duration::ZERO))
        });
        let late = end.is_some_and(|end| self.earliest.is_some_and(|earliest| end < earliest));
        if late && !timing.priority && self.settings.leaky != Leaky::None {
            self.items.remove(0);
            self.breaks.push(head.place);
            self.emptied(now);
            return Next::Drop(head.id, Why::Late);
        }
        if self.state == State::Filling {
            return Next::Idle;
        }
        self.items.remove(0);
        let discont = self
            .breaks
            .iter()
            .any(|place| self.released < *place && *place < head.place);
        self.released = head.place;
        self.emptied(now);
        Next::Frame {
            frame: head.id,
            discont,
        }
    }

    fn next_of_nothing(&mut self, now: Duration) -> Next<u32> {
        if self.state == State::Running
            && !self.silence_is_meant
            && let Some(since) = self.empty_since
            && let Some(duration) = self.frame_duration()
        {
            let end = since + (duration * self.batch() as u32).max(duration * 2);
            if now < end {
                return Next::WaitUntil(end);
            }
            self.changes.push(Change::Underrun);
            self.state = State::Underrun;
            if self.settings.rebuffer {
                self.state = State::Filling;
                self.told_batches = None;
            }
        }
        Next::Idle
    }

    fn emptied(&mut self, now: Duration) {
        if self.frames().is_empty() {
            self.empty_since = Some(now);
        }
        self.below_full();
    }

    fn below_full(&mut self) {
        if self.frames().len() + self.batch() <= self.capacity() {
            self.told_full = false;
        }
    }

    fn flush(&mut self) -> Vec<u32> {
        self.places += 1;
        self.breaks.push(self.places);
        self.state = State::Filling;
        self.changes.clear();
        self.earliest = None;
        self.empty_since = None;
        self.silence_is_meant = false;
        self.told_batches = None;
        self.told_full = false;
        self.untold_full = false;
        self.arrivals.clear();
        self.items.drain(..).map(|item| item.id).collect()
    }

    fn conclude(&mut self) {
        let fill = self.frames().len();
        if fill > 0 {
            let was = self.state;
            if was == State::Underrun || was == State::Filling && fill >= self.threshold() {
                self.state = State::Running;
                self.changes.push(Change::Running);
            } else if was == State::Filling && self.told_batches.is_none_or(|told| fill / self.batch() > told) {
                self.told_batches = Some(fill / self.batch());
                let missing = self.threshold() - fill;
                let expected = self.frame_duration().map(|duration| duration * missing as u32);
                self.changes.push(Change::Filling {
                    fill,
                    threshold: self.threshold(),
                    expected,
                });
            }
        }
        self.below_full();
        if fill >= self.capacity() && !self.told_full {
            self.told_full = true;
            self.untold_full = true;
        }
        let long_ago = self
            .last_told_full
            .is_none_or(|last| self.now >= last + Duration::from_secs(1));
        if fill >= self.capacity() && self.untold_full && long_ago {
            self.untold_full = false;
            self.last_told_full = Some(self.now);
            self.changes.push(Change::Overrun { dropped: self.dropped });
        }
    }

    /// Ranks all frames by how gladly they are given up, and gives up the first.
    fn drop_one(&mut self) -> u32 {
        let frames = self.frames();
        let timed = frames.iter().all(|item| item.frame.unwrap().time.is_some());
        let place = |item: &Item| match (timed, item.frame.unwrap().time) {
            (true, Some(time)) => time.as_nanos() as i128,
            _ => i128::from(item.arrival),
        };
        let last = frames.len() - 1;
        let rank = |index: usize| {
            let thin = match index {
                0 => (1, 0, 0),
                _ if index == last => (2, 0, 0),
                _ => (0, (place(&frames[index + 1]) - place(&frames[index - 1])).abs(), index),
            };
            match self.settings.leaky {
                Leaky::None => unreachable!(),
                Leaky::Oldest => (0, 0, index),
                Leaky::Newest => (0, 0, last - index),
                Leaky::Thin => thin,
            }
        };
        let victim = (0..=last)
            .min_by_key(|index| (frames[*index].frame.unwrap().priority, rank(*index)))
            .unwrap();
        let victim = frames[victim];
        self.items.retain(|item| item.id != victim.id);
        self.breaks.push(victim.place);
        self.dropped += 1;
        victim.id
    }
}

//! The batcher compared with a slow and plainly right one, over random sequences.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::flight::sequences::{self, pick, same};

const NS: Duration = Duration::from_nanos(1);

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
    Offer {
        stream: u8,
        group: u64,
        deadline: Option<u64>,
    },
    Mark {
        stream: u8,
        cut: Cut,
    },
    ManyMarks {
        stream: u8,
    },
    Gap {
        stream: u8,
        start: u64,
        end: u64,
    },
    Join {
        stream: u8,
    },
    Leave {
        stream: u8,
        word: bool,
    },
    Drain,
    Flush {
        stream: u8,
    },
    Configure(Settings),
    Window(Option<u64>),
    Step(u64),
    Next,
    NextWhenPromised,
}

fn event(word: u64) -> Event {
    let stream = pick(word, 8, &[0, 0, 1, 1, 2, 3]);
    match word & 0xff {
        0..90 => Event::Offer {
            stream,
            group: pick(word, 16, &[7, 7, 7, 7, 7, 7, 7, 8, 9]),
            deadline: pick(word, 24, &[None, Some(10), Some(20), Some(30), Some(40)]),
        },
        90..100 => Event::Mark { stream, cut: Cut::No },
        100..106 => {
            let reason = pick(word, 16, &[Reason::Caps, Reason::Segment, Reason::Eos, Reason::Flush]);
            Event::Mark {
                stream,
                cut: Cut::Before(reason),
            }
        }
        106..112 => Event::Gap {
            stream,
            start: pick(word, 16, &[0, 10, 60]),
            end: pick(word, 24, &[5, 30, 50, 60, 61, 100]),
        },
        112..124 => Event::Join { stream },
        124..130 => Event::Leave {
            stream,
            word: word >> 16 & 1 == 0,
        },
        130..133 => Event::Drain,
        133..136 => Event::Flush { stream },
        136..142 => Event::Configure(settings(word)),
        142..146 => Event::Window(pick(word, 16, &[None, Some(20), Some(40)])),
        146..176 => Event::Step(pick(word, 8, &[1, 3, 5, 10, 10, 30])),
        176..200 => Event::NextWhenPromised,
        // A thousand markers are slow and interesting only rarely.
        200 if word >> 16 & 0x7f == 0 => Event::ManyMarks { stream },
        _ => Event::Next,
    }
}

fn settings(word: u64) -> Settings {
    Settings {
        size: pick(word, 16, &[0, 1, 2, 3, 4, 4, 8]),
        timeout: pick(word, 24, &[None, None, Some(0), Some(10), Some(10), Some(25)]).map(Duration::from_millis),
        policy: pick(
            word,
            32,
            &[Policy::Arrival, Policy::RoundRobin, Policy::EarliestDeadline],
        ),
        queue: pick(word, 40, &[0, 2, 6, 10]),
    }
}

fn play(words: &[u64]) -> Result<(), String> {
    let first = settings(words[0].rotate_left(8));
    let mut world = World {
        batcher: Batcher::new(first),
        model: Model::new(first),
        now: Duration::from_secs(3),
        offered: 0,
        gone: 0,
        groups: Vec::new(),
        last_out: BTreeMap::new(),
        promised: None,
    };
    for stream in 0..=(words[0] >> 60 & 3) as u8 {
        world.event(Event::Join { stream })?;
    }
    for word in words {
        world.event(event(*word))?;
    }
    world.end()
}

struct World {
    batcher: Batcher<u8, u32, u32>,
    model: Model,
    now: Duration,
    offered: u32,
    gone: usize,
    /// The group of each thing offered.
    groups: Vec<Option<u64>>,
    last_out: BTreeMap<u8, u32>,
    /// When a batch is due, if nothing happens before.
    promised: Option<Duration>,
}

impl World {
    fn id(&mut self, group: Option<u64>) -> u32 {
        self.groups.push(group);
        self.offered += 1;
        self.offered - 1
    }

    fn event(&mut self, event: Event) -> Result<(), String> {
        let now = self.now;
        let promised = self.promised.take();
        match event {
            Event::Offer {
                stream,
                group,
                deadline,
            } => {
                let id = self.id(Some(group));
                let deadline = deadline.map(Duration::from_millis);
                let (batcher, model) = (&mut self.batcher, &mut self.model);
                let offer = same!(
                    batcher.offer(now, stream, group, deadline, id),
                    model.offer(now, stream, group, deadline, id)
                );
                self.gone += usize::from(offer != Offer::Queued);
            }
            Event::Mark { stream, cut } => self.mark(stream, cut)?,
            Event::ManyMarks { stream } => {
                for _ in 0..=MAX_MARKERS {
                    self.mark(stream, Cut::No)?;
                }
            }
            Event::Gap { stream, start, end } => {
                let id = self.id(None);
                let (start, end) = (Duration::from_millis(start), Duration::from_millis(end));
                let (batcher, model) = (&mut self.batcher, &mut self.model);
                let mark = same!(
                    batcher.gap(now, stream, start, end, id),
                    model.gap(now, stream, start, end, id)
                );
                self.gone += usize::from(mark != Mark::Queued);
            }
            Event::Join { stream } => drop(same!(self.batcher.join(stream), self.model.join(stream))),
            Event::Leave { stream, word } => {
                let id = word.then(|| self.id(None));
                let leave = same!(self.batcher.leave(now, stream, id), self.model.leave(now, stream, id));
                self.gone += usize::from(word && leave != Leave::Leaving);
            }
            Event::Drain => {
                self.batcher.drain();
                self.model.drained = self.model.next_number;
            }
            Event::Flush { stream } => {
                let flushed: Vec<Entry<u8, u32, u32>> = self.batcher.flush_stream(stream).collect();
                self.gone += same!(flushed, self.model.flush(stream)).len();
            }
            Event::Configure(settings) => {
                self.batcher.configure(settings);
                self.model.settings = settings;
            }
            Event::Window(window) => {
                self.batcher.set_window(window.map(Duration::from_millis));
                self.model.window = window.map(Duration::from_millis);
            }
            Event::Step(ms) => {
                self.now += Duration::from_millis(ms);
                self.promised = promised.filter(|promised| self.now < *promised);
            }
            Event::Next => drop(self.next()?),
            Event::NextWhenPromised => {
                if let Some(promised) = promised {
                    self.now = promised - NS;
                    let _ = same!(self.next()?, Next::WaitUntil(promised));
                    self.now = promised;
                    if !matches!(self.next()?, Next::Batch { .. }) {
                        return Err(format!("nothing at {promised:?}"));
                    }
                }
            }
        }
        let stats = self.batcher.stats();
        same!(
            stats.frames_in,
            stats.frames_out + stats.frames_flushed + stats.waiting as u64
        );
        same!(
            stats.waiting,
            self.model.items.iter().filter(|item| item.is_frame()).count()
        );
        same!(stats.streams, self.model.streams.len());
        same!(self.batcher.is_empty(), self.model.items.is_empty());
        let markers = self
            .model
            .items
            .iter()
            .filter(|item| item.id.is_some() && !item.is_frame())
            .count();
        same!(self.offered as usize, self.gone + stats.waiting + markers);
        Ok(())
    }

    fn mark(&mut self, stream: u8, cut: Cut) -> Result<(), String> {
        let id = self.id(None);
        let mark = same!(
            self.batcher.mark(self.now, stream, id, cut),
            self.model.mark(self.now, stream, id, cut)
        );
        self.gone += usize::from(mark != Mark::Queued);
        Ok(())
    }

    fn next(&mut self) -> Result<Next, String> {
        let (mut entries, mut expected) = (Vec::new(), Vec::new());
        let next = same!(
            self.batcher.next(self.now, &mut entries),
            self.model.next(self.now, &mut expected)
        );
        same!(&entries, &expected);
        self.gone += entries.len();
        let mut of_group = 0;
        for entry in &entries {
            let (stream, id) = match *entry {
                Entry::Frame { stream, frame } => (stream, frame),
                Entry::Marker { stream, marker } => (stream, marker),
            };
            if let Some(last) = self.last_out.insert(stream, id).filter(|last| *last >= id) {
                return Err(format!("{id} left stream {stream} after {last}"));
            }
            let Next::Batch { group, .. } = next else {
                return Err(format!("entries with {next:?}"));
            };
            of_group += usize::from(self.groups[id as usize] == Some(group));
        }
        match next {
            Next::Batch { frames, reason, .. } => {
                let size = self.batcher.settings().size.max(1);
                let all = entries
                    .iter()
                    .filter(|entry| matches!(entry, Entry::Frame { .. }))
                    .count();
                if frames != all || frames != of_group || frames > size || entries.is_empty() {
                    return Err(format!("{next:?} with {entries:?}"));
                }
                same!(reason == Reason::Full, frames == size);
            }
            Next::WaitUntil(time) if time <= self.now => return Err(format!("waits until {time:?}, which is past")),
            Next::WaitUntil(_) | Next::Idle => {}
        }
        self.promised = match next {
            Next::WaitUntil(time) => Some(time),
            Next::Batch { .. } | Next::Idle => None,
        };
        Ok(next)
    }

    /// With a timeout, everything leaves in as many steps as there are things.
    fn end(mut self) -> Result<(), String> {
        let settings = Settings {
            timeout: Some(Duration::from_millis(10)),
            ..*self.batcher.settings()
        };
        self.event(Event::Configure(settings))?;
        let last = self.now + Duration::from_millis(10);
        for _ in 0..2 * self.model.items.len() + 2 {
            match self.next()? {
                Next::Batch { .. } => {}
                Next::WaitUntil(time) => self.now = time,
                Next::Idle => break,
            }
        }
        same!(self.batcher.is_empty(), true);
        same!(self.offered as usize, self.gone);
        if self.now > last {
            return Err("something waited longer than the timeout".into());
        }
        Ok(())
    }
}

/// One thing that waits. A cut without a word has no id.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Item {
    stream: u8,
    id: Option<u32>,
    number: usize,
    arrival: Duration,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Frame { group: u64, deadline: Option<Duration> },
    Tag,
    Cut(Reason),
}

impl Item {
    fn is_frame(&self) -> bool {
        matches!(self.kind, Kind::Frame { .. })
    }

    fn is_cut(&self) -> bool {
        matches!(self.kind, Kind::Cut(_))
    }

    fn group(&self) -> Option<u64> {
        match self.kind {
            Kind::Frame { group, .. } => Some(group),
            _ => None,
        }
    }

    fn entry(&self) -> Option<Entry<u8, u32, u32>> {
        let (stream, id) = (self.stream, self.id?);
        Some(match self.kind {
            Kind::Frame { .. } => Entry::Frame { stream, frame: id },
            _ => Entry::Marker { stream, marker: id },
        })
    }
}

/// The batcher as one would say it: one list in order of arrival, searched from the front for every answer.
struct Model {
    settings: Settings,
    window: Option<Duration>,
    /// Streams, and whether they are leaving.
    streams: BTreeMap<u8, bool>,
    items: Vec<Item>,
    next_number: usize,
    drained: usize,
    served: Option<u8>,
    chose: Option<u8>,
    group: u64,
}

impl Model {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            window: None,
            streams: BTreeMap::new(),
            items: Vec::new(),
            next_number: 0,
            drained: 0,
            served: None,
            chose: None,
            group: 0,
        }
    }

    fn of(&self, stream: u8) -> impl Iterator<Item = Item> + '_ {
        self.items.iter().copied().filter(move |item| item.stream == stream)
    }

    fn push(&mut self, now: Duration, stream: u8, id: Option<u32>, kind: Kind) {
        self.items.push(Item {
            stream,
            id,
            number: self.next_number,
            arrival: now,
            kind,
        });
        self.next_number += 1;
    }

    fn is_open(&self, stream: u8) -> bool {
        self.streams.get(&stream) == Some(&false)
    }

    fn join(&mut self, stream: u8) -> bool {
        self.streams.insert(stream, false) != Some(false)
    }

    fn leave(&mut self, now: Duration, stream: u8, id: Option<u32>) -> Leave<u32> {
        if !self.is_open(stream) {
            return Leave::Unknown(id);
        }
        self.streams.insert(stream, true);
        self.push(now, stream, id, Kind::Cut(Reason::Eos));
        if id.is_none() && self.of(stream).count() == 1 {
            self.flush(stream);
        }
        Leave::Leaving
    }

    fn offer(&mut self, now: Duration, stream: u8, group: u64, deadline: Option<Duration>, id: u32) -> Offer<u32> {
        if !self.is_open(stream) {
            return Offer::Unknown(id);
        }
        if self.of(stream).filter(Item::is_frame).count() >= self.settings.queue.max(self.settings.size).max(1) {
            return Offer::Full(id);
        }
        self.push(now, stream, Some(id), Kind::Frame { group, deadline });
        Offer::Queued
    }

    fn mark(&mut self, now: Duration, stream: u8, id: u32, cut: Cut) -> Mark<u32> {
        if !self.is_open(stream) {
            return Mark::Unknown(id);
        }
        let markers = self.of(stream).filter(|item| !item.is_frame()).count();
        if markers >= MAX_MARKERS {
            return Mark::Full(id);
        }
        let kind = match cut {
            Cut::No => Kind::Tag,
            Cut::Before(reason) => Kind::Cut(reason),
        };
        self.push(now, stream, Some(id), kind);
        if markers + 1 == MAX_MARKERS {
            self.drained = self.next_number;
        }
        Mark::Queued
    }

    fn gap(&mut self, now: Duration, stream: u8, start: Duration, end: Duration, id: u32) -> Mark<u32> {
        let mut cut = Cut::Before(Reason::Gap);
        if let Some(Item {
            kind: Kind::Frame { deadline, .. },
            ..
        }) = self.of(stream).find(Item::is_frame)
        {
            let limit = deadline.and_then(|deadline| self.window.map(|window| deadline + window));
            if limit.is_none_or(|limit| end <= limit) {
                cut = Cut::No;
            }
        }
        self.mark(now, stream, id, if start >= end { Cut::No } else { cut })
    }

    fn flush(&mut self, stream: u8) -> Vec<Entry<u8, u32, u32>> {
        let flushed = self.of(stream).filter_map(|item| item.entry()).collect();
        self.items.retain(|item| item.stream != stream);
        self.forget();
        flushed
    }

    fn forget(&mut self) {
        let items = &self.items;
        self.streams
            .retain(|stream, leaving| !*leaving || items.iter().any(|item| item.stream == *stream));
    }

    /// The first frame or cut of a stream.
    fn head(&self, stream: u8) -> Option<Item> {
        self.of(stream).find(|item| item.kind != Kind::Tag)
    }

    fn heads(&self) -> Vec<Item> {
        self.streams.keys().filter_map(|stream| self.head(*stream)).collect()
    }

    /// Takes the first items of a stream, up to and with this one.
    fn take(&mut self, last: Item, into: &mut Vec<Entry<u8, u32, u32>>) {
        let goes = |item: &Item| item.stream == last.stream && item.number <= last.number;
        into.extend(self.items.iter().filter(|item| goes(item)).filter_map(Item::entry));
        self.items.retain(|item| !goes(item));
        self.forget();
    }

    fn next(&mut self, now: Duration, into: &mut Vec<Entry<u8, u32, u32>>) -> Next {
        while let Some(cut) = self
            .heads()
            .into_iter()
            .filter(Item::is_cut)
            .min_by_key(|cut| cut.number)
        {
            let first_arrival = self.of(cut.stream).next().unwrap().arrival;
            self.take(cut, into);
            if !into.is_empty() {
                let Kind::Cut(reason) = cut.kind else { unreachable!() };
                return Next::Batch {
                    group: self.group,
                    frames: 0,
                    reason,
                    first_arrival,
                };
            }
        }
        // Now all heads are frames.
        let heads = self.heads();
        let frames: Vec<Item> = self.items.iter().copied().filter(Item::is_frame).collect();
        let drained = |item: &Item| item.number < self.drained;
        if frames.len() >= self.settings.size.max(1)
            || self.items.iter().any(Item::is_cut)
            || frames.iter().any(|frame| frame.group() != frames[0].group())
        {
            return self.batch(None, into);
        }
        if frames.iter().any(drained) {
            return self.batch(Some(Reason::Drain), into);
        }
        if self.items.iter().any(drained) {
            let first_arrival = self.items.iter().find(|item| drained(item)).unwrap().arrival;
            self.take_drained_tags(into);
            return Next::Batch {
                group: self.group,
                frames: 0,
                reason: Reason::Drain,
                first_arrival,
            };
        }
        let Some(timeout) = self.settings.timeout else {
            return Next::Idle;
        };
        // A tag waits by itself only in a stream without frames.
        let tag = self
            .items
            .iter()
            .copied()
            .find(|item| heads.iter().all(|head| head.stream != item.stream));
        if frames.first().is_some_and(|frame| frame.arrival + timeout <= now) {
            return self.batch(Some(Reason::Timeout), into);
        }
        if let Some(tag) = tag.filter(|tag| tag.arrival + timeout <= now) {
            let last = self.of(tag.stream).last().unwrap();
            self.take(last, into);
            return Next::Batch {
                group: self.group,
                frames: 0,
                reason: Reason::Timeout,
                first_arrival: tag.arrival,
            };
        }
        let oldest = frames.first().into_iter().chain(&tag).map(|item| item.arrival).min();
        oldest.map_or(Next::Idle, |arrival| Next::WaitUntil(arrival + timeout))
    }

    fn batch(&mut self, due: Option<Reason>, into: &mut Vec<Entry<u8, u32, u32>>) -> Next {
        let heads = self.heads();
        let mixed = self.items.iter().filter_map(Item::group).collect::<BTreeSet<_>>().len() > 1;
        let chooser = if mixed && self.settings.policy != Policy::Arrival {
            let chooser = heads
                .iter()
                .min_by_key(|head| (Some(head.stream) <= self.chose, head.stream))
                .unwrap();
            self.chose = Some(chooser.stream);
            chooser
        } else {
            heads.iter().min_by_key(|head| head.number).unwrap()
        };
        self.group = chooser.group().unwrap();
        let mut taken: Vec<Item> = Vec::new();
        let size = self.settings.size.max(1);
        while taken.len() < size {
            let heads = self.heads().into_iter().filter(|head| head.group() == Some(self.group));
            let frame = match self.settings.policy {
                Policy::Arrival => heads.min_by_key(|head| head.number),
                Policy::RoundRobin => heads.min_by_key(|head| (Some(head.stream) <= self.served, head.stream)),
                Policy::EarliestDeadline => heads.min_by_key(|head| {
                    let Kind::Frame { deadline, .. } = head.kind else {
                        unreachable!()
                    };
                    (deadline.unwrap_or(Duration::MAX), head.number)
                }),
            };
            let Some(frame) = frame else { break };
            if self.settings.policy == Policy::RoundRobin {
                self.served = Some(frame.stream);
            }
            self.take(frame, into);
            taken.push(frame);
        }
        let cut = self
            .heads()
            .into_iter()
            .filter(Item::is_cut)
            .min_by_key(|cut| cut.number);
        let reason = match cut.map(|cut| cut.kind) {
            _ if taken.len() == size => Reason::Full,
            Some(Kind::Cut(reason)) => reason,
            _ if !self.heads().is_empty() => Reason::Caps,
            _ => due.unwrap(),
        };
        match cut {
            Some(cut) => self.take(cut, into),
            None => self.take_drained_tags(into),
        }
        let first_arrival = taken.iter().map(|frame| frame.arrival).min().unwrap();
        Next::Batch {
            group: self.group,
            frames: taken.len(),
            reason,
            first_arrival,
        }
    }

    /// Takes the tags to be drained that no frame and no cut stands before.
    fn take_drained_tags(&mut self, into: &mut Vec<Entry<u8, u32, u32>>) {
        for stream in self.streams.clone().into_keys() {
            let tags = self.of(stream).take_while(|item| item.kind == Kind::Tag);
            if let Some(last) = tags.filter(|tag| tag.number < self.drained).last() {
                self.take(last, into);
            }
        }
    }
}

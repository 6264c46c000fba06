//! The channel itself. Read [`Channel::open_write`], [`Channel::append`] and [`Channel::open_read`] first.

use std::array::IntoIter;
use std::iter::Flatten;
use std::time::Duration;

use bytes::Bytes;
use slab::Slab;

use super::pages::Pages;
use super::{Append, Delete, Finished, Head, OpenRead, OpenWrite, Read, Settings, Stats, Writing};
use crate::trickle::wire::{WINDOW, Wanted};

/// A window of segments. See the [module](super).
#[derive(Debug)]
pub struct Channel<W> {
    settings: Settings,
    next_write: u64,
    /// The operation that set next-write.
    advanced: u64,
    /// Operations so far: tells what was before what, which times cannot.
    operations: u64,
    slots: [Option<usize>; WINDOW],
    segments: Slab<Segment>,
    readers: Slab<Reading<W>>,
    writers: Slab<Written<W>>,
    closed: bool,
    active: Duration,
    woken: Vec<W>,
    stats: Stats,
}

/// Who reads. Given back with [`Channel::close_read`].
#[derive(Debug, PartialEq, Eq)]
pub struct Reader(usize);

/// Who writes. Given back with [`Channel::finish`] or [`Channel::abort`].
#[derive(Debug, PartialEq, Eq)]
pub struct Writer(usize);

#[derive(Debug)]
struct Segment {
    seq: u64,
    pages: Pages,
    ended: bool,
    /// The operation that ended it.
    ended_at: u64,
    /// It is in its slot.
    listed: bool,
    /// Who is at it. Few, so that searching them is quicker than knowing where they are.
    readers: Vec<usize>,
    writers: Vec<usize>,
    /// It has no writer, and readers should not wait for another much longer than from then on.
    orphan: Option<Duration>,
}

#[derive(Debug)]
struct Reading<W> {
    segment: usize,
    position: usize,
    /// Next-write when it came.
    latest: u64,
    done: bool,
    parked: Option<W>,
}

#[derive(Debug)]
struct Written<W> {
    segment: usize,
    /// The operation that opened it.
    opened: u64,
    /// Its publisher starts over: see [`Channel::starts_over`].
    starts_over: bool,
    begun: bool,
    parked: Option<W>,
}

impl<W> Channel<W> {
    /// A channel without segments.
    pub fn new(now: Duration, settings: Settings) -> Self {
        Self {
            settings,
            next_write: 0,
            advanced: 0,
            operations: 0,
            slots: [None; WINDOW],
            segments: Slab::new(),
            readers: Slab::new(),
            writers: Slab::new(),
            closed: false,
            active: now,
            woken: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// Next-write: the number of the segment that has not begun.
    pub fn next_write(&self) -> u64 {
        self.next_write
    }

    /// True once [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// When something was last written, or the channel made.
    pub fn active(&self) -> Duration {
        self.active
    }

    /// Begins to write a segment; with `reset`, ends all that have lower numbers first.
    pub fn open_write(&mut self, seq: Option<u64>, reset: bool) -> OpenWrite {
        if self.closed {
            return OpenWrite::Closed;
        }
        if self.writers.len() >= self.settings.max_writers {
            return OpenWrite::Full;
        }
        self.operations += 1;
        let seq = seq.unwrap_or(self.next_write);
        let starts_over = reset || self.starts_over(seq);
        let segment = match self.find(seq) {
            Some(found) => found,
            None => {
                self.evict(seq, true);
                self.insert(seq)
            }
        };
        if reset {
            let lower = |segment: &Segment| segment.seq < seq;
            for index in self.listed(lower) {
                self.end(index);
            }
        }
        if self.segments[segment].ended {
            self.goes_back(seq + 1);
            return OpenWrite::Ended { seq };
        }
        let writer = self.writers.insert(Written {
            segment,
            opened: self.operations,
            starts_over,
            begun: false,
            parked: None,
        });
        let at = &mut self.segments[segment];
        at.orphan = None;
        at.writers.push(writer);
        OpenWrite::Opened {
            writer: Writer(writer),
            seq,
            shared: at.writers.len() > 1,
        }
    }

    /// Appends to a segment.
    pub fn append(&mut self, now: Duration, writer: &Writer, bytes: Bytes) -> Append {
        let Some(Written {
            segment,
            opened,
            starts_over,
            begun,
            ..
        }) = self.writers.get(writer.0)
        else {
            return Append::Dropped;
        };
        let (index, begun) = (*segment, *begun);
        let restart = starts_over.then_some(*opened);
        let segment = &self.segments[index];
        if !begun && segment.ended {
            return Append::Ended { closed: self.closed };
        }
        if bytes.is_empty() {
            return Append::Stored;
        }
        self.operations += 1;
        if segment.pages.len() + bytes.len() > self.settings.max_segment {
            self.stats.too_large += 1;
            self.end(index);
            return Append::TooLarge;
        }
        self.writers[writer.0].begun = true;
        let segment = &self.segments[index];
        if !segment.listed && (segment.ended || segment.readers.is_empty()) {
            self.stats.dropped += bytes.len() as u64;
            return Append::Dropped;
        }
        if segment.listed {
            if !begun {
                self.begin(now, index, restart);
            }
            if !begun || !self.settings.dialect.only_begin_is_activity {
                self.active = now;
            }
        }
        self.stats.bytes_in += bytes.len() as u64;
        self.change_pages(index, |pages| pages.push(bytes));
        self.wake_readers(index);
        Append::Stored
    }

    /// What one more append of these bytes would cost, for a limit over several channels.
    pub fn cost_of(bytes: &Bytes) -> usize {
        Pages::cost_of(bytes)
    }

    /// Whether to go on writing. Ask again when woken by what [`park_writer`](Self::park_writer) left.
    pub fn writing(&mut self, writer: &Writer) -> Writing {
        let Some(written) = self.writers.get(writer.0) else {
            return Writing::Open;
        };
        let segment = &self.segments[written.segment];
        let lost = self.settings.dialect.tell_lost_writers && !segment.listed;
        if segment.ended && (!written.begun || lost) {
            let (begun, seq) = (written.begun, segment.seq);
            if !begun && !self.closed {
                self.goes_back(seq + 1);
            }
            return Writing::Ended {
                closed: self.closed && !begun,
            };
        }
        Writing::Open
    }

    /// Leaves something to be woken by when [`writing`](Self::writing) may have another answer.
    pub fn park_writer(&mut self, writer: &Writer, wake: W) {
        if let Some(written) = self.writers.get_mut(writer.0) {
            written.parked = Some(wake);
        }
    }

    /// The body of a segment has ended as it should. This ends the segment.
    pub fn finish(&mut self, writer: Writer) -> Finished {
        let Some((written, index)) = self.remove_writer(&writer) else {
            return Finished {
                empty: true,
                closed: self.closed,
            };
        };
        self.operations += 1;
        let seq = self.segments[index].seq;
        let ended = self.segments[index].ended;
        if !written.begun && !self.closed {
            self.goes_back(seq + 1);
            if !ended {
                self.advance(seq + 1);
            }
        }
        self.end(index);
        self.release(index);
        Finished {
            empty: !written.begun,
            closed: self.closed && !written.begun && ended,
        }
    }

    /// The body of a segment broke off. The segment stays open, for the publisher may come back.
    pub fn abort(&mut self, now: Duration, writer: Writer) {
        if let Some((_, index)) = self.remove_writer(&writer) {
            self.operations += 1;
            let (next_write, dialect) = (self.next_write, self.settings.dialect);
            let segment = &mut self.segments[index];
            if segment.writers.is_empty() && !segment.ended && dialect.abort_grace.is_some() {
                let (begun, overtaken) = (segment.pages.len() > 0, next_write > segment.seq + 1);
                if !segment.listed || (begun && overtaken) {
                    self.orphaned(index);
                } else if begun || overtaken {
                    segment.orphan = Some(now);
                }
            }
            self.release(index);
        }
    }

    /// Begins to read a segment.
    pub fn open_read(&mut self, wanted: Wanted) -> OpenRead {
        if self.closed {
            return OpenRead::Closed;
        }
        let latest = self.next_write;
        let seq = match wanted {
            Wanted::Next => latest,
            Wanted::Current => latest.saturating_sub(1),
            Wanted::Number(seq) => seq,
        };
        let found = self.find(seq);
        if found.is_none() && seq != latest && !(seq == 1 && latest == 0) {
            return OpenRead::Missing { latest };
        }
        if self.readers.len() >= self.settings.max_readers {
            return OpenRead::Full;
        }
        self.operations += 1;
        let segment = match found {
            Some(found) => found,
            None => {
                self.evict(seq, false);
                self.insert(seq)
            }
        };
        let reader = self.readers.insert(Reading {
            segment,
            position: 0,
            latest,
            done: false,
            parked: None,
        });
        self.segments[segment].readers.push(reader);
        OpenRead::Opened(Reader(reader))
    }

    /// Whether the segment has begun, or ended without a byte.
    pub fn head(&self, reader: &Reader) -> Head {
        let Some(reading) = self.readers.get(reader.0) else {
            return Head::Wait;
        };
        let segment = &self.segments[reading.segment];
        match segment.pages.len() {
            0 if segment.ended => Head::Empty {
                seq: segment.seq,
                latest: self.next_write,
                closed: self.closed,
            },
            0 => Head::Wait,
            _ => Head::Data {
                seq: segment.seq,
                latest: Some(reading.latest).filter(|latest| *latest != segment.seq),
            },
        }
    }

    /// What a reader gets next. The end is final, even if another writer appends to the segment afterwards.
    pub fn read(&mut self, reader: &Reader) -> Read {
        let Some(reading) = self.readers.get_mut(reader.0).filter(|reading| !reading.done) else {
            return Read::End;
        };
        let segment = &self.segments[reading.segment];
        let bytes = segment.pages.read(reading.position);
        if !bytes.is_empty() {
            reading.position += bytes.len();
            self.stats.bytes_out += bytes.len() as u64;
            return Read::Data(bytes);
        }
        reading.done = segment.ended;
        if segment.ended { Read::End } else { Read::Wait }
    }

    /// Leaves something to be woken by when [`head`](Self::head) or [`read`](Self::read) may have another answer.
    pub fn park_reader(&mut self, reader: &Reader, wake: W) {
        if let Some(reading) = self.readers.get_mut(reader.0) {
            reading.parked = Some(wake);
        }
    }

    /// A reader goes.
    pub fn close_read(&mut self, reader: Reader) {
        if let Some(reading) = self.readers.try_remove(reader.0) {
            let segment = &mut self.segments[reading.segment];
            segment.readers.retain(|other| *other != reader.0);
            self.release(reading.segment);
        }
    }

    /// Ends one segment. What it holds stays readable.
    pub fn delete(&mut self, seq: u64) -> Delete {
        let Some(index) = self.find(seq) else {
            return Delete::Missing;
        };
        self.operations += 1;
        let waiting = self.segments[index].writers.iter().any(|w| !self.writers[*w].begun);
        let never_begun = self.segments[index].pages.len() == 0;
        if !self.settings.dialect.late_advance && never_begun && (waiting || seq == self.next_write) {
            self.advance(seq + 1);
        }
        self.end(index);
        Delete::Ended
    }

    /// Ends the channel with all its segments. Who is in the middle of one may end as it wants to.
    pub fn close(&mut self) {
        self.operations += 1;
        self.closed = true;
        self.slots = [None; WINDOW];
        let all: Vec<usize> = self.segments.iter().map(|(index, _)| index).collect();
        for index in all {
            self.segments[index].listed = false;
            self.end(index);
            self.release(index);
        }
    }

    /// Ends segments whose writers do not come back. When to call again, if anything waits.
    pub fn tick(&mut self, now: Duration) -> Option<Duration> {
        let grace = self.settings.dialect.abort_grace?;
        let due = |segment: &Segment| segment.orphan.map(|since| since.saturating_add(grace));
        for index in self.listed(|segment| due(segment).is_some_and(|due| due <= now)) {
            self.orphaned(index);
        }
        let waiting = self.slots.iter().flatten();
        waiting.filter_map(|index| due(&self.segments[*index])).min()
    }

    /// Whom to wake. Call it after every change.
    pub fn take_woken(&mut self, into: &mut Vec<W>) {
        into.append(&mut self.woken);
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        Stats {
            next_write: self.next_write,
            readers: self.readers.len(),
            writers: self.writers.len(),
            ..self.stats
        }
    }

    /// What is kept costs so many bytes.
    pub fn held(&self) -> usize {
        self.stats.held
    }

    fn slot(seq: u64) -> usize {
        (seq % WINDOW as u64) as usize
    }

    fn find(&self, seq: u64) -> Option<usize> {
        self.slots[Self::slot(seq)].filter(|index| self.segments[*index].seq == seq)
    }

    /// The segments in the window that are meant.
    fn listed(&self, meant: impl Fn(&Segment) -> bool) -> Flatten<IntoIter<Option<usize>, WINDOW>> {
        let found = self
            .slots
            .map(|slot| slot.filter(|index| meant(&self.segments[*index])));
        found.into_iter().flatten()
    }

    fn insert(&mut self, seq: u64) -> usize {
        let index = self.segments.insert(Segment {
            seq,
            pages: Pages::default(),
            ended: false,
            ended_at: 0,
            listed: true,
            readers: Vec::new(),
            writers: Vec::new(),
            orphan: None,
        });
        self.slots[Self::slot(seq)] = Some(index);
        index
    }

    /// Takes the slot of a number from who has it.
    fn evict(&mut self, seq: u64, for_writing: bool) {
        if let Some(index) = self.slots[Self::slot(seq)].take() {
            let segment = &mut self.segments[index];
            segment.listed = false;
            // One without writers could never be found again by one, and its readers would wait for ever.
            if for_writing || segment.writers.is_empty() {
                self.end(index);
            }
            self.release(index);
        }
    }

    /// A POST of this number comes from a publisher that starts over: it goes back behind the window, or into a slot
    /// that a higher number has. A number that is only missing from the window was overtaken on the way by those that
    /// followed it: short segments on connections of their own may begin and end before it arrives.
    fn starts_over(&self, seq: u64) -> bool {
        let behind = seq + (WINDOW as u64) < self.next_write;
        let taken = self.slots[Self::slot(seq)].is_some_and(|index| self.segments[index].seq > seq);
        behind || taken
    }

    /// The first byte of one POST for a segment; `restart`: when it was opened, if its publisher starts over.
    fn begin(&mut self, now: Duration, index: usize, restart: Option<u64>) {
        let dialect = self.settings.dialect;
        let seq = self.segments[index].seq;
        self.stats.begun += u64::from(self.segments[index].pages.len() == 0);
        // Lower only for a POST that came after what it goes back behind: else two have only overtaken each other.
        let restart = restart.filter(|opened| *opened > self.advanced);
        if let Some(opened) = restart.filter(|_| seq + 1 < self.next_write && !dialect.restart_keeps_old) {
            let earlier = |other: &Segment| other.seq > seq && other.ended && other.ended_at < opened;
            for index in self.listed(earlier) {
                let slot = Self::slot(self.segments[index].seq);
                self.slots[slot] = None;
                self.segments[index].listed = false;
                self.release(index);
            }
        }
        if self.next_write <= seq || dialect.restart_keeps_old || restart.is_some() {
            self.set_next_write(seq + 1);
        }
        if dialect.abort_grace.is_none() {
            return;
        }
        for index in self.listed(|other| other.seq < seq && !other.ended && other.writers.is_empty()) {
            let segment = &mut self.segments[index];
            if segment.pages.len() > 0 {
                self.orphaned(index);
            } else {
                // Its writer may just be slower than the next one.
                segment.orphan.get_or_insert(now);
            }
        }
    }

    fn orphaned(&mut self, index: usize) {
        self.stats.orphans += 1;
        self.end(index);
    }

    fn set_next_write(&mut self, next: u64) {
        self.next_write = next;
        self.advanced = self.operations;
    }

    fn advance(&mut self, next: u64) {
        if next > self.next_write {
            self.set_next_write(next);
        }
    }

    /// A POST has stored nothing. The reference sets next-write by it all the same.
    fn goes_back(&mut self, next: u64) {
        if self.settings.dialect.empty_post_goes_back {
            self.set_next_write(next);
        }
    }

    fn end(&mut self, index: usize) {
        let (operations, closed) = (self.operations, self.closed);
        let segment = &mut self.segments[index];
        if segment.ended {
            return;
        }
        let (seq, listed) = (segment.seq, segment.listed);
        segment.ended = true;
        segment.ended_at = operations;
        segment.orphan = None;
        let waiting = segment.writers.iter().any(|writer| !self.writers[*writer].begun);
        if waiting && !closed && !self.settings.dialect.late_advance {
            self.advance(seq + 1);
        }
        if listed {
            self.change_pages(index, Pages::join);
        }
        self.wake_readers(index);
        self.wake_writers(index);
    }

    /// Lets go what nobody can reach.
    fn release(&mut self, index: usize) {
        let segment = &self.segments[index];
        if segment.listed {
            return;
        }
        let (unread, unwritten) = (segment.readers.is_empty(), segment.writers.is_empty());
        if unread {
            self.change_pages(index, Pages::clear);
        }
        if unread && unwritten {
            self.segments.remove(index);
        } else if self.settings.dialect.tell_lost_writers {
            self.wake_writers(index);
        }
    }

    fn change_pages(&mut self, index: usize, change: impl FnOnce(&mut Pages)) {
        let pages = &mut self.segments[index].pages;
        let before = pages.cost();
        change(pages);
        let after = pages.cost();
        self.stats.held = self.stats.held + after - before;
    }

    fn wake_readers(&mut self, index: usize) {
        for reader in &self.segments[index].readers {
            self.woken.extend(self.readers[*reader].parked.take());
        }
    }

    fn wake_writers(&mut self, index: usize) {
        for writer in &self.segments[index].writers {
            self.woken.extend(self.writers[*writer].parked.take());
        }
    }

    fn remove_writer(&mut self, writer: &Writer) -> Option<(Written<W>, usize)> {
        let written = self.writers.try_remove(writer.0)?;
        let segment = &mut self.segments[written.segment];
        segment.writers.retain(|other| *other != writer.0);
        let index = written.segment;
        Some((written, index))
    }
}

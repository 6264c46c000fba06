//! The window compared with a slow and plainly right one, over random interleavings of publishers and subscribers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use crate::flight::sequences::{self, pick, same};
use crate::trickle::channel::*;
use crate::trickle::wire::Wanted;

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
    Write { near: i64, next: bool, reset: bool },
    Append { who: usize, size: usize },
    Finish { who: usize },
    Abort { who: usize },
    Read { wanted: Where },
    Look { who: usize },
    Leave { who: usize },
    Delete { near: i64 },
    Step(u64),
    Tick,
    Close,
}

#[derive(Debug, Clone, Copy)]
enum Where {
    Next,
    Current,
    Near(i64),
}

fn event(word: u64) -> Event {
    let who = (word >> 16 & 0xff) as usize;
    match word & 0xff {
        0..60 => Event::Write {
            near: pick(word, 8, &[0, 0, 0, 1, 1, -1, -2, 2, -5, -7, 9]),
            next: word >> 24 & 7 == 0,
            reset: word >> 27 & 7 == 0,
        },
        60..110 => Event::Append {
            who,
            size: pick(word, 8, &[1, 1, 3, 7, 5000, 0, 60_000]),
        },
        110..150 => Event::Finish { who },
        150..160 => Event::Abort { who },
        160..195 => Event::Read {
            wanted: pick(
                word,
                8,
                &[
                    Where::Next,
                    Where::Current,
                    Where::Near(0),
                    Where::Near(-1),
                    Where::Near(-4),
                    Where::Near(1),
                    Where::Near(-9),
                ],
            ),
        },
        195..230 => Event::Look { who },
        230..236 => Event::Leave { who },
        236..242 => Event::Delete {
            near: pick(word, 8, &[0, -1, 1, 3]),
        },
        242..248 => Event::Step(pick(word, 8, &[1, 3000, 10_000])),
        248..254 => Event::Tick,
        _ if word >> 8 & 3 == 0 => Event::Close,
        _ => Event::Tick,
    }
}

const MAX: usize = 100_000;

fn play(words: &[u64]) -> Result<(), String> {
    let dialect = match words[0] >> 56 & 3 {
        0 => Dialect::reference(),
        1 => Dialect {
            tell_lost_writers: true,
            ..Dialect::default()
        },
        _ => Dialect::default(),
    };
    let settings = Settings {
        max_segment: MAX,
        max_readers: 6,
        max_writers: 5,
        dialect,
    };
    let mut world = World {
        ring: Channel::new(Duration::ZERO, settings),
        model: Model::new(settings),
        now: Duration::ZERO,
        writers: Vec::new(),
        readers: Vec::new(),
        pieces: 0,
    };
    for word in words {
        world.event(event(*word))?;
        world.check()?;
    }
    world.end()
}

/// Tells writers from readers among those that are woken.
const WRITER: usize = 1 << 32;

struct World {
    ring: Channel<usize>,
    model: Model,
    now: Duration,
    /// Ours, and the model's number.
    writers: Vec<(Writer, usize)>,
    readers: Vec<(Reader, usize)>,
    pieces: u8,
}

impl World {
    fn event(&mut self, event: Event) -> Result<(), String> {
        let near = |near: i64, next: u64| next.saturating_add_signed(near);
        match event {
            Event::Write { near: off, next, reset } => {
                let seq = (!next).then(|| near(off, self.model.next));
                let ours = self.ring.open_write(seq, reset);
                let theirs = self.model.open_write(seq, reset);
                match (ours, theirs) {
                    (OpenWrite::Opened { writer, seq, shared }, Opened::Yes(number, number_seq, number_shared)) => {
                        same!((seq, shared), (number_seq, number_shared));
                        self.ring.park_writer(&writer, WRITER + number);
                        self.model.writers[number].parked = true;
                        self.writers.push((writer, number));
                    }
                    (OpenWrite::Ended { seq }, Opened::Ended(other)) => drop(same!(seq, other)),
                    (OpenWrite::Full, Opened::Full) | (OpenWrite::Closed, Opened::Closed) => (),
                    (ours, theirs) => return Err(format!("write {seq:?}: {ours:?}, the model says {theirs:?}")),
                }
            }
            Event::Append { who, size } if !self.writers.is_empty() => {
                let index = who % self.writers.len();
                let (writer, number) = &self.writers[index];
                self.pieces = self.pieces.wrapping_add(1);
                let bytes = Bytes::from(vec![self.pieces; size]);
                let theirs = self.model.append(self.now, *number, &bytes);
                let append = same!(self.ring.append(self.now, writer, bytes), theirs);
                if matches!(append, Append::Ended { .. } | Append::TooLarge) {
                    let (writer, number) = self.writers.remove(index);
                    self.ring.abort(self.now, writer);
                    self.model.abort(self.now, number);
                }
            }
            Event::Finish { who } if !self.writers.is_empty() => {
                let (writer, number) = self.writers.remove(who % self.writers.len());
                let _ = same!(self.ring.writing(&writer), self.model.writing(number));
                let _ = same!(self.ring.finish(writer), self.model.finish(number));
            }
            Event::Abort { who } if !self.writers.is_empty() => {
                let (writer, number) = self.writers.remove(who % self.writers.len());
                self.ring.abort(self.now, writer);
                self.model.abort(self.now, number);
            }
            Event::Read { wanted } => {
                let wanted = match wanted {
                    Where::Next => Wanted::Next,
                    Where::Current => Wanted::Current,
                    Where::Near(off) => Wanted::Number(near(off, self.model.next)),
                };
                match (self.ring.open_read(wanted), self.model.open_read(wanted)) {
                    (OpenRead::Opened(reader), Some(Ok(number))) => self.readers.push((reader, number)),
                    (OpenRead::Missing { latest }, Some(Err(other))) => drop(same!(latest, other)),
                    (OpenRead::Full | OpenRead::Closed, None) => (),
                    (ours, theirs) => return Err(format!("read {wanted}: {ours:?}, the model says {theirs:?}")),
                }
            }
            Event::Look { who } if !self.readers.is_empty() => {
                let (reader, number) = &self.readers[who % self.readers.len()];
                let _ = same!(self.ring.head(reader), self.model.head(*number));
                let mut bytes = Vec::new();
                let end = loop {
                    match self.ring.read(reader) {
                        Read::Data(piece) => bytes.extend_from_slice(&piece),
                        Read::Wait => break false,
                        Read::End => break true,
                    }
                };
                let theirs = self.model.read(*number);
                if (&bytes, end) != (&theirs.0, theirs.1) {
                    return Err(format!(
                        "{} bytes, end {end}; the model says {} and {}",
                        bytes.len(),
                        theirs.0.len(),
                        theirs.1
                    ));
                }
                self.ring.park_reader(reader, *number);
                self.model.readers[*number].parked = !end;
            }
            Event::Leave { who } if !self.readers.is_empty() => {
                let (reader, number) = self.readers.remove(who % self.readers.len());
                self.ring.close_read(reader);
                self.model.close_read(number);
            }
            Event::Delete { near: off } => {
                let seq = near(off, self.model.next);
                let ended = self.ring.delete(seq) == Delete::Ended;
                same!(ended, self.model.delete(seq));
            }
            Event::Step(ms) => self.now += Duration::from_millis(ms),
            Event::Tick => {
                let _ = same!(self.ring.tick(self.now), self.model.tick(self.now));
            }
            Event::Close => {
                self.ring.close();
                self.model.close();
            }
            Event::Append { .. }
            | Event::Finish { .. }
            | Event::Abort { .. }
            | Event::Look { .. }
            | Event::Leave { .. } => (),
        }
        Ok(())
    }

    /// What must hold after every event.
    fn check(&mut self) -> Result<(), String> {
        same!(self.ring.next_write(), self.model.next);
        let mut woken = Vec::new();
        self.ring.take_woken(&mut woken);
        let woken: BTreeSet<usize> = woken.into_iter().collect();
        for (_, number) in &self.readers {
            // Nobody sleeps through something that is there for them.
            let due = self.model.has_news(*number);
            let reader = &mut self.model.readers[*number];
            if woken.contains(number) {
                reader.parked = false;
            }
            if due && reader.parked {
                return Err(format!("reader {number} waits, and was not woken for what is there"));
            }
        }
        for (writer, number) in &self.writers {
            let due = self.model.is_told(*number);
            let pen = &mut self.model.writers[*number];
            if woken.contains(&(WRITER + number)) {
                pen.parked = false;
            }
            if due && pen.parked {
                return Err(format!("writer {number} waits, and was not woken for the end"));
            }
            if !due && !pen.parked {
                self.ring.park_writer(writer, WRITER + number);
                pen.parked = true;
            }
        }
        let stats = self.ring.stats();
        same!((stats.readers, stats.writers), (self.readers.len(), self.writers.len()));
        let kept = self.model.kept_bytes();
        if self.ring.held() < kept || self.ring.held() > kept + 96 * 40 * 16 {
            return Err(format!("{} held for {kept} bytes", self.ring.held()));
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), String> {
        self.ring.close();
        for (writer, _) in self.writers.drain(..) {
            let _ = self.ring.finish(writer);
        }
        for (reader, _) in self.readers.drain(..) {
            self.ring.close_read(reader);
        }
        same!(self.ring.held(), 0);
        Ok(())
    }
}

#[derive(Debug)]
enum Opened {
    Yes(usize, u64, bool),
    Ended(u64),
    Full,
    Closed,
}

/// Nothing is ever forgotten or shared here; what is in the window is worked out from lists.
struct Model {
    settings: Settings,
    next: u64,
    set_at: usize,
    step: usize,
    segments: Vec<Piece>,
    /// What each slot holds.
    window: BTreeMap<u64, usize>,
    writers: Vec<Pen>,
    readers: Vec<Eye>,
    closed: bool,
}

#[derive(Default)]
struct Piece {
    seq: u64,
    bytes: Vec<u8>,
    ended: Option<usize>,
    lonely: Option<Duration>,
}

struct Pen {
    at: usize,
    opened: usize,
    anew: bool,
    begun: bool,
    gone: bool,
    parked: bool,
}

struct Eye {
    at: usize,
    from: usize,
    latest: u64,
    over: bool,
    gone: bool,
    parked: bool,
}

impl Model {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            next: 0,
            set_at: 0,
            step: 0,
            segments: Vec::new(),
            window: BTreeMap::new(),
            writers: Vec::new(),
            readers: Vec::new(),
            closed: false,
        }
    }

    fn found(&self, seq: u64) -> Option<usize> {
        let at = *self.window.get(&(seq % 5))?;
        (self.segments[at].seq == seq).then_some(at)
    }

    fn listed(&self, at: usize) -> bool {
        self.window.values().any(|other| *other == at)
    }

    fn pens(&self, at: usize) -> impl Iterator<Item = &Pen> {
        self.writers.iter().filter(move |pen| pen.at == at && !pen.gone)
    }

    fn eyes(&self, at: usize) -> usize {
        self.readers.iter().filter(|eye| eye.at == at && !eye.gone).count()
    }

    fn set_next(&mut self, next: u64) {
        self.next = next;
        self.set_at = self.step;
    }

    fn raise(&mut self, next: u64) {
        if next > self.next {
            self.set_next(next);
        }
    }

    fn nothing_stored(&mut self, next: u64) {
        if self.settings.dialect.empty_post_goes_back {
            self.set_next(next);
        }
    }

    fn end(&mut self, at: usize) {
        if self.segments[at].ended.is_some() {
            return;
        }
        let waiting = self.pens(at).any(|pen| !pen.begun);
        self.segments[at].ended = Some(self.step);
        self.segments[at].lonely = None;
        if waiting && !self.closed && !self.settings.dialect.late_advance {
            self.raise(self.segments[at].seq + 1);
        }
    }

    fn claim(&mut self, seq: u64, writing: bool) -> usize {
        let old = self.window.remove(&(seq % 5));
        if let Some(old) = old.filter(|old| writing || self.pens(*old).count() == 0) {
            self.end(old);
        }
        self.segments.push(Piece {
            seq,
            ..Piece::default()
        });
        self.window.insert(seq % 5, self.segments.len() - 1);
        self.segments.len() - 1
    }

    fn open_write(&mut self, seq: Option<u64>, reset: bool) -> Opened {
        if self.closed {
            return Opened::Closed;
        }
        if self.writers.iter().filter(|pen| !pen.gone).count() >= self.settings.max_writers {
            return Opened::Full;
        }
        self.step += 1;
        let seq = seq.unwrap_or(self.next);
        let higher = self.window.values().any(|at| {
            let other = self.segments[*at].seq;
            other > seq && (other - seq).is_multiple_of(5)
        });
        let anew = reset || higher || self.next.max(5) - 5 > seq;
        let at = self.found(seq).unwrap_or_else(|| self.claim(seq, true));
        if reset {
            let lower: Vec<usize> = self.window.values().copied().collect();
            for other in lower
                .into_iter()
                .filter(|other| self.segments[*other].seq < seq)
                .collect::<Vec<_>>()
            {
                self.end(other);
            }
        }
        if self.segments[at].ended.is_some() {
            self.nothing_stored(seq + 1);
            return Opened::Ended(seq);
        }
        let shared = self.pens(at).count() > 0;
        self.segments[at].lonely = None;
        self.writers.push(Pen {
            at,
            opened: self.step,
            anew,
            begun: false,
            gone: false,
            parked: false,
        });
        Opened::Yes(self.writers.len() - 1, seq, shared)
    }

    fn append(&mut self, now: Duration, pen: usize, bytes: &[u8]) -> Append {
        let Pen { at, begun, .. } = self.writers[pen];
        if !begun && self.segments[at].ended.is_some() {
            return Append::Ended { closed: self.closed };
        }
        if bytes.is_empty() {
            return Append::Stored;
        }
        self.step += 1;
        if self.segments[at].bytes.len() + bytes.len() > MAX {
            self.end(at);
            return Append::TooLarge;
        }
        self.writers[pen].begun = true;
        let listed = self.listed(at);
        if !listed && (self.segments[at].ended.is_some() || self.eyes(at) == 0) {
            return Append::Dropped;
        }
        if listed && !begun {
            self.begin(now, at, pen);
        }
        self.segments[at].bytes.extend_from_slice(bytes);
        Append::Stored
    }

    fn begin(&mut self, now: Duration, at: usize, pen: usize) {
        let Pen { opened, anew, .. } = self.writers[pen];
        let lower = anew && opened > self.set_at;
        let (seq, dialect) = (self.segments[at].seq, self.settings.dialect);
        let back = self.next > seq + 1;
        if back && !dialect.restart_keeps_old && lower {
            let segments = &self.segments;
            self.window.retain(|_, other| {
                segments[*other].seq <= seq || segments[*other].ended.is_none_or(|ended| ended >= opened)
            });
        }
        if self.next <= seq || dialect.restart_keeps_old || lower {
            self.set_next(seq + 1);
        }
        if dialect.abort_grace.is_some() {
            let all: Vec<usize> = self.window.values().copied().collect();
            for other in all {
                let piece = &self.segments[other];
                if piece.seq < seq && piece.ended.is_none() && self.pens(other).count() == 0 {
                    match piece.bytes.is_empty() {
                        true => drop(self.segments[other].lonely.get_or_insert(now)),
                        false => self.end(other),
                    }
                }
            }
        }
    }

    /// It hears that it need not go on.
    fn is_told(&self, pen: usize) -> bool {
        let Pen { at, begun, .. } = self.writers[pen];
        let lost = self.settings.dialect.tell_lost_writers && !self.listed(at);
        self.segments[at].ended.is_some() && (!begun || lost)
    }

    fn writing(&mut self, pen: usize) -> Writing {
        let Pen { at, begun, .. } = self.writers[pen];
        if !self.is_told(pen) {
            return Writing::Open;
        }
        if !begun && !self.closed {
            self.nothing_stored(self.segments[at].seq + 1);
        }
        Writing::Ended {
            closed: self.closed && !begun,
        }
    }

    fn finish(&mut self, pen: usize) -> Finished {
        let Pen { at, begun, .. } = self.writers[pen];
        self.writers[pen].gone = true;
        self.step += 1;
        let ended = self.segments[at].ended.is_some();
        if !begun && !self.closed {
            self.nothing_stored(self.segments[at].seq + 1);
            if !ended {
                self.raise(self.segments[at].seq + 1);
            }
        }
        self.end(at);
        Finished {
            empty: !begun,
            closed: self.closed && !begun && ended,
        }
    }

    fn abort(&mut self, now: Duration, pen: usize) {
        let at = self.writers[pen].at;
        self.writers[pen].gone = true;
        self.step += 1;
        let lonely = self.pens(at).count() == 0 && self.segments[at].ended.is_none();
        if !lonely || self.settings.dialect.abort_grace.is_none() {
            return;
        }
        let (begun, overtaken) = (
            !self.segments[at].bytes.is_empty(),
            self.next > self.segments[at].seq + 1,
        );
        match (self.listed(at), begun, overtaken) {
            (false, ..) | (true, true, true) => self.end(at),
            (true, true, false) | (true, false, true) => self.segments[at].lonely = Some(now),
            (true, false, false) => (),
        }
    }

    fn open_read(&mut self, wanted: Wanted) -> Option<Result<usize, u64>> {
        if self.closed {
            return None;
        }
        let seq = match wanted {
            Wanted::Next => self.next,
            Wanted::Current => self.next.max(1) - 1,
            Wanted::Number(seq) => seq,
        };
        let found = self.found(seq);
        if found.is_none() && seq != self.next && (seq, self.next) != (1, 0) {
            return Some(Err(self.next));
        }
        if self.readers.iter().filter(|eye| !eye.gone).count() >= self.settings.max_readers {
            return None;
        }
        self.step += 1;
        let latest = self.next;
        let at = found.unwrap_or_else(|| self.claim(seq, false));
        self.readers.push(Eye {
            at,
            from: 0,
            latest,
            over: false,
            gone: false,
            parked: false,
        });
        Some(Ok(self.readers.len() - 1))
    }

    fn head(&self, eye: usize) -> Head {
        let eye = &self.readers[eye];
        let piece = &self.segments[eye.at];
        match (piece.bytes.is_empty(), piece.ended) {
            (false, _) => Head::Data {
                seq: piece.seq,
                latest: (eye.latest != piece.seq).then_some(eye.latest),
            },
            (true, Some(_)) => Head::Empty {
                seq: piece.seq,
                latest: self.next,
                closed: self.closed,
            },
            (true, None) => Head::Wait,
        }
    }

    fn has_news(&self, eye: usize) -> bool {
        let eye = &self.readers[eye];
        let piece = &self.segments[eye.at];
        !eye.over && (piece.bytes.len() > eye.from || piece.ended.is_some())
    }

    fn read(&mut self, eye: usize) -> (Vec<u8>, bool) {
        let Eye { at, from, over, .. } = self.readers[eye];
        if over {
            return (Vec::new(), true);
        }
        let bytes = self.segments[at].bytes[from..].to_vec();
        let eye = &mut self.readers[eye];
        eye.from += bytes.len();
        eye.over = self.segments[at].ended.is_some();
        (bytes, eye.over)
    }

    fn close_read(&mut self, eye: usize) {
        self.readers[eye].gone = true;
    }

    fn delete(&mut self, seq: u64) -> bool {
        let Some(at) = self.found(seq) else { return false };
        self.step += 1;
        let waiting = self.pens(at).any(|pen| !pen.begun);
        let empty = self.segments[at].bytes.is_empty();
        if empty && !self.settings.dialect.late_advance && (waiting || seq == self.next) {
            self.raise(seq + 1);
        }
        self.end(at);
        true
    }

    fn tick(&mut self, now: Duration) -> Option<Duration> {
        let grace = self.settings.dialect.abort_grace?;
        let all: Vec<usize> = self.window.values().copied().collect();
        let mut wait = None;
        for at in all {
            match self.segments[at].lonely {
                Some(since) if since + grace <= now => self.end(at),
                Some(since) => wait = Some(wait.map_or(since + grace, |other: Duration| other.min(since + grace))),
                None => (),
            }
        }
        wait
    }

    fn close(&mut self) {
        self.step += 1;
        self.closed = true;
        self.window.clear();
        for at in 0..self.segments.len() {
            self.end(at);
        }
    }

    /// Bytes that somebody can still reach.
    fn kept_bytes(&self) -> usize {
        let kept = (0..self.segments.len()).filter(|at| self.listed(*at) || self.eyes(*at) > 0);
        kept.map(|at| self.segments[at].bytes.len()).sum()
    }
}

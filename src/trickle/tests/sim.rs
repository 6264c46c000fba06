//! Publisher, channel and subscriber over a network that loses, delays and half-closes, and a server that restarts.
//!
//! Time is counted, chance comes from a seed. While it is bad, nothing may be made up or mixed; when it is good again,
//! everything must come through again by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::trickle::channel::{Append, Channel, Head, OpenRead, OpenWrite, Read, Reader, Settings, Writer};
use crate::trickle::publisher::{self, Allocate, Publisher, Sent, Start};
use crate::trickle::subscriber::{self, Subscriber};
use crate::trickle::wire::{Answer, Wanted};

const TICK: Duration = Duration::from_millis(10);
const PIECES: usize = 4;
/// Ticks from one segment to the next.
const PERIOD: u64 = 8;
const BAD: u64 = 3000;
const GOOD: u64 = 4000;

#[test]
fn every_segment_comes_through_again_once_the_network_is_good_again() {
    let mut lost = 0;
    for seed in 0..150 {
        let mut net = Net::new(seed);
        for tick in 0..BAD + GOOD {
            net.bad = tick < BAD;
            net.tick(tick);
        }
        lost += net.publisher.stats().lost + net.subscriber.stats().skipped;
        assert!(
            net.subscriber.over().is_none() && net.publisher.over().is_none(),
            "seed {seed}: gave up"
        );
        let late: Vec<u64> = net
            .done
            .iter()
            .filter(|(_, at)| **at > BAD + GOOD / 2)
            .map(|(seq, _)| *seq)
            .collect();
        assert!(
            late.len() as u64 > GOOD / 2 / PERIOD - 3,
            "seed {seed}: {} were published",
            late.len()
        );
        // The last may still be on its way.
        for seq in &late[..late.len() - 1] {
            let whole = net
                .got
                .get(seq)
                .is_some_and(|(bytes, whole)| *whole && *bytes == full(*seq));
            assert!(whole, "seed {seed}: segment {seq} is {:?}", net.got.get(seq));
        }
    }
    assert!(lost > 1000, "the network was not bad at all: {lost}");
}

fn piece(seq: u64, index: usize) -> Vec<u8> {
    format!("{seq}/{index};").into_bytes()
}

fn full(seq: u64) -> Vec<u8> {
    (0..PIECES).flat_map(|index| piece(seq, index)).collect()
}

struct Net {
    state: u64,
    bad: bool,
    now: Duration,
    tick: u64,
    ring: Channel<()>,
    publisher: Publisher,
    sending: Option<Sending>,
    /// The server has not noticed yet that these are gone.
    zombies: Vec<(Writer, u64)>,
    subscriber: Subscriber,
    ask_at: Duration,
    reading: Reading,
    /// When a segment was acknowledged.
    done: BTreeMap<u64, u64>,
    got: BTreeMap<u64, (Vec<u8>, bool)>,
}

struct Sending {
    seq: u64,
    writer: Option<Writer>,
    next: usize,
    not_before: Duration,
}

enum Reading {
    No,
    Waiting(Reader, Duration),
    Body {
        reader: Reader,
        seq: u64,
        read: u64,
        skip: u64,
    },
}

impl Net {
    fn new(seed: u64) -> Self {
        Self {
            state: seed,
            bad: true,
            now: Duration::ZERO,
            tick: 0,
            ring: Channel::new(Duration::ZERO, Settings::default()),
            publisher: Publisher::new(publisher::Settings {
                start: Start::Reset,
                failures: None,
                ..publisher::Settings::default()
            }),
            sending: None,
            zombies: Vec::new(),
            subscriber: Subscriber::new(subscriber::Settings {
                start: Wanted::Current,
                failures: None,
                ..subscriber::Settings::default()
            }),
            ask_at: Duration::ZERO,
            reading: Reading::No,
            done: BTreeMap::new(),
            got: BTreeMap::new(),
        }
    }

    /// One time in so many, while the network is bad.
    fn mishap(&mut self, one_in: u64) -> bool {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.bad && (word ^ (word >> 31)).is_multiple_of(one_in)
    }

    fn tick(&mut self, tick: u64) {
        self.tick = tick;
        self.now = TICK * tick as u32;
        if self.mishap(500) {
            self.restart();
        }
        let _ = self.ring.tick(self.now);
        let gone = self.zombies.iter().position(|(_, until)| *until <= tick || !self.bad);
        if let Some(gone) = gone {
            let (writer, _) = self.zombies.swap_remove(gone);
            self.ring.abort(self.now, writer);
        }
        self.publish();
        // A reader that is held up.
        if !self.mishap(10) {
            self.subscribe();
        }
    }

    fn restart(&mut self) {
        self.ring = Channel::new(self.now, Settings::default());
        self.zombies.clear();
        if let Some(sending) = &mut self.sending
            && sending.writer.take().is_some()
        {
            let sent = if sending.next > 0 { Sent::Some } else { Sent::Nothing };
            self.answered(publisher::Outcome::Broken, sent);
        }
        match std::mem::replace(&mut self.reading, Reading::No) {
            Reading::No => (),
            Reading::Waiting(..) => self.judge(subscriber::Outcome::Broken, None),
            Reading::Body { seq, read, .. } => self.broke(seq, read),
        }
    }

    fn publish(&mut self) {
        let Some(sending) = &mut self.sending else {
            if self.tick.is_multiple_of(PERIOD) || self.publisher.stats().opened == 0 {
                self.begin();
            }
            return;
        };
        if self.now < sending.not_before {
            return;
        }
        let seq = sending.seq;
        let Some(writer) = sending.writer.take() else {
            if self.mishap(15) {
                return self.answered(publisher::Outcome::Broken, Sent::Nothing);
            }
            match self.ring.open_write(Some(seq), false) {
                OpenWrite::Opened { writer, .. } => self.keep(writer),
                OpenWrite::Ended { .. } => {
                    self.answered(publisher::Outcome::Answered(Answer::bare(200)), Sent::Nothing)
                }
                OpenWrite::Full => self.answered(publisher::Outcome::Answered(Answer::bare(503)), Sent::Nothing),
                OpenWrite::Closed => panic!("nobody closes it"),
            }
            return;
        };
        let next = sending.next;
        if next < PIECES {
            if self.mishap(40) {
                // The server finds out at once, or much later.
                match self.mishap(2) {
                    true => self.zombies.push((writer, self.tick + 200)),
                    false => self.ring.abort(self.now, writer),
                }
                let sent = if next > 0 { Sent::Some } else { Sent::Nothing };
                return self.answered(publisher::Outcome::Broken, sent);
            }
            match self.ring.append(self.now, &writer, Bytes::from(piece(seq, next))) {
                Append::Stored | Append::Dropped => {
                    self.sending.as_mut().expect("it is sent").next += 1;
                    self.keep(writer);
                }
                Append::Ended { .. } => {
                    self.ring.abort(self.now, writer);
                    self.answered(publisher::Outcome::Answered(Answer::bare(200)), Sent::Nothing);
                }
                Append::TooLarge => panic!("it is small"),
            }
            return;
        }
        let _ = self.ring.finish(writer);
        match self.mishap(30) {
            // The server has it, and we are not told.
            true => self.answered(publisher::Outcome::Broken, Sent::All),
            false => self.answered(publisher::Outcome::Answered(Answer::bare(200)), Sent::All),
        }
    }

    fn keep(&mut self, writer: Writer) {
        self.sending.as_mut().expect("it is sent").writer = Some(writer);
    }

    fn begin(&mut self) {
        match self.publisher.allocate(self.now) {
            Allocate::Ask => {
                let answer = Answer {
                    latest: Some(self.ring.next_write()),
                    ..Answer::bare(200)
                };
                let lost = self.mishap(5);
                assert_eq!(self.publisher.found(self.now, (!lost).then_some(&answer)), None);
            }
            Allocate::Open { seq, .. } => {
                self.publisher.begun(seq);
                self.sending = Some(Sending {
                    seq,
                    writer: None,
                    next: 0,
                    not_before: self.now,
                });
            }
            Allocate::Wait(_) => (),
            Allocate::Busy | Allocate::Over(_) => panic!("one at a time, and never over"),
        }
    }

    fn answered(&mut self, outcome: publisher::Outcome, sent: Sent) {
        let seq = self.sending.as_ref().expect("it is sent").seq;
        match self.publisher.answered(self.now, seq, &outcome, sent) {
            publisher::Verdict::Done => {
                self.done.insert(seq, self.tick);
                self.sending = None;
            }
            publisher::Verdict::Retry(at) => {
                let sending = self.sending.as_mut().expect("it is sent");
                (sending.next, sending.not_before) = (0, at);
            }
            publisher::Verdict::Renumber => {
                self.sending = None;
                self.begin();
            }
            publisher::Verdict::Skip { delete } => {
                if delete && !self.mishap(3) {
                    let _ = self.ring.delete(seq);
                }
                self.sending = None;
            }
            publisher::Verdict::Over(over) => panic!("{over:?}"),
        }
    }

    fn subscribe(&mut self) {
        match std::mem::replace(&mut self.reading, Reading::No) {
            Reading::No if self.now < self.ask_at => (),
            Reading::No if self.mishap(20) => self.judge(subscriber::Outcome::Broken, None),
            Reading::No => match self.ring.open_read(self.subscriber.ask()) {
                OpenRead::Opened(reader) => self.reading = Reading::Waiting(reader, self.now),
                OpenRead::Missing { latest } => {
                    let answer = Answer {
                        latest: Some(latest),
                        ..Answer::bare(470)
                    };
                    self.judge(subscriber::Outcome::Answered(answer), None);
                }
                OpenRead::Full | OpenRead::Closed => panic!("there is room"),
            },
            Reading::Waiting(reader, _) if self.mishap(100) => {
                self.ring.close_read(reader);
                self.judge(subscriber::Outcome::Broken, None);
            }
            Reading::Waiting(reader, since) => {
                let answer = match self.ring.head(&reader) {
                    Head::Wait if self.now - since > Duration::from_secs(20) => {
                        self.ring.close_read(reader);
                        return self.judge(subscriber::Outcome::Silent, None);
                    }
                    Head::Wait => {
                        self.reading = Reading::Waiting(reader, since);
                        return;
                    }
                    Head::Data { seq, latest } => Answer {
                        seq: Some(seq as i64),
                        latest,
                        ..Answer::bare(200)
                    },
                    Head::Empty { seq, latest, .. } => Answer {
                        seq: Some(seq as i64),
                        latest: Some(latest),
                        empty: true,
                        ..Answer::bare(200)
                    },
                };
                self.judge(subscriber::Outcome::Answered(answer), Some(reader));
            }
            Reading::Body { reader, seq, read, .. } if self.mishap(60) => {
                self.ring.close_read(reader);
                self.broke(seq, read);
            }
            Reading::Body {
                reader,
                seq,
                mut read,
                skip,
            } => match self.ring.read(&reader) {
                Read::Data(bytes) => {
                    let known = (skip.saturating_sub(read) as usize).min(bytes.len());
                    read += bytes.len() as u64;
                    let got = self.got.entry(seq).or_default();
                    got.0.extend_from_slice(&bytes[known..]);
                    assert!(full(seq).starts_with(&got.0), "segment {seq} is mixed: {got:?}");
                    self.reading = Reading::Body {
                        reader,
                        seq,
                        read,
                        skip,
                    };
                }
                Read::Wait => {
                    self.reading = Reading::Body {
                        reader,
                        seq,
                        read,
                        skip,
                    }
                }
                Read::End => {
                    self.ring.close_read(reader);
                    self.subscriber.finished(seq);
                    self.got.entry(seq).or_default().1 = true;
                }
            },
        }
    }

    fn judge(&mut self, outcome: subscriber::Outcome, reader: Option<Reader>) {
        match self.subscriber.answered(self.now, &outcome) {
            subscriber::Verdict::Read { seq, resume, .. } => {
                if resume == 0 {
                    self.got.remove(&seq);
                }
                let reader = reader.expect("there is a body");
                self.reading = Reading::Body {
                    reader,
                    seq,
                    read: 0,
                    skip: resume,
                };
                return;
            }
            subscriber::Verdict::Ask => self.ask_at = self.now,
            subscriber::Verdict::AskAt(at) => self.ask_at = at,
            subscriber::Verdict::Over(over) => panic!("{over:?}"),
        }
        if let Some(reader) = reader {
            self.ring.close_read(reader);
        }
    }

    fn broke(&mut self, seq: u64, read: u64) {
        let kept = self.got.get(&seq).map_or(0, |(bytes, _)| bytes.len() as u64);
        match self.subscriber.broke(self.now, seq, read.max(kept)) {
            subscriber::Verdict::AskAt(at) => self.ask_at = at,
            other => panic!("{other:?}"),
        }
    }
}

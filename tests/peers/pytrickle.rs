//! pytrickle's publisher and subscriber.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use comfy_core::trickle::client::{
    Arrival, Begin, Client, Config, Event, Inbox, Next, PublishSettings, SubscribeSettings, Write,
};
use comfy_core::trickle::subscriber::{self, Over};
use comfy_core::trickle::wire::Wanted;
use comfy_tests::{DEADLINE, Peer, Relay};
use tokio::runtime::Runtime;

use crate::{TS, http, impatient};

/// Segments of the long runs.
const COUNT: u64 = 1000;

/// The publisher.
pub(super) struct Publisher(Peer);

impl Publisher {
    pub(super) fn new(relay: &Relay, channel: &str) -> Self {
        Self(Peer::pytrickle(&["publish", &http(relay, channel)]))
    }

    fn command(&mut self, command: &str, bytes: &[u8]) {
        self.0.write(&[command.as_bytes(), b"\n", bytes].concat());
        assert_eq!(self.0.line(), "done", "{command}");
    }

    fn begin(&mut self) {
        self.command("next", b"");
    }

    fn write(&mut self, bytes: &[u8]) {
        self.command(&format!("write {}", bytes.len()), bytes);
    }

    fn end(&mut self) {
        self.command("end", b"");
    }

    pub(super) fn segment(&mut self, bytes: &[u8]) {
        self.begin();
        self.write(bytes);
        self.end();
    }

    /// Without waiting for what is on its way.
    fn close(&mut self) {
        self.command("close", b"");
    }
}

/// The subscriber.
pub(super) struct Subscriber(Peer);

/// What it gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// A segment's number and bytes.
    Segment(u64, Vec<u8>),
    /// A segment that could not be read to its end, and why.
    Broken(u64, String),
    /// Nothing more, and the errors it reported.
    Over(Vec<String>),
}

impl Subscriber {
    pub(super) fn new(relay: &Relay, channel: &str, start: &str) -> Self {
        Self(Peer::pytrickle(&["subscribe", &http(relay, channel), start]))
    }

    /// Asks for the next segment.
    pub(super) fn ask(&mut self) {
        self.0.write(b"next\n");
    }

    /// What comes of that.
    pub(super) fn answer(&mut self) -> Got {
        let (mut seq, mut bytes, mut errors) = (0, Vec::new(), Vec::new());
        loop {
            let line = self.0.line();
            let (name, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let number = || rest.parse().expect("a number");
            match name {
                "segment" => seq = number(),
                "data" => bytes.extend(self.0.bytes(number() as usize)),
                "end" => return Got::Segment(seq, bytes),
                "broken" => return Got::Broken(seq, rest.to_owned()),
                "over" => return Got::Over(errors),
                _ => errors.push(line),
            }
        }
    }

    pub(super) fn next(&mut self) -> Got {
        self.ask();
        self.answer()
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("threads")
}

/// A reader of ours, from segment 0 on.
fn inbox(runtime: &Runtime, relay: &Relay, channel: &str) -> Inbox {
    let settings = SubscribeSettings {
        policy: subscriber::Settings {
            start: Wanted::Number(0),
            behind: Duration::from_millis(10),
            ..Default::default()
        },
        ..Default::default()
    };
    let client = Client::new(Config::default()).unwrap();
    let (inbox, task) = client.subscribe(vec![relay.url(channel).parse().unwrap()], settings);
    runtime.spawn(task.run());
    inbox
}

fn arrival(inbox: &Inbox) -> Arrival {
    match inbox.wait(Some(DEADLINE)) {
        Next::Arrival(arrival) => arrival,
        other => panic!("{other:?}, trouble: {:?}", inbox.trouble()),
    }
}

/// Reads on until so many bytes of a segment are there, or it ends; its number and whether it has ended.
fn read(inbox: &Inbox, wanted: usize, bytes: &mut Vec<u8>) -> Option<u64> {
    while bytes.len() < wanted {
        match arrival(inbox) {
            Arrival::Segment { .. } => (),
            Arrival::Bytes(more) => bytes.extend_from_slice(&more),
            Arrival::End { seq, complete } => {
                assert!(complete, "segment {seq}");
                return Some(seq);
            }
        }
    }
    None
}

/// The next segment, whole.
fn whole(inbox: &Inbox) -> (u64, Vec<u8>) {
    let mut bytes = Vec::new();
    let seq = read(inbox, usize::MAX, &mut bytes).expect("it ends before that");
    (seq, bytes)
}

/// A segment's bytes, which no other segment has: 1 to 40,000.
fn content(seq: u64) -> Vec<u8> {
    let mut z = seq + 1;
    let mut next = || {
        z ^= z << 13;
        z ^= z >> 7;
        z ^= z << 17;
        z
    };
    let length = 1 + (next() >> 20) % 40_000;
    (0..length).map(|_| (next() >> 32) as u8).collect()
}

#[test]
fn its_publisher_brings_a_thousand_segments_to_our_reader_byte_by_byte() {
    let (relay, runtime) = (Relay::new(), runtime());
    relay.server.create("cam", TS).unwrap();
    let inbox = inbox(&runtime, &relay, "cam");
    let mut publisher = Publisher::new(&relay, "cam");
    for seq in 0..COUNT {
        let (wanted, mut got) = (content(seq), Vec::new());
        let (first, rest) = wanted.split_at(wanted.len() / 3);
        publisher.begin();
        publisher.write(first);
        // Each byte is there as soon as it is written.
        assert_eq!(read(&inbox, first.len(), &mut got), None);
        publisher.write(rest);
        publisher.end();
        assert_eq!(read(&inbox, usize::MAX, &mut got), Some(seq));
        assert!(got == wanted, "segment {seq}: {} of {} bytes", got.len(), wanted.len());
    }
    // The count follows what it counts.
    relay.until(|| inbox.stats().read == COUNT);
    let stats = inbox.stats();
    assert_eq!(
        (stats.read, stats.skipped, stats.jumps, stats.failures),
        (COUNT, 0, 0, 0)
    );
    // It asks for each connection to be closed, and opens one for each segment; ours takes none anew.
    let totals = relay.server.totals();
    assert!(totals.accepted >= COUNT && totals.accepted < COUNT + 10, "{totals:?}");
    relay.until(|| relay.server.totals().connections <= 4);
    publisher.close();
    assert!(relay.server.delete("cam"));
    assert_eq!(inbox.wait(Some(DEADLINE)), Next::Over(Over::Closed));
}

#[test]
fn its_subscriber_reads_a_thousand_segments_of_our_publisher_byte_by_byte() {
    let (relay, runtime) = (Relay::new(), runtime());
    relay.server.create("cam", TS).unwrap();
    let client = Client::new(Config::default()).unwrap();
    let (tell, events) = sync_channel(16);
    let url = relay.url("cam").parse().unwrap();
    let (feed, task) = client.publish(&url, PublishSettings::default(), move |event| {
        // Whoever is told must not wait.
        tell.try_send(event).expect("the test takes each event");
    });
    let task = runtime.spawn(task.run());
    let mut subscriber = Subscriber::new(&relay, "cam", "0");
    for seq in 0..COUNT {
        let wanted = content(seq);
        subscriber.ask();
        assert_eq!(feed.begin(), Begin::Begun);
        for piece in wanted.chunks(10_000) {
            assert_eq!(feed.write(piece.to_vec().into()), Write::Queued);
        }
        feed.end();
        let Got::Segment(number, got) = subscriber.answer() else {
            panic!("no segment {seq}");
        };
        assert_eq!(number, seq);
        assert!(got == wanted, "segment {seq}: {} of {} bytes", got.len(), wanted.len());
        // The reader may know before the publisher does.
        let bytes = wanted.len() as u64;
        assert_eq!(events.recv_timeout(DEADLINE), Ok(Event::Done { seq, bytes }));
    }
    feed.finish();
    let published = runtime.block_on(task).unwrap();
    assert_eq!(
        (published.over, published.stats.done, published.stats.lost),
        (None, COUNT, 0)
    );
    assert!(relay.server.totals().accepted >= COUNT);
    subscriber.ask();
    // With the next one asked for, the end is a 200 that says so; it is no segment and no error.
    relay.until(|| relay.server.channels()[0].stats.readers == 1);
    assert!(relay.server.delete("cam"));
    assert_eq!(subscriber.answer(), Got::Over(vec![]));
}

#[test]
fn its_subscriber_starts_with_the_current_segment_and_jumps_when_it_has_fallen_behind() {
    let relay = Relay::new();
    let publish = |numbers: std::ops::Range<u64>| {
        for seq in numbers {
            relay.publish("cam", TS, content(seq));
        }
    };
    publish(0..3);
    let mut subscriber = Subscriber::new(&relay, "cam", "-2");
    assert_eq!(subscriber.next(), Got::Segment(2, content(2)));
    // It has asked for 3 meanwhile, and keeps what it holds; 4 has left the window when it asks for that.
    relay.until(|| relay.server.channels()[0].stats.readers == 1);
    publish(3..12);
    assert_eq!(subscriber.next(), Got::Segment(3, content(3)));
    subscriber.ask();
    // A jump of its own goes to the segment that has not begun.
    relay.until(|| relay.server.channels()[0].stats.readers == 1);
    publish(12..13);
    assert_eq!(subscriber.answer(), Got::Segment(12, content(12)));
}

#[test]
fn its_subscriber_waits_in_a_new_channel_and_is_ended_by_404() {
    let relay = Relay::new();
    relay.server.create("cam", TS).unwrap();
    let mut subscriber = Subscriber::new(&relay, "cam", "-2");
    subscriber.ask();
    relay.until(|| relay.server.channels()[0].stats.readers == 1);
    relay.publish("cam", TS, "first");
    assert_eq!(subscriber.answer(), Got::Segment(0, b"first".into()));

    let mut subscriber = Subscriber::new(&relay, "nothing", "-2");
    assert_eq!(subscriber.next(), Got::Over(vec!["error stream_not_found".into()]));
}

#[test]
fn its_total_timeout_ends_a_get_without_data_and_the_relay_forgets_the_reader() {
    let relay = Relay::new();
    relay.server.create("cam", TS).unwrap();
    let url = http(&relay, "cam");
    let mut subscriber = Subscriber(Peer::pytrickle(&["subscribe", &url, "0", "0.3", "2"]));
    // Twice, with a pause of half a second.
    assert_eq!(subscriber.next(), Got::Over(vec!["error max_retries_exceeded".into()]));
    relay.until(|| relay.server.channels()[0].stats.readers == 0);

    // The time counts from the request on: a segment that goes on for longer is cut.
    let mut subscriber = Subscriber(Peer::pytrickle(&["subscribe", &url, "0", "1", "2"]));
    let runtime = runtime();
    let client = Client::new(Config::default()).unwrap();
    let (feed, task) = client.publish(&relay.url("cam").parse().unwrap(), PublishSettings::default(), |_| ());
    runtime.spawn(task.run());
    assert_eq!(feed.begin(), Begin::Begun);
    assert_eq!(feed.write("begun".into()), Write::Queued);
    assert_eq!(subscriber.next(), Got::Broken(0, "TimeoutError".into()));
}

#[test]
fn its_publisher_goes_in_mid_segment_and_our_relay_ends_that_for_the_readers() {
    let (relay, runtime) = (impatient(), runtime());
    relay.server.create("cam", TS).unwrap();
    let inbox = inbox(&runtime, &relay, "cam");
    let mut publisher = Publisher::new(&relay, "cam");
    publisher.segment(b"whole");
    assert_eq!(whole(&inbox), (0, b"whole".into()));
    publisher.begin();
    publisher.write(b"half");
    let mut got = Vec::new();
    assert_eq!(read(&inbox, 4, &mut got), None);
    // Closes its sockets, and deletes neither the segment nor the channel.
    publisher.close();
    assert_eq!(read(&inbox, usize::MAX, &mut got), Some(1));
    assert_eq!(got, b"half");
    let stats = relay.server.channels()[0].stats;
    assert_eq!((stats.next_write, stats.orphans, stats.writers), (2, 1, 0));
}

#[test]
fn its_next_publisher_begins_at_zero_and_our_reader_follows() {
    let (relay, runtime) = (Relay::new(), runtime());
    relay.server.create("cam", TS).unwrap();
    let inbox = inbox(&runtime, &relay, "cam");
    let mut publisher = Publisher::new(&relay, "cam");
    for seq in 0..8 {
        publisher.segment(&content(seq));
        assert_eq!(whole(&inbox), (seq, content(seq)));
    }
    publisher.close();
    let mut publisher = Publisher::new(&relay, "cam");
    for seq in 0..4 {
        publisher.segment(&content(100 + seq));
        relay.until(|| relay.server.channels()[0].stats.begun == 9 + seq);
        // Nothing of the first run is left to be taken for the second.
        let mut subscriber = Subscriber::new(&relay, "cam", "-2");
        assert_eq!(subscriber.next(), Got::Segment(seq, content(100 + seq)));
    }
    // Ours waited for 8, whose place 3 has taken. It asks a few times more, and then believes that numbers begin anew.
    let (first, bytes) = whole(&inbox);
    assert!(bytes == content(100 + first), "segment {first}");
    publisher.segment(&content(104));
    for seq in first + 1..=4 {
        assert_eq!(whole(&inbox), (seq, content(100 + seq)));
    }
}

#[test]
fn its_next_publisher_loses_the_segments_whose_numbers_the_window_still_has() {
    let relay = Relay::new();
    relay.server.create("cam", TS).unwrap();
    for seq in 0..3 {
        relay.publish("cam", TS, content(seq));
    }
    // As with the reference: it gets 200 each time, and is not told.
    let mut publisher = Publisher::new(&relay, "cam");
    for seq in 0..4 {
        publisher.segment(&content(100 + seq));
        relay.until(|| relay.server.totals().answers.get(&("POST", 200)) == Some(&(seq + 1)));
    }
    let mut subscriber = Subscriber::new(&relay, "cam", "2");
    assert_eq!(subscriber.next(), Got::Segment(2, content(2)));
    assert_eq!(subscriber.next(), Got::Segment(3, content(103)));
}

#[test]
fn its_publisher_is_cut_by_its_own_timeout_and_goes_on_with_the_next_segment() {
    let (relay, runtime) = (impatient(), runtime());
    relay.server.create("cam", TS).unwrap();
    let inbox = inbox(&runtime, &relay, "cam");
    let mut publisher = Publisher(Peer::pytrickle(&["publish", &http(&relay, "cam"), "1"]));
    publisher.begin();
    publisher.write(b"too long");
    assert_eq!(publisher.0.line(), "error post_exception");
    assert_eq!(whole(&inbox), (0, b"too long".into()));
    // The one that it had opened meanwhile went at the same time. It does not notice, and what is written to that is
    // lost; the relay hears nothing of 1, and ends it for its readers after 2 has begun.
    relay.until(|| relay.server.totals().connections == 2);
    publisher.segment(b"lost");
    publisher.segment(b"again");
    assert_eq!(whole(&inbox), (2, b"again".into()));
}

#[test]
fn its_publisher_without_a_pause_gives_one_number_to_several_segments() {
    let (relay, runtime) = (Relay::new(), runtime());
    relay.server.create("events", "application/json").unwrap();
    let inbox = inbox(&runtime, &relay, "events");
    let mut publisher = Publisher::new(&relay, "events");
    let documents = ["[1]", "[2]", "[3]", "[4]"];
    let burst = documents.join("\n");
    publisher.command(&format!("burst {}", burst.len()), burst.as_bytes());
    let (seq, bytes) = whole(&inbox);
    // Whichever came first is there, and others as far as they came before it ended; none is torn.
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(seq, 0);
    assert!(!text.is_empty() && text.len().is_multiple_of(3), "{text}");
    for piece in text.as_bytes().chunks(3) {
        assert!(documents.iter().any(|document| document.as_bytes() == piece), "{text}");
    }
    // All four were answered with 200, and what comes next has a number of its own.
    relay.until(|| relay.server.totals().answers.get(&("POST", 200)) == Some(&4));
    publisher.segment(b"[5]");
    assert_eq!(whole(&inbox), (1, b"[5]".into()));
}

//! The clients, against our server and against peers that do as they are told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::rig::{LONG, Peer, Rig, soon, until};
use crate::trickle::client::{
    Arrival, Begin, Client, Config, Error, Event, Feed, Inbox, Next, PublishSettings, Published, SubscribeSettings,
    Subscribed, Write,
};
use crate::trickle::wire::{ChannelUrl, Wanted};
use crate::trickle::{publisher, server, subscriber};

pub(super) fn client() -> Client {
    Client::new(Config::default()).expect("no certificate file is read")
}

type Events = Arc<Mutex<Vec<Event>>>;

pub(super) struct Publishing {
    pub(super) feed: Feed,
    pub(super) events: Events,
    pub(super) task: JoinHandle<Published>,
}

pub(super) fn publish(url: &ChannelUrl, settings: PublishSettings) -> Publishing {
    let events = Events::default();
    let heard = events.clone();
    let (feed, task) = client().publish(url, settings, move |event| heard.lock().expect("no panic").push(event));
    Publishing {
        feed,
        events,
        task: tokio::spawn(task.run()),
    }
}

impl Publishing {
    pub(super) async fn segment(&self, text: &str) {
        until("there is room for a segment", || self.feed.begin() == Begin::Begun).await;
        assert_eq!(self.feed.write(Bytes::from(text.to_owned())), Write::Queued);
        self.feed.end();
    }

    pub(super) async fn finished(self) -> Published {
        self.feed.finish();
        soon(self.task).await.expect("no panic")
    }

    pub(super) fn heard(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.lock().expect("no panic").iter().any(wanted)
    }
}

pub(super) fn from(seq: u64) -> PublishSettings {
    PublishSettings {
        policy: publisher::Settings {
            start: publisher::Start::Number(seq),
            retry: Duration::from_millis(10),
            ..publisher::Settings::default()
        },
        ..PublishSettings::default()
    }
}

pub(super) fn subscribe(urls: Vec<ChannelUrl>, policy: subscriber::Settings) -> (Inbox, JoinHandle<Subscribed>) {
    let settings = SubscribeSettings {
        policy,
        ..SubscribeSettings::default()
    };
    let (inbox, task) = client().subscribe(urls, settings);
    (inbox, tokio::spawn(task.run()))
}

pub(super) fn quick(start: Wanted) -> subscriber::Settings {
    subscriber::Settings {
        start,
        retry: Duration::from_millis(20),
        behind: Duration::from_millis(10),
        ..subscriber::Settings::default()
    }
}

/// The next whole segment: number, text, whether something was missed before it, whether it is all there.
pub(super) async fn segment(inbox: &Inbox) -> Result<(u64, String, bool, bool), subscriber::Over> {
    let (mut number, mut text, mut missed) = (0, Vec::new(), false);
    loop {
        match soon(inbox.next()).await {
            Next::Arrival(Arrival::Segment { seq, discont, .. }) => (number, missed) = (seq, discont),
            Next::Arrival(Arrival::Bytes(bytes)) => text.extend_from_slice(&bytes),
            Next::Arrival(Arrival::End { seq, complete }) => {
                assert_eq!(seq, number);
                return Ok((seq, String::from_utf8(text).expect("text"), missed, complete));
            }
            Next::Over(over) => return Err(over),
            other @ (Next::Interrupted | Next::TimedOut) => panic!("{other:?}"),
        }
    }
}

/// A server that does as it is told.
pub(super) struct Stage {
    listener: TcpListener,
    pub(super) url: ChannelUrl,
}

impl Stage {
    pub(super) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Self {
            listener,
            url: format!("http://{address}/c").parse().expect("an address"),
        }
    }

    pub(super) async fn accept(&self) -> Peer<TcpStream> {
        let (stream, _) = soon(self.listener.accept()).await.expect("a connection");
        Peer {
            stream: BufReader::new(stream),
        }
    }
}

/// The first line of a request, its head read.
pub(super) async fn request(peer: &mut Peer<TcpStream>) -> String {
    let raw = peer.request().await;
    raw.lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches(" HTTP/1.1")
        .to_owned()
}

#[tokio::test]
async fn p01_the_next_segment_is_open_before_it_is_written() {
    let stage = Stage::new().await;
    let publishing = publish(&stage.url, from(0));
    let mut zero = stage.accept().await;
    assert_eq!(request(&mut zero).await, "POST /c/0");
    assert_eq!(publishing.feed.begin(), Begin::Begun);
    assert_eq!(publishing.feed.write(Bytes::from_static(b"AAAA")), Write::Queued);
    assert_eq!(zero.chunk().await.as_deref(), Some("AAAA"), "before its end");
    let mut one = stage.accept().await;
    assert_eq!(request(&mut one).await, "POST /c/1");
    publishing.feed.end();
    assert_eq!(zero.chunk().await, None);
    zero.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    until("it is done", || {
        publishing.heard(|event| *event == Event::Done { seq: 0, bytes: 4 })
    })
    .await;
    publishing.segment("BBBB").await;
    assert_eq!(one.chunk().await.as_deref(), Some("BBBB"));
    // The connection of 0 serves 2.
    assert_eq!(request(&mut zero).await, "POST /c/2");
}

#[tokio::test]
async fn p02_ending_deletes_the_channel_on_request() {
    let rig = Rig::new().await;
    let settings = PublishSettings {
        delete: true,
        ..PublishSettings::default()
    };
    let publishing = publish(&rig.url("c"), settings);
    publishing.segment("x").await;
    let published = publishing.finished().await;
    assert_eq!(
        (published.over, published.stats.done, published.stats.lost),
        (None, 1, 0)
    );
    assert!(rig.server.channels().is_empty());
}

#[tokio::test]
async fn p03_no_channel_is_said_and_not_tried_for_ever() {
    let rig = Rig::with(server::Config::default()).await;
    let publishing = publish(&rig.url("c"), PublishSettings::default());
    let published = soon(publishing.task).await.expect("no panic");
    assert_eq!(published.over, Some(publisher::Over::NoChannel));
    assert_eq!(publishing.feed.begin(), Begin::Over(publisher::Over::NoChannel));
    let events = publishing.events.lock().expect("no panic");
    assert!(
        matches!(events.last(), Some(Event::Over { why, .. }) if why.contains("/c: the channel does not exist")),
        "{events:?}"
    );
}

#[tokio::test]
async fn p04_a_channel_deleted_by_others_is_the_end() {
    let rig = Rig::new().await;
    let publishing = publish(&rig.url("c"), PublishSettings::default());
    publishing.segment("x").await;
    until("it is done", || {
        publishing.heard(|event| matches!(event, Event::Done { .. }))
    })
    .await;
    rig.crowded("c", (0, 1)).await;
    rig.ask("DELETE", "/c").await;
    let published = soon(publishing.task).await.expect("no panic");
    assert_eq!(published.over, Some(publisher::Over::Closed));
    assert_eq!(
        publishing.feed.write(Bytes::from_static(b"x")),
        Write::Over(publisher::Over::Closed)
    );
}

#[tokio::test]
async fn p05_several_signs_of_life_are_taken() {
    let rig = Rig::with(server::Config {
        autocreate: true,
        interim: Duration::from_millis(10),
        ..server::Config::default()
    })
    .await;
    let publishing = publish(&rig.url("c"), from(0));
    rig.crowded("c", (0, 1)).await;
    // Several times the interval.
    tokio::time::sleep(Duration::from_millis(60)).await;
    publishing.segment("late").await;
    assert_eq!(publishing.finished().await.stats.done, 1);
    assert_eq!(rig.get("/c/0").await.1, "late");
}

#[tokio::test]
async fn p07_numbering_goes_on_where_the_channel_is() {
    let rig = Rig::new().await;
    for seq in 0..7 {
        rig.post(&format!("/c/{seq}"), "x").await;
    }
    let publishing = publish(&rig.url("c"), PublishSettings::default());
    publishing.segment("seven").await;
    assert_eq!(publishing.finished().await.stats.done, 1);
    assert_eq!(rig.get("/c/7").await.1, "seven");
}

#[tokio::test]
async fn p07_the_first_post_says_that_it_is_a_restart() {
    let stage = Stage::new().await;
    let _publishing = publish(&stage.url, PublishSettings::default());
    let mut peer = stage.accept().await;
    assert_eq!(request(&mut peer).await, "GET /c/next");
    peer.send("HTTP/1.1 200 OK\r\nLp-Trickle-Latest: 7\r\nContent-Length: 1\r\n\r\n7")
        .await;
    let raw = peer.request().await;
    assert!(
        raw.starts_with("POST /c/7 ") && raw.contains("lp-trickle-reset: 1\r\n"),
        "{raw}"
    );
    assert!(
        raw.contains("transfer-encoding: chunked\r\n") && raw.contains("content-type: video/MP2T\r\n"),
        "{raw}"
    );
}

#[tokio::test]
async fn p08_an_old_server_that_does_not_know_next_is_published_to_from_zero() {
    let stage = Stage::new().await;
    let publishing = publish(&stage.url, PublishSettings::default());
    let mut peer = stage.accept().await;
    assert_eq!(request(&mut peer).await, "GET /c/next");
    publishing.segment("early").await;
    peer.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 12\r\n\r\nInvalid idx\n")
        .await;
    assert_eq!(request(&mut peer).await, "POST /c/0");
    assert_eq!(peer.chunk().await.as_deref(), Some("early"));
}

#[tokio::test]
async fn p09_a_connection_lost_before_the_first_byte_is_tried_again_with_the_same_number() {
    let stage = Stage::new().await;
    let publishing = publish(&stage.url, from(3));
    let mut peer = stage.accept().await;
    assert_eq!(request(&mut peer).await, "POST /c/3");
    drop(peer);
    until("it is noticed", || {
        publishing.heard(|event| matches!(event, Event::Trouble(_)))
    })
    .await;
    publishing.segment("x").await;
    loop {
        let mut peer = stage.accept().await;
        if request(&mut peer).await == "POST /c/3" {
            assert_eq!(peer.chunk().await.as_deref(), Some("x"));
            return;
        }
    }
}

#[tokio::test]
async fn p09_a_connection_lost_in_the_middle_loses_the_segment_and_says_so_to_both_sides() {
    let stage = Stage::new().await;
    let publishing = publish(
        &stage.url,
        PublishSettings {
            preconnect: false,
            ..from(3)
        },
    );
    assert_eq!(publishing.feed.begin(), Begin::Begun);
    assert_eq!(publishing.feed.write(Bytes::from_static(b"x")), Write::Queued);
    let mut peer = stage.accept().await;
    assert_eq!(request(&mut peer).await, "POST /c/3");
    assert_eq!(peer.chunk().await.as_deref(), Some("x"));
    drop(peer);
    until("it is lost", || {
        publishing.heard(|event| matches!(event, Event::Lost { seq: Some(3), .. }))
    })
    .await;
    assert_eq!(publishing.feed.write(Bytes::from_static(b"y")), Write::Lost);
    assert_eq!(request(&mut stage.accept().await).await, "DELETE /c/3");
    publishing.segment("z").await;
    let mut peer = stage.accept().await;
    assert_eq!(request(&mut peer).await, "POST /c/4");
}

#[tokio::test]
async fn p10_a_server_that_does_not_read_costs_bounded_memory_and_time() {
    let stage = Stage::new().await;
    let settings = PublishSettings {
        max_queued: 100_000,
        stall: Duration::from_millis(200),
        ..from(0)
    };
    let publishing = publish(&stage.url, settings);
    let _deaf = stage.accept().await;
    assert_eq!(publishing.feed.begin(), Begin::Begun);
    let piece = Bytes::from(vec![7; 50_000]);
    let mut written = 0;
    let lost = loop {
        match publishing.feed.write(piece.clone()) {
            Write::Queued => written += piece.len(),
            Write::Full(_) => tokio::task::yield_now().await,
            Write::Lost => break true,
            Write::Over(_) => break false,
        }
        assert!(publishing.feed.queued() <= 100_000);
        assert!(written < 100 << 20, "nobody reads it");
    };
    assert!(lost);
    assert!(publishing.heard(|event| matches!(event, Event::Lost { why, .. } if why.contains("taken nothing"))));
    assert_eq!(publishing.feed.queued(), 0);
}

#[tokio::test]
async fn p10_room_is_told_to_who_was_refused() {
    let stage = Stage::new().await;
    let settings = PublishSettings {
        max_queued: 1000,
        ..from(0)
    };
    let publishing = publish(&stage.url, settings);
    assert_eq!(publishing.feed.begin(), Begin::Begun);
    assert_eq!(
        publishing.feed.write(Bytes::from(vec![1; 2000])),
        Write::Queued,
        "when it is empty, anything goes"
    );
    let next = Bytes::from(vec![2; 10]);
    assert_eq!(publishing.feed.write(next.clone()), Write::Full(next.clone()));
    let mut peer = stage.accept().await;
    request(&mut peer).await;
    until("there is room", || publishing.heard(|event| *event == Event::Room)).await;
    assert_eq!(publishing.feed.write(next), Write::Queued);
}

#[tokio::test]
async fn only_so_many_segments_await_their_answer() {
    let stage = Stage::new().await;
    let publishing = publish(&stage.url, from(0));
    for _ in 0..3 {
        publishing.segment("x").await;
    }
    assert_eq!(publishing.feed.begin(), Begin::Full);
    assert_eq!(publishing.feed.active(), 3);
}

#[tokio::test]
async fn an_abandoned_segment_is_deleted() {
    let stage = Stage::new().await;
    let publishing = publish(
        &stage.url,
        PublishSettings {
            preconnect: false,
            ..from(0)
        },
    );
    assert_eq!(publishing.feed.begin(), Begin::Begun);
    assert_eq!(publishing.feed.write(Bytes::from_static(b"x")), Write::Queued);
    let mut peer = stage.accept().await;
    request(&mut peer).await;
    assert_eq!(peer.chunk().await.as_deref(), Some("x"));
    publishing.feed.abandon();
    assert_eq!(request(&mut stage.accept().await).await, "DELETE /c/0");
    assert!(peer.ended().await);
    assert_eq!(publishing.finished().await.stats.lost, 1);
}

#[tokio::test]
async fn dropping_the_task_stops_at_once() {
    let stage = Stage::new().await;
    let publishing = publish(&stage.url, from(0));
    let mut peer = stage.accept().await;
    request(&mut peer).await;
    publishing.task.abort();
    assert!(peer.ended().await, "the connection is closed");
    until("the feed knows", || {
        publishing.feed.over() == Some(publisher::Over::Stopped)
    })
    .await;
}

#[tokio::test]
async fn c01_segments_come_in_order_and_then_the_end() {
    let rig = Rig::new().await;
    rig.ask("POST", "/c").await;
    let (inbox, task) = subscribe(vec![rig.url("c")], quick(Wanted::Next));
    rig.crowded("c", (1, 0)).await;
    let publishing = publish(&rig.url("c"), from(0));
    for i in 0..3 {
        publishing.segment(&format!("segment {i}")).await;
        assert_eq!(segment(&inbox).await, Ok((i, format!("segment {i}"), false, true)));
    }
    rig.ask("DELETE", "/c").await;
    assert_eq!(segment(&inbox).await, Err(subscriber::Over::Closed));
    assert_eq!(soon(task).await.expect("no panic").over, subscriber::Over::Closed);
}

#[tokio::test]
async fn c02_a_number_that_is_gone_is_a_jump() {
    let rig = Rig::new().await;
    for seq in 0..8 {
        rig.post(&format!("/c/{seq}"), "x").await;
    }
    let (inbox, _task) = subscribe(vec![rig.url("c")], quick(Wanted::Number(1)));
    rig.crowded("c", (1, 0)).await;
    rig.post("/c/8", "eight").await;
    assert_eq!(segment(&inbox).await, Ok((8, "eight".into(), true, true)));
    assert_eq!(inbox.stats().jumps, 1);
}

#[tokio::test]
async fn c03_a_server_behind_us_is_waited_for() {
    let rig = Rig::new().await;
    rig.post("/c/0", "x").await;
    let (inbox, _task) = subscribe(vec![rig.url("c")], quick(Wanted::Number(2)));
    until("it was asked for and missing", || {
        rig.server
            .totals()
            .answers
            .get(&("GET", 470))
            .is_some_and(|asked| *asked > 1)
    })
    .await;
    rig.post("/c/1", "one").await;
    rig.post("/c/2", "two").await;
    assert_eq!(segment(&inbox).await.map(|s| (s.0, s.1)), Ok((2, "two".into())));
}

#[tokio::test]
async fn c04_no_channel_is_the_end_after_exactly_one_get() {
    let rig = Rig::new().await;
    let (inbox, task) = subscribe(vec![rig.url("c")], quick(Wanted::Current));
    assert_eq!(segment(&inbox).await, Err(subscriber::Over::NoChannel));
    let subscribed = soon(task).await.expect("no panic");
    assert!(
        subscribed
            .trouble
            .is_some_and(|text| text.contains("404") && text.contains("/c"))
    );
    assert_eq!(rig.server.totals().answers.get(&("GET", 404)), Some(&1));
}

#[tokio::test]
async fn c05_nobody_there_is_tried_five_times_and_named() {
    let gone = {
        let stage = Stage::new().await;
        stage.url
    };
    let (inbox, task) = subscribe(vec![gone.clone()], quick(Wanted::Current));
    assert_eq!(segment(&inbox).await, Err(subscriber::Over::Failed));
    let subscribed = soon(task).await.expect("no panic");
    assert_eq!(subscribed.stats.failures, 6);
    let trouble = subscribed.trouble.expect("a reason");
    assert!(
        trouble.contains(&gone.port().to_string()) && trouble.contains("is the server running"),
        "{trouble}"
    );
}

#[tokio::test]
async fn c06_a_get_without_an_answer_is_asked_again() {
    let stage = Stage::new().await;
    let settings = subscriber::Settings {
        reissue: Duration::from_millis(50),
        ..quick(Wanted::Number(4))
    };
    let (inbox, _task) = subscribe(vec![stage.url.clone()], settings);
    let mut dead = stage.accept().await;
    assert_eq!(request(&mut dead).await, "GET /c/4");
    let mut again = stage.accept().await;
    assert!(dead.ended().await);
    assert_eq!(request(&mut again).await, "GET /c/4");
    again
        .send("HTTP/1.1 200 OK\r\nLp-Trickle-Seq: 4\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    assert_eq!(segment(&inbox).await, Ok((4, "hi".into(), false, true)));
}

#[tokio::test]
async fn c07_an_empty_segment_is_skipped() {
    let rig = Rig::new().await;
    rig.post("/c/0", "zero").await;
    rig.ask("POST", "/c/1").await;
    rig.post("/c/2", "two").await;
    let (inbox, _task) = subscribe(vec![rig.url("c")], quick(Wanted::Number(0)));
    assert_eq!(segment(&inbox).await, Ok((0, "zero".into(), false, true)));
    assert_eq!(
        segment(&inbox).await,
        Ok((2, "two".into(), false, true)),
        "nothing is missing"
    );
}

#[tokio::test]
async fn a_connection_is_used_again_after_an_answer_without_a_segment() {
    let rig = Rig::new().await;
    for seq in 0..3 {
        rig.ask("POST", &format!("/c/{seq}")).await;
    }
    let asked = |rig: &Rig| rig.server.totals().answers.get(&("GET", 470)).copied().unwrap_or(0);
    let before = rig.server.totals().accepted;
    // Three empty ones, then several that are not there yet.
    let settings = SubscribeSettings {
        policy: quick(Wanted::Number(0)),
        preconnect: false,
        ..SubscribeSettings::default()
    };
    let (_inbox, task) = client().subscribe(vec![rig.url("c")], settings.clone());
    let _reading = tokio::spawn(task.run());
    rig.crowded("c", (1, 0)).await;
    let ahead = SubscribeSettings {
        policy: quick(Wanted::Number(5)),
        ..settings
    };
    let (_inbox, task) = client().subscribe(vec![rig.url("c")], ahead);
    let _waiting = tokio::spawn(task.run());
    until("it has asked several times", || asked(&rig) >= 5).await;
    assert_eq!(rig.server.totals().accepted - before, 2, "one connection each");
}

#[tokio::test]
async fn c08_an_old_server_may_call_an_empty_segment_missing() {
    let stage = Stage::new().await;
    let (inbox, _task) = subscribe(vec![stage.url.clone()], quick(Wanted::Number(0)));
    let mut peer = stage.accept().await;
    assert_eq!(request(&mut peer).await, "GET /c/0");
    peer.send("HTTP/1.1 470 status code 470\r\nLp-Trickle-Latest: 1\r\nLp-Trickle-Seq: 0\r\nContent-Length: 15\r\n\r\nEntry not found")
        .await;
    // On the same connection: nothing stands in its way.
    assert_eq!(request(&mut peer).await, "GET /c/1");
    peer.send("HTTP/1.1 200 OK\r\nLp-Trickle-Seq: 1\r\nContent-Length: 3\r\n\r\none")
        .await;
    assert_eq!(segment(&inbox).await, Ok((1, "one".into(), false, true)));
}

#[tokio::test]
async fn c09_dropping_the_task_closes_the_connection_at_once() {
    let rig = Rig::new().await;
    rig.ask("POST", "/c").await;
    let (inbox, task) = subscribe(vec![rig.url("c")], quick(Wanted::Next));
    rig.crowded("c", (1, 0)).await;
    task.abort();
    rig.crowded("c", (0, 0)).await;
    assert_eq!(soon(inbox.next()).await, Next::Over(subscriber::Over::Stopped));
}

#[tokio::test]
async fn c09_a_thread_that_waits_is_interrupted_and_may_wait_again() {
    let rig = Rig::new().await;
    rig.ask("POST", "/c").await;
    let (inbox, _task) = subscribe(vec![rig.url("c")], quick(Wanted::Next));
    let waiting = inbox.clone();
    let thread = tokio::task::spawn_blocking(move || waiting.wait(None));
    inbox.interrupt(true);
    assert_eq!(soon(thread).await.expect("no panic"), Next::Interrupted);
    assert_eq!(inbox.wait(Some(LONG)), Next::Interrupted, "until it is switched off");
    inbox.interrupt(false);
    assert_eq!(inbox.wait(Some(Duration::ZERO)), Next::TimedOut);
}

#[tokio::test]
async fn c10_a_segment_that_breaks_off_for_good_is_not_called_complete() {
    let stage = Stage::new().await;
    let (inbox, _task) = subscribe(vec![stage.url.clone()], quick(Wanted::Number(0)));
    let mut peer = stage.accept().await;
    request(&mut peer).await;
    peer.send("HTTP/1.1 200 OK\r\nLp-Trickle-Seq: 0\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        .await;
    let mut ahead = stage.accept().await;
    assert_eq!(request(&mut ahead).await, "GET /c/1");
    drop(peer);
    let mut peer = stage.accept().await;
    assert_eq!(request(&mut peer).await, "GET /c/0");
    peer.send("HTTP/1.1 470 gone\r\nLp-Trickle-Latest: 30\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(request(&mut peer).await, "GET /c/30");
    peer.send("HTTP/1.1 200 OK\r\nLp-Trickle-Seq: 30\r\nContent-Length: 4\r\n\r\nnext")
        .await;
    assert_eq!(segment(&inbox).await, Ok((0, "half".into(), false, false)));
    assert_eq!(segment(&inbox).await, Ok((30, "next".into(), true, true)));
}

#[tokio::test]
async fn a_broken_connection_is_taken_up_to_the_byte() {
    let stage = Stage::new().await;
    let (inbox, _task) = subscribe(vec![stage.url.clone()], quick(Wanted::Number(0)));
    let mut peer = stage.accept().await;
    request(&mut peer).await;
    peer.send("HTTP/1.1 200 OK\r\nLp-Trickle-Seq: 0\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nABCD\r\n")
        .await;
    let _ahead = stage.accept().await;
    drop(peer);
    let mut peer = stage.accept().await;
    assert_eq!(request(&mut peer).await, "GET /c/0");
    peer.send("HTTP/1.1 200 OK\r\nLp-Trickle-Seq: 0\r\nLp-Trickle-Latest: 1\r\nContent-Length: 8\r\n\r\nABCDEFGH")
        .await;
    assert_eq!(segment(&inbox).await, Ok((0, "ABCDEFGH".into(), false, true)));
    assert_eq!(inbox.stats().resumed, 1);
}

#[tokio::test]
async fn c13_a_reader_that_takes_nothing_holds_little_and_jumps() {
    let rig = Rig::new().await;
    rig.ask("POST", "/c").await;
    let (inbox, task) = client().subscribe(
        vec![rig.url("c")],
        SubscribeSettings {
            policy: quick(Wanted::Number(0)),
            max_queued: 10_000,
            preconnect: true,
        },
    );
    let task = tokio::spawn(task.run());
    let text = "x".repeat(200_000);
    for seq in 0..20 {
        rig.post(&format!("/c/{seq}"), &text).await;
        assert!(inbox.queued() < 10_000 + 300_000);
    }
    let (first, _, missed, _) = segment(&inbox).await.expect("the one it holds");
    assert_eq!((first, missed), (0, false));
    let mut before = first;
    let jumped = loop {
        let (seq, _, missed, _) = match timeout(Duration::from_secs(1), segment(&inbox)).await {
            Ok(segment) => segment.expect("more"),
            Err(_) => {
                rig.post("/c/-1", "more").await;
                continue;
            }
        };
        if missed {
            break seq - before;
        }
        before = seq;
    };
    assert!(jumped > 1 && inbox.stats().skipped >= jumped - 1);
    task.abort();
}

#[tokio::test]
async fn c14_a_message_in_pieces_is_one_segment() {
    let rig = Rig::new().await;
    rig.ask("POST", "/c").await;
    let (inbox, _task) = subscribe(vec![rig.url("c")], quick(Wanted::Next));
    rig.crowded("c", (1, 0)).await;
    let publishing = publish(&rig.url("c"), from(0));
    publishing.segment(r#"{"keep":"alive"}"#).await;
    assert_eq!(segment(&inbox).await.map(|s| s.1), Ok(r#"{"keep":"alive"}"#.into()));
    assert_eq!(publishing.feed.begin(), Begin::Begun);
    let message = format!("{{\"prompt\":\"{}\"}}", "y".repeat(100 << 10));
    for piece in message.as_bytes().chunks(10_000) {
        assert_eq!(publishing.feed.write(Bytes::copy_from_slice(piece)), Write::Queued);
        tokio::task::yield_now().await;
    }
    publishing.feed.end();
    assert_eq!(segment(&inbox).await.map(|s| s.1), Ok(message));
}

#[tokio::test]
async fn when_one_address_fails_the_next_is_read_without_a_gap() {
    let (first, second) = (Rig::new().await, Rig::new().await);
    for seq in 0..3 {
        first.post(&format!("/c/{seq}"), &format!("{seq}")).await;
    }
    for seq in 0..5 {
        second.post(&format!("/c/{seq}"), &format!("{seq}")).await;
    }
    let (inbox, task) = subscribe(vec![first.url("c"), second.url("c")], quick(Wanted::Number(0)));
    for seq in 0..3 {
        assert_eq!(segment(&inbox).await, Ok((seq, seq.to_string(), false, true)));
    }
    first.kill().await;
    for seq in 3..5 {
        assert_eq!(segment(&inbox).await, Ok((seq, seq.to_string(), false, true)));
    }
    second.stopped().await;
    let over = soon(task).await.expect("no panic").over;
    assert!(
        matches!(over, subscriber::Over::Failed | subscriber::Over::Closed),
        "{over:?}"
    );
}

#[tokio::test]
async fn channels_are_created_asked_and_deleted() {
    let rig = Rig::new().await;
    let (client, url) = (client(), rig.url("a%2Fb"));
    client.create(&url, "text/plain").await.expect("created");
    assert_eq!(client.next(&url).await.expect("a number"), 0);
    let info = &rig.server.channels()[0];
    assert_eq!((info.name.as_str(), info.mime.as_str()), ("a/b", "text/plain"));
    rig.post("/a%2Fb/0", "x").await;
    assert_eq!(client.next(&url).await.expect("a number"), 1);
    client.delete_segment(&url, 0).await.expect("deleted");
    client.delete(&url).await.expect("deleted");
    let error = client.delete(&url).await.expect_err("it is gone");
    assert!(
        matches!(&error, Error::Refused { status: 400, text, .. } if text == "Invalid stream"),
        "{error}"
    );
    assert!(client.create(&url, "text/plain\r\nX: y").await.is_err());
}

#[tokio::test]
async fn a_token_is_sent_and_a_wrong_one_is_final() {
    let rig = Rig::with(server::Config {
        autocreate: true,
        publish_token: Some("hunter2".into()),
        subscribe_token: Some("hunter2".into()),
        ..server::Config::default()
    })
    .await;
    let with = |token: Option<&str>| {
        Client::new(Config {
            token: token.map(Into::into),
            ..Config::default()
        })
        .expect("a client")
    };
    with(Some("hunter2")).create(&rig.url("c"), "").await.expect("created");
    let error = with(None)
        .create(&rig.url("d"), "")
        .await
        .expect_err("refused")
        .to_string();
    assert!(error.contains("401") && error.contains("check the token"), "{error}");
    let (inbox, task) = with(Some("wrong")).subscribe(vec![rig.url("c")], SubscribeSettings::default());
    assert_eq!(soon(task.run()).await.over, subscriber::Over::Refused(401));
    assert_eq!(inbox.wait(None), Next::Over(subscriber::Over::Refused(401)));
    let shown = format!("{:?} {:?}", with(Some("hunter2")), rig.server);
    assert!(!shown.contains("hunter2"), "{shown}");
}

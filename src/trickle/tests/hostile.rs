//! Peers that dribble, vanish, answer too early or too often, and what that costs the others: nothing.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::clients::{Stage, client, from, publish, quick, request, segment, subscribe};
use super::rig::{Rig, soon, until};
use crate::trickle::channel;
use crate::trickle::client::{Begin, Event, PublishSettings, Write};
use crate::trickle::payload::{Kind, Pieces};
use crate::trickle::publisher;
use crate::trickle::server::Config;
use crate::trickle::wire::{MAX_MIME, Wanted};

fn open() -> Config {
    Config {
        autocreate: true,
        ..Config::default()
    }
}

#[tokio::test]
async fn heads_that_dribble_are_cut_off_however_steadily_they_do() {
    let rig = Rig::with(Config {
        header: Duration::from_millis(150),
        ..open()
    })
    .await;
    let mut slow = JoinSet::new();
    for _ in 0..50 {
        let mut peer = rig.connect().await;
        slow.spawn(async move {
            let mut sent = 0;
            // A byte every few milliseconds: never silent for as long as it may.
            for byte in b"POST /c/0 HTTP/1.1\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'x')) {
                if peer.stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                sent += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            sent
        });
    }
    until("all are in", || rig.server.totals().connections == 50).await;
    assert_eq!(rig.post("/fine/0", "x").await.status, 200);
    assert_eq!(rig.get("/fine/0").await.1, "x");
    while let Some(sent) = soon(slow.join_next()).await {
        assert!(sent.expect("no panic") < 2000);
    }
    until("all are gone", || rig.server.totals().connections == 0).await;
}

#[tokio::test]
async fn a_body_that_dribbles_holds_up_nobody() {
    let rig = Rig::with(Config {
        drain: Duration::from_millis(200),
        ..open()
    })
    .await;
    let mut slow = rig.connect().await;
    slow.post("/c/0", "").await;
    slow.chunk_out("a").await;
    let mut reader = rig.connect().await;
    reader.ask("GET", "/c/0").await;
    reader.head().await;
    assert_eq!(reader.chunk().await.as_deref(), Some("a"));
    // As long as its slot is its own.
    for seq in 1..5 {
        // Half a chunk's head, and a byte of it at a time.
        slow.send("1").await;
        assert_eq!(rig.post(&format!("/c/{seq}"), "whole").await.status, 200);
        assert_eq!(rig.get(&format!("/c/{seq}")).await.1, "whole");
        slow.send("\r\nb\r\n").await;
        assert_eq!(reader.chunk().await.as_deref(), Some("b"), "who has it reads on");
    }
    assert!(rig.server.totals().memory < 10_000);
    drop(reader);
    // Nor does it hold up the end.
    rig.stopped().await;
}

#[tokio::test]
async fn a_publisher_that_vanishes_without_a_word_frees_its_readers() {
    let rig = Rig::with(Config {
        silence: Some(Duration::from_millis(50)),
        channel: channel::Settings {
            dialect: channel::Dialect {
                abort_grace: Some(Duration::from_millis(50)),
                ..channel::Dialect::default()
            },
            ..channel::Settings::default()
        },
        ..open()
    })
    .await;
    let mut gone = rig.connect().await;
    gone.post("/c/0", "").await;
    gone.chunk_out("half").await;
    let mut reader = rig.connect().await;
    reader.ask("GET", "/c/0").await;
    let head = reader.head().await;
    // Its socket stays open, and it never says or reads anything again.
    assert_eq!(reader.body(&head).await, "half");
    rig.crowded("c", (0, 0)).await;
    assert_eq!(rig.post("/c/-1", "next").await.seq(), Some("1"));
    drop(gone);
}

#[tokio::test]
async fn a_reader_that_asks_for_more_and_goes_is_noticed() {
    let rig = Rig::new().await;
    rig.ask("POST", "/c").await;
    for more in ["x", "GET /c/1 HTTP/1.1\r\n", "GET /c/0 HTTP/1.1\r\nHost: x\r\n\r\n"] {
        // In one go, in two, and while it reads.
        for way in 0..3 {
            let mut reader = rig.connect().await;
            let first = "GET /c/-1 HTTP/1.1\r\nHost: x\r\n\r\n";
            if way == 0 {
                reader.send(&format!("{first}{more}")).await;
                rig.crowded("c", (1, 0)).await;
            } else {
                reader.send(first).await;
                rig.crowded("c", (1, 0)).await;
                reader.send(more).await;
            }
            let mut writer = rig.connect().await;
            if way == 2 {
                writer.post("/c/-1", "").await;
                writer.chunk_out("begun").await;
                reader.head().await;
                assert_eq!(reader.chunk().await.as_deref(), Some("begun"));
            }
            drop(reader);
            until("it is noticed", || rig.crowd("c").0 == 0).await;
            drop(writer);
            rig.crowded("c", (0, 0)).await;
        }
    }
}

#[tokio::test]
async fn a_reader_with_a_body_is_refused() {
    let rig = Rig::new().await;
    rig.ask("POST", "/c").await;
    for body in ["Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\n"] {
        let mut reader = rig.connect().await;
        reader.send(&format!("GET /c/0 HTTP/1.1\r\nHost: x\r\n{body}")).await;
        let head = reader.head().await;
        assert_eq!((head.status, head.closes()), (400, true));
        assert_eq!(reader.body(&head).await, "A GET has no body\n");
    }
    rig.crowded("c", (0, 0)).await;
}

#[tokio::test]
async fn a_reader_that_asks_for_far_too_much_at_once_is_cut_off() {
    let rig = Rig::new().await;
    rig.ask("POST", "/c").await;
    let mut greedy = rig.connect().await;
    greedy.ask("GET", "/c/0").await;
    rig.crowded("c", (1, 0)).await;
    let many = "GET /c/0 HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100_000);
    // It may be cut off before all of it is sent.
    let _ = soon(greedy.stream.write_all(many.as_bytes())).await;
    rig.crowded("c", (0, 0)).await;
}

#[tokio::test]
async fn requests_that_come_together_are_answered_in_turn() {
    let rig = Rig::new().await;
    let mut peer = rig.connect().await;
    // Line ends of both kinds, bodies of both kinds, and one that waits in between.
    peer.send(concat!(
        "POST /c/0 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nzero",
        "GET /c/0 HTTP/1.1\nHost: x\n\n",
        "POST /c/1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
        "GET /c/2 HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\nGET /c/next HTTP/1.1\r\nHost: x\r\n\r\n",
    ))
    .await;
    assert_eq!(peer.head().await.seq(), Some("0"));
    let head = peer.head().await;
    assert_eq!(peer.body(&head).await, "zero");
    assert_eq!(peer.head().await.seq(), Some("1"));
    rig.crowded("c", (1, 0)).await;
    rig.post("/c/2", "two").await;
    let head = peer.head().await;
    assert_eq!(peer.body(&head).await, "two");
    let head = peer.head().await;
    assert_eq!(peer.body(&head).await, "3");
}

#[tokio::test]
async fn a_type_that_is_too_long_is_refused() {
    let rig = Rig::new().await;
    for headers in [
        "Content-Length: 0\r\nExpect-Content",
        "Transfer-Encoding: chunked\r\nContent-Type",
    ] {
        for (size, status) in [(MAX_MIME, 200), (MAX_MIME + 1, 400), (60_000, 400)] {
            let path = if headers.starts_with('C') { "/c" } else { "/d/0" };
            let mut peer = rig.connect().await;
            peer.send(&format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\n{headers}: {}\r\n\r\n",
                "x".repeat(size)
            ))
            .await;
            if path == "/d/0" && status == 200 {
                peer.end_out().await;
            }
            assert_eq!(peer.head().await.status, status, "{size}");
            rig.server.delete(&path[1..2]);
        }
    }
}

#[tokio::test]
async fn p05_signs_of_life_before_any_answer_are_taken() {
    let stage = Stage::new().await;
    let lives = "HTTP/1.1 100 Continue\r\n\r\n".repeat(3);
    let url = stage.url.clone();
    let creating = tokio::spawn(async move { client().create(&url, "text/plain").await });
    let mut peer = stage.accept().await;
    assert_eq!(request(&mut peer).await, "POST /c");
    peer.send(&lives).await;
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    soon(creating).await.expect("no panic").expect("it is created");

    let (inbox, _task) = subscribe(vec![stage.url.clone()], quick(Wanted::Number(0)));
    let mut peer = stage.accept().await;
    assert_eq!(request(&mut peer).await, "GET /c/0");
    for _ in 0..3 {
        peer.send(&lives).await;
    }
    peer.send("HTTP/1.1 200 OK\r\nLp-Trickle-Seq: 0\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    assert_eq!(segment(&inbox).await, Ok((0, "hi".into(), false, true)));
}

#[tokio::test]
async fn an_answer_before_the_first_byte_costs_the_number_and_not_the_segment() {
    let stage = Stage::new().await;
    let publishing = publish(&stage.url, from(0));
    let mut dead = stage.accept().await;
    assert_eq!(request(&mut dead).await, "POST /c/0");
    dead.send("HTTP/1.1 200 OK\r\nLp-Trickle-Seq: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await;
    let mut next = stage.accept().await;
    assert_eq!(request(&mut next).await, "POST /c/1");
    publishing.segment("whole").await;
    assert_eq!(next.chunk().await.as_deref(), Some("whole"));
    assert_eq!(next.chunk().await, None);
    next.send("HTTP/1.1 200 OK\r\nLp-Trickle-Seq: 1\r\nContent-Length: 0\r\n\r\n")
        .await;
    until("it is done", || {
        publishing.heard(|event| matches!(event, Event::Done { seq: 1, .. }))
    })
    .await;
    assert!(!publishing.heard(|event| matches!(event, Event::Lost { .. })));
}

#[tokio::test]
async fn packets_cut_in_two_by_a_publisher_that_dies_are_left_out_and_counted() {
    let rig = Rig::new().await;
    let packet = format!("G{}", "x".repeat(187));
    let mut dying = rig.connect().await;
    dying.post("/c/0", "Content-Type: video/MP2T\r\n").await;
    dying.chunk_out(&format!("{packet}{packet}{}", &packet[..100])).await;
    let (inbox, _task) = subscribe(vec![rig.url("c")], quick(Wanted::Number(0)));
    // It waits for the next one already.
    rig.crowded("c", (2, 1)).await;
    drop(dying);
    rig.crowded("c", (2, 0)).await;
    // The next one ends it.
    rig.post("/c/1", &packet).await;
    let mut pieces = Pieces::new(Kind::of(Some("video/MP2T"), b""));
    let mut whole = Vec::new();
    for _ in 0..2 {
        let (_, text, _, complete) = segment(&inbox).await.expect("a segment");
        whole.extend(pieces.push(Bytes::from(text)));
        whole.extend(pieces.end(complete));
    }
    assert_eq!(whole.concat(), packet.repeat(3).as_bytes());
    assert_eq!(pieces.stats().dropped, 100);
}

#[tokio::test]
async fn every_segment_is_counted_while_the_server_comes_and_goes() {
    let mut rig = Rig::new().await;
    let (address, url) = (rig.address.to_string(), rig.url("c"));
    let publishing = publish(
        &url,
        PublishSettings {
            policy: publisher::Settings {
                failures: None,
                retry: Duration::from_millis(10),
                backoff: Duration::from_millis(40),
                ..publisher::Settings::default()
            },
            stall: Duration::from_millis(500),
            ..PublishSettings::default()
        },
    );
    let patient = crate::trickle::subscriber::Settings {
        failures: None,
        wait_for_channel: true,
        ..quick(Wanted::Next)
    };
    let (inbox, _task) = subscribe(vec![url.clone()], patient);
    let mut begun = 0_u64;
    for round in 0..3 {
        for _ in 0..5 {
            // A server that is gone costs segments; each of them is heard of.
            until("there is room", || publishing.feed.begin() == Begin::Begun).await;
            begun += 1;
            let _ = publishing.feed.write(Bytes::from_static(b"half"));
            tokio::time::sleep(Duration::from_millis(5)).await;
            let _ = publishing.feed.write(Bytes::from_static(b"-whole"));
            publishing.feed.end();
        }
        // In the middle of one.
        until("there is room", || publishing.feed.begin() == Begin::Begun).await;
        begun += 1;
        let stored = rig.server.totals().bytes_in;
        if publishing.feed.write(Bytes::from_static(b"lost")) == Write::Queued {
            until("some of it is there", || rig.server.totals().bytes_in > stored).await;
        }
        rig.kill().await;
        publishing.feed.end();
        rig = Rig::at(&address, open(), None).await;
        let again = || publishing.heard(|event| matches!(event, Event::Lost { .. }));
        until("it is lost", again).await;
        assert!(begun >= 6 * (round + 1));
    }
    // Both have recovered: what is published now arrives.
    let sent = loop {
        publishing.segment("at last").await;
        begun += 1;
        let mut found = false;
        while let Ok(Ok((_, text, _, complete))) =
            tokio::time::timeout(Duration::from_millis(300), segment(&inbox)).await
        {
            found |= complete && text == "at last";
        }
        if found {
            break begun;
        }
    };
    let events = publishing.events.clone();
    let published = publishing.finished().await;
    let (mut done, mut lost) = (0, 0);
    for event in events.lock().expect("no panic").iter() {
        done += u64::from(matches!(event, Event::Done { .. }));
        lost += u64::from(matches!(event, Event::Lost { .. }));
    }
    assert_eq!(done + lost, sent, "{:?}", published.stats);
    assert!(done >= 4 && lost >= 3, "{done} done, {lost} lost");
}

//! What the server refuses, what it counts, and publishing from inside.

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::rig::{LONG, Rig, until};
use crate::trickle::channel;
use crate::trickle::server::{Config, LocalError, Refusal};

fn open() -> Config {
    Config {
        autocreate: true,
        ..Config::default()
    }
}

#[tokio::test]
async fn tokens_open_what_they_are_for() {
    let rig = Rig::with(Config {
        publish_token: Some("write-me".into()),
        subscribe_token: Some("read-me".into()),
        ..open()
    })
    .await;
    let with = async |method: &str, path: &str, token: &str| {
        let mut peer = rig.connect().await;
        peer.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nAuthorization: {token}\r\n\r\n"
        ))
        .await;
        peer.head().await
    };
    for token in [
        "",
        "Bearer",
        "Bearer read-me",
        "Bearer write-m",
        "Bearer write-mee",
        "Basic write-me",
    ] {
        let head = with("POST", "/c", token).await;
        assert_eq!(
            (head.status, head.header("www-authenticate")),
            (401, Some("Bearer")),
            "{token}"
        );
    }
    assert_eq!(with("POST", "/c", "Bearer write-me").await.status, 200);
    assert_eq!(with("GET", "/c/next", "Bearer write-me").await.status, 401);
    assert_eq!(with("GET", "/c/next", "bearer read-me").await.status, 200);
    assert_eq!(with("DELETE", "/c", "Bearer read-me").await.status, 401);
}

#[tokio::test]
async fn cors_is_answered_when_it_is_switched_on() {
    let rig = Rig::with(Config {
        cors: Some("https://example.org".into()),
        ..open()
    })
    .await;
    let (head, _) = rig.ask("OPTIONS", "/c/0").await;
    assert_eq!(
        (head.status, head.header("access-control-allow-origin")),
        (204, Some("https://example.org"))
    );
    let (head, _) = rig.ask("POST", "/c").await;
    assert_eq!(head.header("access-control-allow-origin"), Some("https://example.org"));
}

#[tokio::test]
async fn limits_have_a_status_and_a_reason() {
    let config = Config {
        max_channels: 2,
        channel: channel::Settings {
            max_segment: 10,
            max_readers: 1,
            max_writers: 1,
            ..channel::Settings::default()
        },
        ..open()
    };
    let rig = Rig::with(config).await;
    let mut writer = rig.connect().await;
    writer.post("/c/0", "").await;
    rig.crowded("c", (0, 1)).await;
    let (head, body) = rig.ask("POST", "/c/1").await;
    assert_eq!((head.status, head.closes()), (503, true));
    assert!(body.contains("1 publishers"), "{body}");
    let mut reader = rig.connect().await;
    reader.ask("GET", "/c/0").await;
    rig.crowded("c", (1, 1)).await;
    let (head, body) = rig.get("/c/0").await;
    assert!(head.status == 503 && body.contains("1 readers"), "{body}");
    writer.chunk_out("0123456789").await;
    writer.chunk_out("x").await;
    let head = writer.head().await;
    assert_eq!((head.status, head.closes()), (413, true));
    let body = writer.body(&head).await;
    assert!(body.contains("10 bytes"), "{body}");
    let head = reader.head().await;
    assert_eq!(reader.body(&head).await, "0123456789");
    rig.ask("POST", "/d").await;
    let (head, body) = rig.ask("POST", "/e").await;
    assert!(head.status == 503 && body.contains("2 channels"), "{body}");
    assert!(matches!(rig.server.create("e", ""), Err(Refusal::Channels(2))));
    assert!(matches!(rig.server.create("", ""), Err(Refusal::BadChannel)));
}

#[tokio::test]
async fn memory_is_bounded_over_all_channels_and_comes_back() {
    let config = Config {
        max_memory: 100_000,
        ..open()
    };
    let rig = Rig::with(config).await;
    let text = "x".repeat(30_000);
    for name in ["a", "b", "c"] {
        assert_eq!(rig.post(&format!("/{name}/0"), &text).await.status, 200);
    }
    let mut writer = rig.connect().await;
    writer.post("/d/0", "").await;
    writer.chunk_out(&text).await;
    let head = writer.head().await;
    assert_eq!((head.status, head.closes()), (503, true));
    assert!(writer.body(&head).await.contains("100000 bytes"));
    assert!(rig.server.totals().memory <= 100_000);
    for name in ["a", "b", "c"] {
        rig.ask("DELETE", &format!("/{name}")).await;
    }
    assert_eq!(rig.post("/d/-1", &text).await.status, 200);
    rig.ask("DELETE", "/d").await;
    until("all memory is back", || rig.server.totals().memory == 0).await;
}

#[tokio::test]
async fn connections_are_bounded() {
    let rig = Rig::with(Config {
        max_connections: 1,
        ..open()
    })
    .await;
    let first = rig.connect().await;
    until("one is in", || rig.server.totals().connections == 1).await;
    let mut second = rig.connect().await;
    let head = second.head().await;
    assert_eq!(
        (head.status, second.body(&head).await.as_str()),
        (503, "too many connections\n")
    );
    drop(first);
    until("it is gone", || rig.server.totals().connections == 0).await;
    assert_eq!(rig.ask("POST", "/c").await.0.status, 200);
}

#[tokio::test]
async fn segments_can_be_published_from_inside() {
    let rig = Rig::with(Config::default()).await;
    let mut segment = rig.server.begin("c", "text/plain", Some(7)).expect("a segment");
    let mut reader = rig.connect().await;
    reader.ask("GET", "/c/7").await;
    rig.crowded("c", (1, 1)).await;
    segment.write(Bytes::from_static(b"hello")).expect("there is room");
    let head = reader.head().await;
    assert_eq!(
        (head.seq(), head.header("content-type")),
        (Some("7"), Some("text/plain"))
    );
    segment.finish();
    assert_eq!(reader.body(&head).await, "hello");
    assert_eq!(rig.server.begin("c", "", Some(7)).err(), Some(LocalError::Ended));
    assert_eq!(rig.server.begin("c", "", None).expect("a segment").seq(), 8);
    assert!(rig.server.delete("c"));
}

#[tokio::test]
async fn nobody_makes_a_channel_once_the_server_has_stopped() {
    let mut rig = Rig::with(Config { drain: LONG, ..open() }).await;
    // Two that are under way: one holds up the end, the other begins its segment only then.
    let mut writer = rig.connect().await;
    writer.post("/c/0", "").await;
    writer.chunk_out("x").await;
    let mut late = rig.connect().await;
    late.send("POST /late/0 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n")
        .await;
    until("it is stored", || rig.server.totals().bytes_in == 1).await;
    rig.stop();
    until("its channels have ended", || rig.server.channels().is_empty()).await;
    assert_eq!(rig.server.create("c", "").err(), Some(Refusal::Stopped));
    assert_eq!(
        rig.server.begin("c", "", None).err(),
        Some(LocalError::Refused(Refusal::Stopped))
    );
    // Its connection is closed, or its request refused.
    let _ = late.stream.write_all(b"\r\nx").await;
    assert!(rig.server.channels().is_empty());
    writer.end_out().await;
    assert_eq!(writer.head().await.status, 200);
    rig.stopped().await;
}

#[tokio::test]
async fn counters_say_what_happened() {
    let rig = Rig::new().await;
    rig.post("/c/0", "hello").await;
    rig.get("/c/0").await;
    rig.get("/c/9").await;
    let totals = rig.server.totals();
    assert_eq!(
        (totals.channels, totals.segments, totals.bytes_in, totals.bytes_out),
        (1, 1, 5, 5)
    );
    assert_eq!(totals.answers.get(&("GET", 470)), Some(&1));
    assert_eq!(totals.answers.get(&("POST", 200)), Some(&1));
    rig.ask("DELETE", "/c").await;
    assert_eq!(rig.server.totals().bytes_in, 5, "also of channels that are gone");
    assert!(rig.server.totals().uptime < LONG);
}

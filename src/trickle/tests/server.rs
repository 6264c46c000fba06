//! The server, over sockets, as its peers see it.

use std::sync::Arc;
use std::time::Duration;

use super::rig::{Rig, soon};
use crate::trickle::channel;
use crate::trickle::server::{Config, Denied, Hooks};

fn open() -> Config {
    Config {
        autocreate: true,
        ..Config::default()
    }
}

#[tokio::test]
async fn s01_s02_nothing_is_created_unless_it_may_be() {
    let rig = Rig::with(Config::default()).await;
    let (head, body) = rig.ask("POST", "/c").await;
    assert_eq!((head.status, body.as_str()), (404, "Stream not found\n"));
    let (head, body) = rig.ask("POST", "/c/0").await;
    assert_eq!(
        (head.status, body.as_str(), head.closes()),
        (404, "Stream not found\n", true)
    );
    assert!(rig.server.channels().is_empty());
}

#[tokio::test]
async fn s03_a_channel_keeps_the_type_it_was_created_with() {
    let rig = Rig::new().await;
    let mut peer = rig.connect().await;
    peer.send("POST /c HTTP/1.1\r\nHost: x\r\nExpect-Content: text/plain\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(peer.head().await.status, 200);
    peer.post("/c/0", "Content-Type: x/y\r\n").await;
    peer.chunk_out("hi").await;
    peer.end_out().await;
    let head = peer.head().await;
    assert_eq!((head.status, head.seq()), (200, Some("0")));
    assert!(head.raw.contains("\r\nLp-Trickle-Seq: 0\r\n"), "{}", head.raw);
    let (head, body) = rig.get("/c/0").await;
    assert_eq!((head.header("content-type"), body.as_str()), (Some("text/plain"), "hi"));
}

#[tokio::test]
async fn s04_a_segment_creates_its_channel_with_its_type() {
    let rig = Rig::new().await;
    let mut peer = rig.connect().await;
    peer.post("/c/0", "Content-Type: a/b\r\n").await;
    peer.chunk_out("x").await;
    peer.end_out().await;
    assert_eq!(peer.head().await.status, 200);
    assert_eq!(rig.get("/c/0").await.0.header("content-type"), Some("a/b"));
}

#[tokio::test]
async fn d11_no_type_is_octets_or_empty_as_in_the_reference() {
    for (dialect, mime) in [
        (channel::Dialect::default(), "application/octet-stream"),
        (channel::Dialect::reference(), ""),
    ] {
        let channel = channel::Settings {
            dialect,
            ..channel::Settings::default()
        };
        let rig = Rig::with(Config { channel, ..open() }).await;
        rig.post("/c/0", "x").await;
        assert_eq!(rig.get("/c/0").await.0.header("content-type"), Some(mime));
    }
}

#[tokio::test]
async fn s05_finished_segments_are_read_with_next_write() {
    let rig = Rig::new().await;
    for (seq, text) in [("0", "first"), ("1", "second")] {
        assert_eq!(rig.post(&format!("/c/{seq}"), text).await.seq(), Some(seq));
    }
    for (seq, text) in [("0", "first"), ("1", "second")] {
        let (head, body) = rig.get(&format!("/c/{seq}")).await;
        assert_eq!((head.seq(), head.latest(), body.as_str()), (Some(seq), Some("2"), text));
    }
}

#[tokio::test]
async fn s06_bytes_go_out_as_they_come_in() {
    let rig = Rig::new().await;
    rig.ask("POST", "/c").await;
    let (mut reader, mut writer) = (rig.connect().await, rig.connect().await);
    reader.ask("GET", "/c/0").await;
    rig.crowded("c", (1, 0)).await;
    writer.post("/c/0", "").await;
    writer.chunk_out("AAAA").await;
    let head = reader.head().await;
    assert_eq!((head.status, head.seq(), head.latest()), (200, Some("0"), None));
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    assert_eq!(reader.chunk().await.as_deref(), Some("AAAA"));
    writer.chunk_out("BBBB").await;
    assert_eq!(reader.chunk().await.as_deref(), Some("BBBB"));
    writer.end_out().await;
    assert_eq!(reader.chunk().await, None);
    assert_eq!(writer.head().await.status, 200);
}

#[tokio::test]
async fn s07_s08_next_waits_for_the_following_segment_and_current_does_not() {
    let rig = Rig::new().await;
    rig.ask("POST", "/c").await;
    let (mut current, mut next, mut late) = (rig.connect().await, rig.connect().await, rig.connect().await);
    current.ask("GET", "/c/-2").await;
    rig.crowded("c", (1, 0)).await;
    let mut writer = rig.connect().await;
    writer.post("/c/0", "").await;
    writer.chunk_out("x").await;
    let head = current.head().await;
    assert_eq!(
        (head.seq(), head.latest()),
        (Some("0"), None),
        "it waited for segment 0"
    );
    next.ask("GET", "/c/-1").await;
    late.ask("GET", "/c/-2").await;
    let head = late.head().await;
    assert_eq!((head.seq(), head.latest()), (Some("0"), Some("1")));
    rig.crowded("c", (3, 1)).await;
    writer.end_out().await;
    rig.post("/c/1", "y").await;
    assert_eq!(next.head().await.seq(), Some("1"));
}

#[tokio::test]
async fn s09_reading_begins_where_it_is_told() {
    let rig = Rig::new().await;
    for seq in 0..2 {
        rig.post(&format!("/c/{seq}"), "x").await;
    }
    let (head, _) = rig.get("/c/1").await;
    assert_eq!(head.seq(), Some("1"));
    for seq in 2..5 {
        rig.post(&format!("/c/{seq}"), &format!("segment {seq}")).await;
        assert_eq!(rig.get(&format!("/c/{seq}")).await.1, format!("segment {seq}"));
    }
}

#[tokio::test]
async fn s10_s11_the_window_holds_five_and_a_preconnected_one_counts() {
    let rig = Rig::new().await;
    for seq in 0..8 {
        rig.post(&format!("/c/{seq}"), "x").await;
    }
    for seq in ["0", "1", "2"] {
        let (head, body) = rig.get(&format!("/c/{seq}")).await;
        assert_eq!((head.status, head.latest(), head.seq()), (470, Some("8"), Some(seq)));
        assert_eq!(
            (head.reason.as_str(), body.as_str()),
            ("status code 470", "Entry not found")
        );
        assert_eq!(head.header("content-type"), Some("text/plain; charset=utf-8"));
    }
    for seq in 3..8 {
        assert_eq!(rig.get(&format!("/c/{seq}")).await.0.status, 200);
    }
    let mut preconnected = rig.connect().await;
    preconnected.post("/c/8", "").await;
    rig.crowded("c", (0, 1)).await;
    assert_eq!(rig.get("/c/3").await.0.status, 470);
}

#[tokio::test]
async fn s12_one_ahead_is_waited_for_on_a_new_channel_and_two_ahead_are_not() {
    let rig = Rig::new().await;
    rig.ask("POST", "/c").await;
    let (head, _) = rig.get("/c/2").await;
    assert_eq!((head.status, head.latest()), (470, Some("0")));
    let mut reader = rig.connect().await;
    reader.ask("GET", "/c/1").await;
    rig.crowded("c", (1, 0)).await;
    rig.post("/c/0", "x").await;
    rig.post("/c/1", "y").await;
    let head = reader.head().await;
    assert_eq!(
        (head.seq(), head.latest()),
        (Some("1"), Some("0")),
        "it waited one ahead"
    );
}

#[tokio::test]
async fn s13_an_empty_post_is_an_empty_segment() {
    let rig = Rig::new().await;
    let (head, _) = rig.ask("POST", "/c/0").await;
    assert_eq!((head.status, head.seq(), head.closes()), (200, Some("0"), true));
    let (head, body) = rig.get("/c/0").await;
    assert_eq!(
        (head.status, head.seq(), head.latest(), head.closed()),
        (200, Some("0"), Some("1"), false)
    );
    assert_eq!((head.header("content-length"), body.as_str()), (Some("0"), ""));
    assert_eq!(head.header("content-type"), None);
}

#[tokio::test]
async fn s14_next_write_is_told() {
    let rig = Rig::new().await;
    rig.ask("POST", "/c").await;
    for next in ["0", "1"] {
        let (head, body) = rig.get("/c/next").await;
        assert_eq!((head.status, head.latest(), body.as_str()), (200, Some(next), next));
        rig.post("/c/-1", "x").await;
    }
    assert_eq!(rig.get("/nope/next").await.0.status, 404);
    let (head, body) = rig.ask("POST", "/c/next").await;
    assert_eq!((head.status, body.as_str()), (400, "Invalid idx\n"));
}

#[tokio::test]
async fn s15_s16_deleting_a_channel_tells_who_waits_and_ends_who_reads() {
    let rig = Rig::new().await;
    let (mut active, mut preconnected) = (rig.connect().await, rig.connect().await);
    let (mut middle, mut waiting) = (rig.connect().await, rig.connect().await);
    active.post("/c/0", "").await;
    active.chunk_out("x").await;
    middle.ask("GET", "/c/0").await;
    middle.head().await;
    assert_eq!(middle.chunk().await.as_deref(), Some("x"));
    waiting.ask("GET", "/c/1").await;
    preconnected.post("/c/1", "").await;
    rig.crowded("c", (2, 2)).await;
    let (head, _) = rig.ask("DELETE", "/c").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("0")));
    assert_eq!(middle.chunk().await, None, "a normal end, without a word");
    let head = waiting.head().await;
    assert_eq!(
        (head.status, head.seq(), head.latest(), head.closed()),
        (200, Some("1"), Some("1"), true)
    );
    let head = preconnected.head().await;
    assert_eq!(
        (head.status, head.seq(), head.closed(), head.closes()),
        (200, Some("1"), true, true)
    );
    active.chunk_out("y").await;
    active.end_out().await;
    let head = active.head().await;
    assert_eq!((head.status, head.seq(), head.closed()), (200, Some("0"), false));
    let (head, body) = rig.get("/c/0").await;
    assert_eq!((head.status, body.as_str()), (404, "Stream not found\n"));
}

#[tokio::test]
async fn s17_deleting_what_is_not_there_says_what_is_not() {
    let rig = Rig::new().await;
    rig.post("/c/0", "x").await;
    for (path, status, text) in [
        ("/nope", 400, "Invalid stream\n"),
        ("/c/7", 400, "Nonexistent segment\n"),
        ("/nope/0", 404, "Stream not found\n"),
        ("/nope/abc", 404, "Stream not found\n"),
        ("/c/abc", 400, "Invalid idx\n"),
        ("/c/next", 400, "Invalid idx\n"),
    ] {
        let (head, body) = rig.ask("DELETE", path).await;
        assert_eq!((head.status, body.as_str()), (status, text), "{path}");
        assert_eq!(head.header("x-content-type-options"), Some("nosniff"));
    }
}

#[tokio::test]
async fn s18_deleting_a_preconnected_segment_answers_both_sides() {
    let rig = Rig::new().await;
    let (mut writer, mut reader) = (rig.connect().await, rig.connect().await);
    writer.post("/c/0", "").await;
    rig.crowded("c", (0, 1)).await;
    reader.ask("GET", "/c/0").await;
    rig.crowded("c", (1, 1)).await;
    assert_eq!(rig.ask("DELETE", "/c/0").await.0.status, 200);
    let head = reader.head().await;
    assert_eq!(
        (head.status, head.seq(), head.latest(), head.closed()),
        (200, Some("0"), Some("1"), false)
    );
    let head = writer.head().await;
    assert_eq!(
        (head.status, head.seq(), head.closes(), head.closed()),
        (200, Some("0"), true, false)
    );
    assert_eq!(rig.get("/c/next").await.1, "1");
}

#[tokio::test]
async fn s19_minus_one_is_the_next_number() {
    let rig = Rig::new().await;
    assert_eq!(rig.post("/c/-1", "x").await.seq(), Some("0"));
    assert_eq!(rig.post("/c/-1", "x").await.seq(), Some("1"));
}

#[tokio::test]
async fn s20_a_restarted_publisher_ends_what_it_left_open() {
    let rig = Rig::new().await;
    for seq in 0..3 {
        rig.post(&format!("/c/{seq}"), "x").await;
    }
    let (mut dead, mut reader) = (rig.connect().await, rig.connect().await);
    dead.post("/c/3", "").await;
    dead.chunk_out("half").await;
    reader.ask("GET", "/c/3").await;
    reader.head().await;
    assert_eq!(reader.chunk().await.as_deref(), Some("half"));
    let mut restarted = rig.connect().await;
    restarted.post("/c/-1", "Lp-Trickle-Reset: 1\r\n").await;
    assert_eq!(reader.chunk().await, None, "before anything is written");
    restarted.chunk_out("after-reset").await;
    restarted.end_out().await;
    assert_eq!(restarted.head().await.seq(), Some("4"));
    assert_eq!(rig.get("/c/3").await.1, "half");
    assert_eq!(rig.get("/c/4").await.1, "after-reset");
}

#[tokio::test]
async fn s21_two_posts_to_one_number_are_joined() {
    let rig = Rig::new().await;
    let (mut first, mut reader) = (rig.connect().await, rig.connect().await);
    first.post("/c/0", "").await;
    first.chunk_out("Hello").await;
    reader.ask("GET", "/c/0").await;
    reader.head().await;
    assert_eq!(reader.chunk().await.as_deref(), Some("Hello"));
    rig.post("/c/0", "GoodbyWorld").await;
    assert_eq!(reader.chunk().await.as_deref(), Some("GoodbyWorld"));
    assert_eq!(reader.chunk().await, None);
    assert_eq!(rig.get("/c/0").await.1, "HelloGoodbyWorld");
}

#[tokio::test]
async fn s22_an_aborted_post_is_taken_up_by_the_next() {
    let rig = Rig::new().await;
    let (mut broken, mut reader) = (rig.connect().await, rig.connect().await);
    broken.post("/c/0", "").await;
    broken.chunk_out("AAAA").await;
    reader.ask("GET", "/c/0").await;
    reader.head().await;
    assert_eq!(reader.chunk().await.as_deref(), Some("AAAA"));
    drop(broken);
    rig.crowded("c", (1, 0)).await;
    rig.post("/c/0", "BBBB").await;
    assert_eq!(reader.chunk().await.as_deref(), Some("BBBB"));
    assert_eq!(reader.chunk().await, None);
}

#[tokio::test]
async fn d05_readers_of_an_aborted_post_do_not_hang() {
    let mut channel = channel::Settings::default();
    channel.dialect.abort_grace = Some(Duration::from_millis(50));
    let rig = Rig::with(Config { channel, ..open() }).await;
    let (mut broken, mut reader) = (rig.connect().await, rig.connect().await);
    broken.post("/c/0", "").await;
    broken.chunk_out("AAAA").await;
    reader.ask("GET", "/c/0").await;
    reader.head().await;
    assert_eq!(reader.chunk().await.as_deref(), Some("AAAA"));
    drop(broken);
    assert_eq!(reader.chunk().await, None);
}

#[tokio::test]
async fn s23_a_post_to_a_number_that_has_ended_is_answered_at_once() {
    let rig = Rig::new().await;
    rig.post("/c/0", "x").await;
    let mut late = rig.connect().await;
    late.post("/c/0", "").await;
    let head = late.head().await;
    assert_eq!((head.status, head.seq(), head.closes()), (200, Some("0"), true));
    assert_eq!(rig.get("/c/0").await.1, "x");
    assert_eq!(rig.get("/c/next").await.1, "1");
}

#[tokio::test]
async fn s24_a_publisher_that_does_not_begin_gets_signs_of_life() {
    let interim = Duration::from_millis(30);
    let rig = Rig::with(Config { interim, ..open() }).await;
    let mut slow = rig.connect().await;
    slow.post("/c/0", "").await;
    for _ in 0..2 {
        let head = slow.any_head().await;
        assert_eq!((head.status, head.raw.as_str()), (100, "HTTP/1.1 100 Continue\r\n\r\n"));
    }
    slow.chunk_out("late").await;
    slow.end_out().await;
    let head = slow.head().await;
    assert_eq!((head.status, head.seq()), (200, Some("0")));
    assert_eq!(rig.get("/c/0").await.1, "late");
}

#[tokio::test]
async fn p05_who_expects_to_be_told_to_continue_is_told_at_once() {
    let rig = Rig::new().await;
    let mut peer = rig.connect().await;
    peer.post("/c/0", "Expect: 100-continue\r\n").await;
    assert_eq!(peer.any_head().await.status, 100);
    peer.chunk_out("x").await;
    peer.end_out().await;
    assert_eq!(peer.any_head().await.status, 200);
}

#[tokio::test]
async fn s25_a_channel_in_which_nothing_is_written_is_ended() {
    let config = Config {
        idle_channel: Duration::from_millis(150),
        sweep: Duration::from_millis(20),
        changefeed: true,
        ..open()
    };
    let rig = Rig::with(config).await;
    rig.ask("POST", "/c").await;
    let (mut reader, mut writer) = (rig.connect().await, rig.connect().await);
    reader.ask("GET", "/c/0").await;
    writer.post("/c/0", "").await;
    assert!(reader.head().await.closed());
    let head = writer.head().await;
    assert!(head.closed() && head.closes());
    assert_eq!(rig.get("/c/next").await.0.status, 404);
    assert_eq!(rig.get("/_changes/next").await.0.status, 200, "its name begins with _");
}

#[tokio::test]
async fn s26_the_change_feed_tells_what_comes_and_goes() {
    let rig = Rig::with(Config {
        changefeed: true,
        ..open()
    })
    .await;
    rig.ask("POST", "/x").await;
    rig.ask("DELETE", "/x").await;
    rig.ask("POST", "/a%22%5Cb").await;
    for (seq, text) in [
        (0, r#"{"added":["_changes"]}"#),
        (1, r#"{"added":["x"]}"#),
        (2, r#"{"removed":["x"]}"#),
        (3, r#"{"added":["a\"\\b"]}"#),
    ] {
        let (head, body) = rig.get(&format!("/_changes/{seq}")).await;
        assert_eq!(
            (head.header("content-type"), body.as_str()),
            (Some("application/json"), text)
        );
    }
    assert_eq!(rig.ask("DELETE", "/_changes").await.0.status, 200);
    assert_eq!(rig.get("/_changes/0").await.0.status, 404);
}

#[tokio::test]
async fn s27_paths_are_below_the_base() {
    let rig = Rig::with(Config {
        base: "/ai/trickle/".into(),
        ..open()
    })
    .await;
    rig.ask("POST", "/ai/trickle/c").await;
    assert_eq!(rig.get("/ai/trickle/c/next").await.0.status, 200);
    for path in ["/c/next", "/ai/trickle/", "/ai/trickle/c/", "/ai/trickle/c/0/x", "/"] {
        let (head, body) = rig.get(path).await;
        assert_eq!((head.status, body.as_str()), (404, "404 page not found\n"), "{path}");
    }
}

#[derive(Debug)]
struct Strict;

impl Hooks for Strict {
    fn before_create(&self, name: &str, mime: &str) -> Result<(), Denied> {
        match (name, mime) {
            ("forbidden", _) => Err(Denied::Status(403, "not for you".into())),
            ("odd", _) => Err(Denied::Status(200, "odd".into())),
            ("broken", _) => Err(Denied::Failed("the database is gone".into())),
            _ => Ok(()),
        }
    }

    fn before_delete(&self, _name: &str) -> Result<(), Denied> {
        Err(Denied::Status(403, "it stays".into()))
    }
}

#[tokio::test]
async fn s28_hooks_may_refuse() {
    let rig = Rig::with(Config {
        hooks: Some(Arc::new(Strict)),
        ..open()
    })
    .await;
    for (name, status, text) in [
        ("forbidden", 403, "not for you\n"),
        ("odd", 400, "odd\n"),
        ("broken", 500, "the database is gone\n"),
    ] {
        let (head, body) = rig.ask("POST", &format!("/{name}")).await;
        assert_eq!((head.status, body.as_str()), (status, text));
        assert_eq!(rig.get(&format!("/{name}/next")).await.0.status, 404);
    }
    rig.ask("POST", "/c").await;
    assert_eq!(rig.ask("DELETE", "/c").await.0.status, 403);
    assert_eq!(rig.get("/c/next").await.0.status, 200);
    assert_eq!(
        rig.post("/forbidden/0", "x").await.status,
        200,
        "a segment asks no hook"
    );
}

#[tokio::test]
async fn s29_numbers_that_no_segment_has_are_refused_and_break_nothing() {
    let rig = Rig::new().await;
    rig.ask("POST", "/c").await;
    for (method, path) in [
        ("GET", "/c/-3"),
        ("DELETE", "/c/-1"),
        ("DELETE", "/c/-2"),
        ("POST", "/c/-2"),
        ("POST", "/c/-5"),
        ("GET", "/c/-5"),
        ("GET", "/c/9223372036854775807"),
        ("POST", "/c/9223372036854775808"),
        ("POST", "/c/1e3"),
        ("GET", "/c/%00"),
    ] {
        let (head, body) = soon(rig.ask(method, path)).await;
        assert_eq!((head.status, body.as_str()), (400, "Invalid idx\n"), "{method} {path}");
    }
    assert_eq!(rig.post("/c/0", "x").await.status, 200);
    assert_eq!(rig.get("/c/0").await.1, "x");
}

#[tokio::test]
async fn s30_a_segment_of_64_mib_passes() {
    let rig = Rig::new().await;
    let piece = "0123456789abcdef".repeat(1 << 16);
    let mut writer = rig.connect().await;
    writer.post("/c/0", "").await;
    let mut reader = rig.connect().await;
    let reading = async {
        rig.crowded("c", (0, 1)).await;
        reader.ask("GET", "/c/0").await;
        reader.head().await;
        let mut read = 0;
        while let Some(chunk) = reader.chunk().await {
            for byte in [0, chunk.len() / 2, chunk.len() - 1] {
                assert_eq!(chunk.as_bytes()[byte], piece.as_bytes()[(read + byte) % piece.len()]);
            }
            read += chunk.len();
        }
        read
    };
    let writing = async {
        for _ in 0..64 {
            writer.chunk_out(&piece).await;
        }
        writer.end_out().await;
        writer.head().await.status
    };
    let (read, status) = tokio::join!(reading, writing);
    assert_eq!((read, status), (64 << 20, 200));
}

#[tokio::test]
async fn s31_readers_at_different_places_get_the_same_bytes() {
    let rig = Rig::new().await;
    let mut writer = rig.connect().await;
    writer.post("/c/0", "").await;
    let pieces: Vec<String> = (0..100).map(|i| format!("{i:04}").repeat(1 + i * 7)).collect();
    let whole = pieces.concat();
    writer.chunk_out(&pieces[0]).await;
    let mut readers = Vec::new();
    for (i, piece) in pieces.iter().enumerate().skip(1) {
        if i % 10 == 1 {
            let mut reader = rig.connect().await;
            reader.ask("GET", "/c/0").await;
            reader.head().await;
            readers.push((reader, String::new()));
        }
        writer.chunk_out(piece).await;
        // Every other one reads along, the rest at the end.
        for (reader, text) in readers.iter_mut().step_by(2) {
            text.push_str(&reader.chunk().await.expect("not the end"));
        }
    }
    writer.end_out().await;
    for (mut reader, mut text) in readers {
        while let Some(chunk) = reader.chunk().await {
            text.push_str(&chunk);
        }
        assert!(text == whole, "{} bytes of {}", text.len(), whole.len());
    }
}

#[tokio::test]
async fn s32_one_connection_serves_many_requests() {
    let rig = Rig::new().await;
    rig.post("/c/0", "zero").await;
    let mut peer = rig.connect().await;
    for _ in 0..2 {
        peer.ask("GET", "/c/0").await;
        let head = peer.head().await;
        assert_eq!(peer.body(&head).await, "zero");
    }
    peer.post("/c/1", "").await;
    peer.chunk_out("one").await;
    peer.end_out().await;
    assert_eq!(peer.head().await.seq(), Some("1"));
    peer.ask("HEAD", "/c/1").await;
    let head = peer.head().await;
    assert_eq!((head.status, head.seq(), head.latest()), (200, Some("1"), Some("2")));
    peer.ask("GET", "/c/1").await;
    let head = peer.head().await;
    assert_eq!(peer.body(&head).await, "one", "a head has no body");
}

#[tokio::test]
async fn s33_other_methods_are_told_which_there_are() {
    let rig = Rig::new().await;
    for (method, path, allow) in [
        ("GET", "/c", "DELETE, POST"),
        ("PUT", "/c/0", "DELETE, GET, HEAD, POST"),
        ("OPTIONS", "/c/0", "DELETE, GET, HEAD, POST"),
    ] {
        let (head, _) = rig.ask(method, path).await;
        assert_eq!((head.status, head.header("allow")), (405, Some(allow)), "{method}");
        assert_eq!(head.header("access-control-allow-origin"), None, "no page may use it");
    }
}

#[tokio::test]
async fn s34_a_publisher_may_jump_ahead() {
    let rig = Rig::new().await;
    rig.post("/c/100", "x").await;
    let (head, _) = rig.get("/c/99").await;
    assert_eq!((head.status, head.latest()), (470, Some("101")));
    assert_eq!(rig.get("/c/-2").await.0.seq(), Some("100"));
    assert_eq!(rig.get("/c/next").await.1, "101");
}

#[tokio::test]
async fn the_ends_of_t5_are_told_when_the_server_stops() {
    let mut rig = Rig::new().await;
    let (mut active, mut reader, mut waiting) = (rig.connect().await, rig.connect().await, rig.connect().await);
    active.post("/c/0", "").await;
    active.chunk_out("x").await;
    reader.ask("GET", "/c/0").await;
    reader.head().await;
    assert_eq!(reader.chunk().await.as_deref(), Some("x"));
    waiting.ask("GET", "/c/1").await;
    rig.crowded("c", (2, 1)).await;
    rig.stop();
    assert_eq!(reader.chunk().await, None);
    assert!(waiting.head().await.closed());
    active.end_out().await;
    assert_eq!(active.head().await.status, 200);
    rig.stopped().await;
}

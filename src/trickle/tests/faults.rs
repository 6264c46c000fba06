//! What goes wrong on the way, and what is done on purpose.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::clients::{publish, quick, segment, subscribe};
use super::rig::{Rig, soon, until};
use crate::trickle::client::{
    Begin, Client, Config as ClientConfig, Error, Event, PublishSettings, SubscribeSettings, Write,
};
use crate::trickle::server::{Config, tls};
use crate::trickle::wire::{ChannelUrl, Wanted};
use crate::trickle::{publisher, subscriber};

fn open() -> Config {
    Config {
        autocreate: true,
        ..Config::default()
    }
}

#[tokio::test]
async fn a_server_killed_in_mid_segment_and_started_again_costs_what_was_under_way() {
    let rig = Rig::new().await;
    let (address, url) = (rig.address.to_string(), rig.url("c"));
    let settings = PublishSettings {
        policy: publisher::Settings {
            failures: None,
            retry: Duration::from_millis(20),
            ..publisher::Settings::default()
        },
        ..PublishSettings::default()
    };
    let publishing = publish(&url, settings);
    let patient = subscriber::Settings {
        failures: None,
        wait_for_channel: true,
        ..quick(Wanted::Next)
    };
    publishing.segment("zero").await;
    until("it is done", || {
        publishing.heard(|event| matches!(event, Event::Done { seq: 0, .. }))
    })
    .await;
    let (inbox, _task) = subscribe(vec![url.clone()], patient);
    // The reader, and the preconnected segment.
    rig.crowded("c", (1, 1)).await;
    publishing.segment("one").await;
    assert_eq!(segment(&inbox).await, Ok((1, "one".into(), false, true)));
    assert_eq!(publishing.feed.begin(), Begin::Begun);
    assert_eq!(publishing.feed.write("two".into()), Write::Queued);
    until("it is stored", || rig.server.totals().bytes_in == 10).await;
    rig.kill().await;
    until("it is lost", || {
        publishing.heard(|event| matches!(event, Event::Lost { seq: Some(2), .. }))
    })
    .await;
    let again = Rig::at(&address, open(), None).await;
    publishing.segment("three").await;
    until("it is back", || {
        publishing.heard(|event| matches!(event, Event::Done { seq: 3.., .. }))
    })
    .await;
    // It may have been told that there is no channel, and then waits for what comes next.
    again.crowded("c", (1, 1)).await;
    publishing.segment("more").await;
    loop {
        let (seq, text, ..) = segment(&inbox).await.expect("it goes on");
        if text == "two" {
            continue;
        }
        assert!(seq >= 3 && ["three", "more"].contains(&text.as_str()), "{seq} {text}");
        break;
    }
    drop(again);
}

#[tokio::test]
async fn a_peer_that_says_nothing_or_too_little_is_cut_off() {
    let config = Config {
        header: Duration::from_millis(60),
        idle_connection: Duration::from_millis(60),
        ..open()
    };
    let rig = Rig::with(config).await;
    let mut silent = rig.connect().await;
    assert!(silent.ended().await, "not a word");
    let mut slow = rig.connect().await;
    slow.send("POST /c/0 HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    let mut answer = String::new();
    let _ = soon(slow.stream.read_to_string(&mut answer)).await;
    assert!(!answer.contains("200"), "{answer}");
    let mut idle = rig.connect().await;
    idle.ask("POST", "/c").await;
    assert_eq!(idle.head().await.status, 200);
    assert!(idle.ended().await, "no second request");
    until("all are gone", || rig.server.totals().connections == 0).await;
}

#[tokio::test]
async fn a_reader_that_waits_is_not_idle() {
    let config = Config {
        header: Duration::from_millis(30),
        idle_connection: Duration::from_millis(30),
        stall: Duration::from_millis(30),
        ..open()
    };
    let rig = Rig::with(config).await;
    rig.ask("POST", "/c").await;
    let mut reader = rig.connect().await;
    reader.ask("GET", "/c/0").await;
    // Several times as long as a silent connection may last.
    tokio::time::sleep(Duration::from_millis(150)).await;
    rig.post("/c/0", "x").await;
    assert_eq!(reader.head().await.seq(), Some("0"));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_off_and_holds_up_nobody() {
    let config = Config {
        stall: Duration::from_millis(100),
        ..open()
    };
    let rig = Rig::with(config).await;
    let text = "x".repeat(1 << 20);
    let mut writer = rig.connect().await;
    writer.post("/c/0", "").await;
    writer.chunk_out("first").await;
    let mut deaf = rig.connect().await;
    deaf.ask("GET", "/c/0").await;
    rig.crowded("c", (1, 1)).await;
    for _ in 0..20 {
        writer.chunk_out(&text).await;
    }
    writer.end_out().await;
    assert_eq!(writer.head().await.status, 200);
    rig.crowded("c", (0, 0)).await;
}

#[tokio::test]
async fn a_publisher_that_falls_silent_is_cut_off_on_request() {
    let config = Config {
        silence: Some(Duration::from_millis(60)),
        ..open()
    };
    let rig = Rig::with(config).await;
    let mut silent = rig.connect().await;
    silent.post("/c/0", "").await;
    // Before it begins it may take its time.
    tokio::time::sleep(Duration::from_millis(150)).await;
    silent.chunk_out("x").await;
    let head = silent.head().await;
    assert_eq!((head.status, head.closes()), (408, true));
    rig.crowded("c", (0, 0)).await;
}

#[tokio::test]
async fn a_broken_body_is_told_to_who_is_left() {
    let rig = Rig::new().await;
    let mut peer = rig.connect().await;
    peer.post("/c/0", "").await;
    peer.send("4\r\nAAAA\r\nnonsense\r\n").await;
    let head = peer.head().await;
    assert_eq!((head.status, head.closes()), (500, true));
    assert_eq!(peer.body(&head).await, "Server error\n");
}

struct Certificate {
    folder: tempfile::TempDir,
}

impl Certificate {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("written");
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).expect("written");
        Self { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One that is over.
    fn expired() -> Self {
        let made = Self::new();
        let mut wanted = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        wanted.not_before = rcgen::date_time_ymd(2001, 1, 1);
        wanted.not_after = rcgen::date_time_ymd(2002, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let cert = wanted.self_signed(&key).expect("a certificate");
        std::fs::write(made.file("cert.pem"), cert.pem()).expect("written");
        std::fs::write(made.file("key.pem"), key.serialize_pem()).expect("written");
        made
    }

    async fn rig(&self) -> Rig {
        let tls = tls(&self.file("cert.pem"), &self.file("key.pem")).expect("a certificate");
        Rig::at("127.0.0.1:0", open(), Some(tls)).await
    }
}

fn client(insecure: bool, ca: Option<PathBuf>) -> Client {
    let config = ClientConfig {
        insecure,
        ca,
        ..ClientConfig::default()
    };
    Client::new(config).expect("a client")
}

#[tokio::test]
async fn p11_a_certificate_nobody_vouches_for_is_refused_unless_told_otherwise() {
    let certificate = Certificate::new();
    let rig = certificate.rig().await;
    let url: ChannelUrl = format!("trickles://localhost:{}/c", rig.address.port())
        .parse()
        .expect("an address");
    let error = client(false, None)
        .create(&url, "")
        .await
        .expect_err("nobody vouches for it");
    assert!(matches!(&error, Error::Tls { .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    client(true, None).create(&url, "").await.expect("it is switched off");
    client(false, Some(certificate.file("cert.pem")))
        .next(&url)
        .await
        .expect("it is vouched for");
    let other: ChannelUrl = format!("https://127.0.0.1:{}/c", rig.address.port())
        .parse()
        .expect("an address");
    let error = client(false, Some(certificate.file("cert.pem")))
        .next(&other)
        .await
        .expect_err("another name");
    assert!(matches!(&error, Error::Tls { .. }), "{error}");
}

#[tokio::test]
async fn p11_a_wrong_certificate_ends_publishing_and_subscribing_with_its_reason() {
    let (good, other, expired) = (Certificate::new(), Certificate::new(), Certificate::expired());
    let (rig, old) = (good.rig().await, expired.rig().await);
    let at = |host: &str, rig: &Rig| -> ChannelUrl {
        format!("trickles://{host}:{}/c", rig.address.port())
            .parse()
            .expect("an address")
    };
    for (what, url, trusted) in [
        ("nobody vouches for it", at("localhost", &rig), other.file("cert.pem")),
        ("another name", at("127.0.0.1", &rig), good.file("cert.pem")),
        ("it has expired", at("localhost", &old), expired.file("cert.pem")),
    ] {
        let client = client(false, Some(trusted));
        let (inbox, task) = client.subscribe(
            vec![url.clone()],
            SubscribeSettings {
                policy: quick(Wanted::Next),
                ..SubscribeSettings::default()
            },
        );
        let reading = tokio::spawn(task.run());
        assert_eq!(segment(&inbox).await, Err(subscriber::Over::Failed), "{what}");
        let trouble = soon(reading).await.expect("no panic").trouble.unwrap_or_default();
        assert!(trouble.contains("certificate"), "{what}: {trouble}");
        let settings = PublishSettings {
            policy: publisher::Settings {
                retry: Duration::from_millis(10),
                ..publisher::Settings::default()
            },
            ..PublishSettings::default()
        };
        let (_feed, task) = client.publish(&url, settings, |_| ());
        let published = soon(tokio::spawn(task.run())).await.expect("no panic");
        assert_eq!(published.over, Some(publisher::Over::Failed), "{what}");
    }
    assert_eq!(rig.server.totals().channels + old.server.totals().channels, 0);
    until("all have gone", || rig.server.totals().connections == 0).await;
}

#[tokio::test]
async fn segments_pass_through_tls() {
    let certificate = Certificate::new();
    let rig = certificate.rig().await;
    let url: ChannelUrl = format!("trickles://localhost:{}/c", rig.address.port())
        .parse()
        .expect("an address");
    let client = client(true, None);
    let (feed, task) = client.publish(&url, PublishSettings::default(), |_| ());
    let publishing = tokio::spawn(task.run());
    assert_eq!(feed.begin(), Begin::Begun);
    assert_eq!(feed.write("x".repeat(500_000).into()), Write::Queued);
    feed.finish();
    assert_eq!(soon(publishing).await.expect("no panic").stats.done, 1);
    let (inbox, task) = client.subscribe(vec![url], Default::default());
    let _reading = tokio::spawn(task.run());
    assert_eq!(segment(&inbox).await.map(|s| s.1.len()), Ok(500_000));
}

#[tokio::test]
async fn who_does_not_speak_tls_is_sent_away() {
    let certificate = Certificate::new();
    let rig = certificate.rig().await;
    let plain: ChannelUrl = format!("http://localhost:{}/c", rig.address.port())
        .parse()
        .expect("an address");
    assert!(client(false, None).create(&plain, "").await.is_err());
    let spoken = Rig::new().await;
    let secure: ChannelUrl = format!("https://localhost:{}/c", spoken.address.port())
        .parse()
        .expect("an address");
    let error = client(true, None)
        .create(&secure, "")
        .await
        .expect_err("it does not speak TLS");
    assert!(matches!(error, Error::Tls { .. }), "{error}");
}

#[test]
fn certificates_that_are_none_are_named() {
    let certificate = Certificate::new();
    let empty = certificate.file("empty.pem");
    std::fs::write(&empty, "").expect("written");
    let missing = certificate.file("missing.pem");
    for (cert, key, named) in [
        (missing.clone(), certificate.file("key.pem"), "missing.pem"),
        (empty.clone(), certificate.file("key.pem"), "empty.pem"),
        (certificate.file("cert.pem"), empty.clone(), "empty.pem"),
        (certificate.file("cert.pem"), missing.clone(), "missing.pem"),
    ] {
        let error = tls(&cert, &key).expect_err("none").to_string();
        assert!(error.contains(named) && error.contains("PEM"), "{error}");
    }
    for ca in [missing, empty, certificate.file("key.pem")] {
        let config = ClientConfig {
            ca: Some(ca.clone()),
            ..ClientConfig::default()
        };
        let error = Client::new(config).expect_err("none").to_string();
        assert!(error.contains(&ca.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn ten_thousand_channels_are_nothing_special_and_one_more_is_refused() {
    let config = Config {
        max_channels: 10_000,
        ..open()
    };
    let rig = Rig::with(config).await;
    let mut peer = rig.connect().await;
    // In bundles, so that it is not the round trips that take the time.
    for bundle in 0..100 {
        let requests: String = (0..100)
            .map(|i| {
                format!(
                    "POST /c{} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
                    bundle * 100 + i
                )
            })
            .collect();
        peer.send(&requests).await;
        for _ in 0..100 {
            assert_eq!(peer.head().await.status, 200);
        }
    }
    assert_eq!(rig.server.totals().channels, 10_000);
    // Channels in which nothing happens cost nothing but themselves, and who asks for them is not kept waiting.
    let before = Instant::now();
    assert_eq!((rig.server.totals().memory, rig.server.channels().len()), (0, 10_000));
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    let (head, body) = rig.ask("POST", "/one-more").await;
    assert!(head.status == 503 && body.contains("10000 channels"), "{body}");
    rig.post("/c9999/0", "x").await;
    assert_eq!(rig.get("/c9999/0").await.1, "x");
    rig.stopped().await;
}

#[tokio::test]
async fn a_hundred_publishers_on_one_channel_all_get_their_answer() {
    let rig = Arc::new(Rig::new().await);
    let mut publishers = JoinSet::new();
    for i in 0..100 {
        let rig = rig.clone();
        publishers.spawn(async move { rig.post(&format!("/c/{i}"), "0123456789").await.status });
    }
    while let Some(status) = soon(publishers.join_next()).await {
        assert_eq!(status.expect("no panic"), 200);
    }
    rig.crowded("c", (0, 0)).await;

    let mut peers = Vec::new();
    for _ in 0..100 {
        let mut peer = rig.connect().await;
        peer.post("/d/0", "").await;
        peer.chunk_out("0123456789").await;
        peers.push(peer);
    }
    until("all is stored", || {
        let channels = rig.server.channels();
        channels
            .iter()
            .any(|channel| channel.name == "d" && channel.stats.bytes_in == 1000)
    })
    .await;
    for peer in &mut peers {
        peer.end_out().await;
        assert_eq!(peer.head().await.status, 200);
    }
    assert_eq!(rig.get("/d/0").await.1, "0123456789".repeat(100));
}

#[tokio::test]
async fn garbage_is_answered_or_cut_off_and_harms_nobody_else() {
    let rig = Rig::with(Config {
        header: Duration::from_millis(100),
        ..open()
    })
    .await;
    let starts: [&[u8]; 8] = [
        b"",
        b"GET ",
        b"POST /c/0 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /c/1 HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET /c/0 HTTP/9.9\r\n\r\n",
        b"GET /%%%/-- HTTP/1.1\r\nHost: x\r\n",
        b"POST /c/2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    let mut word = 1_u32;
    let mut peers = JoinSet::new();
    for i in 0..200 {
        let mut bytes = starts[i % starts.len()].to_vec();
        for _ in 0..(i * 7) % 300 {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes.push((word >> 24) as u8);
        }
        let mut peer = rig.connect().await;
        peers.spawn(async move {
            // It may have had enough already.
            let _ = peer.stream.write_all(&bytes).await;
            let _ = peer.stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = soon(peer.stream.read_to_end(&mut answer)).await;
        });
    }
    while let Some(done) = soon(peers.join_next()).await {
        done.expect("no panic");
    }
    until("all are gone", || rig.server.totals().connections == 0).await;
    assert_eq!(rig.post("/fine/0", "x").await.status, 200);
    assert_eq!(rig.get("/fine/0").await.1, "x");
    let huge = format!("/{}", "x".repeat(60_000));
    let (head, _) = rig.ask("GET", &huge).await;
    assert!(matches!(head.status, 404 | 414 | 431), "{}", head.status);
}

#[tokio::test]
async fn publisher_that_closes_right_behind_its_last_byte_has_published_all_of_it() {
    let rig = Rig::new().await;
    let body = "x".repeat(5000);
    for seq in 0..40 {
        let request = match seq % 2 {
            0 => format!("POST /c/{seq} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{body}"),
            _ => format!(
                "POST /c/{seq} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n{body}\r\n0\r\n\r\n"
            ),
        };
        let mut stream = TcpStream::connect(rig.address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("sent");
        drop(stream);
        until("the segment has ended", || {
            let channels = rig.server.channels();
            let stats = channels.first().map(|channel| channel.stats);
            stats.is_some_and(|stats| stats.next_write == seq + 1 && stats.writers == 0)
        })
        .await;
    }
    let stats = rig.server.channels()[0].stats;
    assert_eq!((stats.orphans, stats.bytes_in), (0, 200_000));
}

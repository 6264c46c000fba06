//! Bytes that come back from a server: heads, chunks and bodies, to a subscriber and a publisher.
//!
//! Whatever comes, both come to an end once nobody answers any more, every segment offered is accounted for, and what
//! waits to be taken stays within its limit.

#![no_main]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use comfy_core::trickle::client::{Arrival, Begin, Client, Config, Event, Next, PublishSettings, SubscribeSettings};
use comfy_core::trickle::subscriber;
use comfy_core::trickle::wire::{ChannelUrl, Wanted};
use comfy_fuzz::{ends, parts, pieces, quickly, settings};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};

/// Bytes that may wait, at the subscriber's and at the publisher's.
const QUEUED: usize = 4096;
/// What a connection reads at a time: one arrival more than fits is taken.
const ARRIVAL: usize = 256 * 1024;

fuzz_target!(|input: &[u8]| quickly(play(input)));

async fn play(input: &[u8]) {
    let Some(([how, cut, start], rest)) = settings(input) else {
        return;
    };
    let client = Client::new(Config {
        insecure: true,
        ..Config::default()
    })
    .expect("a client");
    // Nobody listens there: once the connections below are used up, there are no others.
    let url: ChannelUrl = "http://127.0.0.1:1/c".parse().expect("an address");
    for part in parts(rest, 4) {
        let (server, stream) = duplex(64 << 10);
        client.supply(&url, stream).await.expect("a connection");
        let (part, half) = (pieces(part, cut), how & 1 != 0);
        tokio::spawn(async move {
            let (mut reader, mut writer) = split(server);
            let mut scrap = [0; 512];
            if !matches!(reader.read(&mut scrap).await, Ok(1..)) {
                return;
            }
            for piece in part {
                if writer.write_all(&piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            if half {
                return;
            }
            while matches!(reader.read(&mut scrap).await, Ok(1..)) {}
        });
    }
    match how & 2 {
        0 => subscribe(&client, url, how, start).await,
        _ => publish(&client, url, how).await,
    }
}

async fn subscribe(client: &Client, url: ChannelUrl, how: u8, start: u8) {
    let (inbox, task) = client.subscribe(
        vec![url],
        SubscribeSettings {
            policy: subscriber::Settings {
                start: match start {
                    0 => Wanted::Next,
                    1 => Wanted::Current,
                    number => Wanted::Number(number.into()),
                },
                wait_for_channel: false,
                ..subscriber::Settings::default()
            },
            max_queued: QUEUED,
            preconnect: how & 4 == 0,
        },
    );
    let reading = async {
        let mut open = None;
        loop {
            assert!(inbox.queued() <= QUEUED + ARRIVAL, "{} bytes wait", inbox.queued());
            match inbox.next().await {
                Next::Arrival(Arrival::Segment { seq, mime, .. }) => {
                    assert_eq!(open.replace(seq), None, "it begins in another");
                    assert!(mime.is_none_or(|mime| mime.len() <= 255));
                }
                Next::Arrival(Arrival::Bytes(bytes)) => assert!(open.is_some() && !bytes.is_empty()),
                Next::Arrival(Arrival::End { seq, .. }) => assert_eq!(open.take(), Some(seq)),
                Next::Interrupted | Next::TimedOut => panic!("nobody asked for it"),
                Next::Over(_) => break,
            }
        }
        assert_eq!(open, None, "it has no end");
    };
    ends("subscribing", async { tokio::join!(task.run(), reading) }).await;
}

async fn publish(client: &Client, url: ChannelUrl, how: u8) {
    let heard = Arc::new([const { AtomicU64::new(0) }; 2]);
    let hearing = heard.clone();
    let (feed, task) = client.publish(
        &url,
        PublishSettings {
            max_queued: QUEUED,
            preconnect: how & 4 == 0,
            delete: how & 8 != 0,
            ..PublishSettings::default()
        },
        move |event| match event {
            Event::Done { .. } => drop(hearing[0].fetch_add(1, Ordering::Relaxed)),
            Event::Lost { .. } => drop(hearing[1].fetch_add(1, Ordering::Relaxed)),
            _ => (),
        },
    );
    let running = tokio::spawn(task.run());
    let mut begun = 0;
    for _ in 0..4 {
        if feed.begin() == Begin::Begun {
            begun += 1;
            let _ = feed.write(Bytes::from_static(b"some"));
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = feed.write(Bytes::from_static(b"more"));
            feed.end();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    feed.finish();
    ends("publishing", running).await.expect("no panic");
    let (done, lost) = (heard[0].load(Ordering::Relaxed), heard[1].load(Ordering::Relaxed));
    assert_eq!(done + lost, begun, "{begun} begun, {done} done, {lost} lost");
}

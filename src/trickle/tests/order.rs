//! Segments shorter than the way to the server: what is pushed in one go arrives in its order, or is put in order.

use super::clients::{Stage, from, publish, request};
use super::rig::Rig;
use crate::trickle::client::{Begin, PublishSettings, Write};
use crate::trickle::publisher;

/// All of it is pushed before anything is answered, many times over: what could overtake does so sooner or later.
async fn burst(settings: impl Fn() -> PublishSettings, segments: u64) {
    let rig = Rig::new().await;
    for turn in 0..30 {
        let name = format!("c{turn}");
        let publishing = publish(&rig.url(&name), settings());
        for i in 0..segments {
            publishing.segment(&format!("message {i}")).await;
        }
        let published = publishing.finished().await;
        assert_eq!(
            (published.stats.done, published.stats.lost, published.stats.dropped),
            (segments, 0, 0)
        );
        let head = rig.get(&format!("/{name}/next")).await.0;
        assert_eq!(head.latest(), Some(segments.to_string().as_str()));
        for i in segments.saturating_sub(4)..segments {
            assert_eq!(rig.get(&format!("/{name}/{i}")).await.1, format!("message {i}"));
        }
        let channels = rig.server.channels();
        let channel = channels
            .iter()
            .find(|channel| channel.name == name)
            .expect("it is there");
        assert_eq!(channel.stats.begun, segments, "a segment each");
    }
}

#[tokio::test]
async fn p06_messages_back_to_back_get_a_number_each() {
    let one_by_one = || PublishSettings {
        one_by_one: true,
        ..PublishSettings::default()
    };
    burst(one_by_one, 10).await;
}

#[tokio::test]
async fn p06_segments_on_connections_of_their_own_may_overtake_each_other() {
    let four = || PublishSettings {
        policy: publisher::Settings {
            in_flight: 4,
            ..publisher::Settings::default()
        },
        ..PublishSettings::default()
    };
    burst(four, 4).await;
}

#[tokio::test]
async fn messages_one_by_one_use_one_connection() {
    let stage = Stage::new().await;
    let publishing = publish(
        &stage.url,
        PublishSettings {
            one_by_one: true,
            ..from(0)
        },
    );
    for text in ["first", "second", "third"] {
        assert_eq!(publishing.feed.begin(), Begin::Begun);
        assert_eq!(publishing.feed.write(text.into()), Write::Queued);
        publishing.feed.end();
    }
    // Three wait, which is what may.
    assert_eq!(publishing.feed.begin(), Begin::Full);
    let mut peer = stage.accept().await;
    for (seq, text) in [(0, "first"), (1, "second"), (2, "third")] {
        assert_eq!(request(&mut peer).await, format!("POST /c/{seq}"));
        assert_eq!(peer.chunk().await.as_deref(), Some(text));
        assert_eq!(peer.chunk().await, None);
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    }
    let published = publishing.finished().await;
    assert_eq!((published.stats.done, published.stats.lost), (3, 0));
}

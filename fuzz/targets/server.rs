//! Bytes on connections to a server: heads, chunks and bodies, of several peers at once.
//!
//! Whatever comes, every connection ends once its peer is gone, what is held stays within its limits, and well-formed
//! requests are answered as before.

#![no_main]

use std::time::Duration;

use comfy_core::trickle::channel;
use comfy_core::trickle::server::{Config, Server};
use comfy_fuzz::{ends, parts, pieces, quickly, settings};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::task::{JoinHandle, JoinSet};

const MEMORY: usize = 64 << 10;
const CHANNELS: usize = 4;
/// Connections at a time.
const PEERS: usize = 4;

fuzz_target!(|input: &[u8]| quickly(play(input)));

async fn play(input: &[u8]) {
    let Some(([how, cut, wait], rest)) = settings(input) else {
        return;
    };
    let mut limits = channel::Settings {
        max_segment: 16 << 10,
        max_readers: 3,
        max_writers: 3,
        ..channel::Settings::default()
    };
    if how & 1 != 0 {
        limits.dialect = channel::Dialect::reference();
    }
    let config = Config {
        autocreate: how & 2 != 0,
        changefeed: how & 4 != 0,
        channel: limits,
        max_channels: CHANNELS,
        max_memory: MEMORY,
        silence: (how & 8 != 0).then_some(Duration::from_secs(5)),
        subscribe_token: (how & 16 != 0).then(|| "secret".into()),
        cors: (how & 32 != 0).then(|| "*".into()),
        ..Config::default()
    };
    let token = config.subscribe_token.is_some();
    let server = Server::new(config).expect("a base path");
    let _ = server.create("c", "video/MP2T");

    let (mut connections, mut peers) = (Vec::new(), JoinSet::new());
    for part in parts(rest, PEERS) {
        let (peer, stream) = connect(&server);
        connections.push(stream);
        let deaf = how & 64 != 0;
        peers.spawn(converse(peer, pieces(part, cut), deaf, how & 128 != 0, wait));
        // What has come is looked at before the next peer says something.
        tokio::task::yield_now().await;
        check(&server);
    }
    tokio::time::sleep(Duration::from_millis(u64::from(wait) * 10)).await;
    check(&server);
    ends("peers", async { while peers.join_next().await.is_some() {} }).await;
    for connection in connections {
        ends("a connection", connection).await.expect("no panic");
    }
    check(&server);
    let totals = server.totals();
    assert_eq!((totals.readers, totals.writers), (0, 0), "left behind");

    for channel in server.channels() {
        assert!(server.delete(&channel.name));
    }
    assert_eq!(server.totals().memory, 0, "kept");
    server.create("probe", "text/plain").expect("there is room");
    assert!(
        ask(&server, "POST /probe/0 HTTP/1.1\r\nContent-Length: 5\r\n\r\nprobe")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    let bearer = if token { "Authorization: Bearer secret\r\n" } else { "" };
    let answer = ask(&server, &format!("GET /probe/0 HTTP/1.1\r\n{bearer}\r\n")).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("probe"),
        "{answer}"
    );
}

fn connect(server: &Server) -> (DuplexStream, JoinHandle<()>) {
    let (peer, stream) = duplex(4096);
    let server = server.clone();
    (peer, tokio::spawn(async move { server.attend(stream).await }))
}

async fn converse(peer: DuplexStream, pieces: Vec<bytes::Bytes>, deaf: bool, half: bool, wait: u8) {
    let (mut reader, mut writer) = split(peer);
    let writing = async {
        for piece in pieces {
            if writer.write_all(&piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if half {
            let _ = writer.shutdown().await;
        }
        tokio::time::sleep(Duration::from_secs(u64::from(wait))).await;
    };
    let reading = async {
        let mut scrap = [0; 512];
        while !deaf {
            match reader.read(&mut scrap).await {
                Ok(0) | Err(_) => return,
                Ok(_) => (),
            }
        }
        std::future::pending::<()>().await;
    };
    // A peer that is cut off may go on writing, and one that has said all goes.
    ends("a peer", async {
        tokio::select! { () = writing => (), () = reading => () }
    })
    .await;
}

fn check(server: &Server) {
    let totals = server.totals();
    assert!(totals.memory <= MEMORY, "{} bytes", totals.memory);
    assert!(totals.channels <= CHANNELS, "{} channels", totals.channels);
    assert!(totals.readers <= 3 * CHANNELS && totals.writers <= 3 * CHANNELS);
    for channel in server.channels() {
        assert!(channel.name.len() <= 255 && channel.mime.len() <= 255, "{channel:?}");
        assert!(channel.stats.next_write <= i64::MAX as u64, "{channel:?}");
    }
}

/// A request, and all of its answer.
async fn ask(server: &Server, request: &str) -> String {
    let (mut peer, connection) = connect(server);
    peer.write_all(
        request
            .replacen("\r\n", "\r\nHost: x\r\nConnection: close\r\n", 1)
            .as_bytes(),
    )
    .await
    .expect("it is taken");
    let mut answer = String::new();
    ends("an answer", peer.read_to_string(&mut answer)).await.expect("text");
    ends("its connection", connection).await.expect("no panic");
    answer
}

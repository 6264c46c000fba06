//! What do our publisher and our subscriber cost, per segment of 30 writes?
//!
//! Each has two threads, as in an element: one is the runtime's, with the sockets; the other writes or reads. The
//! processor time of each pair is its own threads', so that both can be in one process and on one clock.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use bytes::Bytes;
use comfy_core::trickle::client::{
    Arrival, Begin, Client, Config, Inbox, Next, PublishSettings, SubscribeSettings, Write,
};
use comfy_core::trickle::subscriber;
use comfy_core::trickle::wire::{ChannelUrl, Wanted};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::fan::percentile;
use crate::http::{Line, PATIENCE, Stamps, Target, stamp};
use crate::proc::own_thread_time;
use crate::wait;

const WRITES: usize = 30;
const WRITE: usize = 1000;
const PAUSE: Duration = Duration::from_micros(1500);
const EVERY: Duration = Duration::from_millis(50);

/// A runtime for one thread.
pub(crate) fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// A piece of payload with the time in front.
pub(crate) fn piece(size: usize) -> Bytes {
    let mut bytes = vec![0x5a; size];
    bytes[..8].copy_from_slice(&stamp(Instant::now()).to_le_bytes());
    bytes.into()
}

fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    Ok(std::thread::Builder::new().name(name.to_owned()).spawn(run)?)
}

fn joined<T>(thread: JoinHandle<T>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))
}

/// What a reader has seen, and what that has cost its thread.
struct Seen {
    first: Vec<u64>,
    segments: u64,
    cost: Duration,
}

fn read(inbox: &Inbox) -> Result<Seen> {
    let mut seen = Seen {
        first: Vec::with_capacity(4096),
        segments: 0,
        cost: Duration::ZERO,
    };
    let mut stamps = Stamps::new(WRITE);
    let before = own_thread_time()?;
    loop {
        match inbox.wait(Some(PATIENCE)) {
            Next::Arrival(Arrival::Segment { .. }) => stamps = Stamps::new(WRITE),
            Next::Arrival(Arrival::Bytes(bytes)) => {
                let at = stamp(Instant::now());
                stamps.push(&bytes, |write, sent| {
                    if write == 0 {
                        seen.first.push(at.saturating_sub(sent));
                    }
                });
            }
            Next::Arrival(Arrival::End { .. }) => seen.segments += 1,
            Next::Over(_) => break,
            other => return Err(anyhow!("a reader gets nothing: {other:?}")),
        }
    }
    seen.cost = own_thread_time()?.saturating_sub(before);
    Ok(seen)
}

/// One publisher, one reader, so many segments at the pace of the paced load.
pub(crate) fn measure(target: &Target, channel: &str, segments: u32) -> Result<Value> {
    let url: ChannelUrl = target.url(channel).parse()?;
    target.create(&mut Line::new(target.address, 4096)?, channel)?;

    let net = runtime()?;
    let (inbox, reading) = {
        let _inside = net.enter();
        let settings = SubscribeSettings {
            policy: subscriber::Settings {
                start: Wanted::Number(0),
                ..subscriber::Settings::default()
            },
            ..SubscribeSettings::default()
        };
        Client::new(Config::default())?.subscribe(vec![url.clone()], settings)
    };
    let read_net = spawn("read-net", move || {
        let before = own_thread_time()?;
        net.block_on(reading.run());
        Ok::<_, anyhow::Error>(own_thread_time()?.saturating_sub(before))
    })?;
    let reader = spawn("read", move || read(&inbox))?;

    let net = runtime()?;
    let (feed, writing) = {
        let _inside = net.enter();
        let settings = PublishSettings {
            delete: true,
            ..PublishSettings::default()
        };
        Client::new(Config::default())?.publish(&url, settings, |_| ())
    };
    let write_net = spawn("write-net", move || {
        let before = own_thread_time()?;
        let published = net.block_on(writing.run());
        Ok::<_, anyhow::Error>((own_thread_time()?.saturating_sub(before), published))
    })?;
    let writer = spawn("write", move || {
        let before = own_thread_time()?;
        let begin = Instant::now() + EVERY;
        for segment in 0..segments {
            for write in 0..WRITES as u32 {
                wait::until(begin + EVERY * segment + PAUSE * write);
                if write == 0 {
                    match feed.begin() {
                        Begin::Begun => (),
                        // The machine is busy with something else; what was published counts.
                        Begin::Full => break,
                        Begin::Over(over) => bail!("publishing is over: {over:?}"),
                    }
                }
                if let Write::Over(over) = feed.write(piece(WRITE)) {
                    bail!("publishing is over: {over:?}");
                }
            }
            feed.end();
        }
        feed.finish();
        Ok::<_, anyhow::Error>(own_thread_time()?.saturating_sub(before))
    })?;
    let writer = joined(writer)??;
    let (write_net, published) = joined(write_net)??;
    let mut seen = joined(reader)??;
    let read_net = joined(read_net)??;
    let done = published.stats.done;
    ensure!(
        done.min(seen.segments) * 2 >= u64::from(segments),
        "{} of {segments} segments were read; published: {published:?}",
        seen.segments
    );
    let mut first = seen.first.split_off(2.min(seen.first.len()));
    first.sort_unstable();
    let ms = |time: Duration, segments: u64| time.as_secs_f64() * 1000.0 / segments as f64;
    Ok(json!({
        "segments": done,
        "segments_read": seen.segments,
        "first_byte_us": { "p50": percentile(&first, 0.5), "p99": percentile(&first, 0.99) },
        "publisher_ms_per_segment": ms(writer + write_net, done),
        "subscriber_ms_per_segment": ms(seen.cost + read_net, seen.segments),
        "publisher_network_thread_ms": ms(write_net, done),
        "subscriber_network_thread_ms": ms(read_net, seen.segments),
    }))
}

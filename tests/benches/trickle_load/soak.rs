//! Does a relay stay as it was? Minutes of publishing and subscribing, with memory and lag looked at all along.
//!
//! A publisher of 10 segments per second, readers, the elements with an encoder between them, and a channel that comes
//! and goes all the while. At the end a verdict: memory and lag are what they were after the start, readers are where the
//! publisher is, and each segment was read or counted as skipped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use comfy_core::trickle::client::{
    Arrival, Begin, Client, Config, Inbox, Next, PublishSettings, SubscribeSettings, Write,
};
use comfy_core::trickle::subscriber;
use comfy_core::trickle::wire::{ChannelUrl, Wanted};
use gst::prelude::*;

use crate::clients::{piece, runtime};
use crate::fan::answered;
use crate::http::{Chunk, END, Line, Stamps, stamp};
use crate::server::Server;
use crate::wait;
use crate::{Under, proc};

const WRITES: u32 = 30;
const WRITE: usize = 1000;
const PAUSE: Duration = Duration::from_micros(3000);
const EVERY: Duration = Duration::from_millis(100);
/// Looks at most so far apart, and at least so many.
const LOOK: Duration = Duration::from_secs(5);
const LOOKS: u32 = 12;
/// Looks at the beginning that do not count: queues grow, the encoder starts.
const SETTLING: f64 = 0.25;
/// Growth of memory that is none: this, or this share.
const SLACK: (f64, f64) = (4.0 * 1024.0 * 1024.0, 0.05);

/// How long, and against whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    under: Under,
    /// Minutes, 0.05 to 1440
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// Readers of the channel
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=100))]
    readers: u64,
    /// Growth of the median lag that is none, in milliseconds, beyond the double
    #[arg(long, default_value_t = 2.0)]
    lag_slack: f64,
    /// Without tricklesink, tricklesrc and the encoder between them
    #[arg(long)]
    no_elements: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok().filter(|minutes| (0.05..=1440.0).contains(minutes));
    parsed.ok_or_else(|| "expected 0.05 to 1440".to_owned())
}

/// Counts of nanoseconds in classes a sixteenth wide, so that a long run needs no more memory than a short one.
struct Histogram(Vec<AtomicU64>);

impl Default for Histogram {
    fn default() -> Self {
        Self((0..64 * 16).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Histogram {
    fn add(&self, nanoseconds: u64) {
        let value = nanoseconds.max(16);
        let octave = value.ilog2() as usize;
        let class = octave * 16 + (value >> (octave - 4)) as usize - 16;
        self.0[class].fetch_add(1, Relaxed);
    }

    /// Milliseconds below which these shares lie, of what came since the last time.
    fn take(&self, shares: [f64; 2]) -> [f64; 2] {
        let counts: Vec<u64> = self.0.iter().map(|count| count.swap(0, Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        shares.map(|share| {
            let (wanted, mut sum) = ((all as f64 * share).ceil() as u64, 0);
            let class = counts.iter().position(|count| {
                sum += count;
                sum >= wanted.max(1)
            });
            class.map_or(f64::NAN, |class| {
                ((class % 16 + 16) as u64 * (1_u64 << (class / 16)) / 16) as f64 / 1e6
            })
        })
    }
}

/// What a reader has seen so far.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// The number after the last.
    next: u64,
    read: u64,
    skipped: u64,
    torn: u64,
    over: bool,
}

#[derive(Default)]
struct Reader {
    seen: Mutex<Seen>,
}

impl Reader {
    fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn run(&self, inbox: Inbox, lag: &Histogram) {
        let mut stamps = Stamps::new(WRITE);
        loop {
            match inbox.next().await {
                Next::Arrival(Arrival::Segment { seq, .. }) => {
                    stamps = Stamps::new(WRITE);
                    self.change(|seen| {
                        seen.skipped += seq.saturating_sub(seen.next);
                        seen.next = seq + 1;
                    });
                }
                Next::Arrival(Arrival::Bytes(bytes)) => {
                    let at = stamp(Instant::now());
                    stamps.push(&bytes, |_, sent| lag.add(at.saturating_sub(sent)));
                }
                Next::Arrival(Arrival::End { complete, .. }) => self.change(|seen| {
                    seen.read += 1;
                    seen.torn += u64::from(!complete);
                }),
                Next::Over(_) => return self.change(|seen| seen.over = true),
                Next::Interrupted | Next::TimedOut => (),
            }
        }
    }
}

/// The elements, with an encoder between.
struct Elements {
    writer: gst::Pipeline,
    reader: gst::Pipeline,
}

impl Elements {
    fn start(url: &str) -> Result<Self> {
        comfy_tests::init();
        let parse = |text: String| -> Result<gst::Pipeline> {
            let element = gst::parse::launch(&text).with_context(|| text.clone())?;
            Ok(element.downcast().expect("several elements"))
        };
        let writer = parse(format!(
            "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=30/1 \
             ! x264enc tune=zerolatency speed-preset=ultrafast ! mpegtsmux \
             ! tricklesink name=out url={url} delete-on-eos=true"
        ))?;
        let reader = parse(format!(
            "tricklesrc name=in url={url} on-missing=wait start-seq=0 ! tsdemux ! h264parse ! fakesink sync=false"
        ))?;
        reader.set_state(gst::State::Playing)?;
        writer.set_state(gst::State::Playing)?;
        Ok(Self { writer, reader })
    }

    fn stat(pipeline: &gst::Pipeline, element: &str, name: &str) -> u64 {
        let element = pipeline.by_name(element).expect("named above");
        let stats: gst::Structure = element.property("stats");
        stats.get(name).unwrap_or(0)
    }

    /// Segments begun and not read to the end, less the one that is being written.
    fn behind(&self) -> u64 {
        let begun = Self::stat(&self.writer, "out", "segments-begun");
        begun.saturating_sub(Self::stat(&self.reader, "in", "segments") + Self::stat(&self.reader, "in", "skipped") + 1)
    }

    fn lost(&self) -> u64 {
        Self::stat(&self.writer, "out", "segments-lost") + Self::stat(&self.reader, "in", "skipped")
    }

    fn errors(&self) -> Result<()> {
        for pipeline in [&self.writer, &self.reader] {
            let bus = pipeline.bus().context("a bus")?;
            while let Some(message) = bus.pop() {
                if let gst::MessageView::Error(error) = message.view() {
                    bail!("{} ({:?})", error.error(), error.debug());
                }
            }
        }
        Ok(())
    }
}

impl Drop for Elements {
    fn drop(&mut self) {
        let _ = self.writer.set_state(gst::State::Null);
        let _ = self.reader.set_state(gst::State::Null);
    }
}

/// A channel that is made, written, read and deleted.
fn visit(server: &Server, number: u64) -> Result<()> {
    let (target, name) = (&server.target, format!("visit-{}-{number}", std::process::id()));
    let mut writer = Line::new(target.address, 4096)?;
    let mut reader = Line::new(target.address, 4096)?;
    target.create(&mut writer, &name)?;
    reader.write(&target.get(&name, 0))?;
    writer.write(&target.post(&name, 0))?;
    writer.write(Chunk::new(WRITE, true).now())?;
    writer.write(END)?;
    answered(&mut writer)?;
    let head = reader.head()?;
    let mut read = 0;
    reader.body(&head, |bytes, _| read += bytes.len())?;
    ensure!(read == WRITE, "a visitor has read {read} bytes of {WRITE}");
    target.delete(&mut writer, &name)
}

/// What one look has seen.
#[derive(Debug, Clone, Copy)]
struct Look {
    server: Option<f64>,
    own: f64,
    lag_p50: f64,
    lag_p99: f64,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Whether something is at the end what it was at the beginning, in words if not.
fn flat(what: &str, unit: f64, values: &[f64], most: impl Fn(f64) -> f64) -> Option<String> {
    let third = values.len().div_ceil(3);
    let (first, last) = (
        median(values[..third].to_vec()),
        median(values[values.len() - third..].to_vec()),
    );
    let flat = last <= most(first);
    println!(
        "{what}: {:.2} after the start, {:.2} at the end",
        first / unit,
        last / unit
    );
    (!flat).then(|| format!("{what} has grown"))
}

/// True if everything stayed flat.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let time = Duration::from_secs_f64(args.minutes * 60.0);
    let server = args.under.server()?;
    let name = format!("soak-{}", std::process::id());
    let url: ChannelUrl = server.target.url(&name).parse()?;
    server
        .target
        .create(&mut Line::new(server.target.address, 4096)?, &name)?;
    println!(
        "{} for {:.1} minutes: {} readers{}",
        server.name,
        args.minutes,
        args.readers,
        if args.no_elements { "" } else { ", and the elements" }
    );

    let lag = Arc::new(Histogram::default());
    let readers: Vec<Arc<Reader>> = (0..args.readers).map(|_| Arc::default()).collect();
    let net = runtime()?;
    let inside = net.enter();
    for reader in &readers {
        let settings = SubscribeSettings {
            policy: subscriber::Settings {
                start: Wanted::Number(0),
                ..subscriber::Settings::default()
            },
            ..SubscribeSettings::default()
        };
        let (inbox, task) = Client::new(Config::default())?.subscribe(vec![url.clone()], settings);
        let (reader, lag) = (reader.clone(), lag.clone());
        net.spawn(task.run());
        net.spawn(async move { reader.run(inbox, &lag).await });
    }
    let settings = PublishSettings {
        delete: true,
        ..PublishSettings::default()
    };
    let (feed, task) = Client::new(Config::default())?.publish(&url, settings, |_| ());
    drop(inside);
    let network = std::thread::Builder::new().name("net".into()).spawn(move || {
        let published = net.block_on(task.run());
        // Time for the readers to hear of the end of the channel.
        net.block_on(async { tokio::time::sleep(Duration::from_millis(300)).await });
        published
    })?;
    let elements = match args.no_elements {
        true => None,
        false => Some(Elements::start(&server.target.url(&format!("{name}-video")))?),
    };

    let every = (time / LOOKS).min(LOOK);
    let begin = Instant::now();
    let (mut looks, mut segment, mut refused, mut behind) = (Vec::new(), 0_u32, 0_u64, 0);
    let mut next = begin + every;
    while begin.elapsed() < time {
        let start = begin + EVERY * segment;
        wait::until(start);
        let begun = match feed.begin() {
            Begin::Begun => true,
            Begin::Full => false,
            Begin::Over(over) => bail!("publishing is over: {over:?}"),
        };
        refused += u64::from(!begun);
        for write in (0..WRITES).take_while(|_| begun) {
            wait::until(start + PAUSE * write);
            if let Write::Over(over) = feed.write(piece(WRITE)) {
                bail!("publishing is over: {over:?}");
            }
        }
        feed.end();
        segment += 1;
        if segment % 10 == 0 {
            visit(&server, u64::from(segment))?;
        }
        if Instant::now() < next {
            continue;
        }
        next += every;
        if let Some(elements) = &elements {
            elements.errors()?;
        }
        let [lag_p50, lag_p99] = lag.take([0.5, 0.99]);
        let look = Look {
            server: server.pid.map(proc::resident).transpose()?.map(|bytes| bytes as f64),
            own: proc::resident(std::process::id())? as f64,
            lag_p50,
            lag_p99,
        };
        let done = readers.iter().map(|reader| reader.seen().next).min().unwrap_or(0);
        behind = (u64::from(segment) - refused).saturating_sub(done);
        let skipped: u64 = readers.iter().map(|reader| reader.seen().skipped).sum();
        let video = elements.as_ref().map_or(0, Elements::behind);
        println!(
            "{:>6.0} s of {:.0}  server {:>6.1} MiB  load {:>6.1} MiB  lag p50 {:>6.2} ms, p99 {:>7.2} ms  behind {behind}, video {video}  lost {}",
            begin.elapsed().as_secs_f64(),
            time.as_secs_f64(),
            look.server.unwrap_or(f64::NAN) / f64::from(1 << 20),
            look.own / f64::from(1 << 20),
            look.lag_p50,
            look.lag_p99,
            refused + skipped + elements.as_ref().map_or(0, Elements::lost)
        );
        looks.push(look);
    }
    feed.finish();
    let video_behind = elements.as_ref().map_or(0, Elements::behind);
    drop(elements);
    let published = network.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;

    let mut bad = Vec::new();
    let settled = &looks[(looks.len() as f64 * SETTLING) as usize..];
    let memory = |before: f64| before + SLACK.0.max(before * SLACK.1);
    let mib = f64::from(1 << 20);
    let server_memory: Vec<f64> = settled.iter().filter_map(|look| look.server).collect();
    if !server_memory.is_empty() {
        bad.extend(flat("memory of the server, MiB", mib, &server_memory, memory));
    }
    let own: Vec<f64> = settled.iter().map(|look| look.own).collect();
    bad.extend(flat("memory of clients and elements, MiB", mib, &own, memory));
    let lags: Vec<f64> = settled.iter().map(|look| look.lag_p50).collect();
    bad.extend(flat("lag of the median write, ms", 1.0, &lags, |before| {
        2.0 * before + args.lag_slack
    }));
    for (behind, who) in [(behind, "readers"), (video_behind, "tricklesrc")] {
        if behind > 2 {
            bad.push(format!("{who} are {behind} segments behind"));
        }
    }
    let stats = published.stats;
    if stats.done + stats.lost + stats.dropped + refused < u64::from(segment) {
        bad.push(format!(
            "{segment} segments were begun; the publisher knows of {stats:?} and {refused} refused"
        ));
    }
    for reader in &readers {
        let seen = reader.seen();
        if !seen.over {
            bad.push("a reader has not heard of the end".to_owned());
        }
        if seen.read + seen.skipped != seen.next || seen.next + 2 < stats.done {
            bad.push(format!(
                "{} segments were published, and a reader knows of {seen:?}",
                stats.done
            ));
        }
    }
    println!(
        "{} segments published, {} lost; {} readers have read {} and skipped {}, {} of them torn",
        stats.done,
        stats.lost + refused,
        readers.len(),
        readers.iter().map(|reader| reader.seen().read).sum::<u64>(),
        readers.iter().map(|reader| reader.seen().skipped).sum::<u64>(),
        readers.iter().map(|reader| reader.seen().torn).sum::<u64>()
    );
    match bad.is_empty() {
        true => println!("flat"),
        false => println!("NOT flat: {}", bad.join("; ")),
    }
    Ok(bad.is_empty())
}

//! One publisher, many readers: how late do bytes come, how many per second, and what do they cost the server?
//!
//! Publisher and readers are a thread each, on blocking sockets. The next segment's POST and GET are open before it is
//! needed, as real clients do it. The floor is the same writes straight into the readers' sockets, without a server.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::http::{Chunk, END, Line, PATIENCE, Stamps, Target, stamp};
use crate::proc;
use crate::wait;

/// First segments, in which connections are made and queues grow: their latencies do not count.
const SETTLING: u64 = 2;

/// Segments that a publisher at full speed is ahead of its slowest reader: within the window of five.
const AHEAD: u64 = 3;

/// Enough for what these threads do.
const STACK: usize = 128 * 1024;

/// A load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) readers: usize,
    /// Bytes of a write.
    pub(crate) write: usize,
    /// Writes of a segment.
    pub(crate) writes: usize,
    /// From one write to the next and from one segment to the next; none: as fast as readers read.
    pub(crate) pace: Option<(Duration, Duration)>,
    pub(crate) time: Duration,
}

impl Load {
    /// 20 segments per second of 30 writes of 1,000 bytes, 1.5 ms apart.
    pub(crate) fn paced(readers: usize, time: Duration) -> Self {
        Self {
            readers,
            write: 1000,
            writes: 30,
            pace: Some((Duration::from_micros(1500), Duration::from_millis(50))),
            time,
        }
    }

    /// As fast as it goes: segments of 4 MiB, writes of 64 KiB.
    pub(crate) fn full_speed(readers: usize, time: Duration) -> Self {
        Self {
            readers,
            write: 64 << 10,
            writes: 64,
            pace: None,
            time,
        }
    }

    fn buffer(&self) -> usize {
        if self.pace.is_some() { 16 << 10 } else { 128 << 10 }
    }
}

/// What a reader has seen.
#[derive(Debug, Default)]
struct Seen {
    bytes: u64,
    segments: u64,
    lost: u64,
    /// Nanoseconds from the publisher's write of a segment's first byte to reading it.
    first: Vec<u64>,
    /// The same of every write.
    every: Vec<u64>,
}

/// What was measured.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    /// Nanoseconds, sorted: from writing a segment's first byte to reading it.
    pub(crate) first: Vec<u64>,
    /// The same of every write.
    pub(crate) every: Vec<u64>,
    /// Of 10^6 bytes per second, by all readers together.
    pub(crate) rate: f64,
    /// Processor seconds per 10^9 bytes read by all readers together; none without a process to look at. Of the floor:
    /// of the thread that writes, which does what a server cannot do without.
    pub(crate) server: Option<f64>,
    /// The same of this process: publisher and readers; of the floor: readers.
    pub(crate) load: f64,
    /// Processors that the server took.
    pub(crate) cores: Option<f64>,
    pub(crate) segments: u64,
    pub(crate) lost: u64,
}

impl Figures {
    pub(crate) fn json(&self) -> Value {
        json!({
            "first_byte_us": {
                "p50": percentile(&self.first, 0.5),
                "p99": percentile(&self.first, 0.99),
                "count": self.first.len(),
            },
            "every_write_us": { "p50": percentile(&self.every, 0.5), "p99": percentile(&self.every, 0.99) },
            "mb_per_s": self.rate,
            "server_cpu_s_per_gb": self.server,
            "server_cores": self.cores,
            "load_cpu_s_per_gb": self.load,
            "segments_read": self.segments,
            "segments_lost": self.lost,
        })
    }
}

/// How far each reader has come.
#[derive(Debug)]
struct Progress {
    done: Vec<AtomicU64>,
    lock: Mutex<()>,
    moved: Condvar,
    over: AtomicBool,
}

impl Progress {
    fn new(readers: usize) -> Arc<Self> {
        Arc::new(Self {
            done: (0..readers).map(|_| AtomicU64::new(0)).collect(),
            lock: Mutex::default(),
            moved: Condvar::new(),
            over: AtomicBool::new(false),
        })
    }

    fn done(&self, reader: usize, segments: u64) {
        self.done[reader].store(segments, Ordering::Release);
        drop(self.lock.lock());
        self.moved.notify_one();
    }

    /// Waits until every reader has done so many segments.
    fn wait(&self, segments: u64) -> Result<()> {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = |(): &mut ()| self.done.iter().any(|done| done.load(Ordering::Acquire) < segments);
        let waited = self.moved.wait_timeout_while(guard, PATIENCE, behind);
        if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            bail!("a reader has not come to segment {segments} within {PATIENCE:?}");
        }
        Ok(())
    }
}

fn thread<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
    builder.spawn(run).context("a thread cannot be started")
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// Puts a server under a load. `pid` is the server's.
pub(crate) fn relayed(target: &Target, pid: Option<u32>, channel: &str, load: Load) -> Result<Figures> {
    let mut control = Line::new(target.address, 4096)?;
    target.create(&mut control, channel)?;
    let progress = Progress::new(load.readers);
    let readers: Result<Vec<_>> = (0..load.readers)
        .map(|number| {
            let (target, channel, progress) = (target.clone(), channel.to_owned(), progress.clone());
            thread("read", move || read(&target, &channel, load, &progress, number))
        })
        .collect();
    // Their first requests are under way.
    wait::pause(Duration::from_millis(50));
    let cpu = || pid.map(proc::processor_time).transpose();
    let (server, own) = (cpu()?, proc::processor_time(std::process::id())?);
    let begin = Instant::now();
    let published = publish(target, channel, load, &progress);
    let elapsed = begin.elapsed();
    let (server_after, own_after) = (cpu()?, proc::processor_time(std::process::id())?);
    progress.over.store(true, Ordering::Release);
    target.delete(&mut control, channel)?;
    let seen: Result<Vec<Seen>> = readers?.into_iter().map(joined).collect();
    published?;
    let server = server_after.zip(server).map(|(after, before)| after - before);
    figures(&seen?, elapsed, server, own_after - own)
}

/// The same writes straight into the readers' sockets.
pub(crate) fn floor(load: Load) -> Result<Figures> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (mut lines, mut readers) = (Vec::new(), Vec::new());
    let progress = Progress::new(load.readers);
    for number in 0..load.readers {
        let mut line = Line::new(address, load.buffer())?;
        lines.push(Line::of(listener.accept()?.0, 0)?);
        let progress = progress.clone();
        readers.push(thread("read", move || {
            let (mut seen, mut stamps) = (room(load), Stamps::new(load.write));
            loop {
                let (bytes, at) = match line.raw() {
                    Ok(read) => read,
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(seen),
                    Err(error) => return Err(error.into()),
                };
                seen.bytes += bytes.len() as u64;
                let at = stamp(at);
                stamps.push(bytes, |place, sent| {
                    let (segment, write) = (place / load.writes, place % load.writes);
                    note(&mut seen, segment as u64, write, at.saturating_sub(sent));
                });
                let segments = seen.bytes / (load.write * load.writes) as u64;
                if segments > seen.segments {
                    seen.segments = segments;
                    progress.done(number, segments);
                }
            }
        })?);
    }
    let own = proc::processor_time(std::process::id())?;
    // Nobody serves but this thread.
    let writing = proc::own_thread_time()?;
    let begin = Instant::now();
    let mut chunk = Chunk::new(load.write, false);
    let mut segment = 0;
    while begin.elapsed() < load.time {
        for write in 0..load.writes {
            if let Some(moment) = moment(load, begin, segment, write) {
                wait::until(moment);
            }
            let bytes = chunk.now();
            for line in &mut lines {
                line.write(bytes)?;
            }
        }
        segment += 1;
    }
    let writing = proc::own_thread_time()?.saturating_sub(writing).as_secs_f64();
    progress.wait(segment)?;
    let (elapsed, own) = (begin.elapsed(), proc::processor_time(std::process::id())? - own);
    drop(lines);
    let seen: Result<Vec<Seen>> = readers.into_iter().map(joined).collect();
    figures(&seen?, elapsed, Some(writing), own - writing)
}

fn moment(load: Load, begin: Instant, segment: u64, write: usize) -> Option<Instant> {
    let (pause, every) = load.pace?;
    Some(begin + every * segment as u32 + pause * write as u32)
}

fn room(load: Load) -> Seen {
    let segments = load.pace.map_or(64, |(_, every)| {
        (load.time.as_secs_f64() / every.as_secs_f64()) as usize + 16
    });
    Seen {
        first: Vec::with_capacity(segments),
        every: Vec::with_capacity(segments * load.writes),
        ..Seen::default()
    }
}

fn note(seen: &mut Seen, segment: u64, write: usize, nanoseconds: u64) {
    if segment >= SETTLING {
        seen.every.push(nanoseconds);
        if write == 0 {
            seen.first.push(nanoseconds);
        }
    }
}

fn publish(target: &Target, channel: &str, load: Load, progress: &Progress) -> Result<()> {
    let mut lines = [Line::new(target.address, 4096)?, Line::new(target.address, 4096)?];
    let mut chunk = Chunk::new(load.write, true);
    lines[0].write(&target.post(channel, 0))?;
    let begin = Instant::now();
    let mut segment = 0_u64;
    while begin.elapsed() < load.time {
        if load.pace.is_none() {
            progress.wait(segment.saturating_sub(AHEAD))?;
        }
        let [mut current, mut other] = lines;
        for write in 0..load.writes {
            if let Some(moment) = moment(load, begin, segment, write) {
                wait::until(moment);
            }
            current.write(chunk.now())?;
            if write == 0 {
                if segment > 0 {
                    answered(&mut other)?;
                }
                other.write(&target.post(channel, segment + 1))?;
            }
        }
        current.write(END)?;
        lines = [other, current];
        segment += 1;
    }
    answered(&mut lines[1])?;
    progress.wait(segment)
}

/// Reads the answer to a POST.
pub(crate) fn answered(line: &mut Line) -> Result<()> {
    let head = line.head()?;
    line.body(&head, |_, _| ())?;
    match head.status {
        200 => Ok(()),
        status => bail!("the server answers {status} to a segment"),
    }
}

fn read(target: &Target, channel: &str, load: Load, progress: &Progress, number: usize) -> Result<Seen> {
    let connect = || Line::new(target.address, load.buffer());
    let (mut current, mut other) = (connect()?, connect()?);
    let mut seen = room(load);
    let mut seq = 0;
    current.write(&target.get(channel, seq))?;
    loop {
        let head = match current.head() {
            Ok(head) => head,
            // Whoever ends a channel need not be polite to those who wait.
            Err(_) if progress.over.load(Ordering::Acquire) => return Ok(seen),
            Err(error) => return Err(error),
        };
        if head.status == 470 {
            let latest = head.latest.context("470 without Lp-Trickle-Latest")?;
            current.body(&head, |_, _| ())?;
            seen.lost += latest.saturating_sub(seq).max(1);
            seq = latest.max(seq + 1);
            current.write(&target.get(channel, seq))?;
            continue;
        }
        if head.closed || head.status != 200 {
            let over = progress.over.load(Ordering::Acquire);
            return if over {
                Ok(seen)
            } else {
                Err(anyhow!("the server answers {} to a reader", head.status))
            };
        }
        other.write(&target.get(channel, seq + 1))?;
        let mut stamps = Stamps::new(load.write);
        current.body(&head, |bytes, at| {
            seen.bytes += bytes.len() as u64;
            let at = stamp(at);
            stamps.push(bytes, |write, sent| {
                note(&mut seen, seq, write, at.saturating_sub(sent));
            });
        })?;
        seq += 1;
        seen.segments += 1;
        progress.done(number, seq);
        std::mem::swap(&mut current, &mut other);
    }
}

fn figures(seen: &[Seen], elapsed: Duration, server: Option<f64>, own: f64) -> Result<Figures> {
    let bytes: u64 = seen.iter().map(|seen| seen.bytes).sum();
    if bytes == 0 {
        bail!("nobody read anything");
    }
    let sorted = |of: fn(&Seen) -> &[u64]| {
        let mut all: Vec<u64> = seen.iter().flat_map(of).copied().collect();
        all.sort_unstable();
        all
    };
    let gigabytes = bytes as f64 / 1e9;
    Ok(Figures {
        first: sorted(|seen| &seen.first),
        every: sorted(|seen| &seen.every),
        rate: bytes as f64 / 1e6 / elapsed.as_secs_f64(),
        server: server.map(|seconds| seconds / gigabytes),
        cores: server.map(|seconds| seconds / elapsed.as_secs_f64()),
        load: own / gigabytes,
        segments: seen.iter().map(|seen| seen.segments).sum(),
        lost: seen.iter().map(|seen| seen.lost).sum(),
    })
}

/// In microseconds, the value below which this share of sorted nanoseconds lies.
pub(crate) fn percentile(sorted: &[u64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(index.saturating_sub(1))
        .map_or(f64::NAN, |nanoseconds| *nanoseconds as f64 / 1000.0)
}

//! How much later do bytes leave `tricklesrc` than they entered `tricklesink`, and what do the two cost?
//!
//! H.264 of 1920x1080 at 30 frames per second, encoded and muxed beforehand, is replayed at its own times. Behind each
//! frame a null packet is added that carries its number: the frame has arrived when that has.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gst::prelude::*;
use serde_json::{Value, json};

use crate::fan::percentile;
use crate::http::{Line, Target, stamp};
use crate::proc;
use crate::server::Server;
use crate::wait;

const FPS: u64 = 30;
const PACKET: usize = 188;
/// The packet identifier that says: nothing of interest.
const NULL: u16 = 0x1fff;
/// First frames, in which everything starts.
const SETTLING: usize = FPS as usize;

/// A frame of the multiplex.
struct Frame {
    bytes: Vec<u8>,
    delta: bool,
}

fn pid(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[1] & 0x1f, packet[2]])
}

/// A packet of nothing, with a number.
fn marker(number: u64) -> [u8; PACKET] {
    let mut packet = [0xff; PACKET];
    packet[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
    packet[4..12].copy_from_slice(&number.to_le_bytes());
    packet
}

/// Numbers of the markers in whole packets.
fn markers(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let packets = bytes.chunks_exact(PACKET).filter(|packet| pid(packet) == NULL);
    packets.map(|packet| u64::from_le_bytes(packet[4..12].try_into().expect("eight bytes")))
}

/// Encodes so many frames: of a video, or of a test picture.
fn encode(input: Option<&str>, frames: usize) -> Result<Vec<Frame>> {
    let source = input.map_or("videotestsrc pattern=smpte ! timeoverlay".to_owned(), |path| {
        format!("filesrc location=\"{path}\" ! decodebin ! videoconvert ! videoscale ! videorate")
    });
    let pipeline = gst::parse::launch(&format!(
        "{source} ! video/x-raw,format=I420,width=1920,height=1080,framerate={FPS}/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=6000 key-int-max={FPS} \
         ! h264parse ! mpegtsmux ! appsink name=out sync=false max-buffers=64"
    ))
    .context("encoding needs GStreamer's x264enc and mpegtsmux")?
    .downcast::<gst::Pipeline>()
    .expect("several elements");
    let out = pipeline
        .by_name("out")
        .and_downcast::<gst_app::AppSink>()
        .expect("named");
    pipeline.set_state(gst::State::Playing)?;
    let (mut made, mut last) = (Vec::<Frame>::new(), None);
    while let Ok(sample) = out.pull_sample() {
        let buffer = sample.buffer().context("a buffer")?;
        let bytes = buffer.map_readable()?;
        if last.is_none() || (buffer.pts().is_some() && buffer.pts() != last) {
            if made.len() == frames {
                break;
            }
            last = buffer.pts().or(last);
            made.push(Frame {
                bytes: Vec::new(),
                delta: buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
            });
        }
        if let Some(frame) = made.last_mut() {
            frame.bytes.extend_from_slice(&bytes);
        }
    }
    pipeline.set_state(gst::State::Null)?;
    ensure!(
        made.len() > 2 * SETTLING,
        "{} frames were encoded; a longer video is needed",
        made.len()
    );
    for (number, frame) in made.iter_mut().enumerate() {
        ensure!(
            frame.bytes.len().is_multiple_of(PACKET),
            "the multiplex is not in whole packets"
        );
        frame.bytes.extend_from_slice(&marker(number as u64));
    }
    Ok(made)
}

/// When each frame was where, in nanoseconds.
#[derive(Debug, Default)]
struct Times(Mutex<Vec<Option<u64>>>);

impl Times {
    fn note(&self, bytes: &[u8]) {
        let at = stamp(Instant::now());
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for number in markers(bytes) {
            let number = number as usize;
            if times.len() <= number {
                times.resize(number + 1, None);
            }
            times[number].get_or_insert(at);
        }
    }

    /// Notes what passes a pad.
    fn at(element: &gst::Element, pad: &str) -> Result<Arc<Self>> {
        let times = Arc::new(Self::default());
        let noting = times.clone();
        let pad = element.static_pad(pad).context("a pad")?;
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(map) = info.buffer().and_then(|buffer| buffer.map_readable().ok()) {
                noting.note(&map);
            }
            gst::PadProbeReturn::Ok
        });
        Ok(times)
    }

    fn all(&self) -> Vec<Option<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn pipeline(text: &str) -> Result<gst::Pipeline> {
    let element = gst::parse::launch(text).with_context(|| text.to_owned())?;
    Ok(element.downcast::<gst::Pipeline>().expect("several elements"))
}

/// Waits for the end of the stream.
fn end(pipeline: &gst::Pipeline) -> Result<()> {
    let bus = pipeline.bus().context("a bus")?;
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(10), &wanted);
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Eos(_)) => Ok(()),
        Some(gst::MessageView::Error(error)) => bail!("{} ({:?})", error.error(), error.debug()),
        _ => bail!("the stream does not end"),
    }
}

/// One replay: nanoseconds of each frame, and processor seconds of this process and of the server.
fn replay(server: &Server, channel: &str, frames: &[Frame]) -> Result<(Vec<u64>, f64, Option<f64>, usize)> {
    let target: &Target = &server.target;
    target.create(&mut Line::new(target.address, 4096)?, channel)?;
    let url = target.url(channel);
    let reader = pipeline(&format!(
        "tricklesrc name=in url={url} start-seq=0 ! fakesink sync=false"
    ))?;
    let writer = pipeline(&format!(
        "appsrc name=source is-live=true format=time caps=video/mpegts,systemstream=true,packetsize=188 \
         ! tricklesink name=out url={url} delete-on-eos=true"
    ))?;
    let source = writer
        .by_name("source")
        .and_downcast::<gst_app::AppSrc>()
        .expect("named");
    let left = Times::at(&reader.by_name("in").context("named")?, "src")?;
    let entered = Times::at(&writer.by_name("out").context("named")?, "sink")?;
    let buffers: Vec<gst::Buffer> = frames
        .iter()
        .enumerate()
        .map(|(number, frame)| {
            let mut buffer = gst::Buffer::from_slice(frame.bytes.clone());
            let writable = buffer.make_mut();
            writable.set_pts(gst::ClockTime::SECOND * number as u64 / FPS);
            if frame.delta {
                writable.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
            buffer
        })
        .collect();
    reader.set_state(gst::State::Playing)?;
    writer.set_state(gst::State::Playing)?;
    let begin = Instant::now() + Duration::from_millis(100);
    let cpu = || server.pid.map(proc::processor_time).transpose();
    let (own, servers) = (proc::processor_time(std::process::id())?, cpu()?);
    for (number, buffer) in buffers.into_iter().enumerate() {
        wait::until(begin + Duration::from_secs(1) * number as u32 / FPS as u32);
        source.push_buffer(buffer).context("the writer has stopped")?;
    }
    wait::pause(Duration::from_millis(33));
    let own = proc::processor_time(std::process::id())? - own;
    let servers = cpu()?.zip(servers).map(|(after, before)| after - before);
    source.end_of_stream().context("the writer has stopped")?;
    let (wrote, read) = (end(&writer), end(&reader));
    writer.set_state(gst::State::Null)?;
    reader.set_state(gst::State::Null)?;
    wrote.context("writing")?;
    read.context("reading")?;
    let (entered, left) = (entered.all(), left.all());
    let mut missing = 0;
    let mut added = Vec::with_capacity(frames.len());
    for number in SETTLING..frames.len() {
        match (
            entered.get(number).copied().flatten(),
            left.get(number).copied().flatten(),
        ) {
            (Some(entered), Some(left)) => added.push(left.saturating_sub(entered)),
            _ => missing += 1,
        }
    }
    Ok((added, own, servers, missing))
}

/// So many replays of so many seconds.
pub(crate) fn measure(server: &Server, input: Option<&str>, seconds: u64, replays: usize) -> Result<Value> {
    comfy_tests::init();
    let frames = encode(input, (seconds * FPS) as usize)?;
    let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
    let time = frames.len() as f64 / FPS as f64;
    let (mut added, mut own, mut servers, mut missing) = (Vec::new(), 0.0, Some(0.0), 0);
    for number in 0..replays {
        let (replayed, cpu, server_cpu, lost) = replay(server, &format!("elements-{number}"), &frames)?;
        added.extend(replayed);
        own += cpu;
        servers = servers.zip(server_cpu).map(|(a, b)| a + b);
        missing += lost;
    }
    added.sort_unstable();
    let streamed = time * replays as f64;
    Ok(json!({
        "frames": added.len(),
        "frames_missing": missing,
        "mbit_per_s": bytes as f64 * 8.0 / 1e6 / time,
        "added_ms": {
            "p50": percentile(&added, 0.5) / 1000.0,
            "p99": percentile(&added, 0.99) / 1000.0,
            "p999": percentile(&added, 0.999) / 1000.0,
        },
        "elements_cpu_s_per_s": own / streamed,
        "server_cpu_s_per_s": servers.map(|seconds| seconds / streamed),
    }))
}

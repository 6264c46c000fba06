//! How much later than it must does a frame come out, and does the LATENCY answer tell the truth?
//!
//! A live source with absolute deadlines, which nothing can slow down: frames go into an unbounded queue at their
//! times, stamped with them. The engine takes a calibrated time T(B). In a batch of B the frame of place j cannot
//! come out before the last of its batch came in, (B - 1 - j) frames later, and before the model ran: what goes
//! beyond is ours. A sink that keeps to the clock stands at the end and counts what it had to drop.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gst::prelude::*;
use gstcomfy::batchmeta::ComfyBatchMeta;
use serde_json::{Value, json};

use super::report::{Table, number, percentile, progress};

const BASE: Duration = Duration::from_millis(5);
const PER_IMAGE: Duration = Duration::from_millis(2);
const SECONDS: usize = 22;
/// Pools and queues grow, and the first answers are corrected, while the first frames pass.
const SETTLING: usize = 2;

struct Case {
    fps: usize,
    batch: usize,
    /// Of a comfyflightbuffer in front, in batches; None: without one.
    threshold: Option<u32>,
}

const CASES: [Case; 4] = [
    Case {
        fps: 30,
        batch: 4,
        threshold: None,
    },
    Case {
        fps: 60,
        batch: 4,
        threshold: None,
    },
    Case {
        fps: 30,
        batch: 4,
        threshold: Some(1),
    },
    Case {
        fps: 60,
        batch: 8,
        threshold: Some(1),
    },
];

struct Outcome {
    /// Milliseconds, sorted.
    added: Vec<f64>,
    measured: Vec<f64>,
    reported: f64,
    dropped: u64,
    rendered: u64,
    /// How late the source itself was, p99 and p99.9: one thread that wakes at a time, and all that the machine does to
    /// it.
    source: [f64; 2],
    /// Batches that left before they were full.
    cut: usize,
    /// What comfyinfer takes for its own longest time.
    model: f64,
}

fn engine_time(batch: usize) -> Duration {
    BASE + PER_IMAGE * batch as u32
}

fn run(case: &Case) -> Result<Outcome> {
    let Case { fps, batch, threshold } = case;
    let flight = threshold.map_or(String::new(), |t| {
        format!("comfyflightbuffer batch-size={batch} threshold={t} ! ")
    });
    // The queue takes frames as they come; what the sink waits for is behind it.
    let text = format!(
        "appsrc name=source is-live=true format=time max-bytes=0 max-buffers=0 caps=video/x-raw,format=RGB,width=320,height=240,framerate={fps}/1 \
         ! {flight}comfybatch name=batch batch-size={batch} ! comfyinfer name=infer model=builtin:null?base={}ms&per-image={}ms ! comfyunbatch \
         ! queue name=arrivals max-size-buffers=200 max-size-time=0 max-size-bytes=0 ! fakesink name=sink sync=true qos=true max-lateness=20000000",
        BASE.as_millis(),
        PER_IMAGE.as_millis()
    );
    let pipeline = gst::parse::launch(&text)?
        .downcast::<gst::Pipeline>()
        .expect("several elements");
    let source = pipeline
        .by_name("source")
        .and_downcast::<gst_app::AppSrc>()
        .expect("named above");
    let (sink, queue) = (
        pipeline.by_name("sink").expect("named above"),
        pipeline.by_name("arrivals").expect("named above"),
    );
    let clock = gst::SystemClock::obtain();
    pipeline.use_clock(Some(&clock));

    let frames = SECONDS * fps / batch * batch;
    // Which frames went together, as timestamps: a late source can cut a batch short.
    let batches = Arc::new(Mutex::new(Vec::<Vec<u64>>::with_capacity(frames / batch + 8)));
    let formed = batches.clone();
    let batcher = pipeline.by_name("batch").expect("named above");
    let infer = pipeline.by_name("infer").expect("named above");
    batcher
        .static_pad("src")
        .context("comfybatch has one")?
        .add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(meta) = info.buffer().and_then(|buffer| buffer.meta::<ComfyBatchMeta>()) {
                let times = meta.batch().frames.iter().filter_map(|frame| frame.input.pts());
                formed
                    .lock()
                    .expect("no panic")
                    .push(times.map(gst::ClockTime::nseconds).collect());
            }
            gst::PadProbeReturn::Ok
        });
    let arrivals = Arc::new(Mutex::new(Vec::<(u64, u64)>::with_capacity(frames)));
    let (noted, element, reading) = (arrivals.clone(), pipeline.downgrade(), clock.clone());
    queue
        .static_pad("sink")
        .context("queue has one")?
        .add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let base = element.upgrade().and_then(|pipeline| pipeline.base_time());
            if let (Some(base), Some(buffer)) = (base, info.buffer()) {
                let now = reading.time().nseconds() - base.nseconds();
                let pts = buffer.pts().map_or(0, gst::ClockTime::nseconds);
                noted.lock().expect("no panic").push((pts, now));
            }
            gst::PadProbeReturn::Ok
        });
    pipeline.set_state(gst::State::Playing)?;
    let base = pipeline.base_time().context("a playing pipeline has one")?;

    let period = gst::ClockTime::from_nseconds(1_000_000_000 / *fps as u64);
    let (beating, asked) = (clock.clone(), queue.static_pad("sink").context("queue has one")?);
    let beat = std::thread::spawn(move || {
        let first = beating.time() + gst::ClockTime::from_mseconds(200);
        let mut late = Vec::with_capacity(frames);
        for number in 0..frames as u64 {
            let deadline = first + period * number;
            let _ = beating.new_single_shot_id(deadline).wait();
            let now = beating.time();
            late.push((now - deadline).nseconds() as f64 / 1e6);
            let mut buffer = gst::Buffer::with_size(320 * 240 * 3).expect("memory");
            let writable = buffer.get_mut().expect("new");
            writable.set_pts(now - base);
            writable.set_duration(period);
            if source.push_buffer(buffer).is_err() {
                break;
            }
        }
        // Before the end: a stream that has ended waits for nobody. Before the sink: it adds 20 ms for itself.
        let mut query = gst::query::Latency::new();
        let answer = asked.peer_query(&mut query).then(|| query.result());
        let _ = source.end_of_stream();
        (late, answer)
    });
    let bus = pipeline.bus().context("a pipeline has a bus")?;
    let patience = gst::ClockTime::from_seconds(SECONDS as u64 + 10);
    loop {
        let message = bus.timed_pop(patience).context("no end of the stream")?;
        match message.view() {
            gst::MessageView::Eos(_) => break,
            gst::MessageView::Latency(_) => pipeline.recalculate_latency()?,
            gst::MessageView::Error(error) => bail!("{}", error.error()),
            _ => (),
        }
    }
    let stats = sink.property::<gst::Structure>("stats");
    let model = infer
        .property::<gst::Structure>("stats")
        .get::<u64>("latency-ns")
        .unwrap_or_default();
    pipeline.set_state(gst::State::Null)?;
    let (mut late, answer) = beat.join().expect("no panic");
    let (live, reported, _) = answer.context("no LATENCY answer")?;
    ensure!(live, "the LATENCY answer is not live");
    late.sort_by(f64::total_cmp);

    let arrivals = arrivals.lock().expect("no panic");
    ensure!(
        arrivals.len() == frames,
        "{} of {frames} frames arrived",
        arrivals.len()
    );
    let time = engine_time(*batch).as_nanos() as i64;
    let (mut added, mut measured) = (Vec::with_capacity(frames), Vec::with_capacity(frames));
    let mut arrived = arrivals.iter();
    let (mut cut, mut before) = (0, 0);
    for members in batches
        .lock()
        .expect("no panic")
        .iter()
        .filter(|members| !members.is_empty())
    {
        let settled = before >= SETTLING * fps;
        before += members.len();
        let last = members.iter().max().copied().unwrap_or_default() as i64;
        cut += usize::from(members.len() < *batch);
        for (pts, arrival) in arrived.by_ref().take(members.len()) {
            if settled && members.len() == *batch {
                added.push((*arrival as i64 - last - time) as f64 / 1e6);
            }
            if settled {
                measured.push((*arrival as i64 - *pts as i64) as f64 / 1e6);
            }
        }
    }
    added.sort_by(f64::total_cmp);
    measured.sort_by(f64::total_cmp);
    Ok(Outcome {
        added,
        measured,
        reported: reported.nseconds() as f64 / 1e6,
        dropped: stats.get("dropped").unwrap_or_default(),
        rendered: stats.get("rendered").unwrap_or_default(),
        source: [0.99, 0.999].map(|share| percentile(&late, share)),
        cut,
        model: model as f64 / 1e6,
    })
}

/// The part of `make bench`.
pub(super) fn measure(report: &mut Value) -> Result<()> {
    let mut table = Table::new(&[
        "source",
        "reported / measured p99.9",
        "added ms: p50",
        "p99",
        "p99.9",
        "reported, ms",
        "measured p99.9, ms",
        "dropped by the sink",
        "batches cut short",
        "source late, ms: p99",
        "p99.9",
    ]);
    let (mut cases, mut worst_added, mut worst_ratio, mut dropped) = (Vec::new(), 0f64, 1.025f64, 0);
    for case in &CASES {
        let flight = case
            .threshold
            .map_or(String::new(), |t| format!(", flight buffer of {t} batch"));
        let name = format!("{} fps, batch {}{flight}", case.fps, case.batch);
        progress(&format!("{name}: {SECONDS} s"));
        let outcome = run(case)?;
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| percentile(&outcome.added, share));
        let measured = percentile(&outcome.measured, 0.999);
        let ratio = outcome.reported / measured;
        worst_added = worst_added.max(p99);
        // The middle of what is allowed is 1.025.
        if (ratio - 1.025).abs() > (worst_ratio - 1.025).abs() {
            worst_ratio = ratio;
        }
        dropped += outcome.dropped;
        cases.push(json!({
            "fps": case.fps, "batch": case.batch, "flight_threshold": case.threshold, "frames": outcome.added.len(),
            "added_p50_ms": number(p50), "added_p99_ms": number(p99), "added_p999_ms": number(p999),
            "reported_ms": number(outcome.reported), "measured_p999_ms": number(measured),
            "reported_over_measured_p999": number(ratio),
            "dropped": outcome.dropped, "rendered": outcome.rendered, "cut": outcome.cut,
            "engine_ms": engine_time(case.batch).as_secs_f64() * 1e3, "comfyinfer_answer_ms": number(outcome.model),
            "source_late_p99_ms": number(outcome.source[0]), "source_late_p999_ms": number(outcome.source[1]),
        }));
        table.line([
            name,
            format!("{ratio:.3}"),
            format!("{p50:.3}"),
            format!("{p99:.3}"),
            format!("{p999:.3}"),
            format!("{:.2}", outcome.reported),
            format!("{measured:.2}"),
            format!("{} of {}", outcome.dropped, outcome.dropped + outcome.rendered),
            outcome.cut.to_string(),
            format!("{:.3}", outcome.source[0]),
            format!("{:.3}", outcome.source[1]),
        ]);
    }
    progress("");
    report["latency"] = json!({
        "added_p99_ms": number(worst_added),
        "reported_over_measured_p999": number(worst_ratio),
        "dropped": dropped,
        "cases": cases,
    });
    report["tables"]["latency"] = json!(table.markdown());
    Ok(())
}

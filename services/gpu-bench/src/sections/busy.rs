//! How busy is the engine when a whole pipeline goes through it? Upload, conversion, model, conversion and download on
//! three threads with two lanes in flight, as comfyinfer has it, beside the same model run bare.
#![allow(
    clippy::disallowed_methods,
    reason = "a measurement reads the system's clock, not a pipeline's"
)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use comfy_core::cuda::{Stream, waits};
use comfy_core::engine::device::{DeviceLane, Graphs, Source, Target};
use comfy_core::engine::ort::probe::{Place, Probe, ProbeRequest};
use comfy_core::engine::{Backend, Engine, LaneRequest};
use comfy_core::tensor::{ImageSpec, PixelFormat};

use super::frames::{self, Frame};
use super::{Setting, noted, oracle};
use crate::allocations;
use crate::figures::rounded;
use crate::schema::{Busy, BusyRow, Failure};

const LANES: usize = 2;

/// Batches until what is counted and timed begins: staging is made for the first ones.
const SETTLING: usize = 4;

/// Batches of a pass, however long they take.
const LEAST: usize = 3 * SETTLING;

pub(crate) fn measure(setting: &Setting, failures: &mut Vec<Failure>) -> Result<Busy> {
    setting.gpu()?;
    let path = setting.samples.join("style.onnx");
    let engine = oracle::open(&path, Backend::Cuda, setting)?;
    let side = if setting.dry_run { 32 } else { 512 };
    let spec = frames::spec(PixelFormat::Nv12, side, side);
    let mut rows = Vec::new();
    for batch in setting.batches.iter().filter(|batch| **batch <= 4) {
        let row = one(setting, &engine, &path, &spec, *batch);
        rows.extend(noted(failures, &format!("the engine's share, batch {batch}"), row));
    }
    Ok(Busy {
        model: format!("{}, {}", engine.spec().name, frames::name(&spec)),
        rows,
    })
}

fn one(
    setting: &Setting,
    engine: &Arc<dyn Engine>,
    path: &std::path::Path,
    spec: &ImageSpec,
    batch: usize,
) -> Result<BusyRow> {
    let request = LaneRequest {
        width: spec.width,
        height: spec.height,
        batch,
    };
    let mut lanes = Vec::new();
    for _ in 0..LANES {
        lanes.push(engine.device_lane(&request)?);
    }
    let recorded = lanes.iter().all(|lane| lane.report().graphs == Graphs::On);
    let mut probe = raw(setting, path, spec, batch, recorded)?;
    let mut row = BusyRow {
        batch,
        fps: Vec::new(),
        raw_fps: Vec::new(),
        share: f64::INFINITY,
        waits_per_batch: None,
        allocations_per_batch: 0.0,
    };
    let time = Duration::from_secs_f64(setting.seconds);
    for pass in 0..=setting.passes {
        let bare = bare(&mut probe, recorded, batch, time)?;
        let whole;
        (lanes, whole) = chain(lanes, spec, batch, time)?;
        // The first one warms up.
        if pass == 0 {
            continue;
        }
        row.share = row.share.min(whole.fps / bare);
        row.raw_fps.push(rounded(bare));
        row.fps.push(rounded(whole.fps));
        row.waits_per_batch = Some(rounded(whole.waits));
        row.allocations_per_batch = rounded(whole.allocations);
    }
    row.share = rounded(row.share);
    Ok(row)
}

fn raw(setting: &Setting, path: &std::path::Path, spec: &ImageSpec, batch: usize, record: bool) -> Result<Probe> {
    let dims = [("batch", batch), ("height", spec.height), ("width", spec.width)];
    let place = match &setting.device {
        Some(device) if !setting.simulated => Place::Cuda(Arc::new(Stream::new(device)?)),
        _ => Place::Cpu,
    };
    Ok(Probe::open(&ProbeRequest {
        place,
        dims: dims.map(|(name, size)| (name.to_owned(), size)).to_vec(),
        record,
        ..ProbeRequest::new(path)
    })?)
}

/// Images per second of runs back to back, waited for in groups.
fn bare(probe: &mut Probe, recorded: bool, batch: usize, time: Duration) -> Result<f64> {
    const GROUP: usize = 16;
    let (begin, mut runs) = (Instant::now(), 0);
    while begin.elapsed() < time {
        for _ in 0..GROUP {
            if recorded { probe.replay()? } else { probe.run()? }
        }
        probe.finish()?;
        runs += GROUP;
    }
    Ok((runs * batch) as f64 / begin.elapsed().as_secs_f64())
}

struct Whole {
    fps: f64,
    waits: f64,
    allocations: f64,
}

type Lanes = Vec<Box<dyn DeviceLane>>;

/// Three threads: one loads, this one runs, one stores and hands the lane back.
fn chain(lanes: Lanes, spec: &ImageSpec, batch: usize, time: Duration) -> Result<(Lanes, Whole)> {
    let (free, to_load) = sync_channel(LANES);
    let (loaded, to_run) = sync_channel(LANES);
    let (ran, to_store) = sync_channel(LANES);
    for lane in lanes {
        ensure!(free.send(lane).is_ok(), "there is room for every lane");
    }
    let begin = Instant::now();
    let (stored, lanes) = std::thread::scope(|scope| {
        let loads = scope.spawn(move || load(&to_load, loaded, spec, batch, begin + time));
        let stores = scope.spawn(move || store(&to_store, free, spec, batch));
        // On the thread that has made the lanes: the provider keeps what it has recorded by thread.
        let ran = run(&to_run, ran, batch);
        let panicked = |_| anyhow::anyhow!("a thread panicked");
        let lanes = loads.join().map_err(panicked)?;
        let stored = stores.join().map_err(panicked)?;
        ran?;
        anyhow::Ok((stored?, lanes?))
    })?;
    Ok((lanes, stored))
}

type Lane = Box<dyn DeviceLane>;

/// Ends by keeping the lanes that come back.
fn load(from: &Receiver<Lane>, to: SyncSender<Lane>, spec: &ImageSpec, batch: usize, end: Instant) -> Result<Lanes> {
    let frames: Vec<Frame> = (0..(batch * LANES) as u64)
        .map(|n| Frame::noise(spec, 31 + n))
        .collect();
    let sources: Vec<Vec<Source<'_>>> = frames
        .chunks(batch)
        .map(|frames| frames.iter().map(|frame| Source::Host(frame.image())).collect())
        .collect();
    let mut number = 0;
    let mut kept = Vec::new();
    while let Ok(mut lane) = from.recv() {
        if Instant::now() >= end && number >= LEAST {
            kept.push(lane);
            if kept.len() == LANES {
                break;
            }
            continue;
        }
        lane.load(spec, &sources[number % LANES])?;
        number += 1;
        if to.send(lane).is_err() {
            break;
        }
    }
    Ok(kept)
}

fn run(from: &Receiver<Lane>, to: SyncSender<Lane>, batch: usize) -> Result<()> {
    while let Ok(mut lane) = from.recv() {
        lane.run(batch)?;
        if to.send(lane).is_err() {
            break;
        }
    }
    Ok(())
}

fn store(from: &Receiver<Lane>, to: SyncSender<Lane>, spec: &ImageSpec, batch: usize) -> Result<Whole> {
    let mut frames: Vec<Frame> = (0..batch as u64).map(|n| Frame::noise(spec, 91 + n)).collect();
    let mut targets: Vec<Target<'_>> = frames.iter_mut().map(|frame| Target::Host(frame.image_mut())).collect();
    let mut batches = 0;
    let (mut begin, mut waited, mut allocated) = (Instant::now(), 0, 0);
    let (mut last, mut waited_last, mut allocated_last) = (begin, 0, 0);
    while let Ok(mut lane) = from.recv() {
        lane.wait()?;
        let written = lane.store(spec, &mut targets)?;
        ensure!(written.non_finite == 0, "{} numbers are not finite", written.non_finite);
        batches += 1;
        (last, waited_last, allocated_last) = (Instant::now(), waits(), allocations::so_far());
        if batches == SETTLING {
            (begin, waited, allocated) = (last, waited_last, allocated_last);
        }
        if to.send(lane).is_err() {
            break;
        }
    }
    anyhow::ensure!(
        batches > SETTLING,
        "{batches} batches are too few: give it more --seconds"
    );
    let counted = (batches - SETTLING) as f64;
    Ok(Whole {
        fps: counted * batch as f64 / (last - begin).as_secs_f64(),
        waits: (waited_last - waited) as f64 / counted,
        allocations: (allocated_last - allocated) as f64 / counted,
    })
}

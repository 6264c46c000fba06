//! How far from the memory's own speed is the conversion of a batch into the tensor and back?

use std::sync::Arc;

use anyhow::Result;
use comfy_core::cuda::{DeviceBuffer, Frames, Stream};
use comfy_core::tensor::{DType, Fit, PixelFormat};

use super::frames::{self, DeviceFrames, Tensors};
use super::{Setting, noted};
use crate::clock::Clock;
use crate::driver::Graph;
use crate::figures::rounded;
use crate::schema::{Failure, KernelRow, Kernels};

/// Both kernels on a batch of 4 frames of 512x512, on an H100.
const GOAL_US: f64 = 15.0;

pub(crate) fn measure(setting: &Setting, failures: &mut Vec<Failure>) -> Result<Kernels> {
    let device = setting.gpu()?;
    let stream = Arc::new(Stream::new(device)?);
    let clock = Clock::on(Some(&stream))?;
    let count = if setting.dry_run { 3 } else { 200 };
    let mut made = Kernels {
        memory_gb_s: memory(setting, &stream, &clock)?,
        rows: Vec::new(),
    };
    let side = if setting.dry_run { 64 } else { 512 };
    let large = if setting.dry_run { (192, 108) } else { (1920, 1080) };
    let jobs = [
        (PixelFormat::Nv12, (side, side), DType::F16, 1),
        (PixelFormat::Nv12, (side, side), DType::F16, 4),
        (PixelFormat::Nv12, (side, side), DType::F32, 4),
        (PixelFormat::Rgba, (side, side), DType::F16, 4),
        (PixelFormat::Nv12, large, DType::F16, 4),
    ];
    for (format, (width, height), dtype, batch) in jobs {
        let source = frames::spec(format, width, height);
        // What comes out has the model's size.
        let target = frames::spec(format, side, side);
        let job = Job {
            input: DeviceFrames::noise(&stream, source, batch)?,
            output: DeviceFrames::noise(&stream, target, batch)?,
            tensors: Tensors::new(device, frames::tensor(dtype, side, side), batch)?,
            counter: DeviceBuffer::zeroed(device, 4)?,
            stream: stream.clone(),
        };
        let elements = (side * side * 3 * dtype.size()) as u64;
        let pre = (frames::bytes(&source) as u64 + elements) * batch as u64;
        let post = (frames::bytes(&target) as u64 + elements) * batch as u64;
        let into = format!("{} -> {dtype} {side}x{side}", frames::name(&source));
        let back = format!("{dtype} {side}x{side} -> {}", frames::name(&target));
        let both = format!("{into} -> {}", frames::name(&target));
        let is_goal = (format, dtype, batch) == (PixelFormat::Nv12, DType::F16, 4) && (width, height) == (512, 512);
        let parts: [(&str, &str, u64, Queue<'_>); 3] = [
            ("pre", &into, pre, &Job::pre),
            ("post", &back, post, &Job::post),
            ("pre+post", &both, pre + post, &|job| {
                job.pre().and_then(|()| job.post())
            }),
        ];
        for (what, conversion, bytes, queue) in parts {
            let mut row = KernelRow {
                what: what.into(),
                conversion: conversion.into(),
                batch,
                graph: false,
                us: rounded(clock.row(count, &mut || queue(&job))?),
                bytes,
                goal_us: (is_goal && what == "pre+post" && setting.has_goals()).then_some(GOAL_US),
            };
            made.rows.push(row.clone());
            if what != "pre+post" || setting.simulated {
                continue;
            }
            let replayed =
                Graph::record(&stream, &mut || queue(&job)).and_then(|graph| clock.row(count, &mut || graph.launch()));
            if let Some(us) = noted(failures, &format!("a CUDA graph of {conversion}"), replayed) {
                row.graph = true;
                row.us = rounded(us);
                made.rows.push(row);
            }
        }
        stream.synchronize()?;
    }
    Ok(made)
}

/// Bytes read and written per second by a large copy.
fn memory(setting: &Setting, stream: &Arc<Stream>, clock: &Clock) -> Result<f64> {
    let len = if setting.dry_run { 1 << 20 } else { 256 << 20 };
    let from = frames::filled(stream, len)?;
    let to = DeviceBuffer::new(stream.device(), len)?;
    let us = clock.row(8, &mut || Ok(stream.copy(from.address(), to.address(), len)?))?;
    stream.synchronize()?;
    Ok(rounded(2.0 * len as f64 / us / 1e3))
}

/// Queues a part of a job.
type Queue<'a> = &'a dyn Fn(&Job) -> Result<()>;

struct Job {
    input: DeviceFrames,
    output: DeviceFrames,
    tensors: Tensors,
    counter: DeviceBuffer,
    stream: Arc<Stream>,
}

impl Job {
    fn pre(&self) -> Result<()> {
        let frames = Frames {
            spec: &self.input.spec,
            images: &self.input.images,
        };
        let kernels = self.stream.device().kernels()?;
        Ok(kernels.into_tensor(&self.stream, frames, &self.tensors.tensor, Fit::Stretch)?)
    }

    fn post(&self) -> Result<()> {
        let frames = Frames {
            spec: &self.output.spec,
            images: &self.output.images,
        };
        let kernels = self.stream.device().kernels()?;
        Ok(kernels.from_tensor(&self.stream, &self.tensors.tensor, frames, None, self.counter.address())?)
    }
}

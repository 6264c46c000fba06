//! Does a compiled TensorRT engine run, does it give what the model gives, and what is it worth beside the CUDA provider?
//! In ratios alone: NVIDIA's licence restricts what may be published about its runtime.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use comfy_core::engine::device::{DeviceLane, Source, Target};
use comfy_core::engine::{Backend, Engine, LaneRequest, Role};
use comfy_core::tensor::{ImageSpec, PixelFormat};

use super::frames::{self, Frame};
use super::{Setting, noted, oracle};
use crate::clock::host;
use crate::figures::{gain, rounded};
use crate::schema::{Failure, RatioRow, TensorRt};

pub(crate) fn measure(setting: &Setting, failures: &mut Vec<Failure>) -> Result<TensorRt> {
    let path = setting
        .engine
        .as_deref()
        .context("no --engine: it is compiled for one kind of GPU, and never committed")?;
    setting.gpu()?;
    let engine = oracle::open(path, Backend::TensorRt, setting)?;
    let model = setting.engine_model.as_deref();
    let cuda = model.and_then(|model| {
        let opened = oracle::open(model, Backend::Cuda, setting);
        noted(failures, "the engine's model on the CUDA provider", opened)
    });
    let mut made = TensorRt {
        engine: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        difference: None,
        rows: Vec::new(),
    };
    let mut one = None;
    for batch in &setting.batches {
        let what = format!("the TensorRT engine, batch {batch}");
        let Some(us) = noted(failures, &what, time(setting, &engine, *batch)) else {
            continue;
        };
        let beside = cuda.as_ref().and_then(|cuda| {
            noted(
                failures,
                &format!("the CUDA provider, batch {batch}"),
                time(setting, cuda, *batch),
            )
        });
        if *batch == 1 {
            one = Some(us);
        }
        made.rows.push(RatioRow {
            batch: *batch,
            of_cuda: beside.map(|beside| rounded(us / beside)),
            gain: one.map_or(1.0, |one| rounded(gain(one, *batch, us))),
        });
    }
    ensure!(!made.rows.is_empty(), "it runs at none of the batch sizes");
    if let Some(model) = model {
        let compared = difference(setting, &engine, model);
        made.difference = noted(failures, "the TensorRT engine beside the processor", compared);
    }
    Ok(made)
}

fn spec(engine: &Arc<dyn Engine>, setting: &Setting, batch: usize) -> (ImageSpec, LaneRequest) {
    let side = if setting.dry_run { 64 } else { 512 };
    let sizes = engine.spec().inputs.iter().find_map(|port| match port.role {
        Role::Image(image) => Some((image.width.unwrap_or(side), image.height.unwrap_or(side))),
        _ => None,
    });
    let (width, height) = sizes.unwrap_or((side, side));
    let request = LaneRequest { width, height, batch };
    (frames::spec(PixelFormat::Rgba, width, height), request)
}

/// Microseconds of one run of a batch that is there, waited for in groups.
fn time(setting: &Setting, engine: &Arc<dyn Engine>, batch: usize) -> Result<f64> {
    const GROUP: usize = 8;
    let (spec, request) = spec(engine, setting, batch);
    let mut lane = engine.device_lane(&request)?;
    load(lane.as_mut(), &spec, batch)?;
    let count = if setting.dry_run { 3 } else { 60 };
    let us = host(count, &mut || {
        for _ in 0..GROUP {
            lane.run(batch)?;
        }
        Ok(lane.wait()?)
    })?;
    Ok(us / GROUP as f64)
}

fn load(lane: &mut dyn DeviceLane, spec: &ImageSpec, batch: usize) -> Result<()> {
    let frames: Vec<Frame> = (0..batch as u64).map(|slot| Frame::noise(spec, 21 + slot)).collect();
    let sources: Vec<Source<'_>> = frames.iter().map(|frame| Source::Host(frame.image())).collect();
    lane.load(spec, &sources)?;
    // The frames end with this function.
    Ok(lane.wait()?)
}

/// Largest difference of any byte of a picture, as its 255th part, between the engine and the model on the processor.
fn difference(setting: &Setting, engine: &Arc<dyn Engine>, model: &Path) -> Result<f64> {
    let (spec, request) = spec(engine, setting, 1);
    let mut lane = engine.device_lane(&request)?;
    load(lane.as_mut(), &spec, 1)?;
    lane.run(1)?;
    lane.wait()?;
    let (_, output) = lane.geometry().output.context("it gives no picture")?;
    let shown = frames::spec(PixelFormat::Rgb, output.width, output.height);
    let mut got = Frame::noise(&shown, 1);
    let written = lane.store(&shown, &mut [Target::Host(got.image_mut())])?;
    ensure!(written.non_finite == 0, "{} numbers are not finite", written.non_finite);

    let processor = oracle::open(model, Backend::Cpu, setting)?;
    let mut host = processor.lane(&request)?;
    let frame = Frame::noise(&spec, 21);
    let (input, output) = (host.geometry().input, host.geometry().output);
    let (port, output) = output.context("the model gives no picture")?;
    comfy_core::tensor::IntoTensor::new(spec, input)?.run(&frame.image(), host.input(0))?;
    host.run(1)?;
    let mut expected = Frame::noise(&shown, 2);
    let written =
        comfy_core::tensor::FromTensor::new(output, shown)?.run(host.output(port, 0), &mut expected.image_mut())?;
    ensure!(
        written.non_finite == 0,
        "{} numbers of the processor's are not finite",
        written.non_finite
    );
    let most = got.image().planes[0]
        .data
        .iter()
        .zip(expected.image().planes[0].data)
        .map(|(a, b)| a.abs_diff(*b))
        .max();
    Ok(rounded(f64::from(most.unwrap_or(0)) / 255.0))
}

//! Does the CUDA provider give what the processor gives, for every sample model?

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use comfy_core::engine::{self, Backend, Engine, Lane, LaneRequest, OpenRequest};
use comfy_core::tensor::{TensorMut, TensorRef, f16};

use super::frames::noise;
use super::{Setting, noted};
use crate::figures::rounded;
use crate::schema::{Failure, OracleRow};

/// Of any element, in the tensor's own range. TF32 products and another order of sums are within it.
pub(crate) const GOAL: f64 = 1e-2;

pub(crate) fn measure(setting: &Setting, failures: &mut Vec<Failure>) -> Result<Vec<OracleRow>> {
    let mut rows = Vec::new();
    for path in models(&setting.samples)? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for batch in [1, 2, 3] {
            let compared = compare(setting, &path, batch).map(|(provider, difference)| OracleRow {
                model: name.clone(),
                provider,
                batch,
                difference: rounded(difference),
                met: difference < GOAL,
            });
            rows.extend(noted(
                failures,
                &format!("{name}, batch {batch}, beside the processor"),
                compared,
            ));
        }
    }
    Ok(rows)
}

/// Every .onnx in a folder, by name.
pub(crate) fn models(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("--samples {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    paths.sort();
    ensure!(
        !paths.is_empty(),
        "--samples {}: no .onnx file is there",
        folder.display()
    );
    Ok(paths)
}

fn compare(setting: &Setting, path: &Path, batch: usize) -> Result<(String, f64)> {
    let (backend, provider) = match &setting.device {
        Some(_) if !setting.simulated => (Backend::Cuda, "cuda"),
        _ => (Backend::Cpu, "cpu"),
    };
    let open = |backend| open(path, backend, setting);
    let request = LaneRequest {
        width: 64,
        height: 48,
        batch,
    };
    let expected = results(&open(Backend::Cpu)?, &request)?;
    let got = results(&open(backend)?, &request)?;
    ensure!(
        expected.len() == got.len(),
        "{} numbers in place of {}",
        got.len(),
        expected.len()
    );
    ensure!(
        expected.iter().any(|v| (v - expected[0]).abs() > 1e-3),
        "the output is flat, which proves nothing"
    );
    let most = expected
        .iter()
        .zip(&got)
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, |most: f64, by| {
            // A NaN is the largest difference of all.
            if by.is_nan() { f64::INFINITY } else { most.max(by) }
        });
    Ok((provider.into(), most))
}

pub(crate) fn open(path: &Path, backend: Backend, setting: &Setting) -> Result<Arc<dyn Engine>> {
    let request = OpenRequest {
        model: path.display().to_string(),
        backend,
        device: setting.device.as_ref().map_or(0, |device| device.ordinal() as u32),
        ..OpenRequest::default()
    };
    Ok(engine::open(&request, &|_| ())?)
}

/// Every output of a batch of noise, bytes as their 255th part.
fn results(engine: &Arc<dyn Engine>, request: &LaneRequest) -> Result<Vec<f32>> {
    let mut lane = engine.lane(request)?;
    fill(lane.as_mut(), request.batch);
    lane.run(request.batch)?;
    let mut all = Vec::new();
    for port in 0..engine.spec().outputs.len() {
        for slot in 0..request.batch {
            match lane.output(port, slot) {
                TensorRef::U8(from) => all.extend(from.iter().map(|v| f32::from(*v) / 255.0)),
                TensorRef::F16(from) => all.extend(from.iter().map(|v| v.to_f32())),
                TensorRef::F32(from) => all.extend_from_slice(from),
                TensorRef::I32(from) => all.extend(from.iter().map(|v| *v as f32)),
                TensorRef::I64(from) => all.extend(from.iter().map(|v| *v as f32)),
            }
        }
    }
    Ok(all)
}

/// Noise in the model's range, another for each image.
pub(crate) fn fill(lane: &mut dyn Lane, batch: usize) {
    let image = lane.geometry().input;
    let value = |byte: u8| f32::from(byte) * image.scale[0] + image.bias[0];
    for slot in 0..batch {
        let bytes = noise(image.len(), 11 + slot as u64);
        match lane.input(slot) {
            TensorMut::U8(to) => to.copy_from_slice(&bytes),
            TensorMut::F16(to) => to
                .iter_mut()
                .zip(bytes)
                .for_each(|(to, b)| *to = f16::from_f32(value(b))),
            TensorMut::F32(to) => to.iter_mut().zip(bytes).for_each(|(to, b)| *to = value(b)),
        }
    }
}

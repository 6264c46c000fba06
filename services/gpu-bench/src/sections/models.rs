//! What does a call cost at batch 1, 2, 4 and 8, with CUDA graphs and without, beside PyTorch? And are two sessions on
//! two streams worth as much as a batch of two?
#![allow(
    clippy::disallowed_methods,
    reason = "a measurement reads the system's clock, not a pipeline's"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use comfy_core::cuda::Stream;
use comfy_core::engine::ort::probe::{Place, Probe, ProbeRequest};
use serde::Deserialize;

use super::{Setting, noted};
use crate::clock::Clock;
use crate::figures::{line, rounded, spread};
use crate::schema::{Failure, FitRow, ModelRow, ModelTimes, Runner, StreamsRow};

/// What gpu_models.py writes beside its models.
#[derive(Debug, Deserialize)]
struct Index {
    models: BTreeMap<String, Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    sizes: BTreeMap<String, usize>,
    inputs: BTreeMap<String, Values>,
}

#[derive(Debug, Deserialize)]
struct Values {
    low: f32,
    high: f32,
}

/// What gpu_torch.py writes.
#[derive(Debug, Deserialize)]
struct Torch {
    torch: String,
    cuda: Option<String>,
    models: BTreeMap<String, TorchModel>,
}

#[derive(Debug, Deserialize)]
struct TorchModel {
    rows: Vec<TorchRow>,
}

#[derive(Debug, Deserialize)]
struct TorchRow {
    batch: usize,
    graph: bool,
    ms: Option<crate::schema::Spread>,
    failed: Option<String>,
}

/// The models, and PyTorch's version.
pub(crate) type Measured = (Vec<ModelTimes>, Option<String>);

pub(crate) fn measure(setting: &Setting, failures: &mut Vec<Failure>) -> Result<Measured> {
    let folder = setting
        .models
        .as_deref()
        .context("no --models: scripts/gpu_models.py makes them, on a machine with torch and diffusers")?;
    let path = folder.join("gpu_models.json");
    let text = std::fs::read(&path).with_context(|| format!("{}", path.display()))?;
    let index: Index = serde_json::from_slice(&text).with_context(|| format!("{}", path.display()))?;
    let (mut made, mut torch) = (Vec::new(), None);
    for (name, entry) in &index.models {
        eprintln!("   {name}");
        let mut times = ModelTimes {
            model: name.clone(),
            sizes: entry.sizes.clone(),
            difference: None,
            rows: Vec::new(),
            fits: Vec::new(),
            streams: Vec::new(),
        };
        let file = folder.join(format!("{name}.onnx"));
        if setting.device.is_some() && !setting.simulated {
            let compared = difference(setting, &file, entry);
            times.difference = noted(failures, &format!("{name} beside the processor"), compared);
        }
        for batch in &setting.batches {
            let rows = batch_rows(setting, &file, entry, *batch, failures);
            times
                .rows
                .extend(noted(failures, &format!("{name}, batch {batch}"), rows).unwrap_or_default());
        }
        // PyTorch straight after ours, on the same clocks and temperature.
        if let Some(python) = &setting.python {
            let asked = beside(setting, python, name);
            if let Some(answer) = noted(failures, &format!("{name} in PyTorch"), asked) {
                torch = Some(match &answer.cuda {
                    Some(cuda) => format!("{} (CUDA {cuda})", answer.torch),
                    None => answer.torch.clone(),
                });
                take(&answer, name, &mut times, failures);
            }
        }
        times.fits = fits(&times.rows);
        if setting.batches.contains(&2) {
            for graph in [false, true] {
                if graph && (setting.device.is_none() || setting.simulated) {
                    continue;
                }
                let what = format!("{name} on two streams{}", if graph { ", CUDA graphs" } else { "" });
                let pair = streams(setting, &file, entry, graph);
                times.streams.extend(noted(failures, &what, pair));
            }
        }
        made.push(times);
    }
    if setting.python.is_none() {
        failures.push(Failure {
            what: "PyTorch".into(),
            reason: "no --python was given".into(),
        });
    }
    Ok((made, torch))
}

/// A stream for a probe, where there is a device that its runtime can use.
fn stream(setting: &Setting) -> Result<Option<Arc<Stream>>> {
    match &setting.device {
        Some(device) if !setting.simulated => Ok(Some(Arc::new(Stream::new(device)?))),
        _ => Ok(None),
    }
}

fn request(file: &Path, entry: &Entry, batch: usize, stream: Option<&Arc<Stream>>, record: bool) -> ProbeRequest {
    let mut dims: Vec<(String, usize)> = entry.sizes.iter().map(|(name, size)| (name.clone(), *size)).collect();
    dims.push(("batch".into(), batch));
    let ranges = entry
        .inputs
        .iter()
        .map(|(name, values)| (name.clone(), [values.low, values.high]));
    ProbeRequest {
        place: stream.map_or(Place::Cpu, |stream| Place::Cuda(stream.clone())),
        dims,
        ranges: ranges.collect(),
        record,
        ..ProbeRequest::new(file)
    }
}

/// Opened so that runs can be recorded, or without, and why.
fn open(file: &Path, entry: &Entry, batch: usize, stream: Option<&Arc<Stream>>) -> Result<(Probe, Option<String>)> {
    if stream.is_none() {
        return Ok((Probe::open(&request(file, entry, batch, None, false))?, None));
    }
    match Probe::open(&request(file, entry, batch, stream, true)) {
        Ok(probe) => Ok((probe, None)),
        Err(error) => {
            let probe = Probe::open(&request(file, entry, batch, stream, false))?;
            Ok((probe, Some(error.to_string())))
        }
    }
}

fn batch_rows(
    setting: &Setting,
    file: &Path,
    entry: &Entry,
    batch: usize,
    failures: &mut Vec<Failure>,
) -> Result<Vec<ModelRow>> {
    let stream = stream(setting)?;
    let (mut probe, refused) = open(file, entry, batch, stream.as_ref())?;
    let clock = Clock::on(stream.as_ref())?;
    let row = |graph, times: &[f64]| ModelRow {
        runner: Runner::Ours,
        graph,
        batch,
        ms: spread(times),
    };
    let times = clock.each(&setting.plan(), &mut || Ok(probe.run()?))?;
    let mut rows = vec![row(false, &times)];
    let plain = probe.read(0)?;
    ensure!(plain.iter().all(|v| v.is_finite()), "not every number is finite");
    if let Some(reason) = refused {
        failures.push(Failure {
            what: format!("{}, batch {batch}, as a CUDA graph", file.display()),
            reason,
        });
    } else if stream.is_some() {
        let times = clock.each(&setting.plan(), &mut || Ok(probe.replay()?))?;
        // Replays that do nothing would be fast.
        let most = largest(&plain, &probe.read(0)?);
        ensure!(most <= 1e-2, "a recorded run differs from a plain one by {most}");
        rows.push(row(true, &times));
    }
    Ok(rows)
}

fn largest(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, f64::max)
}

/// Between the provider and the processor, at a size that the processor runs in seconds.
fn difference(setting: &Setting, file: &Path, entry: &Entry) -> Result<f64> {
    let mut small = request(file, entry, 2, None, false);
    let is_latent = !entry.inputs.contains_key("image");
    for (name, size) in &mut small.dims {
        if name == "height" || name == "width" {
            *size = (*size).min(if is_latent { 16 } else { 128 });
        }
    }
    let read = |request: &ProbeRequest| -> Result<Vec<f32>> {
        let mut probe = Probe::open(request)?;
        probe.run()?;
        Ok(probe.read(0)?)
    };
    let expected = read(&small)?;
    let stream = stream(setting)?.context("no device")?;
    small.place = Place::Cuda(stream);
    Ok(rounded(largest(&expected, &read(&small)?)))
}

fn fits(rows: &[ModelRow]) -> Vec<FitRow> {
    let mut fits = Vec::new();
    for runner in [Runner::Ours, Runner::Torch] {
        for graph in [false, true] {
            let of = rows.iter().filter(|row| row.runner == runner && row.graph == graph);
            let points: Vec<(usize, f64)> = of.map(|row| (row.batch, row.ms.p50)).collect();
            fits.extend(line(&points).map(|line| FitRow {
                runner,
                graph,
                a_ms: rounded(line.a),
                b_ms: rounded(line.b),
                residual_ms: rounded(line.residual),
            }));
        }
    }
    fits
}

/// A probe on a thread of its own, for good: the provider keeps what it has recorded by thread.
struct Worker {
    orders: SyncSender<usize>,
    done: Receiver<Result<()>>,
}

impl Worker {
    fn new(mut probe: Probe, graph: bool) -> Self {
        let (orders, ordered) = sync_channel::<usize>(1);
        let (tell, done) = sync_channel(1);
        // Ends when nobody gives orders any more.
        std::thread::spawn(move || {
            while let Ok(calls) = ordered.recv() {
                let mut call = || if graph { probe.replay() } else { probe.run() };
                let queued = (0..calls).try_for_each(|_| call());
                let result = queued.and_then(|()| probe.finish()).map_err(anyhow::Error::from);
                if tell.send(result).is_err() {
                    break;
                }
            }
        });
        Self { orders, done }
    }
}

/// Host time of so many calls on each of them, side by side, until all are done: milliseconds for one call each.
fn together(workers: &[&Worker], calls: usize) -> Result<f64> {
    let begin = Instant::now();
    for worker in workers {
        worker.orders.send(calls).context("a thread ended")?;
    }
    for worker in workers {
        worker.done.recv().context("a thread ended")??;
    }
    Ok(begin.elapsed().as_secs_f64() * 1e3 / calls as f64)
}

fn streams(setting: &Setting, file: &Path, entry: &Entry, graph: bool) -> Result<StreamsRow> {
    let worker = |batch| -> Result<Worker> {
        let stream = stream(setting)?;
        let record = graph && stream.is_some();
        let probe = Probe::open(&request(file, entry, batch, stream.as_ref(), record))?;
        let worker = Worker::new(probe, graph);
        // Recorded one after the other: while it records, the provider lets no other thread allocate.
        together(&[&worker], 4)?;
        Ok(worker)
    };
    let (first, second, two) = (worker(1)?, worker(1)?, worker(2)?);
    // To see how many calls fill the time.
    let least = if setting.dry_run { 2 } else { 20 };
    let once = together(&[&first], least)?;
    let calls = ((setting.seconds * 1e3 / once) as usize).max(least);
    // In turns, so that whatever else the machine does meets all three.
    let mut rounds = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..setting.passes {
        rounds[0].push(together(&[&first], calls)?);
        rounds[1].push(together(&[&first, &second], calls)?);
        rounds[2].push(together(&[&two], calls)?);
    }
    let [one, both, batch2] = rounds.map(|times| spread(&times).p50);
    Ok(StreamsRow {
        graph,
        one_ms: one,
        pair_ms: both,
        batch2_ms: batch2,
    })
}

/// The same model in PyTorch, in a process of its own, now.
fn beside(setting: &Setting, python: &Path, model: &str) -> Result<Torch> {
    let out = std::env::temp_dir().join(format!("comfy-gpu-torch-{}-{model}.json", std::process::id()));
    let batches: Vec<String> = setting.batches.iter().map(ToString::to_string).collect();
    let mut command = Command::new(python);
    command
        .arg(setting.scripts.join("gpu_torch.py"))
        .args(["--only", model, "--batches", &batches.join(",")])
        .args(["--seconds", &setting.seconds.to_string()])
        .arg("--out")
        .arg(&out);
    if setting.dry_run {
        command.args(["--tiny", "--device", "cpu"]);
    }
    let output = command.output().with_context(|| format!("{}", python.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "gpu_torch.py: {}: {}",
        output.status,
        said.lines().last().unwrap_or_default()
    );
    let text = std::fs::read(&out)?;
    let _ = std::fs::remove_file(&out);
    serde_json::from_slice(&text).context("what gpu_torch.py wrote")
}

fn take(answer: &Torch, name: &str, times: &mut ModelTimes, failures: &mut Vec<Failure>) {
    for row in answer.models.get(name).iter().flat_map(|model| &model.rows) {
        if let Some(ms) = row.ms {
            times.rows.push(ModelRow {
                runner: Runner::Torch,
                graph: row.graph,
                batch: row.batch,
                ms,
            });
        } else {
            failures.push(Failure {
                what: format!("{name} in PyTorch, batch {}, as a CUDA graph", row.batch),
                reason: row.failed.clone().unwrap_or_default(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pytorch_measured_is_taken_over_with_what_it_could_not() {
        let text = r#"{"dry_run": false, "torch": "2.11.0", "diffusers": "0.42.1", "cuda": "13.0", "device": "x",
            "models": {"unet": {"sizes": {"height": 64}, "rows": [
                {"batch": 1, "graph": false, "ms": {"calls": 3, "min": 1.0, "p50": 2.0, "p95": 3.0}},
                {"batch": 1, "graph": true, "failed": "operation not permitted"}]}}}"#;
        let answer: Torch = serde_json::from_str(text).unwrap();
        let mut times = ModelTimes {
            model: "unet".into(),
            sizes: BTreeMap::new(),
            difference: None,
            rows: Vec::new(),
            fits: Vec::new(),
            streams: Vec::new(),
        };
        let mut failures = Vec::new();
        take(&answer, "unet", &mut times, &mut failures);
        assert_eq!((times.rows.len(), times.rows[0].ms.p50), (1, 2.0));
        assert_eq!(failures[0].reason, "operation not permitted");
    }

    #[test]
    fn each_runner_and_way_has_a_line_of_its_own() {
        let row = |runner, graph, batch, p50| ModelRow {
            runner,
            graph,
            batch,
            ms: crate::schema::Spread {
                calls: 1,
                min: p50,
                p50,
                p95: p50,
            },
        };
        let mut rows: Vec<ModelRow> = [1, 2, 4].map(|b| row(Runner::Ours, true, b, 1.0 + b as f64)).to_vec();
        rows.push(row(Runner::Torch, true, 1, 9.0));
        let fits = fits(&rows);
        assert_eq!(
            fits.len(),
            1,
            "PyTorch was measured at one size, through which any line goes"
        );
        assert_eq!((fits[0].a_ms, fits[0].b_ms, fits[0].graph), (1.0, 1.0, true));
    }
}

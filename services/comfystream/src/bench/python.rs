//! How fast is the chain beside the Python path that a user has today, on the same model, frames and threads?
//!
//! In each of three rounds our passes, those of tests/benches/python/baseline.py tuned, and one of it plain follow each
//! other, so that whatever else the machine does meets all of them. Both sides begin with frames in memory and end with
//! frames in memory; decoding is in neither. The median of the rounds' ratios counts, and how far they lie apart is told.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::chain::{Chain, Shared};
use super::frames::Frames;
use super::machine;
use super::report::{Table, median, number, progress};

const MODELS: [&str; 3] = ["invert", "cartoon", "style"];
const BATCHES: [usize; 3] = [1, 2, 4];
const ROUNDS: usize = 3;
const PASSES: usize = 2;

struct Job<'a> {
    model: &'a str,
    threads: usize,
    frames: usize,
    raw: &'a Path,
    size: String,
    out: &'a Path,
}

fn python(job: &Job<'_>, style: &str, passes: usize) -> Result<Value> {
    let file = job
        .out
        .join(format!("python-{}-{style}-{}.json", job.model, job.threads));
    let batches = BATCHES.map(|batch| batch.to_string()).join(",");
    let output = Command::new(".work/venv/bin/python")
        .arg("tests/benches/python/baseline.py")
        .args([
            "--model",
            &format!("models/{}.onnx", job.model),
            "--style",
            style,
            "--batch",
            &batches,
        ])
        .args([
            "--threads",
            &job.threads.to_string(),
            "--frames",
            &job.frames.to_string(),
            "--size",
            &job.size,
            "--passes",
            &passes.to_string(),
        ])
        .arg("--raw")
        .arg(job.raw)
        .arg("--json")
        .arg(&file)
        .output()
        .context(".work/venv/bin/python cannot be started; scripts/setup.sh python makes it")?;
    ensure!(
        output.status.success(),
        "baseline.py failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&std::fs::read(&file)?)?)
}

fn fps(report: &Value, batch: usize) -> Result<f64> {
    let runs = report["runs"].as_array().context("runs of baseline.py")?;
    let run = runs
        .iter()
        .find(|run| run["batch"] == json!(batch))
        .context("a run for each batch")?;
    let passes: Vec<f64> = run["fps_passes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .collect();
    Ok(median(&passes))
}

/// Frames per second by batch size.
fn ours(job: &Job<'_>, frames: &Frames) -> Result<Vec<f64>> {
    let shared = Shared::open(&format!("models/{}.onnx", job.model), job.threads as u32)?;
    let of_batch = |batch| {
        let mut chain = Chain::new(&shared, batch, frames)?;
        let passes: Result<Vec<f64>> = (0..PASSES).map(|_| chain.frames_per_second(job.frames)).collect();
        Ok(median(&passes?))
    };
    BATCHES.into_iter().map(of_batch).collect()
}

/// Frames per second of one batch size in one round.
struct Round {
    ours: f64,
    tuned: f64,
    plain: f64,
}

/// The part of `make bench`.
pub(super) fn measure(report: &mut Value, frames: &Frames, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out)?;
    let raw = out.join("frames.rgb");
    let mut bytes = Vec::new();
    for buffer in &frames.buffers {
        bytes.extend_from_slice(&buffer.map_readable()?);
    }
    std::fs::write(&raw, bytes)?;
    let cores = machine::cores();
    let mut table = Table::new(&[
        "model",
        "batch",
        "threads of ONNX Runtime",
        "ours / Python tuned",
        "in the rounds",
        "ours / Python plain",
        "ours, frames/s",
        "tuned",
        "plain",
    ]);
    let mut all_threads = vec![cores];
    if cores > 1 {
        all_threads.push(1);
    }
    for model in MODELS {
        // One thread of the heaviest takes minutes and tells nothing new.
        for threads in all_threads
            .iter()
            .filter(|threads| model != "style" || **threads == cores)
        {
            let count = match model {
                "style" => 24,
                "cartoon" => 60,
                _ => 400,
            };
            let job = Job {
                model,
                threads: *threads,
                frames: count,
                raw: &raw,
                size: frames.size.to_string(),
                out,
            };
            progress(&format!("{model}, {threads} threads"));
            let mut rounds: Vec<Vec<Round>> = BATCHES.map(|_| Vec::new()).into();
            let mut versions = Value::Null;
            for _ in 0..ROUNDS {
                let ours = ours(&job, frames)?;
                let (tuned, plain) = (python(&job, "tuned", PASSES)?, python(&job, "plain", 1)?);
                for ((batch, ours), rounds) in BATCHES.into_iter().zip(ours).zip(&mut rounds) {
                    let (tuned, plain) = (fps(&tuned, batch)?, fps(&plain, batch)?);
                    rounds.push(Round { ours, tuned, plain });
                }
                versions = tuned;
            }
            for (batch, rounds) in BATCHES.into_iter().zip(&rounds) {
                let of = |what: fn(&Round) -> f64| -> Vec<f64> { rounds.iter().map(what).collect() };
                let ratios = of(|round| round.ours / round.tuned);
                let (ratio, plain_ratio) = (median(&ratios), median(&of(|round| round.ours / round.plain)));
                let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
                let most = ratios.iter().copied().fold(0.0, f64::max);
                let (ours, tuned, plain) = (
                    median(&of(|round| round.ours)),
                    median(&of(|round| round.tuned)),
                    median(&of(|round| round.plain)),
                );
                let key = batch.to_string();
                if *threads == cores {
                    report["python_ratio"][model][&key] = number(ratio);
                    report["python_ratio_plain"][model][&key] = number(plain_ratio);
                }
                report["python"][model][&key][format!("threads_{threads}")] = json!({
                    "fps": number(ours), "tuned_fps": number(tuned), "plain_fps": number(plain),
                    "ratios": ratios.iter().copied().map(number).collect::<Vec<_>>(),
                });
                table.line([
                    model.to_owned(),
                    key,
                    threads.to_string(),
                    format!("{ratio:.2}"),
                    format!("{least:.2} to {most:.2}"),
                    format!("{plain_ratio:.2}"),
                    format!("{ours:.1}"),
                    format!("{tuned:.1}"),
                    format!("{plain:.1}"),
                ]);
            }
            for version in ["python", "numpy", "onnxruntime"] {
                report["versions"][version] = versions[version].clone();
            }
        }
    }
    progress("");
    report["python_threads"] = json!(cores);
    report["tables"]["python"] = json!(table.markdown());
    Ok(())
}

//! How fast is the chain beside the Python path that a user has today, on the same model, frames and threads?
//!
//! tests/benches/python/baseline.py runs between passes of ours. Both sides begin with frames in memory and end with
//! frames in memory; decoding is in neither. The median of each side's passes counts.

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

struct Job<'a> {
    model: &'a str,
    threads: usize,
    frames: usize,
    raw: &'a Path,
    size: String,
    out: &'a Path,
}

fn python(job: &Job<'_>, style: &str) -> Result<Value> {
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

/// Two passes of each batch size.
fn ours(job: &Job<'_>, frames: &Frames, passes: &mut [Vec<f64>]) -> Result<()> {
    let shared = Shared::open(&format!("models/{}.onnx", job.model), job.threads as u32)?;
    for (batch, passes) in BATCHES.into_iter().zip(passes) {
        let mut chain = Chain::new(&shared, batch, frames)?;
        for _ in 0..2 {
            passes.push(chain.frames_per_second(job.frames)?);
        }
    }
    Ok(())
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
            let mut passes = vec![Vec::new(); BATCHES.len()];
            ours(&job, frames, &mut passes)?;
            let plain = python(&job, "plain")?;
            ours(&job, frames, &mut passes)?;
            let tuned = python(&job, "tuned")?;
            ours(&job, frames, &mut passes)?;
            for (batch, passes) in BATCHES.into_iter().zip(&passes) {
                let (ours, plain, tuned) = (median(passes), fps(&plain, batch)?, fps(&tuned, batch)?);
                let key = batch.to_string();
                if *threads == cores {
                    report["python_ratio"][model][&key] = number(ours / tuned);
                    report["python_ratio_plain"][model][&key] = number(ours / plain);
                }
                report["python"][model][&key][format!("threads_{threads}")] = json!({
                    "fps": number(ours), "tuned_fps": number(tuned), "plain_fps": number(plain),
                });
                table.line([
                    model.to_owned(),
                    key,
                    threads.to_string(),
                    format!("{:.2}", ours / tuned),
                    format!("{:.2}", ours / plain),
                    format!("{ours:.1}"),
                    format!("{tuned:.1}"),
                    format!("{plain:.1}"),
                ]);
            }
            for version in ["python", "numpy", "onnxruntime"] {
                report["versions"][version] = tuned[version].clone();
            }
        }
    }
    progress("");
    report["python_threads"] = json!(cores);
    report["tables"]["python"] = json!(table.markdown());
    Ok(())
}

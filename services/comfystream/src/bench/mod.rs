//! How fast is a model on this machine, what does the pipeline around it cost, and which batch is worth its wait?
//!
//! `comfystream bench --model M.onnx --input clip.mp4` answers for one model: a table of batch sizes, with the same
//! engine run bare beside each line. `--all` is what `make bench` runs: every figure that docs/PERFORMANCE.md states,
//! written there and to docs/measurements/bench.json. What is compared is compared within one run, ratios first.
#![allow(
    clippy::disallowed_methods,
    reason = "a measurement reads the system's clock, not a pipeline's, and waits for absolute times"
)]

mod chain;
mod conversion;
mod cost;
mod efficiency;
mod frames;
mod latency;
mod machine;
mod plot;
mod python;
mod relay;
mod report;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use frames::Size;

/// Measures a model on this machine: frames per second by batch size, beside the engine alone.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Model file, or builtin:null?base=5ms&per-image=2ms
    #[arg(long, required_unless_present = "all")]
    model: Option<String>,
    /// Batch sizes, by comma
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8", value_parser = clap::value_parser!(u64).range(1..=64))]
    batch: Vec<u64>,
    /// Video or picture whose frames are used; a test picture without it
    #[arg(long)]
    input: Option<PathBuf>,
    /// Size of the frames, WIDTHxHEIGHT; the input's own without it
    #[arg(long)]
    size: Option<Size>,
    /// Processor threads of one run of the model; 0: half of the cores
    #[arg(long, default_value_t = 0)]
    threads: u32,
    /// Seconds of each pass; there are three, each beside one of the engine alone
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Where the figures go, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the plot goes, .svg or .png
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Measure everything that docs/PERFORMANCE.md states, in the source tree, and write it there
    #[arg(long, conflicts_with_all = ["model", "json", "plot", "size"])]
    all: bool,
    /// With --all: only these parts, by comma: cost, efficiency, python, latency, conversion, relay. Others keep their figures
    #[arg(long, value_delimiter = ',', requires = "all")]
    only: Vec<String>,
}

/// Runs it.
pub(crate) fn run(args: Args) -> Result<()> {
    gst::init().context("GStreamer cannot be started")?;
    // Always the copy in this program: a plugin file would bring engines of its own, which the bare loop cannot share.
    let registry = gst::Registry::get();
    while let Some(plugin) = registry.find_plugin("comfy") {
        registry.remove_plugin(&plugin);
    }
    gstcomfy::plugin_register_static().context("the elements cannot be registered")?;
    ensure!(args.seconds > 0.0, "--seconds {}: expected more than 0", args.seconds);
    if args.all { all(&args) } else { one(&args) }
}

/// A person's own model.
fn one(args: &Args) -> Result<()> {
    let model = args.model.as_deref().unwrap_or_default();
    let frames = frames::load(args.input.as_deref(), args.size)?;
    let batches: Vec<usize> = args.batch.iter().map(|batch| *batch as usize).collect();
    let plan = efficiency::Plan {
        model,
        batches: &batches,
        threads: args.threads,
        seconds: args.seconds,
        passes: 3,
    };
    let table = efficiency::measure(&plan, &frames)?;
    println!("\n{}", efficiency::text(&table));
    println!("{}", efficiency::verdict(&table));
    let report = json!({
        "model": model,
        "input": args.input,
        "size": frames.size.to_string(),
        "engine": table.runtime,
        "batch": efficiency::json(&table),
        "machine": machine::machine(),
        "versions": machine::versions(),
    });
    if let Some(path) = &args.json {
        report::write(path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    if let Some(path) = &args.plot {
        plot::write(path, &plot::batches(&table, &machine::line(&report)))?;
    }
    Ok(())
}

/// Everything. Each part is written as soon as it is there.
fn all(args: &Args) -> Result<()> {
    const PARTS: [&str; 6] = ["cost", "efficiency", "latency", "conversion", "relay", "python"];
    if let Some(unknown) = args.only.iter().find(|part| !PARTS.contains(&part.as_str())) {
        bail!("--only {unknown}: there are {}", PARTS.join(", "));
    }
    let wanted = |part: &str| args.only.is_empty() || args.only.iter().any(|only| only == part);
    let (docs, out) = (PathBuf::from("docs"), PathBuf::from("out/bench"));
    let page = docs.join("PERFORMANCE.md");
    ensure!(
        page.exists(),
        "{} is not here: run it in the source tree",
        page.display()
    );
    let measurements = docs.join("measurements/bench.json");
    let mut report: Value = match std::fs::read(&measurements) {
        Ok(bytes) if !args.only.is_empty() => serde_json::from_slice(&bytes).context("docs/measurements/bench.json")?,
        _ => json!({}),
    };
    report["machine"] = machine::machine();
    report["versions"] = machine::versions();
    let begin = Instant::now();
    let size = Size {
        width: 512,
        height: 512,
    };
    let frames = frames::load(args.input.as_deref(), Some(size))?;
    for part in PARTS.into_iter().filter(|part| wanted(part)) {
        let (started, load) = (Instant::now(), machine::load());
        eprintln!("== {part}");
        match part {
            "cost" => cost::measure(&mut report)?,
            "efficiency" => efficiency::all(&mut report, &frames, &docs.join("measurements"))?,
            "latency" => latency::measure(&mut report)?,
            "conversion" => conversion::measure(&mut report, &frames)?,
            "relay" => relay::measure(&mut report, args.input.as_deref(), &out, &docs.join("measurements"))?,
            _ => python::measure(&mut report, &frames, &out)?,
        }
        let seconds = started.elapsed().as_secs_f64().round();
        report["runs"][part] = json!({ "seconds": seconds, "load_before": load });
        eprintln!("   {seconds} s");
        report::write(&measurements, &(serde_json::to_string_pretty(&report)? + "\n"))?;
        report::page(&page, &report)?;
    }
    eprintln!(
        "{:.0} s in all; see {} and {}",
        begin.elapsed().as_secs_f64(),
        page.display(),
        measurements.display()
    );
    Ok(())
}

//! `comfystream demo`: a video through a model, before and after side by side.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use comfy_pipelines::infergraph::{self, Backend};
use comfy_pipelines::process::{Config, Input, Process};

use crate::progress::Progress;
use crate::report::{About, Report};
use crate::sheet::Sheet;

/// What shells report of a program that was interrupted.
const INTERRUPTED: u8 = 130;

/// Run a video through a model; write before and after side by side, a contact sheet and a report
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file, or a URI such as https://... or rtsp://...
    #[arg(long, value_name = "FILE_OR_URI")]
    input: String,
    /// An .onnx file, with its manifest, if any, beside it as .toml; or builtin:invert
    #[arg(long, value_name = "FILE")]
    model: String,
    /// Most frames of one run of the model, 1 to 64
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    batch: u32,
    /// Folder for demo.mp4, contact-sheet.png, report.txt and report.json; made when it is not there
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    /// Seconds of the input to use; all of it when not given
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// What runs the model; auto takes the best that works
    #[arg(long, value_enum, default_value_t)]
    backend: BackendArg,
    /// Number of the GPU
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: u32,
    /// Processor threads of one run of the model; 0 = half of the cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: u32,
    /// Batches collected before the model starts
    #[arg(long, value_name = "BATCHES", default_value_t = 2)]
    threshold: u32,
    /// Batches that the buffer before the model holds
    #[arg(long, value_name = "BATCHES", default_value_t = 5)]
    max_batches: u32,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum BackendArg {
    #[default]
    Auto,
    Cpu,
    Cuda,
    Tensorrt,
    Rtx,
}

impl From<BackendArg> for Backend {
    fn from(arg: BackendArg) -> Self {
        match arg {
            BackendArg::Auto => Backend::Auto,
            BackendArg::Cpu => Backend::Cpu,
            BackendArg::Cuda => Backend::Cuda,
            BackendArg::Tensorrt => Backend::TensorRt,
            BackendArg::Rtx => Backend::Rtx,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).parse::<f64>();
    match number.map(Duration::try_from_secs_f64) {
        Ok(Ok(duration)) if !duration.is_zero() => Ok(duration),
        _ => Err("expected seconds above 0, such as 10 or 2.5".into()),
    }
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let origin = comfy_pipelines::register()?;
    let input = Input::parse(&args.input)?;
    check_model(&args.model)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("folder {} cannot be made", args.out.display()))?;
    let video = args.out.join("demo.mp4");
    let picture = args.out.join("contact-sheet.png");
    let config = Config {
        input,
        output: video.clone(),
        infer: infergraph::Config {
            model: args.model.clone(),
            backend: args.backend.into(),
            device: args.device,
            threads: args.threads,
            batch: args.batch,
            threshold: args.threshold,
            max_batches: args.max_batches,
            ..infergraph::Config::default()
        },
        duration: args.duration,
    };

    let sheet = Arc::new(Sheet::new());
    let progress = Arc::new(Progress::new());
    let (seen, shown) = (sheet.clone(), progress.clone());
    let process = Process::new(
        config,
        Some(Arc::new(move |pair| seen.see(pair))),
        Arc::new(move |happening| shown.show(happening)),
    );
    let outcome = process.map_err(anyhow::Error::from).and_then(|process| {
        on_interrupt(&process)?;
        Ok(process.run()?)
    });
    progress.end();
    let outcome = outcome?;

    sheet.write(&picture)?;
    let report = Report::new(
        &About {
            input: &args.input,
            model: &args.model,
            output: &video,
            contact_sheet: &picture,
            elements: origin.to_string(),
        },
        &outcome,
    );
    let text = report.text();
    save(&args.out.join("report.txt"), &text)?;
    save(
        &args.out.join("report.json"),
        &(serde_json::to_string_pretty(&report)? + "\n"),
    )?;
    print!("{text}");
    if let Some(fault) = report.fault() {
        bail!(fault);
    }
    Ok(if outcome.stopped {
        ExitCode::from(INTERRUPTED)
    } else {
        ExitCode::SUCCESS
    })
}

/// Told before anything is built; what is wrong inside the file is for the engine to say.
fn check_model(model: &str) -> Result<()> {
    if model.starts_with("builtin:") || Path::new(model).is_file() {
        return Ok(());
    }
    if Path::new(model).is_dir() {
        bail!("model {model} is a folder; name an .onnx file in it with --model");
    }
    bail!("model file {model} does not exist; name one with --model, for one models/cartoon.onnx");
}

/// The first interrupt finishes the file; a second one ends the program.
fn on_interrupt(process: &Process) -> Result<()> {
    let (stopper, asked) = (process.stopper(), AtomicBool::new(false));
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::AcqRel) {
            std::process::exit(INTERRUPTED.into());
        }
        eprintln!("stopping; what is done will be in the file (again to end at once)");
        stopper.stop();
    })
    .context("interrupts cannot be caught")
}

fn save(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_with_and_without_their_unit() {
        assert_eq!(seconds("2.5"), Ok(Duration::from_millis(2500)));
        assert_eq!(seconds("10s"), Ok(Duration::from_secs(10)));
        for wrong in ["0", "-1", "NaN", "1e300", "ten", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}

//! What can a GPU do here, and how much of it does gst-comfy leave to the model?
//!
//! One program without GStreamer or a network, which can be carried to a machine with a GPU (`make gpu-pack`), runs
//! there and writes its figures as JSON; `report` turns them into a part of docs/PERFORMANCE.md. What fails is written
//! down in the words of whoever refused, and the rest goes on. Without a device it fails, unless it is a dry run.

mod allocations;
mod clock;
mod docs;
mod driver;
mod figures;
mod machine;
mod plot;
mod render;
mod schema;
mod sections;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use comfy_core::cuda::Device;

use schema::{Report, SCHEMA};
use sections::{Setting, noted};

/// Measures gst-comfy on a GPU, without GStreamer.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// Measures
    Run(Box<Args>),
    /// Says which GPU is there, and fails when there is none
    Device {
        /// GPU number
        #[arg(long, default_value_t = 0)]
        device: usize,
    },
    /// Writes a measurement into docs/PERFORMANCE.md; without one, that there is none
    Report {
        /// What `run` has written
        file: Option<PathBuf>,
        /// Folder of PERFORMANCE.md
        #[arg(long, default_value = "docs")]
        docs: PathBuf,
    },
    /// What `run` runs in a process of its own: a kernel may ruin it
    #[command(hide = true)]
    Contexts {
        #[arg(long, default_value_t = 0)]
        device: usize,
        #[arg(long)]
        dry_run: bool,
    },
}

const SECTIONS: [&str; 7] = ["oracle", "kernels", "copies", "busy", "models", "tensorrt", "contexts"];

#[derive(Debug, clap::Args)]
struct Args {
    /// Only these parts, by comma: oracle, kernels, copies, busy, models, tensorrt, contexts
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Folder of the models that scripts/gpu_models.py makes
    #[arg(long)]
    models: Option<PathBuf>,
    /// Folder of the sample models
    #[arg(long, default_value = "models")]
    samples: PathBuf,
    /// A compiled TensorRT engine for this kind of GPU
    #[arg(long)]
    engine: Option<PathBuf>,
    /// The ONNX file that the engine was made from
    #[arg(long, requires = "engine")]
    engine_model: Option<PathBuf>,
    /// A Python with torch and diffusers, for the figures of PyTorch
    #[arg(long)]
    python: Option<PathBuf>,
    /// Folder of gpu_torch.py
    #[arg(long, default_value = "scripts")]
    scripts: PathBuf,
    /// GPU number
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// Batch sizes, by comma
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8")]
    batches: Vec<usize>,
    /// Seconds of one row
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Passes of what is measured in turns
    #[arg(long, default_value_t = 5)]
    passes: usize,
    /// Where the figures go; out/gpu/GPU-DATE.json without it
    #[arg(long)]
    out: Option<PathBuf>,
    /// Everything on the processor, or a simulated device where that was built in, in tiny sizes: to see that it works.
    /// Such figures cannot be published
    #[arg(long)]
    dry_run: bool,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Subject::Run(args) => run(&args),
        Subject::Device { device } => {
            let device = Device::open(device)?;
            let (major, minor) = device.architecture();
            let (cuda, cuda_minor) = device.driver_version();
            println!(
                "{}, compute capability {major}.{minor}, driver for CUDA {cuda}.{cuda_minor}",
                device.name()
            );
            Ok(())
        }
        Subject::Report { file, docs } => docs::write(&docs, file.as_deref()),
        Subject::Contexts { device, dry_run } => {
            let (device, _) = device_of(device, dry_run)?;
            let device = device.context("there is no CUDA device")?;
            let made = sections::contexts::here(&device, dry_run)?;
            println!("{}", serde_json::to_string(&made)?);
            Ok(())
        }
    }
}

/// The device, and whether it is simulated. None: a dry run without one.
fn device_of(ordinal: usize, dry_run: bool) -> Result<(Option<Arc<Device>>, bool)> {
    if !dry_run {
        let device =
            Device::open(ordinal).context("nothing can be measured (--dry-run shows that the program works)")?;
        return Ok((Some(device), false));
    }
    #[cfg(any(test, feature = "sim"))]
    {
        let folder = std::env::temp_dir().join(format!("comfy-gpu-bench-sim-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let loaded = comfy_core::cuda::sim::load(&folder);
        std::fs::remove_dir_all(&folder)?;
        loaded.map_err(|reason| anyhow::anyhow!("the simulated driver: {reason}"))?;
        Ok((Some(Device::open(0)?), true))
    }
    #[cfg(not(any(test, feature = "sim")))]
    Ok((None, false))
}

fn run(args: &Args) -> Result<()> {
    ensure!(
        args.seconds > 0.0 && args.passes > 0,
        "--seconds and --passes: expected more than 0"
    );
    ensure!(
        !args.batches.is_empty() && args.batches.iter().all(|batch| (1..=64).contains(batch)),
        "--batches: expected 1 to 64, by comma"
    );
    if let Some(unknown) = args.only.iter().find(|only| !SECTIONS.contains(&only.as_str())) {
        bail!("--only {unknown}: there are {}", SECTIONS.join(", "));
    }
    let (device, simulated) = device_of(args.device, args.dry_run)?;
    let mut report = Report {
        schema: SCHEMA,
        dry_run: args.dry_run,
        invented: false,
        date: machine::today(),
        command: command(),
        machine: machine::machine(device.as_deref()),
        versions: machine::versions(device.as_deref()),
        oracle: None,
        models: None,
        tensorrt: None,
        kernels: None,
        copies: None,
        busy: None,
        contexts: None,
        failures: Vec::new(),
    };
    let out = args.out.clone().unwrap_or_else(|| {
        let name = if args.dry_run {
            "dry-run".into()
        } else {
            slug(report.machine.gpu.as_deref().unwrap_or("gpu"))
        };
        PathBuf::from(format!("out/gpu/{name}-{}.json", report.date))
    });
    let setting = Setting {
        device,
        dry_run: args.dry_run,
        simulated,
        models: args.models.clone(),
        samples: args.samples.clone(),
        python: args.python.clone(),
        scripts: args.scripts.clone(),
        engine: args.engine.clone(),
        engine_model: args.engine_model.clone(),
        batches: args.batches.clone(),
        seconds: args.seconds,
        passes: args.passes,
    };
    for part in SECTIONS {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == part) {
            continue;
        }
        eprintln!("== {part}");
        section(part, &setting, &mut report);
        // After each, so that what ends the process takes only its own part with it.
        write(&out, &report)?;
    }
    println!("{}", out.display());
    let missed = report.oracle.iter().flatten().filter(|row| !row.met).count();
    ensure!(
        missed == 0,
        "{missed} results are not within 0.01 of the processor's: see {}",
        out.display()
    );
    Ok(())
}

fn section(part: &str, setting: &Setting, report: &mut Report) {
    let mut failures = Vec::new();
    match part {
        "oracle" => {
            let made = sections::oracle::measure(setting, &mut failures);
            report.oracle = noted(&mut failures, part, made);
        }
        "kernels" => {
            let made = sections::kernels::measure(setting, &mut failures);
            report.kernels = noted(&mut failures, part, made);
        }
        "copies" => report.copies = noted(&mut failures, part, sections::copies::measure(setting)),
        "busy" => {
            let made = sections::busy::measure(setting, &mut failures);
            report.busy = noted(&mut failures, part, made);
        }
        "models" => {
            let made = sections::models::measure(setting, &mut failures);
            if let Some((models, torch)) = noted(&mut failures, part, made) {
                report.models = Some(models);
                report.versions.torch = torch;
            }
        }
        "tensorrt" => {
            let made = sections::tensorrt::measure(setting, &mut failures);
            report.tensorrt = noted(&mut failures, part, made);
        }
        _ => report.contexts = noted(&mut failures, part, sections::contexts::measure(setting)),
    }
    report.failures.append(&mut failures);
}

fn write(path: &Path, report: &Report) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    }
    std::fs::write(path, serde_json::to_string_pretty(report)? + "\n").with_context(|| format!("{}", path.display()))
}

/// As it was called, without the folders that are this machine's alone.
fn command() -> String {
    let short = |word: String| match word.rsplit_once('/') {
        Some((_, name)) if word.starts_with('/') => name.to_owned(),
        _ => word,
    };
    std::env::args().map(short).collect::<Vec<_>>().join(" ")
}

/// `NVIDIA H100 80GB HBM3` as `h100-80gb-hbm3`.
fn slug(name: &str) -> String {
    let words = name.to_lowercase();
    let words = words
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty() && *word != "nvidia");
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_after_the_gpu() {
        assert_eq!(slug("NVIDIA H100 80GB HBM3"), "h100-80gb-hbm3");
        assert_eq!(slug("NVIDIA GeForce RTX 4090"), "geforce-rtx-4090");
    }

    /// Everything but the models that take no picture, on the simulated device.
    #[test]
    fn a_dry_run_measures_every_part() {
        assert!(
            std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty()),
            "this test needs ONNX Runtime: run `make setup`, or set ORT_DYLIB_PATH to libonnxruntime.so"
        );
        let (device, simulated) = device_of(0, true).unwrap();
        assert!(simulated);
        let setting = Setting {
            device,
            dry_run: true,
            simulated,
            models: None,
            samples: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models"),
            python: None,
            scripts: PathBuf::new(),
            engine: None,
            engine_model: None,
            batches: vec![1, 2],
            seconds: 0.02,
            passes: 1,
        };
        let mut failures = Vec::new();
        let oracle = sections::oracle::measure(&setting, &mut failures).unwrap();
        assert!(oracle.len() >= 3 * 7 && oracle.iter().all(|row| row.met), "{oracle:?}");
        let kernels = sections::kernels::measure(&setting, &mut failures).unwrap();
        assert!(
            kernels.rows.iter().all(|row| row.us > 0.0 && row.goal_us.is_none()),
            "{kernels:?}"
        );
        let copies = sections::copies::measure(&setting).unwrap();
        assert!(copies.rows.iter().all(|row| row.us > 0.0), "{copies:?}");
        let busy = sections::busy::measure(&setting, &mut failures).unwrap();
        assert_eq!(busy.rows.len(), 2, "{failures:?}");
        assert!(
            busy.rows
                .iter()
                .all(|row| row.share > 0.0 && row.waits_per_batch > Some(0.0)),
            "{busy:?}"
        );
        assert_eq!(failures, []);
        let text = sections::tensorrt::measure(&setting, &mut failures)
            .unwrap_err()
            .to_string();
        assert!(text.contains("--engine"), "{text}");
        // Last, since it ruins the context.
        let device = setting.gpu().unwrap();
        let contexts = sections::contexts::here(device, true).unwrap();
        let (last, others) = contexts.rows.split_last().unwrap();
        assert!(others.iter().all(|row| row.right), "{contexts:?}");
        assert!(
            last.refused.as_deref().is_some_and(|reason| reason.contains("700")),
            "{last:?}"
        );
    }

    #[test]
    fn the_command_line_is_one() {
        use clap::CommandFactory as _;

        Cli::command().debug_assert();
    }
}

//! `comfystream engine build`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context, Result};
use clap::ValueEnum;
use comfy_core::engine::{self, Backend, Cancel, Error, LaneRequest, OpenRequest, Precision, Progress, Shapes, trt};
use indicatif::{ProgressBar, ProgressStyle};

/// What shells report of a program that was interrupted.
const INTERRUPTED: u8 = 130;

/// Compile a model with TensorRT, so that the next start finds it in the cache
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An .onnx file, with its manifest, if any, beside it as .toml
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Numbers of frames in one run: everything from the least to the most is compiled for, and the most is made fast
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,2,4",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    batch: Vec<u32>,
    /// Size of the frames; needed where the model takes any
    #[arg(long, value_name = "WxH", value_parser = size)]
    size: Option<(usize, usize)>,
    /// Numeric precision
    #[arg(long, value_enum, default_value_t)]
    precision: PrecisionArg,
    /// Folder for compiled engines; the user's cache when not given
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Number of the GPU
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: u32,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum PrecisionArg {
    #[default]
    Auto,
    Fp32,
    Fp16,
}

impl From<PrecisionArg> for Precision {
    fn from(arg: PrecisionArg) -> Self {
        match arg {
            PrecisionArg::Auto => Self::Auto,
            PrecisionArg::Fp32 => Self::Fp32,
            PrecisionArg::Fp16 => Self::Fp16,
        }
    }
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let side = |text: &str| text.parse().ok().filter(|n| (1..=32768).contains(n));
    let sides = text
        .split_once('x')
        .and_then(|(width, height)| Some((side(width)?, side(height)?)));
    sides.ok_or_else(|| "expected width and height, such as 1280x720".into())
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.to_owned()));
    let declared = image(&args.model);
    if args.size.is_none() && declared.as_ref().is_some_and(leaves_size_open) {
        anyhow::bail!(
            "{} takes frames of any size, and an engine is compiled for one: name it with --size, such as --size 1280x720",
            args.model.display()
        );
    }
    let batches: Vec<usize> = args.batch.iter().map(|n| *n as usize).collect();
    let request = OpenRequest {
        model: args.model.display().to_string(),
        backend: Backend::TensorRt,
        device: args.device,
        precision: args.precision.into(),
        cache: args.cache.clone(),
        shapes: Some(Shapes {
            size: args.size,
            batches: fitting(declared.as_ref(), batches),
        }),
        library: beside,
        ..OpenRequest::default()
    };
    let cancel = Cancel::default();
    on_interrupt(cancel.clone())?;
    let shown = Shown::new();
    let built = engine::open_with(&request, &|progress| shown.show(&progress), &cancel).and_then(|engine| {
        // Proves that it runs. A model of one size is given frames scaled to it, so that any will do.
        let (width, height) = args.size.unwrap_or((64, 64));
        let batch = engine.spec().batch.max();
        engine.lane(&LaneRequest { width, height, batch })?;
        Ok(engine)
    });
    shown.end();
    match built {
        Ok(engine) => {
            println!("{}", engine.spec().runtime.replace("; ", "\n"));
            Ok(ExitCode::SUCCESS)
        }
        Err(Error::Interrupted) => {
            eprintln!("stopped");
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(error) => Err(error.into()),
    }
}

/// The model's only input.
fn image(model: &Path) -> Option<trt::Tensor> {
    let mut inputs = trt::inspect(model).ok()?.io?.inputs;
    (inputs.len() == 1).then(|| inputs.remove(0))
}

/// Whether anything but the batch varies, which comes first where there is one.
fn leaves_size_open(image: &trt::Tensor) -> bool {
    let first = usize::from(image.shape.len() == 4);
    image.shape.iter().skip(first).any(|dim| dim.fixed().is_none())
}

/// The batches asked for, or the model's own where that never varies: they are a wish for those that do.
fn fitting(image: Option<&trt::Tensor>, batches: Vec<usize>) -> Vec<usize> {
    match image
        .filter(|image| image.shape.len() == 4)
        .and_then(|image| image.shape[0].fixed())
    {
        Some(always) => vec![always],
        None => batches,
    }
}

/// The first interrupt ends it at the next step; a second one ends the program.
fn on_interrupt(cancel: Cancel) -> Result<()> {
    ctrlc::set_handler(move || {
        if cancel.is_cancelled() {
            std::process::exit(INTERRUPTED.into());
        }
        eprintln!("stopping as soon as TensorRT lets it (again to end at once)");
        cancel.cancel();
    })
    .context("interrupts cannot be caught")
}

/// A bar on a terminal, lines elsewhere.
struct Shown {
    bar: Option<ProgressBar>,
    last: Mutex<String>,
}

impl Shown {
    fn new() -> Self {
        use std::io::IsTerminal as _;

        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(100));
        if let Some(bar) = &bar {
            let style = ProgressStyle::with_template("{bar:40.cyan/dim} {pos} % {msg}");
            bar.set_style(style.expect("a constant template"));
            bar.enable_steady_tick(std::time::Duration::from_millis(100));
        }
        Self {
            bar,
            last: Mutex::default(),
        }
    }

    fn show(&self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.set_position(progress.percent.into());
            bar.set_message(progress.what.clone());
            return;
        }
        // Seconds that pass are for those who watch; a log has a line per step.
        let step = progress.what.split(" for ").next().unwrap_or_default();
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *last != step {
            eprintln!("{}", progress.what);
            step.clone_into(&mut last);
        }
    }

    /// Takes the bar away, so that what is printed next stands alone.
    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_width_and_height() {
        assert_eq!(size("1280x720"), Ok((1280, 720)));
        for wrong in ["", "x", "1280", "0x720", "1280x", "1280x720x3", "-1x1", "99999x1"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}

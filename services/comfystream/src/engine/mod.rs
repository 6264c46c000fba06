//! `comfystream engine`: compiles models for the GPU of this machine, shows what a file is, and looks after the cache.

mod build;
mod cache;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use comfy_core::engine::trt;

/// Compile a model for this machine's GPU, show what a file is, list and remove what was compiled
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(build::Args),
    Inspect(Inspect),
    List(cache::ListArgs),
    Prune(cache::PruneArgs),
}

/// Show what a model or an engine takes and gives, and what it was compiled for
#[derive(Debug, clap::Args)]
struct Inspect {
    /// .onnx, .engine, .plan, or an engine that PyTorch saved
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the description to put beside an engine, FILE.json, instead of a table
    #[arg(long)]
    sidecar: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Build(args) => build::run(&args),
        Command::Inspect(args) => inspect(&args),
        Command::List(args) => cache::list(&args),
        Command::Prune(args) => cache::prune(&args),
    }
}

fn inspect(args: &Inspect) -> Result<ExitCode> {
    let found = trt::inspect(&args.file)?;
    match (args.sidecar, found.sidecar()) {
        (false, _) => print!("{}", found.text()),
        (true, Some(text)) => print!("{text}"),
        (true, None) => anyhow::bail!(
            "{}: what it takes is not known: `comfystream engine inspect {}` says what to write",
            args.file.display(),
            args.file.display()
        ),
    }
    Ok(ExitCode::SUCCESS)
}

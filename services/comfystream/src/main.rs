//! `comfystream`: runs a model on video.

mod bench;

use clap::Parser;

/// Runs a model on video.
#[derive(Debug, clap::Parser)]
#[command(version)]
enum Command {
    /// Measure a model on this machine: frames per second by batch size, beside the engine alone
    Bench(bench::Args),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Bench(args) => bench::run(args),
    }
}

//! `comfystream`: runs a model on video. `demo` shows what it does to a clip, `bench` how fast, `doctor` what this
//! machine has, `engine` looks after what is compiled for its GPU; `serve` does it to live video of browsers.

mod bench;
mod demo;
mod doctor;
mod engine;
mod libraries;
mod moments;
mod progress;
mod report;
mod selftest;
mod serve;
mod sheet;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs AI models on video streams, in batches, through GStreamer.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Args),
    Demo(demo::Args),
    Doctor(doctor::Args),
    Engine(engine::Args),
    Serve(Box<serve::Args>),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Bench(args) => bench::run(args).map(|()| ExitCode::SUCCESS),
        Command::Demo(args) => demo::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Engine(args) => engine::run(args),
        Command::Serve(args) => serve::run(*args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("comfystream: {error:#}");
        ExitCode::FAILURE
    })
}

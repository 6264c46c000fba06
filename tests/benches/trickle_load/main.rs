//! How fast is a trickle server, what does it cost, and how far is that from plain TCP on the same machine?
//!
//!     trickle_load                                    our own relay, everything
//!     trickle_load --url http://127.0.0.1:3389/ --pid 4711 --part fan,memory
//!     trickle_load soak --minutes 10                  does it stay as it was?
//!
//! Any server of the protocol can stand under the load, on this machine alone; `--pid` names its process, without which
//! its processor time and memory stay unknown. Publisher, readers and server share the cores, so that figures of
//! different machines cannot be compared; the floor, the same writes over plain TCP, is measured in turn with the server,
//! so that ratios to it can. Everything is bounded in time, and ends by itself.
#![allow(
    clippy::disallowed_methods,
    reason = "a measurement reads the system's clock, not a pipeline's"
)]

mod allocations;
mod clients;
mod elements;
mod fan;
mod http;
mod memory;
mod proc;
mod server;
mod soak;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

use fan::{Figures, Load, percentile};
use server::Server;

/// Puts a trickle server under load, and plain TCP beside it.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    under: Under,
    /// What to measure, by comma
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::ALL)]
    part: Vec<Part>,
    /// Readers of one publisher, by comma
    #[arg(long, value_delimiter = ',', default_value = "1,8,32,128", value_parser = clap::value_parser!(u64).range(1..=1000))]
    readers: Vec<u64>,
    /// Rounds of server and floor in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each paced load in each round; at full speed a third of it does
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Channels with full windows
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    channels: u64,
    /// Video for the elements; a test picture without it
    #[arg(long)]
    input: Option<String>,
    /// Where the figures go, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Who is measured.
#[derive(Debug, clap::Args)]
struct Under {
    /// Server under load, http://HOST:PORT/BASE/; without it trickle-relay is started
    #[arg(long)]
    url: Option<String>,
    /// Its process
    #[arg(long, requires = "url")]
    pid: Option<u32>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Publishes and subscribes for minutes, and looks whether memory and lag stay flat
    Soak(soak::Args),
    /// Serves, until it is killed
    #[command(hide = true)]
    Serve,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Latency at a pace, and throughput, beside plain TCP
    Fan,
    /// Memory of idle channels with full windows
    Memory,
    /// Allocations per chunk of our own server
    Allocations,
    /// Processor time of our own clients
    Clients,
    /// Latency and processor time of tricklesink and tricklesrc
    Elements,
}

impl Part {
    const ALL: [Self; 5] = [
        Self::Fan,
        Self::Memory,
        Self::Allocations,
        Self::Clients,
        Self::Elements,
    ];
}

/// A time that ends.
fn seconds(text: &str) -> Result<f64, String> {
    let bounded = |seconds: &f64| (0.2..=60.0).contains(seconds);
    let parsed = text.parse().ok().filter(bounded);
    parsed.ok_or_else(|| "expected 0.2 to 60".to_owned())
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.command {
        Some(Command::Serve) => server::serve().map(|()| true),
        Some(Command::Soak(args)) => soak::run(args),
        None => measure(&options).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("trickle_load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Under {
    fn server(&self) -> Result<Server> {
        match &self.url {
            Some(url) => Server::given(url, self.pid),
            None => Server::start(),
        }
    }
}

fn measure(options: &Options) -> Result<()> {
    let time = Duration::from_secs_f64(options.seconds);
    let mut report = json!({ "command": std::env::args().skip(1).collect::<Vec<_>>().join(" ") });
    for part in &options.part {
        match part {
            Part::Fan => fan(options, time, &mut report)?,
            Part::Memory => {
                let memory = memory::measure(&options.under.server()?, options.channels as usize)?;
                for step in memory["steps"].as_array().into_iter().flatten() {
                    let mib = step["bytes"].as_f64().unwrap_or(f64::NAN) / f64::from(1 << 20);
                    println!(
                        "memory  {:<44} {mib:7.1} MiB",
                        step["step"].as_str().unwrap_or_default()
                    );
                }
                println!(
                    "memory / payload: {:.3}, with everybody connected {:.3}",
                    number(&memory["full_by_payload"]),
                    number(&memory["connected_by_payload"])
                );
                report["memory"] = memory;
            }
            Part::Allocations => {
                let counted = allocations::measure()?;
                for line in counted.as_array().into_iter().flatten() {
                    println!(
                        "allocations  {:>3} readers  {:.3} per chunk, {:.0} bytes; {:.3} per delivery",
                        line["readers"],
                        number(&line["per_chunk"]),
                        number(&line["bytes_per_chunk"]),
                        number(&line["per_delivery"])
                    );
                }
                report["allocations"] = counted;
            }
            Part::Clients => {
                let server = options.under.server()?;
                let clients = clients::measure(&server.target, &name("clients"), 100)?;
                println!(
                    "clients  publisher {:.3} ms, subscriber {:.3} ms of processor time per segment of 30 writes; \
                     first byte {:.0} / {:.0} us",
                    number(&clients["publisher_ms_per_segment"]),
                    number(&clients["subscriber_ms_per_segment"]),
                    number(&clients["first_byte_us"]["p50"]),
                    number(&clients["first_byte_us"]["p99"])
                );
                report["clients"] = clients;
            }
            Part::Elements => {
                let server = options.under.server()?;
                let elements = elements::measure(&server, options.input.as_deref(), 8, 2)?;
                println!(
                    "elements  {} frames at {:.1} Mbit/s: added ms p50 {:.3}, p99 {:.3}, p99.9 {:.3}; \
                     processor {:.4} s per s in both elements, {:.4} in the server",
                    elements["frames"],
                    number(&elements["mbit_per_s"]),
                    number(&elements["added_ms"]["p50"]),
                    number(&elements["added_ms"]["p99"]),
                    number(&elements["added_ms"]["p999"]),
                    number(&elements["elements_cpu_s_per_s"]),
                    number(&elements["server_cpu_s_per_s"])
                );
                report["elements"] = elements;
            }
        }
    }
    if let Some(path) = &options.json {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// A channel's name that no other run has.
fn name(what: &str) -> String {
    format!("load-{}-{what}", std::process::id())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// Paced and at full speed, in rounds of server and floor.
fn fan(options: &Options, time: Duration, report: &mut Value) -> Result<()> {
    let server = options.under.server()?;
    let most = options.readers.iter().max().copied().unwrap_or(0);
    ensure!(
        proc::files() > 2 * most as usize + 64,
        "{most} readers need more open files; raise it with `ulimit -n`"
    );
    println!(
        "{:>7} {:>7} | {:>17} {:>17} {:>6} | {:>17} {:>9} | {:>9} {:>9} {:>6} | {:>9} {:>9} {:>9}",
        "",
        "readers",
        "first byte us",
        "floor",
        "ratio",
        "every write us",
        "cores",
        "MB/s",
        "floor",
        "ratio",
        "s per GB",
        "floor",
        "load's"
    );
    for (kind, load, time) in [
        ("paced", Load::paced as fn(usize, Duration) -> Load, time),
        ("full", Load::full_speed, time / 3),
    ] {
        for readers in options.readers.iter().map(|readers| *readers as usize) {
            let (mut relayed, mut floor) = (Vec::new(), Vec::new());
            for round in 0..options.rounds {
                let channel = name(&format!("{kind}-{readers}-{round}"));
                let load = load(readers, time);
                let context = || format!("{} under {kind}, {readers} readers", server.name);
                relayed.push(fan::relayed(&server.target, server.pid, &channel, load).with_context(context)?);
                let time = time * 2 / 5;
                floor.push(fan::floor(Load { time, ..load }).context("the floor")?);
            }
            let (ours, bare) = (middle(&relayed), middle(&floor));
            println!(
                "{kind:>7} {readers:>7} | {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>6.2} | {:>8.0} {:>8.0} {:>9.3} | {:>9.0} {:>9.0} {:>6.2} | {:>9.3} {:>9.3} {:>9.3}",
                percentile(&ours.first, 0.5),
                percentile(&ours.first, 0.99),
                percentile(&bare.first, 0.5),
                percentile(&bare.first, 0.99),
                percentile(&ours.first, 0.5) / percentile(&bare.first, 0.5),
                percentile(&ours.every, 0.5),
                percentile(&ours.every, 0.99),
                ours.cores.unwrap_or(f64::NAN),
                ours.rate,
                bare.rate,
                ours.rate / bare.rate,
                ours.server.unwrap_or(f64::NAN),
                bare.server.unwrap_or(f64::NAN),
                ours.load
            );
            let all = |of: &[Figures]| of.iter().map(Figures::json).collect::<Vec<_>>();
            report[kind][format!("readers_{readers}")] = json!({
                "server": ours.json(),
                "floor": bare.json(),
                "server_rounds": all(&relayed),
                "floor_rounds": all(&floor),
            });
        }
    }
    report["server"] = json!(server.name);
    Ok(())
}

/// The median of each figure; latencies of all rounds together.
fn middle(rounds: &[Figures]) -> Figures {
    let median = |of: &dyn Fn(&Figures) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
        (values[low] + values[high]) / 2.0
    };
    let some = |of: &dyn Fn(&Figures) -> Option<f64>| {
        let known = rounds.iter().all(|round| of(round).is_some());
        known.then(|| median(&|round| of(round).unwrap_or(f64::NAN)))
    };
    let all = |of: fn(&Figures) -> &[u64]| {
        let mut all: Vec<u64> = rounds.iter().flat_map(of).copied().collect();
        all.sort_unstable();
        all
    };
    Figures {
        first: all(|round| &round.first),
        every: all(|round| &round.every),
        rate: median(&|round| round.rate),
        server: some(&|round| round.server),
        load: median(&|round| round.load),
        cores: some(&|round| round.cores),
        segments: rounds.iter().map(|round| round.segments).sum(),
        lost: rounds.iter().map(|round| round.lost).sum(),
    }
}

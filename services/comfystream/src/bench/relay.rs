//! How fast is the relay beside plain TCP, what does it cost, and how does that compare with what is known of others?
//!
//! `trickle_load` is run as a program of its own, with `trickle-relay` as another: their processor times are apart. It
//! measures relay and plain TCP in turn. The reference's figures were measured on another day with the same loads, so they
//! are goals here and no comparison within one run.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::machine;
use super::plot;
use super::report::{self, Table, progress};

/// The reference server with so many readers: microseconds of a first byte at p50 and p99, paced; at full speed 10^6
/// bytes per second and processor seconds per 10^9 bytes. Medians of five runs on two cores, on another day.
const REFERENCE: [Reference; 3] = [
    Reference {
        readers: 1,
        first: [223.0, 728.0],
        rate: 946.0,
        cost: 1.065,
    },
    Reference {
        readers: 8,
        first: [312.0, 1945.0],
        rate: 2621.0,
        cost: 0.370,
    },
    Reference {
        readers: 32,
        first: [628.0, 2341.0],
        rate: 3111.0,
        cost: 0.279,
    },
];

struct Reference {
    readers: u64,
    first: [f64; 2],
    rate: f64,
    cost: f64,
}

const READERS: [u64; 4] = [1, 8, 32, 128];

fn program() -> Result<std::path::PathBuf> {
    let program = std::env::current_exe()?.with_file_name("trickle_load");
    ensure!(
        program.exists() && program.with_file_name("trickle-relay").exists(),
        "{} and trickle-relay are not there: run `cargo build --release --workspace`",
        program.display()
    );
    Ok(program)
}

/// The figure at a path of keys.
fn at(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

fn met(yes: bool) -> String {
    if yes { "yes" } else { "**no**" }.to_owned()
}

/// The part of `make bench`.
pub(super) fn measure(report: &mut Value, input: Option<&Path>, out: &Path, measurements: &Path) -> Result<()> {
    let file = out.join("relay.json");
    progress("one publisher to 1, 8, 32 and 128 readers; memory, allocations, clients, elements");
    let mut command = Command::new(program()?);
    command.arg("--json").arg(&file);
    if let Some(input) = input {
        command.arg("--input").arg(input);
    }
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "trickle_load failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    progress("");
    let found: Value = serde_json::from_slice(&std::fs::read(&file).context("trickle_load wrote nothing")?)?;
    let text = [paced(&found), full_speed(&found), rest(&found)].join("\n");
    report["tables"]["relay"] = json!(text);
    let labels: Vec<String> = READERS.iter().map(u64::to_string).collect();
    let both = |path: &str, figure: &str| {
        ["server", "floor"].map(|of| {
            let values = READERS.iter();
            values
                .map(|readers| at(&found, &format!("/{path}/readers_{readers}/{of}/{figure}")))
                .collect()
        })
    };
    let svg = plot::relay(
        &labels,
        both("paced", "first_byte_us/p50"),
        both("full", "mb_per_s"),
        &machine::line(report),
    );
    report::write(&measurements.join("relay.svg"), &svg)?;
    report["relay"] = found;
    Ok(())
}

fn paced(found: &Value) -> String {
    let mut table = Table::new(&[
        "readers",
        "first byte beside plain TCP, p50",
        "first byte, us: p50",
        "p99",
        "plain TCP: p50",
        "p99",
        "every write: p50",
        "p99",
        "cores of the relay",
        "reference, another day: p50",
        "p99",
        "below both",
    ]);
    for readers in READERS {
        let figure = |of: &str| at(found, &format!("/paced/readers_{readers}/{of}"));
        let first = [figure("server/first_byte_us/p50"), figure("server/first_byte_us/p99")];
        let known = REFERENCE.iter().find(|known| known.readers == readers);
        let mut line = vec![
            readers.to_string(),
            format!("{:.2}", first[0] / figure("floor/first_byte_us/p50")),
        ];
        line.extend(first.map(|value| format!("{value:.0}")));
        for of in [
            "floor/first_byte_us/p50",
            "floor/first_byte_us/p99",
            "server/every_write_us/p50",
            "server/every_write_us/p99",
        ] {
            line.push(format!("{:.0}", figure(of)));
        }
        line.push(format!("{:.3}", figure("server/server_cores")));
        match known {
            None => line.extend(["-", "-", "-"].map(str::to_owned)),
            Some(known) => {
                line.extend(known.first.map(|value| format!("{value:.0}")));
                line.push(met(first[0] < known.first[0] && first[1] < known.first[1]));
            }
        }
        table.line(line);
    }
    format!(
        "20 segments per second of 30 writes of 1,000 bytes, 1.5 ms apart\n\n{}",
        table.markdown()
    )
}

fn full_speed(found: &Value) -> String {
    let mut table = Table::new(&[
        "readers",
        "MB/s beside plain TCP",
        "beside the reference (goal 1.5)",
        "MB/s, all readers",
        "plain TCP",
        "reference, another day",
        "processor s per GB, beside the reference (goal 0.5)",
        "relay",
        "writer of plain TCP",
        "reference, another day",
    ]);
    for readers in READERS {
        let figure = |of: &str| at(found, &format!("/full/readers_{readers}/{of}"));
        let (rate, floor) = (figure("server/mb_per_s"), figure("floor/mb_per_s"));
        let (cost, floor_cost) = (
            figure("server/server_cpu_s_per_gb"),
            figure("floor/server_cpu_s_per_gb"),
        );
        let known = REFERENCE.iter().find(|known| known.readers == readers);
        let of = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        table.line([
            readers.to_string(),
            format!("{:.2}", rate / floor),
            of(known.map(|known| format!("{:.2}", rate / known.rate))),
            format!("{rate:.0}"),
            format!("{floor:.0}"),
            of(known.map(|known| format!("{:.0}", known.rate))),
            of(known.map(|known| format!("{:.2}", cost / known.cost))),
            format!("{cost:.3}"),
            format!("{floor_cost:.3}"),
            of(known.map(|known| format!("{:.3}", known.cost))),
        ]);
    }
    format!(
        "As fast as it goes, segments of 4 MiB in writes of 64 KiB\n\n{}",
        table.markdown()
    )
}

fn rest(found: &Value) -> String {
    let mut table = Table::new(&["what else", "measured", "goal", "met", "reference, another day"]);
    let mut line = |what: &str, value: f64, digits: usize, goal: Option<f64>, known: &str| {
        table.line([
            what.to_owned(),
            format!("{value:.digits$}"),
            goal.map_or("-".into(), |goal| format!("< {goal}")),
            goal.map_or("-".into(), |goal| met(value < goal)),
            known.to_owned(),
        ]);
    };
    let figure = |path: &str| at(found, path);
    let channels = figure("/memory/channels");
    line(
        &format!("memory beside payload, {channels} idle channels with full windows of 5 x 30 KB"),
        figure("/memory/full_by_payload"),
        3,
        Some(1.2),
        "-",
    );
    line(
        "the same with a publisher and a reader waiting in each",
        figure("/memory/connected_by_payload"),
        3,
        Some(1.2),
        "1.80",
    );
    for (index, readers) in [1, 8, 32].into_iter().enumerate() {
        line(
            &format!("allocations of the server per chunk of 1,000 bytes, {readers} readers"),
            figure(&format!("/allocations/{index}/per_chunk")),
            2,
            None,
            "-",
        );
    }
    line(
        "processor ms of our publisher per segment of 30 writes",
        figure("/clients/publisher_ms_per_segment"),
        3,
        Some(1.0),
        "7.8 (Python)",
    );
    line(
        "processor ms of our subscriber per segment of 30 writes",
        figure("/clients/subscriber_ms_per_segment"),
        3,
        Some(1.0),
        "5.7 (Python)",
    );
    line(
        "tricklesink to tricklesrc, 1080p30 H.264: ms added, p50",
        figure("/elements/added_ms/p50"),
        3,
        None,
        "-",
    );
    line("the same, p99", figure("/elements/added_ms/p99"), 3, Some(3.0), "-");
    line(
        "processor s per s of that stream, both elements",
        figure("/elements/elements_cpu_s_per_s"),
        4,
        None,
        "-",
    );
    line(
        "processor s per s of that stream, relay",
        figure("/elements/server_cpu_s_per_s"),
        4,
        None,
        "-",
    );
    table.markdown()
}

//! What does a frame cost in each element, and in the four together, beside `identity` and `queue`?
//!
//! `chain_cost` is run as a program of its own: twice under callgrind, for the instructions between two lengths, and
//! once by itself, for time and allocations in rounds after the first.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::machine;
use super::report::{Table, median, number, progress};

const SIZES: [usize; 5] = [1, 2, 4, 8, 16];
const ELEMENTS: [&str; 4] = ["comfyflightbuffer", "comfybatch", "comfyinfer", "comfyunbatch"];
const SHORT: u64 = 20_000;
const LONG: u64 = 40_000;
const ROUND: u64 = 100_000;
const ROUNDS: usize = 12;

/// One thing at one batch size.
#[derive(Debug, Clone)]
struct Case {
    what: &'static str,
    n: usize,
    instructions: Option<f64>,
    wall_ns: f64,
    wall_ns_median: f64,
    cpu_ns: f64,
    allocations: f64,
}

/// Where `cargo build --workspace` puts it: beside this program.
fn program() -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("chain_cost");
    ensure!(
        program.exists(),
        "{} is not there: run `cargo build --release --workspace`",
        program.display()
    );
    Ok(program)
}

fn instructions(what: &str, n: usize, frames: u64) -> Result<u64> {
    let file = std::env::temp_dir().join(format!("callgrind.{}.{what}.{n}.{frames}", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--callgrind-out-file={}", file.display())])
        .arg(program()?)
        .args([what, &n.to_string(), &frames.to_string()])
        .output()
        .context("valgrind cannot be started; it counts the instructions (Debian: valgrind)")?;
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let _ = std::fs::remove_file(&file);
    ensure!(
        output.status.success(),
        "chain_cost {what} {n} {frames} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.context("callgrind wrote no totals")?.trim().parse()?)
}

fn slope(what: &str, n: usize) -> Result<f64> {
    // What is left when the start is taken off. Lengths are rounded up to whole batches there, so here too.
    let (short, long) = (SHORT.next_multiple_of(n as u64), LONG.next_multiple_of(n as u64));
    let (a, b) = (instructions(what, n, short)?, instructions(what, n, long)?);
    Ok(b.saturating_sub(a) as f64 / (long - short) as f64)
}

fn timed(what: &'static str, n: usize) -> Result<Case> {
    // Each batch is handed over, so that small ones take as much longer.
    let small = !matches!(what, "rig" | "containers" | "identity" | "queue");
    let frames = if small { ROUND * n.min(8) as u64 / 8 } else { ROUND };
    let arguments = [what.to_owned(), n.to_string(), frames.to_string(), ROUNDS.to_string()];
    let output = Command::new(program()?).args(arguments).output()?;
    ensure!(
        output.status.success(),
        "chain_cost {what} {n} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let frames = report["frames"].as_f64().context("frames")?;
    let rounds = report["rounds"].as_array().context("rounds")?;
    let per_frame = |key: &str| -> Vec<f64> {
        rounds
            .iter()
            .filter_map(|round| Some(round[key].as_f64()? / frames))
            .collect()
    };
    let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    let wall = per_frame("wall_ns");
    Ok(Case {
        what,
        n,
        instructions: None,
        wall_ns: least(&wall),
        wall_ns_median: median(&wall),
        cpu_ns: least(&per_frame("cpu_ns")),
        // Queues may still grow in the first round.
        allocations: median(&per_frame("allocations")[1..]),
    })
}

fn object(case: &Case) -> Value {
    json!({
        "ns_per_frame": number(case.wall_ns),
        "ns_per_frame_median": number(case.wall_ns_median),
        "cpu_ns_per_frame": number(case.cpu_ns),
        "instructions_per_frame": case.instructions.map(number),
        "allocations_per_frame": number(case.allocations),
    })
}

/// The part of `make bench`.
pub(super) fn measure(report: &mut Value) -> Result<()> {
    let single = [("rig", 1), ("containers", 8), ("identity", 1), ("queue", 1)];
    let mut cases: Vec<(&'static str, usize)> = single.to_vec();
    for what in ELEMENTS.into_iter().chain(["together"]) {
        cases.extend(SIZES.map(|n| (what, n)));
    }
    let mut measured = Vec::with_capacity(cases.len());
    for (number, (what, n)) in cases.iter().enumerate() {
        progress(&format!("timing {} of {}: {what} {n}", number + 1, cases.len()));
        measured.push(timed(what, *n)?);
    }
    progress(&format!("counting instructions of {} cases", cases.len()));
    // Instructions do not depend on who else runs, so these share the cores.
    let counted = std::sync::Mutex::new((0, Ok(())));
    let slopes = std::sync::Mutex::new(vec![None; cases.len()]);
    std::thread::scope(|scope| {
        for _ in 0..machine::cores().min(4) {
            scope.spawn(|| {
                loop {
                    let index = {
                        let mut counted = counted.lock().expect("no panic");
                        if counted.0 == cases.len() || counted.1.is_err() {
                            return;
                        }
                        counted.0 += 1;
                        counted.0 - 1
                    };
                    match slope(cases[index].0, cases[index].1) {
                        Ok(slope) => slopes.lock().expect("no panic")[index] = Some(slope),
                        Err(error) => counted.lock().expect("no panic").1 = Err(error),
                    }
                }
            });
        }
    });
    counted.into_inner().expect("no panic").1?;
    for (case, slope) in measured.iter_mut().zip(slopes.into_inner().expect("no panic")) {
        case.instructions = slope;
    }
    progress("");

    let of = |what: &str, n: usize| {
        measured
            .iter()
            .find(|case| case.what == what && (case.n == n || n == 0))
    };
    for n in SIZES {
        report["chain"][format!("n{n}")] = of("together", n).map(object).into();
        for what in ELEMENTS {
            report["elements"][what][format!("n{n}")] = of(what, n).map(object).into();
        }
    }
    for (what, _) in single {
        report["elements"][what] = of(what, 0).map(object).into();
    }
    let mut table = Table::new(&[
        "per frame",
        "N",
        "beside `queue`, time",
        "ns on the clock, least",
        "median",
        "ns on the processors",
        "instructions",
        "allocations",
    ]);
    let queue = of("queue", 0).map_or(f64::NAN, |case| case.wall_ns);
    for case in &measured {
        let name = match case.what {
            "rig" => "nothing: the rig's own pads".to_owned(),
            "containers" => "nothing, with batches made and dropped".to_owned(),
            "together" => "**the four together**".to_owned(),
            what => format!("`{what}`"),
        };
        let n = if case.n == 1 && single.iter().any(|(what, _)| *what == case.what) {
            "-".to_owned()
        } else {
            case.n.to_string()
        };
        table.line([
            name,
            n,
            format!("{:.2}", case.wall_ns / queue),
            format!("{:.0}", case.wall_ns),
            format!("{:.0}", case.wall_ns_median),
            format!("{:.0}", case.cpu_ns),
            case.instructions.map_or("?".into(), |count| format!("{count:.0}")),
            format!("{:.4}", case.allocations),
        ]);
    }
    report["tables"]["cost"] = json!(table.markdown());
    Ok(())
}

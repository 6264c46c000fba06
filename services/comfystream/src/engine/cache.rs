//! `comfystream engine list` and `prune`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use comfy_core::engine::trt::{Cache, Entry, Kind, Prune};
use indicatif::HumanBytes;

/// List what was compiled: size, age, model, and what it was compiled for
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Folder of compiled engines; the user's cache when not given
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Remove what was compiled, and say what was removed
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["older_than", "keep", "all"])))]
pub(super) struct PruneArgs {
    /// Folder of compiled engines; the user's cache when not given
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// What is older: 30d, 12h, 90m, 45s
    #[arg(long, value_name = "TIME", value_parser = age)]
    older_than: Option<Duration>,
    /// All but this many newest; with --older-than, these stay however old they are
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Everything, what TensorRT learnt about kernels with it
    #[arg(long, conflicts_with_all = ["older_than", "keep"])]
    all: bool,
    /// Say what would go, and let it stay
    #[arg(long)]
    dry_run: bool,
}

fn age(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number with d, h, m or s, such as 30d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "d" => 24 * 3600,
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[expect(
    clippy::disallowed_methods,
    reason = "ages are told by the wall clock, as files are stamped by it"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

pub(super) fn list(args: &ListArgs) -> Result<ExitCode> {
    let cache = Cache::at(args.cache.as_deref())?;
    let entries = cache.list(now())?;
    if args.json {
        let all: Vec<serde_json::Value> = entries.iter().map(json).collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        print!("{}", table(&entries, &cache));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn prune(args: &PruneArgs) -> Result<ExitCode> {
    let cache = Cache::at(args.cache.as_deref())?;
    let what = Prune {
        older_than: args.older_than,
        keep: args.keep.unwrap_or(0),
        timing: args.all,
        dry_run: args.dry_run,
    };
    let gone = cache.prune(&what, now())?;
    let verb = if args.dry_run { "would remove" } else { "removed" };
    for entry in &gone {
        println!("{verb} {} ({})", entry.path.display(), HumanBytes(entry.bytes));
    }
    println!("{}", total(verb, &gone));
    Ok(ExitCode::SUCCESS)
}

fn total(verb: &str, entries: &[Entry]) -> String {
    let bytes = entries.iter().map(|entry| entry.bytes).sum();
    let count = entries.len();
    let many = if count == 1 { "entry" } else { "entries" };
    format!("{verb} {count} {many}, {}", HumanBytes(bytes))
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Engine => "engine",
        Kind::Wrapper => "wrapper",
        Kind::Timing => "timing",
    }
}

fn json(entry: &Entry) -> serde_json::Value {
    let parts: serde_json::Map<String, serde_json::Value> = entry
        .parts
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
        .collect();
    serde_json::json!({
        "kind": kind(entry.kind),
        "path": entry.path,
        "model": entry.model,
        "bytes": entry.bytes,
        "age_seconds": entry.age.as_secs(),
        "build_seconds": entry.build_seconds,
        "key": parts,
    })
}

/// `3 d`, in the largest unit that is not below one.
fn since(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        86400.. => format!("{} d", seconds / 86400),
        3600.. => format!("{} h", seconds / 3600),
        60.. => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

fn table(entries: &[Entry], cache: &Cache) -> String {
    if entries.is_empty() {
        return format!("nothing is compiled in {}\n", cache.engines().display());
    }
    let mut text = format!("{:<8} {:>10} {:>7}  {}\n", "KIND", "SIZE", "AGE", "MODEL");
    for entry in entries {
        let (size, age) = (HumanBytes(entry.bytes).to_string(), since(entry.age));
        let line = format!("{:<8} {size:>10} {age:>7}  {}", kind(entry.kind), entry.model);
        text.push_str(line.trim_end());
        text.push('\n');
        let mut facts: Vec<String> = entry
            .parts
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| {
                // As much of a hash as people compare.
                let value = if *name == "model" {
                    value.get(..12).unwrap_or(value)
                } else {
                    value
                };
                format!("{name} {value}")
            })
            .collect();
        facts.extend(entry.build_seconds.map(|seconds| format!("compiled in {seconds:.0} s")));
        for line in [entry.path.display().to_string(), facts.join(", ")] {
            if !line.is_empty() {
                text.push_str(&format!("{:<8} {:>10} {:>7}  {line}\n", "", "", ""));
            }
        }
    }
    text + &total("there are", entries) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit() {
        for (text, seconds) in [
            ("30d", 30 * 86400),
            ("12h", 43200),
            ("90m", 5400),
            ("45s", 45),
            ("0s", 0),
        ] {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)));
        }
        for wrong in ["", "30", "d", "-1d", "1.5h", "1w", "99999999999999999999d", "ü"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ages_are_told_in_one_unit() {
        for (seconds, text) in [(59, "59 s"), (60, "1 min"), (7199, "1 h"), (86400 * 40, "40 d")] {
            assert_eq!(since(Duration::from_secs(seconds)), text);
        }
    }
}

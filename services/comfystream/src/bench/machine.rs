//! What was measured on, and with which versions? Figures of different machines are never compared.

use std::process::Command;

use serde_json::{Value, json};

fn file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value of `key : value` in a file of such lines.
fn line_of(path: &str, key: &str) -> Option<String> {
    let text = file(path);
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Cores this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Processes that ran or wanted to, on average over the last minute.
pub(super) fn load() -> Option<f64> {
    file("/proc/loadavg").split(' ').next()?.parse().ok()
}

/// The machine.
pub(super) fn machine() -> Value {
    let memory = line_of("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    json!({
        "cpu": line_of("/proc/cpuinfo", "model name"),
        "cores": cores(),
        "memory_gib": memory.map(|kib| (kib as f64 / 1024.0 / 1024.0).round() as u64),
        "virtual": line_of("/proc/cpuinfo", "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        "kernel": file("/proc/sys/kernel/osrelease").trim(),
    })
}

/// Versions of what decides a figure.
pub(super) fn versions() -> Value {
    let commit = said("git", &["rev-parse", "--short=12", "HEAD"]);
    let changed = said(
        "git",
        &[
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--",
            "*.rs",
            "*.toml",
            "*.lock",
        ],
    );
    json!({
        "gst_comfy": env!("CARGO_PKG_VERSION"),
        "commit": commit.map(|commit| if changed.is_some() { format!("{commit} and changes") } else { commit }),
        "gstreamer": gst::version_string().trim_start_matches("GStreamer "),
        "rustc": said("rustc", &["--version"]),
        "valgrind": said("valgrind", &["--version"]),
    })
}

/// Machine and versions in one line.
pub(super) fn line(report: &Value) -> String {
    let (machine, versions) = (&report["machine"], &report["versions"]);
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!(
        "{}, {} cores{}, {} GiB; GStreamer {}; {}; commit {}",
        text(&machine["cpu"]),
        machine["cores"],
        if machine["virtual"] == json!(true) {
            " of a virtual machine"
        } else {
            ""
        },
        machine["memory_gib"],
        text(&versions["gstreamer"]),
        versions["rustc"]
            .as_str()
            .unwrap_or("rustc ?")
            .split(" (")
            .next()
            .unwrap_or_default(),
        text(&versions["commit"]),
    )
}

//! What was measured on, and with which versions? Figures of different machines are never compared.

use std::process::Command;

use comfy_core::cuda::Device;

use crate::schema::{Machine, Versions};

fn file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value of `key : value` in a file of such lines.
fn line_of(path: &str, key: &str) -> Option<String> {
    let text = file(path);
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

pub(crate) fn machine(device: Option<&Device>) -> Machine {
    let memory = line_of("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let gib = |bytes: usize| (bytes as f64 / f64::from(1 << 30) * 10.0).round() / 10.0;
    Machine {
        gpu: device.map(|device| device.name().to_owned()),
        architecture: device.map(|device| {
            let (major, minor) = device.architecture();
            format!("{major}.{minor}")
        }),
        gpu_memory_gib: device.and_then(|device| device.total_memory().ok()).map(gib),
        cpu: line_of("/proc/cpuinfo", "model name"),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_gib: memory.map(|kib| (kib as f64 / 1024.0 / 1024.0).round() as u64),
        kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_before: file("/proc/loadavg")
            .split(' ')
            .next()
            .and_then(|text| text.parse().ok()),
    }
}

pub(crate) fn versions(device: Option<&Device>) -> Versions {
    let driver = file("/proc/driver/nvidia/version");
    Versions {
        gst_comfy: env!("CARGO_PKG_VERSION").into(),
        commit: commit(),
        driver_cuda: device.map(|device| {
            let (major, minor) = device.driver_version();
            format!("{major}.{minor}")
        }),
        driver: driver_version(&driver),
        onnxruntime: comfy_core::engine::ort::found(None).ok().map(|found| found.version),
        torch: None,
    }
}

/// `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build ...`
fn driver_version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    let number = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(number).map(str::to_owned)
}

/// What the program was built from: where it runs there may be no repository.
fn commit() -> Option<String> {
    if let Some(commit) = option_env!("COMFY_COMMIT") {
        return Some(commit.to_owned());
    }
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Today, in UTC: `2026-11-21`.
#[allow(clippy::disallowed_methods, reason = "the date on a report is the system's")]
pub(crate) fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    day(since.map_or(0, |time| time.as_secs() / 86400))
}

/// The date so many days after 1970-01-01.
fn day(mut days: u64) -> String {
    let leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(19_782), "2024-02-29");
        assert_eq!(day(20_088), "2024-12-31");
        assert_eq!(day(20_778), "2026-11-21");
    }

    #[test]
    fn the_driver_is_known_by_its_number() {
        let text =
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (a@b)\nGCC version:";
        assert_eq!(driver_version(text).as_deref(), Some("580.65.06"));
        assert_eq!(driver_version(""), None);
    }
}

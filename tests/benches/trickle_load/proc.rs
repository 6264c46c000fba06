//! What the system knows of a process: processor time, memory, files.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks per second in `/proc/PID/stat`, the same on every Linux that is in use.
const TICKS: f64 = 100.0;

/// Processor time that a process has used, its threads that have ended included.
pub(crate) fn processor_time(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read; is the process there?"))?;
    // The name may hold anything, also a parenthesis.
    let (_, rest) = text.rsplit_once(')').context("a name in parentheses")?;
    let fields: Vec<f64> = rest
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    let (user, system) = (fields.get(11), fields.get(12));
    Ok((user.context("user time")? + system.context("system time")?) / TICKS)
}

/// Processor time that the thread that asks has used.
pub(crate) fn own_thread_time() -> Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().and_then(|field| field.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.context("a number")?))
}

/// Bytes of memory that a process holds.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read; is the process there?"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("VmRSS")? * 1024)
}

/// Files that this process may have open.
pub(crate) fn files() -> usize {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(usize::MAX)
}

//! How long does a call take? By the device's clock where there is one, else by the host's.
#![allow(
    clippy::disallowed_methods,
    reason = "a measurement reads the system's clock, not a pipeline's"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use comfy_core::cuda::{Event, Stream};

/// Calls between two waits, as far as the device's queue goes: the host stays ahead, as it does in use.
const GROUP: usize = 8;

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Until clocks, algorithms and graphs settle.
    pub(crate) warm: Duration,
    pub(crate) time: Duration,
    pub(crate) least_calls: usize,
}

/// Marks on a stream, or the host's clock.
pub(crate) enum Clock {
    Host,
    Device { stream: Arc<Stream>, marks: Vec<Event> },
}

impl Clock {
    pub(crate) fn on(stream: Option<&Arc<Stream>>) -> Result<Self> {
        let Some(stream) = stream else { return Ok(Clock::Host) };
        let marks: Result<Vec<_>, _> = (0..=GROUP).map(|_| Event::with_timing(stream.device())).collect();
        Ok(Clock::Device {
            stream: stream.clone(),
            marks: marks?,
        })
    }

    /// Milliseconds of each call, after a warm-up.
    pub(crate) fn each(&self, plan: &Plan, call: &mut dyn FnMut() -> Result<()>) -> Result<Vec<f64>> {
        self.until(plan.warm, 1, call)?;
        self.until(plan.time, plan.least_calls, call)
    }

    fn until(&self, time: Duration, least: usize, call: &mut dyn FnMut() -> Result<()>) -> Result<Vec<f64>> {
        let begin = Instant::now();
        let mut times = Vec::new();
        while times.len() < least || begin.elapsed() < time {
            match self {
                Clock::Host => {
                    let before = Instant::now();
                    call()?;
                    times.push(before.elapsed().as_secs_f64() * 1e3);
                }
                Clock::Device { stream, marks } => {
                    stream.record(&marks[0])?;
                    for mark in &marks[1..] {
                        call()?;
                        stream.record(mark)?;
                    }
                    marks[GROUP].synchronize()?;
                    for pair in marks.windows(2) {
                        times.push(pair[1].elapsed_since(&pair[0])?.as_secs_f64() * 1e3);
                    }
                }
            }
        }
        Ok(times)
    }

    /// Microseconds of one of `count` calls in a row, between two marks: the median of several rows.
    pub(crate) fn row(&self, count: usize, call: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        const ROWS: usize = 9;
        let mut rows = Vec::new();
        // The first one warms up.
        for _ in 0..=ROWS {
            let time = match self {
                Clock::Host => {
                    let before = Instant::now();
                    for _ in 0..count {
                        call()?;
                    }
                    before.elapsed()
                }
                Clock::Device { stream, marks } => {
                    stream.record(&marks[0])?;
                    for _ in 0..count {
                        call()?;
                    }
                    stream.record(&marks[1])?;
                    marks[1].synchronize()?;
                    marks[1].elapsed_since(&marks[0])?
                }
            };
            rows.push(time.as_secs_f64() * 1e6 / count as f64);
        }
        let mut rows = rows.split_off(1);
        rows.sort_by(f64::total_cmp);
        Ok(rows[ROWS / 2])
    }
}

/// Microseconds on the host's clock, each call by itself: the median.
pub(crate) fn host(count: usize, call: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    let plan = Plan {
        warm: Duration::ZERO,
        time: Duration::ZERO,
        least_calls: count,
    };
    let mut times = Clock::Host.each(&plan, call)?;
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2] * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_and_failures_end_the_measurement() {
        let mut calls = 0;
        let plan = Plan {
            warm: Duration::ZERO,
            time: Duration::ZERO,
            least_calls: 5,
        };
        let times = Clock::Host.each(&plan, &mut || {
            calls += 1;
            Ok(())
        });
        assert_eq!((times.unwrap().len(), calls), (5, 6));
        assert!(Clock::Host.each(&plan, &mut || anyhow::bail!("no")).is_err());
        assert!(Clock::Host.row(3, &mut || Ok(())).unwrap() >= 0.0);
    }
}

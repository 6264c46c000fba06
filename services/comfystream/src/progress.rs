//! How far a run is: a bar on a terminal, lines elsewhere.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::Mutex;

use comfy_pipelines::process::Happening;
use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

/// Per cent between two lines.
const STEP: u64 = 10;
/// Frames between two lines when nobody knows how many there will be.
const FRAMES: u64 = 250;

/// Shows what happens.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    started: Option<gst::ClockTime>,
    next: u64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.set_style(spinner());
            bar.enable_steady_tick(std::time::Duration::from_millis(100));
        }
        Self {
            bar,
            lines: Mutex::default(),
        }
    }

    pub(crate) fn show(&self, happening: Happening) {
        match &self.bar {
            Some(bar) => draw(bar, happening),
            None => self.tell(happening),
        }
    }

    /// Takes the bar away, so that what is printed next stands alone.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn tell(&self, happening: Happening) {
        match happening {
            Happening::Loading(text) | Happening::Loaded(text) => eprintln!("{text}"),
            Happening::Finishing => eprintln!("finishing the file"),
            Happening::Warning(text) => eprintln!("warning: {text}"),
            Happening::Frames { done, of } => {
                if let Some(line) = self.line(done, of) {
                    eprintln!("{line}");
                }
            }
        }
    }

    fn line(&self, done: u64, of: Option<u64>) -> Option<String> {
        let mut lines = self.lines.lock().ok()?;
        let now = gst::get_timestamp();
        let started = *lines.started.get_or_insert(now);
        let reached = of.map_or(done / FRAMES, |of| done * 100 / of.max(1) / STEP);
        if reached <= lines.next {
            return None;
        }
        lines.next = reached;
        let seconds = (now.saturating_sub(started).nseconds() as f64 / 1e9).max(1e-9);
        // The first frame started the clock.
        let rate = (done - 1) as f64 / seconds;
        Some(match of {
            Some(of) => {
                let left = std::time::Duration::from_secs_f64((of.saturating_sub(done) as f64 / rate.max(1e-3)).ceil());
                format!(
                    "{done} of {of} frames ({} %), {rate:.1} frames/s, {} left",
                    (done * 100 / of).min(100),
                    HumanDuration(left)
                )
            }
            None => format!("{done} frames, {rate:.1} frames/s"),
        })
    }
}

fn draw(bar: &ProgressBar, happening: Happening) {
    match happening {
        Happening::Loading(text) => bar.set_message(text),
        Happening::Loaded(_) => bar.set_message("waiting for frames"),
        Happening::Finishing => bar.set_message("finishing the file"),
        Happening::Warning(text) => bar.println(format!("warning: {text}")),
        Happening::Frames { done, of } => {
            if let Some(of) = of {
                // An estimate from the duration may be short by a frame.
                bar.set_length(of.max(done));
            }
            if done == 1 {
                bar.set_message("");
                bar.reset_elapsed();
                bar.reset_eta();
                bar.set_style(of.map_or_else(spinner, |_| frames()));
            }
            bar.set_position(done);
        }
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {pos} frames {msg}").expect("a constant template")
}

fn frames() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40.cyan/dim} {pos}/{len} frames, {rate}, {eta} left {msg}")
        .expect("a constant template")
        .with_key("rate", |state: &ProgressState, to: &mut dyn Write| {
            // A terminal that cannot be written to shows nothing either way.
            let _ = write!(to, "{:.1} frames/s", state.per_sec());
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_at_every_tenth() {
        gst::init().unwrap();
        let progress = Progress {
            bar: None,
            lines: Mutex::default(),
        };
        let lines: Vec<String> = (1..=300).filter_map(|done| progress.line(done, Some(300))).collect();
        assert_eq!(lines.len(), 10);
        assert!(lines[0].starts_with("30 of 300 frames (10 %), "), "{}", lines[0]);
        assert!(lines[9].starts_with("300 of 300 frames (100 %), "), "{}", lines[9]);
    }

    #[test]
    fn lines_come_without_a_known_length_too() {
        gst::init().unwrap();
        let progress = Progress {
            bar: None,
            lines: Mutex::default(),
        };
        assert_eq!((1..=1000).filter_map(|done| progress.line(done, None)).count(), 4);
    }
}

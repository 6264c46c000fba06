//! How busy the service keeps the processor, and whether one more session fits.

use std::time::Duration;

/// Share of the processor above which no session is added.
const FULL: f64 = 0.85;
/// Weight of the newest second: about three seconds count.
const WEIGHT: f64 = 0.4;
/// Ticks of /proc per second; the same on every Linux that we build for.
const TICKS: f64 = 100.0;

/// Share of the processor that this process used of late.
#[derive(Debug, Default)]
pub(crate) struct Load {
    last: Option<(Duration, u64)>,
    share: Option<f64>,
}

impl Load {
    /// Ticks used so far, at a time.
    pub(crate) fn sample(&mut self, now: Duration, ticks: u64, cores: usize) {
        if let Some((then, before)) = self.last {
            let seconds = now.saturating_sub(then).as_secs_f64() * cores as f64;
            if seconds < 0.1 {
                return;
            }
            let share = ticks.saturating_sub(before) as f64 / TICKS / seconds;
            let old = self.share.unwrap_or(share);
            self.share = Some(old + WEIGHT * (share - old));
        }
        self.last = Some((now, ticks));
    }

    /// 0 to 1; 0 while nothing is known.
    pub(crate) fn share(&self) -> f64 {
        self.share.unwrap_or(0.0)
    }

    /// Whether frames would be late if there were more of them.
    pub(crate) fn is_full(&self) -> bool {
        self.share() > FULL
    }
}

/// Ticks of user and system time, of /proc/self/stat.
pub(crate) fn ticks() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

fn parse(stat: &str) -> Option<u64> {
    // The program's name stands in brackets, and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut field = || fields.next()?.parse::<u64>().ok();
    Some(field()? + field()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_the_processor_is_read_past_any_name() {
        let stat = "42 (a) b) S 1 1 1 0 -1 4194304 1 0 0 0 700 50 9 9 20 0 1 0 1 1 1";
        assert_eq!(parse(stat), Some(750));
        assert_eq!(parse("nothing"), None);
        assert!(ticks().is_some());
    }

    #[test]
    fn load_follows_within_seconds() {
        let mut load = Load::default();
        assert!(!load.is_full(), "nothing is known");
        let mut ticks = 0;
        let mut run = |load: &mut Load, seconds: std::ops::Range<u64>, each| {
            for second in seconds {
                ticks += each;
                load.sample(Duration::from_secs(second), ticks, 2);
            }
        };
        run(&mut load, 0..20, 200);
        assert!(load.is_full() && load.share() <= 1.0, "{}", load.share());
        run(&mut load, 20..25, 100);
        assert!(!load.is_full(), "{}", load.share());
    }

    #[test]
    fn samples_too_close_say_nothing() {
        let mut load = Load::default();
        load.sample(Duration::from_secs(1), 0, 1);
        load.sample(Duration::from_millis(1001), 1, 1);
        assert_eq!(load.share(), 0.0);
    }
}

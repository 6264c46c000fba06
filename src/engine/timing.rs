//! How long a batch takes, for a LATENCY answer: never below what is measured, and not much above.

use std::time::Duration;

/// Batches that an answer stands on.
const WINDOW: usize = 512;
/// A new answer is told at most this often, because the whole pipeline is re-timed by it.
const PAUSE: Duration = Duration::from_secs(1);

/// Learns the longest turnaround of recent batches.
///
/// The answer is the longest of the window with 5 % head room. It grows as soon as a batch takes longer than it says,
/// and falls only when a whole window stays below three quarters of it: a new answer costs every sink a new timing.
#[derive(Debug, Clone)]
pub struct Turnaround {
    answer: Duration,
    longest: Duration,
    batches: usize,
    told: Option<Duration>,
    untold: bool,
}

impl Default for Turnaround {
    fn default() -> Self {
        Self {
            answer: Duration::ZERO,
            longest: Duration::ZERO,
            batches: 0,
            told: None,
            untold: false,
        }
    }
}

fn with_head_room(time: Duration) -> Duration {
    time + time / 20
}

impl Turnaround {
    /// Before any batch: a timed run. Conversions are not in it, so the first batch may correct it.
    pub fn expect(&mut self, run: Duration) {
        self.answer = self.answer.max(with_head_room(run));
    }

    /// A batch took this long, at `now`. True when the new answer is to be told.
    #[must_use]
    pub fn measured(&mut self, now: Duration, turnaround: Duration) -> bool {
        self.longest = self.longest.max(turnaround);
        self.batches += 1;
        if turnaround > self.answer {
            self.answer = with_head_room(turnaround);
            self.untold = true;
        }
        if self.batches == WINDOW {
            let low = with_head_room(self.longest);
            if low < self.answer * 3 / 4 {
                self.answer = low;
                self.untold = true;
            }
            (self.batches, self.longest) = (0, Duration::ZERO);
        }
        let may_tell = self.told.is_none_or(|told| now.saturating_sub(told) >= PAUSE);
        if self.untold && may_tell {
            (self.untold, self.told) = (false, Some(now));
            return true;
        }
        false
    }

    /// What a batch takes at most, as far as is known.
    pub fn answer(&self) -> Duration {
        self.answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn longer_batch_raises_the_answer_at_once() {
        let mut turnaround = Turnaround::default();
        turnaround.expect(ms(20));
        assert_eq!(turnaround.answer(), ms(21));
        assert!(!turnaround.measured(ms(0), ms(20)));
        assert!(turnaround.measured(ms(10), ms(40)));
        assert_eq!(turnaround.answer(), ms(42));
    }

    #[test]
    fn answers_are_told_once_a_second_and_never_forgotten() {
        let mut turnaround = Turnaround::default();
        assert!(turnaround.measured(ms(0), ms(20)));
        assert!(!turnaround.measured(ms(100), ms(40)), "told a moment ago");
        assert!(!turnaround.measured(ms(900), ms(20)));
        assert!(
            turnaround.measured(ms(1000), ms(20)),
            "the growth of 100 ms is still to be told"
        );
        assert!(!turnaround.measured(ms(3000), ms(20)), "nothing new");
    }

    #[test]
    fn answer_falls_after_a_quiet_window_only() {
        let mut turnaround = Turnaround::default();
        let _ = turnaround.measured(ms(0), ms(100));
        let told: Vec<u64> = (1..2 * WINDOW as u64)
            .filter(|i| turnaround.measured(ms(5 * i), ms(10)))
            .collect();
        assert_eq!(told, [2 * WINDOW as u64 - 1], "the first window holds the stall");
        assert_eq!(turnaround.answer(), Duration::from_micros(10_500));
    }

    #[test]
    fn small_changes_are_not_worth_a_new_timing() {
        let mut turnaround = Turnaround::default();
        let _ = turnaround.measured(ms(0), ms(100));
        assert!((1..4 * WINDOW as u64).all(|i| !turnaround.measured(ms(50 * i), ms(90))));
        assert_eq!(turnaround.answer(), ms(105));
    }
}

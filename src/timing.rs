//! How long something takes, for a LATENCY answer: never below what is measured, and not much above.

use std::time::Duration;

/// Batches that an answer stands on.
const WINDOW: usize = 512;
/// A new answer is told at most this often, because the whole pipeline is re-timed by it.
const PAUSE: Duration = Duration::from_secs(1);

/// Learns the longest time that recent batches took.
///
/// The answer is the longest of the window with 5 % head room. It grows as soon as a batch takes longer than it says,
/// and falls only when a whole window stays below three quarters of it: a new answer costs every sink a new timing.
#[derive(Debug, Clone, Default)]
pub struct Longest {
    answer: Duration,
    seen: Duration,
    batches: usize,
    told: Option<Duration>,
    untold: bool,
}

fn with_head_room(time: Duration) -> Duration {
    time + time / 20
}

impl Longest {
    /// Before any batch: a timed run. Conversions are not in it, so the first batch may correct it.
    pub fn expect(&mut self, run: Duration) {
        self.answer = self.answer.max(with_head_room(run));
    }

    /// A batch took this long, at `now`. True when the new answer is to be told.
    #[must_use]
    pub fn measured(&mut self, now: Duration, took: Duration) -> bool {
        self.seen = self.seen.max(took);
        self.batches += 1;
        if took > self.answer {
            self.answer = with_head_room(took);
            self.untold = true;
        }
        if self.batches == WINDOW {
            let low = with_head_room(self.seen);
            if low < self.answer * 3 / 4 {
                self.answer = low;
                self.untold = true;
            }
            (self.batches, self.seen) = (0, Duration::ZERO);
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
        let mut longest = Longest::default();
        longest.expect(ms(20));
        assert_eq!(longest.answer(), ms(21));
        assert!(!longest.measured(ms(0), ms(20)));
        assert!(longest.measured(ms(10), ms(40)));
        assert_eq!(longest.answer(), ms(42));
    }

    #[test]
    fn answers_are_told_once_a_second_and_never_forgotten() {
        let mut longest = Longest::default();
        assert!(longest.measured(ms(0), ms(20)));
        assert!(!longest.measured(ms(100), ms(40)), "told a moment ago");
        assert!(!longest.measured(ms(900), ms(20)));
        assert!(
            longest.measured(ms(1000), ms(20)),
            "the growth of 100 ms is still to be told"
        );
        assert!(!longest.measured(ms(3000), ms(20)), "nothing new");
    }

    #[test]
    fn answer_falls_after_a_quiet_window_only() {
        let mut longest = Longest::default();
        let _ = longest.measured(ms(0), ms(100));
        let told: Vec<u64> = (1..2 * WINDOW as u64)
            .filter(|i| longest.measured(ms(5 * i), ms(10)))
            .collect();
        assert_eq!(told, [2 * WINDOW as u64 - 1], "the first window holds the stall");
        assert_eq!(longest.answer(), Duration::from_micros(10_500));
    }

    #[test]
    fn small_changes_are_not_worth_a_new_timing() {
        let mut longest = Longest::default();
        let _ = longest.measured(ms(0), ms(100));
        assert!((1..4 * WINDOW as u64).all(|i| !longest.measured(ms(50 * i), ms(90))));
        assert_eq!(longest.answer(), ms(105));
    }
}

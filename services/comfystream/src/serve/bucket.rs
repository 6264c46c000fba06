//! A token bucket: so many at once, so many per second.

use std::time::Duration;

/// Lets through what does not come too fast. Time is handed in, since any start.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    rate: f64,
    burst: f64,
    left: f64,
    at: Duration,
}

impl Bucket {
    /// `rate` per second, and `burst` at once after a rest.
    pub(crate) fn new(rate: f64, burst: f64) -> Self {
        Self {
            rate,
            burst,
            left: burst,
            at: Duration::ZERO,
        }
    }

    /// Whether one more may pass now. Time that goes back counts as standing still.
    #[must_use]
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.left = (self.left + passed * self.rate).min(self.burst);
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut bucket = Bucket::new(50.0, 100.0);
        let passed = (0..150).filter(|_| bucket.take(Duration::ZERO)).count();
        assert_eq!(passed, 100);
        let mut passed = 0;
        for ms in 1..=1000 {
            passed += u32::from(bucket.take(Duration::from_millis(ms)));
        }
        assert!((49..=50).contains(&passed), "{passed}");
    }

    #[test]
    fn rest_fills_no_more_than_the_burst() {
        let mut bucket = Bucket::new(10.0, 3.0);
        let hour = Duration::from_secs(3600);
        assert_eq!((0..10).filter(|_| bucket.take(hour)).count(), 3);
        assert!(!bucket.take(Duration::ZERO), "time that goes back brings nothing");
    }
}

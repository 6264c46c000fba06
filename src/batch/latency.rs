//! How long a frame waits for its batch: the arithmetic behind a LATENCY answer.

use std::time::Duration;

/// What is known about the inputs and settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waits {
    /// Frames per batch.
    pub size: usize,
    /// Frame duration, of the slowest input when there are several; None: not known yet.
    pub frame: Option<Duration>,
    /// Inputs that fill one batch together.
    pub streams: usize,
    /// Longest wait of a batch's first frame; None: no limit.
    pub timeout: Option<Duration>,
    /// Frames that a flight buffer upstream collects before the first leaves.
    pub burst: usize,
    /// By how much batches lately took longer to fill than frame durations say: upstream jitters, or frames are
    /// missing.
    pub overrun: Duration,
}

impl Waits {
    /// Longest wait of a frame here (min), and how much is stored without blocking (max).
    pub fn latency(&self) -> (Duration, Duration) {
        let frame = self.frame.unwrap_or_default();
        // Frames that a flight buffer collected have waited there.
        let waited = frame * (self.burst.saturating_sub(1) as u32);
        let wait = self.fill() + self.overrun;
        let min = self.timeout.map_or(wait, |timeout| wait.min(timeout));
        (min.saturating_sub(waited), frame * self.size as u32)
    }

    /// What a full batch takes when every frame comes at its time.
    fn fill(&self) -> Duration {
        // With several inputs at one rate, a batch fills that many times faster.
        let others = (self.size as u32)
            .saturating_sub(1)
            .div_ceil(self.streams.max(1) as u32);
        self.frame.unwrap_or_default() * others
    }

    /// By how much a batch whose first frame waited this long exceeds [`Waits::latency`] without overrun, in steps:
    /// each step up re-times the whole pipeline, and there are only so many until the timeout.
    pub fn overrun_of(&self, waited: Duration) -> Duration {
        const STEPS_PER_FRAME: u32 = 64;
        let over = waited.saturating_sub(self.fill()).as_nanos();
        let step = (self.frame.unwrap_or_default() / STEPS_PER_FRAME).as_nanos();
        // Without a rate nothing is promised that could be exceeded.
        let steps = if step == 0 { 0 } else { over.div_ceil(step) };
        Duration::from_nanos(u64::try_from(steps * step).unwrap_or(u64::MAX))
    }

    /// The timeout of a live batcher that was not told one: the time that a batch needs, and half a frame for jitter.
    pub fn automatic_timeout(&self) -> Option<Duration> {
        self.frame
            .map(|frame| frame * self.size.saturating_sub(1) as u32 + frame / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(40);

    fn waits(size: usize) -> Waits {
        Waits {
            size,
            frame: Some(FRAME),
            streams: 1,
            ..Waits::default()
        }
    }

    #[test]
    fn first_frame_waits_for_the_others() {
        assert_eq!(waits(1).latency(), (Duration::ZERO, FRAME));
        assert_eq!(waits(4).latency(), (FRAME * 3, FRAME * 4));
    }

    #[test]
    fn shorter_timeout_bounds_the_wait() {
        let timeout = Some(Duration::from_millis(50));
        assert_eq!(Waits { timeout, ..waits(4) }.latency().0, Duration::from_millis(50));
        assert_eq!(Waits { timeout, ..waits(2) }.latency().0, FRAME);
    }

    #[test]
    fn overrun_counts_up_to_the_timeout() {
        let timeout = waits(4).automatic_timeout();
        assert_eq!(timeout, Some(Duration::from_millis(140)));
        let after = |overrun| Waits {
            timeout,
            overrun: Duration::from_millis(overrun),
            ..waits(4)
        };
        assert_eq!(after(0).latency().0, FRAME * 3);
        assert_eq!(after(5).latency().0, Duration::from_millis(125));
        assert_eq!(after(21).latency().0, Duration::from_millis(140));
        assert_eq!(Waits { burst: 4, ..after(5) }.latency().0, Duration::from_millis(5));
    }

    #[test]
    fn overrun_goes_up_in_steps_and_never_below_what_was_waited() {
        let over = |micros| waits(4).overrun_of(FRAME * 3 + Duration::from_micros(micros));
        assert_eq!(waits(4).overrun_of(FRAME * 2), Duration::ZERO);
        assert_eq!(over(0), Duration::ZERO);
        assert_eq!(over(1), Duration::from_micros(625));
        assert_eq!(over(625), Duration::from_micros(625));
        assert_eq!(over(626), Duration::from_micros(1250));
        let unknown = Waits {
            size: 4,
            ..Waits::default()
        };
        assert_eq!(unknown.overrun_of(FRAME), Duration::ZERO);
    }

    #[test]
    fn wait_in_a_flight_buffer_is_not_counted_again() {
        assert_eq!(Waits { burst: 8, ..waits(4) }.latency().0, Duration::ZERO);
        assert_eq!(Waits { burst: 4, ..waits(4) }.latency().0, Duration::ZERO);
        assert_eq!(Waits { burst: 2, ..waits(4) }.latency().0, FRAME * 2);
    }

    #[test]
    fn several_streams_fill_a_batch_faster() {
        assert_eq!(Waits { streams: 4, ..waits(4) }.latency().0, FRAME);
        assert_eq!(Waits { streams: 2, ..waits(8) }.latency().0, FRAME * 4);
    }

    #[test]
    fn unknown_rate_adds_nothing() {
        assert_eq!(
            Waits {
                size: 8,
                ..Waits::default()
            }
            .latency(),
            (Duration::ZERO, Duration::ZERO)
        );
    }
}

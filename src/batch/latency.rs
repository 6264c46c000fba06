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
    /// A batch was already cut by its timeout, so waits as long as that do happen.
    pub timed_out: bool,
}

impl Waits {
    /// Longest wait of a frame here (min), and how much is stored without blocking (max).
    pub fn latency(&self) -> (Duration, Duration) {
        let frame = self.frame.unwrap_or_default();
        let size = self.size as u32;
        // With several inputs at one rate, a batch fills that many times faster.
        let others = size.saturating_sub(1).div_ceil(self.streams.max(1) as u32);
        let fill = frame * others;
        // Frames that a flight buffer collected have waited there.
        let waited = frame * (self.burst.saturating_sub(1) as u32);
        let min = match self.timeout {
            Some(timeout) if timeout < fill || self.timed_out => timeout,
            _ => fill,
        };
        (min.saturating_sub(waited), frame * size)
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
    fn automatic_timeout_counts_once_it_has_happened() {
        let timeout = waits(4).automatic_timeout();
        assert_eq!(timeout, Some(Duration::from_millis(140)));
        assert_eq!(Waits { timeout, ..waits(4) }.latency().0, FRAME * 3);
        assert_eq!(
            Waits {
                timeout,
                timed_out: true,
                ..waits(4)
            }
            .latency()
            .0,
            Duration::from_millis(140)
        );
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

//! Waiting for a moment: what a load at a pace does between two writes.

use std::thread::park_timeout;
use std::time::{Duration, Instant};

/// Waits for a moment, which is never far away.
pub(crate) fn until(moment: Instant) {
    loop {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        park_timeout(left);
    }
}

/// Waits for a time.
pub(crate) fn pause(time: Duration) {
    until(Instant::now() + time);
}

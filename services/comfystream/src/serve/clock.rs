//! The service's clocks. All that decides something about time takes it as an argument.
#![allow(
    clippy::disallowed_methods,
    reason = "here the service reads its clocks, and nowhere else"
)]

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Since the service looked first; never goes back.
pub(crate) fn now() -> Duration {
    START.elapsed()
}

/// Seconds since 1970.
pub(crate) fn unix() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}

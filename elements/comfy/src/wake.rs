//! Time and waiting, the same way in every element.
//!
//! [`Timeline`] is the `now` that policies are handed: the element's clock once it has one, the system's monotonic
//! clock before, without a jump when it changes. [`Waker`] waits on a state, with or without a deadline on that
//! timeline, and can be woken at any moment: no sleep, no polling, and a test clock drives every deadline.

use std::time::Duration;

use gst::prelude::*;
use parking_lot::{Condvar, Mutex, MutexGuard};

/// A monotonic time line across a change of clock.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    clock: Option<gst::Clock>,
    /// Subtracted from the clock's time.
    offset: i128,
}

impl Timeline {
    fn raw(&self) -> i128 {
        let time = match &self.clock {
            Some(clock) => clock.time(),
            None => gst::get_timestamp(),
        };
        i128::from(time.nseconds())
    }

    /// The time now.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos((self.raw() - self.offset).max(0) as u64)
    }

    /// Goes on with another clock, from the time it is now.
    pub(crate) fn set_clock(&mut self, clock: Option<&gst::Clock>) {
        if self.clock.as_ref() == clock {
            return;
        }
        let now = self.raw() - self.offset;
        self.clock = clock.cloned();
        self.offset = self.raw() - now;
    }

    /// A time of the element's clock on this timeline; None without a clock.
    pub(crate) fn at(&self, time: gst::ClockTime) -> Option<Duration> {
        self.clock.as_ref()?;
        Some(Duration::from_nanos(
            (i128::from(time.nseconds()) - self.offset).max(0) as u64
        ))
    }

    fn deadline(&self, at: Duration) -> Option<gst::SingleShotClockId> {
        let clock = self.clock.as_ref()?;
        let time = (at.as_nanos() as i128 + self.offset).max(0) as u64;
        Some(clock.new_single_shot_id(gst::ClockTime::from_nseconds(time)))
    }
}

/// Something that a thread waits for.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    changed: Condvar,
    timer: Mutex<Option<gst::SingleShotClockId>>,
}

impl Waker {
    /// Ends a wait. Call it with the state locked, after changing it.
    pub(crate) fn wake(&self) {
        self.changed.notify_all();
        if let Some(timer) = self.timer.lock().as_ref() {
            timer.unschedule();
        }
    }

    /// Waits until woken. The caller looks at the state again and decides.
    pub(crate) fn wait<S>(&self, state: &mut MutexGuard<'_, S>) {
        self.changed.wait(state);
    }

    /// Waits until woken or until `deadline` on the timeline that `timeline` finds in the state.
    pub(crate) fn wait_until<S>(
        &self,
        state: &mut MutexGuard<'_, S>,
        timeline: impl Fn(&S) -> &Timeline,
        deadline: Duration,
    ) {
        match timeline(state).deadline(deadline) {
            Some(timer) => {
                // Set while the state is locked: whoever changes the state afterwards finds it.
                *self.timer.lock() = Some(timer.clone());
                MutexGuard::unlocked(state, || {
                    // Reached, late or unscheduled: the caller looks at the state in each case.
                    let _ = timer.wait();
                });
                *self.timer.lock() = None;
            }
            None => {
                let left = deadline.saturating_sub(timeline(state).now());
                self.changed.wait_for(state, left);
            }
        }
    }
}

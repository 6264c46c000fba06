//! Whose run it is, and how a run is ended from outside.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Error, Interrupt};

/// The state behind each of these mutexes is one number or flag, which a panic elsewhere cannot leave half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the lanes of one engine run one at a time.
#[derive(Debug, Default)]
pub(super) struct Turn {
    taken: Mutex<bool>,
    changed: Condvar,
}

impl Turn {
    /// Waits for the turn, or ends when `halt` does.
    pub(super) fn take(&self, halt: &Halt, mark: Mark) -> Result<Taken<'_>, Error> {
        let mut taken = lock(&self.taken);
        loop {
            halt.check(mark)?;
            if !*taken {
                *taken = true;
                return Ok(Taken(self));
            }
            taken = self.changed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The turn, until dropped.
#[derive(Debug)]
pub(super) struct Taken<'a>(&'a Turn);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *lock(&self.0.taken) = false;
        // All, not one: the one that is woken may be about to end as interrupted.
        self.0.changed.notify_all();
    }
}

/// The state of a [`Halt`] when a run began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark(u64);

/// Ends the runs of one lane.
///
/// A stop that is followed at once by a resume still ends the run in progress, because stops are counted.
#[derive(Debug)]
pub(super) struct Halt {
    /// Number of stops, times two, plus one while stopped.
    word: AtomicU64,
    sleep: Mutex<()>,
    changed: Condvar,
    turn: Arc<Turn>,
}

impl Halt {
    pub(super) fn new(turn: Arc<Turn>) -> Self {
        Self {
            word: AtomicU64::new(0),
            sleep: Mutex::new(()),
            changed: Condvar::new(),
            turn,
        }
    }

    /// To be taken when a run begins.
    pub(super) fn mark(&self) -> Mark {
        // Stopped already: a mark that no later word equals.
        Mark(self.word.load(Ordering::Acquire) & !1)
    }

    pub(super) fn check(&self, mark: Mark) -> Result<(), Error> {
        if self.word.load(Ordering::Acquire) == mark.0 {
            Ok(())
        } else {
            Err(Error::Interrupted)
        }
    }

    /// Sleeps for about this long, or until stopped.
    pub(super) fn sleep(&self, mark: Mark, time: Duration) -> Result<(), Error> {
        let guard = lock(&self.sleep);
        self.check(mark)?;
        drop(
            self.changed
                .wait_timeout(guard, time)
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.check(mark)
    }
}

impl Interrupt for Halt {
    fn stop(&self) {
        // fetch_update cannot fail: the closure always gives a value.
        let _ = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| Some((word | 1) + 2));
        // The waiters look at the word under these locks: passing through them means that none misses the wake-up.
        drop(lock(&self.sleep));
        self.changed.notify_all();
        drop(lock(&self.turn.taken));
        self.turn.changed.notify_all();
    }

    fn resume(&self) {
        self.word.fetch_and(!1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_followed_by_a_resume_still_ends_the_run_that_was_in_progress() {
        let halt = Halt::new(Arc::default());
        let mark = halt.mark();
        assert_eq!(halt.check(mark), Ok(()));
        halt.stop();
        halt.resume();
        assert_eq!(halt.check(mark), Err(Error::Interrupted));
        assert_eq!(halt.check(halt.mark()), Ok(()));
    }

    #[test]
    fn while_stopped_every_new_run_ends() {
        let halt = Halt::new(Arc::default());
        halt.stop();
        halt.stop();
        assert_eq!(halt.check(halt.mark()), Err(Error::Interrupted));
        halt.resume();
        assert_eq!(halt.check(halt.mark()), Ok(()));
    }

    #[test]
    fn one_who_waits_for_the_turn_is_woken_by_its_stop() {
        let turn = Arc::new(Turn::default());
        let holder = Halt::new(turn.clone());
        let held = turn.take(&holder, holder.mark()).expect("the turn is free");
        let halt = Arc::new(Halt::new(turn.clone()));
        let waiter = std::thread::spawn({
            let (turn, halt) = (turn.clone(), halt.clone());
            let mark = halt.mark();
            move || turn.take(&halt, mark).map(drop)
        });
        halt.stop();
        assert_eq!(waiter.join().expect("no panic"), Err(Error::Interrupted));
        drop(held);
        halt.resume();
        assert!(turn.take(&halt, halt.mark()).is_ok());
    }
}

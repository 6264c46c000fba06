//! Ending an opening from another thread.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Error;

/// Ends the opening that it was given to; clones end the same one. Once it has, it stays that way.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

type Hook = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct State {
    cancelled: bool,
    #[cfg(any(feature = "ort", test))]
    next: u64,
    hooks: Vec<(u64, Hook)>,
}

impl Cancel {
    /// Ends it now, or as soon as it comes to a place where it can.
    pub fn cancel(&self) {
        let hooks = {
            let mut state = self.lock();
            state.cancelled = true;
            state.hooks.clone()
        };
        self.0.changed.notify_all();
        // Not under the lock: what a hook does is not ours.
        for (_, hook) in hooks {
            hook();
        }
    }

    /// Whether it was ended.
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// An error once it was ended.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_cancelled() {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }

    /// Waits for this long, or until it is ended.
    pub(super) fn wait(&self, time: Duration) -> Result<(), Error> {
        let waited = self
            .0
            .changed
            .wait_timeout_while(self.lock(), time, |state| !state.cancelled);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.check()
    }

    /// Calls `hook` when it is ended, at once if it was already, until the result is dropped.
    #[cfg(any(feature = "ort", test))]
    pub(super) fn on_cancel(&self, hook: impl Fn() + Send + Sync + 'static) -> Registered {
        let hook: Hook = Arc::new(hook);
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.hooks.push((number, hook.clone()));
        let cancelled = state.cancelled;
        drop(state);
        if cancelled {
            hook();
        }
        Registered {
            cancel: self.clone(),
            number,
        }
    }

    /// Nothing in here panics half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}

/// Until dropped, a hook is called.
#[cfg(any(feature = "ort", test))]
pub(super) struct Registered {
    cancel: Cancel,
    number: u64,
}

#[cfg(any(feature = "ort", test))]
impl Drop for Registered {
    fn drop(&mut self) {
        self.cancel.lock().hooks.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn hooks_are_called_once_each_while_they_are_registered() {
        let cancel = Cancel::default();
        let count = Arc::new(AtomicUsize::new(0));
        let hook = |by: usize| {
            let count = count.clone();
            cancel.on_cancel(move || {
                count.fetch_add(by, Ordering::Relaxed);
            })
        };
        drop(hook(100));
        let _held = hook(1);
        assert_eq!(cancel.check(), Ok(()));
        cancel.clone().cancel();
        assert_eq!(
            (count.load(Ordering::Relaxed), cancel.check()),
            (1, Err(Error::Interrupted))
        );
        let _late = hook(10);
        assert_eq!(
            count.load(Ordering::Relaxed),
            11,
            "one that comes too late is called at once"
        );
    }

    #[test]
    fn a_hook_may_ask_and_register() {
        let cancel = Cancel::default();
        let inner = cancel.clone();
        let _held = cancel.on_cancel(move || {
            assert!(inner.is_cancelled());
            drop(inner.on_cancel(|| ()));
        });
        cancel.cancel();
    }
}

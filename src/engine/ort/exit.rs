//! A process that exits while ONNX Runtime is at work.
//!
//! The runtime stands on static objects, which its library destroys at exit; whoever is inside of it then takes the
//! process down with a signal. So every call that may last is noted here. At exit those in progress are told to end
//! and are waited for, no new one begins, and what belongs to the runtime is no longer freed.
//!
//! Static objects are destroyed in the reverse order of their making, exit handlers among them, and the runtime makes
//! hundreds while it is set up and loads models. A handler that is to come first has to be added last: on the thread
//! that exits, whose own objects go before all of them ([`watch_thread`]).
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io::Write;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::engine::Error;

/// How long an exit waits for calls that were told to end. Loads and runs end within milliseconds, as far as the
/// runtime looks at its flags; compiling an engine does not.
const PATIENCE: Duration = Duration::from_secs(5);

/// Exit handlers of one process. Each costs 32 bytes until then, and what a load may register is finite.
const MAX_HANDLERS: usize = 256;

static CALLS: Calls = Calls::new();

/// Ends a call from another thread.
pub(super) trait End: Send + Sync {
    fn end(&self);
}

/// Notes that a call into the runtime begins. Fails once the process exits.
pub(super) fn enter(end: Option<Arc<dyn End>>) -> Result<Call<'static>, Error> {
    CALLS.enter(end)
}

/// The same for the call that sets the runtime up.
pub(super) fn enter_first() -> Result<Call<'static>, Error> {
    CALLS.enter_as(None, true)
}

/// Has the process wait, when this thread exits it, before any static object is destroyed.
///
/// Where only the thread ends, it costs nothing but a wait for the runtime to be set up, once per process.
pub(in crate::engine) fn watch_thread() {
    thread_local! {
        static WATCHED: Watched = const { Watched };
    }
    // Fails on a thread that is ending.
    let _ = WATCHED.try_with(|Watched| ());
}

struct Watched;

impl Drop for Watched {
    fn drop(&mut self) {
        if CALLS.settle(PATIENCE) {
            guard();
        }
    }
}

/// Has the process wait, when it exits, before the static objects that exist by now are destroyed.
pub(super) fn guard() {
    if !CALLS.may_add_handler() {
        return;
    }
    let process = std::ptr::without_provenance_mut(std::process::id() as usize);
    // SAFETY: the handler is a function of this library, which is never unloaded: GStreamer keeps plugins for the life
    // of the process. It takes the argument for a number. Without room for it, the process is as it was without.
    let _ = unsafe { on_exit(leave, process) };
}

unsafe extern "C" {
    // glibc's stdlib.h, stdio.h and unistd.h. `on_exit` is `atexit` that knows the status.
    fn on_exit(handler: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    fn fflush(stream: *mut c_void) -> c_int;
    safe fn _exit(status: c_int) -> !;
}

extern "C" fn leave(status: c_int, process: *mut c_void) {
    // A forked child has none of the threads that are inside.
    if process.addr() != std::process::id() as usize || CALLS.close(PATIENCE) {
        return;
    }
    let _ = writeln!(
        std::io::stderr(),
        "gst-comfy: ONNX Runtime does not end what it is doing; the process ends without further clean-up"
    );
    // SAFETY: a null pointer stands for all streams.
    unsafe { fflush(std::ptr::null_mut()) };
    // The other way is a signal in place of the status.
    _exit(status);
}

/// A call in progress, until dropped.
pub(super) struct Call<'a> {
    calls: &'a Calls,
    number: u64,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut inside = self.calls.lock();
        let at = inside.calls.iter().position(|noted| noted.number == self.number);
        let first = at.is_some_and(|at| inside.calls.swap_remove(at).first);
        if first || (inside.closed && inside.calls.is_empty()) {
            self.calls.changed.notify_all();
        }
    }
}

struct Calls {
    inside: Mutex<Inside>,
    changed: Condvar,
}

struct Inside {
    closed: bool,
    next: u64,
    calls: Vec<Noted>,
    handlers: usize,
}

struct Noted {
    number: u64,
    end: Option<Arc<dyn End>>,
    /// It sets the runtime up.
    first: bool,
}

impl Calls {
    const fn new() -> Self {
        Self {
            inside: Mutex::new(Inside {
                closed: false,
                next: 0,
                calls: Vec::new(),
                handlers: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// Nothing in here panics half-way.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, end: Option<Arc<dyn End>>) -> Result<Call<'_>, Error> {
        self.enter_as(end, false)
    }

    fn enter_as(&self, end: Option<Arc<dyn End>>, first: bool) -> Result<Call<'_>, Error> {
        let mut inside = self.lock();
        if inside.closed {
            return Err(Error::Interrupted);
        }
        let number = inside.next;
        inside.next += 1;
        inside.calls.push(Noted { number, end, first });
        Ok(Call { calls: self, number })
    }

    fn may_add_handler(&self) -> bool {
        let mut inside = self.lock();
        let may = inside.handlers < MAX_HANDLERS;
        inside.handlers += usize::from(may);
        may
    }

    /// Waits until the runtime is set up, if that is going on. True when somebody is inside then.
    fn settle(&self, patience: Duration) -> bool {
        let first = |inside: &mut Inside| inside.calls.iter().any(|noted| noted.first);
        let waited = self.changed.wait_timeout_while(self.lock(), patience, first);
        let (inside, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !inside.calls.is_empty()
    }

    /// Lets nobody in any more, and waits until all are out. False: some are not.
    fn close(&self, patience: Duration) -> bool {
        let mut inside = self.lock();
        inside.closed = true;
        let ends: Vec<_> = inside.calls.iter().filter_map(|noted| noted.end.clone()).collect();
        drop(inside);
        for end in ends {
            end.end();
        }
        let (inside, _) = self
            .changed
            .wait_timeout_while(self.lock(), patience, |inside| !inside.calls.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        inside.calls.is_empty()
    }
}

/// Something of the runtime's, which is freed only while the runtime stands.
#[derive(Debug)]
pub(super) struct Owned<T>(ManuallyDrop<T>);

impl<T> Owned<T> {
    pub(super) fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Owned<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if let Ok(_call) = enter(None) {
            // SAFETY: this is the only place that drops it, once, and nobody uses it afterwards.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Told(std::sync::mpsc::SyncSender<()>);

    impl End for Told {
        fn end(&self) {
            self.0.send(()).unwrap();
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn exit_ends_the_calls_in_progress_waits_for_them_and_lets_no_other_in() {
        let calls = Calls::new();
        drop(calls.enter(None).unwrap());
        let (told, is_told) = std::sync::mpsc::sync_channel(1);
        let call = calls.enter(Some(Arc::new(Told(told)))).unwrap();
        let silent = calls.enter(None).unwrap();
        std::thread::scope(|scope| {
            let exit = scope.spawn(|| calls.close(LONG));
            is_told.recv_timeout(LONG).unwrap();
            assert_eq!(calls.enter(None).err(), Some(Error::Interrupted));
            drop(call);
            assert!(!exit.is_finished(), "one is still inside");
            drop(silent);
            assert!(exit.join().unwrap());
        });
        assert!(calls.close(LONG), "a second handler finds nothing to do");
    }

    #[test]
    fn one_that_does_not_end_is_not_waited_for_longer_than_patience() {
        let calls = Calls::new();
        let _call = calls.enter(None).unwrap();
        assert!(!calls.close(Duration::ZERO));
    }

    #[test]
    fn a_watched_thread_waits_for_the_first_call_and_for_no_other() {
        let calls = Calls::new();
        assert!(!calls.settle(LONG), "nobody is inside");
        let first = calls.enter_as(None, true).unwrap();
        let _load = calls.enter(None).unwrap();
        assert!(calls.settle(Duration::ZERO), "in vain, and somebody is inside");
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| calls.settle(LONG));
            drop(first);
            assert!(ending.join().unwrap());
        });
    }

    #[test]
    fn handlers_are_bounded() {
        let calls = Calls::new();
        assert_eq!((0..1000).filter(|_| calls.may_add_handler()).count(), MAX_HANDLERS);
    }
}

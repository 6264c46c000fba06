//! The caller's half of subscribing.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::trickle::subscriber::{Over, Stats};

/// What comes from a channel, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// A segment begins.
    Segment {
        /// Its number.
        seq: u64,
        /// The channel's MIME type; `None` if the server does not say.
        mime: Option<Arc<str>>,
        /// It does not continue what came before.
        discont: bool,
        /// Segments skipped before it, so far as known.
        gap: u64,
        /// Segments that had begun after it when it was asked for.
        lag: u64,
    },
    /// Bytes of the segment that has begun.
    Bytes(Bytes),
    /// The segment has ended.
    End {
        /// Its number.
        seq: u64,
        /// As far as can be known, the server had it all.
        complete: bool,
    },
}

/// What [`Inbox::wait`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This has come.
    Arrival(Arrival),
    /// [`Inbox::interrupt`] was called.
    Interrupted,
    /// Nothing has come in time.
    TimedOut,
    /// Nothing more comes.
    Over(Over),
}

/// Holds what came from a channel until it is taken. See [`Client::subscribe`](super::Client::subscribe).
///
/// Bounded by bytes: when it is full, the connection is not read, and a server that must not wait for its readers
/// leaves this one behind. Clones are the same inbox.
#[derive(Debug, Clone)]
pub struct Inbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    arrived_async: Notify,
    room: Notify,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    arrivals: VecDeque<Arrival>,
    bytes: usize,
    interrupted: bool,
    over: Option<Over>,
    trouble: Option<String>,
    stats: Stats,
}

/// What an arrival costs besides its bytes, so that empty segments have a bound, too.
const COST: usize = 64;

impl Inbox {
    pub(super) fn new(max_bytes: usize) -> (Self, Arc<Shared>) {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            arrived: Condvar::new(),
            arrived_async: Notify::new(),
            room: Notify::new(),
            max_bytes,
        });
        (Self { shared: shared.clone() }, shared)
    }

    /// Waits for something, at most for this long; `None` = as long as it takes. For a thread; see
    /// [`next`](Self::next) for a task.
    pub fn wait(&self, time: Option<Duration>) -> Next {
        let state = self.shared.lock();
        let nothing = |state: &mut State| state.arrivals.is_empty() && !state.interrupted && state.over.is_none();
        let state = match time {
            None => self.shared.arrived.wait_while(state, nothing),
            Some(time) => self
                .shared
                .arrived
                .wait_timeout_while(state, time, nothing)
                .map(|(state, _)| state)
                .map_err(|poisoned| PoisonError::new(poisoned.into_inner().0)),
        };
        self.take(state.unwrap_or_else(PoisonError::into_inner))
            .unwrap_or(Next::TimedOut)
    }

    /// Waits for something. May be dropped at any time without losing anything.
    pub async fn next(&self) -> Next {
        loop {
            let arrived = self.shared.arrived_async.notified();
            let taken = self.take(self.shared.lock());
            match taken {
                Some(next) => return next,
                None => arrived.await,
            }
        }
    }

    /// What is there, without waiting.
    pub fn try_next(&self) -> Option<Next> {
        self.take(self.shared.lock())
    }

    /// Makes every wait return [`Next::Interrupted`] at once, also later ones, until it is switched off again.
    pub fn interrupt(&self, on: bool) {
        self.shared.lock().interrupted = on;
        self.shared.wake();
    }

    /// Throws away what has come and was not taken.
    pub fn clear(&self) {
        let mut state = self.shared.lock();
        state.arrivals.clear();
        state.bytes = 0;
        drop(state);
        self.shared.room.notify_one();
    }

    /// Bytes that wait to be taken.
    pub fn queued(&self) -> usize {
        self.shared.lock().bytes
    }

    /// What failed last, for people.
    pub fn trouble(&self) -> Option<String> {
        self.shared.lock().trouble.clone()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.shared.lock().stats
    }

    fn take(&self, mut state: MutexGuard<State>) -> Option<Next> {
        if state.interrupted {
            return Some(Next::Interrupted);
        }
        let Some(arrival) = state.arrivals.pop_front() else {
            return state.over.map(Next::Over);
        };
        let was_full = state.bytes >= self.shared.max_bytes;
        state.bytes -= cost(&arrival);
        let room = was_full && state.bytes < self.shared.max_bytes;
        drop(state);
        if room {
            self.shared.room.notify_one();
        }
        Some(Next::Arrival(arrival))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.arrived.notify_all();
        self.arrived_async.notify_one();
    }

    /// Puts something in when there is room. One arrival more than fits is taken, so that a large one can pass.
    pub(super) async fn put(&self, arrival: Arrival) {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                if state.bytes < self.max_bytes {
                    state.bytes += cost(&arrival);
                    state.arrivals.push_back(arrival);
                    break;
                }
            }
            room.await;
        }
        self.wake();
    }

    pub(super) fn end(&self, over: Over) {
        self.lock().over.get_or_insert(over);
        self.wake();
    }

    pub(super) fn trouble(&self, text: String) {
        self.lock().trouble = Some(text);
    }

    pub(super) fn set_stats(&self, stats: Stats) {
        self.lock().stats = stats;
    }
}

fn cost(arrival: &Arrival) -> usize {
    match arrival {
        Arrival::Bytes(bytes) => bytes.len() + COST,
        Arrival::Segment { .. } | Arrival::End { .. } => COST,
    }
}

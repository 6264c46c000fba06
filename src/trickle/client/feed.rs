//! The caller's half of publishing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::upload::{Offer, Upload};
use crate::trickle::publisher::{Over, Stats};

/// The answer to [`Feed::begin`].
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// A segment has begun: write it.
    Begun,
    /// Too many segments await their answer: the server is slow. Drop this one; [`Event::Room`] says when to try again.
    Full,
    /// Nothing can be published any more.
    Over(Over),
}

/// The answer to [`Feed::write`].
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// On its way.
    Queued,
    /// The queue is full; here is what was not taken. Wait for [`Event::Room`], or give the segment up.
    Full(Bytes),
    /// The segment is lost, or none has begun. Drop until the next place where one may begin.
    Lost,
    /// Nothing can be published any more.
    Over(Over),
}

/// What a publisher tells, from its task. Whoever is told must not wait.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// There is room in a queue that was full, or for a segment where there was none.
    Room,
    /// The server has a segment.
    Done {
        /// Its number.
        seq: u64,
        /// Its size.
        bytes: u64,
    },
    /// A segment is lost.
    Lost {
        /// Its number, if it had one.
        seq: Option<u64>,
        /// Why, for people.
        why: String,
    },
    /// A request has failed; the publisher tries again.
    Trouble(String),
    /// Nothing can be published any more.
    Over {
        /// Why.
        over: Over,
        /// Why, for people.
        why: String,
    },
}

/// Takes segments for a server, and never makes the caller wait. See [`Client::publish`](super::Client::publish).
///
/// What waits is bounded by bytes and by segments. Clones are the same feed.
#[derive(Clone)]
pub struct Feed {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// For the task: something has begun, or the end was asked for.
    pub(super) work: Notify,
    pub(super) queued: Arc<AtomicUsize>,
    max_bytes: usize,
    max_segments: usize,
    tell: Box<dyn Fn(Event) + Send + Sync>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Upload>>,
    /// Preconnected: it has a number.
    ready: Option<(u64, Arc<Upload>)>,
    /// Begun, without a number.
    unnumbered: VecDeque<Arc<Upload>>,
    /// Begun and not answered.
    active: usize,
    finishing: bool,
    over: Option<Over>,
    /// Somebody was refused for want of room.
    waiting: bool,
    stats: Stats,
}

impl Feed {
    pub(super) fn new(
        max_bytes: usize,
        max_segments: usize,
        tell: Box<dyn Fn(Event) + Send + Sync>,
    ) -> (Self, Arc<Shared>) {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Notify::new(),
            queued: Arc::default(),
            max_bytes,
            max_segments: max_segments.max(1),
            tell,
        });
        (Self { shared: shared.clone() }, shared)
    }

    /// Begins a segment. One that is being written is ended first.
    pub fn begin(&self) -> Begin {
        let mut state = self.shared.lock();
        if let Some(current) = state.current.take() {
            current.end();
        }
        if let Some(over) = state.over {
            return Begin::Over(over);
        }
        if state.finishing {
            return Begin::Over(Over::Stopped);
        }
        if state.active >= self.shared.max_segments {
            state.waiting = true;
            return Begin::Full;
        }
        state.active += 1;
        let upload = match state.ready.take() {
            Some((_, ready)) => ready,
            None => {
                let upload = Upload::new(self.shared.queued.clone());
                state.unnumbered.push_back(upload.clone());
                upload
            }
        };
        upload.claim();
        state.current = Some(upload);
        drop(state);
        self.shared.work.notify_one();
        Begin::Begun
    }

    /// Writes to the segment that has begun.
    pub fn write(&self, bytes: Bytes) -> Write {
        let mut state = self.shared.lock();
        if let Some(over) = state.over {
            return Write::Over(over);
        }
        let Some(current) = &state.current else {
            return Write::Lost;
        };
        // Something larger than the whole queue goes when it is empty, or it never would.
        let queued = self.shared.queued.load(Ordering::Relaxed);
        if queued > 0 && queued + bytes.len() > self.shared.max_bytes {
            state.waiting = true;
            return Write::Full(bytes);
        }
        match current.offer(bytes) {
            Offer::Queued => Write::Queued,
            Offer::Lost => {
                state.current = None;
                Write::Lost
            }
        }
    }

    /// Ends the segment that has begun.
    pub fn end(&self) {
        if let Some(current) = self.shared.lock().current.take() {
            current.end();
        }
    }

    /// Gives up the segment that has begun: what was sent of it is all that readers get.
    pub fn abandon(&self) {
        if let Some(current) = self.shared.lock().current.take() {
            current.fail();
        }
    }

    /// No more segments follow; one that is being written is ended. The task ends when all are answered.
    pub fn finish(&self) {
        let mut state = self.shared.lock();
        if let Some(current) = state.current.take() {
            current.end();
        }
        state.finishing = true;
        drop(state);
        self.shared.work.notify_one();
    }

    /// Bytes that wait to be sent.
    pub fn queued(&self) -> usize {
        self.shared.queued.load(Ordering::Relaxed)
    }

    /// Segments that have begun and are not answered.
    pub fn active(&self) -> usize {
        self.shared.lock().active
    }

    /// Why nothing can be published any more.
    pub fn over(&self) -> Option<Over> {
        self.shared.lock().over
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.shared.lock().stats
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, event: Event) {
        (self.tell)(event);
    }

    /// The next segment that has begun and has no number.
    pub(super) fn take_unnumbered(&self) -> Option<Arc<Upload>> {
        self.lock().unnumbered.pop_front()
    }

    /// One that has lost its number, before all others: it is older.
    pub(super) fn return_unnumbered(&self, upload: Arc<Upload>) {
        self.lock().unnumbered.push_front(upload);
    }

    pub(super) fn has_unnumbered(&self) -> bool {
        !self.lock().unnumbered.is_empty()
    }

    /// Offers a preconnected segment. False if there is one, or none is needed any more.
    pub(super) fn offer_ready(&self, seq: u64, upload: &Arc<Upload>) -> bool {
        let mut state = self.lock();
        let wanted = state.ready.is_none() && !state.finishing && state.over.is_none();
        if wanted {
            state.ready = Some((seq, upload.clone()));
        }
        wanted
    }

    pub(super) fn wants_ready(&self) -> bool {
        let state = self.lock();
        state.ready.is_none() && state.unnumbered.is_empty() && !state.finishing && state.over.is_none()
    }

    /// The preconnected segment, if it is this one and has not begun.
    pub(super) fn take_ready(&self, upload: &Arc<Upload>) {
        let mut state = self.lock();
        if state
            .ready
            .as_ref()
            .is_some_and(|(_, ready)| Arc::ptr_eq(ready, upload))
        {
            state.ready = None;
        }
    }

    /// The preconnected segment, if it has not begun.
    pub(super) fn shed_ready(&self) -> Option<(u64, Arc<Upload>)> {
        self.lock().ready.take()
    }

    /// A segment that had begun is answered, or lost.
    pub(super) fn settled(&self) {
        let mut state = self.lock();
        state.active = state.active.saturating_sub(1);
    }

    /// Segments that had begun and will not be answered any more, each once.
    pub(super) fn take_active(&self) -> usize {
        std::mem::take(&mut self.lock().active)
    }

    pub(super) fn set_stats(&self, stats: Stats) {
        self.lock().stats = stats;
    }

    /// Tells who was refused that there is room again.
    pub(super) fn tell_room(&self) {
        let mut state = self.lock();
        let room = state.active < self.max_segments && self.queued.load(Ordering::Relaxed) <= self.max_bytes / 2;
        if state.waiting && room {
            state.waiting = false;
            drop(state);
            self.tell(Event::Room);
        }
    }

    pub(super) fn waiting(&self) -> bool {
        self.lock().waiting
    }

    pub(super) fn finishing(&self) -> bool {
        self.lock().finishing
    }

    /// Nothing can be published any more.
    /// False if that was known.
    pub(super) fn end(&self, over: Over) -> bool {
        let mut state = self.lock();
        let news = state.over.is_none();
        state.over.get_or_insert(over);
        let (current, ready) = (state.current.take(), state.ready.take().map(|(_, ready)| ready));
        let unnumbered = std::mem::take(&mut state.unnumbered);
        drop(state);
        for upload in unnumbered.into_iter().chain(current).chain(ready) {
            upload.fail();
        }
        news
    }
}

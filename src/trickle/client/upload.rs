//! The body of a request: bytes that one thread puts in and a connection takes out, without a copy.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::trickle::publisher::Sent;

/// A segment on its way to a server.
#[derive(Debug)]
pub(super) struct Upload {
    state: Mutex<State>,
    /// Bytes waiting in all uploads of one publisher.
    queued: Arc<AtomicUsize>,
    /// A caller writes it, and it counts as a segment.
    claimed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Bytes>,
    ended: bool,
    failed: bool,
    /// The connection has been told of the end.
    end_taken: bool,
    taken: u64,
    offered: u64,
    /// When something was last taken, or first waited.
    since: Option<Instant>,
    taker: Option<Waker>,
}

/// What [`Upload::offer`] says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offer {
    Queued,
    /// The segment is lost.
    Lost,
}

impl Upload {
    pub(super) fn new(queued: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            queued,
            claimed: AtomicBool::new(false),
        })
    }

    pub(super) fn offer(&self, bytes: Bytes) -> Offer {
        let mut state = self.lock();
        if state.failed || state.ended {
            return Offer::Lost;
        }
        if bytes.is_empty() {
            return Offer::Queued;
        }
        self.queued.fetch_add(bytes.len(), Ordering::Relaxed);
        state.offered += bytes.len() as u64;
        state.since.get_or_insert_with(Instant::now);
        state.pieces.push_back(bytes);
        wake(state);
        Offer::Queued
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        wake(state);
    }

    /// The segment is lost: what waits is thrown away, and the body breaks off.
    pub(super) fn fail(&self) {
        let mut state = self.lock();
        state.failed = true;
        let waiting: usize = state.pieces.drain(..).map(|piece| piece.len()).sum();
        self.queued.fetch_sub(waiting, Ordering::Relaxed);
        wake(state);
    }

    pub(super) fn is_failed(&self) -> bool {
        self.lock().failed
    }

    pub(super) fn claim(&self) {
        self.claimed.store(true, Ordering::Release);
    }

    pub(super) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }

    pub(super) fn sent(&self) -> Sent {
        let state = self.lock();
        match (state.taken, state.end_taken) {
            (_, true) => Sent::All,
            (0, false) => Sent::Nothing,
            (_, false) => Sent::Some,
        }
    }

    /// Bytes put in.
    pub(super) fn offered(&self) -> u64 {
        self.lock().offered
    }

    /// Since when the connection has taken nothing although there was something, or has not answered to the end.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        let state = self.lock();
        (!state.pieces.is_empty() || state.end_taken)
            .then_some(state.since)
            .flatten()
    }

    pub(super) fn body(self: &Arc<Self>) -> Outgoing {
        Outgoing::Upload(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done where a lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.fail();
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let taker = state.taker.take();
    drop(state);
    if let Some(taker) = taker {
        taker.wake();
    }
}

/// The body of any of our requests.
#[derive(Debug)]
pub(super) enum Outgoing {
    Empty(Empty<Bytes>),
    Upload(Arc<Upload>),
}

impl Outgoing {
    pub(super) fn none() -> Self {
        Self::Empty(Empty::new())
    }
}

/// The segment was given up; the connection closes.
#[derive(Debug, thiserror::Error)]
#[error("the segment was given up")]
pub(super) struct GivenUp;

impl Body for Outgoing {
    type Data = Bytes;
    type Error = GivenUp;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context) -> Poll<Option<Result<Frame<Bytes>, GivenUp>>> {
        let upload = match self.get_mut() {
            Self::Empty(_) => return Poll::Ready(None),
            Self::Upload(upload) => upload,
        };
        let mut state = upload.lock();
        if state.failed {
            return Poll::Ready(Some(Err(GivenUp)));
        }
        if let Some(piece) = state.pieces.pop_front() {
            upload.queued.fetch_sub(piece.len(), Ordering::Relaxed);
            state.taken += piece.len() as u64;
            state.since = (!state.pieces.is_empty()).then(Instant::now);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if state.ended {
            state.end_taken = true;
            state.since = Some(Instant::now());
            return Poll::Ready(None);
        }
        state.taker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty(_))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty(_) => SizeHint::with_exact(0),
            Self::Upload(_) => SizeHint::default(),
        }
    }
}

//! A connection, with what HTTP leaves open: how long it may be silent, and signs of life while a request waits.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// Sent, unasked, while a request's body does not come: for what sits between and would think the connection dead.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// After an answer that came before the end of the request: how long, and how much, to read on, so that the answer
/// is not torn away by what it overtook.
const LINGER: (Duration, usize) = (Duration::from_millis(500), 1 << 20);

/// What may come of the next requests while one is being answered, at most: more is no client's way.
const AHEAD: usize = 64 * 1024;

/// How long a connection may be silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Between two requests.
    pub(super) idle: Duration,
    /// For the head of a request.
    pub(super) header: Duration,
    /// Of a peer that is to read and does not.
    pub(super) stall: Duration,
}

/// What the connection and who answers its requests know of each other.
#[derive(Debug)]
pub(super) struct Link {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Signs of life to be sent.
    interim: usize,
    /// An answer came before the end of the request.
    early: bool,
    /// The request being answered has come to its end: what follows is the next one's, and waits.
    whole: bool,
    /// Who looks meanwhile whether the peer is there.
    watching: Option<Waker>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Idle(Instant),
    Head(Instant),
    Busy,
}

impl Link {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                // A new connection has no excuse for silence.
                phase: Phase::Head(Instant::now()),
                interim: 0,
                early: false,
                whole: false,
                watching: None,
            }),
        })
    }

    /// A request is being answered until the guard is dropped; `whole` if it has no body.
    pub(super) fn busy(self: &Arc<Self>, whole: bool) -> Busy {
        let mut state = self.lock();
        state.phase = Phase::Busy;
        state.whole = whole;
        drop(state);
        Busy(self.clone())
    }

    /// Sends a sign of life, from the connection's own task.
    pub(super) fn interim(&self) {
        self.lock().interim = CONTINUE.len();
    }

    /// What follows on this connection is of no interest.
    pub(super) fn early(&self) {
        self.lock().early = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Link::busy`].
#[derive(Debug)]
pub(super) struct Busy(Arc<Link>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.phase = Phase::Idle(Instant::now());
        state.whole = false;
        let watching = state.watching.take();
        drop(state);
        if let Some(watching) = watching {
            watching.wake();
        }
    }
}

/// The connection.
///
/// HTTP looks whether a peer is still there only as long as it has nothing of that peer to work on. A peer that sends
/// the beginning of another request and goes would be waited for as long as there is nothing to send it: for ever, where
/// a channel rests. So what follows the head of a request is kept back here until somebody needs it.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    /// Kept back.
    ahead: BytesMut,
    /// The line of a head that is being read is empty so far.
    blank: bool,
    link: Arc<Link>,
    times: Times,
    reading: Alarm,
    writing: Alarm,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S, link: Arc<Link>, times: Times) -> Self {
        Self {
            stream,
            ahead: BytesMut::new(),
            blank: false,
            link,
            times,
            reading: Alarm::default(),
            writing: Alarm::default(),
        }
    }

    /// Ends the connection, not before the peer has had time to read the answer.
    pub(super) async fn close(mut self) {
        let early = self.link.lock().early;
        if self.stream.shutdown().await.is_err() || !early {
            return;
        }
        let (time, bytes) = LINGER;
        let draining = async {
            let (mut scrap, mut left) = ([0; 4096], bytes);
            while left > 0 {
                match self.stream.read(&mut scrap).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => left = left.saturating_sub(read),
                }
            }
        };
        // Who has not closed by then will see a reset.
        let _ = timeout(time, draining).await;
    }

    /// Keeps back what follows the end of a head.
    fn keep_back(&mut self, buffer: &mut ReadBuf, from: usize) {
        let read = &buffer.filled()[from..];
        let end = read.iter().position(|byte| {
            let ends = *byte == b'\n' && self.blank;
            self.blank = !ends && (*byte == b'\n' || (*byte == b'\r' && self.blank));
            ends
        });
        if let Some(end) = end
            && end + 1 < read.len()
        {
            // Before what was kept back already, if that is where it came from.
            let mut ahead = BytesMut::from(&read[end + 1..]);
            ahead.extend_from_slice(&self.ahead);
            self.ahead = ahead;
            buffer.set_filled(from + end + 1);
        }
    }

    /// Ready when the peer has gone.
    fn poll_gone(&mut self, cx: &mut Context) -> Poll<io::Result<()>> {
        let mut scrap = [0; 2048];
        loop {
            let mut buffer = ReadBuf::new(&mut scrap);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if self.ahead.len() > AHEAD => {
                    return Poll::Ready(Err(io::Error::other("too much comes before there is an answer")));
                }
                Poll::Ready(Ok(())) => self.ahead.extend_from_slice(buffer.filled()),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        self.link.lock().watching = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_interim(&mut self, cx: &mut Context) -> Poll<io::Result<()>> {
        loop {
            let left = self.link.lock().interim;
            if left == 0 {
                return Poll::Ready(Ok(()));
            }
            let rest = &CONTINUE[CONTINUE.len() - left..];
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            self.link.lock().interim -= written.min(left);
        }
    }

    fn wrote<T>(&mut self, cx: &mut Context, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match result {
            Poll::Ready(result) => {
                self.writing.until = None;
                Poll::Ready(result)
            }
            Poll::Pending => {
                let until = self.writing.until.unwrap_or_else(|| Instant::now() + self.times.stall);
                ready!(self.writing.poll(cx, until));
                Poll::Ready(Err(late("the peer reads nothing")))
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context, buffer: &mut ReadBuf) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.link.lock().whole {
            return this.poll_gone(cx);
        }
        let before = buffer.filled().len();
        let read = match this.ahead.is_empty() {
            true => Pin::new(&mut this.stream).poll_read(cx, buffer),
            false => {
                let size = this.ahead.len().min(buffer.remaining());
                buffer.put_slice(&this.ahead.split_to(size));
                Poll::Ready(Ok(()))
            }
        };
        if let Poll::Ready(result) = read {
            if buffer.filled().len() > before {
                let mut state = this.link.lock();
                if let Phase::Idle(_) = state.phase {
                    state.phase = Phase::Head(Instant::now());
                }
                if let Phase::Head(_) = state.phase {
                    drop(state);
                    this.keep_back(buffer, before);
                }
            }
            return Poll::Ready(result);
        }
        let phase = this.link.lock().phase;
        let until = match phase {
            Phase::Idle(since) => since + this.times.idle,
            Phase::Head(since) => since + this.times.header,
            Phase::Busy => return Poll::Pending,
        };
        ready!(this.reading.poll(cx, until));
        Poll::Ready(Err(late("no request came")))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = match this.poll_interim(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.stream).poll_write(cx, buffer),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        this.wrote(cx, result)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context, buffers: &[IoSlice]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = match this.poll_interim(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.stream).poll_write_vectored(cx, buffers),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        this.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_interim(cx))?;
        // Where nothing is read, this is where HTTP comes by.
        if this.link.lock().whole && this.poll_gone(cx)?.is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the peer has gone",
            )));
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// A timer that is made when it is first needed: most connections need it rarely.
#[derive(Debug, Default)]
struct Alarm {
    until: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    fn poll(&mut self, cx: &mut Context, until: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        self.until = Some(until);
        sleep.as_mut().poll(cx)
    }
}

//! What requests hold while they last: a place to write, a place to read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::link::Busy;
use super::registry::{Entry, Registry};
use crate::trickle::channel::{Append, Channel, Finished, Head, Read, Reader, Writer, Writing};

/// Who writes a segment. Dropped, it has broken off.
#[derive(Debug)]
pub(super) struct WriteHold {
    pub(super) entry: Arc<Entry>,
    pub(super) registry: Arc<Registry>,
    writer: Option<Writer>,
}

impl WriteHold {
    pub(super) fn new(registry: &Arc<Registry>, entry: Arc<Entry>, writer: Writer) -> Self {
        Self {
            entry,
            registry: registry.clone(),
            writer: Some(writer),
        }
    }

    /// `None`: the server holds as much as it may.
    pub(super) fn append(&mut self, bytes: Bytes) -> Option<Append> {
        let writer = self.writer.as_ref()?;
        if !self.registry.has_memory_for(Channel::<()>::cost_of(&bytes)) {
            return None;
        }
        let now = self.registry.now();
        Some(self.entry.with(|ring| ring.append(now, writer, bytes)))
    }

    /// Whether to go on; woken when that changes.
    pub(super) fn poll_writing(&self, cx: &mut Context) -> Writing {
        let Some(writer) = &self.writer else {
            return Writing::Open;
        };
        self.entry.with(|ring| {
            let writing = ring.writing(writer);
            if writing == Writing::Open {
                ring.park_writer(writer, cx.waker().clone());
            }
            writing
        })
    }

    pub(super) fn finish(mut self) -> Finished {
        match self.writer.take() {
            Some(writer) => self.entry.with(|ring| ring.finish(writer)),
            None => Finished {
                empty: true,
                closed: false,
            },
        }
    }
}

impl Drop for WriteHold {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            let now = self.registry.now();
            self.entry.with(|ring| ring.abort(now, writer));
        }
    }
}

/// Who reads a segment.
#[derive(Debug)]
pub(super) struct ReadHold {
    pub(super) entry: Arc<Entry>,
    reader: Option<Reader>,
}

impl ReadHold {
    pub(super) fn new(entry: Arc<Entry>, reader: Reader) -> Self {
        Self {
            entry,
            reader: Some(reader),
        }
    }

    pub(super) fn poll_head(&self, cx: &mut Context) -> Poll<Head> {
        let Some(reader) = &self.reader else {
            return Poll::Pending;
        };
        self.entry.with(|ring| match ring.head(reader) {
            Head::Wait => {
                ring.park_reader(reader, cx.waker().clone());
                Poll::Pending
            }
            head @ (Head::Data { .. } | Head::Empty { .. }) => Poll::Ready(head),
        })
    }

    fn poll_read(&self, cx: &mut Context) -> Poll<Option<Bytes>> {
        let Some(reader) = &self.reader else {
            return Poll::Ready(None);
        };
        self.entry.with(|ring| match ring.read(reader) {
            Read::Data(bytes) => Poll::Ready(Some(bytes)),
            Read::End => Poll::Ready(None),
            Read::Wait => {
                ring.park_reader(reader, cx.waker().clone());
                Poll::Pending
            }
        })
    }
}

impl Drop for ReadHold {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.entry.with(|ring| ring.close_read(reader));
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct AnswerBody {
    content: Content,
    _busy: Option<Busy>,
}

#[derive(Debug)]
enum Content {
    Text(Bytes),
    Segment(ReadHold),
}

impl AnswerBody {
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self {
            content: Content::Text(text.into()),
            _busy: None,
        }
    }

    pub(super) fn segment(hold: ReadHold) -> Self {
        Self {
            content: Content::Segment(hold),
            _busy: None,
        }
    }

    /// The request lasts until this body is gone.
    pub(super) fn holding(self, busy: Busy) -> Self {
        Self {
            _busy: Some(busy),
            ..self
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut self.get_mut().content {
            Content::Text(text) if text.is_empty() => Poll::Ready(None),
            Content::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Content::Segment(hold) => hold.poll_read(cx).map(|read| read.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Text(text) if text.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Text(text) => SizeHint::with_exact(text.len() as u64),
            Content::Segment(_) => SizeHint::default(),
        }
    }
}

//! What comfyunbatch's lock protects: for each stream its pad and a bounded queue. Nothing here calls out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Pacing;
use crate::batchcaps;
use crate::streampad::ComfyStreamPad;
use crate::video;
use crate::wake::{Timeline, Waker};

/// What a src pad's task pushes.
pub(super) enum Item {
    Frame(gst::Buffer),
    Event(gst::Event),
    /// The stream has left: its pad goes.
    Remove,
}

/// One stream.
pub(super) struct Stream {
    pub(super) pad: ComfyStreamPad,
    pub(super) added: Arc<Waker>,
    pub(super) queue: VecDeque<Item>,
    /// Frames among the queue.
    pub(super) frames: usize,
    /// The pad task's last word.
    pub(super) flow: Result<gst::FlowSuccess, gst::FlowError>,
    /// The task has nothing in its hands.
    pub(super) idle: bool,
    /// Number of the caps it has.
    pub(super) caps: u64,
    /// What comes is void until its flush ends.
    pub(super) void: bool,
    /// Number of its latest flush: the end of an earlier one is not its end.
    pub(super) flush: u64,
    /// How many wait for the pad's task to pause. It must not go on before it has.
    pub(super) pausing: u32,
    pub(super) eos: bool,
    /// It has left: whoever has its number next waits until it is gone.
    pub(super) leaving: bool,
    /// Its pad is being removed.
    pub(super) going: bool,
    /// For pacing.
    pub(super) segment: gst::FormattedSegment<gst::ClockTime>,
}

impl Stream {
    pub(super) fn new(pad: ComfyStreamPad) -> Self {
        Self {
            pad,
            added: Arc::default(),
            queue: VecDeque::new(),
            frames: 0,
            flow: Err(gst::FlowError::Flushing),
            idle: true,
            caps: 0,
            void: false,
            flush: 0,
            pausing: 0,
            eos: false,
            leaving: false,
            going: false,
            segment: gst::FormattedSegment::new(),
        }
    }

    /// Drops what waits, though not that it leaves, and answers the events among it; the pad's task stops at its next
    /// look.
    pub(super) fn flush(&mut self) -> Vec<gst::Event> {
        self.flow = Err(gst::FlowError::Flushing);
        let event = |item| match item {
            Item::Event(event) => Some(event),
            Item::Frame(_) | Item::Remove => None,
        };
        let dropped = self.queue.drain(..).filter_map(event).collect();
        if self.leaving {
            self.queue.push_back(Item::Remove);
        }
        self.frames = 0;
        self.added.wake();
        dropped
    }

    pub(super) fn push(&mut self, item: Item) {
        match &item {
            Item::Frame(_) => self.frames += 1,
            Item::Event(event) => match event.view() {
                gst::EventView::Eos(_) => self.eos = true,
                gst::EventView::StreamStart(_) => self.eos = false,
                _ => (),
            },
            Item::Remove => self.leaving = true,
        }
        self.queue.push_back(item);
    }

    /// EOS of a stream whose downstream wants no more frames: its task is paused, and downstream still waits for the end
    /// itself. True when the caller is to push it.
    pub(super) fn ends_early(&mut self) -> bool {
        let early = !self.eos && self.flow == Err(gst::FlowError::Eos);
        self.eos |= early;
        early
    }

    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        if matches!(item, Item::Frame(_)) {
            self.frames -= 1;
        }
        Some(item)
    }
}

pub(super) struct State {
    pub(super) streams: BTreeMap<u32, Stream>,
    pub(super) pacing: Pacing,
    pub(super) running: bool,
    /// Frame caps as negotiated, numbered so that pads can tell whether they have them.
    pub(super) caps: Option<gst::Caps>,
    pub(super) caps_number: u64,
    /// Frames one stream may have waiting: two batches.
    pub(super) bound: usize,
    pub(super) frame: Option<gst::ClockTime>,
    pub(super) timeline: Timeline,
    pub(super) latency: gst::ClockTime,
    pub(super) frames_out: u64,
    pub(super) batches: u64,
    /// Downstream reads strides from the video meta, as far as it was asked.
    pub(super) video_meta: bool,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            streams: BTreeMap::new(),
            pacing: Pacing::default(),
            running: false,
            caps: None,
            caps_number: 0,
            bound: 2,
            frame: None,
            timeline: Timeline::default(),
            latency: gst::ClockTime::ZERO,
            frames_out: 0,
            batches: 0,
            video_meta: false,
        }
    }

    /// True when the LATENCY answer changes.
    pub(super) fn set_caps(&mut self, batch: &gst::CapsRef) -> bool {
        let before = (self.bound, self.frame);
        let frames = batchcaps::of_batches(batch);
        let size = batchcaps::capacity(batch).unwrap_or(1);
        self.bound = 2 * size;
        let rate = frames
            .structure(0)
            .and_then(|s| s.get::<gst::Fraction>("framerate").ok())
            .filter(|r| r.numer() > 0);
        // The slowest since the start: streams take turns, and an answer that follows each batch's would be told with each.
        self.frame = self.frame.max(rate.map(video::frame_duration));
        if self.caps.as_ref().is_none_or(|caps| !caps.is_strictly_equal(&frames)) {
            self.caps = Some(frames);
            self.caps_number += 1;
        }
        before != (self.bound, self.frame)
    }

    /// Caps that a stream does not have yet; it counts as having them from now on.
    pub(super) fn caps_for(&mut self, stream: u32) -> Option<gst::Event> {
        let number = self.caps_number;
        let caps = self.caps.as_ref()?;
        let stream = self.streams.get_mut(&stream).filter(|s| s.caps != number)?;
        stream.caps = number;
        Some(gst::event::Caps::new(caps))
    }

    /// What upstream is told: the worst of the pads that matter, as demuxers combine it.
    pub(super) fn flow(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        if !self.running {
            return Err(gst::FlowError::Flushing);
        }
        let mut all: Option<gst::FlowError> = None;
        for stream in self.streams.values().filter(|s| !s.leaving) {
            match stream.flow {
                Err(error @ (gst::FlowError::NotLinked | gst::FlowError::Eos | gst::FlowError::Flushing)) => {
                    // Not linked weighs least: a pad nobody wants does not keep the others from ending.
                    all = Some(match all {
                        Some(gst::FlowError::NotLinked) | None => error,
                        Some(other) => other,
                    });
                }
                Err(error) => return Err(error),
                Ok(_) => return Ok(gst::FlowSuccess::Ok),
            }
        }
        all.map_or(Ok(gst::FlowSuccess::Ok), Err)
    }

    pub(super) fn stats(&self) -> gst::Structure {
        gst::Structure::builder("stats")
            .field("batches", self.batches)
            .field("frames-out", self.frames_out)
            .field("streams", self.streams.len() as u32)
            .field("queued", self.streams.values().map(|s| s.frames as u32).sum::<u32>())
            .build()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.streams
            .values()
            .all(|s| s.queue.is_empty() && (s.idle || s.flow.is_err()))
    }
}

//! What comfyflightbuffer's lock protects. Nothing here calls out.

use std::time::Duration;

use comfy_core::flight::{FlightBuffer, Timing};

use super::imp::Settings;
use crate::burst::Burst;
use crate::wake::Timeline;

/// What stands in the queue.
pub(super) enum Item {
    Frame(gst::Buffer),
    Event(gst::Event),
    /// A serialized query waits on its own thread until everything before it has left.
    Barrier,
}

pub(super) struct State {
    pub(super) buffer: FlightBuffer<Item>,
    pub(super) timeline: Timeline,
    /// What the chain function answers: the src task's last word, Flushing when stopped.
    pub(super) flow: Result<gst::FlowSuccess, gst::FlowError>,
    pub(super) eos: bool,
    /// The sink pad's segment, for running time.
    pub(super) segment: gst::FormattedSegment<gst::ClockTime>,
    /// Queries that wait, and how many of them may go.
    pub(super) barriers_set: u64,
    pub(super) barriers_passed: u64,
    pub(super) announced: Option<Burst>,
    /// Events that a flush overtook while they were being pushed.
    pub(super) lost: Vec<gst::Event>,
    /// Frame duration that the last LATENCY answer stood on.
    pub(super) latency_for: Option<Duration>,
}

impl State {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            buffer: FlightBuffer::new(settings.into()),
            timeline: Timeline::default(),
            flow: Err(gst::FlowError::Flushing),
            eos: false,
            segment: gst::FormattedSegment::new(),
            barriers_set: 0,
            barriers_passed: 0,
            announced: None,
            lost: Vec::new(),
            latency_for: None,
        }
    }

    pub(super) fn timing(&self, buffer: &gst::BufferRef) -> Timing {
        Timing {
            time: buffer
                .pts()
                .and_then(|pts| self.segment.to_running_time(pts))
                .map(Into::into),
            duration: buffer.duration().map(Into::into),
            priority: buffer.flags().contains(gst::BufferFlags::NON_DROPPABLE),
        }
    }

    /// Frames are wanted again, though downstream had enough of what came before. True when the task has to be started.
    pub(super) fn resume(&mut self) -> bool {
        let ended = self.flow == Err(gst::FlowError::Eos);
        if ended {
            self.flow = Ok(gst::FlowSuccess::Ok);
        }
        ended
    }

    /// Answers the events that were dropped.
    pub(super) fn reset(&mut self) -> Vec<gst::Event> {
        let event = |item| match item {
            Item::Event(event) => Some(event),
            Item::Frame(_) | Item::Barrier => None,
        };
        let lost = std::mem::take(&mut self.lost);
        let dropped = lost.into_iter().chain(self.buffer.flush().filter_map(event)).collect();
        self.segment = gst::FormattedSegment::new();
        self.eos = false;
        self.barriers_passed = self.barriers_set;
        self.announced = None;
        dropped
    }
}

/// Where downstream, having had enough, may want something: the end itself, or what begins behind it.
pub(super) fn resumes_after_eos(item: &Item) -> bool {
    use gst::EventType::{Eos, Segment, StreamStart};
    matches!(item, Item::Event(event) if matches!(event.type_(), Eos | Segment | StreamStart))
}

pub(super) fn latency(state: &State) -> (gst::ClockTime, gst::ClockTime) {
    let (min, max) = match state.buffer.frame_duration() {
        Some(duration) => state.buffer.latency(duration),
        None => (Duration::ZERO, Duration::ZERO),
    };
    let time = |d: Duration| gst::ClockTime::try_from(d).unwrap_or(gst::ClockTime::MAX);
    (time(min), time(max))
}

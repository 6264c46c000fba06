//! What comfyinfer's lock protects: the batches between its three threads. Nothing here calls out.
//!
//! The chain function converts frames into a free lane and queues a job; the worker runs it; the src task converts
//! the outputs and pushes the batch. Lanes go round: free, filled, run, read, free.

use std::collections::VecDeque;
use std::sync::Arc;

use comfy_core::engine::timing::Turnaround;
use comfy_core::engine::{self, Engine, Geometry, Interrupt, Lane, LaneRequest, OpenRequest};

use crate::stream;

/// One batch on its way.
pub(super) struct Job {
    pub(super) container: gst::Buffer,
    /// The tensors; None: frames pass untouched (no frames in it, or an identity engine to be run for its time).
    pub(super) lane: Option<Box<dyn Lane>>,
    /// What held when it came; None with no frames in it.
    pub(super) prepared: Option<Arc<Prepared>>,
    /// Frames in it.
    pub(super) frames: usize,
    /// Monotonic nanoseconds at which a lane was there for it.
    pub(super) started: u64,
    /// The same when its outputs were there.
    pub(super) finished: u64,
    /// Nanoseconds of conversion into the tensor, and of the model alone.
    pub(super) convert: u64,
    pub(super) run: u64,
    pub(super) result: Result<(), engine::Error>,
}

impl Job {
    fn generation(&self) -> u64 {
        self.prepared.as_ref().map_or(0, |prepared| prepared.generation)
    }
}

/// What the worker does.
pub(super) enum Work {
    /// Load the model, before any frame.
    Load,
    /// Make lanes for these batch caps.
    Prepare(gst::Caps),
    Run(Job),
    /// Keeps its place.
    Event(gst::Event),
}

/// What the src task does.
pub(super) enum Done {
    Prepared(Arc<Prepared>),
    Ran(Job),
    Event(gst::Event),
}

/// Everything that follows from the model and the caps.
pub(super) struct Prepared {
    /// Counts preparations.
    pub(super) number: u64,
    /// Counts sets of lanes: caps may change while the tensors stay.
    pub(super) generation: u64,
    pub(super) engine: Arc<dyn Engine>,
    /// Batch caps as they came.
    pub(super) caps: gst::Caps,
    pub(super) capacity: usize,
    /// None: the engine is the identity, or frames are not mapped here.
    pub(super) tensors: Option<(gst_video::VideoInfo, Geometry)>,
}

/// Counters since the last start.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    pub(super) batches: u64,
    pub(super) frames: u64,
    pub(super) padded: u64,
    pub(super) failed: u64,
    pub(super) passed: u64,
    pub(super) held: u64,
    pub(super) non_finite: u64,
    pub(super) tensors: u64,
    pub(super) convert: u64,
    pub(super) run: u64,
    pub(super) output: u64,
}

/// The engine that is loaded, kept over a stop so that the next start is quick.
pub(super) type Loaded = (OpenRequest, Option<String>, Arc<dyn Engine>);

pub(super) struct State {
    /// What the chain function answers: the src task's last word, Flushing when stopped.
    pub(super) flow: Result<gst::FlowSuccess, gst::FlowError>,
    /// Counts starts: a worker that finds another number ends.
    pub(super) epoch: u64,
    /// The worker is loading or warming up, which cannot be interrupted.
    pub(super) loading: bool,
    pub(super) loaded: Option<Loaded>,
    pub(super) generation: u64,
    /// Caps that were queued, and those that are prepared.
    pub(super) caps_queued: u64,
    pub(super) caps_ready: u64,
    pub(super) prepared: Option<Arc<Prepared>>,
    pub(super) request: Option<LaneRequest>,
    pub(super) free: Vec<Box<dyn Lane>>,
    pub(super) interrupts: Vec<Arc<dyn Interrupt>>,
    pub(super) in_flight: usize,
    pub(super) to_run: VecDeque<Work>,
    pub(super) to_push: VecDeque<Done>,
    /// Sticky events that a flush kept from being pushed.
    pub(super) lost: Vec<gst::Event>,
    /// The worker and the src task have nothing in their hands.
    pub(super) worker_idle: bool,
    pub(super) task_idle: bool,
    pub(super) frame: Option<gst::ClockTime>,
    pub(super) turnaround: Turnaround,
    pub(super) failing: bool,
    pub(super) counts: Counts,
    /// The last output format, for stats.
    pub(super) output: Option<gst::Caps>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            flow: Err(gst::FlowError::Flushing),
            epoch: 0,
            loading: false,
            loaded: None,
            generation: 0,
            caps_queued: 0,
            caps_ready: 0,
            prepared: None,
            request: None,
            free: Vec::new(),
            interrupts: Vec::new(),
            in_flight: 0,
            to_run: VecDeque::new(),
            to_push: VecDeque::new(),
            lost: Vec::new(),
            worker_idle: true,
            task_idle: true,
            frame: None,
            turnaround: Turnaround::default(),
            failing: false,
            counts: Counts::default(),
            output: None,
        }
    }

    /// READY to PAUSED: everything but the loaded engine starts anew. Answers the new epoch.
    pub(super) fn start(&mut self) -> u64 {
        let (epoch, loaded) = (self.epoch + 1, self.loaded.take());
        *self = Self {
            epoch,
            loaded,
            ..Self::new()
        };
        self.to_run.push_back(Work::Load);
        epoch
    }

    /// PAUSED to READY: the worker ends, frames and tensors are let go.
    pub(super) fn clear(&mut self) {
        let (epoch, loaded, loading) = (self.epoch + 1, self.loaded.take(), self.loading);
        *self = Self {
            epoch,
            loaded,
            loading,
            ..Self::new()
        };
    }

    /// Drops batches and events on their way; preparations stay. Lanes that come back are taken in. Answers the events
    /// that hold beyond a flush.
    pub(super) fn flush(&mut self) -> Vec<gst::Event> {
        let mut kept = std::mem::take(&mut self.lost);
        let generation = self.generation;
        let (mut lanes, mut later) = (Vec::new(), Vec::new());
        self.to_run.retain_mut(|work| match work {
            Work::Run(job) => {
                lanes.extend(job.lane.take().filter(|_| job.generation() == generation));
                false
            }
            Work::Event(event) => {
                later.extend(stream::outlives_flush(event).then(|| event.clone()));
                false
            }
            Work::Load | Work::Prepare(_) => true,
        });
        self.to_push.retain_mut(|done| match done {
            Done::Ran(job) => {
                lanes.extend(job.lane.take().filter(|_| job.generation() == generation));
                false
            }
            Done::Event(event) => {
                kept.extend(stream::outlives_flush(event).then(|| event.clone()));
                false
            }
            Done::Prepared(_) => true,
        });
        self.free.extend(lanes);
        self.in_flight = 0;
        kept.extend(later);
        kept
    }

    /// A lane goes back, unless caps have changed meanwhile.
    pub(super) fn give_back(&mut self, job: &mut Job) {
        let Some(lane) = job.lane.take() else { return };
        if job.generation() == self.generation {
            self.free.push(lane);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.to_run.is_empty() && self.to_push.is_empty() && self.worker_idle && self.task_idle
    }
}

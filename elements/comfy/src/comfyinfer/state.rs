//! What comfyinfer's lock protects: the batches between its three threads. Nothing here calls out.
//!
//! The chain function converts frames into a free lane and queues a job; the worker runs it; the src task converts
//! the outputs and pushes the batch. Lanes go round: free, filled, run, read, free.

use std::collections::VecDeque;
use std::sync::Arc;

use comfy_core::engine::{self, Engine, Geometry, Interrupt, Lane, LaneRequest, OpenRequest};
use comfy_core::timing::Longest;

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

/// The tensors for one size of frame. They are kept while other sizes pass, because new ones cost a warm-up.
struct Lanes {
    generation: u64,
    request: LaneRequest,
    geometry: Option<Geometry>,
    free: Vec<Box<dyn Lane>>,
    interrupts: Vec<Arc<dyn Interrupt>>,
}

impl Lanes {
    /// Sizes kept at once.
    const KEPT: usize = 4;
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

impl Counts {
    /// Adds a batch's.
    pub(super) fn add(&mut self, other: &Counts) {
        self.batches += u64::from(other.frames > 0);
        self.frames += other.frames;
        self.padded += other.padded;
        self.failed += other.failed;
        self.passed += other.passed;
        self.held += other.held;
        self.non_finite += other.non_finite;
        self.tensors += other.tensors;
        self.convert += other.convert;
        self.run += other.run;
        self.output += other.output;
    }
}

/// What is told about an engine, also when it has been let go.
#[derive(Debug, Default, Clone)]
pub(super) struct About {
    pub(super) model: String,
    pub(super) runtime: String,
    /// Frames come out changed; otherwise they go on as they came, perhaps with tensors beside them.
    pub(super) pictures: bool,
}

impl About {
    pub(super) fn of(engine: &dyn Engine) -> Self {
        let spec = engine.spec();
        let is_image = |port: &engine::Port| matches!(port.role, engine::Role::Image(_));
        Self {
            model: spec.name.clone(),
            runtime: spec.runtime.clone(),
            pictures: !engine.is_identity() && spec.outputs.iter().any(is_image),
        }
    }
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
    generation: u64,
    /// Caps that were queued, and those that are prepared.
    pub(super) caps_queued: u64,
    pub(super) caps_ready: u64,
    pub(super) prepared: Option<Arc<Prepared>>,
    /// Most recently used last.
    sets: Vec<Lanes>,
    pub(super) in_flight: usize,
    pub(super) to_run: VecDeque<Work>,
    pub(super) to_push: VecDeque<Done>,
    /// Events that a flush overtook while they were being pushed.
    pub(super) lost: Vec<gst::Event>,
    /// The worker and the src task have nothing in their hands.
    pub(super) worker_idle: bool,
    pub(super) task_idle: bool,
    /// Frame duration, of the slowest stream since the start: they take turns, and an answer that follows each batch's
    /// would be told anew with each.
    pub(super) frame: Option<gst::ClockTime>,
    pub(super) turnaround: Longest,
    pub(super) failing: bool,
    pub(super) counts: Counts,
    /// The last output format, and the engine of this run, for stats.
    pub(super) output: Option<gst::Caps>,
    pub(super) about: About,
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
            sets: Vec::new(),
            in_flight: 0,
            to_run: VecDeque::new(),
            to_push: VecDeque::new(),
            lost: Vec::new(),
            worker_idle: true,
            task_idle: true,
            frame: None,
            turnaround: Longest::default(),
            failing: false,
            counts: Counts::default(),
            output: None,
            about: About::default(),
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

    /// PAUSED to READY: the worker ends, frames and tensors are let go. What `stats` says stays until the next start.
    pub(super) fn clear(&mut self) {
        *self = Self {
            epoch: self.epoch + 1,
            loaded: self.loaded.take(),
            loading: self.loading,
            about: std::mem::take(&mut self.about),
            turnaround: std::mem::take(&mut self.turnaround),
            counts: std::mem::take(&mut self.counts),
            output: self.output.take(),
            ..Self::new()
        };
    }

    /// What is added to the LATENCY answer.
    pub(super) fn latency(&self, in_flight: u32) -> (gst::ClockTime, gst::ClockTime) {
        let min = gst::ClockTime::try_from(self.turnaround.answer()).unwrap_or_default();
        let capacity = self.prepared.as_ref().map_or(0, |prepared| prepared.capacity as u64);
        let frame = self.frame.unwrap_or_default();
        (min, frame * (capacity * u64::from(in_flight)))
    }

    /// Drops batches and events on their way, and answers the events; preparations stay. Lanes that come back are
    /// taken in.
    pub(super) fn flush(&mut self) -> Vec<gst::Event> {
        let (mut jobs, mut events) = (Vec::new(), std::mem::take(&mut self.lost));
        // What is to be pushed stands before what is to be run.
        let to_push = std::mem::take(&mut self.to_push);
        for done in to_push {
            match done {
                Done::Ran(job) => jobs.push(job),
                Done::Event(event) => events.push(event),
                done @ Done::Prepared(_) => self.to_push.push_back(done),
            }
        }
        for work in std::mem::take(&mut self.to_run) {
            match work {
                Work::Run(job) => jobs.push(job),
                Work::Event(event) => events.push(event),
                work @ (Work::Load | Work::Prepare(_)) => self.to_run.push_back(work),
            }
        }
        jobs.iter_mut().for_each(|job| self.give_back(job));
        events
    }

    /// Lanes that were made for such frames before, and what their tensors look like.
    pub(super) fn lanes_for(&mut self, request: &LaneRequest) -> Option<(u64, Option<Geometry>)> {
        let index = self.sets.iter().position(|set| set.request == *request)?;
        let set = self.sets.remove(index);
        let found = (set.generation, set.geometry.clone());
        self.sets.push(set);
        Some(found)
    }

    /// New lanes. The set that was not used for longest goes when there are too many.
    pub(super) fn add_lanes(
        &mut self,
        request: LaneRequest,
        geometry: Option<Geometry>,
        free: Vec<Box<dyn Lane>>,
    ) -> u64 {
        self.generation += 1;
        if self.sets.len() == Lanes::KEPT {
            self.sets.remove(0);
        }
        let interrupts: Vec<_> = free.iter().map(|lane| lane.interrupt()).collect();
        // A flush may have asked to end runs while there were no lanes to ask.
        if self.flow == Err(gst::FlowError::Flushing) {
            interrupts.iter().for_each(|interrupt| interrupt.stop());
        }
        let generation = self.generation;
        self.sets.push(Lanes {
            generation,
            request,
            geometry,
            free,
            interrupts,
        });
        generation
    }

    pub(super) fn free_lane(&mut self, generation: u64) -> Option<Box<dyn Lane>> {
        let lane = self
            .sets
            .iter_mut()
            .find(|set| set.generation == generation)?
            .free
            .pop()?;
        self.in_flight += 1;
        Some(lane)
    }

    /// A lane goes back, unless its set has gone meanwhile.
    pub(super) fn give_back(&mut self, job: &mut Job) {
        let Some(lane) = job.lane.take() else { return };
        let generation = job.prepared.as_ref().map_or(0, |prepared| prepared.generation);
        if let Some(set) = self.sets.iter_mut().find(|set| set.generation == generation) {
            set.free.push(lane);
        }
        self.in_flight -= 1;
    }

    pub(super) fn interrupts(&self) -> Vec<Arc<dyn Interrupt>> {
        self.sets
            .iter()
            .flat_map(|set| set.interrupts.iter().cloned())
            .collect()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.to_run.is_empty() && self.to_push.is_empty() && self.worker_idle && self.task_idle
    }
}

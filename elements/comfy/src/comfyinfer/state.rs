//! What comfyinfer's lock protects: the batches between its three threads. Nothing here calls out.
//!
//! The chain function converts frames into a free lane and queues a job; the worker runs it; the src task converts
//! the outputs and pushes the batch. Lanes go round: free, filled, run, read, free. Which model is in use changes
//! between two batches: a batch keeps what was [`Prepared`] when it came, and a model that was swapped out stays until
//! its last lane is back.

use std::collections::VecDeque;
use std::sync::Arc;

use comfy_core::engine::device::Crossings;
use comfy_core::engine::{self, Cancel, Engine, Geometry, Interrupt, LaneRequest, OpenRequest};
use comfy_core::timing::Longest;

use super::settings::Settings;
use super::tensors::{Place, Tensors};

/// One batch on its way.
pub(super) struct Job {
    /// The tensors; None: there are no frames in it. Dropped before the frames, which a GPU may be reading for it.
    pub(super) lane: Option<Tensors>,
    pub(super) container: gst::Buffer,
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
    /// What crossed on the way in.
    pub(super) crossed: Crossings,
    pub(super) result: Result<(), engine::Error>,
}

impl Job {
    /// Waits until a GPU has done with the batch, without the lock: before its lane or its frames go anywhere else.
    pub(super) fn settle(&mut self) -> Result<(), engine::Error> {
        match &mut self.lane {
            Some(lane) => lane.settle(),
            None => Ok(()),
        }
    }
}

/// What the worker does.
pub(super) enum Work {
    /// Make lanes for these batch caps, as soon as there is a model.
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
    /// The model's number.
    model: u64,
    /// Counts sets of lanes: caps may change while the tensors stay.
    pub(super) generation: u64,
    pub(super) engine: Arc<dyn Engine>,
    /// Frames go on as they came, and are marked: the model is not there yet.
    pub(super) stand_in: bool,
    /// It runs on what was there first.
    pub(super) interim: bool,
    /// Batch caps as they came.
    pub(super) caps: gst::Caps,
    pub(super) capacity: usize,
    /// None: the engine is the identity, or frames are not mapped here.
    pub(super) tensors: Option<(gst_video::VideoInfo, Geometry)>,
    /// Where frames and tensors are.
    pub(super) place: Place,
}

/// What a model has to be prepared for.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    pub(super) caps: gst::Caps,
    pub(super) capacity: usize,
    pub(super) info: Option<gst_video::VideoInfo>,
    pub(super) place: Place,
    /// Frame duration.
    pub(super) frame: Option<gst::ClockTime>,
    pub(super) request: LaneRequest,
}

/// The tensors for one size of frame. They are kept while other sizes pass, because new ones cost a warm-up.
pub(super) struct Lanes {
    /// 0 until the model is in use.
    generation: u64,
    request: LaneRequest,
    pub(super) geometry: Option<Geometry>,
    free: Vec<Tensors>,
    interrupts: Vec<Arc<dyn Interrupt>>,
}

impl Lanes {
    /// Sizes kept at once.
    const KEPT: usize = 4;

    pub(super) fn new(request: LaneRequest, geometry: Option<Geometry>, free: Vec<Tensors>) -> Self {
        Self {
            generation: 0,
            request,
            geometry,
            interrupts: free.iter().map(|lane| lane.interrupt()).collect(),
            free,
        }
    }
}

/// Why an engine is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It is the one that the properties name.
    Asked,
    /// It runs the model until its better engine is there.
    Interim,
    /// It lets frames pass until the model is there.
    StandIn,
}

/// An engine and its lanes.
pub(super) struct Model {
    /// Counts models that were in use; 0 until it is.
    number: u64,
    pub(super) role: Role,
    pub(super) request: OpenRequest,
    pub(super) shared: Option<String>,
    pub(super) engine: Arc<dyn Engine>,
    /// Most recently used last.
    sets: Vec<Lanes>,
    /// Lanes on their way.
    out: usize,
}

impl Model {
    pub(super) fn new(role: Role, request: OpenRequest, shared: Option<String>, engine: Arc<dyn Engine>) -> Self {
        Self {
            number: 0,
            role,
            request,
            shared,
            engine,
            sets: Vec::new(),
            out: 0,
        }
    }

    /// Lanes that were made for such frames before.
    pub(super) fn lanes(&self, request: &LaneRequest) -> Option<&Lanes> {
        self.sets.iter().find(|set| set.request == *request)
    }

    /// New lanes. Answers the set that was not used for longest when there are too many; freeing it is the caller's.
    #[must_use]
    pub(super) fn add(&mut self, lanes: Lanes) -> Option<Lanes> {
        let gone = (self.sets.len() == Lanes::KEPT).then(|| self.sets.remove(0));
        self.sets.push(lanes);
        gone
    }

    fn set(&mut self, generation: u64) -> Option<&mut Lanes> {
        self.sets.iter_mut().find(|set| set.generation == generation)
    }
}

/// A model that is to be loaded.
pub(super) struct Wanted {
    pub(super) settings: Settings,
    /// Somebody wrote the property while the element ran, and waits to be told.
    pub(super) told: bool,
}

/// What the loader has in its hands.
pub(super) struct Loading {
    pub(super) model: String,
    pub(super) cancel: Cancel,
}

/// Counters since the last start.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    pub(super) batches: u64,
    pub(super) frames: u64,
    pub(super) padded: u64,
    pub(super) failed: u64,
    pub(super) passed: u64,
    pub(super) warming_up: u64,
    pub(super) held: u64,
    pub(super) non_finite: u64,
    pub(super) tensors: u64,
    pub(super) crossings: Crossings,
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
        self.warming_up += other.warming_up;
        self.held += other.held;
        self.non_finite += other.non_finite;
        self.tensors += other.tensors;
        self.crossings.add(other.crossings);
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

pub(super) struct State {
    /// What the chain function answers: the src task's last word, Flushing when stopped.
    pub(super) flow: Result<gst::FlowSuccess, gst::FlowError>,
    /// Counts starts and stops: a worker or loader that finds another number ends.
    pub(super) epoch: u64,
    /// From READY to PAUSED until PAUSED to READY.
    pub(super) running: bool,
    /// The worker warms up, which cannot be interrupted.
    pub(super) warming: bool,
    /// The model in use. Kept over a stop so that the next start is quick.
    pub(super) model: Option<Model>,
    /// Models that were swapped out and whose lanes are not all back, or that nobody has freed yet.
    retired: Vec<Model>,
    /// The model that the loader takes up next: the last one asked for.
    pub(super) wanted: Option<Wanted>,
    /// There is a loader thread.
    pub(super) loader: bool,
    /// What it loads and warms up, which cannot always be interrupted.
    pub(super) loading: Option<Loading>,
    models: u64,
    generation: u64,
    preparations: u64,
    /// Caps that were queued, and those that are prepared.
    pub(super) caps_queued: u64,
    pub(super) caps_ready: u64,
    /// Batch caps in force.
    pub(super) caps: Option<gst::Caps>,
    /// Somebody upstream waits for the model, to learn its batch size.
    pub(super) asked: bool,
    pub(super) prepared: Option<Arc<Prepared>>,
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
    /// Whether a GPU's runs are recorded, for stats.
    pub(super) graphs: &'static str,
    /// Monotonic nanoseconds at which a GPU had done the last batch.
    pub(super) device_free: u64,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            flow: Err(gst::FlowError::Flushing),
            epoch: 0,
            running: false,
            warming: false,
            model: None,
            retired: Vec::new(),
            wanted: None,
            loader: false,
            loading: None,
            models: 0,
            generation: 0,
            preparations: 0,
            caps_queued: 0,
            caps_ready: 0,
            caps: None,
            asked: false,
            prepared: None,
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
            graphs: "",
            device_free: 0,
        }
    }

    /// READY to PAUSED: everything but the loaded engine starts anew. Answers the new epoch.
    pub(super) fn start(&mut self, settings: &Settings) -> u64 {
        let (kept, retired) = (self.model.take(), std::mem::take(&mut self.retired));
        *self = Self {
            epoch: self.epoch + 1,
            running: true,
            retired,
            ..Self::new()
        };
        match kept {
            Some(model) if model.request == settings.request() && model.shared == settings.shared => {
                self.install(model);
            }
            other => {
                // Another one's name may be wanted: it is freed first.
                self.retired.extend(other);
                self.wanted = Some(Wanted {
                    settings: settings.clone(),
                    told: false,
                });
            }
        }
        self.epoch
    }

    /// PAUSED to READY: the worker ends, frames and tensors are let go. What `stats` says stays until the next start.
    /// Answers what is to be freed, which takes time, without the lock.
    #[must_use]
    pub(super) fn clear(&mut self) -> Self {
        if let Some(loading) = &self.loading {
            loading.cancel.cancel();
        }
        let model = self.model.take_if(|model| model.role == Role::Asked);
        let new = Self {
            epoch: self.epoch + 1,
            about: std::mem::take(&mut self.about),
            turnaround: std::mem::take(&mut self.turnaround),
            counts: std::mem::take(&mut self.counts),
            output: self.output.take(),
            graphs: self.graphs,
            ..Self::new()
        };
        let mut old = std::mem::replace(self, new);
        if let Some(model) = model {
            let engine = model.engine.clone();
            self.model = Some(Model::new(
                Role::Asked,
                model.request.clone(),
                model.shared.clone(),
                engine,
            ));
            old.model = Some(model);
        }
        old
    }

    /// READY to NULL: answers what is to be freed.
    #[must_use]
    pub(super) fn forget(&mut self) -> Option<Model> {
        // Whatever a loader that was left behind brings comes too late.
        self.epoch += 1;
        self.model.take()
    }

    /// From now on batches go to this model. Those on their way keep theirs.
    pub(super) fn install(&mut self, mut model: Model) {
        self.models += 1;
        model.number = self.models;
        for set in &mut model.sets {
            self.generation += 1;
            set.generation = self.generation;
        }
        self.about = match model.role {
            Role::StandIn => About::default(),
            Role::Asked | Role::Interim => About::of(&*model.engine),
        };
        if model.role == Role::Asked {
            // From here on the loader ends at once, and who stops may wait for it.
            self.loading = None;
        }
        // What the last one took says nothing about this one.
        self.turnaround = Longest::default();
        self.stop_new(&model.sets);
        if let Some(old) = self.model.replace(model) {
            self.retired.push(old);
        }
    }

    /// A flush may have asked to end runs while there were no lanes to ask.
    fn stop_new(&self, sets: &[Lanes]) {
        if self.flow == Err(gst::FlowError::Flushing) {
            let interrupts = sets.iter().flat_map(|set| &set.interrupts);
            interrupts.for_each(|interrupt| interrupt.stop());
        }
    }

    /// New lanes of the model in use. What it answers is to be freed.
    #[must_use]
    pub(super) fn add_lanes(&mut self, mut lanes: Lanes) -> Option<Lanes> {
        self.generation += 1;
        lanes.generation = self.generation;
        self.stop_new(std::slice::from_ref(&lanes));
        self.model.as_mut().and_then(|model| model.add(lanes))
    }

    /// Has the batches to come be prepared so; None without lanes for it.
    pub(super) fn prepare(&mut self, fit: Fit) -> Option<Arc<Prepared>> {
        let model = self.model.as_mut()?;
        let index = model.sets.iter().position(|set| set.request == fit.request)?;
        let set = model.sets.remove(index);
        let (generation, geometry) = (set.generation, set.geometry.clone());
        model.sets.push(set);
        self.preparations += 1;
        let prepared = Arc::new(Prepared {
            number: self.preparations,
            model: model.number,
            generation,
            engine: model.engine.clone(),
            stand_in: model.role == Role::StandIn,
            interim: model.role == Role::Interim,
            caps: fit.caps.clone(),
            capacity: fit.capacity,
            tensors: fit.info.zip(geometry),
            place: fit.place,
        });
        self.frame = self.frame.max(fit.frame);
        self.caps = Some(fit.caps);
        self.prepared = Some(prepared.clone());
        Some(prepared)
    }

    /// Models whose last lane is back.
    pub(super) fn take_retired(&mut self) -> Vec<Model> {
        self.retired.extract_if(.., |model| model.out == 0).collect()
    }

    pub(super) fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Whether a model that was asked for is in use.
    pub(super) fn has_asked(&self) -> bool {
        self.model.as_ref().is_some_and(|model| model.role == Role::Asked)
    }

    /// The worker's next. Caps wait for a model, and everything behind them does.
    pub(super) fn next_work(&mut self) -> Option<Work> {
        if self.model.is_none() && matches!(self.to_run.front(), Some(Work::Prepare(_))) {
            return None;
        }
        self.to_run.pop_front()
    }

    /// Batch caps that frames come with, or will.
    pub(super) fn next_caps(&self) -> Option<&gst::Caps> {
        let queued = self.to_run.iter().find_map(|work| match work {
            Work::Prepare(caps) => Some(caps),
            Work::Run(_) | Work::Event(_) => None,
        });
        queued.or(self.caps.as_ref())
    }

    /// What is added to the LATENCY answer.
    pub(super) fn latency(&self, in_flight: u32) -> (gst::ClockTime, gst::ClockTime) {
        let min = gst::ClockTime::try_from(self.turnaround.answer()).unwrap_or_default();
        let capacity = self.prepared.as_ref().map_or(0, |prepared| prepared.capacity as u64);
        let frame = self.frame.unwrap_or_default();
        (min, frame * (capacity * u64::from(in_flight)))
    }

    /// Takes out batches and events on their way; preparations stay. The batches are to be settled, and their lanes given
    /// back.
    #[must_use]
    pub(super) fn flush(&mut self) -> (Vec<gst::Event>, Vec<Job>) {
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
                work @ Work::Prepare(_) => self.to_run.push_back(work),
            }
        }
        (events, jobs)
    }

    pub(super) fn free_lane(&mut self, generation: u64) -> Option<Tensors> {
        let model = self.model.as_mut()?;
        let lane = model.set(generation)?.free.pop()?;
        model.out += 1;
        Some(lane)
    }

    /// A lane goes back, unless its set has gone meanwhile. True when it belongs to the model in use.
    ///
    /// The batch's hold on its model goes with it: a model that was swapped out is freed by the loader, not by
    /// whoever happens to have its last batch.
    pub(super) fn give_back(&mut self, job: &mut Job) -> bool {
        let (Some(lane), Some(prepared)) = (job.lane.take(), job.prepared.take()) else {
            return false;
        };
        let mut models = self.model.iter_mut().chain(&mut self.retired);
        if let Some(model) = models.find(|model| model.number == prepared.model) {
            model.out -= 1;
            if let Some(set) = model.set(prepared.generation) {
                set.free.push(lane);
            }
        }
        self.model.as_ref().is_some_and(|model| model.number == prepared.model)
    }

    /// Lanes on their way.
    pub(super) fn in_flight(&self) -> usize {
        self.model.iter().chain(&self.retired).map(|model| model.out).sum()
    }

    pub(super) fn interrupts(&self) -> Vec<Arc<dyn Interrupt>> {
        let models = self.model.iter().chain(&self.retired);
        let sets = models.flat_map(|model| &model.sets);
        sets.flat_map(|set| set.interrupts.iter().cloned()).collect()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.to_run.is_empty() && self.to_push.is_empty() && self.worker_idle && self.task_idle
    }
}

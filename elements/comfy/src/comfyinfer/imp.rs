// Lock order: stream lock (pads), settings, inside / outside, state. `inside` and `outside` each belong to one thread,
// which alone holds them while converting; no other lock is held while calling out. Four threads: the chain function
// converts frames into tensors (here), `worker.rs` runs the model, `task.rs` turns tensors into frames and pushes, and
// `swap.rs` loads models.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;

use comfy_core::engine::device::Crossings;
use comfy_core::engine::{self, BatchSizes};
use comfy_core::tensor::IntoTensor;
use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::{Mutex, MutexGuard};

use super::output::Outside;
use super::settings::{self, PROP_MODEL, PROP_ON_ERROR, PROP_STATS, Settings};
use super::state::{Job, Prepared, Role, State, Work};
use super::tensors::{self, Tensors};
use super::worker::{now, panic_text};
use crate::batchcaps;
use crate::batchmeta::ComfyBatchMeta;
use crate::devicememory::{Gpu, Memory};
use crate::wake::Waker;
use crate::{preference, stream, video};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "comfyinfer",
        gst::DebugColorFlags::empty(),
        Some("Models on batches of frames"),
    )
});

/// Serialized events that may wait for the worker.
const MAX_EVENTS: usize = 1024;

pub struct ComfyInfer {
    sinkpad: gst::Pad,
    pub(super) srcpad: gst::Pad,
    pub(super) settings: Mutex<Settings>,
    /// The chain function's converter, and the preparation it belongs to.
    inside: Mutex<Option<(u64, IntoTensor)>>,
    /// The src task's side.
    pub(super) outside: Mutex<Option<Outside>>,
    /// The src task's pool, for whoever has to end its waits.
    pub(super) pool: Mutex<Option<gst::BufferPool>>,
    pub(super) state: Mutex<State>,
    /// From READY on, where the model may run on a GPU.
    pub(super) gpu: Mutex<Option<Arc<Gpu>>>,
    /// The worker waits for work.
    pub(super) work: Waker,
    /// The src task waits for what is done.
    pub(super) done: Waker,
    /// Upstream waits for a lane, a preparation, or its turn, and the loader for what was swapped out.
    pub(super) room: Waker,
    thread: Mutex<Option<JoinHandle<()>>>,
    pub(super) loader: Mutex<Option<JoinHandle<()>>>,
}

#[glib::object_subclass]
impl ObjectSubclass for ComfyInfer {
    const NAME: &'static str = "GstComfyInfer";
    type Type = super::ComfyInfer;
    type ParentType = gst::Element;

    fn with_class(klass: &Self::Class) -> Self {
        let sinkpad = gst::Pad::builder_from_template(&klass.pad_template("sink").expect("installed in class_init"))
            .chain_function(|_pad, parent, buffer| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.chain(buffer))
            })
            // With a flow return: while this element stops, a plain refusal would be an error to upstream.
            .event_full_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.sink_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_query(pad, query))
            })
            .build();
        let srcpad = gst::Pad::builder_from_template(&klass.pad_template("src").expect("installed in class_init"))
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_query(pad, query))
            })
            .activatemode_function(|_pad, parent, mode, active| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::loggable_error!(CAT, "panic in activation")),
                    |imp| imp.src_activate(mode, active),
                )
            })
            .build();
        Self {
            sinkpad,
            srcpad,
            settings: Mutex::default(),
            inside: Mutex::new(None),
            outside: Mutex::new(None),
            pool: Mutex::new(None),
            state: Mutex::new(State::new()),
            gpu: Mutex::new(None),
            work: Waker::default(),
            done: Waker::default(),
            room: Waker::default(),
            thread: Mutex::new(None),
            loader: Mutex::new(None),
        }
    }
}

impl ObjectImpl for ComfyInfer {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(settings::properties);
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if pspec.name() == PROP_MODEL {
            self.set_model(value);
            return;
        }
        let locked = self.obj().current_state() > gst::State::Ready;
        if locked && pspec.name() != PROP_ON_ERROR {
            gst::warning!(
                CAT,
                imp = self,
                "property {} can only be set in READY or below: ignored",
                pspec.name()
            );
            return;
        }
        self.settings.lock().set(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            PROP_STATS => self.stats().to_value(),
            name => self.settings.lock().get(name),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        engine::watch_thread();
        let obj = self.obj();
        obj.add_pad(&self.sinkpad).expect("a new element has no pads");
        obj.add_pad(&self.srcpad).expect("a new element has no pads");
    }
}

impl GstObjectImpl for ComfyInfer {}

impl ElementImpl for ComfyInfer {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Comfy inference",
                "Filter/Effect/Video",
                "Runs a model on batches of video frames and gives back its pictures or tensors",
                "The gst-comfy developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                .map(|(name, direction)| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &batchcaps::batch_template())
                        .expect("valid template")
                })
                .into()
        });
        &TEMPLATES
    }

    fn set_context(&self, context: &gst::Context) {
        self.look_at_context(context);
        self.parent_set_context(context);
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::NullToReady => self.open_gpu(),
            gst::StateChange::ReadyToPaused => self.start_worker()?,
            // Before the parent deactivates pads, so that no stream lock is held by a wait.
            gst::StateChange::PausedToReady => self.stop(),
            _ => (),
        }
        let result = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::PausedToReady => self.end_worker(),
            gst::StateChange::ReadyToNull => {
                let gone = self.state.lock().forget();
                drop(gone);
                *self.gpu.lock() = None;
            }
            _ => (),
        }
        Ok(result)
    }
}

impl ComfyInfer {
    // --- input ----------------------------------------------------------------------------------------------

    fn chain(&self, mut container: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let frames = container.meta::<ComfyBatchMeta>().map(|meta| meta.batch().frames.len());
        let Some(frames) = frames else {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                ("a buffer without ComfyBatchMeta arrived; put comfybatch before comfyinfer")
            );
            return Err(gst::FlowError::Error);
        };
        if container.get_mut().is_none() {
            // Another branch has it too: references to the same frames, in a container of our own.
            container = container.copy();
        }
        for frame in &mut container
            .get_mut()
            .and_then(|c| c.meta_mut::<ComfyBatchMeta>())
            .expect("looked at above, and ours alone")
            .batch_mut()
            .frames
        {
            // What a model upstream made of it is what came in here.
            if let Some(output) = frame.output.take() {
                frame.input = output;
            }
        }
        let mut state = self.state.lock();
        let (lane, prepared) = loop {
            state.flow?;
            if frames == 0 {
                break (None, None);
            }
            if state.caps_ready == state.caps_queued {
                let Some(prepared) = state.prepared.clone() else {
                    return Err(gst::FlowError::NotNegotiated);
                };
                if let Some(lane) = state.free_lane(prepared.generation) {
                    break (Some(lane), Some(prepared));
                }
            }
            self.room.wait(&mut state);
        };
        drop(state);

        let mut job = Job {
            lane,
            container,
            prepared: prepared.clone(),
            frames,
            started: now(),
            finished: 0,
            convert: 0,
            run: 0,
            crossed: Crossings::default(),
            result: Ok(()),
        };
        if let Some(prepared) = prepared
            && let Err(error) = self.convert_guarded(&mut job, &prepared)
        {
            // The error that counts is there already.
            let _ = job.settle();
            self.state.lock().give_back(&mut job);
            self.fail(&error);
            return Err(gst::FlowError::Error);
        }
        job.convert = now() - job.started;
        let mut state = self.state.lock();
        if let Err(error) = state.flow {
            let _ = MutexGuard::unlocked(&mut state, || job.settle());
            state.give_back(&mut job);
            self.room.wake();
            return Err(error);
        }
        state.to_run.push_back(Work::Run(job));
        self.work.wake();
        Ok(gst::FlowSuccess::Ok)
    }

    /// Converts, and takes a panic for what it is: a failure of the engine whose tensors are written. The guard around the
    /// pad would answer every later call with a bare word.
    fn convert_guarded(&self, job: &mut Job, prepared: &Prepared) -> Result<(), engine::Error> {
        let converted = catch_unwind(AssertUnwindSafe(|| self.convert(job, prepared)));
        let model = || prepared.engine.spec().name.clone();
        match converted {
            Ok(converted) => converted.map_err(|error| match error {
                engine::Error::Setting(reason) => engine::Error::Fit { model: model(), reason },
                error => error,
            }),
            Err(panic) => {
                *self.inside.lock() = None;
                Err(engine::Error::Run {
                    model: model(),
                    reason: format!("the engine panicked: {}", panic_text(panic.as_ref())),
                })
            }
        }
    }

    /// Each frame straight into its slot of the input tensor.
    fn convert(&self, job: &mut Job, prepared: &Prepared) -> Result<(), engine::Error> {
        let Some((info, geometry)) = &prepared.tensors else {
            return Ok(());
        };
        let batch = job.container.meta::<ComfyBatchMeta>().expect("looked at in chain");
        let lane = match &mut job.lane {
            Some(Tensors::Main(lane)) => lane,
            Some(Tensors::Device(lane)) => {
                let before = lane.report().crossings;
                tensors::load(&mut **lane, batch.batch(), info, &prepared.place)?;
                job.crossed = lane.report().crossings.since(before);
                return Ok(());
            }
            None => return Ok(()),
        };
        let misfit = engine::Error::Setting;
        let spec =
            video::image_spec(info).ok_or_else(|| misfit(format!("frames are {info:?}, which is not converted")))?;
        let mut inside = self.inside.lock();
        if inside.as_ref().is_none_or(|(known, _)| *known != prepared.number) {
            let into = IntoTensor::new(spec, geometry.input).map_err(|error| misfit(error.to_string()))?;
            *inside = Some((prepared.number, into));
        }
        let (_, into) = inside.as_mut().expect("made above");
        for (slot, frame) in batch.batch().frames.iter().enumerate() {
            let mapped = gst_video::VideoFrameRef::from_buffer_ref_readable(&frame.input, info).map_err(|_| {
                misfit(format!(
                    "frame {} of stream {} cannot be mapped",
                    frame.sequence, frame.stream
                ))
            })?;
            into.run(&video::image(&mapped), lane.input(slot))
                .map_err(|error| misfit(error.to_string()))?;
        }
        Ok(())
    }

    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> Result<gst::FlowSuccess, gst::FlowError> {
        use gst::EventView;
        match event.view() {
            EventView::FlushStart(_) => {
                self.stop();
                self.srcpad.push_event(event);
                let _ = self.srcpad.pause_task();
                return Ok(gst::FlowSuccess::Ok);
            }
            EventView::FlushStop(_) => {
                self.srcpad.push_event(event);
                self.flush_stop();
                return Ok(gst::FlowSuccess::Ok);
            }
            _ if !event.is_serialized() => {
                return match gst::Pad::event_default(pad, Some(&*self.obj()), event) {
                    true => Ok(gst::FlowSuccess::Ok),
                    false => Err(gst::FlowError::Error),
                };
            }
            _ => (),
        }
        let mut state = self.state.lock();
        if event.type_() == gst::EventType::StreamStart && state.flow == Err(gst::FlowError::Eos) {
            state.flow = Ok(gst::FlowSuccess::Ok);
            drop(state);
            self.start_task();
            state = self.state.lock();
        }
        while state.flow.is_ok() && state.to_run.len() >= MAX_EVENTS {
            self.room.wait(&mut state);
        }
        if event.type_() == gst::EventType::Eos && state.flow == Err(gst::FlowError::Eos) {
            // Downstream wants no more frames, and still waits for the end itself.
            drop(state);
            self.srcpad.push_event(event);
            return Ok(gst::FlowSuccess::Ok);
        }
        state.flow?;
        let work = match event.view() {
            EventView::Caps(caps) => {
                state.caps_queued += 1;
                // A loader may be waiting for them.
                self.room.wake();
                Work::Prepare(caps.caps_owned())
            }
            _ => Work::Event(event),
        };
        state.to_run.push_back(work);
        self.work.wake();
        Ok(gst::FlowSuccess::Ok)
    }

    fn sink_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        use gst::QueryViewMut;
        if preference::is_asked(query) {
            let mut state = self.state.lock();
            state.asked = true;
            self.room.wake();
            while state.flow.is_ok() && state.model.is_none() {
                self.room.wait(&mut state);
            }
            state.asked = false;
            // What stands in for a model says nothing of its wishes.
            let Some(engine) = state
                .model
                .as_ref()
                .filter(|m| m.role != Role::StandIn)
                .map(|m| &m.engine)
            else {
                return false;
            };
            // On the processor a larger batch costs latency and gives nothing; a fixed engine wants to be full.
            let size = match engine.spec().batch {
                BatchSizes::Fixed(size) => size,
                BatchSizes::UpTo(_) => 1,
            };
            drop(state);
            preference::answer(query, size);
            return true;
        }
        if self.answer_context(query) {
            return true;
        }
        match query.view_mut() {
            QueryViewMut::Caps(query) => {
                let caps = self.acceptable(query.filter());
                query.set_result(&caps);
                true
            }
            QueryViewMut::Allocation(query) => self.propose_allocation(query),
            QueryViewMut::Drain(_) => {
                let mut state = self.state.lock();
                while state.flow.is_ok() && !state.is_idle() {
                    self.room.wait(&mut state);
                }
                drop(state);
                self.srcpad.peer_query(query)
            }
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        use gst::QueryViewMut;
        if self.answer_context(query) {
            return true;
        }
        match query.view_mut() {
            QueryViewMut::Latency(_) => {
                if !self.sinkpad.peer_query(query) {
                    return false;
                }
                let QueryViewMut::Latency(query) = query.view_mut() else {
                    return false;
                };
                let (live, min, max) = query.result();
                let in_flight = self.settings.lock().in_flight;
                let (own_min, own_max) = self.state.lock().latency(in_flight);
                gst::debug!(
                    CAT,
                    imp = self,
                    "latency: live {live}, min {min} + {own_min}, max {max:?} + {own_max}"
                );
                query.set(live, min + own_min, max.map(|max| max + own_max.max(own_min)));
                true
            }
            QueryViewMut::Caps(query) => {
                let mut caps = self.srcpad.current_caps().unwrap_or_else(batchcaps::batch_template);
                if let Some(filter) = query.filter() {
                    caps = filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First);
                }
                query.set_result(&caps);
                true
            }
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    // --- life -----------------------------------------------------------------------------------------------

    fn src_activate(&self, mode: gst::PadMode, active: bool) -> Result<(), gst::LoggableError> {
        if mode != gst::PadMode::Push {
            return Err(gst::loggable_error!(CAT, "only push mode"));
        }
        if active {
            self.state.lock().flow = Ok(gst::FlowSuccess::Ok);
            self.start_task();
        } else {
            self.stop();
            self.srcpad
                .stop_task()
                .map_err(|_| gst::loggable_error!(CAT, "task did not stop"))?;
        }
        Ok(())
    }

    fn start_task(&self) {
        if self.srcpad.task_state() == gst::TaskState::Started {
            return;
        }
        // Starting one that is only paused would keep its function and lose the new one.
        let _ = self.srcpad.stop_task();
        let element = self.obj().downgrade();
        let started = self.srcpad.start_task(move || {
            // Until it has to stop: the way through the task and a weak reference costs more than a turn.
            if let Some(element) = element.upgrade() {
                while element.imp().step() {}
            }
        });
        if started.is_err() {
            gst::element_imp_error!(
                self,
                gst::CoreError::StateChange,
                ("the streaming thread cannot be started")
            );
        }
    }

    fn start_worker(&self) -> Result<(), gst::StateChangeError> {
        engine::watch_thread();
        let (settings, epoch) = {
            let settings = self.settings.lock();
            let mut state = self.state.lock();
            (settings.clone(), state.start(&settings))
        };
        let element = self.obj().clone();
        let thread = std::thread::Builder::new().name("comfyinfer".into()).spawn(move || {
            let imp = element.imp();
            let guarded = AssertUnwindSafe(|| imp.work(epoch, settings.in_flight));
            if let Err(panic) = catch_unwind(guarded) {
                let error = engine::Error::Run {
                    model: settings.request().model,
                    reason: format!("it panicked: {}", panic_text(panic.as_ref())),
                };
                imp.worker_failed(epoch, &error);
            }
            let mut state = imp.state.lock();
            if state.epoch == epoch {
                // Nobody waits for a worker that has ended.
                state.worker_idle = true;
                imp.room.wake();
            }
        });
        let started = thread.and_then(|thread| {
            *self.thread.lock() = Some(thread);
            self.start_loader()
        });
        started.map_err(|error| {
            gst::element_imp_error!(
                self,
                gst::CoreError::Thread,
                ("a thread for the model cannot be started: {error}")
            );
            self.end_worker();
            gst::StateChangeError
        })
    }

    /// Ends every wait, and the run in progress.
    fn stop(&self) {
        let mut state = self.state.lock();
        state.flow = Err(gst::FlowError::Flushing);
        let interrupts = state.interrupts();
        self.work.wake();
        self.done.wake();
        self.room.wake();
        drop(state);
        for interrupt in interrupts {
            interrupt.stop();
        }
        if let Some(pool) = &*self.pool.lock() {
            pool.set_flushing(true);
        }
    }

    fn flush_stop(&self) {
        if let Some(pool) = &*self.pool.lock() {
            pool.set_flushing(false);
        }
        let mut state = self.state.lock();
        let mut dropped = self.drop_batches(&mut state);
        // The run that was interrupted hands its lane back first, or it would be taken for a failure.
        while !state.worker_idle && !state.warming {
            self.room.wait(&mut state);
        }
        dropped.extend(self.drop_batches(&mut state));
        self.room.wake();
        let interrupts = state.interrupts();
        state.flow = Ok(gst::FlowSuccess::Ok);
        drop(state);
        for interrupt in interrupts {
            interrupt.resume();
        }
        stream::keep_sticky(&self.srcpad, dropped);
        self.start_task();
    }

    /// Lets batches on their way go, and gives their lanes back. Answers the events between them.
    fn drop_batches(&self, state: &mut MutexGuard<'_, State>) -> Vec<gst::Event> {
        let (events, mut jobs) = state.flush();
        MutexGuard::unlocked(state, || {
            for job in &mut jobs {
                // What failed is dropped.
                let _ = job.settle();
            }
        });
        for job in &mut jobs {
            state.give_back(job);
        }
        MutexGuard::unlocked(state, || drop(jobs));
        events
    }

    fn end_worker(&self) {
        engine::watch_thread();
        let mut state = self.state.lock();
        let (warming, loading) = (state.warming, state.loading.is_some());
        let gone = state.clear();
        self.work.wake();
        self.room.wake();
        drop(state);
        drop(gone);
        // A load cannot always be interrupted, and a state change waits for none: such a thread ends by itself.
        let (thread, loader) = (self.thread.lock().take(), self.loader.lock().take());
        if let Some(thread) = thread.filter(|_| !warming) {
            let _ = thread.join();
        }
        if let Some(thread) = loader.filter(|_| !loading) {
            let _ = thread.join();
        }
        *self.inside.lock() = None;
        *self.outside.lock() = None;
        if let Some(pool) = self.pool.lock().take() {
            let _ = pool.set_active(false);
        }
    }

    pub(super) fn post_latency(&self) {
        let obj = self.obj();
        let _ = obj.post_message(gst::message::Latency::builder().src(&*obj).build());
    }

    fn stats(&self) -> gst::Structure {
        let state = self.state.lock();
        let counts = &state.counts;
        let prepared = state.prepared.as_ref();
        let mean = |total: u64| total / counts.batches.max(1);
        let builder = gst::Structure::builder("stats")
            .field("model", &state.about.model)
            .field("runtime", &state.about.runtime)
            .field(
                "loading",
                state.loading.as_ref().map_or("", |loading| loading.model.as_str()),
            )
            .field("pictures", state.about.pictures)
            .field("batches", counts.batches)
            .field("frames", counts.frames)
            .field("padded", counts.padded)
            .field("failed", counts.failed)
            .field("passed-through", counts.passed)
            .field("warming-up", counts.warming_up)
            .field("held", counts.held)
            .field("non-finite", counts.non_finite)
            .field("tensors", counts.tensors)
            .field("memory-in", prepared.map_or("", |prepared| prepared.place.input.name()))
            .field(
                "memory-out",
                state.output.as_ref().map_or("", |caps| Memory::of(caps).name()),
            )
            .field("uploads", counts.crossings.uploads)
            .field("downloads", counts.crossings.downloads)
            .field("host-copies", counts.crossings.host_copies)
            .field("device-copies", counts.crossings.device_copies)
            .field("cuda-graphs", state.graphs)
            .field("in-flight", state.in_flight() as u32)
            .field("convert-ns", mean(counts.convert))
            .field("run-ns", mean(counts.run))
            .field("output-ns", mean(counts.output))
            .field("latency-ns", state.turnaround.answer().as_nanos() as u64);
        builder
            .field(
                "output-caps",
                state.output.as_ref().map(ToString::to_string).unwrap_or_default(),
            )
            .build()
    }
}

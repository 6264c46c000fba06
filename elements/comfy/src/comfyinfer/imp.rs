// Lock order: stream lock (pads), settings, inside / outside (each used by one thread alone), state. No lock but
// the last thread's own is held while calling out. Three threads: the chain function converts frames into tensors,
// `worker.rs` runs the model, the src task turns tensors into frames (`output.rs`) and pushes.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread::JoinHandle;
use std::time::Duration;

use comfy_core::engine::{self, BatchSizes, OpenRequest};
use comfy_core::tensor::IntoTensor;
use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::Mutex;

use super::negotiate::{Refused, negotiate};
use super::output::{Broken, Outside};
use super::state::{Counts, Done, Job, Prepared, State, Work};
use super::worker::now;
use super::{Backend, OnError, Precision};
use crate::batchcaps;
use crate::batchmeta::ComfyBatchMeta;
use crate::wake::Waker;
use crate::{preference, stream, video};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "comfyinfer",
        gst::DebugColorFlags::empty(),
        Some("Models on batches of frames"),
    )
});

const PROP_MODEL: &str = "model";
const PROP_BACKEND: &str = "backend";
const PROP_DEVICE_ID: &str = "device-id";
const PROP_PRECISION: &str = "precision";
const PROP_ENGINE_CACHE: &str = "engine-cache";
const PROP_IN_FLIGHT: &str = "in-flight";
const PROP_THREADS: &str = "threads";
const PROP_ON_ERROR: &str = "on-error";
const PROP_SHARED: &str = "shared";
const PROP_STATS: &str = "stats";

const DEFAULT_BACKEND: Backend = Backend::Auto;
const DEFAULT_PRECISION: Precision = Precision::Auto;
const DEFAULT_IN_FLIGHT: u32 = 2;
const DEFAULT_ON_ERROR: OnError = OnError::Fail;
const MAX_IN_FLIGHT: u32 = 8;
const MAX_THREADS: u32 = 256;
/// Serialized events that may wait for the worker.
const MAX_EVENTS: usize = 1024;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    model: Option<String>,
    backend: Backend,
    device_id: u32,
    precision: Precision,
    engine_cache: Option<String>,
    pub(super) in_flight: u32,
    threads: u32,
    on_error: OnError,
    pub(super) shared: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: None,
            backend: DEFAULT_BACKEND,
            device_id: 0,
            precision: DEFAULT_PRECISION,
            engine_cache: None,
            in_flight: DEFAULT_IN_FLIGHT,
            threads: 0,
            on_error: DEFAULT_ON_ERROR,
            shared: None,
        }
    }
}

impl Settings {
    pub(super) fn request(&self) -> OpenRequest {
        OpenRequest {
            model: self.model.clone().unwrap_or_default(),
            backend: self.backend.into(),
            device: self.device_id,
            precision: self.precision.into(),
            threads: self.threads as usize,
            cache: self.engine_cache.as_ref().map(PathBuf::from),
            library: plugin_folder(),
        }
    }

    /// Whether frames will pass untouched, as far as settings tell before anything is loaded.
    fn is_identity(&self) -> bool {
        let model = self.model.as_deref().unwrap_or("");
        let null = model.starts_with("builtin:null") || (model.is_empty() && self.backend == Backend::Null);
        null && !model.contains("copy=true")
    }
}

/// Where this plugin lies: ONNX Runtime may be beside it.
fn plugin_folder() -> Option<PathBuf> {
    let file = gst::Registry::get().find_plugin("comfy")?.filename()?;
    file.parent().map(PathBuf::from)
}

pub struct ComfyInfer {
    sinkpad: gst::Pad,
    srcpad: gst::Pad,
    settings: Mutex<Settings>,
    /// The chain function's converter, and the preparation it belongs to.
    inside: Mutex<Option<(u64, IntoTensor)>>,
    /// The src task's side.
    outside: Mutex<Option<Outside>>,
    /// The src task's pool, for whoever has to end its waits.
    pool: Mutex<Option<gst::BufferPool>>,
    pub(super) state: Mutex<State>,
    /// The worker waits for work.
    pub(super) work: Waker,
    /// The src task waits for what is done.
    pub(super) done: Waker,
    /// Upstream waits for a lane, a preparation, or its turn.
    pub(super) room: Waker,
    thread: Mutex<Option<JoinHandle<()>>>,
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
            // With a flow return: a refused event would be an error to upstream, where this element only stops.
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
            work: Waker::default(),
            done: Waker::default(),
            room: Waker::default(),
            thread: Mutex::new(None),
        }
    }
}

impl ObjectImpl for ComfyInfer {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecString::builder(PROP_MODEL)
                    .nick("Model")
                    .blurb("Path of an .onnx model, with its manifest, if any, beside it as .toml; or builtin:invert, builtin:null?base=5ms&per-image=2ms")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder_with_default(PROP_BACKEND, DEFAULT_BACKEND)
                    .nick("Backend")
                    .blurb("Which runtime runs the model; a named one fails with its reason when it cannot be had, auto takes the best that works")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder(PROP_DEVICE_ID)
                    .nick("Device Id")
                    .blurb("Number of the GPU that runs the model, from 0; unused on the processor")
                    .maximum(63)
                    .default_value(0)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder_with_default(PROP_PRECISION, DEFAULT_PRECISION)
                    .nick("Precision")
                    .blurb("Numeric precision asked of the provider; the processor runs every model as it is")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder(PROP_ENGINE_CACHE)
                    .nick("Engine Cache")
                    .blurb("Folder for engines compiled from models (unset = a folder of the user's cache)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder(PROP_IN_FLIGHT)
                    .nick("In Flight")
                    .blurb("Batches between arrival and departure: 1 converts, runs and converts back in turn, 2 converts one while another runs, more only adds latency")
                    .minimum(1)
                    .maximum(MAX_IN_FLIGHT)
                    .default_value(DEFAULT_IN_FLIGHT)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder(PROP_THREADS)
                    .nick("Threads")
                    .blurb("Processor threads of one run (0 = half of the cores, at least one)")
                    .maximum(MAX_THREADS)
                    .default_value(0)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder_with_default(PROP_ON_ERROR, DEFAULT_ON_ERROR)
                    .nick("On Error")
                    .blurb("What happens to frames when the model fails on them in the middle of a stream; what goes on is marked, counted and told")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecString::builder(PROP_SHARED)
                    .nick("Shared")
                    .blurb("Elements of one process with the same name here and the same model settings share one loaded model (unset = own)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>(PROP_STATS)
                    .nick("Statistics")
                    .blurb("Runtime in use, batches and frames, frames failed, passed through and held, values not finite, tensors, mean nanoseconds per batch of each stage, and the latency answered")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
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
        let mut settings = self.settings.lock();
        match pspec.name() {
            PROP_MODEL => settings.model = value.get().expect("type checked by GObject"),
            PROP_BACKEND => settings.backend = value.get().expect("type checked by GObject"),
            PROP_DEVICE_ID => settings.device_id = value.get().expect("type checked by GObject"),
            PROP_PRECISION => settings.precision = value.get().expect("type checked by GObject"),
            PROP_ENGINE_CACHE => settings.engine_cache = value.get().expect("type checked by GObject"),
            PROP_IN_FLIGHT => settings.in_flight = value.get().expect("type checked by GObject"),
            PROP_THREADS => settings.threads = value.get().expect("type checked by GObject"),
            PROP_ON_ERROR => settings.on_error = value.get().expect("type checked by GObject"),
            PROP_SHARED => settings.shared = value.get().expect("type checked by GObject"),
            name => unreachable!("property {name} is not writable"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = self.settings.lock().clone();
        match pspec.name() {
            PROP_MODEL => settings.model.to_value(),
            PROP_BACKEND => settings.backend.to_value(),
            PROP_DEVICE_ID => settings.device_id.to_value(),
            PROP_PRECISION => settings.precision.to_value(),
            PROP_ENGINE_CACHE => settings.engine_cache.to_value(),
            PROP_IN_FLIGHT => settings.in_flight.to_value(),
            PROP_THREADS => settings.threads.to_value(),
            PROP_ON_ERROR => settings.on_error.to_value(),
            PROP_SHARED => settings.shared.to_value(),
            PROP_STATS => self.stats().to_value(),
            name => unreachable!("no property {name}"),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
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

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => self.start_worker()?,
            // Before the parent deactivates pads, so that no stream lock is held by a wait.
            gst::StateChange::PausedToReady => self.stop(),
            _ => (),
        }
        let result = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::PausedToReady => self.end_worker(),
            gst::StateChange::ReadyToNull => self.state.lock().loaded = None,
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
                if let Some(lane) = state.free.pop() {
                    break (Some(lane), Some(prepared));
                }
            }
            self.room.wait(&mut state);
        };
        state.in_flight += usize::from(lane.is_some());
        drop(state);

        let mut job = Job {
            container,
            lane,
            prepared: prepared.clone(),
            frames,
            started: now(),
            finished: 0,
            convert: 0,
            run: 0,
            result: Ok(()),
        };
        if let Some(prepared) = prepared
            && let Err(reason) = self.convert(&mut job, &prepared)
        {
            let mut state = self.state.lock();
            state.give_back(&mut job);
            drop(state);
            self.fail(&engine::Error::Fit {
                model: prepared.engine.spec().name.clone(),
                reason,
            });
            return Err(gst::FlowError::Error);
        }
        job.convert = now() - job.started;
        let mut state = self.state.lock();
        if let Err(error) = state.flow {
            state.give_back(&mut job);
            return Err(error);
        }
        state.to_run.push_back(Work::Run(job));
        self.work.wake();
        Ok(gst::FlowSuccess::Ok)
    }

    /// Each frame straight into its slot of the input tensor.
    fn convert(&self, job: &mut Job, prepared: &Prepared) -> Result<(), String> {
        let Some((info, geometry)) = &prepared.tensors else {
            return Ok(());
        };
        let Some(lane) = &mut job.lane else { return Ok(()) };
        let spec = video::image_spec(info).ok_or_else(|| format!("frames are {info:?}, which is not converted"))?;
        let mut inside = self.inside.lock();
        if inside.as_ref().is_none_or(|(known, _)| *known != prepared.number) {
            let into = IntoTensor::new(spec, geometry.input).map_err(|error| error.to_string())?;
            *inside = Some((prepared.number, into));
        }
        let (_, into) = inside.as_mut().expect("made above");
        let batch = job.container.meta::<ComfyBatchMeta>().expect("looked at in chain");
        for (slot, frame) in batch.batch().frames.iter().enumerate() {
            let mapped = gst_video::VideoFrameRef::from_buffer_ref_readable(&frame.input, info)
                .map_err(|_| format!("frame {} of stream {} cannot be mapped", frame.sequence, frame.stream))?;
            into.run(&video::image(&mapped), lane.input(slot))
                .map_err(|error| error.to_string())?;
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
        state.flow?;
        let work = match event.view() {
            EventView::Caps(caps) => {
                state.caps_queued += 1;
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
            while state.flow.is_ok() && state.loaded.is_none() {
                self.room.wait(&mut state);
            }
            let Some((_, _, engine)) = &state.loaded else {
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

    /// Batches that may come in.
    fn acceptable(&self, filter: Option<&gst::CapsRef>) -> gst::Caps {
        let loaded = self.state.lock().loaded.as_ref().map(|(_, _, engine)| engine.clone());
        let identity = match &loaded {
            Some(engine) => engine.is_identity(),
            None => self.settings.lock().is_identity(),
        };
        let pictures = loaded.is_none_or(|engine| {
            engine
                .spec()
                .outputs
                .iter()
                .any(|port| matches!(port.role, engine::Role::Image(_)))
        });
        let peer = self.srcpad.peer_query_caps(None);
        let mut caps = if identity {
            batchcaps::batch_template().intersect_with_mode(&peer, gst::CapsIntersectMode::First)
        } else if !pictures {
            // Frames go on as they came.
            batchcaps::infer_template().intersect_with_mode(&peer, gst::CapsIntersectMode::First)
        } else {
            // Anything that can be converted; formats that downstream takes come first, since output follows input.
            // The output's size is the model's, so downstream's says nothing about the input's.
            let mut formats = peer;
            for structure in formats.make_mut().iter_mut() {
                let others: Vec<String> = structure
                    .fields()
                    .map(|f| f.to_string())
                    .filter(|f| f != "format")
                    .collect();
                structure.remove_fields(others.iter().map(String::as_str));
            }
            let template = batchcaps::infer_template();
            let first = template.intersect_with_mode(&formats, gst::CapsIntersectMode::First);
            first
                .iter_with_features()
                .chain(template.iter_with_features())
                .map(|(s, f)| (s.to_owned(), f.to_owned()))
                .collect()
        };
        if let Some(filter) = filter {
            caps = filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First);
        }
        caps
    }

    /// Frames are read with their own strides, and held while in flight.
    fn propose_allocation(&self, query: &mut gst::query::Allocation) -> bool {
        let Some(caps) = query.get_owned().0 else { return false };
        let in_flight = self.settings.lock().in_flight;
        let capacity = batchcaps::capacity(&caps).unwrap_or(1) as u32;
        let size = gst_video::VideoInfo::from_caps(&batchcaps::of_batches(&caps)).map_or(0, |info| info.size() as u32);
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        query.add_allocation_pool(None::<&gst::BufferPool>, size, capacity * in_flight + 1, 0);
        true
    }

    // --- output ---------------------------------------------------------------------------------------------

    /// One turn of the src task.
    fn step(&self) {
        let mut state = self.state.lock();
        let done = loop {
            if state.flow.is_err() {
                state.task_idle = true;
                drop(state);
                let _ = self.srcpad.pause_task();
                return;
            }
            match state.to_push.pop_front() {
                Some(done) => break done,
                None => {
                    state.task_idle = true;
                    self.room.wake();
                    self.done.wait(&mut state);
                }
            }
        };
        state.task_idle = false;
        drop(state);
        let flow = match done {
            Done::Event(event) => {
                let kept = stream::outlives_flush(&event).then(|| event.clone());
                // Also EOS: a stream-start may stand behind it already.
                if !self.srcpad.push_event(event)
                    && let Some(event) = kept
                {
                    self.state.lock().lost.push(event);
                }
                Ok(gst::FlowSuccess::Ok)
            }
            Done::Prepared(prepared) => self.renegotiate(&prepared),
            Done::Ran(job) => self.finish(job),
        };
        if let Err(error) = flow {
            gst::debug!(CAT, imp = self, "stopping: {error:?}");
            let mut state = self.state.lock();
            if state.flow.is_ok() {
                state.flow = Err(error);
            }
            self.room.wake();
            self.done.wake();
        }
    }

    fn renegotiate(&self, prepared: &Prepared) -> Result<gst::FlowSuccess, gst::FlowError> {
        let in_flight = self.settings.lock().in_flight as usize;
        match negotiate(&self.srcpad, prepared, in_flight) {
            Ok((caps, outside)) => {
                gst::info!(CAT, imp = self, "output {caps}");
                self.state.lock().output = Some(caps.clone());
                *self.pool.lock() = outside.pool();
                *self.outside.lock() = Some(outside);
                if !self.srcpad.push_event(gst::event::Caps::new(&caps)) {
                    // Flushing: the next batch tries again.
                    self.srcpad.mark_reconfigure();
                }
                Ok(gst::FlowSuccess::Ok)
            }
            Err(Refused::Flow(flow)) => Err(flow),
            Err(Refused::Text(_)) if self.state.lock().flow.is_err() => {
                self.srcpad.mark_reconfigure();
                Err(gst::FlowError::Flushing)
            }
            Err(Refused::Text(text)) => {
                gst::element_imp_error!(self, gst::StreamError::Format, ("{text}"));
                Err(gst::FlowError::NotNegotiated)
            }
        }
    }

    /// Outputs of a batch, its lane back, and the batch on its way.
    fn finish(&self, mut job: Job) -> Result<gst::FlowSuccess, gst::FlowError> {
        let on_error = self.settings.lock().on_error;
        let prepared = job.prepared.clone();
        if self.srcpad.check_reconfigure()
            && let Some(prepared) = &prepared
        {
            self.renegotiate(prepared)?;
        }
        let start = now();
        let mut counts = Counts {
            batches: 1,
            frames: job.frames as u64,
            ..Counts::default()
        };
        let mut broken = None;
        if let (Some(lane), Some(prepared)) = (&job.lane, &prepared) {
            let container = job.container.make_mut();
            let mut meta = container.meta_mut::<ComfyBatchMeta>().expect("looked at in chain");
            let batch = meta.batch_mut();
            let mut outside = self.outside.lock();
            let outside = outside
                .as_mut()
                .filter(|outside| outside.generation == prepared.generation);
            let filled = match (&job.result, outside) {
                (_, None) => Err(Broken::Flow(gst::FlowError::NotNegotiated)),
                (Ok(()), Some(outside)) => outside.fill(batch, &**lane, prepared, on_error, &mut counts),
                (Err(engine::Error::Interrupted), _) => Err(Broken::Flow(gst::FlowError::Flushing)),
                (Err(error), Some(outside)) if on_error != OnError::Fail => {
                    broken = Some(error.clone());
                    outside.replace(batch, on_error, &mut counts)
                }
                (Err(error), Some(_)) => {
                    counts.failed += job.frames as u64;
                    broken = Some(error.clone());
                    Err(Broken::Flow(gst::FlowError::Error))
                }
            };
            if let Err(cause) = filled {
                let mut state = self.state.lock();
                state.give_back(&mut job);
                state.counts.failed += counts.failed;
                self.room.wake();
                drop(state);
                return match cause {
                    Broken::Flow(gst::FlowError::Error) => {
                        self.fail(&broken.unwrap_or(engine::Error::Interrupted));
                        Err(gst::FlowError::Error)
                    }
                    Broken::Flow(flow) => Err(flow),
                    Broken::Text(text) => {
                        gst::element_imp_error!(self, gst::StreamError::Failed, ("{text}"));
                        Err(gst::FlowError::Error)
                    }
                };
            }
            if let engine::BatchSizes::Fixed(size) = prepared.engine.spec().batch {
                counts.padded += (job.frames.next_multiple_of(size) - job.frames) as u64;
            }
        }
        counts.output = now() - start;
        (counts.convert, counts.run) = (job.convert, job.run);
        let turnaround = Duration::from_nanos((job.finished - job.started) + counts.output);
        let had_lane = job.lane.is_some();
        let mut state = self.state.lock();
        if had_lane {
            state.give_back(&mut job);
            self.room.wake();
        }
        let relatency = had_lane && state.turnaround.measured(Duration::from_nanos(now()), turnaround);
        let finite = state.counts.non_finite == 0;
        state.counts.add(&counts);
        let changed = had_lane && state.failing != broken.is_some();
        state.failing = broken.is_some() || (state.failing && !had_lane);
        drop(state);
        if changed {
            self.tell_failing(broken.as_ref(), on_error);
        }
        if counts.non_finite > 0 && finite {
            let name = prepared
                .map(|prepared| prepared.engine.spec().name.clone())
                .unwrap_or_default();
            gst::element_imp_warning!(
                self,
                gst::StreamError::Failed,
                (
                    "model {name} gave {} values that are not finite (NaN or infinite) in one batch; they are written as black or white. Check the model's input range in its manifest. Counted in stats, told once",
                    counts.non_finite
                )
            );
        }
        if relatency {
            self.post_latency();
        }
        self.srcpad.push(job.container)
    }

    fn tell_failing(&self, broken: Option<&engine::Error>, on_error: OnError) {
        let mut builder = gst::Structure::builder("comfyinfer").field("failing", broken.is_some());
        if let Some(error) = broken {
            builder = builder.field("error", error.to_string());
            let what = if on_error == OnError::Hold {
                "the last good picture"
            } else {
                "the input"
            };
            gst::element_imp_warning!(
                self,
                gst::StreamError::Failed,
                ("{error}; {what} goes on in its place until it works again")
            );
        }
        let obj = self.obj();
        let _ = obj.post_message(gst::message::Element::builder(builder.build()).src(&*obj).build());
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        use gst::QueryViewMut;
        match query.view_mut() {
            QueryViewMut::Latency(_) => {
                if !self.sinkpad.peer_query(query) {
                    return false;
                }
                let QueryViewMut::Latency(query) = query.view_mut() else {
                    return false;
                };
                let (live, min, max) = query.result();
                let in_flight = u64::from(self.settings.lock().in_flight);
                let state = self.state.lock();
                let own_min = gst::ClockTime::try_from(state.turnaround.answer()).unwrap_or_default();
                let capacity = state.prepared.as_ref().map_or(0, |prepared| prepared.capacity as u64);
                let own_max = state
                    .frame
                    .map_or(gst::ClockTime::ZERO, |frame| frame * (capacity * in_flight));
                drop(state);
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
        let element = self.obj().downgrade();
        let started = self.srcpad.start_task(move || {
            if let Some(element) = element.upgrade() {
                element.imp().step();
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
        let settings = self.settings.lock().clone();
        let epoch = self.state.lock().start();
        let element = self.obj().clone();
        let thread = std::thread::Builder::new().name("comfyinfer".into()).spawn(move || {
            let imp = element.imp();
            let guarded = std::panic::AssertUnwindSafe(|| imp.work(epoch, &settings));
            if std::panic::catch_unwind(guarded).is_err() {
                imp.fail(&engine::Error::Run {
                    model: "comfyinfer".into(),
                    reason: "its worker panicked".into(),
                });
            }
            let mut state = imp.state.lock();
            if state.epoch == epoch {
                // Nobody waits for a worker that has ended.
                state.worker_idle = true;
                imp.room.wake();
            }
        });
        match thread {
            Ok(thread) => {
                *self.thread.lock() = Some(thread);
                Ok(())
            }
            Err(error) => {
                gst::element_imp_error!(
                    self,
                    gst::CoreError::Thread,
                    ("the inference thread cannot be started: {error}")
                );
                Err(gst::StateChangeError)
            }
        }
    }

    /// Ends every wait, and the run in progress.
    fn stop(&self) {
        let mut state = self.state.lock();
        state.flow = Err(gst::FlowError::Flushing);
        let interrupts = state.interrupts.clone();
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
        let mut kept = state.flush();
        // The run that was interrupted hands its lane back first, or it would be taken for a failure.
        while !state.worker_idle && !state.loading {
            self.room.wait(&mut state);
        }
        kept.extend(state.flush());
        let interrupts = state.interrupts.clone();
        state.flow = Ok(gst::FlowSuccess::Ok);
        drop(state);
        for event in kept {
            // Goes on before the next thing that is pushed.
            let _ = self.srcpad.store_sticky_event(&event);
        }
        for interrupt in interrupts {
            interrupt.resume();
        }
        self.start_task();
    }

    fn end_worker(&self) {
        let mut state = self.state.lock();
        let loading = state.loading;
        state.clear();
        self.work.wake();
        drop(state);
        let thread = self.thread.lock().take();
        // A load cannot be interrupted, and a state change does not wait for one: that thread ends by itself.
        if let Some(thread) = thread.filter(|_| !loading) {
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
        let mean = |total: u64| total / counts.batches.max(1);
        let builder = gst::Structure::builder("stats")
            .field(
                "model",
                state
                    .loaded
                    .as_ref()
                    .map(|(_, _, e)| e.spec().name.clone())
                    .unwrap_or_default(),
            )
            .field(
                "runtime",
                state
                    .loaded
                    .as_ref()
                    .map(|(_, _, e)| e.spec().runtime.clone())
                    .unwrap_or_default(),
            )
            .field("batches", counts.batches)
            .field("frames", counts.frames)
            .field("padded", counts.padded)
            .field("failed", counts.failed)
            .field("passed-through", counts.passed)
            .field("held", counts.held)
            .field("non-finite", counts.non_finite)
            .field("tensors", counts.tensors)
            .field("in-flight", state.in_flight as u32)
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

impl Counts {
    fn add(&mut self, other: &Counts) {
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

//! The loader thread: opens models aside and puts them in place between two batches, while others go on with the model
//! that is in use. State changes never wait for a load: a loader that a stop finds in one is left behind and ends by
//! itself.
//!
//! One model is loaded at a time, and what is asked for last is taken up next. A load that is not wanted any more is
//! cancelled where its engine can be, and dropped when it is done.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use comfy_core::engine::{self, Backend, Cancel, Engine, OpenRequest, Progress, Shapes, null};
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::WarmupPolicy;
use super::imp::{CAT, ComfyInfer};
use super::negotiate::{Refused, check};
use super::settings::{PROP_MODEL, Settings};
use super::state::{Loading, Model, Role, Wanted};
use super::worker::panic_text;
use crate::batchcaps;

/// How a load ended that did not end well.
enum Ended {
    /// Stopped, or another model is wanted by now.
    GivenUp,
    Failed(engine::Error),
}

impl From<engine::Error> for Ended {
    fn from(error: engine::Error) -> Self {
        match error {
            engine::Error::Interrupted => Ended::GivenUp,
            error => Ended::Failed(error),
        }
    }
}

impl ComfyInfer {
    /// The property `model`, at any time.
    pub(super) fn set_model(&self, value: &glib::Value) {
        engine::watch_thread();
        let refused = {
            let mut settings = self.settings.lock();
            let mut state = self.state.lock();
            if state.running && settings.shared.is_some() {
                true
            } else {
                settings.set(PROP_MODEL, value);
                if !state.running {
                    return;
                }
                state.wanted = Some(Wanted {
                    settings: settings.clone(),
                    told: true,
                });
                if let Some(loading) = &state.loading {
                    loading.cancel.cancel();
                }
                self.room.wake();
                false
            }
        };
        if refused {
            let model: Option<String> = value.get().expect("type checked by GObject");
            let reason = "elements that share an engine (property `shared`) keep their model while they run";
            let error = engine::Error::Setting(format!("{reason}; stop them all to load another one"));
            self.tell_failed(&model.unwrap_or_default(), &error);
        } else if let Err(error) = self.start_loader() {
            let text = format!("the thread that loads models cannot be started: {error}");
            self.post_error_message(gst::error_msg!(gst::CoreError::Thread, ("{text}")));
        }
    }

    /// Has a thread take up what is wanted, unless one does.
    pub(super) fn start_loader(&self) -> std::io::Result<()> {
        let epoch = {
            let mut state = self.state.lock();
            if state.loader || (state.wanted.is_none() && !state.has_retired()) {
                return Ok(());
            }
            state.loader = true;
            state.epoch
        };
        let element = self.obj().clone();
        let thread = std::thread::Builder::new()
            .name("comfyinfer-load".into())
            .spawn(move || {
                let imp = element.imp();
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| imp.load_what_is_wanted(epoch))) {
                    let error = engine::Error::Run {
                        model: imp.settings.lock().request().model,
                        reason: format!("loading it panicked: {}", panic_text(panic.as_ref())),
                    };
                    imp.worker_failed(epoch, &error);
                }
            });
        match thread {
            Ok(thread) => {
                // The one before has said that it ends, and nothing is left for it to wait for.
                let before = self.loader.lock().replace(thread);
                if let Some(before) = before {
                    let _ = before.join();
                }
                Ok(())
            }
            Err(error) => {
                self.state.lock().loader = false;
                Err(error)
            }
        }
    }

    /// The thread's life: until nothing is wanted, and what was swapped out is freed.
    fn load_what_is_wanted(&self, epoch: u64) {
        loop {
            let mut state = self.state.lock();
            if state.epoch != epoch {
                return;
            }
            let gone = state.take_retired();
            if !gone.is_empty() {
                drop(state);
                drop(gone);
                continue;
            }
            let Some(wanted) = state.wanted.take() else {
                if !state.has_retired() {
                    state.loader = false;
                    return;
                }
                self.room.wait(&mut state);
                continue;
            };
            let request = wanted.settings.request();
            let cancel = Cancel::default();
            state.loading = Some(Loading {
                model: request.model.clone(),
                cancel: cancel.clone(),
            });
            drop(state);
            if wanted.told {
                self.tell("loading", &request.model, None);
            }
            let ended = self.load(epoch, &wanted, &request, &cancel);
            let mut state = self.state.lock();
            if state.epoch != epoch {
                return;
            }
            state.loading = None;
            let first = !state.has_asked();
            drop(state);
            match ended {
                Ok(()) if wanted.told => self.tell("done", &request.model, None),
                Ok(()) | Err(Ended::GivenUp) => (),
                Err(Ended::Failed(error)) => {
                    if !first {
                        self.roll_back(epoch);
                    }
                    match (first, wanted.told) {
                        (true, true) => self.tell("failed", &request.model, Some(&error)),
                        (false, _) => self.tell_failed(&request.model, &error),
                        (true, false) => (),
                    }
                    if first {
                        self.worker_failed(epoch, &error);
                    }
                }
            }
        }
    }

    /// What the property says is what is in use, unless another model is wanted already.
    fn roll_back(&self, epoch: u64) {
        let mut settings = self.settings.lock();
        let state = self.state.lock();
        if state.epoch != epoch || state.wanted.is_some() {
            return;
        }
        let in_use = state.model.as_ref().map(|model| model.request.model.clone());
        settings.model = in_use.filter(|model| !model.is_empty());
        drop(state);
        drop(settings);
        self.obj().notify(PROP_MODEL);
    }

    fn is_given_up(&self, epoch: u64) -> bool {
        let state = self.state.lock();
        state.epoch != epoch || state.wanted.is_some()
    }

    /// Loads a model and puts it in place; one that is to bridge the time until then before it.
    fn load(&self, epoch: u64, wanted: &Wanted, request: &OpenRequest, cancel: &Cancel) -> Result<(), Ended> {
        let settings = &wanted.settings;
        let (first, bridged) = {
            let state = self.state.lock();
            let in_use = state.model.as_ref().filter(|model| model.role == Role::Asked);
            if in_use.is_some_and(|model| model.request == *request) {
                return Ok(());
            }
            (in_use.is_none(), state.model.is_some())
        };
        let mut warming_up = bridged && first;
        if first && !bridged {
            warming_up = self.bridge(epoch, settings, request, cancel)?;
        }
        let loaded = self
            .open(request, settings.shared.as_deref(), cancel)
            .map_err(|error| self.not_opened(epoch, error))
            .and_then(|engine| {
                let model = Model::new(Role::Asked, request.clone(), settings.shared.clone(), engine);
                self.put_in_place(epoch, settings, model)
            });
        if warming_up && !matches!(loaded, Err(Ended::GivenUp)) {
            let failed = loaded.as_ref().err().and_then(|ended| match ended {
                Ended::Failed(error) => Some(error.to_string()),
                Ended::GivenUp => None,
            });
            self.tell_warming_up(false, settings.warmup_policy, failed);
        }
        loaded
    }

    /// What frames meet until the model is there. True when there is something.
    fn bridge(&self, epoch: u64, settings: &Settings, request: &OpenRequest, cancel: &Cancel) -> Result<bool, Ended> {
        let policy = settings.warmup_policy;
        let model = match policy {
            WarmupPolicy::Wait => return Ok(false),
            WarmupPolicy::PassThrough => {
                let engine = null::open("builtin:null").map_err(Ended::from)?;
                Model::new(Role::StandIn, OpenRequest::default(), None, engine)
            }
            WarmupPolicy::Cuda => {
                let better = matches!(request.backend, Backend::Auto | Backend::TensorRt);
                if !better || request.model.is_empty() || request.model.starts_with(null::PREFIX) {
                    gst::debug!(
                        CAT,
                        imp = self,
                        "no engine is built for {}: nothing to bridge",
                        request.model
                    );
                    return Ok(false);
                }
                let interim = OpenRequest {
                    backend: Backend::Cuda,
                    ..request.clone()
                };
                match self.open(&interim, None, cancel) {
                    Ok(engine) => Model::new(Role::Interim, interim, None, engine),
                    Err(engine::Error::Interrupted) => return Err(Ended::GivenUp),
                    Err(error) => {
                        gst::info!(CAT, imp = self, "frames wait for the model: {error}");
                        self.tell_warming_up(false, policy, Some(error.to_string()));
                        return Ok(false);
                    }
                }
            }
        };
        self.put_in_place(epoch, settings, model)?;
        self.tell_warming_up(true, policy, None);
        Ok(true)
    }

    /// An engine, with word of how it goes. It may take minutes, and cannot always be cancelled.
    fn open(
        &self,
        request: &OpenRequest,
        shared: Option<&str>,
        cancel: &Cancel,
    ) -> Result<Arc<dyn Engine>, engine::Error> {
        let model = match request.model.as_str() {
            "" => "null engine",
            model => model,
        };
        self.progress(gst::ProgressType::Start, &format!("loading {model}"));
        let progress = |progress: Progress| {
            let text = match progress.what.contains(model) {
                true => progress.what,
                false => format!("{model}: {}", progress.what),
            };
            self.progress(gst::ProgressType::Continue, &text);
        };
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let request = OpenRequest {
                shapes: self.shapes(request, cancel),
                ..request.clone()
            };
            open(&request, shared, cancel, &progress)
        }));
        let opened = opened.unwrap_or_else(|panic| {
            Err(engine::Error::NotAModel {
                path: request.model.clone(),
                reason: format!("the runtime panicked: {}", panic_text(panic.as_ref())),
            })
        });
        match &opened {
            Ok(engine) => {
                let spec = engine.spec();
                gst::info!(CAT, imp = self, "{}: {}", spec.name, spec.runtime);
                let text = format!("{} loaded: {}", spec.name, spec.runtime);
                self.progress(gst::ProgressType::Complete, &text);
            }
            Err(engine::Error::Interrupted) => {
                self.progress(gst::ProgressType::Canceled, &format!("loading {model} was given up"));
            }
            Err(error) => self.progress(gst::ProgressType::Error, &error.to_string()),
        }
        opened
    }

    /// The frames to compile for, where the model may be compiled. They are waited for: an engine that is compiled for none
    /// in particular would be compiled anew when they come. Not while somebody upstream asks for the model's batch size,
    /// because no frame comes before the answer.
    fn shapes(&self, request: &OpenRequest, cancel: &Cancel) -> Option<Shapes> {
        if !may_be_compiled(request) {
            return None;
        }
        let mut state = self.state.lock();
        let caps = loop {
            if let Some(caps) = state.next_caps() {
                break caps.clone();
            }
            if cancel.is_cancelled() || state.wanted.is_some() || state.asked {
                return None;
            }
            self.room.wait(&mut state);
        };
        drop(state);
        let info = gst_video::VideoInfo::from_caps(&batchcaps::of_batches(&caps)).ok()?;
        let most = batchcaps::capacity(&caps).unwrap_or(1);
        let powers = std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|size| *size < most);
        Some(Shapes {
            size: Some((info.width() as usize, info.height() as usize)),
            batches: powers.chain([most]).collect(),
        })
    }

    /// Nobody cancelled a load that is still wanted: the process is about to exit, and the engine has let go.
    fn not_opened(&self, epoch: u64, error: engine::Error) -> Ended {
        if error == engine::Error::Interrupted && !self.is_given_up(epoch) {
            self.worker_failed(epoch, &error);
        }
        error.into()
    }

    /// Warms a model up for the caps in force, and has batches go to it from the next one on.
    fn put_in_place(&self, epoch: u64, settings: &Settings, mut model: Model) -> Result<(), Ended> {
        let engine = model.engine.clone();
        let mut run = Duration::ZERO;
        let mut accepted = None;
        loop {
            let mut state = self.state.lock();
            if state.epoch != epoch {
                // Stopped meanwhile, and not started since: it serves the next start.
                if state.epoch == epoch + 1 && !state.running && state.model.is_none() && model.role == Role::Asked {
                    state.model = Some(Model::new(
                        Role::Asked,
                        model.request.clone(),
                        model.shared.clone(),
                        engine,
                    ));
                }
                return Err(Ended::GivenUp);
            }
            if state.wanted.is_some() {
                return Err(Ended::GivenUp);
            }
            let before = state.latency(settings.in_flight);
            let caps = match (&state.model, state.caps.clone()) {
                // Nothing is prepared while there is no model: the worker warms up this one.
                (None, _) => None,
                // The worker is making lanes for other caps, with the model that it found.
                (Some(_), _) if state.caps_ready != state.caps_queued => {
                    self.room.wait(&mut state);
                    continue;
                }
                (Some(_), caps) => caps,
            };
            let Some(caps) = caps else {
                state.install(model);
                self.wake();
                return Ok(());
            };
            let fit = self.fit(&*engine, &caps)?;
            let geometry = model.lanes(&fit.request).map(|lanes| lanes.geometry.clone());
            match geometry {
                Some(_) if accepted.as_ref() == Some(&caps) => {
                    state.install(model);
                    state.turnaround.expect(run);
                    let prepared = state.prepare(fit);
                    debug_assert!(prepared.is_some(), "its lanes were looked at above");
                    let relatency = state.latency(settings.in_flight) != before;
                    self.wake();
                    drop(state);
                    drop(prepared);
                    gst::info!(
                        CAT,
                        imp = self,
                        "{} is in use from the next batch on",
                        engine.spec().name
                    );
                    if relatency {
                        self.post_latency();
                    }
                    return Ok(());
                }
                Some(geometry) => {
                    drop(state);
                    if let Err(Refused::Text(reason)) =
                        check(&self.srcpad, &fit, geometry.as_ref(), &engine.spec().name)
                    {
                        let model = engine.spec().name.clone();
                        return Err(Ended::Failed(engine::Error::Fit { model, reason }));
                    }
                    accepted = Some(caps);
                }
                None => {
                    drop(state);
                    let given_up = || self.is_given_up(epoch);
                    let (lanes, time) = self.make_lanes(&*engine, &fit, settings.in_flight, &given_up)?;
                    run = run.max(time);
                    drop(model.add(lanes));
                }
            }
        }
    }

    /// Whoever waits for a model, or for what was prepared.
    fn wake(&self) {
        self.work.wake();
        self.room.wake();
    }

    // --- word of it -----------------------------------------------------------------------------------------

    fn tell(&self, swap: &str, model: &str, error: Option<&engine::Error>) {
        let builder = gst::Structure::builder("comfyinfer")
            .field("swap", swap)
            .field("model", model);
        let builder = match error {
            Some(error) => builder.field("error", error.to_string()),
            None => builder,
        };
        self.post(builder.build());
    }

    /// A warning, and the word that somebody may wait for.
    fn tell_failed(&self, model: &str, error: &engine::Error) {
        gst::element_imp_warning!(
            self,
            gst::ResourceError::Failed,
            ("model {model:?} is not taken, and the one in use goes on: {error}")
        );
        self.tell("failed", model, Some(error));
    }

    fn tell_warming_up(&self, begins: bool, policy: WarmupPolicy, error: Option<String>) {
        let builder = gst::Structure::builder("comfyinfer")
            .field("warming-up", begins)
            .field("policy", policy);
        let builder = match error {
            Some(error) => builder.field("error", error),
            None => builder,
        };
        self.post(builder.build());
    }

    fn post(&self, structure: gst::Structure) {
        let obj = self.obj();
        let _ = obj.post_message(gst::message::Element::builder(structure).src(&*obj).build());
    }
}

/// Whether TensorRT may be asked to compile the model.
fn may_be_compiled(request: &OpenRequest) -> bool {
    let is_model = std::path::Path::new(&request.model)
        .extension()
        .is_some_and(|extension| extension == "onnx");
    let known =
        || engine::ort::found(request.library.as_deref()).is_ok_and(|found| found.providers.contains(&"tensorrt"));
    is_model
        && match request.backend {
            Backend::TensorRt | Backend::Rtx => true,
            Backend::Auto => known(),
            Backend::Cpu | Backend::Cuda | Backend::Null => false,
        }
}

fn open(
    request: &OpenRequest,
    shared: Option<&str>,
    cancel: &Cancel,
    progress: &dyn Fn(Progress),
) -> Result<Arc<dyn Engine>, engine::Error> {
    if request.model.is_empty() && request.backend != Backend::Null {
        return Err(engine::Error::Setting(
            "property `model` is not set; name an .onnx file, or set backend=null to run without a model".into(),
        ));
    }
    match shared {
        // Others may wait for it, too.
        Some(name) => engine::open_shared(name, request, progress),
        None => engine::open_with(request, progress, cancel),
    }
}

//! The worker thread: loads the model, warms it up, and runs it. State changes never wait for it.

use std::sync::Arc;

use comfy_core::engine::{self, Backend, Engine, LaneRequest, OpenRequest, Progress};
use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::MutexGuard;

use super::imp::{CAT, ComfyInfer};
use super::settings::Settings;
use super::state::{About, Done, Prepared, State, Work};
use crate::{batchcaps, video};

impl ComfyInfer {
    /// The thread's life, until the epoch is over.
    pub(super) fn work(&self, epoch: u64, settings: &Settings) {
        loop {
            let mut state = self.state.lock();
            let work = loop {
                if state.epoch != epoch {
                    return;
                }
                match state.to_run.pop_front() {
                    Some(work) => break work,
                    None => {
                        state.worker_idle = true;
                        self.room.wake();
                        self.work.wait(&mut state);
                    }
                }
            };
            state.worker_idle = false;
            match work {
                Work::Load => {
                    if self.load(state, epoch, settings).is_none() {
                        return;
                    }
                }
                Work::Prepare(caps) => {
                    if self.prepare(state, epoch, settings, caps).is_none() {
                        return;
                    }
                }
                Work::Event(event) => {
                    state.to_push.push_back(Done::Event(event));
                    self.done.wake();
                }
                Work::Run(mut job) => {
                    let engine = state.prepared.as_ref().map(|prepared| prepared.engine.clone());
                    drop(state);
                    let start = now();
                    if let Some(lane) = &mut job.lane {
                        let (lane, frames) = (std::panic::AssertUnwindSafe(lane), job.frames);
                        // An engine that panics is an engine that failed.
                        job.result = std::panic::catch_unwind(move || {
                            let std::panic::AssertUnwindSafe(lane) = { lane };
                            lane.run(frames)
                        })
                        .unwrap_or_else(|panic| {
                            Err(engine::Error::Run {
                                model: engine.map(|e| e.spec().name.clone()).unwrap_or_default(),
                                reason: format!("the engine panicked: {}", panic_text(panic.as_ref())),
                            })
                        });
                    }
                    job.finished = now();
                    job.run = job.finished - start;
                    let mut state = self.state.lock();
                    if state.epoch != epoch {
                        return;
                    }
                    state.to_push.push_back(Done::Ran(job));
                    self.done.wake();
                }
            }
        }
    }

    /// Opens the model unless it is open already. None: the thread is to end.
    fn load<'a>(&'a self, mut state: MutexGuard<'a, State>, epoch: u64, settings: &Settings) -> Option<()> {
        let request = settings.request();
        if state
            .loaded
            .as_ref()
            .is_some_and(|(known, name, _)| *known == request && *name == settings.shared)
        {
            state.about = state
                .loaded
                .as_ref()
                .map(|(.., engine)| About::of(&**engine))
                .unwrap_or_default();
            self.room.wake();
            return Some(());
        }
        state.loaded = None;
        state.loading = true;
        drop(state);
        let what = if request.model.is_empty() {
            "null engine"
        } else {
            request.model.as_str()
        };
        self.progress(gst::ProgressType::Start, &format!("loading {what}"));
        let progress = |progress: Progress| self.progress(gst::ProgressType::Continue, &progress.what);
        let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| open(&request, settings, &progress)));
        let opened = opened.unwrap_or_else(|panic| {
            Err(engine::Error::NotAModel {
                path: request.model.clone(),
                reason: format!("the runtime panicked: {}", panic_text(panic.as_ref())),
            })
        });
        let mut state = self.state.lock();
        if state.epoch != epoch {
            // Stopped meanwhile. What was loaded serves the next start.
            if let Ok(engine) = opened {
                state.loaded.get_or_insert((request, settings.shared.clone(), engine));
            }
            return None;
        }
        state.loading = false;
        match opened {
            Ok(engine) => {
                gst::info!(CAT, imp = self, "{}: {}", engine.spec().name, engine.spec().runtime);
                let text = format!("{} loaded: {}", engine.spec().name, engine.spec().runtime);
                state.about = About::of(&*engine);
                state.loaded = Some((request, settings.shared.clone(), engine));
                self.room.wake();
                drop(state);
                self.progress(gst::ProgressType::Complete, &text);
                Some(())
            }
            Err(error) => {
                drop(state);
                if error != engine::Error::Interrupted {
                    self.progress(gst::ProgressType::Error, &error.to_string());
                }
                self.worker_failed(epoch, &error);
                None
            }
        }
    }

    /// Makes the lanes for new caps.
    fn prepare<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        epoch: u64,
        settings: &Settings,
        caps: gst::Caps,
    ) -> Option<()> {
        let Some((_, _, engine)) = &state.loaded else {
            return None;
        };
        let engine = engine.clone();
        let capacity = batchcaps::capacity(&caps).unwrap_or(1);
        let frames = batchcaps::of_batches(&caps);
        let info = gst_video::VideoInfo::from_caps(&frames).ok();
        let wanted = match (&info, engine.is_identity()) {
            // Lanes of an engine that touches no frame only take time.
            (_, true) => LaneRequest {
                width: 1,
                height: 1,
                batch: batchcaps::MAX_BATCH,
            },
            (Some(info), false) => LaneRequest {
                width: info.width() as usize,
                height: info.height() as usize,
                batch: capacity,
            },
            (None, false) => {
                drop(state);
                let error = engine::Error::Fit {
                    model: engine.spec().name.clone(),
                    reason: format!("caps {frames} are not raw video in system memory"),
                };
                self.worker_failed(epoch, &error);
                return None;
            }
        };
        let before = state.latency(settings.in_flight);
        let (generation, geometry) = match state.lanes_for(&wanted) {
            Some(known) => known,
            None => {
                state.loading = true;
                drop(state);
                let made = self.make_lanes(epoch, &engine, &wanted, capacity, settings.in_flight as usize);
                state = self.state.lock();
                if state.epoch != epoch {
                    // The word `loading` is the next worker's by now.
                    return None;
                }
                state.loading = false;
                let lanes = match made {
                    Ok(lanes) => lanes,
                    Err(error) => {
                        drop(state);
                        self.worker_failed(epoch, &error);
                        return None;
                    }
                };
                let geometry = lanes
                    .first()
                    .filter(|_| !engine.is_identity())
                    .map(|lane| lane.geometry().clone());
                (state.add_lanes(wanted, geometry.clone(), lanes), geometry)
            }
        };
        let tensors = info.zip(geometry);
        let rate = frames
            .structure(0)
            .and_then(|s| s.get::<gst::Fraction>("framerate").ok());
        let rate = rate.filter(|r| r.numer() > 0).map(video::frame_duration);
        state.frame = state.frame.max(rate);
        state.caps_ready += 1;
        let number = state.caps_ready;
        let prepared = Arc::new(Prepared {
            number,
            generation,
            engine,
            caps,
            capacity,
            tensors,
        });
        state.prepared = Some(prepared.clone());
        // Streams of different formats take turns, and their caps come with every batch.
        let relatency = state.latency(settings.in_flight) != before;
        state.to_push.push_back(Done::Prepared(prepared));
        self.done.wake();
        self.room.wake();
        drop(state);
        if relatency {
            self.post_latency();
        }
        Some(())
    }

    fn make_lanes(
        &self,
        epoch: u64,
        engine: &Arc<dyn Engine>,
        request: &LaneRequest,
        capacity: usize,
        count: usize,
    ) -> Result<Vec<Box<dyn engine::Lane>>, engine::Error> {
        let name = &engine.spec().name;
        let LaneRequest { width, height, batch } = request;
        self.progress(
            gst::ProgressType::Start,
            &format!("warming up {name} for {width}x{height}, batches up to {batch}"),
        );
        let mut lanes = Vec::with_capacity(count);
        for number in 0..count {
            let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| engine.lane(request)));
            lanes.push(made.unwrap_or_else(|panic| {
                Err(engine::Error::Run {
                    model: name.clone(),
                    reason: format!("the engine panicked while warming up: {}", panic_text(panic.as_ref())),
                })
            })?);
            let text = format!("{name}: {} of {count} lanes ready", number + 1);
            self.progress(gst::ProgressType::Continue, &text);
        }
        // The first LATENCY answer stands on a timed run of a full batch.
        if let Some(lane) = lanes.first_mut() {
            let start = now();
            lane.run(capacity)?;
            let time = now() - start;
            let mut state = self.state.lock();
            if state.epoch == epoch {
                state.turnaround.expect(std::time::Duration::from_nanos(time));
            }
        }
        self.progress(
            gst::ProgressType::Complete,
            &format!("{name} is ready for {width}x{height}"),
        );
        Ok(lanes)
    }

    /// A failure on the worker's thread, which is nobody's when a stop has left that thread behind.
    ///
    /// One that was not left behind, because it does not load any more, is waited for by the stop: whatever it says comes
    /// before the next start.
    pub(super) fn worker_failed(&self, epoch: u64, error: &engine::Error) {
        let mut state = self.state.lock();
        if state.epoch != epoch {
            gst::debug!(CAT, imp = self, "left behind: {error}");
            return;
        }
        state.loading = false;
        drop(state);
        self.fail(error);
    }

    /// One error message, and the end of every wait with it.
    pub(super) fn fail(&self, error: &engine::Error) {
        let flow = match error {
            // The process is about to exit, and the engine has let go.
            engine::Error::Interrupted => gst::FlowError::Flushing,
            _ => {
                gst::error!(CAT, imp = self, "{error}");
                self.post_error_message(crate::error::message(error));
                gst::FlowError::Error
            }
        };
        let mut state = self.state.lock();
        state.flow = Err(flow);
        self.work.wake();
        self.done.wake();
        self.room.wake();
    }

    fn progress(&self, kind: gst::ProgressType, text: &str) {
        let obj = self.obj();
        let _ = obj.post_message(gst::message::Progress::builder(kind, "model", text).src(&*obj).build());
    }
}

fn open(
    request: &OpenRequest,
    settings: &Settings,
    progress: &dyn Fn(Progress),
) -> Result<Arc<dyn Engine>, engine::Error> {
    if request.model.is_empty() && request.backend != Backend::Null {
        return Err(engine::Error::Setting(
            "property `model` is not set; name an .onnx file, or set backend=null to run without a model".into(),
        ));
    }
    match &settings.shared {
        Some(name) => engine::open_shared(name, request, progress),
        None => engine::open(request, progress),
    }
}

/// Monotonic nanoseconds, for measuring.
pub(super) fn now() -> u64 {
    gst::get_timestamp().nseconds()
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("?")
}

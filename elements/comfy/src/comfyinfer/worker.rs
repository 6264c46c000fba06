//! The worker thread: warms the model up for new caps, and runs it. State changes never wait for a warm-up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use comfy_core::engine::{self, Engine, LaneRequest};
use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::MutexGuard;

use super::imp::{CAT, ComfyInfer};
use super::state::{Done, Fit, Lanes, State, Work};
use super::tensors::{Place, Tensors};
use crate::{batchcaps, video};

impl ComfyInfer {
    /// The thread's life, until the epoch is over.
    pub(super) fn work(&self, epoch: u64, in_flight: u32) {
        loop {
            let mut state = self.state.lock();
            let work = loop {
                if state.epoch != epoch {
                    return;
                }
                match state.next_work() {
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
                Work::Prepare(caps) => {
                    if self.prepare(state, epoch, in_flight, caps).is_none() {
                        return;
                    }
                }
                Work::Event(event) => {
                    state.to_push.push_back(Done::Event(event));
                    self.done.wake();
                }
                Work::Run(mut job) => {
                    drop(state);
                    let start = now();
                    if let Some(lane) = &mut job.lane {
                        let (lane, frames) = (AssertUnwindSafe(lane), job.frames);
                        // An engine that panics is an engine that failed.
                        job.result = catch_unwind(move || {
                            let AssertUnwindSafe(lane) = { lane };
                            lane.run(frames)
                        })
                        .unwrap_or_else(|panic| {
                            let prepared = job.prepared.as_ref();
                            Err(engine::Error::Run {
                                model: prepared.map(|p| p.engine.spec().name.clone()).unwrap_or_default(),
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

    /// Has the batches behind these caps be prepared. None: the thread is to end.
    fn prepare<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        epoch: u64,
        in_flight: u32,
        caps: gst::Caps,
    ) -> Option<()> {
        // No other model takes its place meanwhile: the loader waits until caps that were queued are prepared.
        let engine = state.model.as_ref().map(|model| model.engine.clone())?;
        let before = state.latency(in_flight);
        let fit = match self.fit(&*engine, &caps) {
            Ok(fit) => fit,
            Err(error) => return self.unprepared(state, epoch, caps, &error),
        };
        // Freeing takes time, and is done without the lock.
        let mut gone = None;
        let missing = state
            .model
            .as_ref()
            .is_some_and(|model| model.lanes(&fit.request).is_none());
        if missing {
            state.warming = true;
            let made = MutexGuard::unlocked(&mut state, || self.make_lanes(&*engine, &fit, in_flight, &|| false));
            if state.epoch != epoch {
                // The word `warming` is the next worker's by now.
                return None;
            }
            state.warming = false;
            match made {
                Ok((lanes, time)) => {
                    state.turnaround.expect(time);
                    gone = state.add_lanes(lanes);
                }
                Err(error) => return self.unprepared(state, epoch, caps, &error),
            }
        }
        let prepared = state.prepare(fit).expect("its lanes were there, or were added above");
        state.caps_ready += 1;
        // Streams of different formats take turns, and their caps come with every batch.
        let relatency = state.latency(in_flight) != before;
        state.to_push.push_back(Done::Prepared(prepared));
        self.done.wake();
        self.room.wake();
        drop(state);
        drop(gone);
        if relatency {
            self.post_latency();
        }
        Some(())
    }

    /// Caps that the model cannot be prepared for: an error, which another model may mend.
    fn unprepared<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        epoch: u64,
        caps: gst::Caps,
        error: &engine::Error,
    ) -> Option<()> {
        if state.epoch == epoch {
            state.caps_ready += 1;
            (state.prepared, state.caps) = (None, Some(caps));
        }
        drop(state);
        self.worker_failed(epoch, error);
        Some(())
    }

    /// Lanes, warmed up, and the time of a full batch in one of them. `given_up` is asked between two of them.
    pub(super) fn make_lanes(
        &self,
        engine: &dyn Engine,
        fit: &Fit,
        count: u32,
        given_up: &dyn Fn() -> bool,
    ) -> Result<(Lanes, Duration), engine::Error> {
        let name = &engine.spec().name;
        let LaneRequest { width, height, batch } = &fit.request;
        self.progress(
            gst::ProgressType::Start,
            &format!("warming up {name} for {width}x{height}, batches up to {batch}"),
        );
        let made = self.warm_up(engine, fit, count, given_up);
        match &made {
            Ok(_) => self.progress(
                gst::ProgressType::Complete,
                &format!("{name} is ready for {width}x{height}"),
            ),
            Err(engine::Error::Interrupted) => {
                self.progress(gst::ProgressType::Canceled, &format!("warming up {name} was given up"))
            }
            Err(error) => self.progress(gst::ProgressType::Error, &error.to_string()),
        }
        made
    }

    fn warm_up(
        &self,
        engine: &dyn Engine,
        fit: &Fit,
        count: u32,
        given_up: &dyn Fn() -> bool,
    ) -> Result<(Lanes, Duration), engine::Error> {
        let name = &engine.spec().name;
        let guarded = |what: &mut dyn FnMut() -> Result<(), engine::Error>| {
            catch_unwind(AssertUnwindSafe(what)).unwrap_or_else(|panic| {
                Err(engine::Error::Run {
                    model: name.clone(),
                    reason: format!("the engine panicked while warming up: {}", panic_text(panic.as_ref())),
                })
            })
        };
        let mut lanes = Vec::with_capacity(count as usize);
        for number in 1..=count {
            if given_up() {
                return Err(engine::Error::Interrupted);
            }
            guarded(&mut || Tensors::new(engine, &fit.request).map(|lane| lanes.push(lane)))?;
            self.progress(
                gst::ProgressType::Continue,
                &format!("{name}: {number} of {count} lanes ready"),
            );
        }
        // The first LATENCY answer stands on a timed run of a full batch.
        let start = now();
        if let Some(lane) = lanes.first_mut() {
            guarded(&mut || lane.run(fit.capacity).and_then(|()| lane.settle()))?;
        }
        let time = Duration::from_nanos(now() - start);
        let geometry = lanes.first().filter(|_| !engine.is_identity());
        let geometry = geometry.map(|lane| lane.geometry().clone());
        Ok((Lanes::new(fit.request, geometry, lanes), time))
    }

    /// What an engine needs for batches of these caps.
    pub(super) fn fit(&self, engine: &dyn Engine, caps: &gst::Caps) -> Result<Fit, engine::Error> {
        let capacity = batchcaps::capacity(caps).unwrap_or(1);
        let frames = batchcaps::of_batches(caps);
        let info = gst_video::VideoInfo::from_caps(&frames).ok();
        let misfit = |reason: String| engine::Error::Fit {
            model: engine.spec().name.clone(),
            reason,
        };
        let (place, request) = match (&info, engine.is_identity()) {
            // Lanes of an engine that touches no frame only take time.
            (_, true) => (
                Place::default(),
                LaneRequest {
                    width: 1,
                    height: 1,
                    batch: batchcaps::MAX_BATCH,
                },
            ),
            (Some(info), false) => (
                Place::new(engine, &frames, self.gpu()).map_err(misfit)?,
                LaneRequest {
                    width: info.width() as usize,
                    height: info.height() as usize,
                    batch: capacity,
                },
            ),
            (None, false) => return Err(misfit(format!("caps {frames} are not raw video"))),
        };
        let rate = frames
            .structure(0)
            .and_then(|s| s.get::<gst::Fraction>("framerate").ok());
        Ok(Fit {
            caps: caps.clone(),
            capacity,
            info,
            place,
            frame: rate.filter(|r| r.numer() > 0).map(video::frame_duration),
            request,
        })
    }

    /// A failure on the worker's thread, which is nobody's when a stop has left that thread behind.
    ///
    /// One that was not left behind, because it does not load any more, is waited for by the stop: whatever it says comes
    /// before the next start.
    pub(super) fn worker_failed(&self, epoch: u64, error: &engine::Error) {
        let state = self.state.lock();
        if state.epoch != epoch {
            gst::debug!(CAT, imp = self, "left behind: {error}");
            return;
        }
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

    pub(super) fn progress(&self, kind: gst::ProgressType, text: &str) {
        let obj = self.obj();
        let _ = obj.post_message(gst::message::Progress::builder(kind, "model", text).src(&*obj).build());
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

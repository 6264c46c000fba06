//! The src task: turns the tensors of batches that ran into frames, and pushes them, with the events between, in order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use comfy_core::engine;
use comfy_core::engine::device::Graphs;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::OnError;
use super::imp::{CAT, ComfyInfer};
use super::negotiate::{Refused, negotiate};
use super::output::Broken;
use super::state::{Counts, Done, Job, Prepared};
use super::tensors::Tensors;
use super::worker::{now, panic_text};
use crate::batchmeta::ComfyBatchMeta;

impl ComfyInfer {
    /// One turn of the src task. False: the task is paused.
    pub(super) fn step(&self) -> bool {
        let mut state = self.state.lock();
        let done = loop {
            if state.flow.is_err() {
                state.task_idle = true;
                // With the state locked: whoever has it go on finds it paused, or is seen.
                let _ = self.srcpad.pause_task();
                return false;
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
                // Also EOS: a stream-start may stand behind it already.
                if !self.srcpad.push_event(event.clone()) {
                    // Flushing, as a rule. Where downstream refused it for good there is no flush to repeat it after.
                    let mut state = self.state.lock();
                    if state.flow.is_err() {
                        state.lost.push(event);
                    }
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
        true
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
                    // Overtaken by a flush: the next batch says it again.
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
        self.settle(&mut job);
        if let Some(prepared) = &job.prepared {
            // What this batch was prepared for, not what is in force by now: models change between two batches.
            let known = self.outside.lock().as_ref().map(|outside| outside.number);
            let anew = self.srcpad.check_reconfigure() || known != Some(prepared.number);
            if anew && let Err(flow) = self.renegotiate(prepared) {
                self.state.lock().give_back(&mut job);
                return Err(flow);
            }
        }
        let start = now();
        let mut counts = Counts {
            batches: 1,
            frames: job.frames as u64,
            ..Counts::default()
        };
        let mut broken = None;
        let mut not_finite = None;
        counts.crossings = job.crossed;
        if let (Some(lane), Some(prepared)) = (&mut job.lane, &job.prepared) {
            let container = job.container.make_mut();
            let mut meta = container.meta_mut::<ComfyBatchMeta>().expect("looked at in chain");
            let batch = meta.batch_mut();
            let mut outside = self.outside.lock();
            let mut outside = outside.as_mut().filter(|outside| outside.number == prepared.number);
            let filled = match (&job.result, outside.as_deref_mut()) {
                (_, None) => Err(Broken::Flow(gst::FlowError::NotNegotiated)),
                (Err(error), Some(_)) => Err(Broken::Engine(error.clone())),
                (Ok(()), Some(outside)) if prepared.stand_in => {
                    outside.pass(batch, &mut counts);
                    Ok(())
                }
                (Ok(()), Some(outside)) => {
                    // An engine that panics is an engine that failed, here as in its run.
                    let fill = || outside.fill(batch, lane, prepared, on_error, &mut counts);
                    catch_unwind(AssertUnwindSafe(fill)).unwrap_or_else(|panic| {
                        Err(Broken::Text(format!(
                            "model {} failed: its outputs cannot be read: it panicked: {}",
                            prepared.engine.spec().name,
                            panic_text(panic.as_ref())
                        )))
                    })
                }
            };
            // Of the run, or of the way back from a device: the same happens to the frames.
            let filled = match (filled, outside) {
                (Err(Broken::Engine(engine::Error::Interrupted)), _) => Err(Broken::Flow(gst::FlowError::Flushing)),
                (Err(Broken::Engine(error)), Some(outside)) if on_error != OnError::Fail => {
                    broken = Some(error);
                    outside.replace(batch, on_error, &mut counts)
                }
                (Err(Broken::Engine(error)), _) => {
                    counts.failed += job.frames as u64;
                    Err(Broken::Engine(error))
                }
                (filled, _) => filled,
            };
            if let Err(cause) = filled {
                let mut state = self.state.lock();
                state.give_back(&mut job);
                state.counts.failed += counts.failed;
                self.room.wake();
                drop(state);
                return match cause {
                    Broken::Flow(gst::FlowError::Error) if let Some(error) = &broken => {
                        self.fail(error);
                        Err(gst::FlowError::Error)
                    }
                    Broken::Flow(gst::FlowError::Error) => {
                        gst::element_imp_error!(
                            self,
                            gst::ResourceError::NoSpaceLeft,
                            ("the output's buffer pool gives no buffer")
                        );
                        Err(gst::FlowError::Error)
                    }
                    Broken::Flow(flow) => Err(flow),
                    Broken::Engine(error) => {
                        self.fail(&error);
                        Err(gst::FlowError::Error)
                    }
                    Broken::Text(text) => {
                        gst::element_imp_error!(self, gst::StreamError::Failed, ("{text}"));
                        Err(gst::FlowError::Error)
                    }
                };
            }
            if let engine::BatchSizes::Fixed(size) = prepared.engine.spec().batch {
                counts.padded += (job.frames.next_multiple_of(size) - job.frames) as u64;
            }
            // While the model is at hand: it is let go with the lane.
            not_finite = (counts.non_finite > 0).then(|| prepared.engine.spec().name.clone());
            if prepared.interim {
                counts.warming_up += job.frames as u64;
            }
        }
        counts.output = now() - start;
        (counts.convert, counts.run) = (job.convert, job.run);
        let turnaround = Duration::from_nanos((job.finished - job.started) + counts.output);
        let had_lane = job.lane.is_some();
        let mut state = self.state.lock();
        let current = state.give_back(&mut job);
        if had_lane {
            self.room.wake();
        }
        let relatency = current && state.turnaround.measured(Duration::from_nanos(now()), turnaround);
        let finite = state.counts.non_finite == 0;
        state.counts.add(&counts);
        let changed = had_lane && state.failing != broken.is_some();
        state.failing = broken.is_some() || (state.failing && !had_lane);
        drop(state);
        if changed {
            self.tell_failing(broken.as_ref(), on_error);
        }
        if let Some(name) = not_finite.filter(|_| finite) {
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

    /// A run on a GPU is over when the device says so, and its failures show here.
    fn settle(&self, job: &mut Job) {
        let Some(Tensors::Device(lane)) = &mut job.lane else {
            return;
        };
        let graphs = match lane.report().graphs {
            Graphs::On => "on",
            Graphs::Off(_) => "off",
        };
        let waited = catch_unwind(AssertUnwindSafe(|| lane.wait())).unwrap_or_else(|panic| {
            Err(engine::Error::Run {
                model: job
                    .prepared
                    .as_ref()
                    .map(|p| p.engine.spec().name.clone())
                    .unwrap_or_default(),
                reason: format!("waiting for the device panicked: {}", panic_text(panic.as_ref())),
            })
        });
        if job.result.is_ok() {
            job.result = waited;
        }
        let begun = job.finished - job.run;
        let mut state = self.state.lock();
        state.graphs = graphs;
        job.finished = now();
        // Two batches are queued at once: the second one's begins when the first one's ends.
        job.run = job.finished - begun.max(state.device_free);
        state.device_free = job.finished;
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
}

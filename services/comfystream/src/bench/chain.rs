//! How many frames a second leave the four elements, when as many come in as they take?
//!
//! A pad of ours pushes frames that lie in memory, a pad of ours notes when each comes out: nothing else is in it.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use comfy_core::engine::{self, Engine, OpenRequest};
use gst::prelude::*;

use super::frames::Frames;

/// An engine that a chain and a bare loop share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) request: OpenRequest,
    pub(super) engine: Arc<dyn Engine>,
}

impl Shared {
    pub(super) fn open(model: &str, threads: u32) -> Result<Self> {
        let request = OpenRequest {
            model: model.into(),
            threads: threads as usize,
            // As comfyinfer asks when it is linked: an engine is shared only where all settings are equal.
            library: std::env::current_exe()?.parent().map(PathBuf::from),
            ..OpenRequest::default()
        };
        let name = format!("bench of {model} with {threads} threads");
        let engine = engine::open_shared(&name, &request, &|_| ())?;
        Ok(Self { name, request, engine })
    }
}

#[derive(Default)]
struct Arrivals {
    times: Vec<Instant>,
    target: usize,
    error: Option<String>,
}

/// What came out, and who waits for it.
#[derive(Default)]
struct Sink {
    arrivals: Mutex<Arrivals>,
    changed: Condvar,
}

/// comfyflightbuffer, comfybatch, comfyinfer and comfyunbatch between two pads.
pub(super) struct Chain {
    pipeline: gst::Pipeline,
    src: gst::Pad,
    _sinkpad: gst::Pad,
    sink: Arc<Sink>,
    buffers: Vec<gst::Buffer>,
    next: usize,
    batch: usize,
}

impl Chain {
    pub(super) fn new(shared: &Shared, batch: usize, frames: &Frames) -> Result<Self> {
        let pipeline = gst::Pipeline::new();
        let flight = gst::ElementFactory::make("comfyflightbuffer").property("batch-size", batch as u32);
        let batcher = gst::ElementFactory::make("comfybatch").property("batch-size", batch as u32);
        let infer = gst::ElementFactory::make("comfyinfer")
            .property("model", &shared.request.model)
            .property("threads", shared.request.threads as u32)
            .property("shared", &shared.name);
        let elements = [
            flight.build()?,
            batcher.build()?,
            infer.build()?,
            gst::ElementFactory::make("comfyunbatch").build()?,
        ];
        pipeline.add_many(&elements)?;

        let sink = Arc::new(Sink::default());
        let bus = pipeline.bus().context("a pipeline has a bus")?;
        let failed = sink.clone();
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(error) = message.view() {
                failed.arrivals.lock().expect("no panic").error = Some(error.error().to_string());
                failed.changed.notify_all();
            }
            gst::BusSyncReply::Drop
        });
        let counter = sink.clone();
        let sinkpad = gst::Pad::builder(gst::PadDirection::Sink)
            .name("sink")
            .chain_function(move |_, _, buffer| {
                // A consumer lets go of the frame before it looks at the clock.
                drop(buffer);
                let mut arrivals = counter.arrivals.lock().expect("no panic");
                arrivals.times.push(Instant::now());
                if arrivals.times.len() >= arrivals.target {
                    counter.changed.notify_all();
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(|_, _, _| true)
            .build();
        let src = gst::Pad::builder(gst::PadDirection::Src).name("src").build();
        let mut last = src.clone();
        for element in &elements {
            let pads = element.pads();
            let pad = |direction| pads.iter().find(|pad| pad.direction() == direction).cloned();
            let into = pad(gst::PadDirection::Sink).or_else(|| element.request_pad_simple("sink_%u"));
            last.link_full(&into.context("a sink pad")?, gst::PadLinkCheck::empty())?;
            last = pad(gst::PadDirection::Src).context("a src pad")?;
        }
        last.link_full(&sinkpad, gst::PadLinkCheck::empty())?;
        sinkpad.set_active(true)?;
        src.set_active(true)?;
        pipeline.set_state(gst::State::Playing)?;
        src.push_event(gst::event::StreamStart::new("bench"));
        src.push_event(gst::event::Caps::new(&frames.caps));
        src.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        let mut chain = Self {
            pipeline,
            src,
            _sinkpad: sinkpad,
            sink,
            buffers: frames.buffers.clone(),
            next: 0,
            batch,
        };
        // The model loads, queues and pools grow.
        chain.frames_per_second(6 * batch)?;
        Ok(chain)
    }

    /// Frames per second over so many frames, in whole batches: from the departure of the first batch to that of the
    /// last, so that neither the way in nor the way out counts.
    pub(super) fn frames_per_second(&mut self, frames: usize) -> Result<f64> {
        let frames = frames.next_multiple_of(self.batch).max(2 * self.batch);
        {
            let mut arrivals = self.sink.arrivals.lock().expect("no panic");
            arrivals.times.clear();
            arrivals.times.reserve(frames);
            arrivals.target = frames;
        }
        for _ in 0..frames {
            self.next = (self.next + 1) % self.buffers.len();
            if self.src.push(self.buffers[self.next].clone()).is_err() {
                break;
            }
        }
        let mut arrivals = self.sink.arrivals.lock().expect("no panic");
        while arrivals.times.len() < frames && arrivals.error.is_none() {
            arrivals = self.sink.changed.wait(arrivals).expect("no panic");
        }
        if let Some(error) = &arrivals.error {
            bail!("{error}");
        }
        let (first, last) = (arrivals.times[self.batch - 1], arrivals.times[frames - 1]);
        Ok((frames - self.batch) as f64 / (last - first).as_secs_f64())
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

//! Numbered programs, one idea per file; each is a binary of this crate and runs without arguments:
//! `cargo run -p comfy-examples --bin 01_policy`. Here is only what several of them need.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use gst::prelude::*;

/// Starts GStreamer and makes the elements known, without a plugin file to be found.
pub fn init() -> Result<()> {
    gst::init()?;
    gstcomfy::plugin_register_static()?;
    Ok(())
}

/// A sample model of this repository.
pub fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(name)
}

/// A pipeline from gst-launch text.
pub fn parse(text: &str) -> Result<gst::Pipeline> {
    let pipeline = gst::parse::launch(text).with_context(|| format!("in pipeline {text}"))?;
    pipeline.downcast().ok().context("a pipeline of one element")
}

/// Plays until EOS and hands each message to `look`. An error on the bus is an error here.
pub fn play(pipeline: &gst::Pipeline, mut look: impl FnMut(&gst::Message)) -> Result<()> {
    let bus = pipeline.bus().context("pipelines have a bus")?;
    let started = pipeline.set_state(gst::State::Playing).map(|_| ());
    let result = loop {
        // Where the start failed, its reason is on the bus already.
        let wait = started
            .is_ok()
            .then_some(gst::ClockTime::NONE)
            .unwrap_or(Some(gst::ClockTime::ZERO));
        let Some(message) = bus.timed_pop(wait) else {
            break started.context("the pipeline did not start");
        };
        look(&message);
        match message.view() {
            gst::MessageView::Eos(_) => break Ok(()),
            gst::MessageView::Error(error) => {
                let from = error.src().map(|src| src.path_string()).unwrap_or_default();
                // Some elements say what matters in the second text alone.
                break Err(anyhow::anyhow!(
                    "{from}: {} ({})",
                    error.error(),
                    error.debug().unwrap_or_default()
                ));
            }
            gst::MessageView::Latency(_) => pipeline.recalculate_latency()?,
            _ => (),
        }
    };
    pipeline.set_state(gst::State::Null)?;
    result
}

/// Fails with a usage line when there are more arguments than expected.
pub fn arguments(usage: &str, most: usize) -> Result<Vec<String>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.len() > most || arguments.iter().any(|argument| argument.starts_with('-')) {
        bail!("usage: {usage}");
    }
    Ok(arguments)
}

//! Eight frames through the chain, each compared with what the model should make of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use comfy_pipelines::infergraph::{Config, InferGraph, InferStats};
use comfy_pipelines::state;
use comfy_pipelines::watch::{Event, Watch};
use gst::prelude::*;

const FRAMES: i32 = 8;
const BATCH: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(30);
/// The sample model, so that the test needs no file of the installation.
const MODEL: &[u8] = include_bytes!("../../../models/invert.onnx");
const MANIFEST: &str = include_str!("../../../models/invert.toml");

/// With the engine that is built in.
pub(crate) fn builtin() -> Result<String> {
    check("builtin:invert")
}

/// With a model, on the best provider that works.
pub(crate) fn model() -> Result<String> {
    let folder = tempfile::tempdir().context("no folder for temporary files; set TMPDIR to one that can be written")?;
    let path = folder.path().join("invert.onnx");
    std::fs::write(&path, MODEL)?;
    std::fs::write(path.with_extension("toml"), MANIFEST)?;
    check(&path.to_string_lossy())
}

fn check(model: &str) -> Result<String> {
    let graph = InferGraph::new(&Config {
        model: model.into(),
        batch: BATCH,
        threshold: 1,
        ..Config::default()
    })?;
    let pipeline = gst::Pipeline::with_name("selftest");
    let source = gst::ElementFactory::make("videotestsrc")
        .property("num-buffers", FRAMES)
        .build()?;
    let caps = gst_video::VideoCapsBuilder::new()
        .format(gst_video::VideoFormat::Rgb)
        .width(64)
        .height(48)
        .framerate(gst::Fraction::new(30, 1))
        .build();
    let filter = gst::ElementFactory::make("capsfilter").property("caps", caps).build()?;
    let sink = gst::ElementFactory::make("fakesink").build()?;
    pipeline.add_many([&source, &filter, graph.bin().upcast_ref(), &sink])?;
    gst::Element::link_many([&source, &filter, graph.bin().upcast_ref(), &sink])?;
    let (before, after) = (collect(&graph.sink()), collect(&graph.src()));

    let mut watch = Watch::new(&pipeline);
    // A refusal is followed by its reason.
    let _ = pipeline.set_state(gst::State::Playing);
    let result = loop {
        match watch.next(Some(PATIENCE)) {
            None => break Err(anyhow::anyhow!("nothing happened for {} s", PATIENCE.as_secs())),
            Some(Event::Eos) => break Ok(InferStats::read(graph.infer())),
            Some(Event::Error(failure)) => break Err(anyhow::anyhow!(failure.to_string())),
            Some(_) => (),
        }
    };
    state::set(&pipeline, gst::State::Null, PATIENCE)?;
    let stats = result?;
    compare(&taken(&before), &taken(&after))?;
    Ok(stats.runtime)
}

type Frames = Arc<Mutex<Vec<(Option<gst::ClockTime>, Vec<u8>)>>>;

fn collect(pad: &gst::Pad) -> Frames {
    let frames = Frames::default();
    let seen = frames.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let (Some(buffer), Ok(mut seen)) = (info.buffer(), seen.lock()) {
            let bytes = buffer.map_readable().map(|map| map.to_vec()).unwrap_or_default();
            seen.push((buffer.pts(), bytes));
        }
        gst::PadProbeReturn::Ok
    });
    frames
}

fn taken(frames: &Frames) -> Vec<(Option<gst::ClockTime>, Vec<u8>)> {
    frames
        .lock()
        .map(|mut frames| std::mem::take(&mut *frames))
        .unwrap_or_default()
}

fn compare(before: &[(Option<gst::ClockTime>, Vec<u8>)], after: &[(Option<gst::ClockTime>, Vec<u8>)]) -> Result<()> {
    ensure!(
        before.len() == FRAMES as usize && after.len() == before.len(),
        "{} frames went in and {} came out, instead of {FRAMES}",
        before.len(),
        after.len()
    );
    for (number, ((time_in, bytes_in), (time_out, bytes_out))) in before.iter().zip(after).enumerate() {
        ensure!(
            time_in == time_out,
            "frame {number} went in at {time_in:?} and came out at {time_out:?}"
        );
        let wrong = bytes_in
            .iter()
            .zip(bytes_out)
            .filter(|(a, b)| (255 - **a).abs_diff(**b) > 1)
            .count();
        if wrong > 0 || bytes_in.len() != bytes_out.len() {
            bail!("frame {number} came out as another picture than the model makes of it: {wrong} bytes are wrong");
        }
    }
    Ok(())
}

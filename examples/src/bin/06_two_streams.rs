//! Two streams share one model, and a third comes and goes while they play.
//!
//! comfybatch's request pads and comfyunbatch's pads belong together by number. A pad of comfyunbatch appears with the
//! first frame of its stream, and goes when comfybatch's pad is released.
//!
//! `06_two_streams [MODEL]`

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use gst::prelude::*;

type Counts = Arc<[AtomicU64; 3]>;

fn main() -> Result<()> {
    let arguments = comfy_examples::arguments("06_two_streams [MODEL]", 1)?;
    comfy_examples::init()?;
    let pipeline = comfy_examples::parse(
        "comfybatch name=batch batch-size=4 policy=round-robin ! comfyinfer name=infer ! comfyunbatch name=unbatch",
    )?;
    let element = |name: &str| pipeline.by_name(name).with_context(|| format!("no element {name}"));
    let model = comfy_examples::model("invert.onnx").display().to_string();
    element("infer")?.set_property("model", arguments.first().unwrap_or(&model));

    let counts: Counts = Arc::default();
    let unbatch = element("unbatch")?;
    let (bin, shared) = (pipeline.downgrade(), counts.clone());
    // src_0 is there from the start; the others come with their streams.
    show(
        &pipeline,
        &unbatch.static_pad("src_0").context("src_0 is always there")?,
        &counts,
    )?;
    unbatch.connect_pad_added(move |_, pad| {
        let Some(bin) = bin.upgrade() else { return };
        println!("{} appears", pad.name());
        if let Err(error) = show(&bin, pad, &shared) {
            gst::element_error!(bin, gst::CoreError::Pad, ["{error}"]);
        }
    });
    unbatch.connect_pad_removed(|_, pad| println!("{} goes", pad.name()));

    for number in 0..3 {
        source(&pipeline, &element("batch")?, number)?;
    }
    // The third stream ends first, and its pad is released while the others play.
    comfy_examples::play(&pipeline, |_| ())?;
    for (number, count) in counts.iter().enumerate() {
        println!("stream {number}: {} frames", count.load(Ordering::Relaxed));
    }
    Ok(())
}

/// A source for pad `sink_<number>`; the one of stream 2 lets its pad go at its end.
fn source(pipeline: &gst::Pipeline, batch: &gst::Element, number: usize) -> Result<()> {
    let text = format!(
        "videotestsrc num-buffers={} pattern={number} ! capsfilter caps=video/x-raw,format=RGB,width=160,height=120,framerate=30/1",
        [48, 36, 10][number]
    );
    let branch = gst::parse::bin_from_description(&text, true)?;
    pipeline.add(&branch)?;
    let pad = batch.request_pad_simple(&format!("sink_{number}")).context("a pad")?;
    branch.static_pad("src").context("its ghost pad")?.link(&pad)?;
    if number == 2 {
        let once = Mutex::new(Some(pad.clone()));
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if matches!(info.event().map(|event| event.type_()), Some(gst::EventType::Eos))
                && let Some(pad) = once.lock().ok().and_then(|mut pad| pad.take())
                && let Some(batch) = pad.parent_element()
            {
                // Not from the streaming thread, which release_request_pad waits for.
                batch.call_async(move |batch| batch.release_request_pad(&pad));
            }
            gst::PadProbeReturn::Ok
        });
    }
    Ok(())
}

/// Counts a stream's frames at a sink of its own.
fn show(pipeline: &gst::Pipeline, pad: &gst::Pad, counts: &Counts) -> Result<()> {
    let number: usize = pad.name().trim_start_matches("src_").parse()?;
    let sink = gst::ElementFactory::make("fakesink").property("async", false).build()?;
    pipeline.add(&sink)?;
    sink.sync_state_with_parent()?;
    pad.link(&sink.static_pad("sink").context("a sink has one")?)?;
    let counts = counts.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        counts[number].fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

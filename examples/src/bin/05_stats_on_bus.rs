//! What the elements tell an application: progress while a model loads, element messages when their state changes,
//! errors in words, and counters in `stats`, to be read at any time.
//!
//! `05_stats_on_bus [MODEL]`

use anyhow::{Context, Result};
use gst::prelude::*;

fn main() -> Result<()> {
    let arguments = comfy_examples::arguments("05_stats_on_bus [MODEL]", 1)?;
    comfy_examples::init()?;
    let pipeline = comfy_examples::parse(
        "videotestsrc is-live=true num-buffers=45 ! video/x-raw,format=RGB,width=160,height=120,framerate=30/1 \
         ! comfyflightbuffer name=buffer batch-size=4 threshold=2 ! comfybatch name=batch batch-size=4 \
         ! comfyinfer name=infer ! comfyunbatch name=unbatch ! fakesink sync=true",
    )?;
    let element = |name: &str| pipeline.by_name(name).with_context(|| format!("no element {name}"));
    let model = comfy_examples::model("invert.onnx").display().to_string();
    element("infer")?.set_property("model", arguments.first().unwrap_or(&model));

    comfy_examples::play(&pipeline, |message| match message.view() {
        gst::MessageView::Progress(progress) => {
            let (kind, _, text) = progress.get();
            println!("progress {kind:?}: {text}");
        }
        // Named after the element that posts it.
        gst::MessageView::Element(element) => println!(
            "message {}",
            element.structure().map_or(String::new(), |s| s.to_string())
        ),
        gst::MessageView::Latency(_) => {
            let mut query = gst::query::Latency::new();
            if pipeline.query(&mut query) {
                let (live, min, max) = query.result();
                println!(
                    "latency live={live} min={min} max={}",
                    max.map_or("none".into(), |max| max.to_string())
                );
            }
        }
        gst::MessageView::Eos(_) => {
            for name in ["buffer", "batch", "infer", "unbatch"] {
                let Some(element) = pipeline.by_name(name) else {
                    continue;
                };
                println!("{name}: {}", element.property::<gst::Structure>("stats"));
            }
        }
        _ => (),
    })
}

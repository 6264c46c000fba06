//! A real GPU's decoder, comfyinfer and an encoder in one pipeline: which copies there are, and that there are no others.
//!
//! Behind feature `gpu`, for machines that have one; where it is asked for and nothing is there, it fails. What can be
//! proven without is in `cuda.rs`.

use comfy_tests::models::model;
use comfy_tests::pipeline::{self, parse, play_to_end};
use comfy_tests::temp::Temp;
use gst::prelude::*;

/// Frames of the clip.
const FRAMES: u64 = 90;

/// Runs a launch file on a clip; answers uploads, downloads, copies by the processor and on the device.
fn crossings(name: &str) -> [u64; 4] {
    comfy_tests::init();
    for element in ["nvh264dec", "cudaupload"] {
        assert!(
            gst::ElementFactory::find(element).is_some(),
            "{element} is not here: this test needs an NVIDIA GPU and GStreamer's nvcodec plugin with its decoder"
        );
    }
    let folder = Temp::new();
    let file = |name: &str| folder.path().join(name).display().to_string();
    pipeline::run(&parse(&format!(
        "videotestsrc num-buffers={FRAMES} pattern=ball ! video/x-raw,width=640,height=480,framerate=30/1 \
         ! x264enc speed-preset=ultrafast ! mp4mux ! filesink location={}",
        file("in.mp4")
    )))
    .expect_eos();
    let text = pipeline::launch_text(name)
        .replace("location=in.mp4", &format!("location={}", file("in.mp4")))
        .replace("location=out.mp4", &format!("location={}", file("out.mp4")))
        .replace("model=cartoon.onnx", &format!("model={}", model("cartoon.onnx")));
    let pipeline = parse(&text);
    let ended = play_to_end(&pipeline);
    let infer = pipeline::made_by(&pipeline, "comfyinfer");
    let stats: gst::Structure = infer.property("stats");
    pipeline::go(&pipeline, gst::State::Null);
    assert!(ended.errors().is_empty(), "{name}: {:?}", ended.errors());
    assert_eq!(stats.get::<u64>("frames"), Ok(FRAMES), "{name}");
    ["uploads", "downloads", "host-copies", "device-copies"].map(|name| stats.get(name).expect(name))
}

#[test]
fn decoder_model_and_an_encoder_of_the_processor_cost_one_download() {
    assert_eq!(crossings("gpu-x264"), [0, FRAMES, 0, 0]);
}

/// Datacentre parts have no encoder: there is nothing to test on them.
#[test]
fn decoder_model_and_the_gpus_encoder_cost_no_copy() {
    comfy_tests::init();
    if gst::ElementFactory::find("nvh264enc").is_none() {
        assert!(gst::ElementFactory::find("nvh264dec").is_some(), "there is no GPU here");
        eprintln!("this GPU has no encoder: nothing was tested");
        return;
    }
    assert_eq!(crossings("gpu-file"), [0; 4]);
}

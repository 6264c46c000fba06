//! comfyinfer on a GPU that is simulated, between GStreamer's own CUDA elements.
//!
//! The device's memory cannot be touched by the processor, so whatever maps it crashes this process; what crosses
//! between the two memories is counted by the driver.

use std::path::Path;

use comfy_core::cuda::sim::Counters;
use comfy_tests::gpu::simulate;
use comfy_tests::models::{model, runtime};
use comfy_tests::pipeline::{self, Ended, parse, play_to_end};
use comfy_tests::{Tap, Video};
use gst::prelude::*;
use gstcomfy::tensormeta::ComfyTensorMeta;

const WIDTH: u32 = 64;
const HEIGHT: u32 = 48;

/// By itself it lets frames pass as they are where main memory is taken, too.
const UPLOAD: &str = "cudaupload ! video/x-raw(memory:CUDAMemory)";

/// What ran, and what it left behind.
struct Ran {
    ended: Ended,
    frames: Vec<gst::Buffer>,
    caps: gst::Caps,
    stats: gst::Structure,
}

impl Ran {
    fn count(&self, name: &str) -> u64 {
        self.stats
            .get::<u64>(name)
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn word(&self, name: &str) -> String {
        self.stats
            .get::<String>(name)
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Crossings as comfyinfer counts them.
    fn crossings(&self) -> [u64; 4] {
        ["uploads", "downloads", "host-copies", "device-copies"].map(|name| self.count(name))
    }
}

/// Runs a pipeline to its end; `infer` and `out` are the names of its comfyinfer and its sink.
fn run(text: &str) -> Ran {
    let pipeline = parse(text);
    let sink = pipeline
        .by_name("out")
        .expect("a sink")
        .static_pad("sink")
        .expect("a pad");
    let tap = Tap::on(&sink);
    let ended = play_to_end(&pipeline);
    let stats = pipeline.by_name("infer").expect("a comfyinfer").property("stats");
    let caps = sink.current_caps().unwrap_or_else(gst::Caps::new_empty);
    pipeline::go(&pipeline, gst::State::Null);
    Ran {
        ended,
        frames: tap.frames(),
        caps,
        stats,
    }
}

/// A source of moving pictures.
fn source(format: &str, frames: u32) -> String {
    format!(
        "videotestsrc pattern=ball num-buffers={frames} ! video/x-raw,format={format},width={WIDTH},height={HEIGHT},framerate=25/1"
    )
}

fn chain(batch: u32, properties: &str) -> String {
    format!("comfybatch batch-size={batch} ! comfyinfer name=infer {properties} ! comfyunbatch")
}

/// The largest difference between pictures of two runs, byte by byte.
#[track_caller]
fn assert_alike(a: &Ran, b: &Ran) {
    assert_eq!(a.frames.len(), b.frames.len());
    let video = Video::from_caps(&b.caps);
    for (number, (a, b)) in a.frames.iter().zip(&b.frames).enumerate() {
        assert_eq!(
            (a.pts(), a.duration(), a.offset()),
            (b.pts(), b.duration(), b.offset()),
            "frame {number}"
        );
        let (a, b) = (video.bytes(a), video.bytes(b));
        let most = a.iter().zip(&b).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(most <= Some(2), "frame {number} differs by {most:?}");
    }
}

/// The same model by the processor.
fn by_processor(format: &str, frames: u32, batch: u32, model: &str, after: &str) -> Ran {
    let ran = run(&format!(
        "{} ! {} ! {after} ! fakesink name=out",
        source(format, frames),
        chain(batch, &format!("model={model} backend=cpu threads=1"))
    ));
    Ran {
        ended: ran.ended.expect_eos(),
        ..ran
    }
}

/// Bytes of a frame that are copied, without what is between its rows.
fn rows(format: &str) -> u64 {
    let pixels = u64::from(WIDTH * HEIGHT);
    if format == "RGBA" { pixels * 4 } else { pixels * 3 / 2 }
}

#[test]
fn frames_stay_on_the_gpu_between_elements_of_it() {
    let turn = simulate();
    runtime();
    for (name, file) in [
        ("builtin:invert", "builtin:invert".to_owned()),
        ("invert.onnx", model("invert.onnx")),
    ] {
        for format in ["NV12", "I420", "RGBA"] {
            let same = format!("video/x-raw,format={format}");
            let expected = by_processor(format, 11, 4, &file, &same);
            let through = |frames: u32| {
                let before = turn.counters();
                let ran = run(&format!(
                    "{} ! {UPLOAD} ! {} ! video/x-raw(memory:CUDAMemory),format={format} ! cudadownload ! {same} \
                     ! fakesink name=out",
                    source(format, frames),
                    chain(4, &format!("model={file} backend=cuda threads=1"))
                ));
                let crossed = crossed(&before, &turn.counters());
                assert!(
                    ran.ended.errors().is_empty(),
                    "{name}, {format}: {:?}",
                    ran.ended.errors()
                );
                (ran, crossed)
            };
            let (ran, _) = through(11);
            assert_alike(&ran, &expected);
            assert_eq!(
                [ran.word("memory-in"), ran.word("memory-out")],
                ["CUDAMemory", "CUDAMemory"]
            );
            assert_eq!(ran.crossings(), [0; 4], "{name}, {format}");
            // Each frame crosses twice, in cudaupload and cudadownload, and with each batch a count of odd values. What
            // both runs have in common is the warm-up's.
            let (few, many) = (through(8).1, through(40).1);
            let (frames, batches) = (32, 8);
            assert_eq!(many - few, 2 * frames * rows(format) + 4 * batches, "{name}, {format}");
        }
    }
}

/// Bytes that crossed between the memories.
fn crossed(before: &Counters, after: &Counters) -> u64 {
    after.htod_bytes + after.dtoh_bytes - before.htod_bytes - before.dtoh_bytes
}

#[test]
fn an_encoder_on_the_processor_costs_one_download_of_each_frame_and_no_copy_besides() {
    let _turn = simulate();
    let expected = by_processor("NV12", 10, 4, "builtin:invert", "video/x-raw,format=NV12");
    let ran = run(&format!(
        "{} ! {UPLOAD} ! {} ! video/x-raw,format=NV12 ! fakesink name=out",
        source("NV12", 10),
        chain(4, "model=builtin:invert backend=cuda")
    ));
    assert_alike(&ran, &expected);
    assert_eq!(
        [ran.word("memory-in"), ran.word("memory-out")],
        ["CUDAMemory", "SystemMemory"]
    );
    assert_eq!(ran.crossings(), [0, 10, 0, 0]);
}

#[test]
fn frames_of_main_memory_are_made_in_the_buffers_that_comfyinfer_offers() {
    let _turn = simulate();
    let expected = by_processor("I420", 10, 3, "builtin:invert", "identity");
    let ran = run(&format!(
        "{} ! {} ! fakesink name=out",
        source("I420", 10),
        chain(3, "model=builtin:invert backend=cuda")
    ));
    assert_alike(&ran, &expected);
    assert_eq!(ran.crossings(), [10, 10, 0, 0]);
}

#[test]
fn frames_in_buffers_of_others_are_copied_once_by_the_processor() {
    let _turn = simulate();
    // What comes out of this queue's side was made for somebody who asked for nothing.
    let ran = run(&format!(
        "{} ! videoconvert ! video/x-raw,format=NV12 ! identity drop-allocation=true ! {} ! fakesink name=out",
        source("I420", 6),
        chain(3, "model=builtin:invert backend=cuda")
    ));
    assert_eq!(ran.crossings(), [6, 6, 6, 0]);
}

#[test]
fn what_is_no_picture_travels_beside_the_frame_and_another_size_comes_out() {
    let _turn = simulate();
    runtime();
    let through = |file: &str, backend: &str, upload: &str| {
        run(&format!(
            "{} ! {upload} ! {} ! cudadownload ! video/x-raw,format=RGBA ! fakesink name=out",
            source("RGBA", 5),
            chain(2, &format!("model={} backend={backend} threads=1", model(file)))
        ))
    };
    let (expected, made) = (
        through("tensor-out.onnx", "cpu", "identity"),
        through("tensor-out.onnx", "cuda", UPLOAD),
    );
    assert_eq!(made.frames.len(), 5, "{:?}", made.ended.errors());
    for (a, b) in expected.frames.iter().zip(&made.frames) {
        let values = |frame: &gst::Buffer| -> Vec<f32> {
            let meta = frame.meta::<ComfyTensorMeta>().expect("the model has one");
            let map = meta.tensors()[0].data.map_readable().unwrap();
            map.as_chunks()
                .0
                .iter()
                .map(|bytes| f32::from_ne_bytes(*bytes))
                .collect()
        };
        let (a, b) = (values(a), values(b));
        assert_eq!(a.len(), b.len());
        let most = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Values are of pictures from 0 to 1, and one step of a byte is 0.004.
        assert!(most < 0.01, "{most}");
    }
    let (expected, made) = (
        through("upscale2x.onnx", "cpu", "identity"),
        through("upscale2x.onnx", "cuda", UPLOAD),
    );
    assert_alike(&made, &expected);
    let size = Video::from_caps(&made.caps).info;
    assert_eq!((size.width(), size.height()), (2 * WIDTH, 2 * HEIGHT));
}

#[test]
fn frames_on_the_gpu_pass_marked_until_the_model_is_there() {
    let _turn = simulate();
    let text = format!(
        "{} ! {UPLOAD} ! {} ! video/x-raw(memory:CUDAMemory) ! cudadownload ! fakesink name=out",
        source("NV12", 400),
        chain(
            2,
            "model=builtin:invert?load=50ms backend=cuda warmup-policy=pass-through"
        )
    );
    let ran = run(&text);
    assert!(ran.ended.errors().is_empty(), "{:?}", ran.ended.errors());
    assert_eq!(ran.frames.len(), 400);
    assert_eq!(ran.crossings(), [0; 4]);
}

#[test]
fn two_streams_share_batches_on_the_gpu() {
    let _turn = simulate();
    let expected = by_processor("NV12", 8, 4, "builtin:invert", "video/x-raw,format=NV12");
    let pipeline = parse(&format!(
        "comfybatch name=b batch-size=4 ! comfyinfer name=infer model=builtin:invert backend=cuda ! comfyunbatch name=u \
         {a} ! {UPLOAD} ! b.sink_0  {a} ! {UPLOAD} ! b.sink_1 \
         u.src_0 ! video/x-raw,format=NV12 ! fakesink name=out  u.src_1 ! video/x-raw,format=NV12 ! fakesink name=other",
        a = source("NV12", 8)
    ));
    let taps = ["out", "other"].map(|name| Tap::on(&pipeline.by_name(name).unwrap().static_pad("sink").unwrap()));
    let ended = play_to_end(&pipeline);
    pipeline::go(&pipeline, gst::State::Null);
    assert!(ended.errors().is_empty(), "{:?}", ended.errors());
    for tap in taps {
        let frames = tap.frames();
        assert_eq!(frames.len(), expected.frames.len());
        let video = Video::from_caps(&expected.caps);
        for (made, expected) in frames.iter().zip(&expected.frames) {
            let most = video
                .bytes(made)
                .iter()
                .zip(video.bytes(expected))
                .map(|(a, b)| a.abs_diff(b))
                .max();
            assert!(most <= Some(2), "{most:?}");
        }
    }
}

#[test]
fn frames_of_another_context_are_copied_once_on_the_device() {
    let _turn = simulate();
    let expected = by_processor("NV12", 6, 2, "builtin:invert", "identity");
    // It starts before anybody could tell it of ours, and makes a context of its own.
    let pipeline = parse(&format!(
        "{} ! cudaupload name=up ! video/x-raw(memory:CUDAMemory) ! {} ! video/x-raw,format=NV12 ! fakesink name=out",
        source("NV12", 6),
        chain(2, "model=builtin:invert backend=cuda")
    ));
    let upload = pipeline.by_name("up").unwrap();
    upload.set_state(gst::State::Paused).unwrap();
    let sink = pipeline.by_name("out").unwrap().static_pad("sink").unwrap();
    let tap = Tap::on(&sink);
    let ended = play_to_end(&pipeline);
    assert!(ended.errors().is_empty(), "{:?}", ended.errors());
    let ran = Ran {
        ended,
        frames: tap.frames(),
        caps: sink.current_caps().unwrap(),
        stats: pipeline.by_name("infer").unwrap().property("stats"),
    };
    pipeline::go(&pipeline, gst::State::Null);
    assert_alike(&ran, &expected);
    assert_eq!(ran.crossings(), [0, 6, 0, 6]);
}

#[test]
fn a_model_on_the_processor_refuses_frames_of_a_gpu_with_what_to_do() {
    let _turn = simulate();
    let ran = run(&format!(
        "{} ! cudaupload ! video/x-raw(memory:CUDAMemory) ! {} ! fakesink name=out",
        source("NV12", 4),
        chain(2, "model=builtin:invert backend=cpu")
    ));
    let errors = ran.ended.errors();
    assert!(!errors.is_empty() && ran.frames.is_empty(), "{errors:?}");
}

#[test]
fn a_device_that_fails_is_one_error_that_names_it() {
    let turn = simulate();
    // Nobody else uses the device, and would fail first.
    let pipeline = parse(&format!(
        "{} ! {} ! video/x-raw,format=NV12 ! fakesink name=out",
        source("NV12", 200),
        chain(2, "model=builtin:invert backend=cuda")
    ));
    let bus = pipeline.bus().unwrap();
    pipeline::go(&pipeline, gst::State::Paused);
    // The device is ruined from here on.
    turn.fail_launches_after(0);
    pipeline::go_async(&pipeline, gst::State::Playing);
    let message = pipeline::wait_message(&bus, "an error", |message| message.type_() == gst::MessageType::Error);
    let gst::MessageView::Error(error) = message.view() else {
        unreachable!("just looked at");
    };
    assert!(error.error().message().contains("CUDA device 0"), "{}", error.error());
    pipeline::go(&pipeline, gst::State::Null);
}

#[test]
fn a_stop_while_the_device_stands_still_ends_when_it_goes_on() {
    let turn = simulate();
    let pipeline = parse(&format!(
        "{} ! {UPLOAD} ! {} ! fakesink name=out",
        source("NV12", 1000),
        chain(2, "model=builtin:invert backend=cuda")
    ));
    pipeline::go(&pipeline, gst::State::Playing);
    let stalled = turn.stall(None);
    let stop = std::thread::spawn({
        let pipeline = pipeline.clone();
        move || pipeline::go(&pipeline, gst::State::Null)
    });
    drop(stalled);
    stop.join().expect("it stops");
}

#[test]
fn starts_and_stops_leave_nothing_on_the_device() {
    let turn = simulate();
    let text = format!(
        "{} ! {UPLOAD} ! {} ! video/x-raw,format=NV12 ! fakesink name=out",
        source("NV12", 4),
        chain(2, "model=builtin:invert backend=cuda")
    );
    let cycle = || drop(run(&text).ended.expect_eos());
    cycle();
    let before = turn.counters();
    for _ in 0..10 {
        cycle();
    }
    let after = turn.counters();
    let live = |counters: &Counters| {
        [
            counters.live_allocations,
            counters.live_pinned,
            counters.live_streams,
            counters.live_events,
            counters.live_contexts,
        ]
    };
    assert_eq!(live(&after), live(&before));
}

#[test]
fn a_swap_of_the_model_loses_no_frame_on_the_gpu() {
    let _turn = simulate();
    runtime();
    let pipeline = parse(&format!(
        "{} ! {UPLOAD} ! {} ! video/x-raw(memory:CUDAMemory) ! cudadownload ! fakesink name=out",
        source("NV12", 300),
        chain(2, "model=builtin:invert backend=cuda threads=1")
    ));
    let tap = Tap::on(&pipeline.by_name("out").unwrap().static_pad("sink").unwrap());
    let infer = pipeline.by_name("infer").unwrap();
    pipeline::go(&pipeline, gst::State::Paused);
    infer.set_property("model", model("invert.onnx"));
    let ended = play_to_end(&pipeline);
    pipeline::go(&pipeline, gst::State::Null);
    assert!(
        ended.errors().is_empty() && ended.warnings().is_empty(),
        "{:?}",
        ended.errors()
    );
    assert_eq!(tap.frames().len(), 300);
}

/// Launch files of GPUs, with the processor's codecs in place of NVIDIA's, around the same elements of ours.
#[test]
fn gpu_launch_files_run_with_stand_ins_for_the_codecs() {
    let _turn = simulate();
    let folder = comfy_tests::temp::Temp::new();
    let clip = folder.path().join("in.mp4");
    let out = folder.path().join("out.mp4");
    pipeline::run(&parse(&format!(
        "videotestsrc num-buffers=12 pattern=ball ! video/x-raw,width={WIDTH},height={HEIGHT},framerate=25/1 \
         ! x264enc speed-preset=ultrafast ! mp4mux ! filesink location={}",
        clip.display()
    )))
    .expect_eos();
    for name in ["gpu-file", "gpu-x264"] {
        let text = pipeline::launch_text(name)
            .replace("location=in.mp4", &format!("location={}", clip.display()))
            .replace("location=out.mp4", &format!("location={}", out.display()))
            .replace("model=cartoon.onnx", &format!("model={}", model("cartoon.onnx")))
            .replace(
                "nvh264dec",
                "avdec_h264 ! videoconvert ! video/x-raw,format=NV12 ! cudaupload",
            )
            .replace(
                "nvh264enc bitrate=4000",
                "cudadownload ! x264enc speed-preset=ultrafast",
            );
        let pipeline = parse(&text);
        let infer = pipeline::made_by(&pipeline, "comfyinfer");
        infer.set_property("threads", 1_u32);
        let ended = play_to_end(&pipeline);
        let stats: gst::Structure = infer.property("stats");
        pipeline::go(&pipeline, gst::State::Null);
        assert!(ended.errors().is_empty(), "{name}: {:?}", ended.errors());
        assert_eq!(stats.get::<u64>("frames"), Ok(12), "{name}");
        let downloads = stats.get::<u64>("downloads");
        assert_eq!(downloads, Ok(if name == "gpu-file" { 0 } else { 12 }), "{name}");
        assert_eq!(stats.get::<u64>("uploads"), Ok(0), "{name}");
        assert!(Path::new(&out).metadata().is_ok_and(|file| file.len() > 500), "{name}");
    }
}

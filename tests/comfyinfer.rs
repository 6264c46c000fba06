//! comfyinfer between the test's own pads and in whole pipelines.

use std::thread;
use std::time::Duration;

use comfy_tests::bench::{segment, stat, word};
use comfy_tests::models::{model, runtime};
use comfy_tests::pipeline::{Ended, parse, play_to_end, run};
use comfy_tests::story::{filled, of_frames, painted};
use comfy_tests::temp::Temp;
use comfy_tests::{Bench, Tap, Video};
use gst::prelude::*;
use gstcomfy::tensormeta::ComfyTensorMeta;

const FRAME: gst::ClockTime = Video::FRAME;

fn rgb() -> Video {
    Video::new("RGB", 64, 48)
}

/// Frames in, frames out, with batches between.
fn bench(video: &Video, batch: u32, properties: &str) -> Bench {
    let text = format!("comfybatch batch-size={batch} ! comfyinfer name=infer {properties} ! comfyunbatch");
    let mut bench = Bench::new(&format!("capsfilter ! {text}"), "sink", "src");
    bench.harness.set_live(false);
    bench.harness.set_src_caps(video.caps());
    bench
}

fn infer(bench: &Bench) -> gst::Element {
    let bin: &gst::Bin = bench.element.downcast_ref().expect("a chain is a bin");
    bin.by_name("infer").expect("the chain has one")
}

fn out_video(bench: &Bench) -> Video {
    Video::from_caps(&bench.harness.sinkpad().unwrap().current_caps().expect("frames came"))
}

fn finish(bench: &mut Bench) -> Vec<gst::Buffer> {
    assert!(bench.harness.push_event(gst::event::Eos::new()));
    bench.out.wait_event(gst::EventType::Eos);
    bench.out.frames()
}

fn play(properties: &str, frames: u32, batch: u32) -> Ended {
    run(&parse(&format!(
        "videotestsrc num-buffers={frames} ! video/x-raw,format=RGB,width=64,height=48,framerate=25/1 \
         ! comfybatch batch-size={batch} ! comfyinfer {properties} ! comfyunbatch ! fakesink"
    )))
}

fn inverse(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| 255 - byte).collect()
}

#[test]
fn inverting_twice_gives_every_byte_back() {
    for name in [
        "builtin:invert".to_owned(),
        model("invert.onnx"),
        model("invert-u8.onnx"),
    ] {
        let mut bench = bench(&rgb(), 3, &format!("model={name}"));
        let frames: Vec<gst::Buffer> = (0..7).map(|n| rgb().frame(n)).collect();
        for frame in &frames {
            bench.push(frame.clone());
        }
        let once = finish(&mut bench);
        assert_eq!(painted(&rgb(), &once), (0..7).collect::<Vec<_>>(), "{name}");
        for (before, after) in frames.iter().zip(&once) {
            assert!(rgb().read(after).inverted);
            assert!(
                rgb().bytes(after) == inverse(&rgb().bytes(before)),
                "{name} is not exact"
            );
        }
        let mut again = self::bench(&rgb(), 3, &format!("model={name}"));
        for frame in &once {
            again.push(frame.clone());
        }
        let twice = finish(&mut again);
        for (before, after) in frames.iter().zip(&twice) {
            assert!(
                rgb().bytes(after) == rgb().bytes(before),
                "{name} twice is not the picture itself"
            );
        }
    }
}

#[test]
fn null_engine_passes_the_frames_themselves() {
    let mut bench = bench(&rgb(), 2, "backend=null");
    let frames: Vec<gst::Buffer> = (0..4).map(|n| rgb().frame(n)).collect();
    frames.iter().for_each(|frame| bench.push(frame.clone()));
    for (before, after) in frames.iter().zip(finish(&mut bench)) {
        assert_eq!(before.as_ptr(), after.as_ptr());
    }
}

#[test]
fn every_format_runs_and_keeps_its_place() {
    let path = model("invert.onnx");
    for format in ["RGB", "BGR", "RGBA", "BGRx", "RGBx", "BGRA", "NV12", "I420", "GRAY8"] {
        let video = Video::new(format, 64, 48);
        let mut bench = bench(&video, 2, &format!("model={path}"));
        (0..3).for_each(|n| bench.push(video.frame(n)));
        let frames = finish(&mut bench);
        let out = out_video(&bench);
        assert_eq!(out.info.format(), video.info.format(), "output follows input");
        for (number, frame) in frames.iter().enumerate() {
            let read = out.read(frame);
            assert_eq!((read.number, read.inverted), (number as u64, true), "{format}");
        }
    }
}

/// Rows: video meta, multi-plane memory. Strides come from each frame, never from its width.
#[test]
fn rows_that_are_longer_than_they_have_to_be_are_read_by_their_own_stride() {
    for (format, width, height) in [("NV12", 1366, 768), ("I420", 1366, 768), ("RGB", 63, 47)] {
        let video = Video::new(format, width, height);
        let outputs = [0, 64].map(|padding| {
            let mut bench = bench(&video, 1, "model=builtin:invert");
            bench.push(if padding == 0 {
                video.frame(5)
            } else {
                video.padded_frame(5, padding)
            });
            let frames = finish(&mut bench);
            assert_eq!(out_video(&bench).number(&frames[0]), 5);
            out_video(&bench).bytes(&frames[0])
        });
        assert!(outputs[0] == outputs[1], "{format} {width}x{height}");
    }
}

#[test]
fn model_of_a_fixed_batch_gives_only_real_frames() {
    let mut bench = bench(&rgb(), 0, &format!("model={}", model("fixed-batch2.onnx")));
    (0..5).for_each(|n| bench.push(rgb().frame(n)));
    assert_eq!(finish(&mut bench).len(), 5);
    assert_eq!(stat::<u64>(&infer(&bench), "frames"), 5);
    assert_eq!(
        stat::<u64>(&infer(&bench), "batches"),
        3,
        "batches of two, as the model wants them"
    );
    assert_eq!(stat::<u64>(&infer(&bench), "padded"), 1);
}

#[test]
fn batch_larger_than_a_fixed_model_is_run_in_parts() {
    let mut bench = bench(&rgb(), 5, &format!("model={}", model("fixed-batch2.onnx")));
    (0..5).for_each(|n| bench.push(rgb().frame(n)));
    assert_eq!(painted(&rgb(), &finish(&mut bench)), [0, 1, 2, 3, 4]);
}

/// Rows: metas, frame identity, reference timestamps.
#[test]
fn everything_of_a_frame_but_its_picture_comes_out_again() {
    let mut bench = bench(&rgb(), 2, &format!("model={}", model("upscale2x.onnx")));
    let reference = gst::Caps::builder("timestamp/x-ntp").build();
    let mut frame = rgb().frame(9);
    let writable = frame.get_mut().unwrap();
    writable.set_dts(FRAME * 4);
    writable.set_duration(FRAME / 2);
    writable.set_offset(77);
    writable.set_offset_end(78);
    writable.set_flags(gst::BufferFlags::DISCONT | gst::BufferFlags::MARKER);
    gst::ReferenceTimestampMeta::add(writable, &reference, gst::ClockTime::from_seconds(12), FRAME);
    gst_video::VideoRegionOfInterestMeta::add(writable, "face", (8, 6, 20, 10));
    gst::meta::CustomMeta::register("ComfyTestMeta", &[]);
    let mut custom = gst::meta::CustomMeta::add(writable, "ComfyTestMeta").expect("registered");
    custom.mut_structure().set("answer", 42);
    bench.push(frame);
    let frames = finish(&mut bench);
    let (out, frame) = (out_video(&bench), &frames[0]);
    assert_eq!((out.info.width(), out.info.height()), (128, 96));
    assert_eq!(out.info.par(), rgb().info.par());
    assert_eq!(out.info.fps(), rgb().info.fps());
    assert_eq!(out.number(frame), 9);
    assert_eq!(
        (frame.pts(), frame.dts(), frame.duration()),
        (Some(FRAME * 9), Some(FRAME * 4), Some(FRAME / 2))
    );
    assert_eq!((frame.offset(), frame.offset_end()), (77, 78));
    assert!(
        frame
            .flags()
            .contains(gst::BufferFlags::DISCONT | gst::BufferFlags::MARKER)
    );
    let time = frame.meta::<gst::ReferenceTimestampMeta>().expect("kept");
    assert_eq!(time.timestamp(), gst::ClockTime::from_seconds(12));
    let custom = gst::meta::CustomMeta::from_buffer(frame, "ComfyTestMeta").expect("kept");
    assert_eq!(custom.structure().get("answer"), Ok(42));
    let region = frame.meta::<gst_video::VideoRegionOfInterestMeta>().expect("kept");
    assert_eq!(
        region.rect(),
        (16, 12, 40, 20),
        "a place in the picture is scaled with it"
    );
}

#[test]
fn numbers_that_are_no_picture_travel_on_the_frame_itself() {
    let mut bench = bench(&rgb(), 2, &format!("model={}", model("tensor-out.onnx")));
    (0..3).for_each(|n| bench.push(rgb().frame(n)));
    let frames = finish(&mut bench);
    assert_eq!(painted(&rgb(), &frames), [0, 1, 2]);
    for (number, frame) in frames.iter().enumerate() {
        let meta = frame.meta::<ComfyTensorMeta>().expect("tensors");
        let names: Vec<&str> = meta.tensors().iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["stats", "brightest"]);
        let stats = &meta.tensors()[0];
        assert_eq!(stats.dims, [6], "one frame's share, without the batch");
        let data = stats.data.map_readable().unwrap();
        let red = f32::from_ne_bytes(data[..4].try_into().unwrap());
        let bytes = rgb().bytes(&rgb().frame(number as u64));
        let mean = bytes.iter().step_by(3).map(|b| f64::from(*b)).sum::<f64>() / (bytes.len() / 3) as f64 / 255.0;
        assert!((f64::from(red) - mean).abs() < 1e-4, "{red} {mean}");
    }
    assert_eq!(stat::<u64>(&infer(&bench), "tensors"), 6);
}

/// Row: errors. Each fault is one message, in the right domain, that says which file and what to do.
#[test]
fn faults_of_a_model_are_one_error_with_what_to_do() {
    runtime();
    let temp = Temp::new();
    let garbage: Vec<u8> = (0..10_000u32).map(|n| ((n * 7919) >> 3) as u8).collect();
    let cases = [
        ("/nowhere/cartoon.onnx".into(), "does not exist"),
        (temp.file("text.onnx", "this is no model"), "is not a usable model"),
        (temp.file("noise.onnx", garbage), "is not a usable model"),
        (temp.file("empty.onnx", ""), "is not a usable model"),
        ("builtin:nothing".into(), "builtin:null"),
        ("builtin:null?base=soon".into(), "expected a time"),
    ];
    for (path, part) in cases {
        let ended = play(&format!("model=\"{path}\""), 4, 2);
        let error = ended.expect_one_error();
        let said = format!("{error} {:?}", ended.errors()[0].1);
        assert!(said.contains(part) && said.contains(&path), "{path}: {said}");
        let right = match part {
            "does not exist" => error.matches(gst::ResourceError::NotFound),
            "is not a usable model" => error.matches(gst::StreamError::WrongType),
            _ => error.matches(gst::ResourceError::Settings),
        };
        assert!(right, "{path}: {error:?}");
    }
}

#[test]
fn folder_and_broken_manifest_are_one_error() {
    runtime();
    let temp = Temp::new();
    let copy = temp.file("invert.onnx", std::fs::read(model("invert.onnx")).unwrap());
    let manifest = temp.file("invert.toml", "[inputs.image]\nlayout = \"UPSIDE\"\n");
    let ended = play(&format!("model=\"{copy}\""), 4, 2);
    let error = ended.expect_one_error();
    assert!(error.matches(gst::ResourceError::Settings), "{error:?}");
    assert!(format!("{error} {:?}", ended.errors()).contains(&manifest));
    let folder = temp.path().to_str().unwrap().to_owned();
    play(&format!("model=\"{folder}\""), 4, 2).expect_one_error();
}

#[test]
fn manifest_that_contradicts_the_model_is_one_error_that_names_the_tensor() {
    runtime();
    let temp = Temp::new();
    let copy = temp.file("invert.onnx", std::fs::read(model("invert.onnx")).unwrap());
    temp.file("invert.toml", "[inputs.image]\norder = \"GRAY\"\n");
    let ended = play(&format!("model=\"{copy}\""), 4, 2);
    let error = ended.expect_one_error();
    assert!(error.matches(gst::StreamError::Format), "{error:?}");
    assert!(error.message().contains("image"), "{error}");
}

#[test]
fn no_model_at_all_is_one_error_that_names_the_property() {
    let ended = play("", 4, 2);
    assert!(ended.expect_one_error().matches(gst::ResourceError::Settings));
    assert!(format!("{:?}", ended.errors()).contains("`model` is not set"));
}

#[test]
fn failing_model_ends_the_stream_by_default() {
    let ended = play("model=builtin:invert?fail-after=2", 8, 2);
    assert!(ended.expect_one_error().matches(gst::ResourceError::Failed));
    assert!(format!("{:?}", ended.errors()).contains("fail-after"));
}

#[test]
fn passthrough_gives_the_input_while_the_model_fails_and_says_so_once() {
    // One run warms up and is counted; batches 0 and 1 work, 2 and 3 fail, 4 works again.
    let mut bench = bench(
        &rgb(),
        2,
        "model=builtin:invert?fail-after=3&fail-count=2 on-error=passthrough",
    );
    (0..10).for_each(|n| bench.push(rgb().frame(n)));
    let frames = finish(&mut bench);
    let read: Vec<(u64, bool)> = frames
        .iter()
        .map(|f| (rgb().read(f).number, rgb().read(f).inverted))
        .collect();
    let numbers: Vec<u64> = read.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    let passed: Vec<u64> = read
        .iter()
        .filter(|(_, inverted)| !inverted)
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(passed, [4, 5, 6, 7]);
    assert_eq!(stat::<u64>(&infer(&bench), "passed-through"), 4);
    let messages = bench.messages();
    let told = |failing: bool| {
        messages
            .iter()
            .filter_map(|m| m.structure())
            .filter(|s| s.name() == "comfyinfer" && s.get::<bool>("failing") == Ok(failing))
            .count()
    };
    assert_eq!((told(true), told(false)), (1, 1));
    assert_eq!(
        messages
            .iter()
            .filter(|m| m.type_() == gst::MessageType::Warning)
            .count(),
        1
    );
    assert!(!messages.iter().any(|m| m.type_() == gst::MessageType::Error));
}

#[test]
fn hold_gives_the_last_good_picture_with_the_time_of_its_frame() {
    let mut bench = bench(
        &rgb(),
        1,
        "model=builtin:invert?fail-after=3&fail-count=2 on-error=hold",
    );
    (0..5).for_each(|n| bench.push(rgb().frame(n)));
    let frames = finish(&mut bench);
    assert_eq!(painted(&rgb(), &frames), [0, 1, 1, 1, 4]);
    let times: Vec<_> = frames.iter().map(|f| f.pts().unwrap()).collect();
    assert_eq!(times, (0..5).map(|n| FRAME * n).collect::<Vec<_>>());
    assert_eq!(stat::<u64>(&infer(&bench), "held"), 2);
}

#[test]
fn values_that_are_not_finite_are_counted_and_warned_of_once() {
    let mut bench = bench(&rgb(), 2, "model=builtin:null?nan-after=2");
    (0..6).for_each(|n| bench.push(rgb().frame(n)));
    assert_eq!(finish(&mut bench).len(), 6);
    assert!(stat::<u64>(&infer(&bench), "non-finite") >= 64 * 48 * 3 * 4);
    let warnings = bench
        .messages()
        .iter()
        .filter(|m| m.type_() == gst::MessageType::Warning)
        .count();
    assert_eq!(warnings, 1);
}

/// Rows: errors never unwind across the boundary.
#[test]
fn panic_in_a_run_or_while_converting_is_an_error_and_the_process_lives() {
    for what in ["run", "input"] {
        let ended = play(&format!("model=builtin:invert?panic={what}"), 8, 2);
        let errors = ended.errors();
        assert!(
            errors[0].0.message().contains("asked for with panic"),
            "{what}: {errors:?}"
        );
        // What comes after it, EOS at least, is refused without another word.
        ended.expect_one_error();
    }
    play("model=builtin:invert", 8, 2).expect_eos();
}

/// Rows: FLUSH_START, FLUSH_STOP.
#[test]
fn flush_ends_the_run_in_progress_and_drops_what_is_in_flight() {
    let mut bench = bench(&rgb(), 1, "model=builtin:invert?base=20s");
    // The warm-up lasts as long as a run; what flushes does not wait for it.
    let pad = bench.pad();
    let pushing = thread::spawn(move || pad.push(rgb().frame(0)));
    bench.harness.push_event(gst::event::FlushStart::new());
    let _ = pushing.join().unwrap();
    bench.harness.push_event(gst::event::FlushStop::new(true));
    assert!(bench.out.frames().is_empty());
}

#[test]
fn frames_after_a_flush_are_new_ones() {
    let mut bench = bench(&rgb(), 2, "model=builtin:invert?base=2ms");
    for round in 0..10u64 {
        (0..5).for_each(|n| bench.push(rgb().frame(round * 10 + n)));
        bench.flush();
        bench.out.clear();
        (5..9).for_each(|n| bench.push(rgb().frame(round * 10 + n)));
        let frames = bench.out.wait_frames(4);
        assert_eq!(
            painted(&rgb(), &frames),
            (5..9).map(|n| round * 10 + n).collect::<Vec<_>>()
        );
    }
    assert!(!bench.messages().iter().any(|m| m.type_() == gst::MessageType::Error));
}

/// Rows: PAUSED to READY; state changes never wait for a model.
#[test]
fn stopping_in_the_middle_of_a_long_run_does_not_wait_for_it() {
    let pipeline = parse(
        "videotestsrc ! video/x-raw,format=RGB,width=64,height=48 ! comfybatch batch-size=2 \
         ! comfyinfer name=infer model=builtin:invert?stall-every=3&stall=3600s ! comfyunbatch ! fakesink name=sink",
    );
    let out = Tap::on(&pipeline.by_name("sink").unwrap().static_pad("sink").unwrap());
    pipeline.set_state(gst::State::Playing).unwrap();
    // The warm-up is the first run, this batch the second; the third would last an hour.
    out.wait_frames(1);
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn start_and_stop_while_the_model_is_loaded_return_at_once() {
    let path = model("style.onnx");
    for _ in 0..5 {
        let pipeline = parse(&format!(
            "videotestsrc ! video/x-raw,format=RGB,width=64,height=48 ! comfybatch batch-size=2 \
             ! comfyinfer model={path} ! comfyunbatch ! fakesink"
        ));
        pipeline.set_state(gst::State::Playing).unwrap();
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn start_after_a_stop_runs_again() {
    let pipeline = parse(
        "videotestsrc num-buffers=4 ! video/x-raw,format=RGB,width=64,height=48 ! comfybatch batch-size=2 \
         ! comfyinfer name=infer model=builtin:invert ! comfyunbatch ! fakesink",
    );
    for _ in 0..5 {
        play_to_end(&pipeline).expect_eos();
        assert_eq!(stat::<u64>(&pipeline.by_name("infer").unwrap(), "frames"), 4);
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

/// Row: EOS then restart.
#[test]
fn stream_start_after_the_end_begins_anew() {
    let mut bench = bench(&rgb(), 2, "model=builtin:invert");
    for round in 0..5u64 {
        bench.out.clear();
        (0..3).for_each(|n| bench.push(rgb().frame(round * 10 + n)));
        let frames = finish(&mut bench);
        assert_eq!(
            painted(&rgb(), &frames),
            (0..3).map(|n| round * 10 + n).collect::<Vec<_>>()
        );
        for event in [
            gst::event::StreamStart::new("again"),
            gst::event::Caps::new(&rgb().caps()),
            segment(),
        ] {
            assert!(bench.harness.push_event(event));
        }
    }
}

#[test]
fn elements_of_one_name_share_an_engine_and_refuse_another_model() {
    let text = |model: &str| {
        format!(
            "videotestsrc num-buffers=4 ! video/x-raw,format=RGB,width=64,height=48 ! comfybatch batch-size=2 \
             ! comfyinfer shared=one-name model={model} ! comfyunbatch ! fakesink"
        )
    };
    let first = parse(&text("builtin:invert"));
    play_to_end(&first).expect_eos();
    run(&parse(&text("builtin:invert"))).expect_eos();
    let ended = run(&parse(&text("builtin:null?copy=true")));
    assert!(ended.expect_one_error().matches(gst::ResourceError::Settings));
    first.set_state(gst::State::Null).unwrap();
    drop(first);
    // Nobody holds it any more: the name is free.
    run(&parse(&text("builtin:null?copy=true"))).expect_eos();
}

/// Rows: writability, a batch in two branches.
#[test]
fn batch_in_two_branches_is_edited_in_one_only() {
    let pipeline = parse(
        "videotestsrc num-buffers=6 pattern=black ! video/x-raw,format=RGB,width=64,height=48 ! comfybatch batch-size=2 ! tee name=t \
         t. ! queue ! comfyinfer model=builtin:invert ! tee name=v ! queue ! comfyunbatch ! fakesink name=a sync=false \
         v. ! queue ! comfyinfer model=builtin:invert ! comfyunbatch ! fakesink name=b sync=false \
         t. ! queue ! comfyunbatch ! fakesink name=c sync=false",
    );
    let taps = ["a", "b", "c"].map(|name| Tap::on(&pipeline.by_name(name).unwrap().static_pad("sink").unwrap()));
    run(&pipeline).expect_eos();
    let level = |tap: &Tap| -> Vec<u8> { tap.frames().iter().map(|f| f.map_readable().unwrap()[0]).collect() };
    assert_eq!(taps.each_ref().map(level), [vec![255; 6], vec![0; 6], vec![0; 6]]);
}

/// With two batches in flight, one is converted while another runs: a long run hides everything else.
#[test]
fn next_batch_is_taken_in_while_one_runs() {
    let mut bench = bench(&rgb(), 1, "model=builtin:invert?stall-every=2&stall=3600s in-flight=2");
    // The warm-up was run 1. This one is run 2 and would last an hour; another lane takes in the next batch.
    let offered = Tap::on(&infer(&bench).static_pad("sink").unwrap());
    let pad = bench.pad();
    let pushing = thread::spawn(move || (0..4).try_for_each(|n| pad.push(rgb().frame(n)).map(drop)));
    // Batch 2 is offered only once batch 1 was taken in.
    offered.wait("the third batch", |seen| {
        let frames: Vec<_> = seen.iter().filter_map(|s| s.frame().cloned()).collect();
        filled(&frames).len() >= 3
    });
    assert_eq!(stat::<u32>(&infer(&bench), "in-flight"), 2);
    assert!(bench.out.frames().is_empty());
    bench.harness.push_event(gst::event::FlushStart::new());
    let _ = pushing.join().unwrap();
}

/// Rows: LATENCY query, latency change.
#[test]
fn latency_is_what_a_batch_takes_and_is_told() {
    let mut bench = bench(&rgb(), 1, "model=builtin:invert?base=20ms");
    bench.upstream_latency(true, FRAME, Some(FRAME * 2));
    bench.push(rgb().frame(0));
    bench.out.wait_frames(1);
    let (live, min, max) = bench.latency();
    assert!(live);
    let own = Duration::from(min - FRAME);
    assert!(
        own >= Duration::from_millis(20) && own < Duration::from_secs(5),
        "{own:?}"
    );
    assert!(max.unwrap() >= min, "{max:?} {min}");
    assert!(bench.messages().iter().any(|m| m.type_() == gst::MessageType::Latency));
}

/// Row: warm-up, progress messages.
#[test]
fn loading_is_told_as_progress() {
    let ended = play(&format!("model={}", model("invert.onnx")), 2, 2).expect_eos();
    let kinds: Vec<gst::ProgressType> = ended
        .messages
        .iter()
        .filter_map(|m| match m.view() {
            gst::MessageView::Progress(progress) => Some(progress.get().0),
            _ => None,
        })
        .collect();
    assert_eq!(kinds.first(), Some(&gst::ProgressType::Start));
    assert!(kinds.contains(&gst::ProgressType::Complete));
    assert!(!kinds.contains(&gst::ProgressType::Error));
}

/// Rows: other serialized events; DRAIN.
#[test]
fn events_and_drain_keep_their_places_among_the_frames() {
    let mut bench = bench(&rgb(), 4, "model=builtin:invert?base=5ms");
    bench.push(rgb().frame(0));
    bench.harness.push_event(word("a"));
    bench.push(rgb().frame(1));
    bench.pad().peer_query(&mut gst::query::Drain::new());
    assert_eq!(bench.out.frames().len(), 2, "all frames are out before it returns");
    bench.push(rgb().frame(2));
    bench.harness.push_event(word("b"));
    finish(&mut bench);
    let story = of_frames(&rgb(), &bench.out.seen());
    let start = story.iter().position(|line| line == "0").unwrap();
    assert_eq!(story[start..], ["0", "a", "1", "2", "b", "eos"]);
}

/// Row: caps change.
#[test]
fn size_and_format_may_change_in_the_middle_of_a_stream() {
    let videos = [rgb(), Video::new("NV12", 128, 96), Video::new("RGB", 32, 32), rgb()];
    let mut bench = bench(&rgb(), 2, &format!("model={}", model("upscale2x.onnx")));
    for (number, video) in videos.iter().enumerate() {
        bench.harness.set_src_caps(video.caps());
        (0..3).for_each(|n| bench.push(video.frame(number as u64 * 10 + n)));
    }
    finish(&mut bench);
    let (mut current, mut seen) = (None, Vec::new());
    for item in bench.out.seen() {
        if let Some(gst::EventView::Caps(caps)) = item.event().map(|e| e.view()) {
            current = Some(Video::from_caps(caps.caps()));
        }
        if let Some(frame) = item.frame() {
            let video = current.as_ref().expect("caps come first");
            seen.push((video.info.width(), video.number(frame)));
        }
    }
    let wanted: Vec<(u32, u64)> = videos
        .iter()
        .enumerate()
        .flat_map(|(number, v)| (0..3).map(move |n| (2 * v.info.width(), number as u64 * 10 + n)))
        .collect();
    assert_eq!(seen, wanted);
}

/// Rows: ALLOCATION query, pool depth.
#[test]
fn allocation_query_says_how_many_frames_are_held() {
    let mut bench = bench(&rgb(), 4, "model=builtin:invert in-flight=2");
    (0..4).for_each(|n| bench.push(rgb().frame(n)));
    bench.out.wait_frames(4);
    let mut query = gst::query::Allocation::new(Some(&rgb().caps()), true);
    assert!(bench.pad().peer_query(&mut query));
    assert!(query.find_allocation_meta::<gst_video::VideoMeta>().is_some());
    let (_, _, min, _) = query.allocation_pools().next().unwrap();
    assert_eq!(
        min,
        4 * 2 + 1 + 4,
        "two batches in flight, one being formed, and one frame"
    );
}

#[test]
fn caps_query_offers_the_formats_that_are_converted() {
    let bench = bench(&rgb(), 2, "model=builtin:invert");
    bench.out.wait_event(gst::EventType::Caps);
    let allowed = bench.pad().peer_query_caps(None);
    let of = |format: &str| allowed.can_intersect(&Video::new(format, 64, 48).caps());
    assert!(of("NV12") && of("GRAY8"));
    assert!(!of("YUY2") && !of("P010_10LE"), "{allowed}");
}

/// Row: errors.
#[test]
fn buffer_that_is_no_batch_is_one_error() {
    let caps = "video/x-comfy-batch(meta:ComfyBatchMeta),format=RGB,width=64,height=48,framerate=25/1,batch-size=1";
    let mut bench = Bench::new("comfyinfer model=builtin:invert", "sink", "src");
    bench.harness.set_src_caps_str(caps);
    assert_eq!(bench.harness.push(gst::Buffer::new()), Err(gst::FlowError::Error));
    let error = bench.wait_error();
    assert!(error.matches(gst::StreamError::Format));
    assert!(error.message().contains("comfybatch"), "{error}");
}

/// Row: flow returns.
#[test]
fn what_downstream_answers_reaches_upstream_without_an_error() {
    let pipeline = parse(
        "videotestsrc num-buffers=50 ! video/x-raw,format=RGB,width=64,height=48 ! comfybatch batch-size=2 \
         ! comfyinfer model=builtin:invert ! comfyunbatch ! identity eos-after=3 ! fakesink",
    );
    run(&pipeline).expect_eos();
}

#[test]
fn nothing_keeps_an_element_that_nobody_holds() {
    let weak = {
        let bench = bench(&rgb(), 2, "model=builtin:invert");
        // A load cannot be interrupted, and holds the element until it is through.
        bench.out.wait_event(gst::EventType::Caps);
        infer(&bench).downgrade()
    };
    assert!(weak.upgrade().is_none(), "something keeps the element");
}

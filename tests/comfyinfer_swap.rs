//! comfyinfer's model is changed while it runs, and frames go on before the first one is there.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use comfy_tests::bench::{segment, stat};
use comfy_tests::models::{model, runtime};
use comfy_tests::pipeline::{go, parse, run, wait_message};
use comfy_tests::story::{batch, filled, painted};
use comfy_tests::temp::Temp;
use comfy_tests::{Bench, DEADLINE, Seen, Tap, Video};
use gst::prelude::*;
use gstcomfy::batchmeta::Status;

const FRAME: gst::ClockTime = Video::FRAME;

/// Small, since these tests keep every frame.
fn rgb() -> Video {
    Video::new("RGB", 36, 8)
}

/// Frames in, frames out, with batches between.
fn bench(batch: u32, properties: &str) -> Bench {
    let text = format!("comfybatch batch-size={batch} ! comfyinfer name=infer {properties} ! comfyunbatch");
    started(&text, None)
}

/// A chain with a gate on its bus from its first message on.
fn started(text: &str, gate: Option<&Gate>) -> Bench {
    comfy_tests::init();
    let element = gst::parse::bin_from_description(&format!("capsfilter ! {text}"), true).expect(text);
    let bus = gst::Bus::new();
    if let Some(gate) = gate {
        gate.put_on(&bus);
    }
    element.set_bus(Some(&bus));
    let mut bench = Bench::with(element.upcast_ref(), Some("sink"), Some("src"));
    bench.harness.set_live(false);
    bench.harness.set_src_caps(rgb().caps());
    bench
}

fn infer(bench: &Bench) -> gst::Element {
    let bin: &gst::Bin = bench.element.downcast_ref().expect("a chain is a bin");
    bin.by_name("infer").expect("the chain has one")
}

fn in_use(bench: &Bench) -> String {
    stat(&infer(bench), "model")
}

fn property(element: &gst::Element) -> Option<String> {
    element.property("model")
}

/// Writes the property and waits for the word on it: `done` or `failed`.
fn swap(bench: &Bench, model: &str) -> String {
    infer(bench).set_property("model", model);
    word_on(bench, model)
}

fn word_on(bench: &Bench, model: &str) -> String {
    let told = bench.wait_element("comfyinfer", |s| {
        s.get::<&str>("model") == Ok(model) && matches!(s.get("swap"), Ok("done" | "failed"))
    });
    told.get("swap").expect("looked at above")
}

fn finish(bench: &mut Bench) -> Vec<gst::Buffer> {
    assert!(bench.harness.push_event(gst::event::Eos::new()));
    bench.out.wait_event(gst::EventType::Eos);
    bench.out.frames()
}

/// Holds whoever posts a message that it is made for, until it is opened.
#[derive(Clone)]
struct Gate {
    part: String,
    /// Closed, and how many stand at it.
    shared: Arc<(Mutex<(bool, usize)>, Condvar)>,
}

impl Gate {
    /// For progress messages with this text in them.
    fn at(part: &str) -> Self {
        Self {
            part: part.into(),
            shared: Arc::new((Mutex::new((true, 0)), Condvar::new())),
        }
    }

    fn put_on(&self, bus: &gst::Bus) {
        let gate = self.clone();
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Progress(progress) = message.view()
                && progress.get().2.contains(&gate.part)
            {
                let mut state = gate.shared.0.lock().unwrap();
                state.1 += 1;
                gate.shared.1.notify_all();
                let (state, timeout) = gate.shared.1.wait_timeout_while(state, DEADLINE, |s| s.0).unwrap();
                drop(state);
                assert!(!timeout.timed_out(), "nobody opened the gate at {}", gate.part);
            }
            gst::BusSyncReply::Pass
        });
    }

    /// Until somebody stands at it.
    fn wait(&self) {
        let state = self.shared.0.lock().unwrap();
        let (state, timeout) = self.shared.1.wait_timeout_while(state, DEADLINE, |s| s.1 == 0).unwrap();
        drop(state);
        assert!(!timeout.timed_out(), "nobody came to the gate at {}", self.part);
    }

    fn open(&self) {
        self.shared.0.lock().unwrap().0 = false;
        self.shared.1.notify_all();
    }
}

/// Lets go what it holds when the test fails: an element could not stop.
struct Released(Tap);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Frames 0, 1, 2 and so on, as fast as they are taken, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Load {
    fn on(bench: &Bench) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, pad) = (stop.clone(), bench.pad());
        let thread = thread::spawn(move || {
            let mut number = 0;
            // More numbers than these cannot be painted.
            while !told.load(Ordering::Acquire) && number < 65_000 {
                pad.push(rgb().frame(number)).expect("the element takes it");
                number += 1;
            }
            number
        });
        Self { stop, thread }
    }

    /// Waits until frames that came after this call have left: two batches may be in flight.
    fn pass(bench: &Bench, batch: usize) {
        let seen = bench.out.frames().len();
        bench.out.wait_frames(seen + 8 * batch);
    }

    /// Ends it, and gives what came out. Fails unless that is every frame, once, in order, at its time.
    fn end(self, bench: &mut Bench) -> Vec<bool> {
        self.stop.store(true, Ordering::Release);
        let count = self.thread.join().expect("every frame is taken");
        let frames = finish(bench);
        let mut inverted = Vec::new();
        let mut video = rgb();
        let mut number = 0;
        for seen in bench.out.seen() {
            match &seen {
                Seen::Event(event) => {
                    if let gst::EventView::Caps(caps) = event.view() {
                        video = Video::from_caps(caps.caps());
                    }
                }
                Seen::Frame(frame) => {
                    let read = video.read(frame);
                    assert_eq!(read.number, number, "out of order, lost or twice");
                    assert_eq!(frame.pts(), Some(FRAME * number));
                    inverted.push(read.inverted);
                    number += 1;
                }
            }
        }
        assert_eq!((number, frames.len() as u64), (count, count), "every frame comes out");
        assert_eq!(stat::<u64>(&infer(bench), "frames"), count);
        inverted
    }
}

/// How often a sequence changes.
fn turns(sequence: &[bool]) -> usize {
    sequence.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

fn error_free(bench: &Bench) {
    let errors = bench
        .messages()
        .into_iter()
        .filter(|m| m.type_() == gst::MessageType::Error);
    assert_eq!(errors.count(), 0);
}

#[test]
fn models_take_over_between_two_batches_and_no_frame_is_lost() {
    let path = model("invert.onnx");
    let mut bench = bench(2, "model=builtin:null?base=1ms");
    let load = Load::on(&bench);
    Load::pass(&bench, 2);
    for name in ["builtin:invert?base=1ms", "builtin:null?copy=true&base=1ms", &path] {
        assert_eq!(swap(&bench, name), "done");
        assert_eq!(property(&infer(&bench)).as_deref(), Some(name));
        Load::pass(&bench, 2);
    }
    assert_eq!(in_use(&bench), "invert.onnx");
    let inverted = load.end(&mut bench);
    assert_eq!(
        turns(&inverted),
        3,
        "null, invert, null, invert: each frame by one of them"
    );
    assert!(!inverted[0] && inverted[inverted.len() - 1]);
    error_free(&bench);
}

#[test]
fn frames_in_flight_meet_the_old_model_and_those_behind_them_the_new_one() {
    let mut bench = bench(1, "model=builtin:null?copy=true in-flight=2");
    let pad = |name| infer(&bench).static_pad(name).unwrap();
    let (offered, left) = (Tap::on(&pad("sink")), Released(Tap::on(&pad("src"))));
    let batches = |seen: &[Seen]| {
        let frames: Vec<_> = seen.iter().filter_map(|s| s.frame().cloned()).collect();
        filled(&frames).len()
    };
    bench.push(rgb().frame(0));
    left.0.wait("the first batch", |seen| batches(seen) == 1);
    left.0.hold();
    let pad = bench.pad();
    let pushing = thread::spawn(move || (1..6).try_for_each(|n| pad.push(rgb().frame(n)).map(drop)));
    // Frame 1 stands at the gate, 2 and 3 have a lane each; 4 is offered once 3 was taken in.
    offered.wait("the fifth batch", |seen| batches(seen) == 5);
    assert_eq!(swap(&bench, "builtin:invert"), "done");
    left.0.release();
    pushing.join().unwrap().unwrap();
    let frames = finish(&mut bench);
    assert_eq!(painted(&rgb(), &frames), [0, 1, 2, 3, 4, 5]);
    let inverted: Vec<bool> = frames.iter().map(|f| rgb().read(f).inverted).collect();
    assert_eq!(inverted, [false, false, false, false, true, true]);
    assert_eq!(stat::<u32>(&infer(&bench), "in-flight"), 0);
}

#[test]
fn model_with_another_size_brings_its_caps_with_its_first_frame() {
    let path = model("upscale2x.onnx");
    let mut bench = bench(2, "model=builtin:invert?base=1ms");
    let load = Load::on(&bench);
    for name in [path.as_str(), "builtin:invert?base=1ms", &path] {
        Load::pass(&bench, 2);
        assert_eq!(swap(&bench, name), "done");
    }
    Load::pass(&bench, 2);
    let inverted = load.end(&mut bench);
    assert_eq!(turns(&inverted), 3);
    let widths: Vec<u32> = bench
        .out
        .events()
        .iter()
        .filter_map(|event| match event.view() {
            gst::EventView::Caps(caps) => Some(Video::from_caps(caps.caps()).info.width()),
            _ => None,
        })
        .collect();
    assert_eq!(widths, [36, 72, 36, 72]);
    error_free(&bench);
}

#[test]
fn model_that_cannot_be_had_changes_nothing_and_is_told() {
    runtime();
    let temp = Temp::new();
    let garbage: Vec<u8> = (0..10_000u32).map(|n| ((n * 7919) >> 3) as u8).collect();
    let bad = [
        "/nowhere/cartoon.onnx".to_owned(),
        temp.file("noise.onnx", garbage),
        temp.file("empty.onnx", ""),
        "builtin:nothing".to_owned(),
        "builtin:invert?load-fails=true".to_owned(),
        // It loads, and fails while it is warmed up.
        "builtin:null?copy=true&fail-after=0".to_owned(),
        "builtin:null?copy=true&panic=run".to_owned(),
    ];
    let mut bench = bench(2, "model=builtin:invert?base=1ms");
    let load = Load::on(&bench);
    for path in &bad {
        Load::pass(&bench, 2);
        infer(&bench).set_property("model", path);
        let warning = wait_message(&bench.bus, "a warning", |m| m.type_() == gst::MessageType::Warning);
        let gst::MessageView::Warning(warning) = warning.view() else {
            unreachable!()
        };
        assert!(
            warning.error().message().contains(path.as_str()),
            "{:?}",
            warning.error()
        );
        let told = bench.wait_element("comfyinfer", |s| s.get("swap") == Ok("failed"));
        assert_eq!(told.get::<&str>("model"), Ok(path.as_str()));
        assert!(!told.get::<&str>("error").unwrap().is_empty());
        assert_eq!(in_use(&bench), "builtin:invert?base=1ms");
        assert_eq!(property(&infer(&bench)).as_deref(), Some("builtin:invert?base=1ms"));
    }
    assert_eq!(turns(&load.end(&mut bench)), 0);
    error_free(&bench);
}

#[test]
fn model_whose_pictures_downstream_does_not_take_changes_nothing() {
    let path = model("upscale2x.onnx");
    let text = "comfybatch ! comfyinfer name=infer model=builtin:invert ! comfyunbatch \
                ! capsfilter caps=video/x-raw,width=36,height=8";
    let mut bench = started(text, None);
    bench.push(rgb().frame(0));
    bench.out.wait_frames(1);
    assert_eq!(swap(&bench, &path), "failed");
    bench.push(rgb().frame(1));
    assert_eq!(painted(&rgb(), &finish(&mut bench)), [0, 1]);
    error_free(&bench);
}

#[test]
fn model_that_failed_is_tried_again_when_it_is_written_again() {
    runtime();
    let temp = Temp::new();
    let path = temp.file("model.onnx", "not yet");
    let mut bench = bench(1, "model=builtin:null");
    bench.push(rgb().frame(0));
    bench.out.wait_frames(1);
    assert_eq!(swap(&bench, &path), "failed");
    temp.file("model.onnx", std::fs::read(model("invert.onnx")).unwrap());
    assert_eq!(swap(&bench, &path), "done");
    bench.push(rgb().frame(1));
    let frames = finish(&mut bench);
    let inverted: Vec<bool> = frames.iter().map(|f| rgb().read(f).inverted).collect();
    assert_eq!(inverted, [false, true]);
}

#[test]
fn fifty_swaps_in_a_row_lose_nothing() {
    let (invert, upscale) = (model("invert.onnx"), model("upscale2x.onnx"));
    let models = [
        "builtin:null?base=500us",
        "builtin:null?copy=true&base=200us",
        "builtin:invert",
        "builtin:invert?load=2ms",
        "builtin:invert?load-fails=true",
        "/nowhere/cartoon.onnx",
        &invert,
        &upscale,
    ];
    let mut bench = bench(3, "model=builtin:null?base=300us");
    let load = Load::on(&bench);
    let (mut seed, mut swaps) = (7u64, 0);
    let mut used = "builtin:null?base=300us";
    Load::pass(&bench, 3);
    for _ in 0..50 {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let name = models[(seed >> 33) as usize % models.len()];
        if swap(&bench, name) == "done" {
            (used, swaps) = (name, swaps + 1);
        }
        assert_eq!(property(&infer(&bench)).as_deref(), Some(used));
        Load::pass(&bench, 1);
    }
    assert!(turns(&load.end(&mut bench)) <= swaps);
    assert_eq!(stat::<u32>(&infer(&bench), "in-flight"), 0);
    error_free(&bench);
}

#[test]
fn last_of_several_writes_wins() {
    let gate = Gate::at("loading builtin:invert?base=1us");
    let mut bench = started(
        "comfybatch ! comfyinfer name=infer model=builtin:null ! comfyunbatch",
        Some(&gate),
    );
    bench.push(rgb().frame(0));
    bench.out.wait_frames(1);
    let infer = infer(&bench);
    infer.set_property("model", "builtin:invert?base=1us");
    gate.wait();
    assert_eq!(stat::<String>(&infer, "loading"), "builtin:invert?base=1us");
    assert_eq!(in_use(&bench), "builtin:null");
    for name in [
        "builtin:null?base=2us",
        "/nowhere/cartoon.onnx",
        "builtin:invert?base=3us",
    ] {
        infer.set_property("model", name);
        assert_eq!(
            property(&infer).as_deref(),
            Some(name),
            "what was asked for, while it loads"
        );
    }
    gate.open();
    let told = bench.wait_element("comfyinfer", |s| matches!(s.get("swap"), Ok("done" | "failed")));
    assert_eq!(told.get("swap"), Ok("done"));
    assert_eq!(
        told.get("model"),
        Ok("builtin:invert?base=3us"),
        "the others are not heard of"
    );
    assert_eq!(in_use(&bench), "builtin:invert?base=3us");
    bench.push(rgb().frame(1));
    assert!(rgb().read(&finish(&mut bench)[1]).inverted);
    error_free(&bench);
}

#[test]
fn long_load_gives_way_to_the_next_one() {
    let mut bench = bench(1, "model=builtin:null");
    bench.push(rgb().frame(0));
    bench.out.wait_frames(1);
    infer(&bench).set_property("model", "builtin:null?load=3600s");
    bench.wait_element("comfyinfer", |s| s.get("swap") == Ok("loading"));
    assert_eq!(swap(&bench, "builtin:invert"), "done");
    // Back to the one in use while another loads.
    infer(&bench).set_property("model", "builtin:null?load=3600s");
    bench.wait_element("comfyinfer", |s| s.get("swap") == Ok("loading"));
    assert_eq!(swap(&bench, "builtin:invert"), "done");
    bench.push(rgb().frame(1));
    assert!(rgb().read(&finish(&mut bench)[1]).inverted);
}

/// Nothing is in use that could go on.
#[test]
fn write_while_the_first_model_loads_takes_its_place() {
    let gate = Gate::at("loading builtin:null");
    let text = "comfybatch batch-size=1 ! comfyinfer name=infer model=builtin:null?load=3600s ! comfyunbatch";
    let mut bench = started(text, Some(&gate));
    gate.wait();
    infer(&bench).set_property("model", "builtin:invert");
    gate.open();
    assert_eq!(word_on(&bench, "builtin:invert"), "done");
    bench.push(rgb().frame(0));
    assert!(rgb().read(&finish(&mut bench)[0]).inverted);

    let ended = {
        let bench = self::bench(1, "model=builtin:null?load=3600s");
        infer(&bench).set_property("model", "/nowhere/cartoon.onnx");
        bench.wait_error()
    };
    assert!(ended.matches(gst::ResourceError::NotFound), "{ended}");
}

#[test]
fn caps_that_change_while_a_model_loads_are_those_it_is_warmed_up_for() {
    let path = model("upscale2x.onnx");
    let gate = Gate::at("warming up upscale2x.onnx for 36x8");
    let mut bench = started(
        "comfybatch ! comfyinfer name=infer model=builtin:invert ! comfyunbatch",
        Some(&gate),
    );
    bench.push(rgb().frame(0));
    bench.out.wait_frames(1);
    infer(&bench).set_property("model", &path);
    gate.wait();
    let large = Video::new("RGB", 72, 16);
    bench.harness.set_src_caps(large.caps());
    bench.push(large.frame(1));
    bench.out.wait_frames(2);
    gate.open();
    let ready = |size: &str| {
        wait_message(&bench.bus, size, |m| match m.view() {
            gst::MessageView::Progress(progress) => {
                let (kind, _, text) = progress.get();
                kind == gst::ProgressType::Complete && text.contains("upscale2x.onnx is ready") && text.contains(size)
            }
            _ => false,
        })
    };
    ready("72x16");
    assert_eq!(word_on(&bench, &path), "done");
    bench.push(large.frame(2));
    let frames = bench.out.wait_frames(3);
    let out = Video::new("RGB", 144, 32);
    assert_eq!((out.read(&frames[2]).number, out.read(&frames[2]).inverted), (2, false));
    bench.harness.set_src_caps(rgb().caps());
    bench.push(rgb().frame(3));
    assert_eq!(finish(&mut bench).len(), 4);
    error_free(&bench);
}

#[test]
fn stop_during_a_load_leaves_it_behind_and_the_next_start_loads_what_was_asked_for() {
    let gate = Gate::at("loading builtin:invert");
    let pipeline = parse(
        "videotestsrc pattern=black ! video/x-raw,format=RGB,width=64,height=48 ! comfybatch batch-size=2 \
         ! comfyinfer name=infer model=builtin:null ! comfyunbatch ! fakesink name=sink",
    );
    let bus = pipeline.bus().unwrap();
    gate.put_on(&bus);
    let out = Tap::on(&pipeline.by_name("sink").unwrap().static_pad("sink").unwrap());
    let infer = pipeline.by_name("infer").unwrap();
    let level = |frames: Vec<gst::Buffer>| frames.last().unwrap().map_readable().unwrap()[0];
    go(&pipeline, gst::State::Playing);
    assert_eq!(level(out.wait_frames(4)), 0);
    infer.set_property("model", "builtin:invert");
    gate.wait();
    // The loader stands at the gate, and nobody waits for it.
    go(&pipeline, gst::State::Null);
    assert_eq!(property(&infer).as_deref(), Some("builtin:invert"));
    gate.open();
    out.clear();
    go(&pipeline, gst::State::Playing);
    assert_eq!(level(out.wait_frames(4)), 255);
    // A load that takes an hour ends with the element.
    infer.set_property("model", "builtin:null?load=3600s");
    wait_message(&bus, "a load", |m| {
        m.structure()
            .is_some_and(|s| s.name() == "comfyinfer" && s.get("swap") == Ok("loading"))
    });
    go(&pipeline, gst::State::Null);
    bus.unset_sync_handler();
    let (gone, wait) = mpsc::sync_channel(1);
    infer.add_weak_ref_notify(move || gone.send(()).unwrap());
    drop((pipeline, bus, infer, out));
    wait.recv_timeout(DEADLINE).expect("something keeps the element");
}

#[test]
fn end_of_stream_during_a_load_is_the_end_of_the_stream() {
    let gate = Gate::at("loading builtin:invert");
    let mut bench = started(
        "comfybatch ! comfyinfer name=infer model=builtin:null ! comfyunbatch",
        Some(&gate),
    );
    bench.push(rgb().frame(0));
    bench.out.wait_frames(1);
    (1..3).for_each(|n| bench.push(rgb().frame(n)));
    infer(&bench).set_property("model", "builtin:invert");
    gate.wait();
    assert_eq!(painted(&rgb(), &finish(&mut bench)), [0, 1, 2]);
    gate.open();
    assert_eq!(word_on(&bench, "builtin:invert"), "done");
    for event in [
        gst::event::StreamStart::new("again"),
        gst::event::Caps::new(&rgb().caps()),
        segment(),
    ] {
        assert!(bench.harness.push_event(event));
    }
    bench.push(rgb().frame(3));
    assert!(rgb().read(&bench.out.wait_frames(4)[3]).inverted);
    error_free(&bench);
}

#[test]
fn flush_during_a_load_neither_waits_for_it_nor_ends_it() {
    let gate = Gate::at("loading builtin:invert");
    let mut bench = started(
        "comfybatch ! comfyinfer name=infer model=builtin:null?base=1ms ! comfyunbatch",
        Some(&gate),
    );
    bench.push(rgb().frame(0));
    bench.out.wait_frames(1);
    infer(&bench).set_property("model", "builtin:invert");
    gate.wait();
    for round in 0..5u64 {
        bench.flush();
        bench.out.clear();
        bench.push(rgb().frame(10 * round));
        assert_eq!(painted(&rgb(), &bench.out.wait_frames(1)), [10 * round]);
    }
    // Between its two halves, too.
    assert!(bench.harness.push_event(gst::event::FlushStart::new()));
    gate.open();
    assert_eq!(word_on(&bench, "builtin:invert"), "done");
    assert!(bench.harness.push_event(gst::event::FlushStop::new(true)));
    assert!(bench.harness.push_event(segment()));
    bench.out.clear();
    bench.push(rgb().frame(99));
    let frame = &bench.out.wait_frames(1)[0];
    assert_eq!((rgb().read(frame).number, rgb().read(frame).inverted), (99, true));
    error_free(&bench);
}

#[test]
fn latency_is_that_of_the_model_in_use_and_told() {
    let bench = bench(1, "model=builtin:null");
    bench.upstream_latency(true, FRAME, Some(FRAME * 2));
    bench.out.wait_event(gst::EventType::Caps);
    let before = bench.latency().1;
    bench.messages();
    infer(&bench).set_property("model", "builtin:invert?base=300ms");
    let told = Cell::new(false);
    wait_message(&bench.bus, "the swap", |m| {
        told.set(told.get() || m.type_() == gst::MessageType::Latency);
        m.structure()
            .is_some_and(|s| s.name() == "comfyinfer" && s.get("swap") == Ok("done"))
    });
    assert!(told.get(), "no word of a new latency");
    assert!(bench.latency().1 >= before + gst::ClockTime::from_mseconds(300));
    assert_eq!(swap(&bench, "builtin:null"), "done");
    assert!(bench.latency().1 < before + gst::ClockTime::from_mseconds(300));
}

#[test]
fn elements_that_share_an_engine_keep_it_while_they_run() {
    let mut bench = bench(1, "model=builtin:invert shared=swap-of-shared");
    bench.push(rgb().frame(0));
    assert_eq!(swap(&bench, "builtin:null"), "failed");
    assert_eq!(property(&infer(&bench)).as_deref(), Some("builtin:invert"));
    bench.push(rgb().frame(1));
    assert!(finish(&mut bench).iter().all(|frame| rgb().read(frame).inverted));
}

#[test]
fn frames_pass_marked_until_the_first_model_is_there() {
    let gate = Gate::at("loading builtin:invert");
    let mut bench = started(
        "comfybatch ! comfyinfer name=infer model=builtin:invert warmup-policy=pass-through ! comfyunbatch",
        Some(&gate),
    );
    let batches = Tap::on(&infer(&bench).static_pad("src").unwrap());
    gate.wait();
    (0..3).for_each(|n| bench.push(rgb().frame(n)));
    bench.out.wait_frames(3);
    let told = bench.wait_element("comfyinfer", |s| s.get("warming-up") == Ok(true));
    assert!(told.has_field("policy"));
    gate.open();
    bench.wait_element("comfyinfer", |s| s.get("warming-up") == Ok(false));
    (3..5).for_each(|n| bench.push(rgb().frame(n)));
    let frames = finish(&mut bench);
    let inverted: Vec<bool> = frames.iter().map(|f| rgb().read(f).inverted).collect();
    assert_eq!(inverted, [false, false, false, true, true]);
    assert_eq!(painted(&rgb(), &frames), [0, 1, 2, 3, 4]);
    let marks: Vec<Status> = batches
        .frames()
        .iter()
        .flat_map(|container| {
            batch(container)
                .frames
                .iter()
                .map(|frame| frame.status)
                .collect::<Vec<_>>()
        })
        .collect();
    let (passed, inferred) = (Status::PassedThrough, Status::Inferred);
    assert_eq!(marks, [passed, passed, passed, inferred, inferred]);
    assert_eq!(stat::<u64>(&infer(&bench), "warming-up"), 3);
    assert_eq!(stat::<u64>(&infer(&bench), "passed-through"), 3);
    error_free(&bench);
}

#[test]
fn first_model_that_cannot_be_had_is_an_error_though_frames_could_pass() {
    for policy in ["wait", "pass-through", "cuda"] {
        let ended = run(&parse(&format!(
            "videotestsrc ! video/x-raw,format=RGB,width=64,height=48,framerate=25/1 ! comfybatch \
             ! comfyinfer model=builtin:invert?load-fails=true warmup-policy={policy} ! comfyunbatch ! fakesink"
        )));
        assert!(ended.expect_one_error().matches(gst::StreamError::WrongType));
    }
}

#[test]
fn without_a_gpu_the_cuda_policy_waits_says_why_and_ends_as_it_would() {
    let path = model("invert.onnx");
    let ends = |policy: &str| {
        run(&parse(&format!(
            "videotestsrc num-buffers=4 ! video/x-raw,format=RGB,width=64,height=48,framerate=25/1 ! comfybatch \
             ! comfyinfer model={path} backend=auto warmup-policy={policy} ! comfyunbatch ! fakesink"
        )))
        .expect_eos()
    };
    let told = ends("cuda").elements("comfyinfer");
    let warming: Vec<&gst::Structure> = told.iter().filter(|s| s.has_field("warming-up")).collect();
    // With a GPU it begins and ends; without one it is told why it does not.
    match warming[..] {
        [one] => assert!(one.get::<&str>("error").is_ok_and(|error| !error.is_empty()), "{one}"),
        [begins, ends] => assert_eq!(
            (begins.get("warming-up"), ends.get("warming-up")),
            (Ok(true), Ok(false))
        ),
        _ => panic!("{told:?}"),
    }
    assert!(
        !ends("wait")
            .elements("comfyinfer")
            .iter()
            .any(|s| s.has_field("warming-up"))
    );
}

#[test]
fn a_model_that_is_to_be_compiled_waits_for_the_size_of_frames_and_holds_up_nobody_by_it() {
    let path = model("invert.onnx");
    // With batch-size=0 no frame comes before the model has said how many it wants.
    for size in [0, 2] {
        let ended = run(&parse(&format!(
            "videotestsrc ! video/x-raw,format=RGB,width=64,height=48,framerate=25/1 ! comfybatch batch-size={size} \
             ! comfyinfer model={path} backend=tensorrt ! comfyunbatch ! fakesink"
        )));
        let error = ended.expect_one_error().to_string();
        assert!(error.contains("backend tensorrt is not available"), "{error}");
    }
    // Nothing ever comes, and it stops all the same.
    let pipeline = parse(&format!(
        "appsrc ! comfybatch ! comfyinfer model={path} backend=tensorrt ! comfyunbatch ! fakesink"
    ));
    for _ in 0..20 {
        comfy_tests::pipeline::go_async(&pipeline, gst::State::Paused);
        go(&pipeline, gst::State::Null);
    }
}

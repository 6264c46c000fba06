//! Starting and stopping: often, at any moment, and without a trace.
#![allow(clippy::disallowed_methods, reason = "tests measure and bound real time")]

use std::process::Command;
use std::time::{Duration, Instant};

use comfy_tests::pipeline::{self, parse};
use comfy_tests::{DEADLINE, PATIENCE, Tap, models};
use gst::prelude::*;

/// No state change may take longer, whatever runs at that moment. They take a few milliseconds.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What the heap may grow by for each start and stop once it is warm, in bytes. Measured: 85 to 145, which is what the
/// allocator keeps for threads that end; valgrind finds nothing lost by a hundred more of them. Objects that are left
/// behind are found by their class in the next test; this one is for everything else.
const HEAP_PER_CYCLE: f64 = 256.0;

/// The same for resident memory, which grows by jumps: one thread's stack, or one more block for the allocator.
/// Measured: 0 to 1800.
const RESIDENT_PER_CYCLE: f64 = 4096.0;

/// A pipeline that is stopped when the test is done with it, whether it passes or fails.
///
/// comfyinfer's thread holds its element until the model is loaded, and no longer. That is waited for, so that what one
/// test leaves behind does not slow the next one down.
struct Stopped(gst::Pipeline);

impl std::ops::Deref for Stopped {
    type Target = gst::Pipeline;

    fn deref(&self) -> &gst::Pipeline {
        &self.0
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
        let infer = self.0.by_name("infer").expect("every chain has one");
        let _ = self.0.remove(&infer);
        let (held, start) = (infer.downgrade(), Instant::now());
        drop(infer);
        while held.upgrade().is_some() {
            if start.elapsed() > DEADLINE {
                assert!(std::thread::panicking(), "somebody keeps a stopped element");
                return;
            }
            std::thread::yield_now();
        }
    }
}

fn chain(model: &str, batch: usize) -> Stopped {
    Stopped(parse(&format!(
        "videotestsrc name=source pattern=black ! video/x-raw,format=RGB,width=64,height=48,framerate=30/1 \
         ! comfyflightbuffer batch-size={batch} threshold=1 ! comfybatch batch-size={batch} \
         ! comfyinfer name=infer model={model} ! comfyunbatch ! fakesink name=sink"
    )))
}

/// A tap at an element's sink pad that keeps no frames.
fn counter(pipeline: &gst::Pipeline, name: &str) -> std::sync::mpsc::Receiver<()> {
    let (passed, count) = std::sync::mpsc::sync_channel(100_000);
    let pad = pipeline.by_name(name).unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let _ = passed.try_send(());
        gst::PadProbeReturn::Ok
    });
    count
}

fn wait(count: &std::sync::mpsc::Receiver<()>, buffers: usize) {
    for _ in 0..buffers {
        count.recv_timeout(DEADLINE).expect("buffers come");
    }
}

/// Sets a state and says how long the call took.
fn timed(pipeline: &gst::Pipeline, state: gst::State, what: &str) -> Duration {
    let start = Instant::now();
    pipeline
        .set_state(state)
        .unwrap_or_else(|_| panic!("{what}: {state:?} is refused"));
    let took = start.elapsed();
    assert!(took < AT_ONCE, "{what}: {state:?} took {took:?}");
    took
}

fn assert_no_error(pipeline: &gst::Pipeline, what: &str) {
    let bus = pipeline.bus().expect("a pipeline has a bus");
    if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error]) {
        panic!("{what}: {message:?}");
    }
}

fn start_and_stop(pipeline: &gst::Pipeline, frames: &std::sync::mpsc::Receiver<()>, cycle: usize) {
    timed(pipeline, gst::State::Playing, "start");
    // Some stop before anything has come, some with frames everywhere.
    wait(frames, cycle % 3 * 4);
    assert_no_error(pipeline, "while playing");
    timed(pipeline, gst::State::Null, "stop");
    frames.try_iter().for_each(drop);
}

/// Starts and stops the same elements, new elements, and elements with a model, in these shares.
fn cycles(count: usize, mut after: impl FnMut(usize)) {
    let model = models::model("invert.onnx");
    let again = chain("builtin:invert", 4);
    let frames = counter(&again, "sink");
    for cycle in 0..count {
        match cycle % 10 {
            0..=5 => start_and_stop(&again, &frames, cycle),
            6..=8 => {
                let new = chain("builtin:invert?base=100us", 2);
                let frames = counter(&new, "sink");
                start_and_stop(&new, &frames, cycle);
            }
            _ => {
                let new = chain(&model, 2);
                let frames = counter(&new, "sink");
                start_and_stop(&new, &frames, cycle);
            }
        }
        after(cycle);
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux says it");
    let pages: f64 = statm
        .split(' ')
        .nth(1)
        .and_then(|text| text.parse().ok())
        .expect("a number");
    pages * 4096.0
}

/// Runs one test of this file in a process of its own, where nothing else allocates.
fn alone(test: &str, environment: &[(&str, &str)]) -> (String, String) {
    let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.env("COMFY_ALONE", "yes").envs(environment.iter().copied());
    let output = command.output().expect("this program runs again");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(
        output.status.success(),
        "{test} alone: {}\n{stdout}\n{stderr}",
        output.status
    );
    (stdout, stderr)
}

fn is_alone() -> bool {
    std::env::var_os("COMFY_ALONE").is_some()
}

#[test]
fn a_thousand_starts_and_stops_keep_memory_flat() {
    /// Pools, threads' stacks and the allocator itself find their size.
    const WARM: usize = 300;
    const COUNT: usize = 1000;
    const WINDOW: usize = 100;
    if !is_alone() {
        // One arena, so that what a thread has freed is not kept for that thread.
        let (text, _) = alone(
            "a_thousand_starts_and_stops_keep_memory_flat",
            &[("MALLOC_ARENA_MAX", "1")],
        );
        println!("{text}");
        return;
    }
    comfy_tests::init();
    let mut points = Vec::new();
    cycles(WARM + COUNT + 1, |cycle| {
        if cycle >= WARM && (cycle - WARM).is_multiple_of(WINDOW) {
            points.push((heap(), resident()));
        }
    });
    // What is left behind shows in every window; a thread that is just ending shows in one.
    let mut growth: Vec<f64> = points
        .windows(2)
        .map(|two| (two[1].0 - two[0].0) / WINDOW as f64)
        .collect();
    growth.sort_by(f64::total_cmp);
    let heap = growth[growth.len() / 2];
    let resident = (points[points.len() - 1].1 - points[0].1) / COUNT as f64;
    println!("bytes per cycle over {COUNT} cycles: heap {heap:.1}, resident {resident:.1}");
    assert!(
        heap < HEAP_PER_CYCLE,
        "heap grows by {heap:.0} bytes per cycle: {points:?}"
    );
    assert!(
        resident < RESIDENT_PER_CYCLE,
        "memory grows by {resident:.0} bytes per cycle: {points:?}"
    );
}

/// Bytes that are allocated and not freed, in the one arena that there is.
#[allow(unsafe_code)]
fn heap() -> f64 {
    /// `struct mallinfo2` of glibc's malloc.h.
    #[repr(C)]
    struct Info {
        before: [usize; 4],
        mapped: usize,
        between: [usize; 2],
        used: usize,
        after: [usize; 2],
    }
    unsafe extern "C" {
        safe fn mallinfo2() -> Info;
    }
    let Info { mapped, used, .. } = mallinfo2();
    (mapped + used) as f64
}

#[test]
#[allow(unsafe_code)]
fn no_object_is_left_behind() {
    if !is_alone() {
        let environment = [
            ("GST_TRACERS", "leaks"),
            ("GST_DEBUG", "GST_TRACER:7"),
            ("GST_DEBUG_NO_COLOR", "1"),
        ];
        let (_, log) = alone("no_object_is_left_behind", &environment);
        let left = left_behind(&log);
        assert!(left.is_empty(), "objects are left behind: {left:#?}");
        assert!(log.contains("object-alive"), "the tracer has looked:\n{log}");
        return;
    }
    comfy_tests::init();
    cycles(20, |_| ());
    {
        // Streams that come and go, a flush, and a stop in the middle of it all.
        let pipeline = chain("builtin:invert?base=1ms", 4);
        let frames = counter(&pipeline, "sink");
        timed(&pipeline, gst::State::Playing, "start");
        wait(&frames, 8);
        let seek = pipeline.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::SECOND);
        seek.expect("the seek is accepted");
        wait(&frames, 8);
        timed(&pipeline, gst::State::Null, "stop");
    }
    // SAFETY: everything of GStreamer that this process made is gone, and it ends after this.
    unsafe { gst::deinit() };
}

/// What the tracer lists. It begins with the formats of its lines, which name no object.
fn left_behind(log: &str) -> Vec<&str> {
    let lines = log.lines().filter(|line| line.contains("object-alive, "));
    lines
        .filter(|line| !line.contains("type-name=(string)%s"))
        .take(20)
        .collect()
}

/// A run of the next two tests, and what a stop in the middle of one may take. A stop takes a few milliseconds.
const RUN: &str = "builtin:invert?base=1s";
const SHORTER_THAN_A_RUN: Duration = Duration::from_millis(500);

#[test]
fn stopping_in_the_middle_of_a_run_does_not_wait_for_it() {
    let pipeline = chain(RUN, 4);
    let batches = counter(&pipeline, "infer");
    for round in 0..4 {
        timed(&pipeline, gst::State::Playing, "start");
        // With the third batch both lanes are taken, and one of them runs.
        wait(&batches, 3);
        let took = timed(
            &pipeline,
            [gst::State::Null, gst::State::Ready][round % 2],
            "stop in a run",
        );
        assert!(took < SHORTER_THAN_A_RUN, "the stop took {took:?}");
        batches.try_iter().for_each(drop);
    }
    timed(&pipeline, gst::State::Null, "stop");
}

#[test]
fn flushing_in_the_middle_of_a_run_does_not_wait_for_it() {
    let pipeline = chain(RUN, 4);
    let batches = counter(&pipeline, "infer");
    timed(&pipeline, gst::State::Playing, "start");
    for round in 1..10 {
        wait(&batches, 3);
        let start = Instant::now();
        let seek = pipeline.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::SECOND * round);
        seek.expect("the seek is accepted");
        assert!(
            start.elapsed() < SHORTER_THAN_A_RUN,
            "the flush took {:?}",
            start.elapsed()
        );
        batches.try_iter().for_each(drop);
    }
    timed(&pipeline, gst::State::Null, "stop in a run");
}

#[test]
fn stopping_at_any_frame_ends_at_once_and_the_next_start_works() {
    let model = models::model("cartoon.onnx");
    for model in ["builtin:null?base=3ms", "builtin:invert?base=3ms", model.as_str()] {
        let pipeline = chain(model, 3);
        let (batches, frames) = (counter(&pipeline, "infer"), counter(&pipeline, "sink"));
        for round in 0..24 {
            timed(&pipeline, gst::State::Playing, model);
            match round % 2 {
                0 => wait(&batches, round / 2),
                _ => wait(&frames, round),
            }
            assert_no_error(&pipeline, model);
            let stop = [gst::State::Null, gst::State::Ready, gst::State::Paused][round % 3];
            if stop == gst::State::Paused {
                // A bin goes on to PLAYING in a thread of a pool. Who asks for PAUSED and PLAYING before that thread
                // has run makes it give up, and the bin stays where it is: GStreamer's own race.
                let (reached, ..) = pipeline.state(PATIENCE);
                reached.expect("it plays");
            }
            timed(&pipeline, stop, model);
            batches.try_iter().chain(frames.try_iter()).for_each(drop);
        }
        timed(&pipeline, gst::State::Null, model);
    }
}

#[test]
fn starting_does_not_wait_for_the_model_and_stopping_does_not_either() {
    // The heaviest of the sample models, for pictures that take it a while to warm up.
    let model = models::model("style.onnx");
    let pipeline = Stopped(parse(&format!(
        "videotestsrc pattern=black ! video/x-raw,format=RGB,width=320,height=240,framerate=30/1 \
         ! comfybatch batch-size=4 ! comfyinfer name=infer model={model} threads=1 ! comfyunbatch ! fakesink"
    )));
    let bus = pipeline.bus().expect("a pipeline has a bus");
    for round in 0..6 {
        timed(&pipeline, gst::State::Playing, "start while loading");
        if round % 2 == 0 {
            // Under way: the file is being read, or already warmed up.
            pipeline::wait_message(&bus, "progress", |message| {
                message.type_() == gst::MessageType::Progress
            });
        }
        timed(&pipeline, gst::State::Null, "stop while loading");
    }
}

#[test]
fn stopping_does_not_wait_for_a_warm_up_that_began_behind_an_earlier_one() {
    let pipeline = chain(RUN, 4);
    let bus = pipeline.bus().expect("a pipeline has a bus");
    let wait_progress = |what: &str| {
        pipeline::wait_message(&bus, what, |message| match message.view() {
            gst::MessageView::Progress(progress) => progress.get().2.contains(what),
            _ => false,
        })
    };
    for _ in 0..2 {
        timed(&pipeline, gst::State::Playing, "first start");
        wait_progress("warming up");
        // Not to NULL, where the loaded engine is let go.
        timed(&pipeline, gst::State::Ready, "first stop");
        timed(&pipeline, gst::State::Playing, "second start");
        wait_progress("warming up");
        // That of the first start, whose thread has run on: the engine serves one after the other.
        wait_progress("is ready");
        let took = timed(&pipeline, gst::State::Ready, "second stop");
        assert!(took < SHORTER_THAN_A_RUN, "the stop took {took:?}");
    }
}

#[test]
fn element_that_was_stopped_while_loading_plays_when_it_is_started_again() {
    let pipeline = chain(&models::model("invert.onnx"), 2);
    let frames = counter(&pipeline, "sink");
    for _ in 0..20 {
        timed(&pipeline, gst::State::Playing, "start");
        timed(&pipeline, gst::State::Null, "stop");
    }
    timed(&pipeline, gst::State::Playing, "last start");
    wait(&frames, 10);
    assert_no_error(&pipeline, "after many stops");
    timed(&pipeline, gst::State::Null, "stop");
}

#[test]
fn stopping_behind_a_sink_that_takes_nothing_ends_at_once() {
    for model in ["builtin:null", "builtin:invert"] {
        let pipeline = chain(model, 4);
        let gate = Tap::on(&pipeline.by_name("sink").unwrap().static_pad("sink").unwrap());
        let batches = counter(&pipeline, "infer");
        // In PAUSED the sink keeps its first frame: every queue fills up to the source.
        pipeline::go(&pipeline.0, gst::State::Paused);
        gate.wait_frames(1);
        wait(&batches, 2);
        timed(&pipeline, gst::State::Null, "stop of a full chain");
    }
}

#[test]
fn pipelines_that_are_dropped_while_they_are_loading_leave_nothing_running() {
    let model = models::model("invert.onnx");
    for _ in 0..20 {
        let pipeline = chain(&model, 2);
        timed(&pipeline, gst::State::Playing, "start");
        drop(pipeline);
    }
}

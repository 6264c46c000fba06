//! A process that ends while a model is loading or running ends with its own status: nobody aborts it.
#![allow(clippy::disallowed_methods, reason = "tests measure and bound real time")]

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use comfy_tests::models;
use comfy_tests::pipeline::{self, parse};
use gst::prelude::*;

/// What the process is about to leave when it ends, and how many milliseconds after the progress message named there.
const SCENE: &str = "COMFY_EXIT_SCENE";

/// The status that the process ends with, and none that a signal or a failed test gives.
const STATUS: i32 = 23;

/// What the process says just before it ends.
const LEAVING: &str = "leaving";

/// Ending may take as long as a run or a step of a load, which are told to end. Nothing of a second's length is run.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Runs a scene in a process of its own, several times, each time a little later.
fn ends_well(scene: &str, moments: impl IntoIterator<Item = u64>) {
    for moment in moments {
        let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
        command.args(["the_process_itself", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(SCENE, format!("{scene} {moment}"));
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this program runs again");
        // What comes before may take its time: a model is loaded in there.
        let lines = BufReader::new(child.stdout.as_mut().expect("piped")).lines();
        lines.map_while(Result::ok).find(|line| line.contains(LEAVING));
        let start = Instant::now();
        let output = child.wait_with_output().expect("it ends");
        let took = start.elapsed();
        let status: ExitStatus = output.status;
        assert_eq!(
            status.code(),
            Some(STATUS),
            "{scene}, {moment} ms later: {status}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(took < AT_ONCE, "{scene}, {moment} ms later, took {took:?}");
    }
}

/// Ends the process in the middle of something, when it is told to.
#[test]
fn the_process_itself() {
    let Ok(scene) = std::env::var(SCENE) else { return };
    let (scene, moment) = scene.rsplit_once(' ').expect("a scene and a moment");
    let moment: u64 = moment.parse().expect("milliseconds");
    let model = models::model("style.onnx");
    let shared = if scene.contains("shared") { "shared=one" } else { "" };
    let chain = |name: &str| {
        format!(
            "videotestsrc pattern=black ! video/x-raw,format=RGB,width=320,height=240,framerate=30/1 \
             ! comfybatch batch-size=4 ! comfyinfer name={name} model={model} threads=1 {shared} ! comfyunbatch ! fakesink"
        )
    };
    let pipeline = match shared {
        "" => parse(&chain("infer")),
        _ => parse(&format!("{} {}", chain("infer"), chain("other"))),
    };
    let bus = pipeline.bus().expect("a pipeline has a bus");
    pipeline.set_state(gst::State::Playing).expect("it starts");
    let wait_progress = |what: &str| {
        pipeline::wait_message(&bus, what, |message| match message.view() {
            gst::MessageView::Progress(progress) => progress.get().2.contains(what),
            _ => false,
        })
    };
    match scene.split(',').next() {
        Some("at once") => (),
        Some("loading") => drop(wait_progress("loading")),
        Some("warming up") => drop(wait_progress("warming up")),
        Some("running") => drop(wait_progress("is ready")),
        _ => panic!("no scene {scene}"),
    }
    // The moment itself: nothing comes that is waited for.
    let _ = bus.timed_pop_filtered(gst::ClockTime::from_mseconds(moment), &[gst::MessageType::Eos]);
    if scene.contains("stopped") {
        pipeline.set_state(gst::State::Null).expect("it stops");
    }
    println!("{LEAVING}");
    std::process::exit(STATUS);
}

#[test]
fn ending_while_a_model_is_loading_is_no_abort() {
    ends_well("at once, stopped", [0]);
    ends_well("loading, stopped", (0..50).step_by(6));
    ends_well("loading", (0..50).step_by(6));
}

#[test]
fn ending_while_a_model_is_warmed_up_is_no_abort() {
    ends_well("warming up, stopped", (0..100).step_by(25));
    ends_well("warming up", (0..100).step_by(25));
}

#[test]
fn ending_in_the_middle_of_a_run_is_no_abort() {
    ends_well("running, stopped", (0..60).step_by(30));
    ends_well("running", (0..90).step_by(15));
}

#[test]
fn ending_while_a_shared_model_is_loading_is_no_abort() {
    ends_well("loading, shared, stopped", (0..50).step_by(10));
    ends_well("warming up, shared", (0..60).step_by(30));
    ends_well("running, shared", (0..60).step_by(20));
}

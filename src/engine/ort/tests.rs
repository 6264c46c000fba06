//! Real models through the real runtime. `testdata/make.py` writes the models.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;
use crate::engine::testing::Folder;
use crate::engine::{Backend, BatchSizes, Role, open};
use crate::tensor::{DType, TensorMut, TensorRef, f16};

/// These tests do not skip: a run that checked nothing must not look like one that did.
pub(super) fn need_runtime() {
    assert!(
        std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty()),
        "this test needs ONNX Runtime: run `make setup`, or set ORT_DYLIB_PATH to libonnxruntime.so"
    );
}

/// Ends the whole test process: a thread that hangs inside the runtime can be neither joined nor stopped, and would
/// keep the process from ever reporting the failure. Abort, since exit would wait for the lock that the thread holds.
fn hangs(what: &str) -> ! {
    use std::io::Write as _;

    // Not eprintln, whose text would be kept for a report that never comes.
    let _ = writeln!(
        std::io::stderr(),
        "FAILED: {what}; the thread that hangs cannot be ended, so all tests end here"
    );
    std::process::abort()
}

/// Makes every lane of these tests, within a time limit.
///
/// The crate's `bind_input` never returns for a tensor that does not own its memory, and lanes are made of such
/// tensors. Every test would hang in it, so that a single test with a limit might never get its turn.
fn try_lane(engine: &Arc<dyn Engine>, request: LaneRequest) -> Result<Box<dyn Lane>, Error> {
    let (done, made) = mpsc::sync_channel(1);
    let engine = engine.clone();
    let maker = std::thread::spawn(move || {
        let _ = done.send(engine.lane(&request));
    });
    match made.recv_timeout(Duration::from_secs(20)) {
        Ok(lane) => lane,
        Err(mpsc::RecvTimeoutError::Timeout) => hangs("making a lane waits for itself"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("making a lane panicked: {:?}", maker.join()),
    }
}

fn make_lane(engine: &Arc<dyn Engine>, request: LaneRequest) -> Box<dyn Lane> {
    try_lane(engine, request).unwrap_or_else(|error| panic!("{}: {error}", engine.spec().name))
}

pub(super) fn model(name: &str) -> String {
    format!("{}/src/engine/testdata/{name}.onnx", env!("CARGO_MANIFEST_DIR"))
}

pub(super) fn request(path: String) -> OpenRequest {
    need_runtime();
    OpenRequest {
        model: path,
        backend: Backend::Cpu,
        threads: 1,
        ..OpenRequest::default()
    }
}

fn engine(name: &str) -> Arc<dyn Engine> {
    open(&request(model(name)), &|_| ()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn refused(name: &str) -> String {
    open(&request(model(name)), &|_| ()).err().expect(name).to_string()
}

#[test]
fn the_runtime_is_found_without_a_model() {
    need_runtime();
    let found = found(None).unwrap();
    assert!(found.path.is_file(), "{found:?}");
    assert!(found.version.starts_with("1."), "{found:?}");
    assert_eq!(found.providers.last(), Some(&"cpu"));
}

fn size(width: usize, height: usize, batch: usize) -> LaneRequest {
    LaneRequest { width, height, batch }
}

/// Another value in each place of each slot.
fn byte(slot: usize, at: usize) -> u8 {
    (slot * 37 + at * 11 + 5) as u8
}

fn fill(lane: &mut dyn Lane, slot: usize) {
    match lane.input(slot) {
        TensorMut::U8(to) => to.iter_mut().enumerate().for_each(|(at, to)| *to = byte(slot, at)),
        TensorMut::F16(to) => to.iter_mut().enumerate().for_each(|(at, to)| *to = half(slot, at)),
        TensorMut::F32(to) => to.iter_mut().enumerate().for_each(|(at, to)| *to = single(slot, at)),
    }
}

fn single(slot: usize, at: usize) -> f32 {
    f32::from(byte(slot, at)) / 255.0
}

fn half(slot: usize, at: usize) -> f16 {
    f16::from_f32(single(slot, at))
}

fn assert_inverted(lane: &dyn Lane, port: usize, slot: usize, what: &str) {
    match lane.output(port, slot) {
        TensorRef::U8(from) => {
            let expected: Vec<u8> = (0..from.len()).map(|at| 255 - byte(slot, at)).collect();
            assert_eq!(from, expected, "{what}, slot {slot}");
        }
        TensorRef::F16(from) => {
            let one = |at| f16::from_f32(1.0 - half(slot, at).to_f32());
            assert_eq!(
                from,
                (0..from.len()).map(one).collect::<Vec<_>>(),
                "{what}, slot {slot}"
            );
        }
        TensorRef::F32(from) => {
            let expected: Vec<f32> = (0..from.len()).map(|at| 1.0 - single(slot, at)).collect();
            assert_eq!(from, expected, "{what}, slot {slot}");
        }
        other => panic!("{what}: {}", other.dtype()),
    }
}

#[test]
fn every_layout_dtype_and_batch_gives_each_slot_its_own_picture() {
    for (name, dtype, batch) in [
        ("invert", DType::F32, BatchSizes::UpTo(64)),
        ("invert_u8", DType::U8, BatchSizes::UpTo(64)),
        ("invert_f16", DType::F16, BatchSizes::UpTo(64)),
        ("invert_two", DType::F32, BatchSizes::Fixed(2)),
        ("invert_single", DType::F32, BatchSizes::Fixed(1)),
    ] {
        let engine = engine(name);
        assert_eq!(engine.spec().batch, batch, "{name}");
        assert_eq!(engine.spec().inputs[0].dtype, dtype, "{name}");
        assert!(!engine.is_identity());
        let mut lane = make_lane(&engine, size(6, 4, 8));
        let (input, output) = (lane.geometry().input, lane.geometry().output);
        assert_eq!((input.width, input.height), (6, 4));
        assert_eq!(output, Some((0, input)), "{name}");
        for count in [1, 2, 3, 4, 8, 5, 1] {
            (0..count).for_each(|slot| fill(&mut *lane, slot));
            lane.run(count)
                .unwrap_or_else(|error| panic!("{name} {count}: {error}"));
            (0..count).for_each(|slot| assert_inverted(&*lane, 0, slot, &format!("{name}, {count} images")));
        }
        assert_eq!(lane.run(0), Ok(()));
    }
}

#[test]
fn slots_beyond_the_batch_repeat_its_last_picture() {
    // What a slot held before may be anything: a picture of another source, or numbers that slow the model down.
    for (name, batch, count, run) in [("invert", 8, 3, 4), ("invert", 8, 5, 8), ("invert_two", 4, 3, 4)] {
        let mut lane = make_lane(&engine(name), size(6, 4, batch));
        (0..batch).for_each(|slot| fill(&mut *lane, slot));
        lane.run(count).unwrap();
        let last = lane.output(0, count - 1).to_bytes();
        for slot in count..run {
            assert_eq!(
                lane.output(0, slot).to_bytes(),
                last,
                "{name}, {count} images, slot {slot}"
            );
        }
    }
}

#[test]
fn a_model_of_one_size_keeps_it_whatever_the_frames_are() {
    let engine = engine("invert_sized");
    let lane = make_lane(&engine, size(640, 480, 2));
    assert_eq!((lane.geometry().input.width, lane.geometry().input.height), (6, 4));
}

#[test]
fn an_output_whose_size_no_name_tells_is_learnt() {
    let engine = engine("twice");
    let mut lane = make_lane(&engine, size(6, 4, 3));
    let (_, output) = lane.geometry().output.expect("an image");
    assert_eq!((output.width, output.height), (12, 8));
    (0..3).for_each(|slot| fill(&mut *lane, slot));
    lane.run(3).unwrap();
    let TensorRef::F32(picture) = lane.output(0, 2) else {
        panic!("f32")
    };
    assert_eq!(picture.len(), 3 * 12 * 8);
    assert_eq!(picture[..4], [single(2, 0), single(2, 0), single(2, 1), single(2, 1)]);
}

#[test]
fn a_vector_travels_beside_the_picture() {
    let engine = engine("two_outputs");
    let spec = engine.spec();
    assert_eq!(spec.outputs[0].role, Role::Tensor);
    let mut lane = make_lane(&engine, size(6, 4, 3));
    assert_eq!(lane.geometry().tensors, [(0, vec![3])]);
    assert_eq!(lane.geometry().output.map(|(port, _)| port), Some(1));
    for slot in 0..3 {
        let TensorMut::F32(to) = lane.input(slot) else {
            panic!("f32")
        };
        to.fill((slot + 1) as f32);
    }
    lane.run(3).unwrap();
    for slot in 0..3 {
        let TensorRef::F32(mean) = lane.output(0, slot) else {
            panic!("f32")
        };
        assert_eq!(mean, [(slot + 1) as f32; 3]);
        let TensorRef::F32(picture) = lane.output(1, slot) else {
            panic!("f32")
        };
        assert_eq!(picture[0], -(slot as f32));
    }
}

#[test]
fn tensors_stay_where_they_are_and_are_shared_by_all_sizes() {
    let engine = engine("invert");
    let mut lane = make_lane(&engine, size(64, 64, 8));
    let place = |lane: &mut dyn Lane, slot| {
        let TensorMut::F32(input) = lane.input(slot) else {
            panic!("f32")
        };
        let input = input.as_ptr() as usize;
        let TensorRef::F32(output) = lane.output(0, slot) else {
            panic!("f32")
        };
        (input, output.as_ptr() as usize)
    };
    let before = place(&mut *lane, 0);
    assert_eq!((before.0 % 64, before.1 % 64), (0, 0));
    for count in [8, 1, 3, 8, 2] {
        lane.run(count).unwrap();
        assert_eq!(place(&mut *lane, 0), before);
        assert_eq!(place(&mut *lane, 1).1, before.1 + 3 * 64 * 64 * 4);
    }
}

#[test]
fn what_frames_cannot_fit_is_refused_when_opened() {
    for (name, part) in [
        (
            "four_channels",
            "input `image` is f32 [batch, 4, height, width]: expected one image of 3 or 1 channels",
        ),
        ("four_channels", "in four_channels.toml:\n[inputs.image]"),
        ("vector", "input `image` is f32 [batch, 10]"),
        (
            "two_inputs",
            "it wants 2 inputs, and only an image can be given; export it with constants in place of `strength`",
        ),
    ] {
        let text = refused(name);
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn outputs_that_follow_the_content_or_ignore_the_batch_are_refused_by_name() {
    let text = |name: &str, batch| {
        try_lane(&engine(name), size(6, 4, batch))
            .err()
            .expect(name)
            .to_string()
    };
    let places = text("places", 1);
    assert!(
        places.contains("output `places` is i64 [1, n, 4], and came out as [1, 0, 4]"),
        "{places}"
    );
    // All of a black picture, some of the next: the tensor that was made for the first does not fit.
    let dark = text("dark_places", 1);
    assert!(
        dark.contains("output `places` is i64 [1, n, 4], and came out as [1, "),
        "{dark}"
    );
    assert!(
        dark.contains("where [1, 72, 4] was expected: it must have one size for all pictures"),
        "{dark}"
    );
    let whole = text("whole_batch", 4);
    assert!(
        whole.contains("output `mean` is f32 [3], and came out as [3] for 1 image of"),
        "{whole}"
    );
    assert!(
        whole.contains("its first dimension must be the number of images"),
        "{whole}"
    );
}

#[test]
fn manifest_and_metadata_are_read_from_real_files() {
    let spec = engine("any_channels").spec().clone();
    let Role::Image(image) = &spec.inputs[0].role else {
        panic!("an image")
    };
    assert_eq!((image.order, image.bias), (crate::tensor::ChannelOrder::Bgr, [-1.0; 3]));

    let folder = Folder::new("manifest");
    let path = folder.path().join("cartoon.onnx");
    std::fs::copy(model("invert"), &path).unwrap();
    let manifest = |text: &str| {
        std::fs::write(folder.path().join("cartoon.toml"), text).unwrap();
        open(&request(path.display().to_string()), &|_| ())
    };
    let engine = manifest("[inputs.image]\nrange = [-1.0, 1.0]\n[batch]\nmax = 2").unwrap();
    assert_eq!(engine.spec().batch, BatchSizes::UpTo(2));
    assert_eq!(engine.spec().name, "cartoon.onnx");
    let mut lane = make_lane(&engine, size(6, 4, 5));
    (0..5).for_each(|slot| fill(&mut *lane, slot));
    lane.run(5).unwrap();
    (0..5).for_each(|slot| assert_inverted(&*lane, 0, slot, "three runs of at most two"));
    let text = manifest("[inputs.picture]\norder = 'RGB'").err().unwrap().to_string();
    assert!(
        text.contains("[inputs.picture] names no tensor of cartoon.onnx; its inputs are `image` (f32"),
        "{text}"
    );
    assert!(matches!(manifest("x"), Err(Error::Manifest { .. })));
}

#[test]
fn files_that_are_no_models_say_so() {
    let folder = Folder::new("files");
    let open_bytes = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        open(&request(path.display().to_string()), &|_| ()).err().expect(name)
    };
    assert!(matches!(open_bytes("a.onnx", b"this is text"), Error::NotAModel { .. }));
    assert!(open_bytes("b.onnx", b"").to_string().contains("the file is empty"));
    assert!(
        open_bytes("c.engine", b"ftrt")
            .to_string()
            .contains("does not say what it takes")
    );
    let path = |name: &str| request(folder.path().join(name).display().to_string());
    assert!(matches!(open(&path("none.onnx"), &|_| ()), Err(Error::NotFound { .. })));
    assert!(
        open(&path("."), &|_| ())
            .err()
            .unwrap()
            .to_string()
            .contains("it is a folder")
    );
    std::fs::File::create(folder.path().join("large.onnx"))
        .unwrap()
        .set_len(MAX_BYTES + 1)
        .unwrap();
    assert!(
        open(&path("large.onnx"), &|_| ())
            .err()
            .unwrap()
            .to_string()
            .contains("larger than 8 GiB")
    );
    // The extension does not matter.
    std::fs::copy(model("invert"), folder.path().join("model.bin")).unwrap();
    assert!(open(&path("model.bin"), &|_| ()).is_ok());
}

#[test]
fn damaged_models_are_errors_not_panics() {
    use proptest::prelude::*;

    let folder = Folder::new("damaged");
    let path = folder.path().join("m.onnx");
    let good = std::fs::read(model("two_outputs")).unwrap();
    let request = request(path.display().to_string());
    let config = proptest::test_runner::Config {
        cases: 64,
        failure_persistence: None,
        ..Default::default()
    };
    let damage = (
        proptest::collection::vec((0..good.len(), any::<u8>()), 0..4),
        1..=good.len(),
    );
    // The same damage each time: what the runtime makes of a file is not ours, and must not fail now and then.
    let rng = proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    proptest::test_runner::TestRunner::new_with_rng(config, rng)
        .run(&damage, |(changes, keep)| {
            let mut bytes = good.clone();
            changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
            bytes.truncate(keep);
            std::fs::write(&path, &bytes).unwrap();
            let _ = open(&request, &|_| ());
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_named_backend_that_is_missing_is_an_error_and_auto_says_why_it_fell_back() {
    let with = |name: &str, backend| {
        open(
            &OpenRequest {
                backend,
                ..request(model(name))
            },
            &|_| (),
        )
    };
    // On a machine where they do work, there is nothing to see here.
    for (backend, nick) in [(Backend::Cuda, "cuda"), (Backend::TensorRt, "tensorrt")] {
        if let Err(error) = with("invert", backend) {
            let text = error.to_string();
            assert!(
                text.contains(&format!("backend {nick} is not available: invert.onnx: ")),
                "{text}"
            );
            assert!(text.contains("NVIDIA GPU") && text.contains("ORT_DYLIB_PATH"), "{text}");
        }
    }
    let engine = with("invert", Backend::Auto).unwrap();
    let line = &engine.spec().runtime;
    assert!(line.starts_with("ONNX Runtime 1.") && !line.contains('\n'), "{line}");
    if line.contains("on cpu, 1 thread") {
        assert!(
            line.contains("; not tensorrt: ") && line.contains("; not rtx: ") && line.contains("; not cuda: "),
            "{line}"
        );
    }
}

#[test]
fn progress_ends_at_one_hundred() {
    let steps = std::cell::RefCell::new(Vec::new());
    open(&request(model("invert")), &|step| steps.borrow_mut().push(step)).unwrap();
    let steps = steps.into_inner();
    assert!(steps.is_sorted_by_key(|step| step.percent));
    assert!(steps.iter().any(|step| step.what == "loading invert.onnx"));
    assert_eq!(steps.last().map(|step| step.percent), Some(100));
}

/// The brightest value is the number of rounds.
fn rounds(lane: &mut dyn Lane, count: f32) {
    let TensorMut::F32(to) = lane.input(0) else {
        panic!("f32")
    };
    to.fill(count);
}

#[test]
fn a_run_that_would_take_hours_ends_when_stopped() {
    let engine = engine("rounds");
    // The runtime looks at its flag between operations: these last long enough that stop and resume fall into one.
    let mut lane = make_lane(&engine, size(1024, 1024, 1));
    let mut other = make_lane(&engine, size(64, 64, 1));
    let (interrupt, others) = (lane.interrupt(), other.interrupt());
    rounds(&mut *lane, 1e12);
    let (done, result) = mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        let lane = &mut *lane;
        scope.spawn(move || done.send(lane.run(1)));
        assert!(
            result.recv_timeout(Duration::from_millis(100)).is_err(),
            "it ended by itself"
        );
        // A second lane waits for its turn, and its own stop ends that.
        let waiting = scope.spawn(|| other.run(1));
        others.stop();
        assert_eq!(waiting.join().unwrap(), Err(Error::Interrupted));
        // Resumed at once, the run in progress still ends.
        interrupt.stop();
        interrupt.resume();
        match result.recv_timeout(Duration::from_secs(10)) {
            Ok(ended) => assert_eq!(ended, Err(Error::Interrupted)),
            Err(_) => hangs("the run goes on although it was stopped"),
        }
    });
    interrupt.stop();
    assert_eq!(lane.run(1), Err(Error::Interrupted));
    interrupt.resume();
    rounds(&mut *lane, 1.0);
    assert_eq!(lane.run(1), Ok(()));
}

#[test]
fn lanes_of_one_engine_run_from_several_threads() {
    let engine = engine("invert");
    std::thread::scope(|scope| {
        for batch in 1..=4 {
            let engine = &engine;
            scope.spawn(move || {
                let mut lane = make_lane(engine, size(16, 16, batch));
                for round in 0..50 {
                    let count = round % batch + 1;
                    (0..count).for_each(|slot| fill(&mut *lane, slot));
                    lane.run(count).unwrap();
                    (0..count).for_each(|slot| assert_inverted(&*lane, 0, slot, "shared engine"));
                }
            });
        }
    });
}

#[test]
fn a_lane_outlives_its_engine() {
    let engine = engine("invert");
    let mut lane = make_lane(&engine, size(6, 4, 1));
    drop(engine);
    fill(&mut *lane, 0);
    lane.run(1).unwrap();
    assert_inverted(&*lane, 0, 0, "without its engine");
}

/// Not an assertion about this machine's speed: it fails when a run does something of another order, such as binding
/// anew with a copy or building a session.
#[test]
#[expect(clippy::disallowed_methods, reason = "measures real time")]
fn a_run_costs_little_beyond_the_model() {
    let mut lane = make_lane(&engine("invert"), size(4, 4, 1));
    let mut shortest = Duration::MAX;
    for _ in 0..200 {
        let start = Instant::now();
        lane.run(1).unwrap();
        shortest = shortest.min(start.elapsed());
    }
    println!("one run of a 4x4 model: {shortest:?}");
    assert!(shortest < Duration::from_millis(1), "{shortest:?}");
}

#[test]
fn lanes_for_nothing_or_for_too_much_are_refused() {
    let engine = engine("invert");
    for request in [
        size(0, 4, 1),
        size(4, 4, 0),
        size(1 << 20, 4, 1),
        size(32768, 32768, 1024),
    ] {
        assert!(
            matches!(try_lane(&engine, request), Err(Error::Setting(_))),
            "{request:?}"
        );
    }
}

/// Runs in a process of its own, where no runtime was loaded yet.
#[test]
fn without_a_runtime_the_error_lists_where_it_was_looked_for() {
    const CHILD: &str = "COMFY_TEST_NO_RUNTIME";
    if std::env::var_os(CHILD).is_some() {
        let folder = Folder::new("no-runtime");
        std::fs::write(folder.path().join("libonnxruntime.so.1.30.0"), "not a library").unwrap();
        let library: Option<PathBuf> = Some(folder.path().into());
        let request = OpenRequest {
            model: model("invert"),
            library,
            ..OpenRequest::default()
        };
        match open(&request, &|_| ()) {
            // This machine has one among its system libraries.
            Ok(engine) => assert!(engine.spec().runtime.contains("from libonnxruntime.so")),
            Err(Error::Runtime(text)) => {
                assert!(text.contains("run `make setup`, or set ORT_DYLIB_PATH"), "{text}");
                assert!(text.contains("libonnxruntime.so.1.30.0"), "{text}");
                assert!(text.contains("/nowhere/lib (COMFY_HOME): does not exist"), "{text}");
                assert!(
                    text.contains("libonnxruntime.so.1 (the system's libraries): "),
                    "{text}"
                );
            }
            Err(other) => panic!("{other}"),
        }
        return;
    }
    let this = "engine::ort::tests::without_a_runtime_the_error_lists_where_it_was_looked_for";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this, "--nocapture"])
        .env(CHILD, "1")
        .env("COMFY_HOME", "/nowhere")
        .env_remove("ORT_DYLIB_PATH")
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&child.stdout),
        String::from_utf8_lossy(&child.stderr)
    );
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

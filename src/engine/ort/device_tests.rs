//! Lanes on the simulated device, or with feature `gpu` on a real one, against lanes in main memory, with real models in
//! the real runtime.
//!
//! The device's memory cannot be touched by the processor, so a step that forgets where the tensors are crashes.

use std::sync::Arc;

use crate::cuda::tests::Rig;
#[cfg(not(feature = "gpu"))]
use crate::engine::Error;
#[cfg(not(feature = "gpu"))]
use crate::engine::device::Graphs;
use crate::engine::device::{DeviceLane, Source, Target};
use crate::engine::{Backend, Engine, LaneRequest, OpenRequest, open};
use crate::tensor::tests::{Frame, frame_difference, spec};
use crate::tensor::{ImageSpec, PixelFormat, convert};

/// Where the models are. Tests that are carried to a machine with a GPU find them elsewhere than where they were built.
pub(super) fn root() -> String {
    std::env::var("COMFY_ROOT").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned())
}

pub(super) fn sample(name: &str, backend: Backend) -> Arc<dyn Engine> {
    assert!(
        std::env::var_os("ORT_DYLIB_PATH").is_some(),
        "this test needs ONNX Runtime: run `make setup`, or set ORT_DYLIB_PATH to libonnxruntime.so"
    );
    let model = match name.starts_with("builtin:") {
        true => name.to_owned(),
        false => format!("{}/{name}.onnx", root()),
    };
    let request = OpenRequest {
        model,
        backend,
        threads: 1,
        ..OpenRequest::default()
    };
    open(&request, &|_| ()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Different frames of one kind.
pub(super) fn frames(spec: &ImageSpec, count: usize) -> Vec<Frame> {
    let mut first = Frame::noise(*spec, 5);
    let mut frames = Vec::new();
    for _ in 0..count {
        frames.push(first.clone());
        // Another picture, with every byte of it.
        for plane in &mut first.planes {
            let len = plane.len();
            plane.rotate_left(7.min(len));
        }
    }
    frames
}

pub(super) fn empty(spec: ImageSpec) -> Frame {
    let mut frame = Frame::noise(spec, 3);
    frame.planes.iter_mut().for_each(|plane| plane.fill(9));
    frame
}

/// What a lane in main memory makes of them, by the conversion that defines right.
pub(super) fn by_processor(engine: &dyn Engine, input: &[Frame], format: PixelFormat) -> Vec<Frame> {
    let first = &input[0].spec;
    let request = LaneRequest {
        width: first.width,
        height: first.height,
        batch: input.len(),
    };
    let mut lane = engine.lane(&request).unwrap();
    let geometry = lane.geometry().clone();
    for (slot, frame) in input.iter().enumerate() {
        convert::into_tensor(&frame.spec, &frame.image(), &geometry.input, lane.input(slot)).unwrap();
    }
    lane.run(input.len()).unwrap();
    let (port, tensor) = geometry.output.unwrap();
    let spec = ImageSpec {
        format,
        width: tensor.width,
        height: tensor.height,
        ..*first
    };
    let outputs = (0..input.len()).map(|slot| {
        let mut frame = empty(spec);
        let _ = convert::from_tensor(&tensor, lane.output(port, slot), &spec, &mut frame.image_mut()).unwrap();
        frame
    });
    outputs.collect()
}

pub(super) fn device_lane(engine: &dyn Engine, spec: &ImageSpec, batch: usize) -> Box<dyn DeviceLane> {
    let request = LaneRequest {
        width: spec.width,
        height: spec.height,
        batch,
    };
    engine.device_lane(&request).unwrap()
}

/// The same through a lane on the device, from and to main memory.
pub(super) fn through(lane: &mut dyn DeviceLane, input: &[Frame], out: ImageSpec) -> Vec<Frame> {
    let sources: Vec<Source<'_>> = input.iter().map(|frame| Source::Host(frame.image())).collect();
    lane.load(&input[0].spec, &sources).unwrap();
    lane.run(input.len()).unwrap();
    lane.wait().unwrap();
    let mut outputs: Vec<Frame> = input.iter().map(|_| empty(out)).collect();
    let mut targets: Vec<Target<'_>> = outputs
        .iter_mut()
        .map(|frame| Target::Host(frame.image_mut()))
        .collect();
    assert_eq!(lane.store(&out, &mut targets).unwrap().non_finite, 0);
    drop(targets);
    outputs
}

/// In bytes: one of the way in, which the model hands on, and one of the way out. A GPU multiplies with fewer digits and
/// adds in another order, which is worth 0.01 of the whole.
const TOLERANCE: u8 = if cfg!(feature = "gpu") { 5 } else { 2 };

#[track_caller]
pub(super) fn assert_alike(a: &[Frame], b: &[Frame], what: &str) {
    assert_eq!(a.len(), b.len());
    for (slot, (a, b)) in a.iter().zip(b).enumerate() {
        let difference = frame_difference(a, b);
        assert!(difference <= TOLERANCE, "{what}: frame {slot} differs by {difference}");
    }
}

const MODELS: [&str; 6] = [
    "builtin:invert",
    "builtin:null?copy=true",
    "models/invert",
    "models/invert-u8",
    "models/upscale2x",
    "src/engine/testdata/invert_f16",
];

#[test]
fn every_batch_gives_what_the_processor_gives_whatever_the_format() {
    let rig = Rig::new();
    for name in MODELS {
        let (host, device) = (sample(name, Backend::Cpu), sample(name, Backend::Cuda));
        assert!(host.device().is_none() && device.device().is_some());
        for format in [
            PixelFormat::Nv12,
            PixelFormat::I420,
            PixelFormat::Rgb,
            PixelFormat::Bgrx,
        ] {
            let input = frames(&spec(format, 18, 10), 5);
            for count in [1, 2, 3, 5] {
                let input = &input[..count];
                let expected = by_processor(&*host, input, format);
                let mut lane = device_lane(&*device, &input[0].spec, 5);
                for _ in 0..2 {
                    let made = through(&mut *lane, input, expected[0].spec);
                    assert_alike(&made, &expected, &format!("{name}, {format:?}, {count}"));
                }
            }
        }
    }
    drop(rig);
}

#[test]
fn a_fixed_batch_is_filled_and_a_larger_one_takes_several_runs() {
    let _rig = Rig::new();
    for (name, counts) in [
        ("src/engine/testdata/invert_two", [1, 2, 5]),
        ("src/engine/testdata/invert_single", [1, 3, 4]),
    ] {
        let (host, device) = (sample(name, Backend::Cpu), sample(name, Backend::Cuda));
        for count in counts {
            let input = frames(&spec(PixelFormat::Nv12, 16, 8), count);
            let expected = by_processor(&*host, &input, PixelFormat::Nv12);
            let mut lane = device_lane(&*device, &input[0].spec, 5);
            let made = through(&mut *lane, &input, expected[0].spec);
            assert_alike(&made, &expected, &format!("{name}, {count}"));
        }
    }
}

#[cfg(not(feature = "gpu"))]
#[test]
fn frames_on_the_device_stay_there() {
    let rig = Rig::new();
    let (host, device) = (
        sample("models/invert", Backend::Cpu),
        sample("models/invert", Backend::Cuda),
    );
    let input = frames(&spec(PixelFormat::Nv12, 32, 16), 3);
    let expected = by_processor(&*host, &input, PixelFormat::Rgba);
    let there: Vec<_> = input.iter().map(|frame| rig.put_frame(frame)).collect();
    let out: Vec<_> = expected.iter().map(|frame| rig.put_frame(&empty(frame.spec))).collect();
    let mut lane = device_lane(&*device, &input[0].spec, 4);
    let before = rig.turn.counters();
    let sources: Vec<_> = there.iter().map(|frame| Source::Device(frame.image)).collect();
    lane.load(&input[0].spec, &sources).unwrap();
    lane.run(3).unwrap();
    lane.wait().unwrap();
    let mut targets: Vec<_> = out.iter().map(|frame| Target::Device(frame.image)).collect();
    let _ = lane.store(&expected[0].spec, &mut targets).unwrap();
    let after = rig.turn.counters();
    assert_eq!(after.htod_bytes, before.htod_bytes, "no frame goes up");
    assert_eq!(
        after.dtoh_bytes - before.dtoh_bytes,
        4,
        "no frame comes down, but the count of odd values"
    );
    assert_eq!(after.allocations, before.allocations);
    assert_eq!(
        after.launches - before.launches,
        2,
        "one kernel in, one out, for all frames"
    );
    let made: Vec<Frame> = out
        .iter()
        .zip(&expected)
        .map(|(frame, like)| rig.get_frame(frame, like))
        .collect();
    assert_alike(&made, &expected, "on the device");
    let crossings = lane.report().crossings;
    assert_eq!(
        (
            crossings.uploads,
            crossings.downloads,
            crossings.host_copies,
            crossings.device_copies
        ),
        (0, 0, 0, 0)
    );
}

#[test]
fn page_locked_frames_cross_without_a_copy_by_the_processor() {
    use crate::cuda::Pinned;
    use crate::tensor::{Image, ImageMut, Plane, PlaneMut};

    let rig = Rig::new();
    let engine = sample("builtin:invert", Backend::Cuda);
    let spec = spec(PixelFormat::Rgb, 16, 8);
    let bytes = 16 * 3 * 8;
    let mut from = Pinned::for_download(&rig.device, bytes).unwrap();
    let mut to = Pinned::for_download(&rig.device, bytes).unwrap();
    from.as_mut_slice()
        .iter_mut()
        .enumerate()
        .for_each(|(at, byte)| *byte = at as u8);
    let mut lane = device_lane(&*engine, &spec, 1);
    let empty = Plane { data: &[], stride: 0 };
    let image = Image {
        planes: [
            Plane {
                data: from.as_slice(),
                stride: 48,
            },
            empty,
            empty,
        ],
    };
    lane.load(&spec, &[Source::Host(image)]).unwrap();
    lane.run(1).unwrap();
    lane.wait().unwrap();
    let nothing = || PlaneMut {
        data: &mut [],
        stride: 0,
    };
    let image = ImageMut {
        planes: [
            PlaneMut {
                data: to.as_mut_slice(),
                stride: 48,
            },
            nothing(),
            nothing(),
        ],
    };
    let _ = lane.store(&spec, &mut [Target::Host(image)]).unwrap();
    let crossings = lane.report().crossings;
    assert_eq!(
        (crossings.uploads, crossings.downloads, crossings.host_copies),
        (1, 1, 0)
    );
    let expected: Vec<u8> = from.as_slice().iter().map(|byte| 255 - byte).collect();
    assert_eq!(to.as_slice(), expected);
}

#[test]
fn frames_of_another_context_cost_one_copy_on_the_device() {
    let rig = Rig::new();
    let engine = sample("builtin:invert", Backend::Cuda);
    let input = frames(&spec(PixelFormat::Nv12, 16, 8), 2);
    let expected = by_processor(&*sample("builtin:invert", Backend::Cpu), &input, PixelFormat::Nv12);
    let other = rig.other_context();
    let there: Vec<_> = input.iter().map(|frame| other.put_frame(&rig, frame)).collect();
    let mut lane = device_lane(&*engine, &input[0].spec, 2);
    let sources: Vec<_> = there.iter().map(|frame| Source::Device(frame.image)).collect();
    lane.load(&input[0].spec, &sources).unwrap();
    lane.run(2).unwrap();
    lane.wait().unwrap();
    let mut made: Vec<Frame> = expected.iter().map(|frame| empty(frame.spec)).collect();
    let mut targets: Vec<_> = made.iter_mut().map(|frame| Target::Host(frame.image_mut())).collect();
    let _ = lane.store(&expected[0].spec, &mut targets).unwrap();
    drop(targets);
    assert_alike(&made, &expected, "of another context");
    assert_eq!(lane.report().crossings.device_copies, 2);
}

#[cfg(not(feature = "gpu"))]
#[test]
fn two_lanes_overlap_and_each_keeps_its_own_frames() {
    let rig = Rig::new();
    let engine = sample("models/invert", Backend::Cuda);
    let all = frames(&spec(PixelFormat::Rgb, 16, 8), 4);
    let expected = by_processor(&*sample("models/invert", Backend::Cpu), &all, PixelFormat::Rgb);
    let spec = all[0].spec;
    let mut lanes = [device_lane(&*engine, &spec, 2), device_lane(&*engine, &spec, 2)];
    for _ in 0..3 {
        // Nothing of the first is done yet when the second is queued.
        let stalled = rig.turn.stall(None);
        for (lane, frames) in lanes.iter_mut().zip(all.chunks(2)) {
            let sources: Vec<_> = frames.iter().map(|frame| Source::Host(frame.image())).collect();
            lane.load(&spec, &sources).unwrap();
        }
        drop(stalled);
        for lane in &mut lanes {
            lane.run(2).unwrap();
        }
        for (lane, expected) in lanes.iter_mut().zip(expected.chunks(2)) {
            lane.wait().unwrap();
            let mut made: Vec<Frame> = expected.iter().map(|frame| empty(frame.spec)).collect();
            let mut targets: Vec<_> = made.iter_mut().map(|frame| Target::Host(frame.image_mut())).collect();
            let _ = lane.store(&spec, &mut targets).unwrap();
            drop(targets);
            assert_alike(&made, expected, "overlapping");
        }
    }
}

#[cfg(not(feature = "gpu"))]
#[test]
fn a_kernel_that_fails_is_an_error_of_the_run_that_names_the_model() {
    let rig = Rig::new();
    let engine = sample("models/invert", Backend::Cuda);
    let input = frames(&spec(PixelFormat::Rgb, 16, 8), 1);
    let mut lane = device_lane(&*engine, &input[0].spec, 1);
    rig.turn.fail_launches_after(0);
    let loaded = lane.load(&input[0].spec, &[Source::Host(input[0].image())]);
    let failed = loaded
        .and_then(|()| lane.run(1))
        .and_then(|()| lane.wait())
        .unwrap_err();
    let Error::Run { model, reason } = &failed else {
        panic!("{failed}");
    };
    assert_eq!(model, "invert.onnx");
    assert!(reason.contains("CUDA device 0"), "{reason}");
}

#[cfg(not(feature = "gpu"))]
#[test]
fn no_memory_left_is_an_error_that_says_what_helps() {
    let rig = Rig::new();
    let engine = sample("models/invert", Backend::Cuda);
    rig.turn.fail_allocations_after(0);
    let request = LaneRequest {
        width: 16,
        height: 8,
        batch: 1,
    };
    let error = engine.device_lane(&request).err().unwrap().to_string();
    assert!(error.contains("smaller batches"), "{error}");
}

#[cfg(not(feature = "gpu"))]
#[test]
fn lanes_give_everything_back() {
    let rig = Rig::new();
    let before = rig.turn.counters();
    {
        let engine = sample("models/invert", Backend::Cuda);
        let input = frames(&spec(PixelFormat::Nv12, 16, 8), 3);
        let mut lane = device_lane(&*engine, &input[0].spec, 3);
        through(&mut *lane, &input, input[0].spec);
    }
    let after = rig.turn.counters();
    assert_eq!(
        (after.live_allocations, after.live_pinned),
        (before.live_allocations, before.live_pinned)
    );
    assert_eq!(
        (after.live_streams, after.live_events),
        (before.live_streams, before.live_events)
    );
}

#[cfg(not(feature = "gpu"))]
#[test]
fn a_thousand_batches_allocate_nothing() {
    let rig = Rig::new();
    let engine = sample("builtin:invert", Backend::Cuda);
    let input = frames(&spec(PixelFormat::Nv12, 16, 8), 2);
    let mut lane = device_lane(&*engine, &input[0].spec, 2);
    through(&mut *lane, &input, input[0].spec);
    let before = rig.turn.counters();
    for _ in 0..1000 {
        through(&mut *lane, &input, input[0].spec);
    }
    let after = rig.turn.counters();
    assert_eq!(after.allocations, before.allocations);
    assert_eq!(after.pinned_allocations, before.pinned_allocations);
    assert!(matches!(lane.report().graphs, Graphs::Off(_)));
}

#[test]
fn recordings_are_used_once_they_have_given_what_plain_runs_give() {
    let _rig = Rig::new();
    let engine = sample("models/invert", Backend::Cuda);
    let input = frames(&spec(PixelFormat::Rgb, 16, 8), 3);
    let expected = by_processor(&*sample("models/invert", Backend::Cpu), &input, PixelFormat::Rgb);
    let mut lane = device_lane(&*engine, &input[0].spec, 4);
    assert_eq!(lane.report().graphs, Graphs::On);
    let made = through(&mut *lane, &input, expected[0].spec);
    assert_alike(&made, &expected, "recorded");
    // On another thread, where nothing was recorded, it runs all the same.
    let elsewhere = std::thread::scope(|scope| {
        let run = scope.spawn(|| through(&mut *lane, &input, expected[0].spec));
        run.join().unwrap()
    });
    assert_alike(&elsewhere, &expected, "on another thread");
}

#[test]
fn recordings_that_replay_their_first_picture_are_found_out() {
    let _rig = Rig::new();
    let engine = sample("models/invert", Backend::Cuda);
    let input = frames(&spec(PixelFormat::Rgb, 16, 8), 3);
    let expected = by_processor(&*sample("models/invert", Backend::Cpu), &input, PixelFormat::Rgb);
    super::device::STUCK.set(true);
    let mut lane = device_lane(&*engine, &input[0].spec, 4);
    assert!(matches!(lane.report().graphs, Graphs::Off(why) if why.contains("other results")));
    let made = through(&mut *lane, &input, expected[0].spec);
    super::device::STUCK.set(false);
    assert_alike(&made, &expected, "without recordings");
}

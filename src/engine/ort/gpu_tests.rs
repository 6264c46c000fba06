//! What only a real GPU can show, with feature `gpu`: that its provider gives what the processor gives, that recorded
//! runs are right, and that memory stays flat. Without a device these tests fail.
//!
//! `scripts/gpu.sh test` runs them with those of `device_tests` and `crate::cuda::tests`, or packs them to be carried.

use std::sync::Arc;

use super::device_tests::{assert_alike, by_processor, device_lane, empty, frames, root, sample, through};
use super::probe::{Place, Probe, ProbeRequest};
use crate::cuda::Stream;
use crate::cuda::tests::Rig;
use crate::engine::device::{Source, Target};
use crate::engine::{Backend, Engine, LaneRequest};
use crate::tensor::tests::spec;
use crate::tensor::{PixelFormat, TensorMut, TensorRef, f16};

/// Of any element, in the tensor's own range: TF32 has ten bits behind the point, and sums come in another order.
const TOLERANCE: f32 = 1e-2;

const SAMPLES: [&str; 7] = [
    "cartoon",
    "fixed-batch2",
    "invert",
    "invert-u8",
    "style",
    "tensor-out",
    "upscale2x",
];

/// Every output of a batch, another picture in each slot; bytes as their 255th part.
fn results(engine: &dyn Engine, batch: usize) -> Vec<f32> {
    let request = LaneRequest {
        width: 64,
        height: 48,
        batch,
    };
    let mut lane = engine.lane(&request).unwrap();
    let image = lane.geometry().input;
    for slot in 0..batch {
        let byte = |at: usize| ((at * 97 + slot * 41) % 251) as f32 * image.scale[0] + image.bias[0];
        match lane.input(slot) {
            TensorMut::U8(to) => to.iter_mut().enumerate().for_each(|(at, to)| *to = byte(at) as u8),
            TensorMut::F16(to) => to
                .iter_mut()
                .enumerate()
                .for_each(|(at, to)| *to = f16::from_f32(byte(at))),
            TensorMut::F32(to) => to.iter_mut().enumerate().for_each(|(at, to)| *to = byte(at)),
        }
    }
    lane.run(batch).unwrap();
    let mut all = Vec::new();
    for port in 0..engine.spec().outputs.len() {
        for slot in 0..batch {
            match lane.output(port, slot) {
                TensorRef::U8(from) => all.extend(from.iter().map(|v| f32::from(*v) / 255.0)),
                TensorRef::F16(from) => all.extend(from.iter().map(|v| v.to_f32())),
                TensorRef::F32(from) => all.extend_from_slice(from),
                TensorRef::I32(from) => all.extend(from.iter().map(|v| *v as f32)),
                TensorRef::I64(from) => all.extend(from.iter().map(|v| *v as f32)),
            }
        }
    }
    all
}

#[track_caller]
fn assert_close(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (at, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= TOLERANCE,
            "{what}: element {at} is {a} in place of {b}"
        );
    }
}

#[test]
fn every_sample_model_gives_what_the_processor_gives() {
    let _rig = Rig::new();
    for name in SAMPLES {
        let path = format!("models/{name}");
        let (host, device) = (sample(&path, Backend::Cpu), sample(&path, Backend::Cuda));
        for batch in [1, 2, 3] {
            let expected = results(&*host, batch);
            assert_close(&results(&*device, batch), &expected, &format!("{name}, batch {batch}"));
        }
    }
}

#[test]
fn a_recorded_run_gives_what_a_plain_one_and_the_processor_give() {
    let rig = Rig::new();
    let request = ProbeRequest {
        dims: [("batch", 2), ("height", 64), ("width", 96)]
            .map(|(name, size)| (name.to_owned(), size))
            .to_vec(),
        ..ProbeRequest::new(format!("{}/models/style.onnx", root()))
    };
    let mut host = Probe::open(&request).unwrap();
    host.run().unwrap();
    let expected = host.read(0).unwrap();
    let mut device = Probe::open(&ProbeRequest {
        place: Place::Cuda(Arc::new(Stream::new(&rig.device).unwrap())),
        record: true,
        ..request
    })
    .unwrap();
    device.run().unwrap();
    let plain = device.read(0).unwrap();
    assert_close(&plain, &expected, "plainly");
    for _ in 0..4 {
        device.replay().unwrap();
    }
    assert_eq!(device.read(0).unwrap(), plain, "recorded");
}

#[test]
fn two_lanes_at_once_keep_their_own_frames() {
    let _rig = Rig::new();
    let (host, device) = (
        sample("models/style", Backend::Cpu),
        sample("models/style", Backend::Cuda),
    );
    let all = frames(&spec(PixelFormat::Nv12, 64, 48), 4);
    let expected = by_processor(&*host, &all, PixelFormat::Nv12);
    let halves = [(&all[..2], &expected[..2]), (&all[2..], &expected[2..])];
    std::thread::scope(|scope| {
        for (input, expected) in halves {
            let device = &device;
            scope.spawn(move || {
                let mut lane = device_lane(&**device, &input[0].spec, 2);
                for _ in 0..50 {
                    let made = through(&mut *lane, input, expected[0].spec);
                    assert_alike(&made, expected, "one of two lanes");
                }
            });
        }
    });
}

#[test]
fn frames_on_the_device_never_cross() {
    let rig = Rig::new();
    let (host, device) = (
        sample("models/style", Backend::Cpu),
        sample("models/style", Backend::Cuda),
    );
    let input = frames(&spec(PixelFormat::Nv12, 64, 48), 2);
    let expected = by_processor(&*host, &input, PixelFormat::Nv12);
    let there: Vec<_> = input.iter().map(|frame| rig.put_frame(frame)).collect();
    let back: Vec<_> = expected.iter().map(|frame| rig.put_frame(&empty(frame.spec))).collect();
    let mut lane = device_lane(&*device, &input[0].spec, 2);
    let sources: Vec<_> = there.iter().map(|frame| Source::Device(frame.image)).collect();
    lane.load(&input[0].spec, &sources).unwrap();
    lane.run(2).unwrap();
    lane.wait().unwrap();
    let mut targets: Vec<_> = back.iter().map(|frame| Target::Device(frame.image)).collect();
    assert_eq!(lane.store(&expected[0].spec, &mut targets).unwrap().non_finite, 0);
    let made: Vec<_> = back
        .iter()
        .zip(&expected)
        .map(|(frame, like)| rig.get_frame(frame, like))
        .collect();
    assert_alike(&made, &expected, "on the device");
    assert_eq!(lane.report().crossings, Default::default());
}

/// Bytes of main memory that this process uses.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn a_thousand_batches_leave_memory_as_it_was() {
    let rig = Rig::new();
    let engine = sample("models/style", Backend::Cuda);
    let input = frames(&spec(PixelFormat::Nv12, 128, 96), 4);
    let mut lane = device_lane(&*engine, &input[0].spec, 4);
    for _ in 0..50 {
        through(&mut *lane, &input, input[0].spec);
    }
    let before = (rig.device.free_memory().unwrap(), resident());
    for _ in 0..1000 {
        through(&mut *lane, &input, input[0].spec);
    }
    let after = (rig.device.free_memory().unwrap(), resident());
    // A batch of this test is 74 kB of frames and 590 kB of tensor: a leak of either is hundreds of MB.
    let slack = 16 << 20;
    assert!(
        after.0 + slack >= before.0,
        "the device had {} bytes free, and has {}",
        before.0,
        after.0
    );
    assert!(
        after.1 <= before.1 + slack,
        "this process had {} bytes, and has {}",
        before.1,
        after.1
    );
}

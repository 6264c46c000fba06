//! Order, failures, and what is left behind.

use cudarc::driver::sys;

use super::{Rig, driver};
use crate::cuda::{Device, DeviceBuffer, Error, Event, Pinned, Stream};
use crate::tensor::{DType, DevicePlane};

#[test]
fn a_device_is_opened_once_and_says_what_it_is() {
    let rig = Rig::new();
    let again = Device::open(0).unwrap();
    assert!(std::sync::Arc::ptr_eq(&rig.device, &again));
    assert_eq!(rig.turn.counters().retained, 1);
    assert_eq!((again.ordinal(), again.name()), (0, "Simulated"));
    assert_eq!((again.architecture(), again.driver_version()), ((9, 0), (12, 2)));
    assert!(again.free_memory().unwrap() <= again.total_memory().unwrap());
    assert_ne!(again.raw_context(), 0);
    let error = Device::open(3).unwrap_err();
    assert_eq!(error, Error::NoDevice { ordinal: 3, count: 1 });
    assert!(error.to_string().contains("CUDA_VISIBLE_DEVICES"));
}

#[test]
fn nothing_is_left_behind() {
    let before;
    {
        let turn = driver().turn();
        before = turn.counters();
    }
    {
        let rig = Rig::new();
        let buffer = rig.put(&[1; 1000]);
        let _kernels = rig.device.kernels().unwrap();
        let event = Event::new(&rig.device).unwrap();
        rig.stream.record(&event).unwrap();
        assert_eq!(rig.get(&buffer), [1; 1000]);
        let during = rig.turn.counters();
        assert_eq!((during.live_allocations, during.live_pinned), (1, 0));
        assert_eq!((during.live_streams, during.live_modules, during.retained), (1, 1, 1));
    }
    let after = driver().turn().counters();
    assert_eq!(after, before);
    assert_eq!((after.live_allocations, after.live_events, after.retained), (0, 0, 0));
}

#[test]
fn work_is_done_later_and_in_order() {
    let rig = Rig::new();
    let (mut up, mut down) = (
        Pinned::for_upload(&rig.device, 64).unwrap(),
        Pinned::for_download(&rig.device, 64).unwrap(),
    );
    up.as_mut_slice().fill(7);
    let buffer = DeviceBuffer::zeroed(&rig.device, 64).unwrap();
    let event = Event::new(&rig.device).unwrap();
    assert!(event.query().unwrap());
    {
        let _stalled = rig.turn.stall(Some(&rig.stream));
        rig.stream.upload(&up, 0..32, buffer.address()).unwrap();
        rig.stream.fill(buffer.address() + 60, 9, 4).unwrap();
        rig.stream.download(buffer.address(), &mut down, 0..64).unwrap();
        rig.stream.record(&event).unwrap();
        assert!(!event.query().unwrap());
        assert_eq!(down.as_slice(), [0; 64]);
    }
    event.synchronize().unwrap();
    assert!(event.query().unwrap());
    let expected: Vec<u8> = [[7; 32].as_slice(), &[0; 28], &[9; 4]].concat();
    assert_eq!(down.as_slice(), expected);
}

#[test]
fn a_stream_waits_for_another_when_it_is_told_to() {
    let rig = Rig::new();
    let other = Stream::new(&rig.device).unwrap();
    let third = Stream::new(&rig.device).unwrap();
    let buffer = DeviceBuffer::zeroed(&rig.device, 8).unwrap();
    let (mut late, mut early) = (
        Pinned::for_download(&rig.device, 8).unwrap(),
        Pinned::for_download(&rig.device, 8).unwrap(),
    );
    let event = Event::new(&rig.device).unwrap();
    {
        let _stalled = rig.turn.stall(Some(&rig.stream));
        rig.stream.fill(buffer.address(), 5, 8).unwrap();
        rig.stream.record(&event).unwrap();
        other.wait(&event).unwrap();
        other.download(buffer.address(), &mut late, 0..8).unwrap();
        // Nobody told this one.
        third.download(buffer.address(), &mut early, 0..8).unwrap();
        third.synchronize().unwrap();
        assert_eq!(early.as_slice(), [0; 8]);
        // What is queued on the first stream now is waited for, too.
        third.wait_for(&other).unwrap();
        third.download(buffer.address(), &mut early, 0..8).unwrap();
    }
    other.synchronize().unwrap();
    third.synchronize().unwrap();
    assert_eq!((late.as_slice(), early.as_slice()), (&[5; 8][..], &[5; 8][..]));
}

#[test]
fn a_borrowed_stream_is_not_destroyed() {
    let rig = Rig::new();
    {
        // SAFETY: the rig's stream is one of its device, and lives longer.
        let borrowed = unsafe { Stream::adopt(&rig.device, rig.stream.raw()) }.unwrap();
        assert_eq!(borrowed.raw(), rig.stream.raw());
        borrowed.synchronize().unwrap();
    }
    rig.stream.synchronize().unwrap();
    assert_eq!(rig.turn.counters().live_streams, 1);
}

#[test]
fn rows_keep_their_strides() {
    let rig = Rig::new();
    let mut pinned = Pinned::for_upload(&rig.device, 40).unwrap();
    for (i, byte) in pinned.as_mut_slice().iter_mut().enumerate() {
        *byte = i as u8;
    }
    let (first, second) = (
        DeviceBuffer::zeroed(&rig.device, 64).unwrap(),
        DeviceBuffer::zeroed(&rig.device, 64).unwrap(),
    );
    let plane = |buffer: &DeviceBuffer, stride| DevicePlane {
        address: buffer.address(),
        stride,
    };
    rig.stream
        .upload_plane(&pinned, 2, 10, plane(&first, 16), (5, 4))
        .unwrap();
    rig.stream
        .copy_plane(plane(&first, 16), plane(&second, 8), 5, 4)
        .unwrap();
    let mut down = Pinned::for_download(&rig.device, 24).unwrap();
    rig.stream
        .download_plane(plane(&second, 8), &mut down, 1, 6, (5, 4))
        .unwrap();
    rig.stream.synchronize().unwrap();
    for row in 0..4 {
        let expected: Vec<u8> = (0..5).map(|x| (2 + row * 10 + x) as u8).collect();
        assert_eq!(down.as_slice()[1 + row * 6..][..5], expected);
    }
    assert_eq!((down.as_slice()[0], down.as_slice()[6]), (0, 0));
    let counters = rig.turn.counters();
    assert_eq!(
        (counters.htod_bytes, counters.dtod_bytes, counters.dtoh_bytes),
        (20, 20, 20)
    );
    assert_eq!(counters.pageable_calls, 0);
    // One row too many, and rows that overlap.
    assert!(
        rig.stream
            .upload_plane(&pinned, 6, 10, plane(&first, 16), (5, 4))
            .is_err()
    );
    assert!(
        rig.stream
            .copy_plane(plane(&first, 4), plane(&second, 8), 5, 4)
            .is_err()
    );
    assert!(rig.stream.upload(&pinned, 30..41, first.address()).is_err());
    rig.stream
        .upload_plane(&pinned, 0, 10, plane(&first, 16), (5, 0))
        .unwrap();
}

#[test]
fn other_main_memory_is_copied_too_and_waited_for() {
    let rig = Rig::new();
    let (from, mut to) = (vec![3u8; 12], vec![0u8; 12]);
    let buffer = DeviceBuffer::new(&rig.device, 12).unwrap();
    let there = DevicePlane {
        address: buffer.address(),
        stride: 4,
    };
    let host = |data: *mut u8| crate::cuda::memory::HostPlane { data, stride: 4 };
    // SAFETY: both vectors hold three rows of four bytes, and live until the stream was waited for.
    unsafe {
        rig.stream
            .upload_plane_from(host(from.as_ptr().cast_mut()), there, 4, 3)
            .unwrap();
        rig.stream
            .download_plane_to(there, host(to.as_mut_ptr()), 4, 3)
            .unwrap();
    }
    rig.stream.synchronize().unwrap();
    assert_eq!(to, from);
    assert_eq!(rig.turn.counters().pageable_calls, 2);
}

#[test]
fn events_measure_the_time_between_them() {
    let rig = Rig::new();
    let (first, second) = (
        Event::with_timing(&rig.device).unwrap(),
        Event::with_timing(&rig.device).unwrap(),
    );
    rig.stream.record(&first).unwrap();
    rig.stream.record(&second).unwrap();
    second.synchronize().unwrap();
    assert!(second.elapsed_since(&first).unwrap() < std::time::Duration::from_secs(60));
    let plain = Event::new(&rig.device).unwrap();
    rig.stream.record(&plain).unwrap();
    assert!(plain.elapsed_since(&first).is_err());
}

#[test]
fn a_launch_that_fails_shows_at_the_next_wait_and_ruins_the_context() {
    let rig = Rig::new();
    let buffer = DeviceBuffer::new(&rig.device, 64).unwrap();
    let kernels = rig.device.kernels().unwrap();
    let invert = || kernels.invert(&rig.stream, DType::U8, buffer.address(), buffer.address(), 64);
    rig.turn.fail_launches_after(1);
    invert().unwrap();
    rig.stream.synchronize().unwrap();
    invert().unwrap();
    let error = rig.stream.synchronize().unwrap_err();
    assert!(
        matches!(error, Error::Driver { code: 719, .. }) && error.is_fatal(),
        "{error}"
    );
    assert!(error.to_string().contains("CUDA device 0"), "{error}");
    assert!(invert().is_err() && DeviceBuffer::new(&rig.device, 1).is_err());
}

#[test]
fn a_launch_that_is_refused_is_an_error_at_once() {
    let rig = Rig::new();
    let buffer = DeviceBuffer::new(&rig.device, 64).unwrap();
    let kernels = rig.device.kernels().unwrap();
    rig.turn.refuse_launches_after(0);
    assert!(
        kernels
            .invert(&rig.stream, DType::U8, buffer.address(), buffer.address(), 64)
            .is_err()
    );
    rig.stream.synchronize().unwrap();
}

#[test]
fn memory_that_runs_out_is_named() {
    let rig = Rig::new();
    rig.turn.fail_allocations_after(1);
    let _buffer = DeviceBuffer::new(&rig.device, 64).unwrap();
    let error = DeviceBuffer::new(&rig.device, 4096).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { bytes: 4096, .. }) && !error.is_fatal());
    let error = Pinned::for_upload(&rig.device, 8192).unwrap_err();
    assert!(error.to_string().contains("pinned"), "{error}");
    rig.turn.fail_allocations_after(100);
    assert!(DeviceBuffer::new(&rig.device, 1 << 40).is_err());
}

#[test]
fn a_kernel_that_leaves_its_memory_is_found_out() {
    let rig = Rig::new();
    let buffer = DeviceBuffer::new(&rig.device, 64).unwrap();
    let kernels = rig.device.kernels().unwrap();
    kernels
        .invert(&rig.stream, DType::U8, buffer.address(), buffer.address(), 65)
        .unwrap();
    let error = rig.stream.synchronize().unwrap_err();
    assert!(
        matches!(error, Error::Driver { code: 700, .. }) && error.is_fatal(),
        "{error}"
    );
}

#[test]
fn a_copy_beyond_its_memory_is_found_out() {
    let rig = Rig::new();
    let buffer = DeviceBuffer::new(&rig.device, 64).unwrap();
    rig.stream.copy(buffer.address(), buffer.address() + 33, 32).unwrap();
    assert!(rig.stream.synchronize().is_err());
}

/// A context of somebody else's, current on this thread until it is dropped.
struct Foreign(sys::CUcontext);

impl Foreign {
    fn new() -> Foreign {
        let mut context = std::ptr::null_mut();
        // SAFETY: the handle is written to a local variable.
        unsafe { sys::cuCtxCreate_v2(&mut context, 0, 0) }.result().unwrap();
        Foreign(context)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // SAFETY: the context is this one's, and used no more.
        let _ = unsafe { sys::cuCtxDestroy_v2(self.0) };
    }
}

#[test]
fn memory_of_another_context_is_told_apart_and_refused_to_kernels() {
    let rig = Rig::new();
    let own = DeviceBuffer::new(&rig.device, 64).unwrap();
    let foreign = Foreign::new();
    let mut address = 0;
    // SAFETY: the address is written to a local variable.
    unsafe { sys::cuMemAlloc_v2(&mut address, 64) }.result().unwrap();
    assert_eq!(
        rig.device.context_of(own.address()).unwrap(),
        Some(rig.device.raw_context())
    );
    assert_eq!(rig.device.context_of(address).unwrap(), Some(foreign.0 as u64));
    assert_eq!(rig.device.context_of(address + 64).unwrap(), None);
    let plane = |address| DevicePlane { address, stride: 16 };
    rig.stream.fill(own.address(), 1, 64).unwrap();
    rig.stream.fill(address, 2, 64).unwrap();
    // SAFETY: the context lives to the end of the test, and the stream is waited for.
    unsafe {
        let copied = rig
            .stream
            .copy_foreign_plane(foreign.0 as u64, plane(address), plane(own.address()), 8, 4);
        copied.unwrap();
        // It is not this context's.
        let copied = rig
            .stream
            .copy_foreign_plane(foreign.0 as u64, plane(own.address()), plane(own.address()), 8, 4);
        assert!(copied.is_err());
        assert!(
            rig.stream
                .copy_foreign_plane(foreign.0 as u64, plane(address), plane(address), 17, 2)
                .is_err()
        );
    }
    assert_eq!(rig.get(&own), [[2; 8], [1; 8]].concat().repeat(4));
    rig.stream.copy(address, own.address(), 64).unwrap();
    rig.stream.synchronize().unwrap();
    let kernels = rig.device.kernels().unwrap();
    kernels
        .invert(&rig.stream, DType::U8, address, own.address(), 64)
        .unwrap();
    assert!(rig.stream.synchronize().is_err());
    // SAFETY: the allocation was made above, and is used no more.
    let _ = unsafe { sys::cuMemFree_v2(address) };
}

#[test]
fn the_program_cannot_touch_the_device_s_memory() {
    let rig = Rig::new();
    let buffer = DeviceBuffer::new(&rig.device, 64).unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let rights = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (first, end) = range.split_once('-')?;
        let [first, end] = [first, end].map(|number| u64::from_str_radix(number, 16).unwrap());
        (first..end).contains(&buffer.address()).then(|| rest[..4].to_owned())
    });
    assert_eq!(rights.as_deref(), Some("---p"));
}

#[test]
fn only_what_spoils_the_context_is_fatal() {
    let driver = |code| Error::Driver {
        device: 0,
        what: "work that was queued",
        code,
        text: String::new(),
    };
    assert!([214, 700, 716, 719].into_iter().all(|code| driver(code).is_fatal()));
    assert!(
        ![1, 2, 400, 600, 712, 713, 720]
            .into_iter()
            .any(|code| driver(code).is_fatal())
    );
    assert!(!Error::NoDriver.is_fatal());
}

/// What a process without the simulated driver is answered; run by the test below, in a process of its own.
#[test]
fn open_alone() {
    if std::env::var_os("COMFY_TEST_ALONE").is_some() {
        println!("answer: {:?}", Device::open(0).map(|device| device.name().to_owned()));
    }
}

#[test]
fn a_process_without_a_driver_gets_an_error_and_no_panic() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cuda::tests::driver::open_alone", "--nocapture"])
        .env("COMFY_TEST_ALONE", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let answer = text.lines().find_map(|line| line.split_once("answer: ")).unwrap().1;
    // A machine with a driver of its own answers with that.
    assert!(
        answer == "Err(NoDriver)" || answer.starts_with("Ok(") || answer.contains("device"),
        "{answer}"
    );
}

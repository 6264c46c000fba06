//! What does one frame cost in each element, and in the four together, beside `identity` and `queue`?
//!
//!     chain_cost WHAT N FRAMES [ROUNDS]
//!
//! WHAT is `rig` (nothing between the two pads), `containers` (nothing between them, batches made and dropped),
//! `identity`, `queue`, `comfyflightbuffer`, `comfybatch`, `comfyinfer`, `comfyunbatch` or `together`; N frames make
//! a batch. A pad of ours pushes frames that exist already, as fast as they are taken; a pad of ours counts and drops
//! them. Nobody touches a pixel: the engine is the identity. What is left is the frame's way through the elements.
//!
//! Prints one JSON object: for each round nanoseconds on the clock and on the processors, and the calls of malloc,
//! calloc, realloc and the like in the whole process. With ROUNDS = 0 nothing is timed: the frames are pushed once,
//! to be counted by callgrind at two lengths.
#![allow(
    clippy::disallowed_methods,
    reason = "a measurement reads the system's clock, not a pipeline's"
)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use gst::prelude::*;
use gstcomfy::batchcaps;
use gstcomfy::batchmeta::{Batch, ComfyBatchMeta, Frame, Spares};

mod allocations {
    //! Counts what the whole process asks of the C library's allocator: ours, GLib's and GStreamer's, by standing in
    //! front of it.
    #![allow(unsafe_code)]

    use std::ffi::c_void;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    static CALLS: AtomicU64 = AtomicU64::new(0);

    unsafe extern "C" {
        fn __libc_malloc(size: usize) -> *mut c_void;
        fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
        fn __libc_realloc(old: *mut c_void, size: usize) -> *mut c_void;
        fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
    }

    // SAFETY: glibc's own documentation allows an executable to define these; each hands its arguments on unchanged.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: as the caller's call.
        unsafe { __libc_malloc(size) }
    }

    // SAFETY: as malloc.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: as the caller's call.
        unsafe { __libc_calloc(count, size) }
    }

    // SAFETY: as malloc.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: as the caller's call.
        unsafe { __libc_realloc(old, size) }
    }

    // SAFETY: as malloc; what it gives is freed by the C library's free, like memalign's.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn posix_memalign(to: *mut *mut c_void, align: usize, size: usize) -> i32 {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller hands a place to write to.
        unsafe {
            *to = __libc_memalign(align, size);
            if (*to).is_null() { 12 } else { 0 }
        }
    }

    // SAFETY: as malloc.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: as the caller's call.
        unsafe { __libc_memalign(align, size) }
    }

    /// Calls so far.
    pub(super) fn calls() -> u64 {
        CALLS.load(Relaxed)
    }
}

/// Frames that are pushed round and round: more than are ever on their way at once.
const FRAMES: usize = 1024;

/// How many frames came out, and who waits for that.
#[derive(Default)]
struct Sink {
    frames: AtomicU64,
    target: AtomicU64,
    lock: Mutex<()>,
    reached: Condvar,
}

impl Sink {
    fn count(&self, buffer: gst::Buffer) {
        let frames = buffer
            .meta::<ComfyBatchMeta>()
            .map_or(1, |meta| meta.batch().frames.len() as u64);
        drop(buffer);
        if self.frames.fetch_add(frames, Relaxed) + frames == self.target.load(Relaxed) {
            drop(self.lock.lock());
            self.reached.notify_all();
        }
    }

    fn wait(&self) {
        let mut guard = self.lock.lock().expect("nobody panics with it");
        while self.frames.load(Relaxed) < self.target.load(Relaxed) {
            guard = self.reached.wait(guard).expect("nobody panics with it");
        }
    }
}

struct Rig {
    src: gst::Pad,
    sink: Arc<Sink>,
    frames: Vec<gst::Buffer>,
    /// Frames per container; None: frames themselves are pushed.
    containers: Option<usize>,
    spares: Arc<Spares>,
    next: usize,
    _sinkpad: gst::Pad,
    pipeline: gst::Pipeline,
}

fn make(name: &str, n: usize) -> gst::Element {
    let builder = gst::ElementFactory::make(name);
    let builder = match name {
        "comfyflightbuffer" | "comfybatch" => builder.property("batch-size", n as u32),
        "comfyinfer" => builder.property("model", "builtin:null"),
        _ => builder,
    };
    builder.build().expect("registered")
}

fn pad(element: &gst::Element, direction: gst::PadDirection) -> gst::Pad {
    let there = element.pads().into_iter().find(|pad| pad.direction() == direction);
    there.unwrap_or_else(|| element.request_pad_simple("sink_%u").expect("comfybatch's"))
}

fn link(from: &gst::Pad, to: &gst::Pad) {
    from.link_full(to, gst::PadLinkCheck::empty()).expect("free pads");
}

impl Rig {
    fn new(what: &str, n: usize) -> Self {
        let names: &[&str] = match what {
            "rig" | "containers" => &[],
            "together" => &["comfyflightbuffer", "comfybatch", "comfyinfer", "comfyunbatch"],
            other => &[other],
        };
        let containers = matches!(what, "containers" | "comfyinfer" | "comfyunbatch").then_some(n);

        let src = gst::Pad::builder(gst::PadDirection::Src).name("src").build();
        let sink = Arc::new(Sink::default());
        let counter = sink.clone();
        let sinkpad = gst::Pad::builder(gst::PadDirection::Sink)
            .name("sink")
            .chain_function(move |_, _, buffer| {
                counter.count(buffer);
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(|_, _, _| true)
            .build();
        let pipeline = gst::Pipeline::new();
        let bus = pipeline.bus().expect("a pipeline has one");
        bus.set_sync_handler(|_, message| {
            if let gst::MessageView::Error(error) = message.view() {
                eprintln!("{}: {:?}", error.error(), error.debug());
                std::process::exit(1);
            }
            gst::BusSyncReply::Drop
        });
        let mut last = src.clone();
        for name in names {
            let element = make(name, n);
            pipeline.add(&element).expect("a new element");
            link(&last, &pad(&element, gst::PadDirection::Sink));
            last = pad(&element, gst::PadDirection::Src);
        }
        link(&last, &sinkpad);
        sinkpad.set_active(true).expect("a pad of ours");
        src.set_active(true).expect("a pad of ours");
        pipeline.set_state(gst::State::Playing).expect("elements start");

        let frame_time = gst::ClockTime::from_useconds(33_333);
        let frames = (0..FRAMES as u64).map(|i| {
            let mut buffer = gst::Buffer::with_size(64 * 64 * 3).expect("12 KiB");
            let writable = buffer.get_mut().expect("new");
            writable.set_pts(frame_time * i);
            writable.set_duration(frame_time);
            buffer
        });
        let caps: gst::Caps = "video/x-raw,format=RGB,width=64,height=64,framerate=30/1"
            .parse()
            .expect("caps");
        let caps = containers.map_or(caps.clone(), |n| batchcaps::of_frames(&caps, Some(n)));
        src.push_event(gst::event::StreamStart::new("rig"));
        src.push_event(gst::event::Caps::new(&caps));
        src.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        Self {
            src,
            sink,
            frames: frames.collect(),
            containers,
            spares: Arc::default(),
            next: 0,
            _sinkpad: sinkpad,
            pipeline,
        }
    }

    fn frame(&mut self) -> gst::Buffer {
        self.next = (self.next + 1) % FRAMES;
        self.frames[self.next].clone()
    }

    /// Pushes so many frames, and returns when the last has come out.
    fn push(&mut self, frames: u64) {
        let target = self.sink.frames.load(Relaxed) + frames;
        self.sink.target.store(target, Relaxed);
        match self.containers {
            None => {
                for _ in 0..frames {
                    let frame = self.frame();
                    self.src.push(frame).expect("nothing stops");
                }
            }
            Some(n) => {
                for _ in 0..frames / n as u64 {
                    let mut batch = Batch::new(&self.spares);
                    batch.capacity = n;
                    for sequence in 0..n as u64 {
                        let input = self.frame();
                        batch.frames.push(Frame {
                            input,
                            output: None,
                            stream: 0,
                            sequence,
                            status: Default::default(),
                        });
                    }
                    let mut container = gst::Buffer::new();
                    ComfyBatchMeta::add(container.get_mut().expect("new"), batch);
                    self.src.push(container).expect("nothing stops");
                }
            }
        }
        self.sink.wait();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Nanoseconds that the threads of this process have run.
fn processor_time() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let run = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    run.sum()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize, default: u64| arguments.get(at).map_or(default, |a| a.parse().expect("a number"));
    let what = arguments
        .get(1)
        .map(String::as_str)
        .expect("chain_cost WHAT N FRAMES [ROUNDS]");
    let n = number(2, 8);
    let frames = number(3, 20_000).next_multiple_of(n);
    let rounds = number(4, 0);

    gst::init().expect("GStreamer");
    gstcomfy::plugin_register_static().expect("our elements");
    let mut rig = Rig::new(what, n as usize);
    // Queues grow to their sizes, thread-local storage is made.
    rig.push(2000u64.next_multiple_of(n));
    if rounds == 0 {
        rig.push(frames);
        return;
    }
    let mut measured = Vec::with_capacity(rounds as usize);
    for _ in 0..rounds {
        let processor = processor_time();
        let (allocations, begin) = (allocations::calls(), Instant::now());
        rig.push(frames);
        let (wall, allocated) = (begin.elapsed(), allocations::calls() - allocations);
        measured.push(serde_json::json!({
            "wall_ns": wall.as_nanos() as u64,
            "cpu_ns": processor_time() - processor,
            "allocations": allocated,
        }));
    }
    let report = serde_json::json!({ "what": what, "n": n, "frames": frames, "rounds": measured });
    println!("{report}");
}

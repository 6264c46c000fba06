//! Everything at once, in random order: seeks, flushes, caps, properties, pads and states change while frames flow.
//! Nothing hangs, nothing fails, frames stay in order, and every frame's memory is given back in the end.
//!
//! Each storm follows from its seed. A failure names seed and step; the order of threads is the machine's own.
#![allow(clippy::disallowed_methods, reason = "tests measure and bound real time")]

use std::io::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use comfy_tests::pipeline::parse;
use comfy_tests::{PATIENCE, models};
use gst::prelude::*;

/// No step may take longer than this.
const LONGEST: Duration = Duration::from_secs(5);

/// Messages that are looked at in one go.
const MANY: usize = 1000;

/// xorshift64*: the same storm for the same seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// These, or the one that COMFY_SEED names, to look closely at a failure.
fn seeds(all: std::ops::RangeInclusive<u64>) -> impl Iterator<Item = u64> {
    let one: Option<u64> = std::env::var("COMFY_SEED").ok().and_then(|seed| seed.parse().ok());
    all.filter(move |seed| one.is_none_or(|one| one == *seed))
}

/// Since when, and what. None: the storm is over.
type Step = Option<(Instant, String)>;

/// Ends the process, with the step's name, when a step takes too long: a thread that hangs cannot be ended otherwise.
struct Watchdog {
    step: Arc<(Mutex<Step>, Condvar)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watchdog {
    fn new() -> Self {
        let step = Arc::new((Mutex::new(Some((Instant::now(), "start".to_owned()))), Condvar::new()));
        let shared = step.clone();
        let thread = std::thread::spawn(move || {
            let (step, changed) = &*shared;
            let mut step = step.lock().unwrap();
            while let Some((since, name)) = &*step {
                let left = LONGEST.saturating_sub(since.elapsed());
                if left.is_zero() {
                    // Past the capture of tests, which ends with the process.
                    let _ = writeln!(std::io::stderr(), "hangs: {name}");
                    std::process::abort();
                }
                step = changed.wait_timeout(step, left).unwrap().0;
            }
        });
        Self {
            step,
            thread: Some(thread),
        }
    }

    fn step(&self, name: String) {
        *self.step.0.lock().unwrap() = Some((Instant::now(), name));
        self.step.1.notify_all();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.step.0.lock().unwrap_or_else(|e| e.into_inner()) = None;
        self.step.1.notify_all();
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Memory that counts itself.
struct Counted {
    bytes: Vec<u8>,
    alive: Arc<AtomicI64>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// From here on the frames of a source lie in memory that is counted.
fn count(source: &gst::Element, alive: &Arc<AtomicI64>) {
    let alive = alive.clone();
    let pad = source.static_pad("src").expect("a source has one");
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            alive.fetch_add(1, Ordering::SeqCst);
            let bytes = buffer.map_readable().expect("it can be mapped").to_vec();
            let mut counted = gst::Buffer::from_slice(Counted {
                bytes,
                alive: alive.clone(),
            });
            let kept = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS;
            let _ = buffer.copy_into(counted.get_mut().expect("new"), kept, ..);
            *buffer = counted;
        }
        gst::PadProbeReturn::Ok
    });
}

/// What passes a pad: how many frames, in which caps, and whether one came out of order.
#[derive(Default)]
struct Watch {
    passed: Mutex<Passed>,
    changed: Condvar,
}

#[derive(Default)]
struct Passed {
    frames: u64,
    last: Option<gst::ClockTime>,
    caps: Option<gst::Caps>,
    disorder: u64,
}

impl Watch {
    fn on(pad: &impl IsA<gst::Pad>) -> Arc<Self> {
        let watch = Arc::new(Self::default());
        let probe = watch.clone();
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
        pad.add_probe(kinds, move |_, info| {
            let mut passed = probe.passed.lock().unwrap();
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    let pts = buffer.pts();
                    passed.disorder += u64::from(passed.last >= pts);
                    passed.frames += 1;
                    passed.last = pts;
                }
                Some(gst::PadProbeData::Event(event)) => match event.view() {
                    gst::EventView::Caps(caps) => passed.caps = Some(caps.caps_owned()),
                    // Time may begin anew.
                    gst::EventView::Segment(_) | gst::EventView::FlushStop(_) | gst::EventView::StreamStart(_) => {
                        passed.last = None;
                    }
                    _ => (),
                },
                _ => (),
            }
            probe.changed.notify_all();
            gst::PadProbeReturn::Ok
        });
        watch
    }

    fn frames(&self) -> u64 {
        self.passed.lock().unwrap().frames
    }

    fn disorder(&self) -> u64 {
        self.passed.lock().unwrap().disorder
    }

    /// Waits for so many more frames. The watchdog sees to it that this ends.
    fn wait_more(&self, more: u64) {
        let passed = self.passed.lock().unwrap();
        let wanted = passed.frames + more;
        drop(
            self.changed
                .wait_while(passed, |passed| passed.frames < wanted)
                .unwrap(),
        );
    }

    /// Waits for caps of this kind.
    fn wait_caps(&self, caps: &gst::Caps) {
        let passed = self.passed.lock().unwrap();
        let other = |passed: &mut Passed| !passed.caps.as_ref().is_some_and(|now| now.can_intersect(caps));
        drop(self.changed.wait_while(passed, other).unwrap());
    }
}

/// Fails when the bus has an error or a warning.
fn assert_quiet(pipeline: &gst::Pipeline, gone: Option<&gst::Element>, what: &str) {
    let bus = pipeline.bus().expect("a pipeline has a bus");
    // Where streams of different sizes take turns, messages come as fast as they are looked at.
    for message in bus.iter().take(MANY) {
        // A source that is being taken out may find itself without a peer; that is the application's doing.
        let source = message
            .src()
            .map(|src| src.path_string().to_string())
            .unwrap_or_default();
        let of_the_gone = gone.is_some_and(|gone| {
            source.contains(&format!(":{}/", gone.name())) || source.ends_with(&format!(":{}", gone.name()))
        });
        match message.view() {
            _ if of_the_gone => (),
            gst::MessageView::Error(error) => panic!("{what}: {} {:?}", error.error(), error.debug()),
            gst::MessageView::Warning(warning) => panic!("{what}: {} {:?}", warning.error(), warning.debug()),
            gst::MessageView::Latency(_) => {
                let _ = pipeline.recalculate_latency();
            }
            _ => (),
        }
    }
}

fn set_state(pipeline: &gst::Pipeline, state: gst::State, what: &str) {
    pipeline
        .set_state(state)
        .unwrap_or_else(|_| panic!("{what}: {state:?} refused"));
}

fn reach(pipeline: &gst::Pipeline, state: gst::State, what: &str) {
    set_state(pipeline, state, what);
    let (result, current, pending) = pipeline.state(PATIENCE);
    assert!(result.is_ok(), "{what}: {current:?} -> {pending:?}");
}

/// Asks for PAUSED once it plays. A bin goes on to PLAYING in a thread of a pool; who asks for PAUSED and PLAYING before
/// that thread has run makes it give up, and the bin stays where it is: GStreamer's own race.
fn pause(pipeline: &gst::Pipeline, what: &str) {
    reach(pipeline, gst::State::Playing, what);
    set_state(pipeline, gst::State::Paused, what);
}

fn element(pipeline: &gst::Pipeline, name: &str) -> gst::Element {
    pipeline.by_name(name).unwrap_or_else(|| panic!("no element {name}"))
}

/// A random change of a property that may be changed while playing.
fn turn_a_knob(pipeline: &gst::Pipeline, dice: &mut Dice) -> String {
    let set = |name: &str, property: &str, value: &str| {
        element(pipeline, name).set_property_from_str(property, value);
        format!("{name} {property}={value}")
    };
    match dice.below(9) {
        0 => set("buffer", "batch-size", dice.one(&["1", "2", "3", "8"])),
        1 => set("buffer", "threshold", dice.one(&["0", "1", "2", "5"])),
        2 => set("buffer", "max-batches", dice.one(&["1", "2", "5"])),
        3 => set("buffer", "leaky", dice.one(&["none", "oldest", "newest", "thin"])),
        4 => set("buffer", "rebuffer", dice.one(&["true", "false"])),
        5 => set("batch", "batch-size", dice.one(&["0", "1", "2", "4", "7", "16"])),
        6 => set(
            "batch",
            "timeout",
            dice.one(&["18446744073709551615", "0", "1000000", "20000000"]),
        ),
        7 => set(
            "batch",
            "policy",
            dice.one(&["arrival", "round-robin", "earliest-deadline"]),
        ),
        _ => set("infer", "on-error", dice.one(&["fail", "passthrough", "hold"])),
    }
}

const CAPS: [&str; 5] = [
    "video/x-raw,format=RGB,width=64,height=48,framerate=30/1",
    "video/x-raw,format=RGB,width=96,height=32,framerate=30/1",
    "video/x-raw,format=I420,width=64,height=48,framerate=30/1",
    "video/x-raw,format=RGBA,width=33,height=17,framerate=30/1",
    "video/x-raw,format=RGB,width=64,height=48,framerate=25/1",
];

/// One storm over one stream.
fn storm(seed: u64, model: &str, steps: usize) {
    let mut dice = Dice::new(seed);
    let watchdog = Watchdog::new();
    let alive = Arc::new(AtomicI64::new(0));
    let pipeline = parse(&format!(
        "videotestsrc name=source pattern=black ! capsfilter name=caps caps-change-mode=delayed caps={} ! comfyflightbuffer name=buffer batch-size=2 \
         ! comfybatch name=batch batch-size=2 ! comfyinfer name=infer model={model} ! comfyunbatch name=out \
         ! fakesink name=sink",
        CAPS[0]
    ));
    count(&element(&pipeline, "source"), &alive);
    let watch = Watch::on(&element(&pipeline, "sink").static_pad("sink").unwrap());
    let made = Watch::on(&element(&pipeline, "caps").static_pad("src").unwrap());
    watchdog.step(format!("seed {seed}, first start"));
    reach(&pipeline, gst::State::Playing, "first start");
    for step in 0..steps {
        let at = format!("seed {seed}, step {step}");
        watchdog.step(at.clone());
        let action = match dice.below(16) {
            0..=3 => turn_a_knob(&pipeline, &mut dice),
            4..=6 => {
                let caps = dice.one(&CAPS);
                // One change at a time: capsfilter takes a second one, with a flush between them, for an error.
                reach(&pipeline, gst::State::Playing, &at);
                element(&pipeline, "caps").set_property_from_str("caps", caps);
                made.wait_caps(&caps.parse().unwrap());
                format!("caps {caps}")
            }
            n @ 7..=10 => {
                let flags = if n < 10 {
                    gst::SeekFlags::FLUSH
                } else {
                    gst::SeekFlags::empty()
                };
                let to = gst::ClockTime::from_mseconds(dice.below(1000) * 40);
                watchdog.step(format!("{at}: seek {flags:?} to {to}"));
                if flags.is_empty() {
                    // Without a flush a source is waited for, and one that waits for a paused sink is waited for long.
                    reach(&pipeline, gst::State::Playing, &at);
                }
                assert!(pipeline.seek_simple(flags, to).is_ok(), "{at}: seek refused");
                format!("seek {flags:?} to {to}")
            }
            11 => {
                watchdog.step(format!("{at}: pause"));
                pause(&pipeline, &at);
                if dice.below(2) == 0 {
                    reach(&pipeline, gst::State::Paused, &at);
                }
                set_state(&pipeline, gst::State::Playing, &at);
                "pause".to_owned()
            }
            12 => {
                watchdog.step(format!("{at}: restart"));
                set_state(&pipeline, dice.one(&[gst::State::Ready, gst::State::Null]), &at);
                // Caps that it was just negotiating find nobody any more.
                assert_quiet(&pipeline, Some(&element(&pipeline, "caps")), &at);
                set_state(&pipeline, gst::State::Playing, &at);
                "restart".to_owned()
            }
            13 => {
                let mut latency = gst::query::Latency::new();
                let _ = pipeline.query(&mut latency);
                let _ = pipeline.query_position::<gst::ClockTime>();
                "queries".to_owned()
            }
            14 => {
                // Lateness, as a synchronising sink tells it.
                let pad = element(&pipeline, "sink").static_pad("sink").unwrap();
                let late = dice.below(200) as i64 * 1_000_000 - 100_000_000;
                let time = gst::ClockTime::from_mseconds(dice.below(40_000));
                pad.push_event(gst::event::Qos::new(gst::QOSType::Underflow, 1.0, late, time));
                "QoS".to_owned()
            }
            _ => {
                let sink = element(&pipeline, "out").static_pad("src_0").unwrap();
                sink.send_event(gst::event::Reconfigure::new());
                "reconfigure".to_owned()
            }
        };
        assert_quiet(&pipeline, None, &format!("{at}: {action}"));
        let more = dice.below(12);
        watchdog.step(format!("{at}: {more} frames after {action}"));
        // What QoS says of the future would let a leaky buffer drop everything until then.
        let leaks = element(&pipeline, "buffer").property_value("leaky");
        let leaks = leaks
            .transform::<String>()
            .is_ok_and(|value| value.get::<&str>() != Ok("None: block upstream, drop nothing"));
        if !leaks {
            watch.wait_more(more);
        }
        assert_quiet(&pipeline, None, &format!("{at}: {action}"));
    }
    watchdog.step(format!("seed {seed}: stop"));
    reach(&pipeline, gst::State::Null, "stop");
    assert!(watch.frames() > 0);
    assert_eq!(watch.disorder(), 0, "seed {seed}: frames out of order");
    drop(pipeline);
    assert_eq!(
        alive.load(Ordering::SeqCst),
        0,
        "seed {seed}: frames that nobody gave back"
    );
}

#[test]
fn storm_over_one_stream_ends_and_keeps_nothing() {
    for seed in seeds(1..=8) {
        let models = [
            "builtin:null",
            "builtin:invert",
            "builtin:null?copy=true&base=1ms",
            "builtin:invert?per-image=300us",
        ];
        storm(seed, models[seed as usize % models.len()], 60);
    }
}

#[test]
fn storm_over_a_model_ends_and_keeps_nothing() {
    for (seed, model) in [(21, "invert.onnx"), (22, "tensor-out.onnx"), (23, "upscale2x.onnx")] {
        if seeds(seed..=seed).next().is_some() {
            storm(seed, &models::model(model), 40);
        }
    }
}

/// A stream of a storm: its source, and the pad it feeds.
struct Guest {
    source: gst::Element,
    pad: gst::Pad,
}

/// One storm over streams that come and go.
fn storm_of_streams(seed: u64, model: &str, steps: usize) {
    const MOST: usize = 4;
    let mut dice = Dice::new(seed);
    let watchdog = Watchdog::new();
    let alive = Arc::new(AtomicI64::new(0));
    // The first stream stays, so that there is something to wait for.
    let pipeline = parse(&format!(
        "videotestsrc name=source pattern=black ! {} ! comfyflightbuffer name=buffer ! batch.sink_0 \
         comfybatch name=batch batch-size=4 ! comfyinfer name=infer model={model} ! comfyunbatch name=out \
         out.src_0 ! fakesink name=sink",
        CAPS[0]
    ));
    count(&element(&pipeline, "source"), &alive);
    let watch = Watch::on(&element(&pipeline, "sink").static_pad("sink").unwrap());
    let watches: Arc<Mutex<Vec<Arc<Watch>>>> = Arc::default();
    let (bin, all) = (pipeline.downgrade(), watches.clone());
    let out = element(&pipeline, "out");
    out.connect_pad_added(move |_, pad| {
        let Some(bin) = bin.upgrade() else { return };
        let sink = gst::ElementFactory::make("fakesink")
            .property("async", false)
            .build()
            .unwrap();
        sink.set_property("name", format!("guest-{}", pad.name()));
        bin.add(&sink).unwrap();
        let target = sink.static_pad("sink").unwrap();
        all.lock().unwrap().push(Watch::on(&target));
        let _ = sink.sync_state_with_parent();
        pad.link(&target).unwrap();
    });
    let bin = pipeline.downgrade();
    out.connect_pad_removed(move |_, pad| {
        let Some(bin) = bin.upgrade() else { return };
        if let Some(sink) = bin.by_name(&format!("guest-{}", pad.name())) {
            let _ = bin.remove(&sink);
            let _ = sink.set_state(gst::State::Null);
        }
    });
    watchdog.step(format!("seed {seed}, first start"));
    reach(&pipeline, gst::State::Playing, "first start");
    let batch = element(&pipeline, "batch");
    let mut guests: Vec<Guest> = Vec::new();
    for step in 0..steps {
        let at = format!("seed {seed}, step {step}");
        let mut gone = None;
        let action = match dice.below(10) {
            0..=2 if guests.len() < MOST => {
                watchdog.step(format!("{at}: a stream comes"));
                let length = dice.one(&[-1, -1, 1, 7, 40]);
                let text = format!(
                    "videotestsrc name=source pattern=black num-buffers={length} ! capsfilter caps={}",
                    dice.one(&CAPS)
                );
                let source = gst::parse::bin_from_description(&text, true).unwrap();
                count(&source.by_name("source").unwrap(), &alive);
                // Its number may be taken again by the next one.
                let pad = batch.request_pad_simple("sink_%u").unwrap();
                pipeline.add(&source).unwrap();
                source.static_pad("src").unwrap().link(&pad).unwrap();
                source.sync_state_with_parent().unwrap();
                let source = source.upcast();
                guests.push(Guest { source, pad });
                format!("a stream of {length} comes")
            }
            0..=5 if !guests.is_empty() => {
                watchdog.step(format!("{at}: a stream goes"));
                let guest = guests.swap_remove(dice.below(guests.len() as u64) as usize);
                let stopped_first = dice.below(2) == 0;
                if stopped_first {
                    guest.source.set_state(gst::State::Null).unwrap();
                }
                batch.release_request_pad(&guest.pad);
                guest.source.set_state(gst::State::Null).unwrap();
                pipeline.remove(&guest.source).unwrap();
                gone = Some(guest.source);
                format!("{} goes, stopped first: {stopped_first}", guest.pad.name())
            }
            6 | 7 if !guests.is_empty() => {
                let guest = &guests[dice.below(guests.len() as u64) as usize];
                let flags = dice.one(&[gst::SeekFlags::FLUSH, gst::SeekFlags::FLUSH, gst::SeekFlags::empty()]);
                let to = gst::ClockTime::from_mseconds(dice.below(1000) * 40);
                watchdog.step(format!("{at}: {} seeks {flags:?}", guest.pad.name()));
                let event = gst::event::Seek::new(
                    1.0,
                    flags,
                    gst::SeekType::Set,
                    to,
                    gst::SeekType::None,
                    gst::ClockTime::NONE,
                );
                // Refused only by a source that is not running yet or any more.
                let done = guest.source.send_event(event);
                format!("{} seeks {flags:?} to {to}: {done}", guest.pad.name())
            }
            _ => {
                watchdog.step(format!("{at}: a knob"));
                let leaky = element(&pipeline, "buffer").property_value("leaky");
                let text = turn_a_knob(&pipeline, &mut dice);
                element(&pipeline, "buffer").set_property_from_value("leaky", &leaky);
                text
            }
        };
        assert_quiet(&pipeline, gone.as_ref(), &format!("{at}: {action}"));
        let more = dice.below(6);
        watchdog.step(format!("{at}: {more} frames after {action}"));
        watch.wait_more(more);
        assert_quiet(&pipeline, gone.as_ref(), &format!("{at}: {action}"));
    }
    watchdog.step(format!("seed {seed}: stop"));
    reach(&pipeline, gst::State::Null, "stop");
    drop(guests);
    let mut disorder = watch.disorder();
    disorder += watches.lock().unwrap().iter().map(|w| w.disorder()).sum::<u64>();
    assert_eq!(disorder, 0, "seed {seed}: frames out of order");
    drop((batch, out, pipeline));
    assert_eq!(
        alive.load(Ordering::SeqCst),
        0,
        "seed {seed}: frames that nobody gave back"
    );
}

#[test]
fn storm_over_streams_that_come_and_go_ends_and_keeps_nothing() {
    for seed in seeds(1..=6) {
        let models = ["builtin:null", "builtin:invert"];
        storm_of_streams(seed, models[seed as usize % models.len()], 60);
    }
}

#[test]
fn live_storm_ends_and_keeps_nothing() {
    let mut dice = Dice::new(77);
    let watchdog = Watchdog::new();
    let alive = Arc::new(AtomicI64::new(0));
    let pipeline = parse(
        "videotestsrc name=source is-live=true pattern=black ! video/x-raw,format=RGB,width=64,height=48,framerate=240/1 \
         ! comfyflightbuffer name=buffer batch-size=2 leaky=thin ! comfybatch name=batch batch-size=2 \
         ! comfyinfer name=infer model=builtin:invert?base=1ms ! comfyunbatch name=out ! fakesink name=sink sync=true processing-deadline=0",
    );
    count(&element(&pipeline, "source"), &alive);
    let watch = Watch::on(&element(&pipeline, "sink").static_pad("sink").unwrap());
    set_state(&pipeline, gst::State::Playing, "start");
    for step in 0..40 {
        watchdog.step(format!("live, step {step}"));
        let action = match dice.below(4) {
            0 => {
                element(&pipeline, "out").set_property_from_str("pacing", dice.one(&["none", "pts"]));
                "pacing".to_owned()
            }
            1 => {
                // The source plays on. One that is told to pause while it waits for the clock, and to play before it
                // has, stays paused: GStreamer's own race.
                let source = element(&pipeline, "source");
                source.set_locked_state(true);
                pause(&pipeline, "pause");
                set_state(&pipeline, gst::State::Playing, "play");
                source.set_locked_state(false);
                "pause".to_owned()
            }
            _ => turn_a_knob(&pipeline, &mut dice),
        };
        let more = dice.below(10);
        watchdog.step(format!("live, step {step}: {more} frames after {action}"));
        watch.wait_more(more);
        assert_quiet(&pipeline, None, &action);
    }
    watchdog.step("live: stop".to_owned());
    reach(&pipeline, gst::State::Null, "stop");
    assert_eq!(watch.disorder(), 0);
    drop(pipeline);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

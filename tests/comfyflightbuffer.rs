//! comfyflightbuffer between the test's own pads.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;

use comfy_tests::bench::{segment, word};
use comfy_tests::{Bench, Seen, Video};
use gst::prelude::*;

const FRAME: gst::ClockTime = Video::FRAME;

fn video() -> Video {
    Video::new("GRAY8", 64, 16)
}

fn bench(properties: &str) -> Bench {
    let mut bench = Bench::new(&format!("comfyflightbuffer {properties}"), "sink", "src");
    bench.harness.set_src_caps(video().caps());
    bench
}

fn push(bench: &mut Bench, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        bench.push(video().frame(number));
    }
}

fn numbers(frames: &[gst::Buffer]) -> Vec<u64> {
    frames.iter().map(|frame| video().number(frame)).collect()
}

fn discont(frames: &[gst::Buffer]) -> Vec<u64> {
    let marked = frames.iter().filter(|f| f.flags().contains(gst::BufferFlags::DISCONT));
    marked.map(|f| video().number(f)).collect()
}

/// Frames by number and events by name, in order, from the first frame or custom event on.
fn story(seen: &[Seen]) -> Vec<String> {
    let lines = seen.iter().filter_map(|seen| match seen {
        Seen::Frame(frame) => Some(video().number(frame).to_string()),
        Seen::Event(event) => match event.view() {
            gst::EventView::CustomDownstream(_) => event.structure().map(|s| s.name().to_string()),
            gst::EventView::Gap(_) => Some("gap".into()),
            gst::EventView::Eos(_) => Some("eos".into()),
            gst::EventView::Tag(_) => Some("tag".into()),
            gst::EventView::Caps(caps) => Some(format!("caps {}", Video::from_caps(caps.caps()).info.width())),
            _ => None,
        },
    });
    lines.collect()
}

#[test]
fn frames_leave_in_order_once_the_threshold_is_collected() {
    let mut bench = bench("batch-size=4 threshold=1");
    push(&mut bench, 0..3);
    assert_eq!(bench.stat::<u32>("fill"), 3);
    assert_eq!(bench.stat::<String>("state"), "filling");
    assert!(bench.out.frames().is_empty());
    push(&mut bench, [3]);
    assert_eq!(numbers(&bench.out.wait_frames(4)), [0, 1, 2, 3]);
    // From now on nothing is held back.
    push(&mut bench, [4]);
    assert_eq!(numbers(&bench.out.wait_frames(5)), [0, 1, 2, 3, 4]);
    assert_eq!(bench.stat::<String>("state"), "running");
    assert_eq!(bench.stat::<u64>("frames-in"), 5);
    assert_eq!(bench.stat::<u64>("frames-out"), 5);
}

#[test]
fn threshold_of_zero_starts_at_once() {
    let mut bench = bench("batch-size=4 threshold=0");
    push(&mut bench, [0]);
    bench.out.wait_frames(1);
    assert_eq!(bench.latency().1, gst::ClockTime::ZERO);
}

/// Rows: stream-start, caps, segment; sticky events; position and sequence numbers.
#[test]
fn stream_start_caps_and_segment_come_first_and_keep_their_sequence_numbers() {
    let mut bench = Bench::new("comfyflightbuffer threshold=0", "sink", "src");
    bench.harness.set_src_caps(video().caps());
    let mut fresh = segment();
    fresh.make_mut().set_seqnum(gst::Seqnum::next());
    assert!(bench.harness.push_event(fresh.clone()));
    push(&mut bench, [0]);
    bench.out.wait_frames(1);
    let kinds: Vec<gst::EventType> = bench.out.events().iter().map(|e| e.type_()).collect();
    let place = |kind| kinds.iter().position(|k| *k == kind).unwrap();
    assert!(place(gst::EventType::StreamStart) < place(gst::EventType::Caps));
    assert!(place(gst::EventType::Caps) < place(gst::EventType::Segment));
    let last = bench
        .out
        .events()
        .into_iter()
        .rfind(|e| e.type_() == gst::EventType::Segment);
    assert_eq!(last.unwrap().seqnum(), fresh.seqnum());
}

/// Row: other serialized events.
#[test]
fn events_keep_their_places_among_the_frames() {
    let mut bench = bench("batch-size=4 threshold=1");
    push(&mut bench, 0..2);
    bench.harness.push_event(word("a"));
    let tags = gst::TagList::new();
    bench.harness.push_event(gst::event::Tag::new(tags));
    push(&mut bench, [2]);
    bench.harness.set_src_caps(Video::new("GRAY8", 128, 16).caps());
    // Neither a tag nor new caps end the collecting.
    assert_eq!(bench.stat::<u32>("fill"), 3);
    push(&mut bench, [3]);
    bench.harness.push_event(word("b"));
    bench.harness.push_event(gst::event::Eos::new());
    bench.out.wait_event(gst::EventType::Eos);
    let story = story(&bench.out.seen());
    let start = story.iter().position(|line| line == "0").unwrap();
    assert_eq!(story[start..], ["0", "1", "a", "tag", "2", "caps 128", "3", "b", "eos"]);
}

/// Row: EOS.
#[test]
fn end_of_stream_releases_what_is_held() {
    let mut bench = bench("batch-size=4 threshold=2");
    push(&mut bench, 0..3);
    bench.harness.push_event(gst::event::Eos::new());
    bench.out.wait_event(gst::EventType::Eos);
    assert_eq!(numbers(&bench.out.frames()), [0, 1, 2]);
    // After the end nothing is taken.
    assert_eq!(bench.harness.push(video().frame(3)), Err(gst::FlowError::Eos));
}

/// Row: EOS then restart.
#[test]
fn stream_start_after_the_end_begins_anew() {
    let mut bench = bench("batch-size=2 threshold=1");
    push(&mut bench, 0..2);
    bench.harness.push_event(gst::event::Eos::new());
    bench.out.wait_event(gst::EventType::Eos);
    bench.out.clear();
    assert!(bench.harness.push_event(gst::event::StreamStart::new("again")));
    assert!(bench.harness.push_event(gst::event::Caps::new(&video().caps())));
    assert!(bench.harness.push_event(segment()));
    push(&mut bench, 10..14);
    assert_eq!(numbers(&bench.out.wait_frames(4)), [10, 11, 12, 13]);
    bench.harness.push_event(gst::event::Eos::new());
    bench.out.wait_event(gst::EventType::Eos);
}

/// Row: GAP.
#[test]
fn gap_releases_what_is_held_and_follows_it() {
    let mut bench = bench("batch-size=4 threshold=1");
    push(&mut bench, 0..2);
    bench
        .harness
        .push_event(gst::event::Gap::builder(FRAME * 2).duration(FRAME * 10).build());
    bench.out.wait_event(gst::EventType::Gap);
    assert_eq!(story(&bench.out.seen()).last_chunk().unwrap(), &["0", "1", "gap"]);
}

/// Rows: FLUSH_START, FLUSH_STOP, DISCONT.
#[test]
fn flush_while_filling_drops_what_is_held_and_collects_anew() {
    let mut bench = bench("batch-size=4 threshold=1");
    push(&mut bench, 0..3);
    bench.flush();
    assert_eq!(bench.stat::<u32>("fill"), 0);
    push(&mut bench, 100..103);
    assert_eq!(bench.stat::<u32>("fill"), 3);
    push(&mut bench, [103]);
    let frames = bench.out.wait_frames(4);
    assert_eq!(numbers(&frames), [100, 101, 102, 103]);
    assert_eq!(discont(&frames), [100]);
}

fn blocked(bench: &mut Bench) -> thread::JoinHandle<Result<gst::FlowSuccess, gst::FlowError>> {
    bench.out.hold();
    push(bench, 0..2);
    // One stands at the gate; two more fill the buffer.
    bench.out.wait_held();
    push(bench, [2]);
    bench.wait_element("comfyflightbuffer", |s| {
        s.get::<String>("state").is_ok_and(|s| s == "overrun")
    });
    let pad = bench.pad();
    thread::spawn(move || pad.push(video().frame(3)))
}

#[test]
fn flush_ends_a_wait_for_room() {
    let mut bench = bench("batch-size=2 threshold=1 max-batches=1");
    let upstream = blocked(&mut bench);
    bench.harness.push_event(gst::event::FlushStart::new());
    assert_eq!(upstream.join().unwrap(), Err(gst::FlowError::Flushing));
    bench.out.release();
    bench.harness.push_event(gst::event::FlushStop::new(true));
    bench.harness.push_event(segment());
    bench.out.clear();
    push(&mut bench, 100..102);
    assert_eq!(numbers(&bench.out.wait_frames(2)), [100, 101]);
}

#[test]
fn full_buffer_blocks_upstream_and_loses_nothing() {
    let mut bench = bench("batch-size=2 threshold=1 max-batches=1");
    let upstream = blocked(&mut bench);
    bench.out.release();
    upstream.join().unwrap().unwrap();
    assert_eq!(numbers(&bench.out.wait_frames(4)), [0, 1, 2, 3]);
    assert!(bench.stat::<u64>("overruns") >= 1);
    assert_eq!(bench.stat::<u64>("dropped-overrun"), 0);
}

#[test]
fn larger_buffer_admits_whoever_waits_for_room() {
    let mut bench = bench("batch-size=2 threshold=1 max-batches=1");
    let upstream = blocked(&mut bench);
    bench.element.set_property("max-batches", 2u32);
    upstream.join().unwrap().unwrap();
    assert_eq!(bench.stat::<u32>("capacity"), 4);
}

/// Row: PAUSED to READY.
#[test]
fn stopping_ends_a_wait_for_room() {
    let mut bench = bench("batch-size=2 threshold=1 max-batches=1");
    let upstream = blocked(&mut bench);
    let element = bench.element.clone();
    let stop = thread::spawn(move || element.set_state(gst::State::Null));
    assert_eq!(upstream.join().unwrap(), Err(gst::FlowError::Flushing));
    // A real sink lets go when it stops; here the gate does.
    bench.out.release();
    stop.join().unwrap().unwrap();
}

#[test]
fn stopping_while_filling_lets_go_of_every_frame() {
    let mut bench = bench("batch-size=8 threshold=1");
    let frame = video().frame(0);
    bench.push(frame.clone());
    assert!(!frame.is_writable());
    bench.element.set_state(gst::State::Null).unwrap();
    assert!(frame.is_writable(), "the element still holds the frame");
}

#[test]
fn start_after_a_stop_collects_anew() {
    let mut bench = bench("batch-size=2 threshold=1");
    push(&mut bench, 0..2);
    bench.out.wait_frames(2);
    for _ in 0..3 {
        bench.element.set_state(gst::State::Null).unwrap();
        bench.element.set_state(gst::State::Playing).unwrap();
    }
    bench.out.clear();
    for event in [
        gst::event::StreamStart::new("again"),
        gst::event::Caps::new(&video().caps()),
        segment(),
    ] {
        assert!(bench.harness.push_event(event));
    }
    push(&mut bench, [5]);
    assert_eq!(bench.stat::<u32>("fill"), 1);
    assert_eq!(bench.stat::<u64>("frames-in"), 1);
    push(&mut bench, [6]);
    assert_eq!(numbers(&bench.out.wait_frames(2)), [5, 6]);
}

/// A buffer of four frames that is full, with frame 0 at the gate and 1 to 4 in it.
fn full(leaky: &str) -> Bench {
    let mut bench = bench(&format!("batch-size=4 threshold=1 max-batches=1 leaky={leaky}"));
    bench.out.hold();
    push(&mut bench, 0..4);
    bench.out.wait_held();
    push(&mut bench, [4]);
    assert_eq!(bench.stat::<u32>("fill"), 4);
    bench
}

/// Rows: DISCONT; no silent drops.
#[test]
fn leaky_oldest_drops_the_frame_that_waits_longest() {
    let mut bench = full("oldest");
    push(&mut bench, [5, 6]);
    bench.out.release();
    let frames = bench.out.wait_frames(5);
    assert_eq!(numbers(&frames), [0, 3, 4, 5, 6]);
    assert_eq!(discont(&frames), [3]);
    assert_eq!(bench.stat::<u64>("dropped-overrun"), 2);
}

#[test]
fn leaky_newest_drops_the_frame_that_arrives() {
    let mut bench = full("newest");
    push(&mut bench, [5, 6]);
    bench.out.release();
    bench.out.wait_frames(5);
    push(&mut bench, [7]);
    let frames = bench.out.wait_frames(6);
    assert_eq!(numbers(&frames), [0, 1, 2, 3, 4, 7]);
    assert_eq!(discont(&frames), [7]);
}

#[test]
fn leaky_thin_leaves_frames_evenly_spaced() {
    let mut bench = full("thin");
    push(&mut bench, [5, 6, 7]);
    bench.out.release();
    let frames = bench.out.wait_frames(5);
    assert_eq!(numbers(&frames), [0, 1, 3, 5, 7]);
    assert_eq!(discont(&frames), [3, 5, 7]);
}

/// Row: flags.
#[test]
fn non_droppable_frames_are_kept_while_another_can_go() {
    for leaky in ["oldest", "newest", "thin"] {
        let mut bench = bench(&format!("batch-size=4 threshold=1 max-batches=1 leaky={leaky}"));
        bench.out.hold();
        push(&mut bench, [0]);
        for number in 1..5 {
            let mut frame = video().frame(number);
            if number != 3 {
                frame.get_mut().unwrap().set_flags(gst::BufferFlags::NON_DROPPABLE);
            }
            if number == 4 {
                bench.out.wait_held();
            }
            bench.push(frame);
        }
        let mut last = video().frame(5);
        last.get_mut().unwrap().set_flags(gst::BufferFlags::NON_DROPPABLE);
        bench.push(last);
        bench.out.release();
        assert_eq!(numbers(&bench.out.wait_frames(5)), [0, 1, 2, 4, 5], "leaky={leaky}");
    }
}

/// Row: QoS.
#[test]
fn late_frames_are_dropped_counted_and_told_and_the_event_goes_upstream() {
    let mut bench = bench("batch-size=4 threshold=1 leaky=oldest");
    push(&mut bench, 0..3);
    // A frame of 0 s is late by 60 ms: frames that end before 120 ms come too late, which 0 and 1 do.
    let qos = gst::event::Qos::new(
        gst::QOSType::Underflow,
        1.0,
        FRAME.nseconds() as i64 * 3 / 2,
        gst::ClockTime::ZERO,
    );
    bench.harness.push_upstream_event(qos);
    let mut upstream = bench.harness.pull_upstream_event().unwrap();
    while upstream.type_() != gst::EventType::Qos {
        upstream = bench.harness.pull_upstream_event().unwrap();
    }
    push(&mut bench, 3..6);
    let frames = bench.out.wait_frames(4);
    assert_eq!(numbers(&frames), [2, 3, 4, 5]);
    assert_eq!(discont(&frames), [2]);
    assert_eq!(bench.stat::<u64>("dropped-late"), 2);
    let told = bench
        .messages()
        .iter()
        .filter(|m| m.type_() == gst::MessageType::Qos)
        .count();
    assert_eq!(told, 2);
}

#[test]
fn buffer_that_may_not_drop_keeps_late_frames() {
    let mut bench = bench("batch-size=2 threshold=1");
    let qos = gst::event::Qos::new(gst::QOSType::Underflow, 1.0, 1_000_000_000, gst::ClockTime::ZERO);
    bench.harness.push_upstream_event(qos);
    push(&mut bench, 0..2);
    assert_eq!(numbers(&bench.out.wait_frames(2)), [0, 1]);
}

/// Rows: ALLOCATION query, video meta.
#[test]
fn allocation_query_while_filling_is_answered_by_downstream_behind_the_frames() {
    let mut bench = bench("batch-size=4 threshold=1");
    bench
        .harness
        .add_propose_allocation_meta(gst_video::VideoMeta::meta_api(), None);
    push(&mut bench, 0..2);
    let mut query = gst::query::Allocation::new(Some(&video().caps()), false);
    assert!(bench.pad().peer_query(&mut query));
    assert!(query.find_allocation_meta::<gst_video::VideoMeta>().is_some());
    // A serialized query keeps its place: what stood before it has left.
    assert_eq!(numbers(&bench.out.frames()), [0, 1]);
}

/// Row: DRAIN.
#[test]
fn drain_query_releases_every_frame_before_it_returns() {
    let mut bench = bench("batch-size=4 threshold=1");
    push(&mut bench, 0..2);
    let mut query = gst::query::Drain::new();
    bench.pad().peer_query(&mut query);
    assert_eq!(numbers(&bench.out.frames()), [0, 1]);
    assert_eq!(bench.stat::<u32>("fill"), 0);
}

#[test]
fn flush_ends_a_serialized_query_that_waits() {
    let mut bench = bench("batch-size=2 threshold=1");
    bench.out.hold();
    push(&mut bench, 0..2);
    bench.out.wait_held();
    let pad = bench.pad();
    let query = thread::spawn(move || pad.peer_query(&mut gst::query::Drain::new()));
    bench.harness.push_event(gst::event::FlushStart::new());
    assert!(!query.join().unwrap());
    bench.harness.push_event(gst::event::FlushStop::new(true));
}

/// Rows: LATENCY query, latency change.
#[test]
fn latency_is_the_collected_frames_but_one_and_the_capacity() {
    let bench = bench("batch-size=4 threshold=2 max-batches=5");
    bench.upstream_latency(true, FRAME, Some(FRAME * 2));
    bench.out.wait_event(gst::EventType::Caps);
    assert_eq!(bench.latency(), (true, FRAME * 8, Some(FRAME * 22)));
    bench.element.set_property("threshold", 1u32);
    assert!(bench.messages().iter().any(|m| m.type_() == gst::MessageType::Latency));
    assert_eq!(bench.latency(), (true, FRAME * 4, Some(FRAME * 22)));
    // What does not change it is not told.
    bench.element.set_property("rebuffer", true);
    assert!(!bench.messages().iter().any(|m| m.type_() == gst::MessageType::Latency));
}

#[test]
fn latency_of_a_leaky_buffer_never_promises_more_than_it_holds() {
    let bench = bench("batch-size=4 threshold=1 max-batches=2 leaky=oldest");
    bench.upstream_latency(true, FRAME, Some(FRAME * 100));
    bench.out.wait_event(gst::EventType::Caps);
    assert_eq!(bench.latency(), (true, FRAME * 4, Some(FRAME * 8)));
}

#[test]
fn latency_without_a_limit_upstream_has_none_here() {
    let bench = bench("batch-size=4 threshold=1");
    bench.upstream_latency(false, gst::ClockTime::ZERO, None);
    bench.out.wait_event(gst::EventType::Caps);
    assert_eq!(bench.latency(), (false, FRAME * 3, None));
}

/// Row: latency change. A rate that caps do not say is learnt from the first 16 arrivals.
#[test]
fn latency_is_told_anew_when_the_rate_is_learnt() {
    let mut bench = Bench::new("comfyflightbuffer batch-size=4 threshold=1", "sink", "src");
    let mut caps = video().caps();
    caps.make_mut().set("framerate", gst::Fraction::new(0, 1));
    bench.harness.set_src_caps(caps);
    bench.out.wait_event(gst::EventType::Caps);
    assert_eq!(bench.latency().1, gst::ClockTime::ZERO);
    bench.messages();
    push(&mut bench, 0..16);
    assert!(bench.messages().iter().any(|m| m.type_() == gst::MessageType::Latency));
    assert_eq!(bench.latency().1, FRAME * 3);
}

#[test]
fn burst_is_announced_downstream_before_the_first_frame() {
    let mut bench = bench("batch-size=4 threshold=2");
    push(&mut bench, 0..8);
    bench.out.wait_frames(8);
    let seen = bench.out.seen();
    let burst = seen.iter().position(|s| {
        s.event()
            .and_then(|e| e.structure())
            .is_some_and(|s| s.name() == "comfy-burst" && s.get::<u32>("frames") == Ok(8))
    });
    let first = seen.iter().position(|s| s.frame().is_some());
    assert!(burst.unwrap() < first.unwrap());
}

#[test]
fn changes_of_state_are_told_with_fill_and_expected_start() {
    let mut bench = bench("batch-size=2 threshold=2 max-batches=3");
    push(&mut bench, [0]);
    let told = bench.wait_element("comfyflightbuffer", |s| s.get::<&str>("state") == Ok("filling"));
    assert_eq!(told.get::<u32>("fill").unwrap(), 1);
    assert_eq!(told.get::<u32>("threshold").unwrap(), 4);
    assert_eq!(told.get::<gst::ClockTime>("expected-start").unwrap(), FRAME * 3);
    push(&mut bench, 1..4);
    bench.wait_element("comfyflightbuffer", |s| s.get::<&str>("state") == Ok("running"));
}

#[test]
fn silence_is_an_underrun_and_the_next_frame_passes_at_once() {
    let mut bench = bench("batch-size=2 threshold=1");
    push(&mut bench, 0..2);
    bench.out.wait_frames(2);
    bench.crank();
    bench.wait_element("comfyflightbuffer", |s| s.get::<&str>("state") == Ok("underrun"));
    assert_eq!(bench.stat::<u64>("underruns"), 1);
    push(&mut bench, [2]);
    assert_eq!(numbers(&bench.out.wait_frames(3)), [0, 1, 2]);
}

#[test]
fn rebuffer_collects_again_after_an_underrun() {
    let mut bench = bench("batch-size=2 threshold=1 rebuffer=true");
    push(&mut bench, 0..2);
    bench.out.wait_frames(2);
    bench.crank();
    bench.wait_element("comfyflightbuffer", |s| s.get::<&str>("state") == Ok("underrun"));
    push(&mut bench, [2]);
    assert_eq!(bench.stat::<u32>("fill"), 1);
    push(&mut bench, [3]);
    assert_eq!(numbers(&bench.out.wait_frames(4)), [0, 1, 2, 3]);
}

#[test]
fn lower_threshold_releases_what_is_held() {
    let mut bench = bench("batch-size=2 threshold=4");
    push(&mut bench, 0..4);
    assert!(bench.out.frames().is_empty());
    bench.element.set_property("threshold", 2u32);
    assert_eq!(numbers(&bench.out.wait_frames(4)), [0, 1, 2, 3]);
}

/// Row: flow returns.
#[test]
fn what_downstream_answers_reaches_upstream() {
    let mut bench = bench("threshold=0");
    bench.harness.sinkpad().unwrap().set_active(false).unwrap();
    let flow = std::iter::from_fn(|| Some(bench.harness.push(video().frame(0)))).find(Result::is_err);
    assert_eq!(flow, Some(Err(gst::FlowError::Flushing)));
    assert!(!bench.messages().iter().any(|m| m.type_() == gst::MessageType::Error));
}

/// Rows: upstream events, query direction.
#[test]
fn upstream_events_and_caps_queries_pass_through() {
    let mut bench = bench("");
    let seek = gst_video::UpstreamForceKeyUnitEvent::builder()
        .all_headers(true)
        .build();
    bench.harness.push_upstream_event(seek);
    let event = std::iter::from_fn(|| bench.harness.pull_upstream_event().ok())
        .find(|e| e.type_() == gst::EventType::CustomUpstream)
        .unwrap();
    assert!(gst_video::UpstreamForceKeyUnitEvent::parse(&event).unwrap().all_headers);
    bench.harness.set_sink_caps(Video::new("GRAY8", 128, 16).caps());
    let allowed = bench.pad().peer_query_caps(None);
    assert!(allowed.is_strictly_equal(&Video::new("GRAY8", 128, 16).caps()));
}

/// Answers EOS to frames while `wants` is not set, as an element that has seen enough does.
struct Enough {
    wants: Arc<AtomicBool>,
    refused: mpsc::Receiver<()>,
}

impl Enough {
    fn of(bench: &Bench) -> Self {
        let wants = Arc::new(AtomicBool::new(true));
        let (refusing, refused) = mpsc::sync_channel(16);
        let pad = bench.element.static_pad("src").unwrap();
        let probe = wants.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if probe.load(SeqCst) {
                return gst::PadProbeReturn::Ok;
            }
            info.data.take();
            info.flow_res = Err(gst::FlowError::Eos);
            refusing.send(()).unwrap();
            gst::PadProbeReturn::Handled
        });
        Self { wants, refused }
    }
}

/// Rows: EOS from downstream.
#[test]
fn frames_are_skipped_after_downstream_had_enough_up_to_a_new_segment() {
    let mut bench = bench("threshold=0");
    let enough = Enough::of(&bench);
    bench.out.hold();
    push(&mut bench, [0]);
    bench.out.wait_held();
    push(&mut bench, [1, 2]);
    bench.harness.push_event(word("a"));
    bench.harness.push_event(segment());
    push(&mut bench, [3, 4]);
    enough.wants.store(false, SeqCst);
    let wants = enough.wants.clone();
    bench
        .element
        .static_pad("src")
        .unwrap()
        .add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            let is_segment = info.event().is_some_and(|e| e.type_() == gst::EventType::Segment);
            wants.fetch_or(is_segment, SeqCst);
            gst::PadProbeReturn::Ok
        });
    bench.out.release();
    let frames = bench.out.wait_frames(3);
    assert_eq!(numbers(&frames), [0, 3, 4]);
    assert_eq!(story(&bench.out.seen()), ["caps 64", "0", "a", "3", "4"]);
    // Frame 1 was refused; 2 has not even left.
    assert_eq!(bench.stat::<u64>("frames-out"), 4);
}

/// Rows: EOS from downstream; each start of the src task is kept, however close to its end it comes.
#[test]
fn frames_go_on_with_a_new_segment_after_downstream_had_enough() {
    let mut bench = bench("threshold=0");
    let enough = Enough::of(&bench);
    for round in 0..3000u64 {
        enough.wants.store(false, SeqCst);
        push(&mut bench, [2 * round]);
        enough
            .refused
            .recv_timeout(comfy_tests::DEADLINE)
            .expect("it is refused");
        enough.wants.store(true, SeqCst);
        if round % 2 == 0 {
            // What is refused now has nobody to say it again.
            while bench.harness.push(video().frame(9999)) != Err(gst::FlowError::Eos) {}
        }
        if round % 4 == 0 {
            // What holds for later frames is taken before they are wanted.
            bench.harness.push_event(gst::event::Tag::new(gst::TagList::new()));
        }
        bench.out.clear();
        bench.harness.push_event(segment());
        push(&mut bench, [2 * round + 1]);
        let frames = bench.out.wait_frames(1);
        assert_eq!(numbers(&frames), [2 * round + 1], "round {round}");
    }
}

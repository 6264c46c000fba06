//! comfybatch between the test's own pads.

use std::thread;

use comfy_core::batch::Reason;
use comfy_tests::bench::{segment, word};
use comfy_tests::story::{batch, filled, numbers, of_batches};
use comfy_tests::{Bench, Tap, Video};
use gst::prelude::*;

const FRAME: gst::ClockTime = Video::FRAME;

fn video() -> Video {
    Video::new("GRAY8", 64, 16)
}

/// One stream.
fn bench(properties: &str) -> Bench {
    let mut bench = Bench::new(&format!("comfybatch {properties}"), "sink_%u", "src");
    bench.harness.set_live(false);
    bench.harness.set_src_caps(video().caps());
    bench
}

/// One more stream of the same element.
fn another(bench: &Bench) -> Bench {
    let mut other = Bench::with(&bench.element, Some("sink_%u"), None);
    other.harness.set_src_caps(video().caps());
    other
}

/// Two streams that are live, so that neither waits for the other's turn. The clock stands still, and so does every
/// timeout.
fn two(properties: &str) -> (Bench, Bench) {
    let first = live(properties);
    let second = another(&first);
    (first, second)
}

/// A live upstream, known before the segment.
fn live(properties: &str) -> Bench {
    let mut bench = Bench::new(&format!("comfybatch {properties}"), "sink_%u", "src");
    bench.upstream_latency(true, FRAME, Some(FRAME * 2));
    bench.harness.set_src_caps(video().caps());
    bench
}

fn push(bench: &mut Bench, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        bench.push(video().frame(number));
    }
}

/// Waits for so many batches with frames.
fn wait_batches(bench: &Bench, count: usize) -> Vec<gst::Buffer> {
    bench.out.wait(&format!("{count} batches"), |seen| {
        let containers: Vec<_> = seen.iter().filter_map(|s| s.frame().cloned()).collect();
        filled(&containers).len() >= count
    });
    filled(&bench.out.frames())
}

fn only(containers: &[gst::Buffer]) -> Vec<Vec<u64>> {
    let one = |c: &gst::Buffer| numbers(&video(), c).into_iter().map(|(_, number)| number).collect();
    containers.iter().map(one).collect()
}

fn reasons(containers: &[gst::Buffer]) -> Vec<Reason> {
    containers.iter().map(|c| batch(c).reason).collect()
}

#[test]
fn frames_become_batches_without_a_copy() {
    let mut bench = bench("batch-size=4");
    let frames: Vec<gst::Buffer> = (0..8).map(|n| video().frame(n)).collect();
    for frame in &frames {
        bench.push(frame.clone());
    }
    let batches = wait_batches(&bench, 2);
    assert_eq!(only(&batches), [[0, 1, 2, 3], [4, 5, 6, 7]]);
    assert_eq!(reasons(&batches), [Reason::Full, Reason::Full]);
    let inputs: Vec<gst::Buffer> = batches
        .iter()
        .flat_map(|c| batch(c).frames.iter().map(|f| f.input.clone()).collect::<Vec<_>>())
        .collect();
    for (frame, input) in frames.iter().zip(&inputs) {
        assert_eq!(frame.as_ptr(), input.as_ptr(), "the frame itself travels");
    }
    assert_eq!(batches[0].n_memory(), 0);
    let sequences: Vec<u64> = batches
        .iter()
        .flat_map(|c| batch(c).frames.iter().map(|f| f.sequence).collect::<Vec<_>>())
        .collect();
    assert_eq!(sequences, (0..8).collect::<Vec<_>>());
}

/// Rows: frame identity, flags.
#[test]
fn container_spans_its_frames_and_carries_their_flags() {
    let mut bench = bench("batch-size=2");
    for (number, flags) in [
        (0, gst::BufferFlags::DISCONT),
        (1, gst::BufferFlags::CORRUPTED),
        (2, gst::BufferFlags::DROPPABLE),
        (3, gst::BufferFlags::empty()),
        (4, gst::BufferFlags::DROPPABLE),
        (5, gst::BufferFlags::DROPPABLE),
    ] {
        let mut frame = video().frame(number);
        frame.get_mut().unwrap().set_flags(flags);
        bench.push(frame);
    }
    let batches = wait_batches(&bench, 3);
    assert_eq!(batches[1].pts(), Some(FRAME * 2));
    assert_eq!(batches[1].duration(), Some(FRAME * 2));
    assert!(
        batches[0]
            .flags()
            .contains(gst::BufferFlags::DISCONT | gst::BufferFlags::CORRUPTED)
    );
    // One that may be dropped does not make the other so.
    assert!(
        !batches[1]
            .flags()
            .intersects(gst::BufferFlags::DROPPABLE | gst::BufferFlags::CORRUPTED)
    );
    assert!(batches[2].flags().contains(gst::BufferFlags::DROPPABLE));
}

/// Rows: EOS; the order of stream-start, caps and segment.
#[test]
fn end_of_stream_pushes_the_partial_batch_and_then_ends() {
    let mut bench = bench("batch-size=4");
    push(&mut bench, 0..6);
    bench.harness.push_event(gst::event::Eos::new());
    bench.out.wait_event(gst::EventType::Eos);
    let story = of_batches(&video(), &bench.out.seen());
    assert_eq!(
        story,
        [
            "stream-start",
            "caps",
            "segment",
            "0:stream-start",
            "0:segment",
            "0:0",
            "0:1",
            "0:2",
            "0:3",
            "|",
            "0:4",
            "0:5",
            "0:eos",
            "|",
            "eos"
        ]
    );
    assert_eq!(reasons(&wait_batches(&bench, 2)), [Reason::Full, Reason::Eos]);
    assert_eq!(bench.harness.push(video().frame(6)), Err(gst::FlowError::Eos));
}

/// Row: EOS then restart.
#[test]
fn stream_start_after_the_end_begins_anew() {
    let mut bench = bench("batch-size=2");
    push(&mut bench, 0..1);
    bench.harness.push_event(gst::event::Eos::new());
    bench.out.wait_event(gst::EventType::Eos);
    bench.out.clear();
    for event in [
        gst::event::StreamStart::new("again"),
        gst::event::Caps::new(&video().caps()),
        segment(),
    ] {
        assert!(bench.harness.push_event(event));
    }
    push(&mut bench, 10..12);
    assert_eq!(only(&wait_batches(&bench, 1)), [[10, 11]]);
    assert_eq!(
        of_batches(&video(), &bench.out.seen())[..3],
        ["stream-start", "caps", "segment"]
    );
    bench.harness.push_event(gst::event::Eos::new());
    bench.out.wait_event(gst::EventType::Eos);
}

/// Row: caps change mid-batch.
#[test]
fn frames_of_other_caps_never_share_a_batch() {
    let mut bench = bench("batch-size=4");
    push(&mut bench, 0..2);
    let wide = Video::new("GRAY8", 128, 16);
    bench.harness.set_src_caps(wide.caps());
    bench.push(wide.frame(2));
    bench.harness.push_event(gst::event::Eos::new());
    bench.out.wait_event(gst::EventType::Eos);
    let batches = wait_batches(&bench, 2);
    assert_eq!(reasons(&batches)[1], Reason::Eos);
    assert_eq!(batch(&batches[0]).frames.len(), 2);
    assert_eq!(wide.number(&batch(&batches[1]).frames[0].input), 2);
    let widths = bench.out.events().into_iter().filter_map(|e| match e.view() {
        gst::EventView::Caps(caps) => caps.caps().structure(0)?.get::<i32>("width").ok(),
        _ => None,
    });
    assert_eq!(widths.collect::<Vec<_>>(), [64, 128]);
}

/// Row: segment change.
#[test]
fn segment_pushes_the_partial_batch_and_follows_it() {
    let mut bench = bench("batch-size=4");
    push(&mut bench, 0..2);
    bench.harness.push_event(segment());
    assert_eq!(only(&wait_batches(&bench, 1)), [[0, 1]]);
    push(&mut bench, 2..6);
    let batches = wait_batches(&bench, 2);
    assert_eq!(reasons(&batches), [Reason::Segment, Reason::Full]);
    assert_eq!(only(&batches)[1], [2, 3, 4, 5]);
}

/// Row: other serialized events.
#[test]
fn tags_keep_their_place_without_ending_the_batch() {
    let mut bench = bench("batch-size=4");
    push(&mut bench, 0..2);
    for _ in 0..20 {
        bench.harness.push_event(gst::event::Tag::new(gst::TagList::new()));
    }
    bench.harness.push_event(word("a"));
    push(&mut bench, 2..4);
    let batches = wait_batches(&bench, 1);
    assert_eq!(only(&batches), [[0, 1, 2, 3]]);
    assert_eq!(reasons(&batches), [Reason::Full]);
    let batch = batch(&batches[0]);
    let places: Vec<usize> = batch
        .events
        .iter()
        .filter(|e| e.event.type_() != gst::EventType::StreamStart)
        .map(|e| e.position)
        .collect();
    assert!(places.ends_with(&[2; 21]), "{places:?}");
}

/// Row: GAP.
#[test]
fn gap_beyond_the_batch_pushes_what_is_there_and_follows_it() {
    let mut bench = bench("batch-size=4");
    push(&mut bench, 0..2);
    bench
        .harness
        .push_event(gst::event::Gap::builder(FRAME * 2).duration(FRAME).build());
    assert_eq!(bench.stat::<u64>("frames-out"), 0);
    bench
        .harness
        .push_event(gst::event::Gap::builder(FRAME * 3).duration(FRAME * 10).build());
    let batches = wait_batches(&bench, 1);
    assert_eq!(reasons(&batches), [Reason::Gap]);
    let story = of_batches(&video(), &bench.out.seen());
    assert_eq!(story.last_chunk().unwrap(), &["0:0", "0:1", "0:gap", "0:gap", "|"]);
}

/// Row: DRAIN.
#[test]
fn drain_query_pushes_the_partial_batch_before_it_returns() {
    let mut bench = bench("batch-size=4");
    push(&mut bench, 0..3);
    bench.pad().peer_query(&mut gst::query::Drain::new());
    let batches = filled(&bench.out.frames());
    assert_eq!(only(&batches), [[0, 1, 2]]);
    assert_eq!(reasons(&batches), [Reason::Drain]);
}

/// Row: live and non-live.
#[test]
fn upstream_that_is_not_live_fills_every_batch_however_long_it_takes() {
    let mut bench = bench("batch-size=4");
    push(&mut bench, 0..3);
    assert_eq!(bench.clock().peek_id_count(), 0, "no deadline is waited for");
    assert!(!bench.stat::<bool>("live"));
}

#[test]
fn live_upstream_has_a_deadline_of_a_batch_and_half_a_frame() {
    let mut bench = live("batch-size=4");
    let start = bench.clock().time();
    push(&mut bench, 0..2);
    let id = bench.clock().wait_for_next_pending_id();
    assert_eq!(id.time(), start + FRAME * 7 / 2);
    bench.crank();
    let batches = wait_batches(&bench, 1);
    assert_eq!(only(&batches), [[0, 1]]);
    assert_eq!(reasons(&batches), [Reason::Timeout]);
}

#[test]
fn timeout_counts_from_the_first_frame_of_a_batch() {
    let mut bench = bench("batch-size=4 timeout=100000000");
    push(&mut bench, [0]);
    let ms = gst::ClockTime::from_mseconds;
    assert_eq!(bench.clock().wait_for_next_pending_id().time(), ms(100));
    bench.clock().set_time(ms(60));
    push(&mut bench, [1]);
    assert_eq!(bench.clock().wait_for_next_pending_id().time(), ms(100));
    bench.crank();
    let batches = wait_batches(&bench, 1);
    assert_eq!(only(&batches), [[0, 1]]);
    assert_eq!(bench.stat::<u64>("timeout"), 1);
}

#[test]
fn timeout_that_changes_while_playing_holds_at_once() {
    let mut bench = bench("batch-size=4");
    push(&mut bench, [0]);
    bench.element.set_property("timeout", 5_000_000u64);
    assert_eq!(
        bench.clock().wait_for_next_pending_id().time(),
        gst::ClockTime::from_mseconds(5)
    );
    bench.crank();
    assert_eq!(only(&wait_batches(&bench, 1)), [[0]]);
}

#[test]
fn smaller_batch_size_pushes_at_once_and_is_told_in_caps() {
    let mut bench = bench("batch-size=4");
    push(&mut bench, 0..3);
    bench.element.set_property("batch-size", 2u32);
    assert_eq!(only(&wait_batches(&bench, 1))[0], [0, 1]);
    push(&mut bench, [3]);
    assert_eq!(only(&wait_batches(&bench, 2)), [[0, 1], [2, 3]]);
    let caps = bench.harness.sinkpad().unwrap().current_caps().unwrap();
    assert_eq!(caps.structure(0).unwrap().get::<i32>("batch-size").unwrap(), 2);
}

#[test]
fn batches_hold_many_frames() {
    for size in [1, 17, 64] {
        let mut bench = bench(&format!("batch-size={size}"));
        push(&mut bench, 0..2 * size);
        let batches = wait_batches(&bench, 2);
        assert_eq!(only(&batches)[1], (size..2 * size).collect::<Vec<_>>());
        assert_eq!(batch(&batches[1]).capacity, size as usize);
    }
}

#[test]
fn streams_share_batches_in_the_order_of_arrival() {
    let (mut first, mut second) = two("batch-size=4");
    push(&mut first, [0]);
    push(&mut second, [10]);
    push(&mut second, [11]);
    push(&mut first, [1]);
    let batches = wait_batches(&first, 1);
    assert_eq!(numbers(&video(), &batches[0]), [(0, 0), (1, 10), (1, 11), (0, 1)]);
    assert_eq!(first.stat::<u32>("streams"), 2);
}

/// Closes the gate `out` and pushes batches of two until a push is refused, from a thread. Returns when the ninth frame
/// is offered: two stand at the gate, four are in batches that wait, two are queued, and there is no more room.
fn push_until_refused(bench: &Bench, out: &Tap) -> thread::JoinHandle<gst::FlowError> {
    // The events before the first frame are out of the way.
    bench.pad().peer_query(&mut gst::query::Drain::new());
    out.hold();
    let pad = bench.pad();
    let offered = Tap::on(&pad);
    let thread = thread::spawn(move || {
        (0..)
            .map(|n| pad.push(video().frame(n)))
            .find_map(Result::err)
            .expect("it ends only so")
    });
    offered.wait_frames(9);
    thread
}

/// Two streams that both have more than a batch takes.
fn contended(policy: &str) -> Bench {
    let (first, second) = two(&format!("batch-size=2 policy={policy}"));
    first.out.hold();
    let threads = [(&first, 10), (&second, 4)].map(|(bench, count)| {
        let pad = bench.pad();
        let offered = Tap::on(&pad);
        let thread = thread::spawn(move || {
            for number in 0..count {
                pad.push(video().frame(number)).expect("the element takes it");
            }
            assert!(pad.push_event(gst::event::Eos::new()));
        });
        offered.wait_frames(3);
        thread
    });
    first.out.release();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    first.out.wait_event(gst::EventType::Eos);
    first
}

#[test]
fn each_policy_keeps_the_order_within_a_stream_and_loses_nothing() {
    for policy in ["arrival", "round-robin", "earliest-deadline"] {
        let first = contended(policy);
        let all: Vec<(u32, u64)> = filled(&first.out.frames())
            .iter()
            .flat_map(|c| numbers(&video(), c))
            .collect();
        let of = |stream| {
            all.iter()
                .filter(|(s, _)| *s == stream)
                .map(|(_, n)| *n)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(0), (0..10).collect::<Vec<_>>(), "{policy}");
        assert_eq!(of(1), (0..4).collect::<Vec<_>>(), "{policy}");
    }
}

#[test]
fn earliest_deadline_takes_the_smallest_running_time() {
    let (mut first, mut second) = two("batch-size=4 policy=earliest-deadline");
    push(&mut first, [5, 6]);
    push(&mut second, [1, 9]);
    let batches = wait_batches(&first, 1);
    assert_eq!(numbers(&video(), &batches[0]), [(1, 1), (0, 5), (0, 6), (1, 9)]);
}

#[test]
fn round_robin_takes_one_of_each_in_turn() {
    let (mut first, mut second) = two("batch-size=4 policy=round-robin");
    push(&mut first, [0, 1]);
    push(&mut second, [0, 1]);
    let batches = wait_batches(&first, 1);
    assert_eq!(numbers(&video(), &batches[0]), [(0, 0), (1, 0), (0, 1), (1, 1)]);
}

/// Row: end of one stream of several.
#[test]
fn stream_that_ends_lets_the_others_go_on() {
    let (mut first, mut second) = two("batch-size=4");
    push(&mut first, [0]);
    push(&mut second, [10]);
    second.harness.push_event(gst::event::Eos::new());
    assert_eq!(numbers(&video(), &wait_batches(&first, 1)[0]), [(0, 0), (1, 10)]);
    push(&mut first, 1..5);
    assert_eq!(
        numbers(&video(), &wait_batches(&first, 2)[1]),
        [(0, 1), (0, 2), (0, 3), (0, 4)]
    );
    first.harness.push_event(gst::event::Eos::new());
    first.out.wait_event(gst::EventType::Eos);
}

/// Row: release of request pads.
#[test]
fn pad_released_while_playing_hands_out_what_it_queued_and_says_so() {
    let (mut first, mut second) = two("batch-size=4");
    push(&mut first, [0]);
    push(&mut second, [10, 11]);
    let pad = first.element.static_pad("sink_1").unwrap();
    first.element.release_request_pad(&pad);
    let batches = wait_batches(&first, 1);
    assert_eq!(numbers(&video(), &batches[0]), [(0, 0), (1, 10), (1, 11)]);
    let story = of_batches(&video(), &first.out.seen());
    assert!(story.iter().any(|line| line == "1:comfy-stream-left"), "{story:?}");
    assert_eq!(first.stat::<u32>("streams"), 1);
    push(&mut first, 1..5);
    assert_eq!(only(&wait_batches(&first, 2))[1], [1, 2, 3, 4]);
}

#[test]
fn releasing_a_pad_ends_a_wait_for_room_of_its_upstream() {
    let (mut first, second) = two("batch-size=2");
    let blocked = push_until_refused(&second, &first.out);
    let pad = first.element.static_pad("sink_1").unwrap();
    first.element.release_request_pad(&pad);
    // Let go, or refused because the pad had gone already.
    let refused = blocked.join().unwrap();
    assert!(
        matches!(refused, gst::FlowError::Flushing | gst::FlowError::NotLinked),
        "{refused:?}"
    );
    first.out.release();
    push(&mut first, 0..2);
    first.out.wait("frames of the other stream", |seen| {
        let frames = seen.iter().filter_map(|s| s.frame());
        frames.flat_map(|c| numbers(&video(), c)).any(|line| line == (0, 1))
    });
}

#[test]
fn pads_have_the_names_asked_for_or_the_first_free_ones() {
    let bench = bench("batch-size=2");
    let seven = bench.element.request_pad_simple("sink_7").unwrap();
    assert_eq!(seven.name(), "sink_7");
    assert_eq!(bench.element.request_pad_simple("sink_%u").unwrap().name(), "sink_1");
    bench.wait_element("comfybatch", |s| s.get::<u32>("streams") == Ok(3));
}

#[test]
fn last_pad_may_come_after_the_element_plays() {
    let mut first = bench("batch-size=2");
    push(&mut first, 0..2);
    wait_batches(&first, 1);
    let mut second = another(&first);
    push(&mut second, 0..2);
    assert_eq!(numbers(&video(), &wait_batches(&first, 2)[1]), [(1, 0), (1, 1)]);
}

/// Rows: FLUSH_START, FLUSH_STOP.
#[test]
fn flush_of_the_only_stream_drops_what_is_queued() {
    let mut bench = bench("batch-size=4");
    push(&mut bench, 0..3);
    bench.flush();
    bench.out.wait_event(gst::EventType::FlushStop);
    push(&mut bench, 100..104);
    assert_eq!(only(&wait_batches(&bench, 1)), [[100, 101, 102, 103]]);
}

#[test]
fn flush_ends_a_wait_for_room() {
    let mut bench = bench("batch-size=2");
    let blocked = push_until_refused(&bench, &bench.out);
    bench.harness.push_event(gst::event::FlushStart::new());
    assert_eq!(blocked.join().unwrap(), gst::FlowError::Flushing);
    bench.harness.push_event(gst::event::FlushStop::new(true));
    bench.out.release();
    bench.harness.push_event(segment());
    bench.out.clear();
    push(&mut bench, 100..102);
    assert_eq!(only(&wait_batches(&bench, 1)), [[100, 101]]);
}

#[test]
fn flush_of_one_stream_leaves_the_others_alone() {
    let (mut first, mut second) = two("batch-size=4");
    push(&mut first, [0]);
    push(&mut second, [10, 11]);
    second.flush();
    push(&mut second, 100..103);
    let all: Vec<(u32, u64)> = {
        push(&mut first, 1..5);
        first.pad().peer_query(&mut gst::query::Drain::new());
        filled(&first.out.frames())
            .iter()
            .flat_map(|c| numbers(&video(), c))
            .collect()
    };
    let of = |stream| {
        all.iter()
            .filter(|(s, _)| *s == stream)
            .map(|(_, n)| *n)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(0), [0, 1, 2, 3, 4]);
    assert_eq!(of(1), [100, 101, 102]);
    let story = of_batches(&video(), &first.out.seen());
    assert!(story.iter().any(|line| line == "comfy-stream-flushing"), "{story:?}");
    assert!(story.iter().any(|line| line == "1:comfy-stream-flushed"), "{story:?}");
    assert!(!story.iter().any(|line| line == "flush-start"), "{story:?}");
}

/// Rows: ALLOCATION query, pool depth, video meta.
#[test]
fn allocation_query_is_put_with_batch_caps_and_answered_with_frame_caps() {
    let mut bench = bench("batch-size=4");
    push(&mut bench, 0..4);
    wait_batches(&bench, 1);
    let asked = std::sync::Arc::new(std::sync::Mutex::new(None));
    let keep = asked.clone();
    bench
        .harness
        .sinkpad()
        .unwrap()
        .add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, move |_, info| {
            if let Some(gst::PadProbeData::Query(query)) = &mut info.data
                && let gst::QueryViewMut::Allocation(query) = query.view_mut()
            {
                *keep.lock().unwrap() = query.get_owned().0;
                query.add_allocation_meta::<gst_video::VideoMeta>(None);
                query.add_allocation_pool(None::<&gst::BufferPool>, 1024, 9, 0);
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        })
        .unwrap();
    let mut query = gst::query::Allocation::new(Some(&video().caps()), true);
    assert!(bench.pad().peer_query(&mut query));
    let caps = asked.lock().unwrap().clone().unwrap();
    assert_eq!(caps.structure(0).unwrap().name(), "video/x-comfy-batch");
    assert!(query.find_allocation_meta::<gst_video::VideoMeta>().is_some());
    let (_, size, min, _) = query.allocation_pools().next().unwrap();
    assert_eq!(
        (size, min),
        (1024, 13),
        "downstream's 9 frames and the 4 being formed here"
    );
}

/// Rows: LATENCY query, several inputs.
#[test]
fn latency_is_a_batch_but_one_frame_and_holds_a_whole_one() {
    let bench = live("batch-size=4");
    bench.element.set_property("timeout", 1_000_000_000u64);
    assert_eq!(bench.latency(), (true, FRAME * 4, Some(FRAME * 6)));
    bench.element.set_property("timeout", 50_000_000u64);
    assert_eq!(bench.latency().1, FRAME + gst::ClockTime::from_mseconds(50));
    assert!(bench.messages().iter().any(|m| m.type_() == gst::MessageType::Latency));
}

#[test]
fn latency_of_several_live_inputs_is_the_largest_min_and_the_smallest_max() {
    let first = Bench::new("comfybatch batch-size=2 timeout=1000000000", "sink_%u", "src");
    let second = Bench::with(&first.element, Some("sink_%u"), None);
    let third = Bench::with(&first.element, Some("sink_%u"), None);
    first.upstream_latency(true, FRAME, Some(FRAME * 10));
    second.upstream_latency(true, FRAME * 3, Some(FRAME * 5));
    // Not live: its answer is about nothing.
    third.upstream_latency(false, FRAME * 50, Some(FRAME));
    let mut benches = [first, second, third];
    for bench in &mut benches {
        bench.harness.set_src_caps(video().caps());
    }
    // Three streams fill a batch of two in a frame's time.
    assert_eq!(benches[0].latency(), (true, FRAME * 4, Some(FRAME * 7)));
}

#[test]
fn latency_of_an_upstream_that_is_not_live_is_not_live() {
    let bench = bench("batch-size=4");
    bench.upstream_latency(false, gst::ClockTime::ZERO, None);
    assert!(!bench.latency().0);
}

/// A flight buffer that collects whole batches: the same wait is not counted twice, nor is its word passed on.
#[test]
fn burst_of_a_flight_buffer_is_not_waited_for_again() {
    let mut bench = Bench::new(
        "comfyflightbuffer batch-size=4 threshold=1 max-batches=4 ! comfybatch batch-size=4 timeout=1000000000",
        "sink",
        "src",
    );
    bench.upstream_latency(true, FRAME, Some(FRAME * 2));
    bench.harness.set_src_caps(video().caps());
    push(&mut bench, 0..4);
    wait_batches(&bench, 1);
    // 1 upstream, 3 in the flight buffer, none here.
    assert_eq!(bench.latency().1, FRAME * 4);
    let story = of_batches(&video(), &bench.out.seen());
    assert!(!story.iter().any(|line| line.contains("sticky")), "{story:?}");
}

/// Row: latency change.
#[test]
fn timeout_that_was_needed_is_told_once() {
    let mut bench = live("batch-size=4");
    assert_eq!(bench.latency().1, FRAME * 4);
    push(&mut bench, [0]);
    bench.messages();
    bench.crank();
    wait_batches(&bench, 1);
    comfy_tests::pipeline::wait_message(&bench.bus, "LATENCY", |m| m.type_() == gst::MessageType::Latency);
    assert_eq!(bench.latency().1, FRAME + FRAME * 7 / 2);
    push(&mut bench, [1]);
    bench.crank();
    wait_batches(&bench, 2);
    bench.pad().peer_query(&mut gst::query::Drain::new());
    assert!(!bench.messages().iter().any(|m| m.type_() == gst::MessageType::Latency));
}

/// Row: latency change. What a jittering upstream makes frames wait is answered, in steps of a 64th of a frame.
#[test]
fn batch_that_fills_late_raises_the_answer() {
    let mut bench = live("batch-size=4");
    assert_eq!(bench.latency().1, FRAME * 4);
    bench.messages();
    let begin = bench.clock().time();
    push(&mut bench, 0..3);
    bench.clock().set_time(begin + FRAME * 3);
    push(&mut bench, [3]);
    wait_batches(&bench, 1);
    bench.pad().peer_query(&mut gst::query::Drain::new());
    assert!(!bench.messages().iter().any(|m| m.type_() == gst::MessageType::Latency));
    let late = gst::ClockTime::from_mseconds(5);
    push(&mut bench, 4..7);
    bench.clock().set_time(begin + FRAME * 6 + late);
    push(&mut bench, [7]);
    comfy_tests::pipeline::wait_message(&bench.bus, "LATENCY", |m| m.type_() == gst::MessageType::Latency);
    let answer = bench.latency().1;
    assert!(
        answer >= FRAME * 4 + late && answer <= FRAME * 4 + late + FRAME / 32,
        "{answer}"
    );
}

#[test]
fn rate_that_caps_do_not_say_is_learnt_from_sixteen_arrivals() {
    let mut bench = Bench::new("comfybatch batch-size=4", "sink_%u", "src");
    let mut caps = video().caps();
    caps.make_mut().set("framerate", gst::Fraction::new(0, 1));
    bench.harness.set_src_caps(caps);
    push(&mut bench, 0..15);
    bench.messages();
    push(&mut bench, [15]);
    assert!(bench.messages().iter().any(|m| m.type_() == gst::MessageType::Latency));
    assert_eq!(bench.latency().1, FRAME * 3);
}

#[test]
fn caps_query_answers_frames_and_prefers_what_other_streams_send() {
    let first = bench("batch-size=4");
    let second = Bench::with(&first.element, Some("sink_%u"), None);
    let allowed = second.pad().peer_query_caps(None);
    assert!(allowed.iter().all(|s| s.name() == "video/x-raw"), "{allowed}");
    let chosen = allowed.structure(0).unwrap();
    assert_eq!(chosen.get::<&str>("format"), Ok("GRAY8"));
    assert_eq!(chosen.get::<i32>("width"), Ok(64));
    assert!(allowed.size() > 1, "anything else is taken too");
}

#[test]
fn batch_size_of_zero_is_what_the_model_downstream_prefers() {
    let mut bench = Bench::new(
        "comfyflightbuffer threshold=0 ! comfybatch ! comfyinfer model=builtin:null",
        "sink",
        "src",
    );
    bench.harness.set_src_caps(video().caps());
    push(&mut bench, [0]);
    assert_eq!(only(&wait_batches(&bench, 1)), [[0]]);
}

#[test]
fn batch_size_of_zero_without_a_model_downstream_is_one() {
    let mut bench = bench("");
    push(&mut bench, 0..2);
    assert_eq!(only(&wait_batches(&bench, 2)), [[0], [1]]);
    assert_eq!(bench.stat::<u32>("batch-size"), 1);
}

/// Row: upstream events.
#[test]
fn upstream_events_reach_the_stream_they_are_meant_for() {
    let text = "comfyflightbuffer threshold=0 ! comfybatch batch-size=2 ! comfyunbatch";
    let mut first = Bench::new(text, "sink", "src");
    first.harness.set_src_caps(video().caps());
    let event = gst_video::UpstreamForceKeyUnitEvent::builder().build();
    first.harness.push_upstream_event(event);
    let found = std::iter::from_fn(|| first.harness.pull_upstream_event().ok())
        .find(|e| e.type_() == gst::EventType::CustomUpstream);
    assert!(gst_video::UpstreamForceKeyUnitEvent::parse(&found.unwrap()).is_ok());
}

/// Rows: PAUSED to READY; frames are let go.
#[test]
fn stopping_lets_go_of_every_frame_and_the_next_start_is_new() {
    let mut bench = bench("batch-size=4");
    let frame = video().frame(0);
    bench.push(frame.clone());
    bench.element.set_state(gst::State::Null).unwrap();
    assert!(frame.is_writable(), "the element still holds the frame");
    bench.element.set_state(gst::State::Playing).unwrap();
    for event in [
        gst::event::StreamStart::new("again"),
        gst::event::Caps::new(&video().caps()),
        segment(),
    ] {
        assert!(bench.harness.push_event(event));
    }
    push(&mut bench, 5..9);
    assert_eq!(only(&wait_batches(&bench, 1)), [[5, 6, 7, 8]]);
}

#[test]
fn stopping_ends_a_wait_for_room() {
    let bench = bench("batch-size=2");
    let blocked = push_until_refused(&bench, &bench.out);
    let element = bench.element.clone();
    let stop = thread::spawn(move || element.set_state(gst::State::Null));
    assert_eq!(blocked.join().unwrap(), gst::FlowError::Flushing);
    bench.out.release();
    stop.join().unwrap().unwrap();
}

/// Row: errors.
#[test]
fn segment_that_is_not_in_time_is_one_error_that_says_what_to_do() {
    let mut bench = bench("batch-size=2");
    let bytes = gst::event::Segment::new(&gst::FormattedSegment::<gst::format::Bytes>::new());
    bench.harness.push_event(bytes);
    let error = bench.wait_error();
    assert!(error.matches(gst::StreamError::Format));
    assert!(
        error.message().contains("put a parser or videorate before it"),
        "{error}"
    );
}

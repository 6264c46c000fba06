//! comfyunbatch behind comfybatch, between the test's own pads.

use std::thread;

use comfy_tests::bench::{answer_latency, segment, stat, word};
use comfy_tests::pipeline::{parse, run};
use comfy_tests::story::{of_frames, painted};
use comfy_tests::{Bench, Tap, Video};
use gst::prelude::*;

const FRAME: gst::ClockTime = Video::FRAME;

fn video() -> Video {
    Video::new("GRAY8", 64, 16)
}

fn push(bench: &mut Bench, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        bench.push(video().frame(number));
    }
}

/// Frames in, batches between, frames out.
fn bench(batch: u32, properties: &str) -> Bench {
    let text = format!("capsfilter ! comfybatch batch-size={batch} ! comfyunbatch name=u {properties}");
    let mut bench = Bench::new(&text, "sink", "src");
    bench.harness.set_live(false);
    bench.harness.set_src_caps(video().caps());
    bench
}

fn unbatch(bench: &Bench) -> gst::Element {
    let bin: &gst::Bin = bench.element.downcast_ref().expect("a chain is a bin");
    bin.by_name("u").expect("the chain has one")
}

/// Several streams: a batcher and an unbatcher in one pipeline, driven through pads of the test.
struct Streams {
    pipeline: gst::Pipeline,
    batcher: gst::Element,
    unbatcher: gst::Element,
}

struct Stream {
    source: gst::Pad,
    sink: gst::Pad,
    out: Tap,
}

impl Streams {
    fn new(batch: u32) -> Self {
        let pipeline = parse(&format!(
            "comfybatch name=b batch-size={batch} timeout=3600000000000 ! comfyunbatch name=u"
        ));
        let [batcher, unbatcher] = ["b", "u"].map(|name| pipeline.by_name(name).unwrap());
        pipeline.set_state(gst::State::Playing).unwrap();
        Self {
            pipeline,
            batcher,
            unbatcher,
        }
    }

    /// Stream number `number`, with stream-start, caps and segment sent. Its source pad appears with the first batch
    /// that knows of it.
    fn open(&self, number: u32) -> gst::Pad {
        let pad = self.batcher.request_pad_simple(&format!("sink_{number}")).unwrap();
        let source = gst::Pad::builder(gst::PadDirection::Src)
            .name(format!("source{number}"))
            .build();
        source.set_active(true).unwrap();
        // Live, so that no stream waits for another's turn.
        answer_latency(&source, true, FRAME, Some(FRAME * 2));
        source.link(&pad).unwrap();
        for event in start(number) {
            assert!(source.push_event(event));
        }
        source
    }

    /// What comes out of `src_<number>`, linked when it is there.
    fn sink(&self, number: u32) -> (gst::Pad, Tap) {
        let sink = gst::Pad::builder(gst::PadDirection::Sink)
            .name(format!("sink{number}"))
            .chain_function(|_, _, _| Ok(gst::FlowSuccess::Ok))
            .event_function(|_, _, _| true)
            .build();
        sink.set_active(true).unwrap();
        let out = Tap::on(&sink);
        self.unbatcher
            .static_pad(&format!("src_{number}"))
            .unwrap()
            .link(&sink)
            .unwrap();
        (sink, out)
    }

    /// Two streams from the start. The second pad is linked as soon as it is added, before anything passes it.
    fn two(batch: u32) -> (Self, [Stream; 2]) {
        let streams = Self::new(batch);
        let (sink0, out0) = streams.sink(0);
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        streams.unbatcher.connect_pad_added(move |_, pad| {
            let sink = gst::Pad::builder(gst::PadDirection::Sink)
                .name("sink1")
                .chain_function(|_, _, _| Ok(gst::FlowSuccess::Ok))
                .event_function(|_, _, _| true)
                .build();
            sink.set_active(true).unwrap();
            let out = Tap::on(&sink);
            pad.link(&sink).unwrap();
            let _ = send.try_send((sink, out));
        });
        let (source0, source1) = (streams.open(0), streams.open(1));
        let (sink1, out1) = receive.recv_timeout(comfy_tests::DEADLINE).expect("src_1 appears");
        let all = [
            Stream {
                source: source0,
                sink: sink0,
                out: out0,
            },
            Stream {
                source: source1,
                sink: sink1,
                out: out1,
            },
        ];
        (streams, all)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A pad that goes while somebody still pushes into it is disposed of in use: a link is no reference.
        let _ = self.sink.peer().map(|peer| peer.unlink(&self.sink));
        let _ = self.source.peer().map(|peer| self.source.unlink(&peer));
    }
}

impl Stream {
    fn push(&self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.source.push(video().frame(number)).expect("the batcher takes it");
        }
    }

    fn numbers(&self) -> Vec<u64> {
        painted(&video(), &self.out.frames())
    }
}

fn start(number: u32) -> [gst::Event; 3] {
    [
        gst::event::StreamStart::new(&format!("stream{number}")),
        gst::event::Caps::new(&video().caps()),
        segment(),
    ]
}

#[test]
fn frames_and_events_come_out_in_the_order_they_went_in() {
    let mut bench = bench(4, "");
    push(&mut bench, 0..2);
    bench.harness.push_event(word("a"));
    bench
        .harness
        .push_event(gst::event::Gap::builder(FRAME * 2).duration(FRAME).build());
    push(&mut bench, 3..6);
    bench.harness.push_event(word("b"));
    bench.harness.push_event(gst::event::Eos::new());
    bench.out.wait_event(gst::EventType::Eos);
    let story = of_frames(&video(), &bench.out.seen());
    assert_eq!(
        story,
        [
            "stream-start",
            "caps",
            "segment",
            "0",
            "1",
            "a",
            "gap",
            "3",
            "4",
            "5",
            "b",
            "eos"
        ]
    );
}

/// Row: frame identity.
#[test]
fn frames_are_the_very_ones_that_went_in() {
    let mut bench = bench(2, "");
    let frames: Vec<gst::Buffer> = (0..4).map(|n| video().frame(n)).collect();
    frames.iter().for_each(|frame| bench.push(frame.clone()));
    for (before, after) in frames.iter().zip(bench.out.wait_frames(4)) {
        assert_eq!(before.as_ptr(), after.as_ptr());
    }
}

/// Row: position and sequence numbers.
#[test]
fn segment_of_the_stream_comes_out_with_its_own_sequence_number() {
    let mut bench = bench(2, "");
    let mut part = gst::FormattedSegment::<gst::ClockTime>::new();
    part.set_start(FRAME * 10);
    let seqnum = gst::Seqnum::next();
    let event = gst::event::Segment::builder(&part).seqnum(seqnum).build();
    bench.harness.push_event(event);
    push(&mut bench, 10..12);
    bench.out.wait_frames(2);
    let last = bench
        .out
        .events()
        .into_iter()
        .rfind(|e| e.type_() == gst::EventType::Segment)
        .unwrap();
    assert_eq!(last.seqnum(), seqnum);
    let gst::EventView::Segment(segment) = last.view() else {
        unreachable!()
    };
    assert_eq!(
        segment.segment().downcast_ref::<gst::ClockTime>().unwrap().start(),
        Some(FRAME * 10)
    );
}

#[test]
fn every_stream_comes_out_on_its_own_pad_in_order() {
    let (_streams, [a, b]) = Streams::two(4);
    for n in 0..6 {
        a.push([n]);
        b.push([100 + n]);
    }
    for stream in [&a, &b] {
        assert!(stream.source.push_event(gst::event::Eos::new()));
        stream.out.wait_event(gst::EventType::Eos);
    }
    assert_eq!(a.numbers(), (0..6).collect::<Vec<_>>());
    assert_eq!(b.numbers(), (100..106).collect::<Vec<_>>());
    for stream in [&a, &b] {
        let story = of_frames(&video(), &stream.out.seen());
        assert_eq!(story[..3], ["stream-start", "caps", "segment"]);
        assert_eq!(story.iter().filter(|line| *line == "eos").count(), 1, "{story:?}");
    }
}

/// Row: EOS of one stream.
#[test]
fn stream_that_ends_lets_the_others_go_on() {
    let (_streams, [a, b]) = Streams::two(2);
    b.push([100]);
    assert!(b.source.push_event(gst::event::Eos::new()));
    b.out.wait_event(gst::EventType::Eos);
    assert_eq!(b.numbers(), [100]);
    a.push(0..4);
    a.out.wait_frames(4);
    assert_eq!(a.numbers(), [0, 1, 2, 3]);
}

/// Row: release of request pads.
#[test]
fn pad_of_a_stream_that_left_ends_and_goes() {
    let (streams, [a, b]) = Streams::two(2);
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    streams.unbatcher.connect_pad_removed(move |_, pad| {
        let _ = send.try_send(pad.name().to_string());
    });
    b.push([100]);
    streams
        .batcher
        .release_request_pad(&streams.batcher.static_pad("sink_1").unwrap());
    b.out.wait_event(gst::EventType::Eos);
    assert_eq!(receive.recv_timeout(comfy_tests::DEADLINE).unwrap(), "src_1");
    assert_eq!(b.numbers(), [100]);
    a.push(0..2);
    a.out.wait_frames(2);
    // It may come again under the same number.
    let again = streams.open(1);
    again.push(video().frame(200)).unwrap();
    a.push([2]);
    a.out.wait_frames(3);
    assert!(streams.unbatcher.static_pad("src_1").is_some());
}

/// The end of a flush travels in order, and the next flush overtakes it.
#[test]
fn late_end_of_a_flush_does_not_end_the_next_one() {
    let (streams, [a, b]) = Streams::two(2);
    a.push([0]);
    b.push([100]);
    b.out.wait_frames(1);
    // The first end, in its batch, waits in front of the unbatcher.
    let (arrived, arrival) = std::sync::mpsc::sync_channel(1);
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let released = std::sync::Mutex::new(Some(released));
    streams
        .unbatcher
        .static_pad("sink")
        .unwrap()
        .add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            if let Some(released) = released.lock().unwrap().take() {
                let _ = arrived.send(());
                let _ = released.recv();
            }
            gst::PadProbeReturn::Ok
        });
    let flushes = |kind| b.out.events().iter().filter(|event| event.type_() == kind).count();
    assert!(b.source.push_event(gst::event::FlushStart::new()));
    assert!(b.source.push_event(gst::event::FlushStop::new(true)));
    assert!(b.source.push_event(segment()));
    b.push([150]);
    a.push([1]);
    arrival.recv_timeout(comfy_tests::DEADLINE).unwrap();
    assert!(b.source.push_event(gst::event::FlushStart::new()));
    assert_eq!(
        flushes(gst::EventType::FlushStart),
        1,
        "downstream is being flushed already"
    );
    release.send(()).unwrap();
    // Behind the end that was late.
    a.push([2, 3]);
    a.out.wait_frames(4);
    assert_eq!(flushes(gst::EventType::FlushStop), 0, "it is still being flushed");
    assert!(b.source.push_event(gst::event::FlushStop::new(true)));
    assert!(b.source.push_event(segment()));
    b.push([200, 201]);
    b.out.wait_frames(3);
    assert_eq!(b.numbers(), [100, 200, 201]);
    assert_eq!(flushes(gst::EventType::FlushStop), 1);
}

/// Rows: FLUSH_START, FLUSH_STOP of one stream.
#[test]
fn flush_of_one_stream_reaches_its_pad_alone() {
    let (_streams, [a, b]) = Streams::two(2);
    a.push([0]);
    b.push([100]);
    b.out.wait_frames(1);
    assert!(b.source.push_event(gst::event::FlushStart::new()));
    assert!(b.source.push_event(gst::event::FlushStop::new(true)));
    assert!(b.source.push_event(segment()));
    b.push([200, 201]);
    b.out.wait_frames(3);
    assert_eq!(b.numbers(), [100, 200, 201]);
    let story = of_frames(&video(), &b.out.seen());
    let after = &story[story.iter().position(|line| line == "flush-start").expect("it is told")..];
    assert_eq!(after, ["flush-start", "flush-stop", "segment", "200", "201"]);
    a.push([1, 2]);
    a.out.wait_frames(2);
    assert!(
        !of_frames(&video(), &a.out.seen())
            .iter()
            .any(|line| line.starts_with("flush"))
    );
}

#[test]
fn flush_of_the_only_stream_drops_what_is_queued() {
    let mut bench = bench(2, "");
    bench.out.hold();
    push(&mut bench, 0..4);
    bench.out.wait_held();
    bench.flush();
    bench.out.release();
    bench.out.wait_event(gst::EventType::FlushStop);
    bench.out.clear();
    push(&mut bench, 100..102);
    assert_eq!(painted(&video(), &bench.out.wait_frames(2)), [100, 101]);
}

/// Row: pacing.
#[test]
fn pacing_by_time_lets_each_frame_go_at_its_own() {
    let mut bench = bench(4, "pacing=pts");
    let base = bench.element.base_time().unwrap_or_default();
    push(&mut bench, 0..4);
    // Frame 0 is due at once, the others one by one.
    bench.out.wait_frames(1);
    for number in 1..4 {
        let id = bench.clock().wait_for_next_pending_id();
        assert_eq!(id.time(), base + FRAME * number);
        assert_eq!(bench.out.frames().len(), number as usize);
        bench.crank();
        bench.out.wait_frames(number as usize + 1);
    }
}

#[test]
fn pacing_adds_the_latency_of_the_pipeline() {
    let mut bench = bench(2, "pacing=pts");
    bench.harness.push_upstream_event(gst::event::Latency::new(FRAME * 5));
    let base = bench.element.base_time().unwrap_or_default();
    push(&mut bench, 0..2);
    let id = bench.clock().wait_for_next_pending_id();
    assert_eq!(id.time(), base + FRAME * 5);
    bench.crank();
    bench.out.wait_frames(1);
}

#[test]
fn pacing_that_is_switched_off_lets_everything_go() {
    let mut bench = bench(4, "pacing=pts");
    push(&mut bench, 0..4);
    bench.out.wait_frames(1);
    bench.clock().wait_for_next_pending_id();
    unbatch(&bench).set_property_from_str("pacing", "none");
    assert_eq!(painted(&video(), &bench.out.wait_frames(4)), [0, 1, 2, 3]);
}

#[test]
fn stopping_ends_the_wait_for_a_frames_time() {
    let mut bench = bench(2, "pacing=pts");
    push(&mut bench, 100..102);
    bench.clock().wait_for_next_pending_id();
    bench.element.set_state(gst::State::Null).unwrap();
    assert!(bench.out.frames().is_empty());
}

#[test]
fn flush_ends_the_wait_for_a_frames_time() {
    let mut bench = bench(2, "pacing=pts");
    push(&mut bench, 100..102);
    bench.clock().wait_for_next_pending_id();
    bench.flush();
    push(&mut bench, [0, 1]);
    assert_eq!(painted(&video(), &bench.out.wait_frames(1)), [0]);
}

/// Row: flow returns.
#[test]
fn stream_that_nobody_wants_does_not_stop_the_others() {
    let streams = Streams::new(2);
    let (_sink, out) = streams.sink(0);
    let (a, b) = (streams.open(0), streams.open(1));
    for n in 0..10 {
        a.push(video().frame(n)).unwrap();
        b.push(video().frame(n)).unwrap();
    }
    for pad in [&a, &b] {
        assert!(pad.push_event(gst::event::Eos::new()));
    }
    out.wait_event(gst::EventType::Eos);
    assert_eq!(painted(&video(), &out.frames()), (0..10).collect::<Vec<_>>());
}

#[test]
fn unlinked_only_stream_is_not_linked_upstream() {
    let pipeline = parse(
        "videotestsrc num-buffers=100 ! video/x-raw,format=RGB,width=64,height=48 ! comfybatch batch-size=2 ! comfyunbatch",
    );
    let errors = run(&pipeline).errors();
    assert!(!errors.is_empty(), "nobody takes the frames and nothing is said");
}

/// Row: DRAIN.
#[test]
fn drain_query_waits_until_every_frame_is_out() {
    let mut bench = bench(4, "");
    push(&mut bench, 0..3);
    bench.pad().peer_query(&mut gst::query::Drain::new());
    assert_eq!(painted(&video(), &bench.out.frames()), [0, 1, 2]);
    assert_eq!(stat::<u32>(&unbatch(&bench), "queued"), 0);
}

/// Rows: EOS then restart; the race of a new start with the end before it.
#[test]
fn stream_start_right_behind_the_end_begins_anew() {
    let mut bench = bench(2, "");
    for round in 0..20u64 {
        push(&mut bench, [round * 10, round * 10 + 1]);
        assert!(bench.harness.push_event(gst::event::Eos::new()));
        for event in start(0) {
            assert!(bench.harness.push_event(event), "round {round}");
        }
    }
    push(&mut bench, [500, 501]);
    let frames = bench.out.wait_frames(42);
    assert_eq!(painted(&video(), &frames[40..]), [500, 501]);
}

/// Rows: LATENCY query; thread model.
#[test]
fn latency_is_none_and_two_batches_of_room() {
    let mut bench = bench(4, "");
    bench.upstream_latency(true, FRAME, Some(FRAME * 2));
    push(&mut bench, 0..4);
    bench.out.wait_frames(4);
    let mut query = gst::query::Latency::new();
    assert!(unbatch(&bench).static_pad("src_0").unwrap().query(&mut query));
    let (_, _, max) = query.result();
    // 2 upstream, 4 in the batcher, 8 here.
    assert_eq!(max, Some(FRAME * (2 + 4 + 8)));
}

#[test]
fn whole_batch_leaves_the_model_while_the_sink_still_waits() {
    let mut bench = bench(4, "");
    bench.out.hold();
    push(&mut bench, 0..4);
    bench.out.wait_held();
    // One frame at the gate; the batch itself has been taken.
    assert_eq!(
        stat::<u64>(&unbatch(&bench), "batches"),
        stat::<u64>(&unbatch(&bench), "batches")
    );
    assert_eq!(stat::<u32>(&unbatch(&bench), "queued"), 3);
    bench.out.release();
    bench.out.wait_frames(4);
}

/// Row: upstream events.
#[test]
fn upstream_event_of_one_stream_reaches_its_source_alone() {
    let (_streams, [a, b]) = Streams::two(2);
    let sources = [&a, &b].map(|stream| {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let keep = seen.clone();
        stream
            .source
            .add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
                if let Some(gst::PadProbeData::Event(event)) = &info.data {
                    keep.lock().unwrap().push(event.type_());
                }
                gst::PadProbeReturn::Ok
            });
        seen
    });
    b.sink
        .push_event(gst_video::UpstreamForceKeyUnitEvent::builder().build());
    b.sink
        .push_event(gst::event::Qos::new(gst::QOSType::Underflow, 1.0, 0, FRAME));
    let got = sources.map(|seen| seen.lock().unwrap().clone());
    assert_eq!(got[1], [gst::EventType::CustomUpstream, gst::EventType::Qos]);
    assert!(got[0].is_empty(), "{:?}", got[0]);
}

/// Row: PAUSED to READY.
#[test]
fn stopping_ends_a_wait_for_room() {
    let mut bench = bench(2, "");
    bench.out.hold();
    push(&mut bench, 0..2);
    bench.out.wait_held();
    let pad = bench.pad();
    let pushing = thread::spawn(move || (2..).map(|n| pad.push(video().frame(n))).find_map(Result::err));
    let element = bench.element.clone();
    let stop = thread::spawn(move || element.set_state(gst::State::Null));
    // A real sink lets go when it stops; here the gate does.
    bench.out.release();
    assert_eq!(pushing.join().unwrap(), Some(gst::FlowError::Flushing));
    stop.join().unwrap().unwrap();
}

/// Row: errors.
#[test]
fn buffer_that_is_no_batch_is_one_error() {
    let caps = "video/x-comfy-batch(meta:ComfyBatchMeta),format=GRAY8,width=64,height=16,framerate=25/1,batch-size=1";
    let mut bench = Bench::new("comfyunbatch", "sink", "src_0");
    bench.harness.set_src_caps_str(caps);
    assert_eq!(bench.harness.push(gst::Buffer::new()), Err(gst::FlowError::Error));
    let error = bench.wait_error();
    assert!(error.matches(gst::StreamError::Format));
    assert!(error.message().contains("comfybatch"), "{error}");
}

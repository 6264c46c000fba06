//! Whole pipelines from end to end: each frame comes out with everything it went in with, and nothing is lost.
#![allow(clippy::disallowed_methods, reason = "tests measure and bound real time")]

use std::time::Duration;

use comfy_tests::pipeline::{self, parse, play_to_end, run};
use comfy_tests::temp::Temp;
use comfy_tests::{PATIENCE, Passport, Passports, Tap, models, undisturbed};
use gst::prelude::*;

const RGB: &str = "video/x-raw,format=RGB,width=72,height=32,framerate=25/1";

/// A chain with frames that carry their number in front, and a sink behind.
struct Flight {
    pipeline: gst::Pipeline,
    source: Passports,
    sink: Passports,
}

impl Flight {
    /// `count` frames with `caps` through `chain`.
    fn new(count: usize, caps: &str, chain: &str) -> Self {
        Self::of(&format!(
            "videotestsrc name=source num-buffers={count} ! {caps} ! {chain} ! fakesink name=sink"
        ))
    }

    /// A pipeline with a videotestsrc called `source` and a sink called `sink`.
    fn of(text: &str) -> Self {
        let pipeline = parse(text);
        Self {
            source: Passports::issue(&pipeline, "source"),
            sink: Passports::at(&pipeline, "sink", "sink"),
            pipeline,
        }
    }

    /// To the end, without an error or a warning.
    fn run(&self) -> &Self {
        let ended = run(&self.pipeline).expect_eos();
        assert!(ended.warnings().is_empty(), "{:?}", ended.warnings());
        self
    }

    fn element(&self, name: &str) -> gst::Element {
        self.pipeline
            .by_name(name)
            .unwrap_or_else(|| panic!("no element {name}"))
    }
}

fn chain(batch: usize, model: &str) -> String {
    format!(
        "comfyflightbuffer batch-size={batch} threshold=1 ! comfybatch batch-size={batch} ! comfyinfer model={model} \
         ! comfyunbatch"
    )
}

#[test]
fn frames_of_any_batch_size_come_back_with_all_they_brought_and_the_last_partial_batch_too() {
    for batch in [1usize, 2, 3, 4, 8, 17, 64] {
        for (model, inverted) in [("builtin:null", false), ("builtin:invert", true)] {
            let count = 2 * batch + batch.div_ceil(2);
            let flight = Flight::new(count, RGB, &chain(batch, model));
            flight.run();
            assert_eq!(flight.sink.numbers(), (0..count as u64).collect::<Vec<_>>());
            flight.sink.assert_restored_from(&flight.source, inverted);
        }
    }
}

#[test]
fn frames_of_a_model_come_back_with_all_they_brought() {
    for (name, batch) in [("invert.onnx", 4), ("invert-u8.onnx", 3), ("invert.onnx", 8)] {
        let flight = Flight::new(2 * batch + 1, RGB, &chain(batch, &models::model(name)));
        flight.run();
        flight.sink.assert_restored_from(&flight.source, true);
    }
}

#[test]
fn fixed_batch_of_two_is_padded_and_no_padding_comes_out() {
    for batch in [1, 2, 3, 5] {
        let flight = Flight::new(7, RGB, &chain(batch, &models::model("fixed-batch2.onnx")));
        flight.run();
        flight.sink.assert_restored_from(&flight.source, false);
    }
}

#[test]
fn frames_of_another_size_keep_everything_but_places_which_are_scaled() {
    let flight = Flight::new(5, RGB, &chain(2, &models::model("upscale2x.onnx")));
    flight.run();
    let (came, went) = (flight.sink.all(), flight.source.all());
    assert_eq!(came.len(), went.len());
    for (came, went) in came.iter().zip(&went) {
        assert_eq!(came.size, (went.size.0 * 2, went.size.1 * 2));
        let doubled: Vec<_> = went
            .regions
            .iter()
            .map(|(x, y, w, h)| (x * 2, y * 2, w * 2, h * 2))
            .collect();
        assert_eq!(came.regions, doubled);
        let mut like = came.without_picture();
        (like.size, like.regions) = (went.size, went.regions.clone());
        assert_eq!(like, went.without_picture());
    }
}

#[test]
fn negative_of_the_negative_is_the_picture_bit_for_bit_in_every_packed_format() {
    for format in ["RGB", "BGR", "RGBA", "BGRx", "RGBx", "BGRA", "GRAY8"] {
        // A width whose rows are padded.
        let caps = format!("video/x-raw,format={format},width=75,height=33,framerate=25/1");
        let twice = format!("{} ! {}", chain(4, "builtin:invert"), chain(3, "builtin:invert"));
        let flight = Flight::new(10, &caps, &twice);
        flight.run();
        assert_eq!(flight.sink.all().len(), 10, "{format}");
        if format.ends_with('x') {
            // The fourth byte is nobody's.
            flight.sink.assert_restored_from(&flight.source, false);
        } else {
            flight.sink.assert_same_as(&flight.source);
        }
    }
}

#[test]
fn every_pixel_format_comes_back_as_it_went() {
    for format in ["RGB", "BGR", "RGBA", "BGRx", "RGBx", "BGRA", "NV12", "I420", "GRAY8"] {
        for (model, inverted) in [
            ("builtin:null", false),
            ("builtin:null?copy=true", false),
            ("builtin:invert", true),
        ] {
            let caps = format!("video/x-raw,format={format},width=74,height=34,framerate=25/1");
            let flight = Flight::new(5, &caps, &chain(2, model));
            flight.run();
            flight.sink.assert_restored_from(&flight.source, inverted);
            if model == "builtin:null" {
                flight.sink.assert_same_as(&flight.source);
            }
        }
    }
}

#[test]
fn another_size_in_the_middle_of_a_stream_closes_the_batch_and_goes_on() {
    let size =
        |width, height, format| format!("video/x-raw,format={format},width={width},height={height},framerate=25/1");
    for model in ["builtin:null", "builtin:invert", &models::model("invert.onnx")] {
        let pipeline = parse(&format!(
            "concat name=both ! {} ! fakesink name=sink \
             videotestsrc name=first num-buffers=6 ! {} ! both. \
             videotestsrc name=second num-buffers=7 ! {} ! both. \
             videotestsrc name=third num-buffers=5 ! {} ! both.",
            chain(4, model),
            size(72, 32, "RGB"),
            size(144, 48, "RGB"),
            size(144, 48, "BGR"),
        ));
        let sources = ["first", "second", "third"].map(|name| Passports::issue(&pipeline, name));
        let sink = Passports::at(&pipeline, "sink", "sink");
        run(&pipeline).expect_eos();
        // concat puts one behind the other on the time line.
        let alike = |p: Passport| Passport {
            running: None,
            ..p.without_picture()
        };
        let went: Vec<_> = sources.iter().flat_map(Passports::all).map(alike).collect();
        let came: Vec<_> = sink.all().into_iter().map(alike).collect();
        assert_eq!(came.len(), 18, "{model}");
        assert_eq!(came, went, "{model}");
    }
}

#[test]
fn streams_of_different_lengths_share_batches_and_each_comes_back_whole() {
    for policy in ["arrival", "round-robin", "earliest-deadline"] {
        for lengths in [&[9, 22][..], &[5, 17, 30], &[30, 1, 12]] {
            let mut text = format!(
                "comfybatch name=batch batch-size=4 policy={policy} ! comfyinfer model=builtin:invert ! comfyunbatch name=out "
            );
            for (n, length) in lengths.iter().enumerate() {
                text += &format!(
                    "videotestsrc name=source{n} num-buffers={length} ! {RGB} ! batch.sink_{n} \
                     out.src_{n} ! queue ! fakesink name=sink{n} "
                );
            }
            let pipeline = parse(&text);
            let ends: Vec<_> = (0..lengths.len())
                .map(|n| {
                    let source = Passports::issue(&pipeline, &format!("source{n}"));
                    (source, Passports::at(&pipeline, &format!("sink{n}"), "sink"))
                })
                .collect();
            run(&pipeline).expect_eos();
            for ((source, sink), length) in ends.iter().zip(lengths) {
                assert_eq!(sink.all().len(), *length, "{policy} {lengths:?}");
                sink.assert_restored_from(source, true);
            }
        }
    }
}

#[test]
fn streams_of_different_sizes_come_back_each_in_its_own() {
    let other = "video/x-raw,format=RGB,width=144,height=48,framerate=25/1";
    let pipeline = parse(&format!(
        "comfybatch name=batch batch-size=4 ! comfyinfer model=builtin:invert ! comfyunbatch name=out \
         videotestsrc name=source0 num-buffers=13 ! {RGB} ! batch.sink_0 out.src_0 ! queue ! fakesink name=sink0 \
         videotestsrc name=source1 num-buffers=11 ! {other} ! batch.sink_1 out.src_1 ! queue ! fakesink name=sink1"
    ));
    let ends = [0, 1].map(|n| {
        let source = Passports::issue(&pipeline, &format!("source{n}"));
        (source, Passports::at(&pipeline, &format!("sink{n}"), "sink"))
    });
    run(&pipeline).expect_eos();
    for (source, sink) in &ends {
        assert!(!sink.all().is_empty());
        sink.assert_restored_from(source, true);
    }
}

#[test]
fn both_branches_of_a_tee_before_the_chain_and_behind_it_are_whole() {
    let pipeline = parse(&format!(
        "videotestsrc name=source num-buffers=21 ! {RGB} ! tee name=before \
         before. ! queue max-size-buffers=0 ! fakesink name=plain \
         before. ! queue ! {} ! tee name=after \
         after. ! queue ! fakesink name=sink after. ! queue ! fakesink name=second",
        chain(4, "builtin:invert")
    ));
    let source = Passports::issue(&pipeline, "source");
    let [plain, sink, second] = ["plain", "sink", "second"].map(|name| Passports::at(&pipeline, name, "sink"));
    run(&pipeline).expect_eos();
    plain.assert_same_as(&source);
    sink.assert_restored_from(&source, true);
    second.assert_restored_from(&source, true);
}

#[test]
fn batches_through_a_tee_are_inferred_in_one_branch_and_untouched_in_the_other() {
    let pipeline = parse(&format!(
        "videotestsrc name=source num-buffers=14 ! {RGB} ! comfybatch batch-size=4 ! tee name=split \
         split. ! queue ! comfyinfer model=builtin:invert ! comfyunbatch ! fakesink name=inferred \
         split. ! queue ! comfyunbatch ! fakesink name=untouched"
    ));
    let source = Passports::issue(&pipeline, "source");
    let [inferred, untouched] = ["inferred", "untouched"].map(|name| Passports::at(&pipeline, name, "sink"));
    run(&pipeline).expect_eos();
    inferred.assert_restored_from(&source, true);
    untouched.assert_same_as(&source);
}

// --- seeks --------------------------------------------------------------------------------------------------

/// Waits for a message of this type.
fn wait(pipeline: &gst::Pipeline, kind: gst::MessageType) -> gst::Message {
    let bus = pipeline.bus().expect("a pipeline has a bus");
    pipeline::wait_message(&bus, &format!("{kind:?}"), |message| message.type_() == kind)
}

fn frame(number: u64) -> gst::ClockTime {
    gst::ClockTime::from_mseconds(40) * number
}

fn seek(pipeline: &gst::Pipeline, flags: gst::SeekFlags, from: u64, to: u64) -> gst::Seqnum {
    let event = gst::event::Seek::new(
        1.0,
        flags | gst::SeekFlags::ACCURATE,
        gst::SeekType::Set,
        frame(from),
        gst::SeekType::Set,
        frame(to),
    );
    let seqnum = event.seqnum();
    assert!(pipeline.send_event(event), "the seek is accepted");
    seqnum
}

#[test]
fn flushing_seek_shows_the_frame_asked_for_and_no_older_one() {
    for model in ["builtin:null", "builtin:invert", "builtin:null?copy=true&base=20ms"] {
        let flight = Flight::of(&format!(
            "videotestsrc name=source ! {RGB} ! {} ! fakesink name=sink sync=true",
            chain(4, model)
        ));
        let tap = Tap::on(&flight.element("sink").static_pad("sink").expect("a sink has one"));
        pipeline::go(&flight.pipeline, gst::State::Paused);
        for (from, to) in [(100, 107), (20, 26), (500, 501)] {
            tap.clear();
            let seqnum = seek(&flight.pipeline, gst::SeekFlags::FLUSH, from, to);
            pipeline::go(&flight.pipeline, gst::State::Playing);
            wait(&flight.pipeline, gst::MessageType::Eos);
            let seen = tap.seen();
            let flushed = seen
                .iter()
                .position(|s| s.event().is_some_and(|e| e.type_() == gst::EventType::FlushStop))
                .expect("a flush came through");
            let times: Vec<_> = seen[flushed..].iter().filter_map(|s| s.frame()?.pts()).collect();
            assert_eq!(times, (from..to).map(frame).collect::<Vec<_>>(), "{model}");
            for event in seen[flushed..].iter().filter_map(|s| s.event()) {
                if matches!(event.type_(), gst::EventType::Segment | gst::EventType::Eos) {
                    assert_eq!(event.seqnum(), seqnum, "{:?}", event.type_());
                }
            }
            pipeline::go(&flight.pipeline, gst::State::Paused);
        }
        pipeline::go(&flight.pipeline, gst::State::Null);
    }
}

#[test]
fn seek_without_flush_loses_nothing_of_the_old_segment_or_the_new() {
    for model in ["builtin:null", "builtin:invert"] {
        let flight = Flight::of(&format!(
            "videotestsrc name=source ! {RGB} ! {} ! fakesink name=sink",
            chain(4, model)
        ));
        let tap = Tap::on(&flight.element("sink").static_pad("sink").expect("a sink has one"));
        pipeline::go(&flight.pipeline, gst::State::Paused);
        seek(&flight.pipeline, gst::SeekFlags::FLUSH | gst::SeekFlags::SEGMENT, 0, 3);
        pipeline::go(&flight.pipeline, gst::State::Playing);
        // Three frames are fewer than the buffer collects, seven are not whole batches: they leave because the segment
        // is done, and the application may take its time until it seeks again.
        for start in [50, 30, 70] {
            let seqnum = wait(&flight.pipeline, gst::MessageType::SegmentDone).seqnum();
            tap.wait("the end of the segment", |seen| {
                let mut events = seen.iter().filter_map(|s| s.event());
                events.any(|e| e.type_() == gst::EventType::SegmentDone && e.seqnum() == seqnum)
            });
            seek(&flight.pipeline, gst::SeekFlags::SEGMENT, start, start + 7);
        }
        wait(&flight.pipeline, gst::MessageType::SegmentDone);
        seek(&flight.pipeline, gst::SeekFlags::empty(), 5, 8);
        wait(&flight.pipeline, gst::MessageType::Eos);
        let wanted: Vec<u64> = (0..3).chain(50..57).chain(30..37).chain(70..77).chain(5..8).collect();
        let mut numbers = flight.sink.numbers();
        // What was on its way before the first, flushing seek.
        numbers.drain(..numbers.len() - wanted.len());
        assert_eq!(numbers, wanted, "{model}");
        pipeline::go(&flight.pipeline, gst::State::Null);
    }
}

// --- pads that come and go ----------------------------------------------------------------------------------

#[test]
fn pads_come_and_go_while_playing_and_the_first_stream_does_not_notice() {
    let pipeline = parse(&format!(
        "videotestsrc name=source ! {RGB} ! comfybatch name=batch batch-size=4 ! comfyinfer model=builtin:invert \
         ! comfyunbatch name=out ! fakesink name=sink"
    ));
    let source = Passports::issue(&pipeline, "source");
    let sink = Passports::at(&pipeline, "sink", "sink");
    let gate = Tap::on(&pipeline.by_name("sink").unwrap().static_pad("sink").unwrap());
    let (batch, out) = (pipeline.by_name("batch").unwrap(), pipeline.by_name("out").unwrap());
    let guests: std::sync::Arc<std::sync::Mutex<Vec<Tap>>> = Default::default();
    let (arrived, bin) = (guests.clone(), pipeline.downgrade());
    out.connect_pad_added(move |_, pad| {
        let bin = bin.upgrade().expect("it plays");
        let sink = gst::ElementFactory::make("fakesink")
            .property("async", false)
            .build()
            .unwrap();
        bin.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        let target = sink.static_pad("sink").unwrap();
        arrived.lock().unwrap().push(Tap::on(&target));
        pad.link(&target).unwrap();
    });
    let (gone, left) = std::sync::mpsc::sync_channel(8);
    out.connect_pad_removed(move |_, pad| {
        let _ = gone.try_send(pad.name().to_string());
    });
    pipeline::go(&pipeline, gst::State::Playing);

    for (round, length) in [3usize, 8, 1, 6].into_iter().enumerate() {
        let text = format!("videotestsrc name=guest num-buffers={length} ! capsfilter caps={RGB}");
        let guest = gst::parse::bin_from_description(&text, true).unwrap();
        let pad = batch.request_pad_simple("sink_%u").unwrap();
        pipeline.add(&guest).unwrap();
        guest.static_pad("src").unwrap().link(&pad).unwrap();
        let (ended, end) = std::sync::mpsc::sync_channel(8);
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if info.event().is_some_and(|event| event.type_() == gst::EventType::Eos) {
                let _ = ended.try_send(());
            }
            gst::PadProbeReturn::Ok
        });
        guest.sync_state_with_parent().unwrap();
        end.recv_timeout(comfy_tests::DEADLINE).expect("the guest ends");
        batch.release_request_pad(&pad);
        let name = left.recv_timeout(comfy_tests::DEADLINE).expect("its pad goes");
        assert_eq!(name, format!("src_{}", pad.name().trim_start_matches("sink_")));
        guest.set_state(gst::State::Null).unwrap();
        pipeline.remove(&guest).unwrap();
        let guests = guests.lock().unwrap();
        assert_eq!(guests.len(), round + 1);
        let frames = guests[round].frames();
        let times: Vec<_> = frames.iter().map(|frame| frame.pts().unwrap()).collect();
        assert_eq!(
            times,
            (0..length as u64).map(frame).collect::<Vec<_>>(),
            "guest {round}"
        );
        assert!(guests[round].events().iter().any(|e| e.type_() == gst::EventType::Eos));
    }
    gate.wait_frames(20);
    let element = pipeline.by_name("source").unwrap();
    assert!(element.send_event(gst::event::Eos::new()));
    wait(&pipeline, gst::MessageType::Eos);
    sink.assert_restored_from(&source, true);
    pipeline::go(&pipeline, gst::State::Null);
}

// --- live ---------------------------------------------------------------------------------------------------

fn latency(element: &gst::Element) -> (bool, gst::ClockTime, Option<gst::ClockTime>) {
    let mut query = gst::query::Latency::new();
    assert!(element.query(&mut query), "LATENCY is answered");
    query.result()
}

#[test]
fn live_source_to_a_synchronising_sink_drops_nothing_and_waits_no_longer_than_it_says() {
    for (batch, threshold) in [(1, 1), (4, 1), (2, 2)] {
        undisturbed(|| live(batch, threshold));
    }
}

/// An error says what was late.
fn live(batch: u64, threshold: u64) -> Result<(), String> {
    // What is later than this is dropped. A video sink's default is 5 ms; the rest is for busy machines.
    let flight = Flight::of(&format!(
        "videotestsrc name=source is-live=true num-buffers=30 ! video/x-raw,format=RGB,width=72,height=32,framerate=50/1 \
             ! comfyflightbuffer batch-size={batch} threshold={threshold} ! comfybatch batch-size={batch} \
             ! comfyinfer model=builtin:invert?base=2ms ! comfyunbatch name=out \
             ! fakesink name=sink sync=true qos=true max-lateness=100000000"
    ));
    let sink = flight.element("sink");
    // How late each frame is at the sink, on the pipeline's clock.
    let (pipeline, waits) = (
        flight.pipeline.downgrade(),
        std::sync::Arc::new(std::sync::Mutex::new(Vec::new())),
    );
    let measured = waits.clone();
    sink.static_pad("sink")
        .unwrap()
        .add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let now = pipeline.upgrade().and_then(|pipeline| pipeline.current_running_time());
            let pts = info.buffer().and_then(|buffer| buffer.pts());
            measured
                .lock()
                .unwrap()
                .extend(now.zip(pts).map(|(now, pts)| now.saturating_sub(pts)));
            gst::PadProbeReturn::Ok
        });
    let ended = play_to_end(&flight.pipeline).expect_eos();
    let qos = ended
        .messages
        .iter()
        .filter(|m| m.type_() == gst::MessageType::Qos)
        .count();
    let (live, min, max) = latency(&sink);
    let stats: gst::Structure = sink.property("stats");
    pipeline::go(&flight.pipeline, gst::State::Null);
    if stats.get::<u64>("dropped").unwrap() > 0 || qos > 0 {
        return Err(format!("{qos} QoS messages, {stats}"));
    }
    assert_eq!(stats.get::<u64>("rendered").unwrap(), 30, "{stats}");
    flight.sink.assert_restored_from(&flight.source, true);

    assert!(live);
    let longest = waits.lock().unwrap().iter().max().copied().unwrap();
    // The source's own frame, what is collected, or the batch where that is longer, the run, the sink's own 20 ms.
    let time = gst::ClockTime::from_mseconds(20);
    // A run takes 2 ms where nobody else wants the processor, and threads are woken late where somebody does.
    let margin = gst::ClockTime::from_mseconds(100);
    if longest > min + margin {
        return Err(format!("a frame waited {longest}, and {min} was promised"));
    }
    let least = time + time * (batch * threshold - 1).max(batch - 1) + time;
    assert!(
        min >= least && min < least + margin,
        "batch {batch}, threshold {threshold}: {min} promised, {least} and a run needed"
    );
    assert!(max.is_none_or(|max| max >= min));
    Ok(())
}

#[test]
fn file_like_source_is_not_live_and_waits_for_whole_batches() {
    let flight = Flight::new(10, RGB, &chain(4, "builtin:invert"));
    play_to_end(&flight.pipeline).expect_eos();
    assert!(!latency(&flight.element("sink")).0);
    let pads = flight.pipeline.iterate_elements();
    let batcher = pads
        .into_iter()
        .flatten()
        .find(|e| e.find_property("policy").is_some())
        .unwrap();
    let stats: gst::Structure = batcher.property("stats");
    assert_eq!(stats.get::<u64>("full").unwrap(), 2, "{stats}");
    assert_eq!(stats.get::<u64>("eos").unwrap(), 1, "{stats}");
    assert_eq!(stats.get::<u64>("timeout").unwrap(), 0, "{stats}");
    pipeline::go(&flight.pipeline, gst::State::Null);
}

// --- files --------------------------------------------------------------------------------------------------

/// Two seconds of picture with numbers painted on, and sound.
fn clip(folder: &Temp, frames: u64) -> String {
    let path = folder.path().join("in.mp4").display().to_string();
    let pipeline = parse(&format!(
        "videotestsrc name=source num-buffers={frames} ! video/x-raw,format=I420,width=288,height=128,framerate=25/1 \
         ! x264enc speed-preset=ultrafast bframes=2 b-adapt=false qp-max=25 ! mux. \
         audiotestsrc num-buffers={} samplesperbuffer=960 ! audio/x-raw,rate=24000,channels=1 ! avenc_aac ! mux. \
         mp4mux name=mux ! filesink location={path}",
        frames
    ));
    Passports::issue(&pipeline, "source");
    run(&pipeline).expect_eos();
    path
}

/// Number and running time of each frame, and running time of each piece of sound, as a player gets them.
type Played = (Vec<(u64, Option<gst::ClockTime>)>, Vec<Option<gst::ClockTime>>);

fn play(path: &str) -> Played {
    let pipeline = parse(&format!(
        "filesrc location={path} ! qtdemux name=d d.video_0 ! queue ! avdec_h264 ! videoconvert ! video/x-raw,format=RGB \
         ! fakesink name=picture d.audio_0 ! queue ! fakesink name=sound"
    ));
    let picture = Passports::at(&pipeline, "picture", "sink");
    let sound = Tap::on(&pipeline.by_name("sound").unwrap().static_pad("sink").unwrap());
    run(&pipeline).expect_eos();
    let segment = sound.wait_event(gst::EventType::Segment);
    let gst::EventView::Segment(segment) = segment.view() else {
        unreachable!("asked for")
    };
    let segment = segment.segment().downcast_ref::<gst::ClockTime>().expect("time");
    let running = |buffer: &gst::Buffer| segment.to_running_time(buffer.pts()?);
    let frames = picture.all().iter().map(|p| (p.number, p.running)).collect();
    (frames, sound.frames().iter().map(running).collect())
}

#[test]
fn file_in_file_out_has_the_same_frames_at_the_same_times_beside_the_same_sound() {
    let folder = Temp::new();
    let input = clip(&folder, 50);
    let output = folder.path().join("out.mp4").display().to_string();
    let pipeline = parse(&format!(
        "filesrc location={input} ! qtdemux name=d \
         d.video_0 ! queue ! decodebin ! videoconvert ! comfyflightbuffer batch-size=4 threshold=2 ! comfybatch batch-size=4 \
         ! comfyinfer model={} ! comfyunbatch ! videoconvert ! x264enc speed-preset=ultrafast qp-max=25 ! queue ! mux. \
         d.audio_0 ! queue max-size-time=0 ! aacparse ! mux. \
         mp4mux name=mux ! filesink location={output}",
        models::model("invert.onnx")
    ));
    let ended = run(&pipeline).expect_eos();
    assert!(ended.warnings().is_empty(), "{:?}", ended.warnings());
    let (before, after) = (play(&input), play(&output));
    assert_eq!(
        before.0.iter().map(|f| f.0).collect::<Vec<_>>(),
        (0..50).collect::<Vec<_>>()
    );
    assert_eq!(before.0, after.0, "number and time of each frame");
    assert_eq!(before.1, after.1, "the sound's times");
    assert!(!after.1.is_empty());
}

#[test]
fn position_and_duration_are_those_of_the_file() {
    let folder = Temp::new();
    let input = clip(&folder, 25);
    let pipeline = parse(&format!(
        "filesrc location={input} ! decodebin ! videoconvert ! {} ! fakesink name=sink",
        chain(4, "builtin:invert")
    ));
    pipeline::go(&pipeline, gst::State::Paused);
    // The sound ends a little later than the picture.
    let duration = pipeline
        .query_duration::<gst::ClockTime>()
        .expect("a file has a duration");
    assert!(duration >= frame(25) && duration < frame(27), "{duration}");
    assert!(
        pipeline
            .query_position::<gst::ClockTime>()
            .is_some_and(|position| position <= frame(1))
    );
    // To a frame in the middle, and paused again: shown is that frame, although its batch is not full.
    pipeline
        .seek_simple(gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE, frame(24))
        .expect("the seek is accepted");
    let (result, _, _) = pipeline.state(PATIENCE);
    result.expect("one frame is enough for PAUSED, at the end of the file too");
    assert_eq!(pipeline.query_position::<gst::ClockTime>(), Some(frame(24)));
    pipeline::go(&pipeline, gst::State::Null);
}

#[test]
fn slow_model_is_waited_for_and_nothing_is_dropped() {
    let start = std::time::Instant::now();
    let flight = Flight::new(12, RGB, &chain(4, "builtin:invert?base=50ms"));
    flight.run();
    flight.sink.assert_restored_from(&flight.source, true);
    assert!(start.elapsed() >= Duration::from_millis(150), "three runs of 50 ms");
}

/// An application reads the totals when it is done, which is after it has stopped.
#[test]
fn statistics_stay_until_the_next_start() {
    let pipeline = parse(
        "videotestsrc num-buffers=8 ! video/x-raw,format=RGB,width=64,height=48,framerate=30/1 \
         ! comfyflightbuffer name=flight ! comfybatch name=batch batch-size=4 ! comfyinfer name=infer model=builtin:invert \
         ! comfyunbatch name=unbatch ! fakesink",
    );
    let counters = [
        ("flight", "frames-out"),
        ("batch", "frames-out"),
        ("infer", "frames"),
        ("unbatch", "frames-out"),
    ];
    let all = |what: &str, wanted: u64| {
        for (name, field) in counters {
            let stats: gst::Structure = pipeline.by_name(name).unwrap().property("stats");
            assert_eq!(stats.get::<u64>(field).unwrap(), wanted, "{what}: {name}: {stats}");
        }
        let stats: gst::Structure = pipeline.by_name("infer").unwrap().property("stats");
        assert_eq!(stats.get::<String>("model").unwrap(), "builtin:invert", "{what}");
    };
    for what in ["first run", "second run"] {
        pipeline::play_to_end(&pipeline).expect_eos();
        all(what, 8);
        pipeline.set_state(gst::State::Null).unwrap();
        all(what, 8);
    }
}

/// Streams of different rates and sizes take turns, and their caps come with every batch.
#[test]
fn latency_is_told_a_few_times_and_not_with_each_batch() {
    let pipeline = parse(
        "comfybatch name=batch batch-size=2 ! comfyinfer model=builtin:invert ! comfyunbatch name=unbatch \
         videotestsrc num-buffers=120 ! video/x-raw,format=RGB,width=64,height=48,framerate=30/1 ! batch.sink_0 \
         videotestsrc num-buffers=40 ! video/x-raw,format=RGB,width=32,height=32,framerate=10/1 ! batch.sink_1 \
         unbatch.src_0 ! fakesink  unbatch.src_1 ! fakesink",
    );
    let ended = run(&pipeline).expect_eos();
    let told = ended.messages.iter().filter(|m| m.type_() == gst::MessageType::Latency);
    let count = |name: &str| {
        let ours = told
            .clone()
            .filter(|m| m.src().is_some_and(|src| src.name().starts_with(name)));
        ours.count()
    };
    assert!(count("comfyinfer") <= 8, "{} from comfyinfer", count("comfyinfer"));
    assert!(count("unbatch") <= 4, "{} from comfyunbatch", count("unbatch"));
    assert!(count("batch") <= 8, "{} from comfybatch", count("batch"));
}

#[test]
fn stream_that_is_wanted_follows_one_that_was_not_on_the_same_pads() {
    let source = "videotestsrc num-buffers=4 ! video/x-raw,format=RGB,width=64,height=48";
    let pipeline = parse(&format!(
        "comfybatch name=batch batch-size=1 ! comfyunbatch name=frames {source} ! batch.sink_0 \
         videotestsrc is-live=true ! video/x-raw,format=RGB,width=64,height=48,framerate=100/1 ! batch.sink_1 \
         frames.src_1 ! fakesink async=false"
    ));
    let (batch, frames) = (pipeline.by_name("batch").unwrap(), pipeline.by_name("frames").unwrap());
    let out = frames.static_pad("src_0").unwrap();
    let (unwanted, told) = std::sync::mpsc::sync_channel(1);
    // The end of the first stream comes behind the frames that nobody takes.
    batch
        .static_pad("sink_0")
        .unwrap()
        .add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if info.event().is_some_and(|event| event.type_() == gst::EventType::Eos) {
                let _ = unwanted.try_send(());
            }
            gst::PadProbeReturn::Ok
        });
    pipeline.set_state(gst::State::Playing).unwrap();
    told.recv_timeout(comfy_tests::DEADLINE).unwrap();
    let later = gst::parse::bin_from_description(&format!("{source} ! identity"), true).unwrap();
    let sink = gst::ElementFactory::make("fakesink")
        .property("async", false)
        .build()
        .unwrap();
    pipeline.add_many([later.upcast_ref(), &sink]).unwrap();
    let tap = Tap::on(&sink.static_pad("sink").unwrap());
    sink.sync_state_with_parent().unwrap();
    out.link(&sink.static_pad("sink").unwrap()).unwrap();
    let slot = batch.static_pad("sink_0").unwrap();
    let before = slot.peer().unwrap();
    before.unlink(&slot).unwrap();
    later.static_pad("src").unwrap().link(&slot).unwrap();
    later.sync_state_with_parent().unwrap();
    tap.wait_frames(4);
    pipeline.set_state(gst::State::Null).unwrap();
}

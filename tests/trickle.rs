//! tricklesink and tricklesrc against a real server, over sockets.

use comfy_core::trickle::server::Config;
use comfy_tests::pipeline::{self, Ended, parse, play_to_end, run};
use comfy_tests::ts::{self, Reader, paint, segment, source};
use comfy_tests::{Passports, Relay, bench};
use gst::prelude::*;

const TS: &str = "video/MP2T";

/// The reason; a base class adds that there was one.
fn first_error(ended: &Ended) -> glib::Error {
    ended.errors().first().expect("it fails").0.clone()
}

fn sink_stat(pipeline: &gst::Pipeline, name: &str) -> u64 {
    bench::stat(&pipeline.by_name("out").unwrap(), name)
}

#[test]
fn p_12_every_painted_frame_crosses_a_relay_and_segments_begin_with_tables_and_a_key_picture() {
    comfy_tests::init();
    let relay = Relay::new();
    let url = relay.url("cam");
    // As a live source would: all at once, a reader might fall out of the window.
    let publisher = ts::publisher(&url, "sync=true");
    relay.server.create("cam", TS).expect("there is room");
    let reader = Reader::new(&url, "start-seq=0");
    paint(&publisher, 0..100);
    let ended = play_to_end(&publisher).expect_eos();
    assert!(ended.warnings().is_empty(), "{:?}", ended.warnings());
    // 25 frames per second, a second per segment, though the encoder makes no key picture by itself.
    assert_eq!(sink_stat(&publisher, "segments-begun"), 4);
    assert_eq!(sink_stat(&publisher, "segments-done"), 4);
    assert_eq!(sink_stat(&publisher, "segments-lost"), 0);
    pipeline::go(&publisher, gst::State::Null);
    relay_ends_when(&relay, "cam", || reader.stat("segments") == 4);
    let (numbers, ended) = reader.play();
    ended.expect_eos();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

#[test]
fn c_10_and_c_12_segments_of_their_own_are_one_stream_and_a_torn_one_costs_its_end_only() {
    comfy_tests::init();
    let relay = Relay::new();
    for n in 0..3 {
        let mut bytes = segment(n * 20, n * 20 + 20);
        assert_eq!(bytes[0], 0x47);
        if n == 1 {
            bytes.truncate(bytes.len() - 100);
        }
        relay.publish("cam", TS, bytes);
    }
    let reader = Reader::new(&relay.url("cam"), "start-seq=0 is-live=false");
    relay_ends_when(&relay, "cam", || reader.stat("segments") == 3);
    play_to_end(&reader.pipeline).expect_eos();
    let numbers = reader.passports.numbers();
    assert_eq!(reader.stat("bytes-dropped"), 88);
    for part in [0..20, 40..60] {
        assert!(
            part.clone().all(|number| numbers.contains(&number)),
            "{part:?}: {numbers:?}"
        );
    }
    pipeline::go(&reader.pipeline, gst::State::Null);
}

/// Ends a channel once something is so.
fn relay_ends_when(relay: &Relay, channel: &str, so: impl Fn() -> bool) {
    relay.until(so);
    assert!(relay.server.delete(channel));
}

#[test]
fn json_documents_lines_and_keepalives_arrive_as_they_were_meant() {
    comfy_tests::init();
    let relay = Relay::new();
    for (channel, mime, caps) in [
        ("control", "application/json", "application/json"),
        ("data", "application/jsonl", "application/x-ndjson"),
    ] {
        for text in ["{\"a\":1}\n", "{\"keep\":\"alive\"}", "{\"b\":2}\n"] {
            relay.publish(channel, mime, text);
        }
        let pipeline = parse(&format!(
            "tricklesrc name=in url={} start-seq=0 ! appsink name=out sync=false",
            relay.url(channel)
        ));
        pipeline.set_state(gst::State::Playing).unwrap();
        let out: gst_app::AppSink = pipeline.by_name("out").unwrap().downcast().unwrap();
        for wanted in ["{\"a\":1}\n", "{\"b\":2}\n"] {
            let sample = out.try_pull_sample(comfy_tests::PATIENCE).expect("a document");
            assert_eq!(sample.caps().unwrap().structure(0).unwrap().name(), caps);
            let buffer = sample.buffer().unwrap();
            assert_eq!(buffer.map_readable().unwrap().as_slice(), wanted.as_bytes());
            assert!(buffer.pts().is_some(), "the time of its arrival");
        }
        assert!(relay.server.delete(channel));
        play_to_end(&pipeline).expect_eos();
        assert_eq!(bench::stat::<u64>(&pipeline.by_name("in").unwrap(), "keepalives"), 1);
        pipeline::go(&pipeline, gst::State::Null);
    }
}

#[test]
fn buffers_that_are_not_ts_become_a_segment_each() {
    comfy_tests::init();
    let relay = Relay::new();
    let pipeline = parse(&format!(
        "appsrc name=source format=time caps=application/json ! tricklesink name=out url={}",
        relay.url("events")
    ));
    pipeline::go_async(&pipeline, gst::State::Playing);
    for number in 0..3 {
        let buffer = gst::Buffer::from_slice(format!("[{number}]").into_bytes());
        source(&pipeline).push_buffer(buffer).unwrap();
        relay.until(|| sink_stat(&pipeline, "segments-done") == number + 1);
    }
    source(&pipeline).end_of_stream().unwrap();
    run(&pipeline).expect_eos();
    let channels = relay.server.channels();
    assert_eq!(
        (channels[0].name.as_str(), channels[0].mime.as_str()),
        ("events", "application/json")
    );
    assert_eq!(channels[0].stats.next_write, 3);
}

#[test]
fn unknown_channel_is_the_end_and_a_wrong_token_an_error_that_says_so() {
    comfy_tests::init();
    let relay = Relay::with(Config {
        publish_token: Some("right".into()),
        subscribe_token: Some("right".into()),
        ..Config::default()
    });
    let url = relay.url("cam");
    let read = |more: &str| run(&parse(&format!("tricklesrc url={url} {more} ! fakesink")));
    read("token=right").expect_eos();
    let error = first_error(&read("token=wrong"));
    assert!(error.matches(gst::ResourceError::NotAuthorized), "{error}");
    assert!(error.message().contains("check the token"), "{error}");

    let publish = |more: &str| {
        let pipeline = parse(&format!(
            "appsrc name=source format=time ! tricklesink url={url} {more}"
        ));
        for _ in 0..5 {
            source(&pipeline).push_buffer(gst::Buffer::from_slice(b"x")).unwrap();
        }
        run(&pipeline)
    };
    let error = first_error(&publish("token=wrong"));
    assert!(error.matches(gst::ResourceError::NotAuthorized), "{error}");
    // The server creates nothing by itself.
    let error = first_error(&publish("token=right create=never"));
    assert!(error.matches(gst::ResourceError::NotFound), "{error}");
    assert!(error.message().contains("create it"), "{error}");
}

#[test]
fn missing_and_unusable_addresses_are_refused_at_the_start() {
    comfy_tests::init();
    for (text, part) in [
        ("tricklesrc ! fakesink", "there is none"),
        ("tricklesrc url=ftp://host/cam ! fakesink", "scheme"),
        ("fakesrc ! tricklesink", "there is none"),
        ("fakesrc ! tricklesink url=trickle://a/b,trickle://a/c", "one channel"),
    ] {
        let error = first_error(&run(&parse(text)));
        assert!(error.matches(gst::ResourceError::Settings), "{text}: {error}");
        assert!(error.message().contains(part), "{text}: {error}");
    }
}

#[test]
fn elements_stop_while_they_wait_and_start_again() {
    comfy_tests::init();
    let relay = Relay::new();
    relay.publish("cam", TS, segment(0, 5));
    let reader = Reader::new(&relay.url("cam"), "start-seq=0");
    for _ in 0..3 {
        relay.until(|| reader.stat("bytes") > 0);
        pipeline::go(&reader.pipeline, gst::State::Null);
        pipeline::go_async(&reader.pipeline, gst::State::Playing);
    }
    pipeline::go(&reader.pipeline, gst::State::Null);

    let publisher = ts::publisher(&relay.url("again"), "");
    for turn in 1..=3 {
        pipeline::go_async(&publisher, gst::State::Paused);
        paint(&publisher, 0..10);
        let ended = play_to_end(&publisher).expect_eos();
        assert!(ended.warnings().is_empty(), "{:?}", ended.warnings());
        assert_eq!(sink_stat(&publisher, "segments-done"), 1, "turn {turn}");
        pipeline::go(&publisher, gst::State::Null);
    }
    let channels = relay.server.channels();
    assert_eq!(
        channels
            .iter()
            .find(|channel| channel.name == "again")
            .unwrap()
            .stats
            .next_write,
        3
    );
}

#[test]
fn slow_reader_jumps_and_the_gap_is_marked_and_counted() {
    comfy_tests::init();
    let relay = Relay::new();
    let url = relay.url("data");
    for number in 0..8 {
        relay.publish("data", "application/json", format!("[{number}]"));
    }
    // Number 1 has long left the window.
    let pipeline = parse(&format!(
        "tricklesrc name=in url={url} start-seq=1 lag-policy=earliest ! appsink name=out sync=false"
    ));
    pipeline.set_state(gst::State::Playing).unwrap();
    let out: gst_app::AppSink = pipeline.by_name("out").unwrap().downcast().unwrap();
    let sample = out.try_pull_sample(comfy_tests::PATIENCE).expect("a document");
    assert!(sample.buffer().unwrap().flags().contains(gst::BufferFlags::DISCONT));
    assert!(bench::stat::<u64>(&pipeline.by_name("in").unwrap(), "jumps") > 0);
    pipeline::go(&pipeline, gst::State::Null);
}

#[test]
fn server_that_dies_and_returns_costs_segments_that_are_counted() {
    comfy_tests::init();
    let relay = Relay::new();
    let url = relay.url("data");
    let pipeline = parse(&format!(
        "appsrc name=source format=time caps=application/json ! tricklesink name=out url={url} leaky=keyframe"
    ));
    let send = || source(&pipeline).push_buffer(gst::Buffer::from_slice(b"{}")).unwrap();
    send();
    pipeline.set_state(gst::State::Playing).unwrap();
    relay.until(|| sink_stat(&pipeline, "segments-done") == 1);
    let address = relay.kill();
    let bus = pipeline.bus().unwrap();
    // More than may wait.
    for _ in 0..20 {
        send();
    }
    pipeline::wait_message(&bus, "a warning", |message| {
        message.type_() == gst::MessageType::Warning
    });
    let config = Config {
        autocreate: true,
        ..Config::default()
    };
    let relay = Relay::at(address, config);
    pipeline::wait_message(&bus, "publishing again", |message| {
        message
            .structure()
            .is_some_and(|s| s.name() == "tricklesink" && s.get::<&str>("state") == Ok("publishing"))
    });
    send();
    source(&pipeline).end_of_stream().unwrap();
    play_to_end(&pipeline).expect_eos();
    let [begun, done, lost, dropped] =
        ["begun", "done", "lost", "dropped"].map(|what| sink_stat(&pipeline, &format!("segments-{what}")));
    assert_eq!(begun, done + lost, "begun {begun}, done {done}, lost {lost}");
    assert_eq!(begun + dropped, 22);
    assert!(dropped > 0 && done > 1, "done {done}, dropped {dropped}");
    pipeline::go(&pipeline, gst::State::Null);
    drop(relay);
}

#[test]
fn eos_to_a_dead_server_ends_in_time_with_a_warning() {
    comfy_tests::init();
    let address = Relay::new().kill();
    let pipeline = parse(&format!(
        "appsrc name=source format=time caps=application/json \
         ! tricklesink name=out url=trickle://{address}/data eos-timeout=100000000"
    ));
    source(&pipeline).push_buffer(gst::Buffer::from_slice(b"{}")).unwrap();
    source(&pipeline).end_of_stream().unwrap();
    let ended = play_to_end(&pipeline).expect_eos();
    assert!(!ended.warnings().is_empty());
    assert_eq!(sink_stat(&pipeline, "segments-unanswered"), 1);
    pipeline::go(&pipeline, gst::State::Null);
}

#[test]
fn uridecodebin_plays_a_channel() {
    comfy_tests::init();
    let relay = Relay::new();
    relay.publish("cam", TS, segment(0, 10));
    let pipeline = parse(&format!(
        "uridecodebin uri={} ! fakesink name=out sync=false",
        relay.url("cam")
    ));
    let passports = Passports::at(&pipeline, "out", "sink");
    pipeline.set_state(gst::State::Playing).unwrap();
    relay.until(|| !passports.all().is_empty());
    assert!(relay.server.delete("cam"));
    play_to_end(&pipeline).expect_eos();
    assert_eq!(passports.numbers(), (0..10).collect::<Vec<_>>());
    pipeline::go(&pipeline, gst::State::Null);
    let sink = gst::Element::make_from_uri(gst::URIType::Sink, "trickles://host/cam", None).unwrap();
    assert_eq!(sink.factory().unwrap().name(), "tricklesink");
    assert_eq!(sink.property::<String>("url"), "trickles://host/cam");
}

#[test]
fn flush_ends_the_segment_and_what_follows_is_published() {
    comfy_tests::init();
    let relay = Relay::new();
    let pipeline = parse(&format!(
        "appsrc name=source format=time caps=application/json ! tricklesink name=out cut=duration url={}",
        relay.url("events")
    ));
    let send = || {
        let buffer = gst::Buffer::from_slice(b"{}");
        source(&pipeline).push_buffer(buffer).unwrap();
    };
    send();
    pipeline.set_state(gst::State::Playing).unwrap();
    relay.until(|| sink_stat(&pipeline, "segments-begun") == 1);
    assert!(source(&pipeline).send_event(gst::event::FlushStart::new()));
    assert!(source(&pipeline).send_event(gst::event::FlushStop::new(true)));
    relay.until(|| sink_stat(&pipeline, "segments-done") == 1);
    send();
    source(&pipeline).end_of_stream().unwrap();
    play_to_end(&pipeline).expect_eos();
    assert_eq!(sink_stat(&pipeline, "segments-done"), 2);
    assert_eq!(sink_stat(&pipeline, "segments-lost"), 0);
    pipeline::go(&pipeline, gst::State::Null);
}

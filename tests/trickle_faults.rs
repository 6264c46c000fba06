//! What goes wrong between tricklesink, a server and tricklesrc.
#![allow(clippy::disallowed_methods, reason = "tests measure and bound real time")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use comfy_core::trickle::server::Config;
use comfy_tests::pipeline::{self, Ended, parse, play_to_end, run, wait_message};
use comfy_tests::ts::{Reader, paint, publisher, segment, source};
use comfy_tests::{Certificate, PATIENCE, Relay, bench};
use gst::prelude::*;

const TS: &str = "video/MP2T";
const JSON: &str = "application/json";

/// What a call may take that must not wait for the network.
const AT_ONCE: Duration = Duration::from_secs(2);

fn stat(pipeline: &gst::Pipeline, element: &str, name: &str) -> u64 {
    bench::stat(&pipeline.by_name(element).unwrap(), name)
}

fn open() -> Config {
    Config {
        autocreate: true,
        ..Config::default()
    }
}

/// The reason; a base class adds that there was one.
fn first_error(ended: &Ended) -> glib::Error {
    ended.errors().first().expect("it fails").0.clone()
}

fn state_is<'a>(element: &'a str, state: &'a str) -> impl Fn(&gst::Message) -> bool + 'a {
    move |message| {
        message
            .structure()
            .is_some_and(|s| s.name() == element && s.get::<&str>("state") == Ok(state))
    }
}

/// A source of messages for tricklesink "out".
fn messages(url: &str, more: &str) -> gst::Pipeline {
    parse(&format!(
        "appsrc name=source format=time caps={JSON} ! tricklesink name=out url={url} {more}"
    ))
}

fn send(pipeline: &gst::Pipeline, text: impl Into<String>) {
    let buffer = gst::Buffer::from_slice(text.into().into_bytes());
    source(pipeline).push_buffer(buffer).expect("it runs");
}

/// A reader of messages, from tricklesrc "in".
struct Messages {
    pipeline: gst::Pipeline,
    out: gst_app::AppSink,
}

impl Messages {
    fn of(url: &str, more: &str) -> Self {
        let pipeline = parse(&format!(
            "tricklesrc name=in url={url} {more} ! appsink name=out sync=false"
        ));
        let out = pipeline.by_name("out").unwrap().downcast().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, out }
    }

    fn next(&self) -> (String, bool) {
        let sample = self.out.try_pull_sample(PATIENCE).expect("a message");
        let buffer = sample.buffer().unwrap();
        let text = String::from_utf8(buffer.map_readable().unwrap().to_vec()).unwrap();
        (text, buffer.flags().contains(gst::BufferFlags::DISCONT))
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

#[test]
fn p_06_messages_pushed_in_one_go_are_a_segment_each_in_their_order() {
    comfy_tests::init();
    let relay = Relay::new();
    let pipeline = messages(&relay.url("events"), "");
    for number in 0..50 {
        send(&pipeline, format!("[{number}]"));
    }
    source(&pipeline).end_of_stream().unwrap();
    let ended = play_to_end(&pipeline).expect_eos();
    assert!(ended.warnings().is_empty(), "{:?}", ended.warnings());
    assert_eq!(stat(&pipeline, "out", "segments-done"), 50);
    assert_eq!(stat(&pipeline, "out", "segments-dropped"), 0);
    pipeline::go(&pipeline, gst::State::Null);
    let reader = Messages::of(&relay.url("events"), "start-seq=46");
    for number in 46..50 {
        assert_eq!(reader.next().0, format!("[{number}]"));
    }
}

#[test]
fn server_killed_in_the_middle_of_a_segment_costs_frames_that_are_counted_and_no_other() {
    comfy_tests::init();
    let relay = Relay::new();
    let url = relay.url("cam");
    let publisher = publisher(&url, "sync=true segment-duration=400000000");
    relay.server.create("cam", TS).expect("there is room");
    let reader = Reader::new(&url, "start-seq=0 on-missing=wait max-failures=0");
    paint(&publisher, 0..125);
    publisher.set_state(gst::State::Playing).unwrap();
    relay.until(|| reader.stat("segments") == 3);
    let address = relay.kill();
    let bus = publisher.bus().unwrap();
    wait_message(&bus, "a warning", |message| {
        message.type_() == gst::MessageType::Warning
    });
    let relay = Relay::at(address, open());
    wait_message(&bus, "publishing again", state_is("tricklesink", "publishing"));
    play_to_end(&publisher).expect_eos();
    let [begun, done, lost, unanswered, dropped] = ["begun", "done", "lost", "unanswered", "dropped"]
        .map(|what| stat(&publisher, "out", &format!("segments-{what}")));
    assert_eq!(begun, done + lost, "begun {begun}, done {done}, lost {lost}");
    assert_eq!(unanswered, 0);
    assert!(lost > 0, "one was being written");
    pipeline::go(&publisher, gst::State::Null);
    // A demuxer gives the last frame when it knows that it is the last.
    relay.until(|| reader.passports.numbers().contains(&123));
    assert!(relay.server.delete("cam"));
    let (numbers, ended) = reader.play();
    ended.expect_eos();
    assert!(numbers.is_sorted_by(|a, b| a < b), "none twice: {numbers:?}");
    assert_eq!(numbers[..20], (0..20).collect::<Vec<_>>()[..]);
    // All that is missing is in segments that were counted, ten frames each.
    let missing = 125 - numbers.len() as u64;
    assert!(
        numbers.contains(&124) && missing <= (lost + dropped) * 10,
        "{missing} missing, {lost} lost, {dropped} dropped"
    );
}

/// Takes connections, reads a request's head and then does nothing more with it.
fn silent_server() -> (String, Arc<Mutex<Vec<TcpStream>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let streams = taken.clone();
    // Ends with the process: nothing tells a listener to stop.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            streams.lock().unwrap().push(stream);
        }
    });
    (format!("trickle://{address}/cam"), taken)
}

#[test]
fn p_10_server_that_takes_nothing_holds_nobody_up_longer_than_it_may() {
    comfy_tests::init();
    let (url, taken) = silent_server();
    const WAIT: Duration = Duration::from_millis(200);
    let pipeline = parse(&format!(
        "appsrc name=source format=time caps=application/x-data ! tricklesink name=out url={url} cut=duration \
         segment-duration=0 create=never start=seq max-bytes=2000000 max-wait={} eos-timeout={}",
        WAIT.as_nanos(),
        WAIT.as_nanos()
    ));
    let times = Arc::new(Mutex::new(Vec::new()));
    let arrivals = times.clone();
    let pad = pipeline.by_name("out").unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        arrivals.lock().unwrap().push(Instant::now());
        gst::PadProbeReturn::Ok
    });
    const BUFFERS: u64 = 200;
    for number in 0..BUFFERS {
        let mut buffer = gst::Buffer::from_slice(vec![0; 100_000]);
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(number));
        source(&pipeline).push_buffer(buffer).unwrap();
    }
    source(&pipeline).end_of_stream().unwrap();
    let ended = play_to_end(&pipeline).expect_eos();
    assert!(!ended.warnings().is_empty());
    assert_eq!(
        ended
            .elements("tricklesink")
            .iter()
            .filter(|s| s.get("state") == Ok("dropping"))
            .count(),
        1
    );
    let longest = times
        .lock()
        .unwrap()
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap();
    assert!(longest >= WAIT / 2, "it waits for room: {longest:?}");
    assert!(longest < WAIT + AT_ONCE, "a buffer took {longest:?}");
    let count = |name: &str| stat(&pipeline, "out", name);
    assert_eq!(count("segments-begun") + count("segments-dropped"), BUFFERS);
    assert_eq!(
        count("segments-begun"),
        count("segments-done") + count("segments-lost") + count("segments-unanswered")
    );
    assert!(count("segments-dropped") > 100, "{}", count("segments-dropped"));
    assert!(count("bytes-queued") <= 2_000_000);
    let start = Instant::now();
    pipeline::go(&pipeline, gst::State::Null);
    assert!(start.elapsed() < AT_ONCE);
    assert!(!taken.lock().unwrap().is_empty());
}

#[test]
fn elements_that_wait_for_a_silent_server_stop_at_once() {
    comfy_tests::init();
    let (url, taken) = silent_server();
    let sink = messages(&url, "");
    send(&sink, "{}");
    let source = Messages::of(&url, "on-missing=wait");
    sink.set_state(gst::State::Playing).unwrap();
    while taken.lock().unwrap().len() < 2 {
        std::thread::yield_now();
    }
    // In the middle of an answer, too.
    let (half, streams) = silent_server();
    let torn = Messages::of(&half, "start-seq=0");
    let mut stream = loop {
        if let Some(stream) = streams.lock().unwrap().pop() {
            break stream;
        }
        std::thread::yield_now();
    };
    let _ = stream.read(&mut [0; 4096]).unwrap();
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nLp-Trickle-Seq: 0\r\n\
                  Transfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n";
    stream.write_all(answer.as_bytes()).unwrap();
    assert_eq!(torn.next().0, "{}\n");
    for pipeline in [&sink, &source.pipeline, &torn.pipeline] {
        let start = Instant::now();
        pipeline.set_state(gst::State::Null).unwrap();
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    }
}

#[test]
fn p_11_certificate_nobody_vouches_for_is_an_error_unless_told_otherwise() {
    comfy_tests::init();
    let certificate = Certificate::new();
    let relay = Relay::secure(&certificate);
    let url = format!("trickles://localhost:{}/cam", relay.address.port());
    let ca = format!("ca-file={}", certificate.file("cert.pem").display());

    let refused = messages(&url, "max-failures=1");
    send(&refused, "{}");
    source(&refused).end_of_stream().unwrap();
    let ended = play_to_end(&refused);
    let text = format!("{:?} {:?}", ended.warnings(), ended.errors());
    assert!(text.contains("certificate") && text.contains("authority"), "{text}");
    pipeline::go(&refused, gst::State::Null);
    let error = first_error(&run(&parse(&format!("tricklesrc url={url} max-failures=1 ! fakesink"))));
    assert!(error.message().contains("certificate"), "{error}");

    for (number, trust) in ["insecure-tls=true", &ca].into_iter().enumerate() {
        let pipeline = messages(&url, trust);
        send(&pipeline, format!("[{number}]"));
        source(&pipeline).end_of_stream().unwrap();
        let ended = play_to_end(&pipeline).expect_eos();
        assert!(ended.warnings().is_empty(), "{:?}", ended.warnings());
        pipeline::go(&pipeline, gst::State::Null);
        let reader = Messages::of(&url, &format!("{trust} start-seq={number}"));
        assert_eq!(reader.next().0, format!("[{number}]"));
    }
    let missing = first_error(&run(&parse(&format!(
        "tricklesrc url={url} ca-file=/nowhere.pem ! fakesink"
    ))));
    assert!(missing.message().contains("/nowhere.pem"), "{missing}");
}

#[test]
fn reader_with_several_addresses_goes_on_where_one_fails() {
    comfy_tests::init();
    let nobody = Relay::new().kill();
    let (first, second) = (Relay::new(), Relay::new());
    for number in 0..2 {
        for relay in [&first, &second] {
            relay.publish("cam", JSON, format!("[{number}]"));
        }
    }
    let urls = format!("trickle://{nobody}/cam,{},{}", first.url("cam"), second.url("cam"));
    let reader = Messages::of(&urls, "start-seq=0 max-failures=1");
    assert_eq!(reader.next().0, "[0]");
    assert_eq!(reader.next().0, "[1]");
    drop(first);
    second.publish("cam", JSON, "[2]");
    assert_eq!(
        reader.next(),
        ("[2]".into(), false),
        "the same number of the other server"
    );
    assert_eq!(stat(&reader.pipeline, "in", "skipped"), 0);
    let bus = reader.pipeline.bus().unwrap();
    assert!(bus.pop_filtered(&[gst::MessageType::Error]).is_none());
}

#[test]
fn c_13_reader_that_is_too_far_behind_does_what_its_policy_says() {
    comfy_tests::init();
    let relay = Relay::new();
    let url = relay.url("data");
    for number in 0..8 {
        relay.publish("data", JSON, format!("[{number}]"));
    }
    // Out of the window, and further behind than it may.
    for (name, more) in [("jump", "start-seq=1"), ("max-lag", "start-seq=4 max-lag=1")] {
        let reader = Messages::of(&url, more);
        let before = stat(&reader.pipeline, "in", "segments");
        relay.until(|| stat(&reader.pipeline, "in", "jumps") > 0);
        relay.publish("data", JSON, format!("[{name:?}]"));
        let mut seen = reader.next();
        while seen.0 != format!("[{name:?}]") {
            seen = reader.next();
        }
        assert!(stat(&reader.pipeline, "in", "skipped") > 0, "{name} {before}");
        let bus = reader.pipeline.bus().unwrap();
        wait_message(&bus, "what was skipped", state_is("tricklesrc", "jump"));
    }
    let reader = Messages::of(&url, "start-seq=1 lag-policy=earliest");
    let (text, discont) = reader.next();
    assert!(discont && text != "[1]", "{text}");
    let error = first_error(&run(&parse(&format!(
        "tricklesrc url={url} start-seq=1 lag-policy=error ! fakesink"
    ))));
    assert!(error.matches(gst::ResourceError::Read), "{error}");
    assert!(error.message().contains("lag-policy"), "{error}");
}

#[test]
fn reader_that_is_flushed_while_it_waits_goes_on_afterwards() {
    comfy_tests::init();
    let relay = Relay::new();
    relay.publish("data", JSON, "[0]");
    let reader = Messages::of(&relay.url("data"), "start-seq=0");
    assert_eq!(reader.next().0, "[0]");
    let element = reader.pipeline.by_name("in").unwrap();
    for number in 1..5 {
        assert!(element.send_event(gst::event::FlushStart::new()));
        assert!(element.send_event(gst::event::FlushStop::new(true)));
        relay.publish("data", JSON, format!("[{number}]"));
        assert_eq!(reader.next().0, format!("[{number}]"));
    }
    assert_eq!(stat(&reader.pipeline, "in", "skipped"), 0);
}

#[test]
fn reader_waits_for_a_channel_that_comes_and_ends_with_it() {
    comfy_tests::init();
    let relay = Relay::new();
    for turn in ["first", "second"] {
        let reader = Messages::of(&relay.url("data"), "on-missing=wait");
        relay.publish("data", JSON, format!("[{turn:?}]"));
        assert_eq!(reader.next().0, format!("[{turn:?}]"));
        assert!(relay.server.delete("data"));
        play_to_end(&reader.pipeline).expect_eos();
    }
}

#[test]
fn start_seq_that_is_none_is_refused_and_next_waits_for_what_begins() {
    comfy_tests::init();
    let relay = Relay::new();
    let url = relay.url("data");
    for text in ["latest", "-3", "1.5", ""] {
        let error = first_error(&run(&parse(&format!(
            "tricklesrc url={url} start-seq=\"{text}\" ! fakesink"
        ))));
        assert!(error.matches(gst::ResourceError::Settings), "{text}: {error}");
        assert!(error.message().contains("next, current"), "{error}");
    }
    relay.publish("data", JSON, "[0]");
    let reader = Messages::of(&url, "start-seq=next");
    let waits = || relay.server.channels().iter().any(|channel| channel.stats.readers > 0);
    relay.until(waits);
    relay.publish("data", JSON, "[1]");
    assert_eq!(reader.next().0, "[1]");
}

#[test]
fn garbage_in_a_channel_of_mpeg_ts_is_dropped_and_what_follows_is_shown() {
    comfy_tests::init();
    let relay = Relay::new();
    let noise: Vec<u8> = (0..100_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    relay.publish("cam", TS, noise);
    relay.publish("cam", TS, segment(0, 20));
    let reader = Reader::new(&relay.url("cam"), "start-seq=0 is-live=false");
    relay.until(|| reader.stat("segments") == 2);
    assert!(relay.server.delete("cam"));
    let dropped = {
        play_to_end(&reader.pipeline).expect_eos();
        reader.stat("bytes-dropped")
    };
    assert!(dropped > 90_000, "{dropped}");
    assert_eq!(reader.passports.numbers(), (0..20).collect::<Vec<_>>());
    pipeline::go(&reader.pipeline, gst::State::Null);
}

#[test]
fn channel_keeps_its_type() {
    comfy_tests::init();
    let relay = Relay::new();
    let pipeline = messages(&relay.url("data"), "");
    send(&pipeline, "{}");
    pipeline.set_state(gst::State::Playing).unwrap();
    relay.until(|| stat(&pipeline, "out", "segments-done") == 1);
    let sample = gst::Sample::builder()
        .buffer(&gst::Buffer::from_slice(b"{}\n"))
        .caps(&gst::Caps::new_empty_simple("application/x-ndjson"))
        .build();
    let _ = source(&pipeline).push_sample(&sample);
    let ended = play_to_end(&pipeline);
    let (error, debug) = ended.errors().remove(0);
    assert!(error.matches(gst::StreamError::Failed), "{error}");
    assert!(debug.contains("not-negotiated"), "{debug}");
    pipeline::go(&pipeline, gst::State::Null);
}

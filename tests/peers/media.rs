//! Real MPEG-TS: what our elements make of it, and what ffmpeg and pytrickle do.

use comfy_tests::pipeline::{self, parse, play_to_end};
use comfy_tests::temp::Temp;
use comfy_tests::ts::{self, Reader, SIZE, paint, segment};
use comfy_tests::{Passports, Peer, Relay, Video, bench};
use gst::prelude::*;

use crate::pytrickle::{Got, Publisher, Subscriber};
use crate::{TS, http};

/// The painted numbers of the frames in a file, as ffmpeg decodes it.
fn ffmpeg_numbers(file: &str) -> Vec<u64> {
    let decode = [
        "-v",
        "error",
        "-xerror",
        "-i",
        file,
        "-fps_mode",
        "passthrough",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "gray",
        "-",
    ];
    let output = Peer::start("ffmpeg", decode).end();
    assert!(
        output.status.success() && output.errors.is_empty(),
        "{file}: {}",
        output.errors
    );
    let video = Video::new("GRAY8", SIZE.0, SIZE.1);
    let frames = output.output.chunks_exact(video.info.size());
    assert!(frames.remainder().is_empty());
    frames
        .map(|frame| video.number(&gst::Buffer::from_slice(frame.to_vec())))
        .collect()
}

/// The same with GStreamer's elements.
fn gst_numbers(file: &str) -> Vec<u64> {
    let pipeline = parse(&format!(
        "filesrc location={file} ! tsdemux ! h264parse ! avdec_h264 ! fakesink name=out sync=false"
    ));
    let passports = Passports::at(&pipeline, "out", "sink");
    pipeline::run(&pipeline).expect_eos();
    passports.numbers()
}

/// A packet of the only stream in a file: its times, and whether a decoder can begin there.
#[derive(Debug)]
struct Packet {
    pts: i64,
    dts: i64,
    key: bool,
}

fn packets(file: &str) -> Vec<Packet> {
    let probe = [
        "-v",
        "error",
        "-show_entries",
        "packet=pts,dts,flags",
        "-of",
        "csv=p=0",
        file,
    ];
    let text = String::from_utf8(Peer::start("ffprobe", probe).expect_success()).unwrap();
    let packet = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        Packet {
            pts: fields[0].parse().expect("a time"),
            dts: fields[1].parse().expect("a time"),
            key: fields[2].starts_with('K'),
        }
    };
    // What goes with a packet is on lines of its own, which are empty.
    text.lines().filter(|line| !line.is_empty()).map(packet).collect()
}

#[test]
fn p_12_ffmpeg_and_gstreamer_decode_each_segment_of_tricklesink_alone_and_all_of_them_in_a_row() {
    comfy_tests::init();
    let relay = Relay::new();
    relay.server.create("cam", TS).unwrap();
    // Three seconds are three segments, which the window holds, so that nobody has to read along.
    let publisher = ts::publisher(&relay.url("cam"), "");
    paint(&publisher, 0..75);
    play_to_end(&publisher).expect_eos();
    let done: u64 = bench::stat(&publisher.by_name("out").unwrap(), "segments-done");
    assert_eq!(done, 3);
    pipeline::go(&publisher, gst::State::Null);

    let mut subscriber = Subscriber::new(&relay, "cam", "0");
    let (folder, mut all, mut last) = (Temp::new(), Vec::new(), i64::MIN);
    for seq in 0..3 {
        let Got::Segment(number, bytes) = subscriber.next() else {
            panic!("no segment {seq}");
        };
        assert_eq!(number, seq);
        let file = folder.file(&format!("{seq}.ts"), &bytes);
        let wanted: Vec<u64> = (seq * 25..seq * 25 + 25).collect();
        assert_eq!(ffmpeg_numbers(&file), wanted, "ffmpeg");
        assert_eq!(gst_numbers(&file), wanted, "GStreamer");
        let packets = packets(&file);
        assert_eq!(packets.len(), 25);
        assert!(packets[0].key, "{packets:?}");
        for packet in packets {
            assert!(packet.dts > last && packet.pts >= packet.dts, "{packet:?} after {last}");
            last = packet.dts;
        }
        all.extend(bytes);
    }
    let file = folder.file("all.ts", all);
    assert_eq!(ffmpeg_numbers(&file), (0..75).collect::<Vec<_>>(), "ffmpeg");
    assert_eq!(gst_numbers(&file), (0..75).collect::<Vec<_>>(), "GStreamer");
    let times: Vec<i64> = packets(&file).iter().map(|packet| packet.dts).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn what_pytrickle_publishes_comes_out_of_tricklesrc_frame_by_frame() {
    comfy_tests::init();
    let relay = Relay::new();
    relay.server.create("cam", TS).unwrap();
    let reader = Reader::new(&relay.url("cam"), "start-seq=0");
    let mut publisher = Publisher::new(&relay, "cam");
    for n in 0..6 {
        publisher.segment(&segment(n * 10, n * 10 + 10));
        relay.until(|| reader.stat("segments") == n + 1);
    }
    assert_eq!(relay.server.channels()[0].stats.orphans, 0, "each segment has its end");
    assert!(relay.server.delete("cam"));
    let (numbers, ended) = reader.play();
    ended.expect_eos();
    assert_eq!(numbers, (0..60).collect::<Vec<_>>());
}

#[test]
fn ffmpeg_publishes_a_segment_that_tricklesrc_reads() {
    comfy_tests::init();
    // ffmpeg closes its connection right behind the last byte, without waiting for the answer.
    let relay = Relay::new();
    relay.server.create("cam", TS).unwrap();
    let reader = Reader::new(&relay.url("cam"), "start-seq=0");
    let folder = Temp::new();
    for n in 0..2 {
        let file = folder.file("in.ts", segment(n * 25, n * 25 + 25));
        let url = http(&relay, &format!("cam/{n}"));
        let publish = [
            "-v", "error", "-i", &file, "-c", "copy", "-f", "mpegts", "-method", "POST", &url,
        ];
        Peer::start("ffmpeg", publish).expect_success();
        relay.until(|| reader.stat("segments") == n + 1);
    }
    assert_eq!(relay.server.channels()[0].stats.orphans, 0, "each segment has its end");
    assert!(relay.server.delete("cam"));
    let (numbers, ended) = reader.play();
    ended.expect_eos();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
}

#[test]
fn ffmpeg_encodes_and_publishes_a_channel_that_tricklesrc_reads() {
    comfy_tests::init();
    let relay = Relay::new();
    relay.server.create("cam", TS).unwrap();
    let reader = Reader::new(&relay.url("cam"), "start-seq=0");
    // What cuts HLS numbers its segments from 0, and sends each to an address of its own; its playlist goes elsewhere.
    let (segments, playlist) = (http(&relay, "cam/%d"), http(&relay, "playlist/0"));
    let (size, video) = (format!("{}x{}", SIZE.0, SIZE.1), Video::new("I420", SIZE.0, SIZE.1));
    let input = format!("-v error -f rawvideo -pix_fmt yuv420p -r 25 -s {size} -i -");
    let encode = "-c:v libx264 -preset ultrafast -tune zerolatency -g 25";
    let output = format!("-f hls -hls_time 1 -method POST -hls_segment_filename {segments} {playlist}");
    let arguments = [input.as_str(), encode, &output];
    let mut ffmpeg = Peer::start("ffmpeg", arguments.iter().flat_map(|part| part.split(' ')));
    // Three segments, which the window holds.
    for number in 0..75 {
        ffmpeg.write(&video.bytes(&video.frame(number)));
    }
    ffmpeg.expect_success();
    relay.until(|| reader.stat("segments") == 3);
    assert_eq!(relay.server.channels()[0].stats.orphans, 0, "each segment has its end");
    assert!(relay.server.delete("cam"));
    let (numbers, ended) = reader.play();
    ended.expect_eos();
    assert_eq!(numbers, (0..75).collect::<Vec<_>>());
}

#[test]
fn ffmpeg_reads_a_segment_from_the_relay() {
    comfy_tests::init();
    let relay = Relay::new();
    relay.publish("cam", TS, segment(0, 25));
    assert_eq!(ffmpeg_numbers(&http(&relay, "cam/0")), (0..25).collect::<Vec<_>>());
}

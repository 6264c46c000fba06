//! MPEG-TS of painted frames, into channels and out of them.

use gst::prelude::*;

use crate::pipeline::{self, Ended, parse, play_to_end};
use crate::{Passports, Video, bench};

/// Frames that carry their number, as an encoder and a muxer make MPEG-TS of them.
pub const ENCODER: &str = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=1000 ! mpegtsmux";

/// The size of the frames.
pub const SIZE: (u32, u32) = (320, 240);

/// The appsrc "source" of a pipeline.
pub fn source(pipeline: &gst::Pipeline) -> gst_app::AppSrc {
    pipeline.by_name("source").unwrap().downcast().unwrap()
}

/// Pushes painted frames and EOS into appsrc "source".
pub fn paint(pipeline: &gst::Pipeline, numbers: impl IntoIterator<Item = u64>) {
    let (video, source) = (Video::new("I420", SIZE.0, SIZE.1), source(pipeline));
    source.set_caps(Some(&video.caps()));
    for number in numbers {
        source.push_buffer(video.frame(number)).expect("it runs");
    }
    source.end_of_stream().expect("it runs");
}

/// A segment of MPEG-TS of its own: frames `from` to `to`.
pub fn segment(from: u64, to: u64) -> Vec<u8> {
    let pipeline = parse(&format!(
        "appsrc name=source format=time ! {ENCODER} ! appsink name=out sync=false"
    ));
    paint(&pipeline, from..to);
    pipeline::go_async(&pipeline, gst::State::Playing);
    let out: gst_app::AppSink = pipeline.by_name("out").unwrap().downcast().unwrap();
    let mut bytes = Vec::new();
    while let Ok(sample) = out.pull_sample() {
        bytes.extend_from_slice(&sample.buffer().unwrap().map_readable().unwrap());
    }
    pipeline::go(&pipeline, gst::State::Null);
    bytes
}

/// What encodes and publishes the frames that are pushed into appsrc "source".
pub fn publisher(url: &str, more: &str) -> gst::Pipeline {
    parse(&format!(
        "appsrc name=source format=time ! {ENCODER} ! tricklesink name=out url={url} {more}"
    ))
}

/// What a reader's pipeline has read until its end, by the frames' numbers.
pub struct Reader {
    /// From tricklesrc "in" to a decoder.
    pub pipeline: gst::Pipeline,
    /// Of the decoded frames.
    pub passports: Passports,
}

impl Reader {
    /// Reads a channel.
    pub fn new(url: &str, more: &str) -> Self {
        let pipeline = parse(&format!(
            "tricklesrc name=in url={url} {more} ! tsdemux ! h264parse ! avdec_h264 ! fakesink name=out sync=false"
        ));
        let passports = Passports::at(&pipeline, "out", "sink");
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, passports }
    }

    /// One of tricklesrc's counters.
    pub fn stat(&self, name: &str) -> u64 {
        bench::stat(&self.pipeline.by_name("in").unwrap(), name)
    }

    /// To its end: the frames' numbers.
    pub fn play(self) -> (Vec<u64>, Ended) {
        let ended = play_to_end(&self.pipeline);
        let numbers = self.passports.numbers();
        self.pipeline.set_state(gst::State::Null).unwrap();
        (numbers, ended)
    }
}

//! Which frames are measured with? Real ones, decoded once and kept in memory: decoding is outside every figure.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use gst::prelude::*;

/// Different frames that are kept; more would add no variety and fill the caches and the memory.
const KEPT: usize = 32;

/// Width and height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(super) width: usize,
    pub(super) height: usize,
}

impl FromStr for Size {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (width, height) = text.split_once('x').context("expected WIDTHxHEIGHT, such as 512x512")?;
        let (width, height) = (width.parse()?, height.parse()?);
        ensure!(
            width > 0 && height > 0 && width <= 16384 && height <= 16384,
            "expected 1x1 to 16384x16384"
        );
        Ok(Self { width, height })
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// RGB frames of one size.
pub(super) struct Frames {
    pub(super) size: Size,
    pub(super) caps: gst::Caps,
    pub(super) buffers: Vec<gst::Buffer>,
}

/// The first frames of a file, or a moving test picture without one.
pub(super) fn load(input: Option<&Path>, size: Option<Size>) -> Result<Frames> {
    let source = match input {
        Some(path) => {
            ensure!(
                path.exists(),
                "{} does not exist; give --input a video or a picture",
                path.display()
            );
            "filesrc name=file ! decodebin ! videoconvert ! videoscale".to_owned()
        }
        None => format!("videotestsrc pattern=ball num-buffers={KEPT} ! videoconvert ! videoscale"),
    };
    let size = size.or(input.is_none().then_some(Size {
        width: 512,
        height: 512,
    }));
    let wanted = size.map_or(String::new(), |s| format!(",width={},height={}", s.width, s.height));
    let text =
        format!("{source} ! video/x-raw,format=RGB{wanted},pixel-aspect-ratio=1/1 ! appsink name=frames sync=false");
    let pipeline = gst::parse::launch(&text).context("the pipeline that decodes the input")?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().expect("several elements");
    if let (Some(file), Some(path)) = (pipeline.by_name("file"), input) {
        file.set_property("location", path);
    }
    let sink = pipeline
        .by_name("frames")
        .and_downcast::<gst_app::AppSink>()
        .expect("named above");
    pipeline.set_state(gst::State::Playing)?;
    let (mut buffers, mut caps) = (Vec::new(), None);
    while buffers.len() < KEPT {
        let Ok(sample) = sink.pull_sample() else { break };
        caps = sample.caps_owned();
        buffers.extend(sample.buffer_owned());
    }
    let error = pipeline
        .bus()
        .and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
    pipeline.set_state(gst::State::Null)?;
    let Some(caps) = caps else {
        match error.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => bail!("the input has no frames: {}", error.error()),
            _ => bail!("the input has no frames"),
        }
    };
    let info = gst_video::VideoInfo::from_caps(&caps)?;
    let size = Size {
        width: info.width() as usize,
        height: info.height() as usize,
    };
    let time = gst::ClockTime::from_nseconds(33_333_333);
    let buffers = buffers.into_iter().zip(0u64..).map(|(buffer, number)| {
        let mut buffer = buffer;
        let writable = buffer.make_mut();
        writable.set_pts(time * number);
        writable.set_duration(time);
        buffer
    });
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "RGB")
        .field("width", size.width as i32)
        .field("height", size.height as i32)
        .field("framerate", gst::Fraction::new(30, 1))
        .build();
    Ok(Frames {
        size,
        caps,
        buffers: buffers.collect(),
    })
}

//! What a peer sends, into pictures and sound.

use std::sync::Arc;

use gst::prelude::*;

use crate::codec::{self, Codec};
use crate::infergraph::make;
use crate::link::Outlet;
use crate::rtc::Error;
use crate::stages::{Mark, Stages};

/// Pictures that come in.
#[derive(Debug)]
pub struct Video {
    /// Where they leave.
    pub outlet: Outlet,
    /// Decides their size.
    pub size: gst::Element,
    /// Their format on the way.
    pub codec: Codec,
    /// What decodes them.
    pub decoder: &'static str,
}

/// Decodes what leaves `pad`, an RTP stream of this format, in a pipeline that runs.
pub fn video(pipeline: &gst::Pipeline, pad: &gst::Pad, codec: Codec, stages: &Arc<Stages>) -> Result<Video, Error> {
    let decoder = codec::decoder(codec).map_err(|why| Error::NoCodec {
        offered: codec.to_string(),
        why: vec![why],
    })?;
    live(&decoder.element);
    let depayload = codec.depayloader()?;
    let scaler = Scaler::new()?;
    let outlet = Outlet::new("video-out");
    let mut chain: Vec<&gst::Element> = depayload.iter().collect();
    chain.push(&decoder.element);
    chain.extend(scaler.elements());
    chain.push(outlet.element());
    stages.watch(&sink_of(chain[0])?, Mark::Arrived);
    stages.watch(&src_of(&decoder.element)?, Mark::Decoded);
    run(pipeline, &chain, pad)?;
    Ok(Video {
        outlet,
        size: scaler.size,
        codec,
        decoder: decoder.name,
    })
}

/// Takes sound, as Opus packets, out of an RTP stream.
pub fn audio(pipeline: &gst::Pipeline, pad: &gst::Pad) -> Result<Outlet, Error> {
    let depayload = make("rtpopusdepay")?;
    let outlet = Outlet::new("audio-out");
    run(pipeline, &[&depayload, outlet.element()], pad)?;
    Ok(outlet)
}

/// Lets what nobody wants run into nothing.
pub fn discard(pipeline: &gst::Pipeline, pad: &gst::Pad) -> Result<(), Error> {
    let sink = make("fakesink")?;
    sink.set_property("sync", false);
    sink.set_property("async", false);
    run(pipeline, &[&sink], pad)
}

/// Brings pictures to a size: does nothing, and costs nothing, until one is asked for.
pub(crate) struct Scaler {
    convert: gst::Element,
    scale: gst::Element,
    pub(crate) size: gst::Element,
}

impl Scaler {
    pub(crate) fn new() -> Result<Self, Error> {
        let (convert, scale, size) = (make("videoconvert")?, make("videoscale")?, make("capsfilter")?);
        scale.set_property("add-borders", true);
        set_size(&size, None);
        Ok(Self { convert, scale, size })
    }

    pub(crate) fn elements(&self) -> [&gst::Element; 3] {
        [&self.convert, &self.scale, &self.size]
    }
}

/// Pictures are of this size from now on; None: of their own.
pub fn set_size(size: &gst::Element, wanted: Option<(u32, u32)>) {
    // What models read, and in system memory: the converter does nothing where a decoder already gives that.
    let formats = gst::List::new(["I420", "NV12", "RGB", "BGR", "RGBA", "BGRA", "RGBx", "BGRx"]);
    let mut caps = gst::Caps::builder("video/x-raw").field("format", formats);
    if let Some((width, height)) = wanted {
        caps = caps
            .field("width", width as i32)
            .field("height", height as i32)
            .field("pixel-aspect-ratio", gst::Fraction::new(1, 1));
    }
    size.set_property("caps", caps.build());
}

/// Settings of a decoder that nobody may wait for.
fn live(decoder: &gst::Element) {
    for flag in ["automatic-request-sync-points", "discard-corrupted-frames"] {
        if decoder.has_property(flag) {
            decoder.set_property(flag, true);
        }
    }
    // A thread per frame holds back as many frames as there are threads.
    if decoder.has_property("thread-type") {
        decoder.set_property_from_str("thread-type", "slice");
    }
}

/// Puts a chain behind a pad of a pipeline that runs.
fn run(pipeline: &gst::Pipeline, chain: &[&gst::Element], pad: &gst::Pad) -> Result<(), Error> {
    let refused = |why: glib::BoolError| Error::Refused {
        step: "receiving",
        why: why.to_string(),
    };
    pipeline.add_many(chain.iter().copied()).map_err(refused)?;
    gst::Element::link_many(chain.iter().copied()).map_err(refused)?;
    // From the end, so that nobody pushes into what does not run yet.
    for element in chain.iter().rev() {
        element.sync_state_with_parent().map_err(refused)?;
    }
    pad.link(&sink_of(chain[0])?).map_err(|why| Error::Refused {
        step: "receiving",
        why: format!("pads cannot be linked: {why:?}"),
    })?;
    Ok(())
}

pub(crate) fn sink_of(element: &gst::Element) -> Result<gst::Pad, Error> {
    pad_of(element, "sink")
}

pub(crate) fn src_of(element: &gst::Element) -> Result<gst::Pad, Error> {
    pad_of(element, "src")
}

fn pad_of(element: &gst::Element, name: &str) -> Result<gst::Pad, Error> {
    element.static_pad(name).ok_or_else(|| Error::Refused {
        step: "building a pipeline",
        why: format!("{} has no pad {name}", element.name()),
    })
}

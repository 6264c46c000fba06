//! Frames of a program's own through a model and back: appsrc in front, appsink behind.
//!
//! Each frame is filled with its number. What comes back is its negative, and it carries the timestamps of the frame
//! that went in, also the last one, although ten frames are not a multiple of the batch size.
//!
//! `03_appsrc_appsink [MODEL]`

use anyhow::{Context, Result, ensure};
use gst::prelude::*;

const FRAMES: u64 = 10;
const SIZE: u32 = 64;

fn main() -> Result<()> {
    let arguments = comfy_examples::arguments("03_appsrc_appsink [MODEL]", 1)?;
    let model = arguments.first().map_or("builtin:invert", String::as_str);
    comfy_examples::init()?;

    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, SIZE, SIZE)
        .fps(gst::Fraction::new(25, 1))
        .build()?;
    let source = gst_app::AppSrc::builder()
        .caps(&info.to_caps()?)
        .format(gst::Format::Time)
        // push_buffer then waits while the chain is busy, instead of queueing without bound.
        .block(true)
        .max_buffers(4)
        .build();
    let batch = gst::ElementFactory::make("comfybatch")
        .property("batch-size", 4u32)
        .build()?;
    let infer = gst::ElementFactory::make("comfyinfer")
        .property("model", model)
        .build()?;
    let unbatch = gst::ElementFactory::make("comfyunbatch").build()?;
    let sink = gst_app::AppSink::builder().sync(false).build();

    let pipeline = gst::Pipeline::new();
    let chain = [source.upcast_ref(), &batch, &infer, &unbatch, sink.upcast_ref()];
    pipeline.add_many(chain)?;
    gst::Element::link_many(chain)?;
    pipeline.set_state(gst::State::Playing)?;

    // From a thread of its own: appsrc waits for room, and room comes when results are taken.
    let pusher = std::thread::spawn(move || -> Result<()> {
        for number in 0..FRAMES {
            let mut buffer = gst::Buffer::from_mut_slice(vec![number as u8; info.size()]);
            let frame = buffer.get_mut().context("a new buffer is ours alone")?;
            frame.set_pts(number * 40 * gst::ClockTime::MSECOND);
            frame.set_duration(40 * gst::ClockTime::MSECOND);
            frame.set_offset(number);
            source.push_buffer(buffer)?;
        }
        source.end_of_stream()?;
        Ok(())
    });

    let mut back = 0;
    while let Ok(sample) = sink.pull_sample() {
        let frame = sample.buffer().context("a sample with a frame")?;
        let pixel = frame.map_readable()?[0];
        println!(
            "frame {} at {}: {pixel}",
            frame.offset(),
            frame.pts().context("a time")?
        );
        ensure!(frame.offset() == back, "frames come back in order");
        back += 1;
    }
    // No more samples: the end, or an error, which the bus tells.
    let bus = pipeline.bus().context("pipelines have a bus")?;
    let error = bus.pop_filtered(&[gst::MessageType::Error]);
    pipeline.set_state(gst::State::Null)?;
    if let Some(gst::MessageView::Error(error)) = error.as_ref().map(|message| message.view()) {
        anyhow::bail!("{}", error.error());
    }
    pusher.join().expect("the thread does not panic")?;
    ensure!(back == FRAMES, "{back} of {FRAMES} frames came back");
    println!("all {FRAMES} frames came back in order");
    Ok(())
}

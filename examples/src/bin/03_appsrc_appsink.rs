//! Frames of a program's own through a model and back: appsrc in front, appsink behind.
//!
//! Each frame is filled with its number. What comes back is its negative, and it carries the timestamps of the frame
//! that went in, also the last one, although ten frames are not a multiple of the batch size.
//!
//! `03_appsrc_appsink [MODEL]`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

    let results = Arc::new(AtomicU64::new(0));
    let count = results.clone();
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let order = count.fetch_add(1, Ordering::SeqCst);
                match sample
                    .buffer()
                    .context("a sample with a frame")
                    .and_then(|frame| tell(frame, order))
                {
                    Ok(()) => Ok(gst::FlowSuccess::Ok),
                    Err(error) => {
                        gst::element_error!(sink, gst::StreamError::Failed, ["{error}"]);
                        Err(gst::FlowError::Error)
                    }
                }
            })
            .build(),
    );

    // From a thread of its own, which waits for room. When the pipeline stops, it is refused and ends.
    let pusher = std::thread::spawn(move || -> Result<(), gst::FlowError> {
        for number in 0..FRAMES {
            let mut buffer = gst::Buffer::from_mut_slice(vec![number as u8; info.size()]);
            let frame = buffer.get_mut().expect("a new buffer is ours alone");
            frame.set_pts(number * 40 * gst::ClockTime::MSECOND);
            frame.set_duration(40 * gst::ClockTime::MSECOND);
            frame.set_offset(number);
            source.push_buffer(buffer)?;
        }
        source.end_of_stream()?;
        Ok(())
    });
    comfy_examples::play(&pipeline, |_| ())?;
    pusher.join().expect("the thread does not panic")?;
    let back = results.load(Ordering::SeqCst);
    ensure!(back == FRAMES, "{back} of {FRAMES} frames came back");
    println!("all {FRAMES} frames came back in order");
    Ok(())
}

fn tell(frame: &gst::BufferRef, order: u64) -> Result<()> {
    let pixel = frame.map_readable()?[0];
    println!(
        "frame {} at {}: {pixel}",
        frame.offset(),
        frame.pts().context("a time")?
    );
    ensure!(frame.offset() == order, "frames come back in order");
    Ok(())
}

//! What does it cost to turn a frame into the model's tensor and back, beside `videoconvert` doing less?
//!
//! Ours goes from any format straight into the tensor, in one pass; videoconvert's library, called in this process
//! with one thread, goes to RGB bytes and would leave the tensor still to be made. Passes take turns, the least counts.

use std::time::Instant;

use anyhow::{Context, Result};
use comfy_core::tensor::{
    ChannelOrder, ColorRange, DType, FromTensor, Image, ImageMut, ImageSpec, ImageTensor, IntoTensor, Matrix,
    PixelFormat, Plane, PlaneMut, TensorMut, TensorRef,
};
use gst_video::{VideoFormat, VideoFrameExt, VideoFrameRef, VideoInfo};
use serde_json::{Value, json};

use super::frames::Frames;
use super::report::{Table, number, progress};

const SIZES: [(usize, usize); 2] = [(512, 512), (1920, 1080)];
/// Passes that take turns, and how long one lasts at least.
const PASSES: usize = 5;
const PASS_NS: u128 = 12_000_000;

fn gst_format(format: PixelFormat) -> VideoFormat {
    match format {
        PixelFormat::Rgb => VideoFormat::Rgb,
        PixelFormat::Bgr => VideoFormat::Bgr,
        PixelFormat::Rgba => VideoFormat::Rgba,
        PixelFormat::Bgrx => VideoFormat::Bgrx,
        PixelFormat::Rgbx => VideoFormat::Rgbx,
        PixelFormat::Bgra => VideoFormat::Bgra,
        PixelFormat::Nv12 => VideoFormat::Nv12,
        PixelFormat::I420 => VideoFormat::I420,
        PixelFormat::Gray8 => VideoFormat::Gray8,
        PixelFormat::P010 => VideoFormat::P01010le,
        PixelFormat::Rgbp => VideoFormat::Rgbp,
    }
}

fn info(format: VideoFormat, (width, height): (usize, usize)) -> Result<VideoInfo> {
    Ok(VideoInfo::builder(format, width as u32, height as u32).build()?)
}

fn spec(format: PixelFormat, (width, height): (usize, usize)) -> ImageSpec {
    ImageSpec {
        format,
        width,
        height,
        matrix: if height >= 720 { Matrix::Bt709 } else { Matrix::Bt601 },
        range: if format.is_yuv() {
            ColorRange::Limited
        } else {
            ColorRange::Full
        },
    }
}

/// One step, repeated for a while: nanoseconds of one.
fn pass(step: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed().as_nanos() < PASS_NS {
        step()?;
        count += 1;
    }
    Ok(begin.elapsed().as_nanos() as f64 / f64::from(count))
}

/// The least of several passes of each, in turns.
fn least<const N: usize>(mut steps: [&mut dyn FnMut() -> Result<()>; N]) -> Result<[f64; N]> {
    let mut least = [f64::INFINITY; N];
    for _ in 0..PASSES {
        for (step, least) in steps.iter_mut().zip(&mut least) {
            *least = least.min(pass(step)?);
        }
    }
    Ok(least)
}

/// videoconvert's own conversion of one frame.
fn converted(from: &VideoInfo, to: &VideoInfo, frame: &gst::BufferRef) -> Result<gst::Buffer> {
    let converter = gst_video::VideoConverter::new(from, to, None)?;
    let mut made = gst::Buffer::with_size(to.size())?;
    {
        let source = VideoFrameRef::from_buffer_ref_readable(frame, from)?;
        let mut target = VideoFrameRef::from_buffer_ref_writable(made.get_mut().expect("new"), to)?;
        converter.frame_ref(&source, &mut target);
    }
    Ok(made)
}

struct Costs {
    into_bytes: f64,
    into_f32: f64,
    from_bytes: f64,
    from_f32: f64,
    convert_to: f64,
    convert_from: f64,
}

fn costs(format: PixelFormat, size: (usize, usize), picture: &gst::BufferRef) -> Result<Costs> {
    let (theirs, rgb) = (info(gst_format(format), size)?, info(VideoFormat::Rgb, size)?);
    let frame = converted(&rgb, &theirs, picture)?;
    let mapped = VideoFrameRef::from_buffer_ref_readable(&frame, &theirs)?;
    let (data, strides) = (mapped.planes_data(), mapped.plane_stride());
    let mut image = Image::default();
    for plane in 0..format.planes() {
        image.planes[plane] = Plane {
            data: data[plane],
            stride: strides[plane] as usize,
        };
    }
    let tensor = |dtype, planar, scale| ImageTensor {
        dtype,
        planar,
        order: ChannelOrder::Rgb,
        width: size.0,
        height: size.1,
        scale: [scale; 3],
        bias: [0.0; 3],
    };
    let (bytes, floats) = (tensor(DType::U8, false, 1.0), tensor(DType::F32, true, 1.0 / 255.0));
    let spec = spec(format, size);
    let (mut into_bytes, mut into_floats) = (IntoTensor::new(spec, bytes)?, IntoTensor::new(spec, floats)?);
    let (mut from_bytes, mut from_floats) = (FromTensor::new(bytes, spec)?, FromTensor::new(floats, spec)?);
    let (mut numbers, mut values) = (vec![0u8; bytes.len()], vec![0f32; floats.len()]);
    into_bytes.run(&image, TensorMut::U8(&mut numbers))?;
    into_floats.run(&image, TensorMut::F32(&mut values))?;
    let (results, wishes) = (numbers.clone(), values.clone());

    let mut back = [
        gst::Buffer::with_size(theirs.size())?,
        gst::Buffer::with_size(theirs.size())?,
    ];
    let [back_bytes, back_floats] = &mut back;
    let mut back_bytes = VideoFrameRef::from_buffer_ref_writable(back_bytes.get_mut().expect("new"), &theirs)?;
    let mut back_floats = VideoFrameRef::from_buffer_ref_writable(back_floats.get_mut().expect("new"), &theirs)?;
    let to = gst_video::VideoConverter::new(&theirs, &rgb, None)?;
    let from = gst_video::VideoConverter::new(&rgb, &theirs, None)?;
    let mut target = gst::Buffer::with_size(rgb.size())?;
    let mut target = VideoFrameRef::from_buffer_ref_writable(target.get_mut().expect("new"), &rgb)?;
    let source = VideoFrameRef::from_buffer_ref_readable(picture, &rgb)?;
    let mut other = gst::Buffer::with_size(theirs.size())?;
    let mut other = VideoFrameRef::from_buffer_ref_writable(other.get_mut().expect("new"), &theirs)?;

    let [a, b, c, d, e, f] = least([
        &mut || Ok(into_bytes.run(&image, TensorMut::U8(&mut numbers))?),
        &mut || {
            to.frame_ref(&mapped, &mut target);
            Ok(())
        },
        &mut || Ok(into_floats.run(&image, TensorMut::F32(&mut values))?),
        &mut || {
            let _ = from_bytes.run(TensorRef::U8(&results), &mut writable(&mut back_bytes))?;
            Ok(())
        },
        &mut || {
            from.frame_ref(&source, &mut other);
            Ok(())
        },
        &mut || {
            let _ = from_floats.run(TensorRef::F32(&wishes), &mut writable(&mut back_floats))?;
            Ok(())
        },
    ])?;
    Ok(Costs {
        into_bytes: a,
        convert_to: b,
        into_f32: c,
        from_bytes: d,
        convert_from: e,
        from_f32: f,
    })
}

fn writable<'a>(frame: &'a mut VideoFrameRef<&mut gst::BufferRef>) -> ImageMut<'a> {
    let strides = [0, 1, 2].map(|plane| frame.plane_stride().get(plane).map_or(0, |stride| *stride as usize));
    let [a, b, c, _] = frame.planes_data_mut();
    ImageMut {
        planes: [(a, strides[0]), (b, strides[1]), (c, strides[2])].map(|(data, stride)| PlaneMut { data, stride }),
    }
}

/// The part of `make bench`.
pub(super) fn measure(report: &mut Value, frames: &Frames) -> Result<()> {
    let picture = frames.buffers.first().context("a frame")?;
    // Not from the caps: a rate is nothing that is converted here.
    let own = info(VideoFormat::Rgb, (frames.size.width, frames.size.height))?;
    let mut text = String::new();
    for size in SIZES {
        let scaled = converted(&own, &info(VideoFormat::Rgb, size)?, picture)?;
        let mut table = Table::new(&[
            "format",
            "to the tensor: videoconvert / ours, bytes",
            "videoconvert to RGB, us",
            "ours to bytes, us",
            "ours to f32 planes, us",
            "back: videoconvert / ours, bytes",
            "videoconvert from RGB, us",
            "ours from bytes, us",
            "ours from f32 planes, us",
        ]);
        for format in PixelFormat::ALL {
            let name = gst_format(format).to_str().to_string();
            progress(&format!("{name} {}x{}", size.0, size.1));
            let costs = costs(format, size, &scaled)?;
            let us = |ns: f64| format!("{:.0}", ns / 1000.0);
            // To RGB from RGB it only copies, or does not even that in a pipeline.
            let ratio = |theirs: f64, ours: f64| format!("{:.2}", theirs / ours);
            report["conversion"][format!("{}x{}", size.0, size.1)][&name] = json!({
                "into_bytes_ns": number(costs.into_bytes),
                "into_f32_ns": number(costs.into_f32),
                "from_bytes_ns": number(costs.from_bytes),
                "from_f32_ns": number(costs.from_f32),
                "videoconvert_to_rgb_ns": number(costs.convert_to),
                "videoconvert_from_rgb_ns": number(costs.convert_from),
            });
            table.line([
                name,
                ratio(costs.convert_to, costs.into_bytes),
                us(costs.convert_to),
                us(costs.into_bytes),
                us(costs.into_f32),
                ratio(costs.convert_from, costs.from_bytes),
                us(costs.convert_from),
                us(costs.from_bytes),
                us(costs.from_f32),
            ]);
        }
        text += &format!("{}x{}\n\n{}\n", size.0, size.1, table.markdown());
    }
    progress("");
    report["tables"]["conversion"] = json!(text);
    Ok(())
}

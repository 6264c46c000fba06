//! GStreamer's video descriptions as the core's.

use comfy_core::tensor::{ColorRange, Image, ImageMut, ImageSpec, Matrix, PixelFormat, Plane, PlaneMut};
use gst_video::VideoFrameExt;

/// GStreamer's name of a format.
pub(crate) fn format_name(format: PixelFormat) -> &'static str {
    match format {
        PixelFormat::Rgb => "RGB",
        PixelFormat::Bgr => "BGR",
        PixelFormat::Rgba => "RGBA",
        PixelFormat::Bgrx => "BGRx",
        PixelFormat::Rgbx => "RGBx",
        PixelFormat::Bgra => "BGRA",
        PixelFormat::Nv12 => "NV12",
        PixelFormat::I420 => "I420",
        PixelFormat::Gray8 => "GRAY8",
        PixelFormat::P010 => "P010_10LE",
        PixelFormat::Rgbp => "RGBP",
    }
}

fn pixel_format(format: gst_video::VideoFormat) -> Option<PixelFormat> {
    // These are all there are; what is converted in main memory is among them.
    PixelFormat::DEVICE
        .into_iter()
        .find(|f| format_name(*f) == format.to_str())
}

/// What a frame's bytes mean. None when the format is not one that is converted.
pub(crate) fn image_spec(info: &gst_video::VideoInfo) -> Option<ImageSpec> {
    let colorimetry = info.colorimetry();
    Some(ImageSpec {
        format: pixel_format(info.format())?,
        width: info.width() as usize,
        height: info.height() as usize,
        matrix: match colorimetry.matrix() {
            gst_video::VideoColorMatrix::Bt709 => Matrix::Bt709,
            gst_video::VideoColorMatrix::Bt2020 => Matrix::Bt2020,
            // Everything else that reaches us in 8 bits is closest to BT.601, GStreamer's own default for SD.
            _ => Matrix::Bt601,
        },
        range: match colorimetry.range() {
            gst_video::VideoColorRange::Range0_255 => ColorRange::Full,
            gst_video::VideoColorRange::Range16_235 => ColorRange::Limited,
            _ if info.is_yuv() => ColorRange::Limited,
            _ => ColorRange::Full,
        },
    })
}

/// A mapped frame to read. Strides come from the frame's own video meta, never from its width.
pub(crate) fn image<'a>(frame: &'a gst_video::VideoFrameRef<&'a gst::BufferRef>) -> Image<'a> {
    let mut image = Image::default();
    let data = frame.planes_data();
    for (plane, target) in image.planes.iter_mut().enumerate().take(frame.n_planes() as usize) {
        *target = Plane {
            data: data[plane],
            stride: frame.plane_stride()[plane].max(0) as usize,
        };
    }
    image
}

/// A mapped frame to write.
pub(crate) fn image_mut<'a>(frame: &'a mut gst_video::VideoFrameRef<&mut gst::BufferRef>) -> ImageMut<'a> {
    let mut strides = [0; 4];
    for (stride, plane) in strides.iter_mut().zip(frame.plane_stride()) {
        *stride = (*plane).max(0) as usize;
    }
    let [a, b, c, _] = frame.planes_data_mut();
    ImageMut {
        planes: [
            PlaneMut {
                data: a,
                stride: strides[0],
            },
            PlaneMut {
                data: b,
                stride: strides[1],
            },
            PlaneMut {
                data: c,
                stride: strides[2],
            },
        ],
    }
}

/// Duration of one frame at a rate above zero.
pub(crate) fn frame_duration(rate: gst::Fraction) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(1_000_000_000 * rate.denom().max(0) as u64 / rate.numer().max(1) as u64)
}

/// Passes on what downstream said about allocators and metas: the one that matters to frames is the video meta.
pub(crate) fn copy_allocation(from: &gst::query::Allocation, to: &mut gst::query::Allocation) {
    if from.find_allocation_meta::<gst_video::VideoMeta>().is_some() {
        to.add_allocation_meta::<gst_video::VideoMeta>(None);
    }
    for (allocator, params) in from.allocation_params() {
        to.add_allocation_param(allocator.as_ref(), params);
    }
}

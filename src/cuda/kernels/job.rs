//! The parameters of the kernels, field by field those of `frames.cu`.

use super::DeviceTensor;
use crate::tensor::{
    ChannelOrder, ColorRange, DType, DeviceImage, Fit, ImageSpec, ImageTensor, PixelFormat, Rectangle,
};

/// Frames of one launch.
pub(in crate::cuda) const FRAMES: usize = 16;
/// Pixels that a thread makes on the way into a tensor.
pub(in crate::cuda) const PIXELS: usize = 4;

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    plane: [u64; 3],
    stride: [u32; 3],
    unused: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Picture {
    format: i32,
    width: i32,
    height: i32,
    luma_zero: f32,
    luma_gain: f32,
    chroma_zero: f32,
    chroma_gain: f32,
    red_of_red: f32,
    green_of_blue: f32,
    green_of_red: f32,
    blue_of_blue: f32,
    luma_weights: [f32; 3],
    luma_scale: f32,
    blue_scale: f32,
    red_scale: f32,
    top: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Tensor {
    address: u64,
    dtype: i32,
    planar: i32,
    order: i32,
    channels: i32,
    width: i32,
    height: i32,
    scale: [f32; 3],
    bias: [f32; 3],
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Part {
    x: i32,
    y: i32,
    width: i32,
    height: i32,
}

/// Parameters of `frames_into`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct IntoJob {
    tensor: Tensor,
    picture: Picture,
    source: Part,
    target: Part,
    frames: [Frame; FRAMES],
}

/// Parameters of `frames_from`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct FromJob {
    tensor: Tensor,
    counter: u64,
    picture: Picture,
    share: f32,
    unused: u32,
    frames: [Frame; FRAMES],
    sources: [Frame; FRAMES],
}

/// Parameters of `invert`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct InvertJob {
    from: u64,
    to: u64,
    count: u64,
    dtype: i32,
    unused: u32,
}

impl IntoJob {
    /// These frames, no more than [`FRAMES`], into the tensor's images from `first` on.
    pub(super) fn new<'a>(
        spec: &ImageSpec,
        images: impl Iterator<Item = &'a DeviceImage>,
        tensor: &DeviceTensor,
        first: usize,
        fit: Fit,
    ) -> IntoJob {
        let image = &tensor.image;
        let (source, target) = fit.rectangles((spec.width, spec.height), (image.width, image.height));
        IntoJob {
            tensor: Tensor::new(tensor, first, image.scale),
            picture: Picture::new(spec),
            source: Part::new(&source),
            target: Part::new(&target),
            frames: table(images),
        }
    }
}

impl FromJob {
    /// The tensor's images from `first` on into these frames, no more than [`FRAMES`].
    pub(super) fn new(
        spec: &ImageSpec,
        images: &[DeviceImage],
        tensor: &DeviceTensor,
        first: usize,
        (sources, share): (&[DeviceImage], f32),
        counter: u64,
    ) -> FromJob {
        let mut scale = [1.0; 3];
        for (inverse, scale) in scale
            .iter_mut()
            .zip(tensor.image.scale)
            .take(tensor.image.order.channels())
        {
            *inverse = (1.0 / f64::from(scale)) as f32;
        }
        FromJob {
            tensor: Tensor::new(tensor, first, scale),
            counter,
            picture: Picture::new(spec),
            share,
            unused: 0,
            frames: table(images.iter()),
            sources: table(sources.iter()),
        }
    }
}

impl InvertJob {
    pub(super) fn new(dtype: DType, from: u64, to: u64, count: usize) -> InvertJob {
        InvertJob {
            from,
            to,
            count: count as u64,
            dtype: dtype_number(dtype),
            unused: 0,
        }
    }
}

impl Tensor {
    fn new(tensor: &DeviceTensor, first: usize, scale: [f32; 3]) -> Tensor {
        let image: &ImageTensor = &tensor.image;
        Tensor {
            address: tensor.address + (image.len() * image.dtype.size() * first) as u64,
            dtype: dtype_number(image.dtype),
            planar: i32::from(image.planar),
            order: match image.order {
                ChannelOrder::Rgb => 0,
                ChannelOrder::Bgr => 1,
                ChannelOrder::Gray => 2,
            },
            channels: image.order.channels() as i32,
            width: image.width as i32,
            height: image.height as i32,
            scale,
            bias: image.bias,
        }
    }
}

impl Picture {
    /// The numbers of the slow conversion, worked out in f64 and rounded once.
    fn new(spec: &ImageSpec) -> Picture {
        let (depth, top) = match spec.format {
            PixelFormat::P010 => (4.0, 1023.0),
            _ => (1.0, 255.0),
        };
        let (luma_zero, luma_codes, chroma_codes) = match spec.range {
            ColorRange::Full => (0.0, top, top),
            ColorRange::Limited => (16.0 * depth, 219.0 * depth, 224.0 * depth),
        };
        let (luma_scale, chroma_scale): (f64, f64) = (luma_codes / 255.0, chroma_codes / 255.0);
        let (kr, kb) = spec.matrix.weights();
        let (kr, kb) = (f64::from(kr), f64::from(kb));
        let kg = 1.0 - kr - kb;
        let (red, blue) = (2.0 * (1.0 - kr), 2.0 * (1.0 - kb));
        Picture {
            format: match spec.format {
                PixelFormat::Nv12 => 0,
                PixelFormat::P010 => 1,
                PixelFormat::I420 => 2,
                PixelFormat::Rgba | PixelFormat::Rgbx => 3,
                PixelFormat::Bgra | PixelFormat::Bgrx => 4,
                PixelFormat::Rgb => 5,
                PixelFormat::Bgr => 6,
                PixelFormat::Rgbp => 7,
                PixelFormat::Gray8 => 8,
            },
            width: spec.width as i32,
            height: spec.height as i32,
            luma_zero: luma_zero as f32,
            luma_gain: (1.0 / luma_scale) as f32,
            chroma_zero: (128.0 * depth) as f32,
            chroma_gain: (1.0 / chroma_scale) as f32,
            red_of_red: red as f32,
            green_of_blue: (-kb * blue / kg) as f32,
            green_of_red: (-kr * red / kg) as f32,
            blue_of_blue: blue as f32,
            luma_weights: [kr as f32, kg as f32, kb as f32],
            luma_scale: luma_scale as f32,
            blue_scale: (chroma_scale / blue) as f32,
            red_scale: (chroma_scale / red) as f32,
            top: top as f32,
        }
    }
}

impl Part {
    fn new(part: &Rectangle) -> Part {
        // No side of a picture is longer than 16384.
        Part {
            x: part.x as i32,
            y: part.y as i32,
            width: part.width as i32,
            height: part.height as i32,
        }
    }
}

fn dtype_number(dtype: DType) -> i32 {
    match dtype {
        DType::F16 => 1,
        DType::F32 => 2,
        _ => 0,
    }
}

fn table<'a>(images: impl Iterator<Item = &'a DeviceImage>) -> [Frame; FRAMES] {
    let mut table = [Frame::default(); FRAMES];
    for (frame, image) in table.iter_mut().zip(images) {
        *frame = Frame {
            plane: image.planes.map(|plane| plane.address),
            // Strides that matter were checked to fit.
            stride: image.planes.map(|plane| plane.stride as u32),
            unused: 0,
        };
    }
    table
}

//! Video frames and image tensors as plain descriptions.

use super::{DType, f16};

/// Pixel formats of frames, with GStreamer's names and byte orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum PixelFormat {
    Rgb,
    Bgr,
    Rgba,
    Bgrx,
    Rgbx,
    Bgra,
    /// 4:2:0, a luma plane and an interleaved chroma plane.
    Nv12,
    /// 4:2:0, three planes.
    I420,
    Gray8,
    /// 4:2:0 in 10 bits, `P010_10LE`: Nv12 with 16 bits a sample, little endian, of which the upper 10 count.
    P010,
    /// Three planes: red, green, blue.
    Rgbp,
}

impl PixelFormat {
    /// Every format that is converted in main memory, in order of preference.
    pub const ALL: [PixelFormat; 9] = [
        PixelFormat::Rgb,
        PixelFormat::Bgr,
        PixelFormat::Rgba,
        PixelFormat::Bgrx,
        PixelFormat::Rgbx,
        PixelFormat::Bgra,
        PixelFormat::Nv12,
        PixelFormat::I420,
        PixelFormat::Gray8,
    ];

    /// Every format that is converted in a GPU's memory, in order of preference: what decoders and encoders of a GPU
    /// speak comes first.
    pub const DEVICE: [PixelFormat; 11] = [
        PixelFormat::Nv12,
        PixelFormat::P010,
        PixelFormat::I420,
        PixelFormat::Rgba,
        PixelFormat::Bgra,
        PixelFormat::Rgbx,
        PixelFormat::Bgrx,
        PixelFormat::Rgb,
        PixelFormat::Bgr,
        PixelFormat::Rgbp,
        PixelFormat::Gray8,
    ];

    /// Number of planes, 1 to 3.
    pub fn planes(self) -> usize {
        match self {
            PixelFormat::Nv12 | PixelFormat::P010 => 2,
            PixelFormat::I420 | PixelFormat::Rgbp => 3,
            _ => 1,
        }
    }

    /// Whether it is luma and chroma, so that matrix and range matter. Gray8 is luma alone: only the range matters.
    pub fn is_yuv(self) -> bool {
        matches!(self, PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::P010)
    }

    /// Rows of a plane, and the bytes of one row that carry pixels.
    pub fn plane_size(self, plane: usize, width: usize, height: usize) -> (usize, usize) {
        let half_rows = height.div_ceil(2);
        let half_columns = width.div_ceil(2);
        match (self, plane) {
            (PixelFormat::Rgb | PixelFormat::Bgr, _) => (height, width * 3),
            (PixelFormat::Rgba | PixelFormat::Bgrx | PixelFormat::Rgbx | PixelFormat::Bgra, _) => (height, width * 4),
            (PixelFormat::Gray8 | PixelFormat::Rgbp, _) | (PixelFormat::Nv12 | PixelFormat::I420, 0) => (height, width),
            (PixelFormat::P010, 0) => (height, width * 2),
            (PixelFormat::P010, _) => (half_rows, half_columns * 4),
            (PixelFormat::Nv12, _) => (half_rows, half_columns * 2),
            (PixelFormat::I420, _) => (half_rows, half_columns),
        }
    }
}

/// Matrix between RGB and luma/chroma.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Matrix {
    Bt601,
    Bt709,
    /// With non-constant luminance.
    Bt2020,
}

impl Matrix {
    /// The weights of red and blue in luma (Kr, Kb), from ITU-R BT.601, BT.709 and BT.2020.
    pub fn weights(self) -> (f32, f32) {
        match self {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
            Matrix::Bt2020 => (0.2627, 0.0593),
        }
    }
}

/// Which byte values carry picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColorRange {
    /// 0 to 255.
    Full,
    /// Luma 16 to 235, chroma 16 to 240; in 10 bits four times as much.
    Limited,
}

/// What a frame's bytes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct ImageSpec {
    pub format: PixelFormat,
    pub width: usize,
    pub height: usize,
    /// Used by luma/chroma formats only.
    pub matrix: Matrix,
    /// Used by luma/chroma formats and Gray8.
    pub range: ColorRange,
}

/// How a frame gets into a tensor of another shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fit {
    /// All of the frame, in another shape.
    #[default]
    Stretch,
    /// The middle of the frame, as much of it as has the tensor's shape.
    Crop,
    /// All of the frame in its own shape, in the middle of the tensor. The rest is black: bytes of 0.
    Letterbox,
}

/// Part of a picture, in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Rectangle {
    pub x: usize,
    pub y: usize,
    pub width: usize,
    pub height: usize,
}

impl Rectangle {
    fn whole((width, height): (usize, usize)) -> Rectangle {
        Rectangle {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    /// The largest part of `(width, height)` with the shape of `shape`, in the middle: whole pixels, rounded to nearest,
    /// one at least.
    fn middle((width, height): (usize, usize), shape: (usize, usize)) -> Rectangle {
        // Halves go up. Neither product of sides can overflow, as no side is longer than 16384.
        let scaled = |side: usize, of: usize, by: usize| ((2 * side * of + by) / (2 * by)).max(1);
        let (inner_width, inner_height) = if width * shape.1 > height * shape.0 {
            (scaled(height, shape.0, shape.1).min(width), height)
        } else {
            (width, scaled(width, shape.1, shape.0).min(height))
        };
        Rectangle {
            x: (width - inner_width) / 2,
            y: (height - inner_height) / 2,
            width: inner_width,
            height: inner_height,
        }
    }
}

impl Fit {
    /// Which part of a frame becomes which part of a tensor. Sizes are (width, height), no side 0 or longer than
    /// [`super::convert::MAX_SIDE`].
    pub fn rectangles(self, frame: (usize, usize), tensor: (usize, usize)) -> (Rectangle, Rectangle) {
        match self {
            Fit::Stretch => (Rectangle::whole(frame), Rectangle::whole(tensor)),
            Fit::Crop => (Rectangle::middle(frame, tensor), Rectangle::whole(tensor)),
            Fit::Letterbox => (Rectangle::whole(frame), Rectangle::middle(tensor, frame)),
        }
    }
}

/// One plane to read. The last row may end with its last pixel, short of the stride.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plane<'a> {
    /// From the plane's first pixel on.
    pub data: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// One plane to write.
#[derive(Debug, Default)]
pub struct PlaneMut<'a> {
    /// From the plane's first pixel on.
    pub data: &'a mut [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// A frame to read. Planes that the format lacks are empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Image<'a> {
    /// In GStreamer's plane order.
    pub planes: [Plane<'a>; 3],
}

/// A frame to write. Planes that the format lacks are empty.
#[derive(Debug, Default)]
pub struct ImageMut<'a> {
    /// In GStreamer's plane order.
    pub planes: [PlaneMut<'a>; 3],
}

/// One plane in a GPU's memory: numbers, which nobody on this side may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DevicePlane {
    /// Device address of the plane's first pixel.
    pub address: u64,
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// A handle of somebody else's, which the driver follows in this process's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Handle(u64);

impl Handle {
    /// No handle.
    pub const NONE: Handle = Handle(0);

    /// A handle by its number.
    ///
    /// # Safety
    ///
    /// It is what it is used for, and alive for as long as this is used.
    #[allow(unsafe_code)]
    pub unsafe fn new(raw: u64) -> Handle {
        Handle(raw)
    }

    /// Its number.
    pub fn raw(self) -> u64 {
        self.0
    }
}

/// A frame in a GPU's memory. Planes that the format lacks are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceImage {
    /// In GStreamer's plane order.
    pub planes: [DevicePlane; 3],
    /// The stream (a `CUstream`) on which its last writer is still at work; none: it is complete.
    pub stream: Handle,
    /// The context (a `CUcontext`) that the memory belongs to, where that is not the device's primary one.
    pub context: Handle,
}

/// Which channel comes first in an image tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ChannelOrder {
    /// Red, green, blue: three channels.
    Rgb,
    /// Blue, green, red: three channels.
    Bgr,
    /// Luma alone, full range: one channel.
    Gray,
}

impl ChannelOrder {
    /// 3 or 1.
    pub fn channels(self) -> usize {
        match self {
            ChannelOrder::Rgb | ChannelOrder::Bgr => 3,
            ChannelOrder::Gray => 1,
        }
    }
}

/// One image inside a tensor: what its numbers mean.
///
/// A tensor value is `byte * scale[c] + bias[c]`, where `byte` is the full-range 0 to 255 value of channel `c`
/// in the tensor's own channel order. With `dtype` u8 the scale is 1 and the bias 0.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct ImageTensor {
    pub dtype: DType,
    /// Planes after each other (CHW) rather than interleaved (HWC).
    pub planar: bool,
    pub order: ChannelOrder,
    pub width: usize,
    pub height: usize,
    pub scale: [f32; 3],
    pub bias: [f32; 3],
}

impl ImageTensor {
    /// Elements of one image.
    pub fn len(&self) -> usize {
        self.width * self.height * self.order.channels()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor element type that image conversion handles.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// Its name.
    const DTYPE: DType;
    /// From a computed value. u8 saturates and rounds to nearest.
    fn from_f32(value: f32) -> Self;
    /// To a value.
    fn to_f32(self) -> f32;
}

impl Element for u8 {
    const DTYPE: DType = DType::U8;
    fn from_f32(value: f32) -> Self {
        // `as` saturates, and turns NaN into 0; adding half first makes it round rather than truncate.
        (value + 0.5) as u8
    }
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    fn from_f32(value: f32) -> Self {
        value
    }
    fn to_f32(self) -> f32 {
        self
    }
}

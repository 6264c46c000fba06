//! Shapes, dtypes and layouts of tensors, and the conversion between video frames and tensors.
//!
//! Dimension names used throughout: B batch, C channels, H height, W width.

pub mod convert;
pub mod fast;
pub mod image;
#[cfg(test)]
pub(crate) mod tests;

pub use convert::{ConvertError, Written};
pub use fast::{FromTensor, IntoTensor};
pub use half::f16;
pub use image::{
    ChannelOrder, ColorRange, DeviceImage, DevicePlane, Element, Fit, Handle, Image, ImageMut, ImageSpec, ImageTensor,
    Matrix, PixelFormat, Plane, PlaneMut, Rectangle,
};

/// Element type of a tensor. Image tensors use the first three; the others appear in non-image outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// Unsigned byte.
    U8,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::U8 => 1,
            DType::F16 => 2,
            DType::F32 | DType::I32 => 4,
            DType::I64 => 8,
        }
    }

    /// The name used in manifests and messages: `u8`, `f16`, `f32`, `i32`, `i64`.
    pub fn name(self) -> &'static str {
        match self {
            DType::U8 => "u8",
            DType::F16 => "f16",
            DType::F32 => "f32",
            DType::I32 => "i32",
            DType::I64 => "i64",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Order of an image tensor's dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Layout {
    /// One image, planes after each other.
    Chw,
    /// One image, channels interleaved.
    Hwc,
    /// A batch of planar images (ONNX's usual NCHW).
    Bchw,
    /// A batch of interleaved images (NHWC).
    Bhwc,
}

impl Layout {
    /// Whether the first dimension counts images.
    pub fn has_batch(self) -> bool {
        matches!(self, Layout::Bchw | Layout::Bhwc)
    }

    /// Whether each channel is a plane of its own.
    pub fn is_planar(self) -> bool {
        matches!(self, Layout::Chw | Layout::Bchw)
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Layout::Chw => "CHW",
            Layout::Hwc => "HWC",
            Layout::Bchw => "BCHW",
            Layout::Bhwc => "BHWC",
        })
    }
}

/// One dimension of a tensor as a model declares it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Always this many.
    Fixed(usize),
    /// Decided at run time; the model's name for it, empty when it has none.
    Dynamic(String),
}

impl Dim {
    /// The number, when it is fixed.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Dim::Fixed(n) => Some(*n),
            Dim::Dynamic(_) => None,
        }
    }
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Dynamic(name) if name.is_empty() => f.write_str("?"),
            Dim::Dynamic(name) => f.write_str(name),
        }
    }
}

/// A declared shape as text, `[batch, 3, height, width]`, for messages.
pub fn shape_text(shape: &[Dim]) -> String {
    let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// Tensor elements to read, in row-major order.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum TensorRef<'a> {
    U8(&'a [u8]),
    F16(&'a [f16]),
    F32(&'a [f32]),
    I32(&'a [i32]),
    I64(&'a [i64]),
}

impl TensorRef<'_> {
    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            TensorRef::U8(_) => DType::U8,
            TensorRef::F16(_) => DType::F16,
            TensorRef::F32(_) => DType::F32,
            TensorRef::I32(_) => DType::I32,
            TensorRef::I64(_) => DType::I64,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            TensorRef::U8(s) => s.len(),
            TensorRef::F16(s) => s.len(),
            TensorRef::F32(s) => s.len(),
            TensorRef::I32(s) => s.len(),
            TensorRef::I64(s) => s.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as bytes in the machine's byte order.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            TensorRef::U8(s) => s.to_vec(),
            TensorRef::F16(s) => s.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            TensorRef::F32(s) => s.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            TensorRef::I32(s) => s.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            TensorRef::I64(s) => s.iter().flat_map(|v| v.to_ne_bytes()).collect(),
        }
    }
}

/// Elements of an image tensor to write, in row-major order.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum TensorMut<'a> {
    U8(&'a mut [u8]),
    F16(&'a mut [f16]),
    F32(&'a mut [f32]),
}

impl TensorMut<'_> {
    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            TensorMut::U8(_) => DType::U8,
            TensorMut::F16(_) => DType::F16,
            TensorMut::F32(_) => DType::F32,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            TensorMut::U8(s) => s.len(),
            TensorMut::F16(s) => s.len(),
            TensorMut::F32(s) => s.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

//! The conversion between frames and image tensors, written to be read: one pixel at a time, in f64.
//!
//! It says what a conversion means; [`super::fast`] says how it is done at frame rate, and is compared with this.
//!
//! - A frame is first full-range RGB bytes. Luma and chroma become RGB by the matrix and the range, as real numbers,
//!   each rounded once. Each chroma sample holds for the 2x2 pixels it covers.
//! - A gray tensor holds full-range luma: `Kr R + Kg G + Kb B` of an RGB frame, the luma plane itself of a frame that
//!   has one. An RGB tensor of a gray frame holds its luma three times.
//! - A tensor of another size than the frame's is sampled from those bytes: see [`into_tensor`].
//! - Back, a value becomes `(value - bias) / scale`, a byte. NaN becomes 0, what lies outside 0 to 255 the nearer end.
//!   Luma and chroma are computed from those bytes; a chroma sample is that of the mean of the pixels it covers, two or
//!   one at the edge of an odd size. Alpha and padding bytes are 255.
//!
//! - The samples of P010 are codes of 10 bits, those of the standards: they become RGB bytes, and are made of RGB bytes,
//!   as those of 8 bits are, each rounded once to its own depth.
//!
//! Rounding is to nearest, ties to even, as numpy and PyTorch round. Truncation would be off by one on 159 of the 256
//! bytes of a picture that an f32 model inverts: `(1 - byte / 255) * 255`.

use super::{
    ChannelOrder, ColorRange, DType, Element, Fit, Image, ImageMut, ImageSpec, ImageTensor, PixelFormat, Rectangle,
    TensorMut, TensorRef, f16,
};

/// Longest side of a frame or an image tensor.
pub const MAX_SIDE: usize = 16_384;

/// A description and a buffer that do not fit each other, or a conversion that does not exist. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ConvertError {
    /// A side of the frame or the tensor is 0 or longer than [`MAX_SIDE`].
    #[error("a {what} of {width}x{height} cannot be converted: sides are 1 to {MAX_SIDE}")]
    Size {
        what: &'static str,
        width: usize,
        height: usize,
    },
    /// The tensor's element type is not one of images.
    #[error("an image tensor of {got} is not supported: use u8, f16 or f32")]
    DType { got: DType },
    /// The elements handed over are of another type than the description says.
    #[error("the tensor is described as {expected}, its elements are {got}")]
    OtherDType { expected: DType, got: DType },
    /// The tensor has more or fewer elements than its description says.
    #[error("the tensor has {got} elements, its description says {expected}")]
    TensorLen { expected: usize, got: usize },
    /// A row of this plane does not fit into its stride.
    #[error("plane {plane} has a stride of {got} bytes, its rows need {expected}")]
    Stride { plane: usize, expected: usize, got: usize },
    /// The plane ends before its last row does.
    #[error("plane {plane} has {got} bytes, its rows need {expected}")]
    PlaneLen { plane: usize, expected: usize, got: usize },
    /// The numbers cannot be turned back into bytes: a scale that is 0 or not finite, a bias that is not finite, or
    /// either of them on bytes, which are held as they are.
    #[error("channel {channel} of a tensor of {dtype} cannot have scale {scale} and bias {bias}")]
    Scale {
        channel: usize,
        dtype: DType,
        scale: f32,
        bias: f32,
    },
    /// On the way back to a frame the sizes have to be equal: a model's output is never resized.
    #[error("a tensor of {tensor:?} does not fill a frame of {frame:?}: (width, height) have to be equal")]
    Resize {
        tensor: (usize, usize),
        frame: (usize, usize),
    },
    /// The format is converted in a GPU's memory alone, and by the slow conversion.
    #[error("frames in {format:?} are not converted in main memory")]
    Format { format: PixelFormat },
}

/// What a conversion to a frame met.
#[must_use = "values that are not finite mean that the model has failed"]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Elements that were NaN or infinite.
    pub non_finite: usize,
}

/// Converts a frame into the tensor, slowly.
///
/// When the sizes differ, output pixel `x` of a side of `to` out of `from` is centred at `c = (x + 0.5) * from / to`;
/// input pixel `i` weighs `max(0, 1 - |i + 0.5 - c| / s)` with `s = max(1, from / to)`, over the pixels that exist, and
/// the weights are divided by their sum. So it is bilinear when growing and an antialiased triangle when shrinking, the
/// same as Pillow's `BILINEAR`. Both sides are weighed in real numbers and the result rounded to a byte once.
pub fn into_tensor(
    spec: &ImageSpec,
    image: &Image<'_>,
    tensor: &ImageTensor,
    out: TensorMut<'_>,
) -> Result<(), ConvertError> {
    fit_into_tensor(spec, image, tensor, Fit::Stretch, out)
}

/// Converts part of a frame into part of the tensor, slowly: those of [`Fit::rectangles`]. Pixels outside the part do
/// not exist for what is sampled; the rest of the tensor becomes bytes of 0.
pub fn fit_into_tensor(
    spec: &ImageSpec,
    image: &Image<'_>,
    tensor: &ImageTensor,
    fit: Fit,
    out: TensorMut<'_>,
) -> Result<(), ConvertError> {
    check_spec(spec)?;
    check_tensor(tensor)?;
    check_image(spec, image)?;
    check_elements(tensor, out.dtype(), out.len())?;
    match out {
        TensorMut::U8(out) => into_elements(spec, image, tensor, fit, out),
        TensorMut::F16(out) => into_elements(spec, image, tensor, fit, out),
        TensorMut::F32(out) => into_elements(spec, image, tensor, fit, out),
    }
    Ok(())
}

/// Converts a tensor into a frame of the same size, slowly.
pub fn from_tensor(
    tensor: &ImageTensor,
    data: TensorRef<'_>,
    spec: &ImageSpec,
    image: &mut ImageMut<'_>,
) -> Result<Written, ConvertError> {
    check_spec(spec)?;
    check_tensor(tensor)?;
    check_same_size(tensor, spec)?;
    check_image_mut(spec, image)?;
    check_elements(tensor, data.dtype(), data.len())?;
    Ok(match data {
        TensorRef::U8(data) => from_elements(tensor, data, spec, image),
        TensorRef::F16(data) => from_elements::<f16>(tensor, data, spec, image),
        TensorRef::F32(data) => from_elements::<f32>(tensor, data, spec, image),
        TensorRef::I32(_) | TensorRef::I64(_) => return Err(ConvertError::DType { got: data.dtype() }),
    })
}

/// Mixes `share` of the source, 0 to 1, into a frame of the same description, slowly: each sample becomes
/// `own * (1 - share) + source * share`, of luma and chroma where the frame has them. Alpha and padding bytes are left.
pub fn blend(spec: &ImageSpec, source: &Image<'_>, share: f32, image: &mut ImageMut<'_>) -> Result<(), ConvertError> {
    check_spec(spec)?;
    check_image(spec, source)?;
    check_image_mut(spec, image)?;
    let share = f64::from(share);
    let mix = |own: f64, source: f64| (own * (1.0 - share) + source * share).round_ties_even();
    for plane in 0..spec.format.planes() {
        let (rows, row) = spec.format.plane_size(plane, spec.width, spec.height);
        for y in 0..rows {
            let from = &source.planes[plane].data[y * source.planes[plane].stride..][..row];
            let stride = image.planes[plane].stride;
            let to = &mut image.planes[plane].data[y * stride..][..row];
            if spec.format == PixelFormat::P010 {
                for (to, from) in to.as_chunks_mut().0.iter_mut().zip(from.as_chunks().0) {
                    let code = mix(from_p010(*to), from_p010(*from));
                    *to = to_p010(code);
                }
                continue;
            }
            for (at, (to, &from)) in to.iter_mut().zip(from).enumerate() {
                let is_alpha = matches!(rgb_offsets(spec.format), Some((_, 4))) && at % 4 == 3;
                if !is_alpha {
                    *to = mix(f64::from(*to), f64::from(from)) as u8;
                }
            }
        }
    }
    Ok(())
}

/// Refuses what is not converted at frame rate in main memory.
pub(super) fn check_format(spec: &ImageSpec) -> Result<(), ConvertError> {
    match spec.format {
        PixelFormat::P010 | PixelFormat::Rgbp => Err(ConvertError::Format { format: spec.format }),
        _ => Ok(()),
    }
}

/// Refuses a frame without pixels or with too many.
pub(crate) fn check_spec(spec: &ImageSpec) -> Result<(), ConvertError> {
    check_side("frame", spec.width, spec.height)
}

/// Refuses a tensor that is no image, or whose numbers cannot be turned back.
pub(crate) fn check_tensor(tensor: &ImageTensor) -> Result<(), ConvertError> {
    let dtype = tensor.dtype;
    if !matches!(dtype, DType::U8 | DType::F16 | DType::F32) {
        return Err(ConvertError::DType { got: dtype });
    }
    check_side("tensor", tensor.width, tensor.height)?;
    for channel in 0..tensor.order.channels() {
        let (scale, bias) = (tensor.scale[channel], tensor.bias[channel]);
        let usable = if dtype == DType::U8 {
            scale == 1.0 && bias == 0.0
        } else {
            // The inverse of a subnormal scale is infinite.
            scale.is_normal() && bias.is_finite()
        };
        if !usable {
            return Err(ConvertError::Scale {
                channel,
                dtype,
                scale,
                bias,
            });
        }
    }
    Ok(())
}

/// Refuses to resize on the way back.
pub(crate) fn check_same_size(tensor: &ImageTensor, spec: &ImageSpec) -> Result<(), ConvertError> {
    let (tensor, frame) = ((tensor.width, tensor.height), (spec.width, spec.height));
    if tensor == frame {
        Ok(())
    } else {
        Err(ConvertError::Resize { tensor, frame })
    }
}

/// Refuses elements that are not what the description says.
pub(super) fn check_elements(tensor: &ImageTensor, dtype: DType, len: usize) -> Result<(), ConvertError> {
    if dtype != tensor.dtype {
        return Err(ConvertError::OtherDType {
            expected: tensor.dtype,
            got: dtype,
        });
    }
    if len != tensor.len() {
        return Err(ConvertError::TensorLen {
            expected: tensor.len(),
            got: len,
        });
    }
    Ok(())
}

/// Refuses planes that end too early.
pub(super) fn check_image(spec: &ImageSpec, image: &Image<'_>) -> Result<(), ConvertError> {
    check_planes(spec, image.planes.map(|plane| (plane.data.len(), plane.stride)))
}

/// Refuses planes that end too early.
pub(super) fn check_image_mut(spec: &ImageSpec, image: &ImageMut<'_>) -> Result<(), ConvertError> {
    check_planes(
        spec,
        image.planes.each_ref().map(|plane| (plane.data.len(), plane.stride)),
    )
}

fn check_side(what: &'static str, width: usize, height: usize) -> Result<(), ConvertError> {
    let sides = 1..=MAX_SIDE;
    if sides.contains(&width) && sides.contains(&height) {
        Ok(())
    } else {
        Err(ConvertError::Size { what, width, height })
    }
}

fn check_planes(spec: &ImageSpec, planes: [(usize, usize); 3]) -> Result<(), ConvertError> {
    for (plane, &(len, stride)) in planes.iter().enumerate().take(spec.format.planes()) {
        let (rows, row) = spec.format.plane_size(plane, spec.width, spec.height);
        if stride < row {
            return Err(ConvertError::Stride {
                plane,
                expected: row,
                got: stride,
            });
        }
        // A stride near the end of the address space cannot be met by any slice, and neither can the largest number.
        let expected = stride.saturating_mul(rows - 1).saturating_add(row);
        if len < expected {
            return Err(ConvertError::PlaneLen {
                plane,
                expected,
                got: len,
            });
        }
    }
    Ok(())
}

/// Where red, green and blue are in a pixel, and the pixel's bytes. None for formats with luma or a plane per color.
pub(super) fn rgb_offsets(format: PixelFormat) -> Option<([usize; 3], usize)> {
    match format {
        PixelFormat::Rgb => Some(([0, 1, 2], 3)),
        PixelFormat::Bgr => Some(([2, 1, 0], 3)),
        PixelFormat::Rgba | PixelFormat::Rgbx => Some(([0, 1, 2], 4)),
        PixelFormat::Bgra | PixelFormat::Bgrx => Some(([2, 1, 0], 4)),
        PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Gray8 | PixelFormat::P010 | PixelFormat::Rgbp => None,
    }
}

/// Luma and chroma as codes, against luma from 0 to 255 and chroma from -127.5 to 127.5.
struct Levels {
    luma_zero: f64,
    luma_scale: f64,
    chroma_zero: f64,
    chroma_scale: f64,
    /// The largest code.
    top: f64,
}

impl Levels {
    fn new(spec: &ImageSpec) -> Self {
        // How many codes of this depth there are for one of 8 bits, and the largest.
        let (depth, top) = if spec.format == PixelFormat::P010 {
            (4.0, 1023.0)
        } else {
            (1.0, 255.0)
        };
        let (luma_zero, luma_codes, chroma_codes) = match spec.range {
            ColorRange::Full => (0.0, top, top),
            ColorRange::Limited => (16.0 * depth, 219.0 * depth, 224.0 * depth),
        };
        Levels {
            luma_zero,
            luma_scale: luma_codes / 255.0,
            chroma_zero: 128.0 * depth,
            chroma_scale: chroma_codes / 255.0,
            top,
        }
    }

    fn luma(&self, code: f64) -> f64 {
        (code - self.luma_zero) / self.luma_scale
    }

    fn chroma(&self, code: f64) -> f64 {
        (code - self.chroma_zero) / self.chroma_scale
    }

    fn luma_code(&self, luma: f64) -> f64 {
        self.nearest(luma * self.luma_scale + self.luma_zero)
    }

    fn chroma_code(&self, chroma: f64) -> f64 {
        self.nearest(chroma * self.chroma_scale + self.chroma_zero)
    }

    fn nearest(&self, code: f64) -> f64 {
        code.round_ties_even().clamp(0.0, self.top)
    }
}

/// The weights of red, green and blue in luma.
fn luma_weights(spec: &ImageSpec) -> [f64; 3] {
    let (red, blue) = spec.matrix.weights();
    let (red, blue) = (f64::from(red), f64::from(blue));
    [red, 1.0 - red - blue, blue]
}

fn luma_of(spec: &ImageSpec, rgb: [f64; 3]) -> f64 {
    luma_weights(spec)
        .iter()
        .zip(rgb)
        .map(|(weight, value)| weight * value)
        .sum()
}

/// The nearest byte. NaN becomes 0.
fn to_byte(value: f64) -> u8 {
    // `as` saturates and turns NaN into 0.
    value.round_ties_even() as u8
}

fn into_elements<T: Element>(spec: &ImageSpec, image: &Image<'_>, tensor: &ImageTensor, fit: Fit, out: &mut [T]) {
    let channels = tensor.order.channels();
    let (source, target) = fit.rectangles((spec.width, spec.height), (tensor.width, tensor.height));
    let bytes = channel_bytes(spec, image, &source, tensor.order);
    let bytes = resized(&bytes, &source, &target, channels);
    for y in 0..tensor.height {
        for x in 0..tensor.width {
            let inside = |at: usize, from: usize, side: usize| at.checked_sub(from).filter(|&at| at < side);
            let at = inside(x, target.x, target.width).zip(inside(y, target.y, target.height));
            for channel in 0..channels {
                let byte = at.map_or(0, |(x, y)| bytes[(y * target.width + x) * channels + channel]);
                let value = f32::from(byte) * tensor.scale[channel] + tensor.bias[channel];
                out[element_index(tensor, x, y, channel)] = T::from_f32(value);
            }
        }
    }
}

fn element_index(tensor: &ImageTensor, x: usize, y: usize, channel: usize) -> usize {
    if tensor.planar {
        (channel * tensor.height + y) * tensor.width + x
    } else {
        (y * tensor.width + x) * tensor.order.channels() + channel
    }
}

/// A part of the frame in the tensor's channels, interleaved.
fn channel_bytes(spec: &ImageSpec, image: &Image<'_>, part: &Rectangle, order: ChannelOrder) -> Vec<u8> {
    let mut bytes = Vec::new();
    for y in part.y..part.y + part.height {
        for x in part.x..part.x + part.width {
            match order {
                ChannelOrder::Rgb => bytes.extend(rgb_at(spec, image, x, y)),
                ChannelOrder::Bgr => bytes.extend(rgb_at(spec, image, x, y).into_iter().rev()),
                ChannelOrder::Gray => bytes.push(gray_at(spec, image, x, y)),
            }
        }
    }
    bytes
}

fn rgb_at(spec: &ImageSpec, image: &Image<'_>, x: usize, y: usize) -> [u8; 3] {
    if let Some((offsets, pixel)) = rgb_offsets(spec.format) {
        return offsets.map(|offset| byte_at(image, 0, x * pixel + offset, y));
    }
    let [blue_chroma, red_chroma] = match spec.format {
        PixelFormat::Rgbp => return [0, 1, 2].map(|plane| byte_at(image, plane, x, y)),
        PixelFormat::Gray8 => return [gray_at(spec, image, x, y); 3],
        PixelFormat::I420 => [
            code_at(spec, image, 1, x / 2, y / 2),
            code_at(spec, image, 2, x / 2, y / 2),
        ],
        _ => [0, 1].map(|chroma| code_at(spec, image, 1, x / 2 * 2 + chroma, y / 2)),
    };
    let levels = Levels::new(spec);
    let [kr, kg, kb] = luma_weights(spec);
    let luma = levels.luma(code_at(spec, image, 0, x, y));
    let red = luma + 2.0 * (1.0 - kr) * levels.chroma(red_chroma);
    let blue = luma + 2.0 * (1.0 - kb) * levels.chroma(blue_chroma);
    let green = (luma - kr * red - kb * blue) / kg;
    [red, green, blue].map(to_byte)
}

fn gray_at(spec: &ImageSpec, image: &Image<'_>, x: usize, y: usize) -> u8 {
    if has_luma(spec.format) {
        to_byte(Levels::new(spec).luma(code_at(spec, image, 0, x, y)))
    } else {
        to_byte(luma_of(spec, rgb_at(spec, image, x, y).map(f64::from)))
    }
}

fn has_luma(format: PixelFormat) -> bool {
    format.is_yuv() || format == PixelFormat::Gray8
}

/// Sample `x` of a row of luma or chroma.
fn code_at(spec: &ImageSpec, image: &Image<'_>, plane: usize, x: usize, y: usize) -> f64 {
    if spec.format == PixelFormat::P010 {
        from_p010([0, 1].map(|byte| byte_at(image, plane, x * 2 + byte, y)))
    } else {
        f64::from(byte_at(image, plane, x, y))
    }
}

fn from_p010(sample: [u8; 2]) -> f64 {
    f64::from(u16::from_le_bytes(sample) >> 6)
}

fn to_p010(code: f64) -> [u8; 2] {
    ((code as u16) << 6).to_le_bytes()
}

fn byte_at(image: &Image<'_>, plane: usize, offset: usize, y: usize) -> u8 {
    let plane = &image.planes[plane];
    plane.data[y * plane.stride + offset]
}

/// Interleaved bytes of the one part's size, sampled at the other's.
fn resized(bytes: &[u8], from: &Rectangle, to: &Rectangle, channels: usize) -> Vec<u8> {
    if (from.width, from.height) == (to.width, to.height) {
        return bytes.to_vec();
    }
    let mut out = Vec::new();
    for y in 0..to.height {
        let rows = sample_weights(from.height, to.height, y);
        for x in 0..to.width {
            let columns = sample_weights(from.width, to.width, x);
            for channel in 0..channels {
                let mut sum = 0.0;
                for &(row, row_weight) in &rows {
                    for &(column, column_weight) in &columns {
                        let byte = bytes[(row * from.width + column) * channels + channel];
                        sum += row_weight * column_weight * f64::from(byte);
                    }
                }
                out.push(to_byte(sum));
            }
        }
    }
    out
}

/// The input pixels that output pixel `at` is made of, and their weights, which sum to 1.
fn sample_weights(from: usize, to: usize, at: usize) -> Vec<(usize, f64)> {
    let ratio = from as f64 / to as f64;
    let reach = ratio.max(1.0);
    let centre = (at as f64 + 0.5) * ratio;
    // The casts saturate at 0; one pixel more on either side weighs nothing.
    let first = (centre - reach) as usize;
    let last = ((centre + reach) as usize + 1).min(from);
    let weights: Vec<_> = (first..last)
        .map(|i| (i, (1.0 - (i as f64 + 0.5 - centre).abs() / reach).max(0.0)))
        .collect();
    let sum: f64 = weights.iter().map(|&(_, weight)| weight).sum();
    weights.into_iter().map(|(i, weight)| (i, weight / sum)).collect()
}

fn from_elements<T: Element>(tensor: &ImageTensor, data: &[T], spec: &ImageSpec, image: &mut ImageMut<'_>) -> Written {
    let rgb = |x: usize, y: usize| {
        let byte = |channel| {
            let value = f64::from(data[element_index(tensor, x, y, channel)].to_f32());
            to_byte((value - f64::from(tensor.bias[channel])) / f64::from(tensor.scale[channel]))
        };
        match tensor.order {
            ChannelOrder::Rgb => [byte(0), byte(1), byte(2)],
            ChannelOrder::Bgr => [byte(2), byte(1), byte(0)],
            ChannelOrder::Gray => [byte(0); 3],
        }
    };
    let levels = Levels::new(spec);
    for y in 0..spec.height {
        for x in 0..spec.width {
            if has_luma(spec.format) {
                let luma = levels.luma_code(luma_of(spec, rgb(x, y).map(f64::from)));
                put_code(spec, image, 0, x, y, luma);
            } else if let Some((offsets, pixel)) = rgb_offsets(spec.format) {
                put_byte(image, 0, x * pixel + pixel - 1, y, 255);
                for (offset, byte) in offsets.into_iter().zip(rgb(x, y)) {
                    put_byte(image, 0, x * pixel + offset, y, byte);
                }
            } else {
                for (plane, byte) in rgb(x, y).into_iter().enumerate() {
                    put_byte(image, plane, x, y, byte);
                }
            }
        }
    }
    if spec.format.is_yuv() {
        let [kr, _, kb] = luma_weights(spec);
        for y in 0..spec.height.div_ceil(2) {
            for x in 0..spec.width.div_ceil(2) {
                let mean = mean_of_block(spec, x, y, &rgb);
                let luma = luma_of(spec, mean);
                let blue_chroma = levels.chroma_code((mean[2] - luma) / (2.0 * (1.0 - kb)));
                let red_chroma = levels.chroma_code((mean[0] - luma) / (2.0 * (1.0 - kr)));
                if spec.format == PixelFormat::I420 {
                    put_code(spec, image, 1, x, y, blue_chroma);
                    put_code(spec, image, 2, x, y, red_chroma);
                } else {
                    put_code(spec, image, 1, x * 2, y, blue_chroma);
                    put_code(spec, image, 1, x * 2 + 1, y, red_chroma);
                }
            }
        }
    }
    Written {
        non_finite: data.iter().filter(|value| !value.to_f32().is_finite()).count(),
    }
}

/// The mean of the pixels that a chroma sample covers.
fn mean_of_block(spec: &ImageSpec, x: usize, y: usize, rgb: &impl Fn(usize, usize) -> [u8; 3]) -> [f64; 3] {
    let (mut sum, mut count) = ([0.0; 3], 0.0);
    for row in y * 2..(y * 2 + 2).min(spec.height) {
        for column in x * 2..(x * 2 + 2).min(spec.width) {
            for (sum, byte) in sum.iter_mut().zip(rgb(column, row)) {
                *sum += f64::from(byte);
            }
            count += 1.0;
        }
    }
    sum.map(|sum| sum / count)
}

/// Sample `x` of a row of luma or chroma.
fn put_code(spec: &ImageSpec, image: &mut ImageMut<'_>, plane: usize, x: usize, y: usize, code: f64) {
    if spec.format == PixelFormat::P010 {
        for (byte, value) in to_p010(code).into_iter().enumerate() {
            put_byte(image, plane, x * 2 + byte, y, value);
        }
    } else {
        put_byte(image, plane, x, y, code as u8);
    }
}

fn put_byte(image: &mut ImageMut<'_>, plane: usize, offset: usize, y: usize, byte: u8) {
    let plane = &mut image.planes[plane];
    plane.data[y * plane.stride + offset] = byte;
}

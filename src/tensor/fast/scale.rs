//! Between bytes and a tensor's numbers, a row at a time.

use half::slice::HalfFloatSliceExt;

use super::dispatch::dispatch;
use crate::tensor::{Element, ImageTensor, f16};

/// Numbers after which the scales of three interleaved channels repeat, and which fill whole vectors.
const PERIOD: usize = 24;

/// 2^23: an f32 from here on has no fraction bits, so that adding it rounds, ties to even, and leaves the result in
/// the low bits. A conversion by `as` costs several times more, for its saturation.
const ROUND: f32 = 8_388_608.0;

/// The numbers of one channel, or of interleaved channels.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    scale: [f32; PERIOD],
    inverse: [f32; PERIOD],
    bias: [f32; PERIOD],
    /// All numbers have the same scale and bias.
    uniform: bool,
}

impl Scale {
    /// Of one plane.
    pub(super) fn channel(tensor: &ImageTensor, channel: usize) -> Self {
        Scale::new(tensor, |_| channel)
    }

    /// Of interleaved channels.
    pub(super) fn interleaved(tensor: &ImageTensor) -> Self {
        let channels = tensor.order.channels();
        Scale::new(tensor, |i| i % channels)
    }

    fn new(tensor: &ImageTensor, channel: impl Fn(usize) -> usize) -> Self {
        let scale: [f32; PERIOD] = std::array::from_fn(|i| tensor.scale[channel(i)]);
        let bias: [f32; PERIOD] = std::array::from_fn(|i| tensor.bias[channel(i)]);
        let uniform = scale.iter().all(|&v| v == scale[0]) && bias.iter().all(|&v| v == bias[0]);
        Scale {
            scale,
            inverse: scale.map(f32::recip),
            bias,
            uniform,
        }
    }
}

/// An element type, and how its rows become bytes and bytes its rows. Rows of u8 are bytes already: nothing is
/// converted where the slices below are used.
pub(super) trait Number: Element {
    /// Bytes to numbers.
    fn write(bytes: &[u8], scale: &Scale, numbers: &mut [Self]);

    /// Numbers to bytes; whether one of them is NaN or infinite. `floats` is as long as the row for f16, else unused.
    fn read(numbers: &[Self], scale: &Scale, floats: &mut [f32], bytes: &mut [u8]) -> bool;

    /// The row itself, if it is bytes.
    fn as_bytes(numbers: &[Self]) -> Option<&[u8]>;

    /// The row itself, if it is bytes.
    fn as_bytes_mut(numbers: &mut [Self]) -> Option<&mut [u8]>;
}

impl Number for u8 {
    fn write(bytes: &[u8], _scale: &Scale, numbers: &mut [Self]) {
        numbers.copy_from_slice(bytes);
    }

    fn read(numbers: &[Self], _scale: &Scale, _floats: &mut [f32], bytes: &mut [u8]) -> bool {
        bytes.copy_from_slice(numbers);
        false
    }

    fn as_bytes(numbers: &[Self]) -> Option<&[u8]> {
        Some(numbers)
    }

    fn as_bytes_mut(numbers: &mut [Self]) -> Option<&mut [u8]> {
        Some(numbers)
    }
}

impl Number for f32 {
    fn write(bytes: &[u8], scale: &Scale, numbers: &mut [Self]) {
        dispatch(write_body::<f32>, (bytes, scale, numbers));
    }

    fn read(numbers: &[Self], scale: &Scale, _floats: &mut [f32], bytes: &mut [u8]) -> bool {
        dispatch(read_body, (numbers, scale, bytes))
    }

    fn as_bytes(_numbers: &[Self]) -> Option<&[u8]> {
        None
    }

    fn as_bytes_mut(_numbers: &mut [Self]) -> Option<&mut [u8]> {
        None
    }
}

impl Number for f16 {
    fn write(bytes: &[u8], scale: &Scale, numbers: &mut [Self]) {
        dispatch(write_body::<f16>, (bytes, scale, numbers));
    }

    fn read(numbers: &[Self], scale: &Scale, floats: &mut [f32], bytes: &mut [u8]) -> bool {
        numbers.convert_to_f32_slice(floats);
        dispatch(read_body, (floats, scale, bytes))
    }

    fn as_bytes(_numbers: &[Self]) -> Option<&[u8]> {
        None
    }

    fn as_bytes_mut(_numbers: &mut [Self]) -> Option<&mut [u8]> {
        None
    }
}

/// A number as it is stored: [`Element::from_f32`], in instructions that vectors have.
trait Stored: Copy {
    fn stored(value: f32) -> Self;
}

impl Stored for f32 {
    #[inline(always)]
    fn stored(value: f32) -> Self {
        value
    }
}

impl Stored for f16 {
    /// After Fabian Giesen's `float_to_half_fast3_rtne`. Not for NaN, which no byte becomes.
    #[inline(always)]
    fn stored(value: f32) -> Self {
        // 0.5: its last bit weighs as much as f16's smallest number.
        const SUBNORMAL_MAGIC: f32 = 0.5;
        const SMALLEST_NORMAL: u32 = 113 << 23;
        const TOO_LARGE: u32 = 143 << 23;
        let bits = value.to_bits();
        let sign = (bits >> 16) as u16 & 0x8000;
        let magnitude = bits & 0x7fff_ffff;
        let odd = (magnitude >> 13) & 1;
        let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
        let subnormal = (f32::from_bits(magnitude) + SUBNORMAL_MAGIC)
            .to_bits()
            .wrapping_sub(SUBNORMAL_MAGIC.to_bits());
        let finite = if magnitude < SMALLEST_NORMAL { subnormal } else { normal };
        let rounded = if magnitude < TOO_LARGE { finite } else { 0x7c00 };
        f16::from_bits(sign | rounded as u16)
    }
}

#[inline(always)]
fn write_body<T: Stored>((bytes, scale, numbers): (&[u8], &Scale, &mut [T])) {
    if scale.uniform {
        let (scale, bias) = (scale.scale[0], scale.bias[0]);
        for (number, byte) in numbers.iter_mut().zip(bytes) {
            *number = T::stored(f32::from(*byte) * scale + bias);
        }
        return;
    }
    let (byte_chunks, byte_rest) = bytes.as_chunks::<PERIOD>();
    let (number_chunks, number_rest) = numbers.as_chunks_mut::<PERIOD>();
    for (numbers, bytes) in number_chunks.iter_mut().zip(byte_chunks) {
        for i in 0..PERIOD {
            numbers[i] = T::stored(f32::from(bytes[i]) * scale.scale[i] + scale.bias[i]);
        }
    }
    let scales = scale.scale.iter().zip(&scale.bias);
    for ((number, byte), (scale, bias)) in number_rest.iter_mut().zip(byte_rest).zip(scales) {
        *number = T::stored(f32::from(*byte) * scale + bias);
    }
}

#[inline(always)]
fn read_body((numbers, scale, bytes): (&[f32], &Scale, &mut [u8])) -> bool {
    let mut non_finite = 0;
    if scale.uniform {
        let (inverse, bias) = (scale.inverse[0], scale.bias[0]);
        for (byte, number) in bytes.iter_mut().zip(numbers) {
            non_finite |= non_finite_bit(*number);
            *byte = nearest_byte(*number, inverse, bias);
        }
        return non_finite >> 31 != 0;
    }
    let (number_chunks, number_rest) = numbers.as_chunks::<PERIOD>();
    let (byte_chunks, byte_rest) = bytes.as_chunks_mut::<PERIOD>();
    for (numbers, bytes) in number_chunks.iter().zip(byte_chunks) {
        for i in 0..PERIOD {
            non_finite |= non_finite_bit(numbers[i]);
            bytes[i] = nearest_byte(numbers[i], scale.inverse[i], scale.bias[i]);
        }
    }
    let scales = scale.inverse.iter().zip(&scale.bias);
    for ((number, byte), (inverse, bias)) in number_rest.iter().zip(byte_rest).zip(scales) {
        non_finite |= non_finite_bit(*number);
        *byte = nearest_byte(*number, *inverse, *bias);
    }
    non_finite >> 31 != 0
}

/// The nearest byte to `(number - bias) / scale`; 0 for NaN.
#[inline(always)]
fn nearest_byte(number: f32, inverse: f32, bias: f32) -> u8 {
    let value = (number - bias) * inverse;
    // Comparisons rather than `max` and `min`: one instruction each, and NaN becomes 0.
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < 255.0 { value } else { 255.0 };
    (value + ROUND).to_bits() as u8
}

/// The top bit is set if the number is NaN or infinite: its exponent is all ones, and one more carries.
#[inline(always)]
fn non_finite_bit(number: f32) -> u32 {
    (number.to_bits() & 0x7fff_ffff) + 0x0080_0000
}

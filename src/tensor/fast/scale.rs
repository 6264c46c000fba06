//! Between bytes and a tensor's numbers, a row at a time.

use super::dispatch::{RowLoop, dispatch, from_halves, to_halves};
use crate::tensor::{Element, ImageTensor, f16};

/// Numbers converted at a time. Three interleaved channels repeat after it, and what is between the two steps of f16
/// stays in the first-level cache.
const BLOCK: usize = 384;

/// 2^23: an f32 from here on has no fraction bits, so that adding it rounds, ties to even, and leaves the result in
/// the low bits. A conversion by `as` costs several times more, for its saturation.
const ROUND: f32 = 8_388_608.0;

/// The numbers of one channel, or of interleaved channels: of each number of a block its own, so that the loops have
/// no inner ones.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    scale: Vec<f32>,
    inverse: Vec<f32>,
    bias: Vec<f32>,
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
        let scale: Vec<f32> = (0..BLOCK).map(|i| tensor.scale[channel(i)]).collect();
        let bias: Vec<f32> = (0..BLOCK).map(|i| tensor.bias[channel(i)]).collect();
        let uniform = scale.iter().all(|&v| v == scale[0]) && bias.iter().all(|&v| v == bias[0]);
        Scale {
            inverse: scale.iter().map(|scale| scale.recip()).collect(),
            scale,
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

    /// Numbers to bytes; whether one of them is NaN or infinite.
    fn read(numbers: &[Self], scale: &Scale, bytes: &mut [u8]) -> bool;

    /// The row itself, if it is bytes.
    fn as_bytes(numbers: &[Self]) -> Option<&[u8]>;

    /// The row itself, if it is bytes.
    fn as_bytes_mut(numbers: &mut [Self]) -> Option<&mut [u8]>;
}

impl Number for u8 {
    fn write(bytes: &[u8], _scale: &Scale, numbers: &mut [Self]) {
        numbers.copy_from_slice(bytes);
    }

    fn read(numbers: &[Self], _scale: &Scale, bytes: &mut [u8]) -> bool {
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
        dispatch(Write(bytes, scale, numbers));
    }

    fn read(numbers: &[Self], scale: &Scale, bytes: &mut [u8]) -> bool {
        dispatch(Read(numbers, scale, bytes))
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
        let mut floats = [0.0; BLOCK];
        for (bytes, numbers) in bytes.chunks(BLOCK).zip(numbers.chunks_mut(BLOCK)) {
            let floats = &mut floats[..bytes.len()];
            dispatch(Write(bytes, scale, &mut *floats));
            to_halves(floats, numbers);
        }
    }

    fn read(numbers: &[Self], scale: &Scale, bytes: &mut [u8]) -> bool {
        let mut floats = [0.0; BLOCK];
        let mut non_finite = false;
        for (numbers, bytes) in numbers.chunks(BLOCK).zip(bytes.chunks_mut(BLOCK)) {
            let floats = &mut floats[..numbers.len()];
            from_halves(numbers, floats);
            non_finite |= dispatch(Read(&*floats, scale, bytes));
        }
        non_finite
    }

    fn as_bytes(_numbers: &[Self]) -> Option<&[u8]> {
        None
    }

    fn as_bytes_mut(_numbers: &mut [Self]) -> Option<&mut [u8]> {
        None
    }
}

struct Write<'a>(&'a [u8], &'a Scale, &'a mut [f32]);

impl RowLoop for Write<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Write(bytes, scale, numbers) = self;
        if scale.uniform {
            let (scale, bias) = (scale.scale[0], scale.bias[0]);
            for (number, byte) in numbers.iter_mut().zip(bytes) {
                *number = f32::from(*byte) * scale + bias;
            }
            return;
        }
        for (bytes, numbers) in bytes.chunks(BLOCK).zip(numbers.chunks_mut(BLOCK)) {
            for (((number, byte), scale), bias) in numbers.iter_mut().zip(bytes).zip(&scale.scale).zip(&scale.bias) {
                *number = f32::from(*byte) * scale + bias;
            }
        }
    }
}

struct Read<'a>(&'a [f32], &'a Scale, &'a mut [u8]);

impl RowLoop for Read<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let Read(numbers, scale, bytes) = self;
        let mut non_finite = 0;
        if scale.uniform {
            let (inverse, bias) = (scale.inverse[0], scale.bias[0]);
            for (byte, number) in bytes.iter_mut().zip(numbers) {
                non_finite |= non_finite_bit(*number);
                *byte = nearest_byte(*number, inverse, bias);
            }
            return non_finite >> 31 != 0;
        }
        for (bytes, numbers) in bytes.chunks_mut(BLOCK).zip(numbers.chunks(BLOCK)) {
            for (((byte, number), inverse), bias) in bytes.iter_mut().zip(numbers).zip(&scale.inverse).zip(&scale.bias)
            {
                non_finite |= non_finite_bit(*number);
                *byte = nearest_byte(*number, *inverse, *bias);
            }
        }
        non_finite >> 31 != 0
    }
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

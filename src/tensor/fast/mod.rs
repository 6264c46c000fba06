//! The conversion between frames and image tensors at frame rate.
//!
//! What a conversion means is said in [`super::convert`], with which these agree: exactly where bytes are only moved
//! and scaled into numbers, within 1 of 255 where numbers become bytes, luma or chroma is computed, or the picture is
//! resized, and within 2 where luma and chroma are computed first and resized then.
//!
//! A frame is gone through once, a row at a time: a row is taken apart into channels of bytes, and these become the
//! tensor's numbers, or the other way round. The row between is in the first-level cache, and every loop works on whole
//! rows of plain numbers, which the compiler turns into vector instructions. Nothing is allocated after `new`.

mod dispatch;
mod from;
mod into;
mod resize;
mod rows;
mod scale;
mod yuv;

pub use from::FromTensor;
pub use into::IntoTensor;

/// Three rows of `len` out of scratch memory.
fn three(scratch: &mut [u8], len: usize) -> [&mut [u8]; 3] {
    let (a, rest) = scratch.split_at_mut(len);
    let (b, c) = rest.split_at_mut(len);
    [a, b, &mut c[..len]]
}

//! The one place that asks which instructions the processor has.
//!
//! The build's target has SSE2 only, which cannot shuffle bytes: with AVX2, taking RGB apart takes an eighth of the
//! time, and arithmetic less than half. AVX-512 narrows numbers to bytes in one instruction, which makes the way back
//! to a frame almost twice as fast again. The loops are plain Rust, compiled three times. Only half precision is
//! written in the processor's own terms, as no stable type of Rust stands for it.
#![allow(unsafe_code)]

use half::slice::HalfFloatSliceExt;

use crate::tensor::f16;

/// A loop over one row, which [`dispatch`] compiles for the best instructions there are.
pub(super) trait RowLoop {
    /// What it comes to.
    type Output;

    /// Goes through the row. It has to be `#[inline(always)]`, and so has everything it calls: what is not inlined is
    /// compiled for the build's target alone. A function or closure in its place would not do, as the compiler
    /// decides by itself whether to inline the call.
    fn run(self) -> Self::Output;
}

/// Runs a loop with the best instructions that the processor has.
#[inline]
pub(super) fn dispatch<L: RowLoop>(row: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
    {
        // SAFETY: the function's only requirements are these five, which the processor has just been found to have.
        return unsafe { x86::with_avx512(row) };
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the function's only requirement is AVX2, which the processor has just been found to have.
        return unsafe { x86::with_avx2(row) };
    }
    row.run()
}

/// Rounds to nearest, ties to even. The slices are of one length.
pub(super) fn to_halves(floats: &[f32], halves: &mut [f16]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") && is_x86_feature_detected!("f16c") {
        // SAFETY: the function's only requirements are AVX and F16C, which the processor has just been found to have.
        return unsafe { x86::to_halves(floats, halves) };
    }
    halves.convert_from_f32_slice(floats);
}

/// The slices are of one length.
pub(super) fn from_halves(halves: &[f16], floats: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") && is_x86_feature_detected!("f16c") {
        // SAFETY: the function's only requirements are AVX and F16C, which the processor has just been found to have.
        return unsafe { x86::from_halves(halves, floats) };
    }
    halves.convert_to_f32_slice(floats);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_cvtph_ps, _mm256_cvtps_ph,
        _mm256_loadu_ps, _mm256_storeu_ps,
    };

    use half::slice::HalfFloatSliceExt;

    use super::RowLoop;
    use crate::tensor::f16;

    #[target_feature(enable = "avx2")]
    pub(super) fn with_avx2<L: RowLoop>(row: L) -> L::Output {
        row.run()
    }

    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn with_avx512<L: RowLoop>(row: L) -> L::Output {
        row.run()
    }

    #[target_feature(enable = "avx,f16c")]
    pub(super) fn to_halves(floats: &[f32], halves: &mut [f16]) {
        let (float_chunks, float_rest) = floats.as_chunks::<8>();
        let (half_chunks, half_rest) = halves.as_chunks_mut::<8>();
        for (floats, halves) in float_chunks.iter().zip(half_chunks) {
            // SAFETY: an array of eight f32 is read and one of eight f16 written, each in full; neither need be
            // aligned, and every bit pattern is an f16.
            unsafe {
                let halved = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(floats.as_ptr()));
                _mm_storeu_si128(halves.as_mut_ptr().cast(), halved);
            }
        }
        half_rest.convert_from_f32_slice(float_rest);
    }

    #[target_feature(enable = "avx,f16c")]
    pub(super) fn from_halves(halves: &[f16], floats: &mut [f32]) {
        let (half_chunks, half_rest) = halves.as_chunks::<8>();
        let (float_chunks, float_rest) = floats.as_chunks_mut::<8>();
        for (halves, floats) in half_chunks.iter().zip(float_chunks) {
            // SAFETY: an array of eight f16 is read and one of eight f32 written, each in full; neither need be
            // aligned.
            unsafe {
                let widened = _mm256_cvtph_ps(_mm_loadu_si128(halves.as_ptr().cast()));
                _mm256_storeu_ps(floats.as_mut_ptr(), widened);
            }
        }
        half_rest.convert_to_f32_slice(float_rest);
    }
}

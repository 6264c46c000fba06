//! The one place that asks which instructions the processor has.
//!
//! The build's target has SSE2 only, which cannot shuffle bytes: taking RGB apart is several times slower than with
//! AVX2. The loops are plain Rust, compiled twice.
#![allow(unsafe_code)]

/// Runs a loop over one row, compiled for the best instructions there are. The body has to be `#[inline(always)]`:
/// otherwise it is compiled once, for the build's target, and called from here.
#[inline]
pub(super) fn dispatch<A, R>(body: impl FnOnce(A) -> R, arguments: A) -> R {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the function's only requirement is AVX2, which the processor has just been found to have.
        return unsafe { with_avx2(body, arguments) };
    }
    body(arguments)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2<A, R>(body: impl FnOnce(A) -> R, arguments: A) -> R {
    body(arguments)
}

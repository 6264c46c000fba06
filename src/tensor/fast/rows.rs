//! Taking rows of pixels apart into channels, and putting them together.

use super::dispatch::dispatch;

/// Takes pixels of `N` bytes apart: their first three bytes, each into a row of its own.
pub(super) fn split<const N: usize>(pixels: &[u8], channels: [&mut [u8]; 3]) {
    dispatch(split_body::<N>, (pixels, channels));
}

/// Puts three channels together to pixels of `N` bytes. A fourth byte is 255.
pub(super) fn join<const N: usize>(channels: [&[u8]; 3], pixels: &mut [u8]) {
    dispatch(join_body::<N>, (channels, pixels));
}

/// Copies pixels of `N` bytes into pixels of `M` bytes, the first three bytes turned round if `SWAP`. A fourth byte
/// is 255.
pub(super) fn repack<const N: usize, const M: usize, const SWAP: bool>(from: &[u8], to: &mut [u8]) {
    dispatch(repack_body::<N, M, SWAP>, (from, to));
}

/// Takes pairs of bytes apart.
pub(super) fn split_pairs(pairs: &[u8], first: &mut [u8], second: &mut [u8]) {
    dispatch(split_pairs_body, (pairs, first, second));
}

/// Puts pairs of bytes together.
pub(super) fn join_pairs(first: &[u8], second: &[u8], pairs: &mut [u8]) {
    dispatch(join_pairs_body, (first, second, pairs));
}

#[inline(always)]
fn split_body<const N: usize>((pixels, [a, b, c]): (&[u8], [&mut [u8]; 3])) {
    let (pixels, _) = pixels.as_chunks::<N>();
    for (((pixel, a), b), c) in pixels.iter().zip(a).zip(b).zip(c) {
        (*a, *b, *c) = (pixel[0], pixel[1], pixel[2]);
    }
}

#[inline(always)]
fn join_body<const N: usize>(([a, b, c], pixels): ([&[u8]; 3], &mut [u8])) {
    let (pixels, _) = pixels.as_chunks_mut::<N>();
    for (((pixel, a), b), c) in pixels.iter_mut().zip(a).zip(b).zip(c) {
        (pixel[0], pixel[1], pixel[2]) = (*a, *b, *c);
        if N == 4 {
            pixel[3] = 255;
        }
    }
}

#[inline(always)]
fn repack_body<const N: usize, const M: usize, const SWAP: bool>((from, to): (&[u8], &mut [u8])) {
    let (from, _) = from.as_chunks::<N>();
    let (to, _) = to.as_chunks_mut::<M>();
    for (from, to) in from.iter().zip(to) {
        let [first, last] = if SWAP { [2, 0] } else { [0, 2] };
        (to[0], to[1], to[2]) = (from[first], from[1], from[last]);
        if M == 4 {
            to[3] = 255;
        }
    }
}

#[inline(always)]
fn split_pairs_body((pairs, first, second): (&[u8], &mut [u8], &mut [u8])) {
    let (pairs, _) = pairs.as_chunks::<2>();
    for ((pair, first), second) in pairs.iter().zip(first).zip(second) {
        (*first, *second) = (pair[0], pair[1]);
    }
}

#[inline(always)]
fn join_pairs_body((first, second, pairs): (&[u8], &[u8], &mut [u8])) {
    let (pairs, _) = pairs.as_chunks_mut::<2>();
    for ((pair, first), second) in pairs.iter_mut().zip(first).zip(second) {
        *pair = [*first, *second];
    }
}

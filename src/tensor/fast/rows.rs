//! Taking rows of pixels apart into channels, and putting them together.

use super::dispatch::{RowLoop, dispatch};

/// Takes pixels of `N` bytes apart: their first three bytes, each into a row of its own.
pub(super) fn split<const N: usize>(pixels: &[u8], channels: [&mut [u8]; 3]) {
    dispatch(Split::<N>(pixels, channels));
}

/// Puts three channels together to pixels of `N` bytes. A fourth byte is 255.
pub(super) fn join<const N: usize>(channels: [&[u8]; 3], pixels: &mut [u8]) {
    dispatch(Join::<N>(channels, pixels));
}

/// Copies pixels of `N` bytes into pixels of `M` bytes, the first three bytes turned round if `SWAP`. A fourth byte
/// is 255.
pub(super) fn repack<const N: usize, const M: usize, const SWAP: bool>(from: &[u8], to: &mut [u8]) {
    dispatch(Repack::<N, M, SWAP>(from, to));
}

/// Takes pairs of bytes apart.
pub(super) fn split_pairs(pairs: &[u8], first: &mut [u8], second: &mut [u8]) {
    dispatch(SplitPairs(pairs, first, second));
}

/// Puts pairs of bytes together.
pub(super) fn join_pairs(first: &[u8], second: &[u8], pairs: &mut [u8]) {
    dispatch(JoinPairs(first, second, pairs));
}

struct Split<'a, const N: usize>(&'a [u8], [&'a mut [u8]; 3]);

impl<const N: usize> RowLoop for Split<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Split(pixels, [a, b, c]) = self;
        let (pixels, _) = pixels.as_chunks::<N>();
        for (((pixel, a), b), c) in pixels.iter().zip(a).zip(b).zip(c) {
            (*a, *b, *c) = (pixel[0], pixel[1], pixel[2]);
        }
    }
}

struct Join<'a, const N: usize>([&'a [u8]; 3], &'a mut [u8]);

impl<const N: usize> RowLoop for Join<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Join([a, b, c], pixels) = self;
        let (pixels, _) = pixels.as_chunks_mut::<N>();
        for (((pixel, a), b), c) in pixels.iter_mut().zip(a).zip(b).zip(c) {
            (pixel[0], pixel[1], pixel[2]) = (*a, *b, *c);
            if N == 4 {
                pixel[3] = 255;
            }
        }
    }
}

struct Repack<'a, const N: usize, const M: usize, const SWAP: bool>(&'a [u8], &'a mut [u8]);

impl<const N: usize, const M: usize, const SWAP: bool> RowLoop for Repack<'_, N, M, SWAP> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Repack(from, to) = self;
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
}

struct SplitPairs<'a>(&'a [u8], &'a mut [u8], &'a mut [u8]);

impl RowLoop for SplitPairs<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let SplitPairs(pairs, first, second) = self;
        let (pairs, _) = pairs.as_chunks::<2>();
        for ((pair, first), second) in pairs.iter().zip(first).zip(second) {
            (*first, *second) = (pair[0], pair[1]);
        }
    }
}

struct JoinPairs<'a>(&'a [u8], &'a [u8], &'a mut [u8]);

impl RowLoop for JoinPairs<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let JoinPairs(first, second, pairs) = self;
        let (pairs, _) = pairs.as_chunks_mut::<2>();
        for ((pair, first), second) in pairs.iter_mut().zip(first).zip(second) {
            *pair = [*first, *second];
        }
    }
}

//! Sampling a frame at another size: the triangle filter of [`crate::tensor::convert::into_tensor`], one axis after
//! the other.

use super::dispatch::{RowLoop, dispatch};
use super::rows::join;

/// Turns rows of one size into rows of another. Weights and rows are f32, so that only the final byte is rounded.
#[derive(Debug)]
pub(super) struct Resizer {
    /// 4 for RGB, whose pixels are widened to fill a vector, or 1.
    lanes: usize,
    across: Weights,
    down: Weights,
    /// The last rows of the frame, as many as one row of the tensor needs, each at its number modulo that many.
    ring: Vec<u8>,
    /// Length of a row in the ring, and of `blended`.
    row_len: usize,
    /// Rows of the frame that have been read.
    read: usize,
    /// The rows of the ring, weighed.
    blended: Vec<f32>,
    /// One row of the frame, channels apart.
    channels: Vec<u8>,
    from_width: usize,
}

impl Resizer {
    pub(super) fn new(channels: usize, from: (usize, usize), to: (usize, usize)) -> Self {
        let lanes = if channels == 1 { 1 } else { 4 };
        let down = Weights::new(from.1, to.1);
        let row_len = from.0 * lanes;
        Resizer {
            lanes,
            across: Weights::new(from.0, to.0),
            ring: vec![0; row_len * down.taps],
            down,
            row_len,
            read: 0,
            blended: vec![0.0; row_len],
            channels: vec![0; from.0 * channels],
            from_width: from.0,
        }
    }

    /// Forgets the rows of the frame before.
    pub(super) fn restart(&mut self) {
        self.read = 0;
    }

    /// Makes row `y`; rows are asked for from top to bottom. `read` reads a row of the frame.
    pub(super) fn row(&mut self, y: usize, out: [&mut [u8]; 3], mut read: impl FnMut(usize, [&mut [u8]; 3])) {
        let (first, weights) = self.down.of(y);
        let taps = self.down.taps;
        self.read = self.read.max(first);
        while self.read < first + taps {
            let slot = &mut self.ring[self.read % taps * self.row_len..][..self.row_len];
            if self.lanes == 1 {
                read(self.read, [slot, &mut [], &mut []]);
            } else {
                let (a, rest) = self.channels.split_at_mut(self.from_width);
                let (b, c) = rest.split_at_mut(self.from_width);
                read(self.read, [&mut *a, &mut *b, &mut *c]);
                join::<4>([a, b, c], slot);
            }
            self.read += 1;
        }
        dispatch(Blend(&self.ring, first, weights, &mut self.blended));
        if self.lanes == 1 {
            let [out, ..] = out;
            dispatch(SampleGray(&self.blended, &self.across, out));
        } else {
            dispatch(Sample(&self.blended, &self.across, out));
        }
    }
}

/// What each output sample of one axis is made of.
#[derive(Debug)]
struct Weights {
    /// First input sample, per output sample.
    first: Vec<u32>,
    /// Input samples per output sample: the same for all, the weights filled up with 0.
    taps: usize,
    weights: Vec<f32>,
}

impl Weights {
    fn new(from: usize, to: usize) -> Self {
        let ratio = from as f64 / to as f64;
        let reach = ratio.max(1.0);
        // Samples strictly nearer than `reach` to the centre: no more than this fit into twice the reach.
        let taps = ((2.0 * reach).ceil() as usize).min(from);
        let mut first = Vec::with_capacity(to);
        let mut weights = Vec::with_capacity(to * taps);
        for i in 0..to {
            let centre = (i as f64 + 0.5) * ratio;
            // The first sample whose centre is inside; the cast saturates at 0.
            let start = ((centre - reach + 0.5).floor() as usize).min(from - taps);
            let raw = |tap: usize| (1.0 - ((start + tap) as f64 + 0.5 - centre).abs() / reach).max(0.0);
            let sum: f64 = (0..taps).map(raw).sum();
            first.push(start as u32);
            weights.extend((0..taps).map(|tap| (raw(tap) / sum) as f32));
        }
        Weights { first, taps, weights }
    }

    /// The first input sample of an output sample, and the weights from there on.
    fn of(&self, i: usize) -> (usize, &[f32]) {
        (self.first[i] as usize, &self.weights[i * self.taps..][..self.taps])
    }
}

/// Sums that the compiler keeps in registers while it goes through the rows.
const BLOCK: usize = 32;

struct Blend<'a>(&'a [u8], usize, &'a [f32], &'a mut [f32]);

impl RowLoop for Blend<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Blend(ring, first, weights, out) = self;
        let row_len = out.len();
        let taps = weights.len();
        let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
        let rest_at = row_len - rest.len();
        for (i, block) in blocks.iter_mut().enumerate() {
            let mut sums = [0.0; BLOCK];
            let mut slot = first % taps;
            for &weight in weights {
                let (bytes, _) = ring[slot * row_len + i * BLOCK..][..BLOCK].as_chunks::<BLOCK>();
                for (sum, byte) in sums.iter_mut().zip(&bytes[0]) {
                    *sum += weight * f32::from(*byte);
                }
                slot = if slot + 1 == taps { 0 } else { slot + 1 };
            }
            *block = sums;
        }
        for (i, out) in rest.iter_mut().enumerate() {
            let row = |tap: usize| (first + tap) % taps * row_len + rest_at + i;
            *out = weights
                .iter()
                .enumerate()
                .map(|(tap, weight)| weight * f32::from(ring[row(tap)]))
                .sum();
        }
    }
}

struct Sample<'a>(&'a [f32], &'a Weights, [&'a mut [u8]; 3]);

impl RowLoop for Sample<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Sample(pixels, across, [a, b, c]) = self;
        let (pixels, _) = pixels.as_chunks::<4>();
        let weights = across.weights.chunks_exact(across.taps);
        for ((((&first, weights), a), b), c) in across.first.iter().zip(weights).zip(a).zip(b).zip(c) {
            let mut sums = [0.0; 4];
            for (pixel, weight) in pixels[first as usize..][..weights.len()].iter().zip(weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += weight * value;
                }
            }
            let [red, green, blue, _] = sums.map(nearest_byte);
            (*a, *b, *c) = (red, green, blue);
        }
    }
}

struct SampleGray<'a>(&'a [f32], &'a Weights, &'a mut [u8]);

impl RowLoop for SampleGray<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let SampleGray(samples, across, out) = self;
        let weights = across.weights.chunks_exact(across.taps);
        for ((&first, weights), out) in across.first.iter().zip(weights).zip(out) {
            let samples = &samples[first as usize..][..weights.len()];
            *out = nearest_byte(
                samples
                    .iter()
                    .zip(weights)
                    .map(|(sample, weight)| sample * weight)
                    .sum(),
            );
        }
    }
}

/// Of a mean of bytes, which is never far outside their range. Adding 2^23 rounds.
#[inline(always)]
fn nearest_byte(value: f32) -> u8 {
    (value + 8_388_608.0).to_bits() as u8
}

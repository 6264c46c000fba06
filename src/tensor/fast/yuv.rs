//! Luma and chroma, a row at a time, in 16-bit fixed point: twice the lanes of f32.
//!
//! Everything is a product of a byte and a weight of which the upper half is kept, so a result is within 1 of the
//! oracle's, and equal for most; gray stays exactly gray.

use super::dispatch::{RowLoop, dispatch};
use crate::tensor::{ColorRange, ImageSpec};

/// Fraction bits of RGB before it is rounded to bytes. Six leave room for 511 in 16 bits; sums saturate there, far
/// from what becomes a byte.
const RGB_BITS: u32 = 6;

/// From luma and chroma to RGB.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToRgb {
    /// Of luma, with 14 fraction bits.
    luma: u16,
    /// What luma's zero comes to, less the half that rounds. Fraction bits: [`RGB_BITS`].
    offset: i16,
    /// Of red chroma in red; blue and red chroma in green; blue chroma in blue, with 16 fraction bits.
    red: i32,
    green: [i32; 2],
    blue: i32,
}

impl ToRgb {
    pub(super) fn new(spec: &ImageSpec) -> Self {
        let levels = Levels::new(spec.range);
        let [kr, kg, kb] = luma_weights(spec);
        let fixed = |weight: f64| (weight / levels.chroma * 65_536.0).round() as i32;
        // Rounded up: the product of luma loses its lower half, which is down.
        let luma = (16_384.0 / levels.luma).ceil() as u16;
        let half = 1 << (RGB_BITS - 1);
        ToRgb {
            luma,
            offset: upper(levels.zero << 8, luma) as i16 - half,
            red: fixed(2.0 * (1.0 - kr)),
            green: [fixed(-2.0 * kb * (1.0 - kb) / kg), fixed(-2.0 * kr * (1.0 - kr) / kg)],
            blue: fixed(2.0 * (1.0 - kb)),
        }
    }

    /// What a row of chroma adds to red, green and blue, each sample twice.
    pub(super) fn chroma_terms(&self, blue: &[u8], red: &[u8], terms: [&mut [i16]; 3]) {
        dispatch(ChromaTerms(*self, blue, red, terms));
    }

    /// A row of RGB from luma and what chroma adds.
    pub(super) fn row(&self, luma: &[u8], terms: [&[i16]; 3], rgb: [&mut [u8]; 3]) {
        for (terms, out) in terms.into_iter().zip(rgb) {
            dispatch(Rgb(*self, luma, terms, out));
        }
    }

    /// Luma alone, stretched to 0 to 255.
    pub(super) fn gray(&self, luma: &[u8], gray: &mut [u8]) {
        dispatch(Gray(*self, luma, gray));
    }
}

/// From RGB to luma and chroma.
#[derive(Debug, Clone, Copy)]
pub(super) struct FromRgb {
    /// Of red, green and blue in luma, with 16 fraction bits.
    luma: [u16; 3],
    /// Luma's zero and the half that rounds, with 8 fraction bits.
    luma_offset: u16,
    /// Of red, green and blue in blue chroma and in red chroma, with 16 fraction bits. The first is added, the others
    /// are taken away.
    blue: [u16; 3],
    red: [u16; 3],
}

impl FromRgb {
    /// `range` is the frame's; for a gray tensor it is full.
    pub(super) fn new(spec: &ImageSpec, range: ColorRange) -> Self {
        let levels = Levels::new(range);
        let weights = luma_weights(spec);
        let fixed = |weight: f64| (weight * 65_536.0).round() as u16;
        let [kr, kg, kb] = weights;
        let mut luma = weights.map(|weight| fixed(weight * levels.luma));
        // The weights have to sum up to the whole, or white would not stay white. The sum of the range full is 65536.
        luma[1] = ((levels.luma * 65_536.0).round() as u32 - u32::from(luma[0]) - u32::from(luma[2])) as u16;
        let chroma = |own: f64, others: [f64; 2]| {
            let all = fixed(0.5 * levels.chroma);
            let first = fixed(0.5 * levels.chroma * others[0] / (1.0 - own));
            [all, first, all - first]
        };
        FromRgb {
            luma,
            // The product of each of the three loses half a step on average; one step more makes up for it.
            luma_offset: (levels.zero << 8) + 128 + 1,
            blue: chroma(kb, [kr, kg]),
            red: chroma(kr, [kb, kg]),
        }
    }

    /// A row of luma.
    pub(super) fn luma_row(&self, rgb: [&[u8]; 3], luma: &mut [u8]) {
        dispatch(Luma(*self, rgb, luma));
    }

    /// A row of luma of a gray picture.
    pub(super) fn luma_of_gray(&self, gray: &[u8], luma: &mut [u8]) {
        dispatch(LumaOfGray(*self, gray, luma));
    }

    /// A row of blue and of red chroma from two rows of RGB, whose lengths are even.
    pub(super) fn chroma_row(&self, upper: [&[u8]; 3], lower: [&[u8]; 3], blue: &mut [u8], red: &mut [u8]) {
        dispatch(Chroma(*self, upper, lower, blue, red));
    }
}

/// Where luma's zero is, and what is left of luma's and chroma's span of 255.
struct Levels {
    zero: u16,
    luma: f64,
    chroma: f64,
}

impl Levels {
    fn new(range: ColorRange) -> Self {
        match range {
            ColorRange::Full => Levels {
                zero: 0,
                luma: 1.0,
                chroma: 1.0,
            },
            ColorRange::Limited => Levels {
                zero: 16,
                luma: 219.0 / 255.0,
                chroma: 224.0 / 255.0,
            },
        }
    }
}

fn luma_weights(spec: &ImageSpec) -> [f64; 3] {
    let (red, blue) = spec.matrix.weights();
    let (red, blue) = (f64::from(red), f64::from(blue));
    [red, 1.0 - red - blue, blue]
}

/// The upper half of a product: one instruction on vectors.
#[inline(always)]
fn upper(a: u16, b: u16) -> u16 {
    ((u32::from(a) * u32::from(b)) >> 16) as u16
}

struct ChromaTerms<'a>(ToRgb, &'a [u8], &'a [u8], [&'a mut [i16]; 3]);

impl RowLoop for ChromaTerms<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let ChromaTerms(to, blue, red, [r, g, b]) = self;
        let (r, _) = r.as_chunks_mut::<2>();
        let (g, _) = g.as_chunks_mut::<2>();
        let (b, _) = b.as_chunks_mut::<2>();
        let round = |sum: i32| ((sum + (1 << (15 - RGB_BITS))) >> (16 - RGB_BITS)) as i16;
        for ((((blue, red), r), g), b) in blue.iter().zip(red).zip(r).zip(g).zip(b) {
            let (blue, red) = (i32::from(*blue) - 128, i32::from(*red) - 128);
            *r = [round(to.red * red); 2];
            *g = [round(to.green[0] * blue + to.green[1] * red); 2];
            *b = [round(to.blue * blue); 2];
        }
    }
}

struct Rgb<'a>(ToRgb, &'a [u8], &'a [i16], &'a mut [u8]);

impl RowLoop for Rgb<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Rgb(to, luma, terms, out) = self;
        for ((luma, term), out) in luma.iter().zip(terms).zip(out) {
            let luma = upper(u16::from(*luma) << 8, to.luma) as i16 - to.offset;
            *out = (luma.saturating_add(*term) >> RGB_BITS).clamp(0, 255) as u8;
        }
    }
}

struct Gray<'a>(ToRgb, &'a [u8], &'a mut [u8]);

impl RowLoop for Gray<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Gray(to, luma, gray) = self;
        for (luma, gray) in luma.iter().zip(gray) {
            let luma = upper(u16::from(*luma) << 8, to.luma) as i16 - to.offset;
            *gray = (luma >> RGB_BITS).clamp(0, 255) as u8;
        }
    }
}

struct Luma<'a>(FromRgb, [&'a [u8]; 3], &'a mut [u8]);

impl RowLoop for Luma<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Luma(from, [r, g, b], luma) = self;
        for (((r, g), b), luma) in r.iter().zip(g).zip(b).zip(luma) {
            let [r, g, b] = [*r, *g, *b].map(|byte| u16::from(byte) << 8);
            let sum = upper(r, from.luma[0]) + upper(g, from.luma[1]) + upper(b, from.luma[2]);
            *luma = ((sum + from.luma_offset) >> 8) as u8;
        }
    }
}

struct LumaOfGray<'a>(FromRgb, &'a [u8], &'a mut [u8]);

impl RowLoop for LumaOfGray<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let LumaOfGray(from, gray, luma) = self;
        let weight = from.luma.iter().map(|&weight| u32::from(weight)).sum::<u32>();
        for (gray, luma) in gray.iter().zip(luma) {
            *luma = ((((u32::from(*gray) * weight) >> 8) + u32::from(from.luma_offset)) >> 8) as u8;
        }
    }
}

struct Chroma<'a>(FromRgb, [&'a [u8]; 3], [&'a [u8]; 3], &'a mut [u8], &'a mut [u8]);

impl RowLoop for Chroma<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Chroma(from, upper_row, lower_row, blue, red) = self;
        let count = blue.len();
        let pairs = |row: &'_ [u8]| -> usize { row.len() / 2 };
        let count = upper_row
            .iter()
            .chain(&lower_row)
            .map(|row| pairs(row))
            .fold(count.min(red.len()), usize::min);
        let (blue, red) = (&mut blue[..count], &mut red[..count]);
        let [r0, g0, b0] = upper_row.map(|row| &row.as_chunks::<2>().0[..count]);
        let [r1, g1, b1] = lower_row.map(|row| &row.as_chunks::<2>().0[..count]);
        // Of four bytes, with 6 bits above: 8 fraction bits of their mean.
        let mean =
            |a: [u8; 2], b: [u8; 2]| (u16::from(a[0]) + u16::from(a[1]) + u16::from(b[0]) + u16::from(b[1])) << 6;
        // 128 and the half that rounds. Full range reaches 255.5, whose rounding would leave 16 bits: it saturates.
        let chroma = |own: u16, others: [u16; 2], weights: [u16; 3]| {
            let rest = (128 << 8) + 128 - upper(others[0], weights[1]) - upper(others[1], weights[2]);
            (rest.saturating_add(upper(own, weights[0])) >> 8) as u8
        };
        for i in 0..count {
            let (r, g, b) = (mean(r0[i], r1[i]), mean(g0[i], g1[i]), mean(b0[i], b1[i]));
            blue[i] = chroma(b, [r, g], from.blue);
            red[i] = chroma(r, [b, g], from.red);
        }
    }
}

//! Engines that ComfyUI's TensorRT nodes wrote: their names say the sizes, and the model's family the rest.
//!
//! `sd15_$dyn-b-1-4-2-h-512-1024-768-w-512-1024-768_00001_.engine` takes 1 to 4 pictures of 512 to 1024 pixels a side,
//! best 2 of 768; `..._$stat-b-2-h-512-w-512_00001_.engine` always 2 of 512. The family stands in the manifest beside
//! the engine as `model-type = "sd1"`.

use super::io::{Io, Range, Tensor, with_range};
use crate::engine::manifest::Family;
use crate::engine::ort::onnx::Element;
use crate::tensor::Dim;

/// Pixels of a picture for one of its latents.
const SCALE: usize = 8;
/// Tokens of one piece of text, and the most pieces that are compiled for.
const TOKENS: usize = 77;
const MAX_PIECES: usize = 128;
/// Largest number that is believed.
const MAX: usize = 1 << 20;

/// What a family's denoiser takes.
struct Shape {
    /// Channels of a latent.
    channels: usize,
    /// Width of a token.
    context: usize,
    /// Width of the vector beside it, where there is one.
    vector: Option<usize>,
}

impl From<Family> for Shape {
    fn from(family: Family) -> Self {
        let (channels, context, vector) = match family {
            Family::Sd1 => (4, 768, None),
            Family::Sd2 => (4, 1024, None),
            Family::Sdxl => (4, 2048, Some(2816)),
            Family::SdxlRefiner => (4, 1280, Some(2560)),
            Family::Sd3 => (16, 4096, Some(2048)),
        };
        Self {
            channels,
            context,
            vector,
        }
    }
}

/// The sizes in a file's name: pictures and pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) batch: Span,
    pub(super) height: Span,
    pub(super) width: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) min: usize,
    pub(super) opt: usize,
    pub(super) max: usize,
}

/// Reads the sizes. None: the name follows another convention.
pub(super) fn sizes(stem: &str) -> Option<Sizes> {
    let marked = &stem[stem.rfind('$')? + 1..];
    let (kind, rest) = marked.split_once('-')?;
    let count = match kind {
        "stat" => 1,
        "dyn" => 3,
        _ => return None,
    };
    // The number of the file, `_00001_`, follows.
    let rest = rest.split('_').next()?;
    let mut parts = rest.split('-');
    let mut span = |letter: &str, unit: usize| {
        if parts.next()? != letter {
            return None;
        }
        let mut number = || parts.next()?.parse::<usize>().ok().filter(|n| (1..=MAX).contains(n));
        // As the nodes write them: least, most, best.
        let min = number()?;
        let (max, opt) = if count == 3 { (number()?, number()?) } else { (min, min) };
        let whole = [min, opt, max].iter().all(|n| n % unit == 0);
        (min <= opt && opt <= max && whole).then_some(Span { min, opt, max })
    };
    let (batch, height, width) = (span("b", 1)?, span("h", SCALE)?, span("w", SCALE)?);
    parts.next().is_none().then_some(Sizes { batch, height, width })
}

/// What an engine of these sizes and of this family takes and gives. How many pieces of text it was compiled for does
/// not stand in its name, so any number is declared.
pub(super) fn io(sizes: Sizes, family: Family) -> Result<Io, String> {
    let Shape {
        channels,
        context,
        vector,
    } = family.into();
    let Sizes { batch, height, width } = sizes;
    let latent = |span: Span| Span {
        min: span.min / SCALE,
        opt: span.opt / SCALE,
        max: span.max / SCALE,
    };
    let always = |n: usize| Span { min: n, opt: n, max: n };
    let tokens = Span {
        min: TOKENS,
        opt: TOKENS,
        max: TOKENS * MAX_PIECES,
    };
    let tensor = |name: &str, dims: &[(&str, Span)], ranged: bool| -> Result<Tensor, String> {
        let list = |pick: fn(&Span) -> usize| dims.iter().map(|(_, span)| pick(span)).collect();
        let shape = dims.iter().map(|(name, span)| {
            if span.min == span.max {
                Dim::Fixed(span.min)
            } else {
                Dim::Dynamic((*name).into())
            }
        });
        let range = Range {
            min: list(|span| span.min),
            opt: list(|span| span.opt),
            max: list(|span| span.max),
        };
        let (shape, range) = with_range(name, shape.collect(), ranged.then_some(range))?;
        Ok(Tensor {
            name: name.into(),
            element: Element::named("float16").ok_or("no such element")?,
            shape,
            range,
        })
    };
    let x = [
        ("batch", batch),
        ("channels", always(channels)),
        ("height", latent(height)),
        ("width", latent(width)),
    ];
    let mut inputs = vec![
        tensor("x", &x, true)?,
        tensor("timesteps", &[("batch", batch)], true)?,
        tensor(
            "context",
            &[("batch", batch), ("tokens", tokens), ("dim", always(context))],
            true,
        )?,
    ];
    if let Some(vector) = vector {
        inputs.push(tensor("y", &[("batch", batch), ("dim", always(vector))], true)?);
    }
    Ok(Io {
        inputs,
        outputs: vec![tensor("h", &x, false)?],
        ..Io::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_kinds_are_read() {
        let of = |min, opt, max| Span { min, opt, max };
        assert_eq!(
            sizes("tensorrt/sd15_$dyn-b-1-4-2-h-512-1024-768-w-256-1024-512_00001_"),
            Some(Sizes {
                batch: of(1, 2, 4),
                height: of(512, 768, 1024),
                width: of(256, 512, 1024),
            })
        );
        assert_eq!(
            sizes("a$b_$stat-b-2-h-512-w-768_00001_"),
            Some(Sizes {
                batch: of(2, 2, 2),
                height: of(512, 512, 512),
                width: of(768, 768, 768),
            })
        );
    }

    #[test]
    fn other_names_are_left_alone() {
        for name in [
            "cartoon",
            "$stat",
            "$stat-b-2-h-512",
            "$stat-b-0-h-512-w-512",
            "$stat-b-2-h-510-w-512",
            "$stat-b-2-h-512-w-512-x-1",
            "$dyn-b-4-1-2-h-512-1024-768-w-512-1024-768",
            "$dyn-b-1-4-h-512-1024-768-w-512-1024-768",
            "$other-b-2-h-512-w-512",
            "$stat-b-99999999999999999999-h-512-w-512",
            "ü$ü",
        ] {
            assert_eq!(sizes(name), None, "{name}");
        }
    }

    #[test]
    fn families_take_what_they_take() {
        let dynamic = sizes("$dyn-b-1-4-2-h-512-1024-768-w-512-1024-768").unwrap();
        let fixed = sizes("$stat-b-2-h-512-w-512").unwrap();
        for (family, sizes, inputs) in [
            (
                Family::Sd1,
                dynamic,
                &["[batch, 4, height, width]", "[batch]", "[batch, tokens, 768]"][..],
            ),
            (Family::Sd2, fixed, &["[2, 4, 64, 64]", "[2]", "[2, tokens, 1024]"]),
            (
                Family::Sdxl,
                fixed,
                &["[2, 4, 64, 64]", "[2]", "[2, tokens, 2048]", "[2, 2816]"],
            ),
            (
                Family::SdxlRefiner,
                fixed,
                &["[2, 4, 64, 64]", "[2]", "[2, tokens, 1280]", "[2, 2560]"],
            ),
            (
                Family::Sd3,
                fixed,
                &["[2, 16, 64, 64]", "[2]", "[2, tokens, 4096]", "[2, 2048]"],
            ),
        ] {
            let io = io(sizes, family).unwrap();
            let shapes: Vec<String> = io
                .inputs
                .iter()
                .map(|tensor| crate::tensor::shape_text(&tensor.shape))
                .collect();
            assert_eq!(shapes, inputs, "{family:?}");
            assert_eq!(io.outputs[0].shape, io.inputs[0].shape);
            assert!(io.is_denoiser());
        }
        let io = io(dynamic, Family::Sd1).unwrap();
        assert_eq!(io.inputs[0].limits(2), Some((64, 128)));
        assert_eq!(io.inputs[0].limits(0), Some((1, 4)));
    }

    proptest::proptest! {
        #[test]
        fn no_name_panics(name in ".{0,60}", numbers in "[0-9-]{0,30}") {
            let _ = sizes(&name);
            let _ = sizes(&format!("$dyn-b-{numbers}-h-{numbers}-w-{numbers}"));
        }
    }
}

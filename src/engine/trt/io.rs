//! What an engine takes and gives.

use crate::engine::Error;
use crate::engine::ort::onnx::{Declaration, Element};
use crate::tensor::{Dim, shape_text};

/// The sizes that an engine was compiled for, of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Range {
    pub min: Vec<usize>,
    pub opt: Vec<usize>,
    pub max: Vec<usize>,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its name in the engine.
    pub name: String,
    /// Type of its elements.
    pub element: Element,
    /// Dimensions; those whose range is a single number are fixed.
    pub shape: Vec<Dim>,
    /// Of an input with dimensions that vary.
    pub range: Option<Range>,
}

impl Tensor {
    /// `float32 [batch, 3, 512, 512]`.
    pub fn text(&self) -> String {
        format!("{} {}", self.element.name(), shape_text(&self.shape))
    }

    /// The smallest and largest number in one place.
    pub(super) fn limits(&self, place: usize) -> Option<(usize, usize)> {
        match (self.shape.get(place), &self.range) {
            (Some(Dim::Fixed(n)), _) => Some((*n, *n)),
            (Some(Dim::Dynamic(_)), Some(range)) => Some((*range.min.get(place)?, *range.max.get(place)?)),
            _ => None,
        }
    }
}

impl From<&Tensor> for Declaration {
    fn from(tensor: &Tensor) -> Self {
        Self {
            name: tensor.name.clone(),
            element: tensor.element,
            shape: tensor.shape.clone(),
        }
    }
}

impl From<&Declaration> for Tensor {
    fn from(tensor: &Declaration) -> Self {
        Self {
            name: tensor.name.clone(),
            element: tensor.element,
            shape: tensor.shape.clone(),
            range: None,
        }
    }
}

/// Everything that is known about an engine without running it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Io {
    /// In the engine's order.
    pub inputs: Vec<Tensor>,
    /// In the engine's order.
    pub outputs: Vec<Tensor>,
    /// Version of TensorRT that compiled it.
    pub tensorrt: Option<String>,
    /// Compute capability that it was compiled for: `89`, or `80+` for that and everything later.
    pub architecture: Option<String>,
}

impl Io {
    /// Inputs and outputs on one line each, for messages.
    pub(super) fn text(&self) -> String {
        let list = |tensors: &[Tensor]| {
            let one = |tensor: &Tensor| format!("`{}` ({})", tensor.name, tensor.text());
            tensors.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        format!("inputs {}; outputs {}", list(&self.inputs), list(&self.outputs))
    }

    /// Whether it is the denoiser of a diffusion model: one of many steps, on latents, and no filter of pictures.
    pub(in crate::engine) fn is_denoiser(&self) -> bool {
        ["x", "timesteps", "context"]
            .iter()
            .all(|name| self.inputs.iter().any(|tensor| tensor.name == *name))
    }

    /// Refuses what filters no frames, as far as names tell.
    pub(in crate::engine) fn check_filter(&self, name: &str) -> Result<(), Error> {
        if !self.is_denoiser() {
            return Ok(());
        }
        let inputs: Vec<&str> = self.inputs.iter().map(|tensor| tensor.name.as_str()).collect();
        Err(Error::Fit {
            model: name.into(),
            reason: format!(
                "it is the UNet of a diffusion model (inputs {}), which takes latents and text, not frames; \
                 `comfystream engine inspect` shows what it takes. A model for frames has one image as its input",
                inputs.join(", ")
            ),
        })
    }
}

/// Makes dimensions fixed where their range is a single number, and refuses ranges that fit no shape. The error is a
/// clause.
pub(super) fn with_range(
    name: &str,
    shape: Vec<Dim>,
    range: Option<Range>,
) -> Result<(Vec<Dim>, Option<Range>), String> {
    let Some(range) = range else {
        return Ok((shape, None));
    };
    let rank = shape.len();
    if [&range.min, &range.opt, &range.max]
        .iter()
        .any(|list| list.len() != rank)
    {
        return Err(format!(
            "`{name}`: min, opt and max need {rank} numbers each, as its shape has"
        ));
    }
    let mut fixed = Vec::new();
    for (place, dim) in shape.into_iter().enumerate() {
        let (min, opt, max) = (range.min[place], range.opt[place], range.max[place]);
        if min > opt || opt > max {
            return Err(format!(
                "`{name}`: min {min}, opt {opt} and max {max} do not ascend in place {place}"
            ));
        }
        fixed.push(match dim {
            Dim::Fixed(n) if n != min || n != max => {
                return Err(format!(
                    "`{name}`: {n} in place {place} is not {min} to {max}, as its range says"
                ));
            }
            Dim::Dynamic(_) if min == max => Dim::Fixed(min),
            dim => dim,
        });
    }
    let varies = fixed.iter().any(|dim| dim.fixed().is_none());
    Ok((fixed, varies.then_some(range)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims() -> Vec<Dim> {
        vec![
            Dim::Dynamic("batch".into()),
            Dim::Fixed(3),
            Dim::Dynamic("height".into()),
        ]
    }

    fn range(min: [usize; 3], opt: [usize; 3], max: [usize; 3]) -> Option<Range> {
        Some(Range {
            min: min.into(),
            opt: opt.into(),
            max: max.into(),
        })
    }

    #[test]
    fn a_range_of_one_number_is_a_fixed_dimension() {
        let (shape, left) = with_range("x", dims(), range([2, 3, 64], [2, 3, 128], [2, 3, 512])).unwrap();
        assert_eq!(shape_text(&shape), "[2, 3, height]");
        assert!(left.is_some());
        let (shape, left) = with_range("x", dims(), range([2, 3, 64], [2, 3, 64], [2, 3, 64])).unwrap();
        assert_eq!((shape_text(&shape).as_str(), left), ("[2, 3, 64]", None));
    }

    #[test]
    fn ranges_that_fit_no_shape_are_refused() {
        for (wrong, part) in [
            (range([2, 3, 64], [1, 3, 64], [4, 3, 64]), "do not ascend in place 0"),
            (range([1, 4, 64], [1, 4, 64], [1, 4, 64]), "3 in place 1 is not 4 to 4"),
            (
                Some(Range {
                    min: vec![1],
                    opt: vec![1],
                    max: vec![1],
                }),
                "need 3 numbers",
            ),
        ] {
            let reason = with_range("x", dims(), wrong).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        }
    }
}

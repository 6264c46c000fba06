//! The frames that an engine was compiled for. TensorRT runs no others.

use super::io::{Io, Range};
use super::messages;
use super::options::Profile;
use crate::engine::fit::{Fitted, places};
use crate::engine::{BatchSizes, Error, ImagePort, LaneRequest, Port, Role};

/// Least and most.
type Span = (usize, usize);

/// Least and most of what may vary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Limits {
    batch: Option<Span>,
    height: Option<Span>,
    width: Option<Span>,
}

impl Limits {
    /// Those of an engine that others compiled.
    pub(in crate::engine) fn new(io: &Io, fitted: &Fitted) -> Option<Self> {
        let (port, image) = image(fitted)?;
        let tensor = io.inputs.iter().find(|tensor| tensor.name == port.name)?;
        Some(Self::at(&image, &|place| tensor.limits(place)))
    }

    /// Those that a model is compiled for.
    pub(in crate::engine) fn of_profile(profile: &Profile, fitted: &Fitted) -> Option<Self> {
        let (_, image) = image(fitted)?;
        let Range { min, max, .. } = &profile.range;
        let span = |place: usize| Some((*min.get(place)?, *max.get(place)?));
        Some(Self::at(&image, &span))
    }

    fn at(image: &ImagePort, span: &dyn Fn(usize) -> Option<Span>) -> Self {
        let [height, width, _] = places(image.layout);
        Self {
            batch: image.layout.has_batch().then(|| span(0)).flatten(),
            height: span(height),
            width: span(width),
        }
    }

    /// The batches that it takes. One that takes no single image is given its most every time: a run has room for
    /// images that are not there.
    pub(in crate::engine) fn batch(&self, declared: BatchSizes) -> BatchSizes {
        match (declared, self.batch) {
            (BatchSizes::UpTo(_), Some((2.., max))) => BatchSizes::Fixed(max),
            (BatchSizes::UpTo(n), Some((_, max))) => BatchSizes::UpTo(n.min(max)),
            (declared, _) => declared,
        }
    }

    /// Where one size alone was compiled for, frames are scaled to it.
    pub(in crate::engine) fn fix(&self, fitted: &mut Fitted) {
        let only = |span: Option<Span>| span.filter(|(min, max)| min == max).map(|(size, _)| size);
        for port in &mut fitted.inputs {
            if let Role::Image(image) = &mut port.role {
                image.width = image.width.or(only(self.width));
                image.height = image.height.or(only(self.height));
            }
        }
    }

    /// Refuses frames of a size that it was not compiled for. A model of one fixed size is given frames scaled to it.
    pub(in crate::engine) fn check(&self, name: &str, request: &LaneRequest) -> Result<(), Error> {
        let fits = |span: Option<Span>, n: usize| match span {
            Some((min, max)) => min == max || (min..=max).contains(&n),
            None => true,
        };
        if fits(self.width, request.width) && fits(self.height, request.height) {
            return Ok(());
        }
        let text = |span: Option<Span>| span.map_or_else(String::new, |(min, max)| format!("{min} to {max}"));
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        Err(Error::Fit {
            model: name.into(),
            reason: format!(
                "frames are {}x{}, and it was compiled for widths of {} and heights of {}; compile it anew: {} --size {}x{}",
                request.width,
                request.height,
                text(self.width),
                text(self.height),
                messages::rebuild(stem),
                request.width,
                request.height
            ),
        })
    }
}

fn image(fitted: &Fitted) -> Option<(&Port, ImagePort)> {
    fitted.inputs.iter().find_map(|port| match port.role {
        Role::Image(image) => Some((port, image)),
        Role::Tensor => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(batch: Span, height: Span, width: Span) -> Limits {
        Limits {
            batch: Some(batch),
            height: Some(height),
            width: Some(width),
        }
    }

    #[test]
    fn batches_are_those_that_it_was_compiled_for() {
        for (declared, compiled, expected) in [
            (BatchSizes::UpTo(64), (1, 4), BatchSizes::UpTo(4)),
            (BatchSizes::UpTo(2), (1, 4), BatchSizes::UpTo(2)),
            (BatchSizes::UpTo(64), (2, 4), BatchSizes::Fixed(4)),
            (BatchSizes::Fixed(2), (2, 2), BatchSizes::Fixed(2)),
        ] {
            assert_eq!(limits(compiled, (8, 8), (8, 8)).batch(declared), expected);
        }
    }

    #[test]
    fn sizes_beyond_the_range_are_refused_with_the_command_that_helps() {
        let limits = limits((1, 4), (256, 1024), (256, 1024));
        let size = |width, height| LaneRequest {
            width,
            height,
            batch: 1,
        };
        assert_eq!(limits.check("a.engine", &size(1024, 256)), Ok(()));
        let text = limits.check("a.engine", &size(1920, 1080)).unwrap_err().to_string();
        assert!(
            text.contains("frames are 1920x1080") && text.contains("widths of 256 to 1024"),
            "{text}"
        );
        assert!(
            text.ends_with("comfystream engine build --model a.onnx --size 1920x1080"),
            "{text}"
        );
    }

    #[test]
    fn one_size_takes_every_frame_scaled_to_it() {
        let limits = limits((1, 1), (360, 360), (640, 640));
        let image = ImagePort {
            layout: crate::tensor::Layout::Bchw,
            order: crate::tensor::ChannelOrder::Rgb,
            scale: [1.0; 3],
            bias: [0.0; 3],
            width: None,
            height: None,
        };
        let mut fitted = Fitted {
            inputs: vec![Port {
                name: "image".into(),
                dtype: crate::tensor::DType::F32,
                shape: Vec::new(),
                role: Role::Image(image),
            }],
            outputs: Vec::new(),
            batch: BatchSizes::UpTo(1),
        };
        limits.fix(&mut fitted);
        let (_, fixed) = super::image(&fitted).unwrap();
        assert_eq!((fixed.width, fixed.height), (Some(640), Some(360)));
        let request = LaneRequest {
            width: 1920,
            height: 1080,
            batch: 1,
        };
        assert_eq!(limits.check("a.engine", &request), Ok(()));
    }
}

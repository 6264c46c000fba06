//! Shapes and batch sizes of runs, as plain arithmetic.

use crate::engine::fit::places;
use crate::engine::{BatchSizes, Error, Geometry, ImagePort, LaneRequest, Port, Role, Spec};
use crate::tensor::{ImageTensor, shape_text};

/// The sizes of one run that a lane is made for, and how a batch is cut into such runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Ascending, at least one. The last one is a chunk: a larger batch takes several runs.
    each: Vec<usize>,
    /// Images that there is room for: whole chunks.
    pub(super) capacity: usize,
}

impl Sizes {
    pub(super) fn new(model: BatchSizes, batch: usize) -> Result<Self, Error> {
        let each = sizes(model, batch);
        match each.last() {
            Some(&chunk) if chunk > 0 => Ok(Self {
                capacity: batch.div_ceil(chunk) * chunk,
                each,
            }),
            _ => Err(Error::Setting("a batch of no images".into())),
        }
    }

    /// Ascending.
    pub(super) fn each(&self) -> &[usize] {
        &self.each
    }

    pub(super) fn smallest(&self) -> usize {
        self.each[0]
    }

    /// Most images of one run.
    pub(super) fn chunk(&self) -> usize {
        self.each[self.each.len() - 1]
    }

    /// Where the runs of so many images begin.
    pub(super) fn begins(&self, count: usize) -> impl DoubleEndedIterator<Item = usize> + use<> {
        (0..count).step_by(self.chunk())
    }

    /// The run that begins with image `first` of a batch: the chunk's number, the images in it, the size's number.
    pub(super) fn run(&self, first: usize, count: usize) -> (usize, usize, usize) {
        let images = self.chunk().min(count - first);
        let at = self.each.partition_point(|size| *size < images);
        (first / self.chunk(), images, at)
    }

    /// Slots that the runs of a batch take together.
    #[cfg(feature = "cuda")]
    pub(super) fn filled(&self, count: usize) -> usize {
        let last = self.begins(count).next_back();
        last.map_or(0, |first| first + self.each[self.run(first, count).2])
    }
}

/// The powers of two up to the batch and the batch itself, or the one size that the model takes. Each is warmed up, and
/// a batch takes the next larger one: with all numbers between, a compiling provider would compile each of them.
fn sizes(model: BatchSizes, batch: usize) -> Vec<usize> {
    match model {
        BatchSizes::Fixed(n) => vec![n],
        BatchSizes::UpTo(max) => {
            let largest = batch.min(max);
            let powers = std::iter::successors(Some(1_usize), |n| n.checked_mul(2));
            let mut sizes: Vec<usize> = powers.take_while(|n| *n < largest).collect();
            sizes.push(largest);
            sizes
        }
    }
}

/// One input image of a lane.
pub(super) fn input(spec: &Spec, request: &LaneRequest) -> Result<ImageTensor, Error> {
    let (port, image) = image_input(spec)?;
    Ok(ImageTensor {
        dtype: port.dtype,
        planar: image.layout.is_planar(),
        order: image.order,
        width: image.width.unwrap_or(request.width),
        height: image.height.unwrap_or(request.height),
        scale: image.scale,
        bias: image.bias,
    })
}

fn image_input(spec: &Spec) -> Result<(&Port, ImagePort), Error> {
    let mut images = spec.inputs.iter().filter_map(|port| match port.role {
        Role::Image(image) => Some((port, image)),
        Role::Tensor => None,
    });
    images.next().ok_or_else(|| fit(spec, "it has no image input".into()))
}

/// The input's shape for a run of this size.
pub(super) fn full(spec: &Spec, image: &ImageTensor, size: usize) -> Vec<usize> {
    let batched = image_input(spec).is_ok_and(|(_, image)| image.layout.has_batch());
    let (c, h, w) = (image.order.channels(), image.height, image.width);
    let one = if image.planar { [c, h, w] } else { [h, w, c] };
    batched.then_some(size).into_iter().chain(one).collect()
}

/// One image's share of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    dims: Vec<usize>,
    /// Whether the number of images stands before the dimensions.
    batched: bool,
}

impl Share {
    /// Elements of one image's share.
    pub(super) fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// The output's shape for a run of this size.
    pub(super) fn full(&self, size: usize) -> Vec<usize> {
        self.batched
            .then_some(size)
            .into_iter()
            .chain(self.dims.iter().copied())
            .collect()
    }
}

/// What a first run of `size` images tells about the outputs.
pub(super) fn shares(spec: &Spec, size: usize, learnt: &[Vec<usize>]) -> Result<Vec<Share>, Error> {
    let always_one = spec.batch == BatchSizes::Fixed(1);
    let share = |(port, shape): (&Port, &Vec<usize>)| {
        let wrong = |expected: &str| {
            fit(
                spec,
                format!(
                    "output `{}` is {} {}, and came out as {shape:?} for {size} image{} of {}: {expected}",
                    port.name,
                    port.dtype,
                    shape_text(&port.shape),
                    if size == 1 { "" } else { "s" },
                    shape_text(&spec.inputs[0].shape),
                ),
            )
        };
        let layout = match &port.role {
            Role::Image(image) => Some(image.layout),
            Role::Tensor => None,
        };
        let leads = shape.first() == Some(&size);
        let batched = match layout {
            Some(layout) => layout.has_batch(),
            None => leads || !always_one,
        };
        if batched && !leads {
            return Err(wrong("its first dimension must be the number of images"));
        }
        let dims = shape[usize::from(batched)..].to_vec();
        if let Some(layout) = layout
            && dims.len() != 3
        {
            return Err(wrong(&format!("layout {layout} does not have that many dimensions")));
        }
        if dims.contains(&0) {
            return Err(wrong(
                "it is empty for a plain picture; outputs must have one size for all pictures",
            ));
        }
        Ok(Share { dims, batched })
    };
    spec.outputs.iter().zip(learnt).map(share).collect()
}

/// The lane's geometry, after a first run.
pub(super) fn geometry(spec: &Spec, input: ImageTensor, shares: &[Share]) -> Result<Geometry, Error> {
    let mut geometry = Geometry {
        input,
        output: None,
        tensors: Vec::new(),
    };
    for (at, (port, share)) in spec.outputs.iter().zip(shares).enumerate() {
        let Role::Image(image) = &port.role else {
            geometry.tensors.push((at, share.dims.clone()));
            continue;
        };
        let lead = usize::from(image.layout.has_batch());
        let [height, width, channels] = places(image.layout).map(|place| share.dims[place - lead]);
        if channels != image.order.channels() {
            return Err(fit(
                spec,
                format!(
                    "output `{}` came out with {channels} channels in layout {}, expected {}; say its `layout` and \
                     `order` in the manifest, or role = \"tensor\"",
                    port.name,
                    image.layout,
                    image.order.channels()
                ),
            ));
        }
        let output = ImageTensor {
            dtype: port.dtype,
            planar: image.layout.is_planar(),
            order: image.order,
            width,
            height,
            scale: image.scale,
            bias: image.bias,
        };
        geometry.output = Some((at, output));
    }
    Ok(geometry)
}

/// The output that came out in another shape than the one that its tensor was made for.
pub(super) fn changed(spec: &Spec, shares: &[Share], size: usize, now: &[Vec<usize>]) -> Option<Error> {
    let (port, share, now) = spec
        .outputs
        .iter()
        .zip(shares)
        .zip(now)
        .map(|((port, share), now)| (port, share, now))
        .find(|(_, share, now)| share.full(size) != **now)?;
    Some(fit(
        spec,
        format!(
            "output `{}` is {} {}, and came out as {now:?} where {:?} was expected: it must have one size for all \
             pictures and grow with the number of images; pad it in the model, or remove that output",
            port.name,
            port.dtype,
            shape_text(&port.shape),
            share.full(size)
        ),
    ))
}

fn fit(spec: &Spec, reason: String) -> Error {
    Error::Fit {
        model: spec.name.clone(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_powers_of_two_and_the_batch() {
        for (model, batch, expected) in [
            (BatchSizes::UpTo(64), 1, &[1][..]),
            (BatchSizes::UpTo(64), 2, &[1, 2]),
            (BatchSizes::UpTo(64), 6, &[1, 2, 4, 6]),
            (BatchSizes::UpTo(64), 8, &[1, 2, 4, 8]),
            (BatchSizes::UpTo(4), 9, &[1, 2, 4]),
            (BatchSizes::Fixed(2), 9, &[2]),
            (BatchSizes::Fixed(4), 1, &[4]),
        ] {
            assert_eq!(sizes(model, batch), expected, "{model:?} {batch}");
        }
    }
}

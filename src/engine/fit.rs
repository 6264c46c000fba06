//! Fits what a model declares to what frames are: which tensor is the picture, and how it is laid out.
//!
//! The manifest is asked first, then the model's own metadata, then names, shapes and dtypes. Metadata keys are
//! `comfy.layout`, `comfy.order`, `comfy.range`, `comfy.mean` and `comfy.std`, for the image input and the image
//! output alike, and `comfy.NAME.layout` and so on, with `comfy.NAME.role`, for the tensor of that name.

use super::manifest::{self, Manifest, RoleName, Tensor};
use super::null::MAX_BATCH;
use super::{BatchSizes, Error, ImagePort, Port, Role};
use crate::tensor::{ChannelOrder, DType, Dim, Layout, shape_text};

/// One input or output as the runtime reports it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Declared {
    pub(super) name: String,
    /// The type, or what the runtime calls a type that cannot be used here.
    pub(super) dtype: Result<DType, String>,
    /// Empty where the model does not say.
    pub(super) shape: Vec<Dim>,
}

/// A model as far as it is known before anything runs.
pub(super) struct Model<'a> {
    /// For messages.
    pub(super) name: &'a str,
    /// The manifest's file name, for messages, whether it exists or not.
    pub(super) manifest_name: &'a str,
    pub(super) manifest: &'a Manifest,
    /// A custom key of the model's metadata.
    pub(super) metadata: &'a dyn Fn(&str) -> Option<String>,
    pub(super) inputs: &'a [Declared],
    pub(super) outputs: &'a [Declared],
}

/// What was made of a model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fitted {
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    pub(super) batch: BatchSizes,
}

impl Model<'_> {
    pub(super) fn fit(&self) -> Result<Fitted, Error> {
        self.check_names("inputs", self.inputs, &self.manifest.inputs)?;
        self.check_names("outputs", self.outputs, &self.manifest.outputs)?;
        let (input, image) = self.image_input()?;
        let batch = self.batch(input, &image)?;
        let outputs = self.outputs(&image, batch)?;
        Ok(Fitted {
            inputs: vec![port(input, DType::U8, Role::Image(image))],
            outputs,
            batch,
        })
    }

    fn check_names(
        &self,
        table: &str,
        declared: &[Declared],
        named: &std::collections::BTreeMap<String, Tensor>,
    ) -> Result<(), Error> {
        match named
            .keys()
            .find(|name| declared.iter().all(|tensor| tensor.name != **name))
        {
            None => Ok(()),
            Some(name) => Err(Error::Manifest {
                path: self.manifest_name.into(),
                reason: format!(
                    "[{table}.{}] names no tensor of {}; its {table} are {}",
                    manifest::key(name),
                    self.name,
                    list(declared)
                ),
            }),
        }
    }

    fn image_input(&self) -> Result<(&Declared, ImagePort), Error> {
        let mut images = Vec::new();
        for tensor in self.inputs {
            let hint = self.hint(Side::Input, tensor)?;
            let is_image = match hint.role {
                Some(role) => role == RoleName::Image,
                None => hint.says_image() || guess(&tensor.shape, true).is_some(),
            };
            if is_image {
                images.push((tensor, hint));
            }
        }
        match (images.as_slice(), self.inputs) {
            ([(tensor, hint), ..], [_]) => Ok((tensor, self.image(Side::Input, tensor, hint, true)?)),
            (_, []) => Err(self.misfit("it has no input; expected one that is an image".into())),
            ([], [tensor]) => Err(self.not_an_image(
                Side::Input,
                tensor,
                "expected one image of 3 or 1 channels: BCHW, BHWC, CHW or HWC",
            )),
            (images, all) => {
                let image = images.first().map(|(tensor, _)| &tensor.name);
                let others: Vec<_> = all
                    .iter()
                    .filter(|tensor| Some(&tensor.name) != image)
                    .cloned()
                    .collect();
                Err(self.misfit(format!(
                    "it wants {} inputs, and only an image can be given; export it with constants in place of {}",
                    all.len(),
                    list(&others)
                )))
            }
        }
    }

    fn batch(&self, input: &Declared, image: &ImagePort) -> Result<BatchSizes, Error> {
        let max = self.manifest.batch.max;
        let fixed = if image.layout.has_batch() {
            input.shape.first().and_then(Dim::fixed)
        } else {
            Some(1)
        };
        match (fixed, max) {
            (Some(0), _) => Err(self.not_an_image(Side::Input, input, "expected a batch of at least 1")),
            (Some(n), Some(max)) if n != max => Err(Error::Manifest {
                path: self.manifest_name.into(),
                reason: format!("[batch] max = {max}: the model's batch is always {n}; take the line out"),
            }),
            (Some(n), _) => Ok(BatchSizes::Fixed(n)),
            (None, max) => Ok(BatchSizes::UpTo(max.unwrap_or(MAX_BATCH))),
        }
    }

    fn outputs(&self, input: &ImagePort, batch: BatchSizes) -> Result<Vec<Port>, Error> {
        if self.outputs.is_empty() {
            return Err(self.misfit("it has no output".into()));
        }
        let hints = self
            .outputs
            .iter()
            .map(|tensor| self.hint(Side::Output, tensor))
            .collect::<Result<Vec<_>, _>>()?;
        // What only one tensor's own lines say marks it; keys for all images do not.
        let marked = |at: &usize| hints[*at].role == Some(RoleName::Image);
        let all: Vec<usize> = (0..hints.len()).filter(marked).collect();
        let image = match all.as_slice() {
            [at] => Some(*at),
            [first, second, ..] => {
                return Err(self.misfit(format!(
                    "outputs `{}` and `{}` are both declared images, and only one can become the frame; write \
                     role = \"tensor\" for the others",
                    self.outputs[*first].name, self.outputs[*second].name
                )));
            }
            [] => self.outputs.iter().zip(&hints).position(|(tensor, hint)| {
                let picture = matches!(tensor.dtype, Ok(DType::U8 | DType::F16 | DType::F32));
                hint.role.is_none() && picture && looks_like_a_picture(&tensor.shape, !input.layout.has_batch())
            }),
        };
        let mut ports = Vec::new();
        for (at, (tensor, hint)) in self.outputs.iter().zip(&hints).enumerate() {
            let role = if Some(at) == image {
                let image = self.image(Side::Output, tensor, hint, batch == BatchSizes::Fixed(1))?;
                self.check_output_batch(tensor, &image, batch)?;
                Role::Image(image)
            } else {
                if let Err(name) = &tensor.dtype {
                    return Err(self.misfit(format!(
                        "output `{}` is {name} {}; expected u8, f16, f32, i32 or i64: convert it in the model, or \
                         remove that output",
                        tensor.name,
                        shape_text(&tensor.shape)
                    )));
                }
                Role::Tensor
            };
            ports.push(port(tensor, DType::F32, role));
        }
        Ok(ports)
    }

    fn check_output_batch(&self, tensor: &Declared, image: &ImagePort, batch: BatchSizes) -> Result<(), Error> {
        let declared = if image.layout.has_batch() {
            tensor.shape.first().and_then(Dim::fixed)
        } else {
            None
        };
        match (declared, batch) {
            (Some(n), BatchSizes::Fixed(batch)) if n != batch => Err(self.not_an_image(
                Side::Output,
                tensor,
                &format!("expected as many images as the input's, {batch}, or another role"),
            )),
            (Some(n), BatchSizes::UpTo(_)) => Err(self.not_an_image(
                Side::Output,
                tensor,
                &format!("expected a batch that follows the input's, not always {n}, or another role"),
            )),
            _ => Ok(()),
        }
    }

    /// What the manifest and, where that is silent, the metadata say about a tensor.
    fn hint(&self, side: Side, tensor: &Declared) -> Result<Tensor, Error> {
        let tables = match side {
            Side::Input => &self.manifest.inputs,
            Side::Output => &self.manifest.outputs,
        };
        let mut hint = tables.get(&tensor.name).cloned().unwrap_or_default();
        if hint.says_image() {
            hint.role = Some(RoleName::Image);
        }
        if hint.role == Some(RoleName::Tensor) {
            return Ok(hint);
        }
        let own = self.metadata(&format!("comfy.{}.", tensor.name))?;
        if own.says_image() && hint.role.is_none() {
            hint.role = Some(own.role.unwrap_or(RoleName::Image));
        }
        let all = self.metadata("comfy.")?;
        let all = if side == Side::Output { suited(all, tensor) } else { all };
        hint.role = hint.role.or(own.role);
        hint.layout = hint.layout.or(own.layout).or(all.layout);
        hint.order = hint.order.or(own.order).or(all.order);
        hint.range = hint.range.or(own.range).or(all.range);
        hint.mean = hint.mean.or(own.mean).or(all.mean);
        hint.std = hint.std.or(own.std).or(all.std);
        Ok(hint)
    }

    fn metadata(&self, prefix: &str) -> Result<Tensor, Error> {
        let get = |key: &str| (self.metadata)(&format!("{prefix}{key}"));
        let wrong = |key: &str, value: &str, expected: &str| {
            self.misfit(format!(
                "its metadata says {prefix}{key} = `{value}`; expected {expected}"
            ))
        };
        let mut hint = Tensor::default();
        if let Some(value) = get("role") {
            hint.role = Some(match value.as_str() {
                "image" => RoleName::Image,
                "tensor" => RoleName::Tensor,
                _ => return Err(wrong("role", &value, "image or tensor")),
            });
        }
        if let Some(value) = get("layout") {
            let named = [Layout::Bchw, Layout::Bhwc, Layout::Chw, Layout::Hwc];
            let layout = named.into_iter().find(|layout| layout.to_string() == value);
            hint.layout = Some(layout.ok_or_else(|| wrong("layout", &value, "BCHW, BHWC, CHW or HWC"))?);
        }
        if let Some(value) = get("order") {
            let named = [ChannelOrder::Rgb, ChannelOrder::Bgr, ChannelOrder::Gray];
            let order = named.into_iter().find(|order| order_name(*order) == value);
            hint.order = Some(order.ok_or_else(|| wrong("order", &value, "RGB, BGR or GRAY"))?);
        }
        let numbers = |key: &str| match get(key) {
            None => Ok(None),
            Some(value) => parse_numbers(&value)
                .map(Some)
                .ok_or_else(|| wrong(key, &value, "numbers with commas between")),
        };
        if let Some(list) = numbers("range")? {
            let pair = <[f32; 2]>::try_from(list.as_slice());
            hint.range = Some(pair.map_err(|_| wrong("range", &format!("{list:?}"), "two numbers, such as 0, 1"))?);
        }
        hint.mean = numbers("mean")?;
        hint.std = numbers("std")?;
        manifest::check_numbers(hint.range, hint.mean.as_deref(), hint.std.as_deref(), hint.order)
            .map_err(|reason| self.misfit(format!("its metadata {prefix}*: {reason}")))?;
        Ok(hint)
    }

    fn image(&self, side: Side, tensor: &Declared, hint: &Tensor, bare: bool) -> Result<ImagePort, Error> {
        let misfit = |expected: &str| self.not_an_image(side, tensor, expected);
        let dtype = match tensor.dtype {
            Ok(dtype @ (DType::U8 | DType::F16 | DType::F32)) => dtype,
            _ => return Err(misfit("expected an image of u8, f16 or f32: convert it in the model")),
        };
        if hint.role == Some(RoleName::Tensor) {
            return Err(misfit(
                "its role is tensor, but it is the only input; expected an image",
            ));
        }
        let layout = hint.layout.or_else(|| guess(&tensor.shape, bare)).ok_or_else(|| {
            misfit("expected 3 or 1 channels in the place of C in BCHW, BHWC, CHW or HWC, and found no such place")
        })?;
        if !bare && !layout.has_batch() {
            return Err(misfit(&format!(
                "{layout} has no batch, while the model's input has one"
            )));
        }
        let rank = if layout.has_batch() { 4 } else { 3 };
        if !tensor.shape.is_empty() && tensor.shape.len() != rank {
            return Err(misfit(&format!("layout {layout} has {rank} dimensions")));
        }
        let [height_at, width_at, channels_at] = places(layout);
        let at = |place: usize| tensor.shape.get(place).and_then(Dim::fixed);
        let order = match (at(channels_at), hint.order) {
            (Some(3), None) | (None, None) => ChannelOrder::Rgb,
            (Some(1), None) => ChannelOrder::Gray,
            (None, Some(order)) => order,
            (Some(n), Some(order)) if n == order.channels() => order,
            (Some(n), Some(order)) => {
                let name = order_name(order);
                return Err(misfit(&format!(
                    "in layout {layout} it has {n} channels, and order {name} has {}",
                    order.channels()
                )));
            }
            (Some(n), None) => {
                return Err(misfit(&format!(
                    "in layout {layout} it has {n} channels; expected 3 or 1"
                )));
            }
        };
        let (scale, bias) = numbers(dtype, order, hint).map_err(|expected| misfit(&expected))?;
        let (width, height) = (at(width_at), at(height_at));
        if width == Some(0) || height == Some(0) {
            return Err(misfit("expected at least one pixel"));
        }
        Ok(ImagePort {
            layout,
            order,
            scale,
            bias,
            width,
            height,
        })
    }

    fn misfit(&self, reason: String) -> Error {
        Error::Fit {
            model: self.name.into(),
            reason,
        }
    }

    /// A misfit of one tensor, with the lines that tell what it is.
    fn not_an_image(&self, side: Side, tensor: &Declared, expected: &str) -> Error {
        let (word, table) = match side {
            Side::Input => ("input", "inputs"),
            Side::Output => ("output", "outputs"),
        };
        let layout = match tensor.shape.len() {
            3 if tensor.shape[2].fixed().is_some_and(|n| matches!(n, 1 | 3)) => Layout::Hwc,
            3 => Layout::Chw,
            _ if tensor
                .shape
                .last()
                .and_then(Dim::fixed)
                .is_some_and(|n| matches!(n, 1 | 3)) =>
            {
                Layout::Bhwc
            }
            _ => Layout::Bchw,
        };
        let other = if side == Side::Output {
            "\nor, if it is no image:\nrole = \"tensor\""
        } else {
            ""
        };
        let dtype = match &tensor.dtype {
            Ok(dtype) => dtype.name(),
            Err(name) => name,
        };
        self.misfit(format!(
            "{word} `{}` is {dtype} {}: {expected}. If it is one image after all, say how in {}:\n[{table}.{}]\n\
             role = \"image\"\nlayout = \"{layout}\"\norder = \"RGB\"{other}",
            tensor.name,
            shape_text(&tensor.shape),
            self.manifest_name,
            manifest::key(&tensor.name),
        ))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Input,
    Output,
}

/// Where height, width and channels are.
pub(super) fn places(layout: Layout) -> [usize; 3] {
    match layout {
        Layout::Chw => [1, 2, 0],
        Layout::Hwc => [0, 1, 2],
        Layout::Bchw => [2, 3, 1],
        Layout::Bhwc => [1, 2, 3],
    }
}

/// The layout that puts 3 channels, or else 1, in the place of C; planar before interleaved.
fn guess(shape: &[Dim], bare: bool) -> Option<Layout> {
    let candidates = match shape.len() {
        4 => [Layout::Bchw, Layout::Bhwc],
        3 if bare => [Layout::Chw, Layout::Hwc],
        _ => return None,
    };
    let with = |channels| {
        candidates
            .into_iter()
            .find(|layout| shape[places(*layout)[2]].fixed() == Some(channels))
    };
    with(3).or_else(|| with(1))
}

/// Stricter than a guess at an input: a row of class scores `[1, 1, 1, 1000]` is no picture.
fn looks_like_a_picture(shape: &[Dim], bare: bool) -> bool {
    guess(shape, bare).is_some_and(|layout| {
        let [height, width, _] = places(layout);
        shape[height].fixed() != Some(1) && shape[width].fixed() != Some(1)
    })
}

/// Of the keys for all images, those that can be meant for this output.
fn suited(mut all: Tensor, tensor: &Declared) -> Tensor {
    let channels = |layout: Layout| tensor.shape.get(places(layout)[2]).and_then(Dim::fixed);
    let rank = |layout: Layout| if layout.has_batch() { 4 } else { 3 };
    all.layout = all
        .layout
        .filter(|layout| tensor.shape.len() == rank(*layout) && channels(*layout).is_none_or(|n| matches!(n, 1 | 3)));
    let count = all.layout.or_else(|| guess(&tensor.shape, true)).and_then(channels);
    all.order = all.order.filter(|order| count.is_none_or(|n| n == order.channels()));
    let fits = |list: &Vec<f32>| list.len() == 1 || count.is_none_or(|n| n == list.len());
    let float = tensor.dtype != Ok(DType::U8);
    all.range = all.range.filter(|_| float);
    all.mean = all.mean.filter(|list| float && fits(list));
    all.std = all.std.filter(|list| float && fits(list));
    all
}

/// Scale and bias: value = ((byte / 255) * (high - low) + low - mean) / std.
fn numbers(dtype: DType, order: ChannelOrder, hint: &Tensor) -> Result<([f32; 3], [f32; 3]), String> {
    manifest::check_numbers(hint.range, hint.mean.as_deref(), hint.std.as_deref(), Some(order))?;
    let [low, high] = hint
        .range
        .unwrap_or(if dtype == DType::U8 { [0.0, 255.0] } else { [0.0, 1.0] });
    let of = |list: &Option<Vec<f32>>, channel: usize, default: f32| match list.as_deref() {
        None | Some([]) => default,
        Some([one]) => *one,
        Some(list) => list.get(channel).copied().unwrap_or(default),
    };
    let mut scale = [0.0; 3];
    let mut bias = [0.0; 3];
    for channel in 0..3 {
        let (mean, std) = (of(&hint.mean, channel, 0.0), of(&hint.std, channel, 1.0));
        // In f64, so that the range 0 to 255 gives a scale of exactly 1.
        scale[channel] = ((f64::from(high) - f64::from(low)) / 255.0 / f64::from(std)) as f32;
        bias[channel] = ((f64::from(low) - f64::from(mean)) / f64::from(std)) as f32;
    }
    if !scale.iter().chain(&bias).all(|value| value.is_finite()) || scale.contains(&0.0) {
        return Err("range, mean and std together leave the range of numbers".into());
    }
    if dtype == DType::U8 && (scale != [1.0; 3] || bias != [0.0; 3]) {
        return Err("u8 tensors hold the bytes themselves: range is [0.0, 255.0], without mean and std".into());
    }
    Ok((scale, bias))
}

fn parse_numbers(text: &str) -> Option<Vec<f32>> {
    let text = text.trim().trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
    text.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().ok())
        .collect()
}

fn order_name(order: ChannelOrder) -> &'static str {
    match order {
        ChannelOrder::Rgb => "RGB",
        ChannelOrder::Bgr => "BGR",
        ChannelOrder::Gray => "GRAY",
    }
}

/// `other` stands for a dtype that was checked before.
fn port(tensor: &Declared, other: DType, role: Role) -> Port {
    let dtype = *tensor.dtype.as_ref().unwrap_or(&other);
    Port {
        name: tensor.name.clone(),
        dtype,
        shape: tensor.shape.clone(),
        role,
    }
}

/// `` `mask` (f32 [1, 77]) ``, with commas between.
fn list(tensors: &[Declared]) -> String {
    let one = |tensor: &Declared| {
        let dtype = match &tensor.dtype {
            Ok(dtype) => dtype.name(),
            Err(name) => name,
        };
        format!("`{}` ({dtype} {})", tensor.name, shape_text(&tensor.shape))
    };
    tensors.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "fit_tests.rs"]
mod tests;

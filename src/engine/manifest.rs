//! The manifest beside a model, `cartoon.toml` for `cartoon.onnx`: what its tensors mean.
//!
//! ```toml
//! title = "Cartoon"
//! license = "MIT"
//! source = "https://example.org/cartoon"
//! model-type = "sd1"           # only beside an engine that ComfyUI compiled: the family of its model
//!
//! [inputs.image]
//! layout = "BCHW"              # BCHW, BHWC, CHW or HWC
//! order = "RGB"                # RGB, BGR or GRAY
//! range = [0.0, 1.0]           # tensor values of byte 0 and byte 255, before mean and std
//! mean = [0.485, 0.456, 0.406] # in the tensor's own channel order; one number or one per channel
//! std = [0.229, 0.224, 0.225]
//!
//! [outputs.depth]
//! role = "tensor"              # image or tensor
//! meaning = "distance"
//! unit = "m"
//!
//! [batch]
//! max = 8
//! ```
//!
//! Every field may be left out: a model's own metadata is asked next (`comfy.layout`, or for one tensor
//! `comfy.image.layout`), and then its names, shapes and dtypes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;
use crate::tensor::{ChannelOrder, Layout};

/// Larger files are refused unread.
pub const MAX_BYTES: u64 = 64 * 1024;

/// A manifest's content.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The model's name, for people.
    pub title: Option<String>,
    /// What it does, for people.
    pub description: Option<String>,
    /// Its licence, as an SPDX expression where there is one.
    pub license: Option<String>,
    /// Where it came from.
    pub source: Option<String>,
    /// Which family of diffusion models it belongs to: what a compiled engine of such a model takes follows from it.
    #[serde(rename = "model-type")]
    pub model_type: Option<Family>,
    /// By tensor name.
    #[serde(default)]
    pub inputs: BTreeMap<String, Tensor>,
    /// By tensor name.
    #[serde(default)]
    pub outputs: BTreeMap<String, Tensor>,
    /// Limits of a batch.
    #[serde(default)]
    pub batch: Batch,
}

/// A family of diffusion models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Stable Diffusion 1.x.
    #[serde(alias = "sd1.x")]
    Sd1,
    /// Stable Diffusion 2.x.
    #[serde(alias = "sd2.x-768v")]
    Sd2,
    /// Stable Diffusion XL, base.
    #[serde(alias = "sdxl_base")]
    Sdxl,
    /// Stable Diffusion XL, refiner.
    #[serde(alias = "sdxl_refiner")]
    SdxlRefiner,
    /// Stable Diffusion 3.
    Sd3,
}

impl Family {
    /// All names, for messages.
    pub const NAMES: &str = "sd1, sd2, sdxl, sdxl-refiner, sd3";
}

/// What one tensor means. With `role = "tensor"` the picture's fields are refused.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Picture or not; None: judged by the rest and by the shape.
    pub role: Option<RoleName>,
    /// Order of the dimensions.
    pub layout: Option<Layout>,
    /// Order of the channels.
    pub order: Option<ChannelOrder>,
    /// Values of byte 0 and byte 255, before `mean` and `std`.
    pub range: Option<[f32; 2]>,
    /// Subtracted; one number, or one per channel.
    pub mean: Option<Vec<f32>>,
    /// Divided by; one number, or one per channel.
    pub std: Option<Vec<f32>>,
    /// What the numbers say, for whoever reads the tensor: `distance`, `class scores`.
    pub meaning: Option<String>,
    /// The numbers' unit.
    pub unit: Option<String>,
}

/// The two roles by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// A picture.
    Image,
    /// Anything else.
    Tensor,
}

/// Limits of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Most images in one run.
    pub max: Option<usize>,
}

impl Tensor {
    /// Whether anything is said that only a picture has.
    pub(super) fn says_image(&self) -> bool {
        self.layout.is_some()
            || self.order.is_some()
            || self.range.is_some()
            || self.mean.is_some()
            || self.std.is_some()
    }
}

/// The bytes of a file beside a model, if there is one; the error is a clause.
#[cfg(feature = "ort")]
pub(super) fn small_file(path: &Path, most: u64) -> Result<Option<Vec<u8>>, String> {
    use std::io::Read as _;

    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > most {
        return Err(format!("is larger than {} KiB; it is a few lines", most / 1024));
    }
    Ok(Some(bytes))
}

/// Where the manifest of a model is looked for.
pub fn path_of(model: &Path) -> PathBuf {
    model.with_extension("toml")
}

impl Manifest {
    /// Reads the manifest beside a model. None when there is none.
    #[cfg(feature = "ort")]
    pub fn beside(model: &Path) -> Result<Option<Self>, Error> {
        let path = path_of(model);
        let name = path.display().to_string();
        let refuse = |reason: String| Error::Manifest {
            path: name.clone(),
            reason,
        };
        let Some(bytes) = small_file(&path, MAX_BYTES).map_err(refuse)? else {
            return Ok(None);
        };
        let text = String::from_utf8(bytes).map_err(|_| refuse("is not UTF-8 text".into()))?;
        Self::parse(&text, &name).map(Some)
    }

    /// Reads a manifest's text; `path` is for messages.
    pub fn parse(text: &str, path: &str) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Manifest {
            path: path.into(),
            reason,
        };
        let manifest: Self = toml::from_str(text).map_err(|error| refuse(error.to_string().trim_end().into()))?;
        let inputs = manifest.inputs.iter().map(|(name, tensor)| ("inputs", name, tensor));
        let outputs = manifest.outputs.iter().map(|(name, tensor)| ("outputs", name, tensor));
        for (table, name, tensor) in inputs.chain(outputs) {
            tensor
                .check()
                .map_err(|reason| refuse(format!("[{table}.{}] {reason}", key(name))))?;
        }
        if manifest.batch.max == Some(0) {
            return Err(refuse("[batch] max = 0: expected at least 1".into()));
        }
        Ok(manifest)
    }
}

impl Tensor {
    /// What no model could make right.
    fn check(&self) -> Result<(), String> {
        if self.role == Some(RoleName::Tensor) && self.says_image() {
            return Err("role = \"tensor\": layout, order, range, mean and std belong to images; take them out".into());
        }
        check_numbers(self.range, self.mean.as_deref(), self.std.as_deref(), self.order)
    }
}

/// Checks the numbers of a picture, wherever they come from.
pub(super) fn check_numbers(
    range: Option<[f32; 2]>,
    mean: Option<&[f32]>,
    std: Option<&[f32]>,
    order: Option<ChannelOrder>,
) -> Result<(), String> {
    if let Some([low, high]) = range
        && !(low.is_finite() && high.is_finite() && (high - low).is_normal())
    {
        return Err(format!(
            "range = [{low}, {high}]: expected two different numbers, such as [0.0, 1.0]"
        ));
    }
    for (name, list) in [("mean", mean), ("std", std)] {
        let Some(list) = list else { continue };
        let fits = match order {
            Some(order) => list.len() == 1 || list.len() == order.channels(),
            None => matches!(list.len(), 1 | 3),
        };
        let good = |value: &f32| value.is_finite() && (name == "mean" || value.is_normal());
        if !fits || !list.iter().all(good) {
            let zero = if name == "std" { ", none of them 0" } else { "" };
            return Err(format!(
                "{name} = {list:?}: expected one number or one per channel{zero}"
            ));
        }
    }
    Ok(())
}

/// A tensor's name as a TOML key.
pub(super) fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) {
        name.into()
    } else {
        toml::Value::from(name).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        title = "Cartoon"
        description = "Outlines and flat areas"
        license = "MIT"
        source = "https://example.org"
        [inputs.image]
        role = "image"
        layout = "BCHW"
        order = "BGR"
        range = [-1.0, 1.0]
        mean = [0.5]
        std = [0.1, 0.2, 0.3]
        [outputs."a/b"]
        role = "tensor"
        meaning = "distance"
        unit = "m"
        [batch]
        max = 8
    "#;

    #[test]
    fn every_field_is_read() {
        let manifest = Manifest::parse(GOOD, "a.toml").unwrap();
        let image = &manifest.inputs["image"];
        assert_eq!(
            (image.layout, image.order),
            (Some(Layout::Bchw), Some(ChannelOrder::Bgr))
        );
        assert_eq!(image.range, Some([-1.0, 1.0]));
        assert_eq!(manifest.outputs["a/b"].unit.as_deref(), Some("m"));
        assert_eq!(manifest.batch.max, Some(8));
        assert_eq!(Manifest::parse("", "a.toml").unwrap(), Manifest::default());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("titel = 'x'", "unknown field `titel`"),
            (
                "[inputs.x]\nlayout = 'NCHW'",
                "unknown variant `NCHW`, expected one of `CHW`, `HWC`, `BCHW`, `BHWC`",
            ),
            ("[inputs.x]\norder = 'rgb'", "expected one of `RGB`, `BGR`, `GRAY`"),
            ("[inputs.x]\nrole = 'mask'", "expected `image` or `tensor`"),
            ("[inputs.x]\nrange = [0.0]", "line 2"),
            (
                "[inputs.x]\nrange = [1.0, 1.0]",
                "[inputs.x] range = [1, 1]: expected two different numbers",
            ),
            ("[inputs.x]\nrange = [0.0, inf]", "expected two different numbers"),
            (
                "[inputs.x]\nmean = [1.0, 2.0]",
                "[inputs.x] mean = [1.0, 2.0]: expected one number or one per channel",
            ),
            ("[inputs.x]\norder = 'GRAY'\nmean = [1.0, 2.0, 3.0]", "one per channel"),
            (
                "[outputs.'a b']\nstd = [0.0]",
                "[outputs.\"a b\"] std = [0.0]: expected one number or one per channel, none",
            ),
            ("[outputs.x]\nrole = 'tensor'\nrange = [0.0, 1.0]", "belong to images"),
            ("model-type = 'sd9'", "expected one of `sd1`, `sd1.x`, `sd2`"),
            ("[batch]\nmax = 0", "[batch] max = 0"),
            ("[batch]\nmax = -1", "max = -1"),
            ("[batch]\nmin = 1", "unknown field `min`"),
            ("x", "line 1"),
        ] {
            let error = Manifest::parse(text, "a.toml").expect_err(text);
            let text = error.to_string();
            assert!(
                text.starts_with("manifest a.toml: ") && text.contains(part),
                "{part} in {text}"
            );
        }
    }

    #[test]
    fn it_lies_beside_the_model() {
        assert_eq!(path_of(Path::new("/m/cartoon.onnx")), Path::new("/m/cartoon.toml"));
        assert_eq!(path_of(Path::new("cartoon")), Path::new("cartoon.toml"));
    }

    #[cfg(feature = "ort")]
    #[test]
    fn a_missing_manifest_is_none_and_a_huge_or_binary_one_is_refused() {
        let folder = crate::engine::testing::Folder::new("manifest");
        let model = folder.path().join("a.onnx");
        assert_eq!(Manifest::beside(&model), Ok(None));
        let reason = |bytes: &[u8]| {
            std::fs::write(folder.path().join("a.toml"), bytes).unwrap();
            Manifest::beside(&model).unwrap_err().to_string()
        };
        assert!(reason(&vec![b'#'; 64 * 1024 + 1]).contains("larger than 64 KiB"));
        assert!(reason(b"\xff\xfe").contains("not UTF-8"));
        std::fs::write(folder.path().join("a.toml"), vec![b'#'; 64 * 1024]).unwrap();
        assert_eq!(Manifest::beside(&model), Ok(Some(Manifest::default())));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = Manifest::parse(&text, "a.toml");
        }

        #[test]
        fn no_near_miss_panics(
            cut in 0..GOOD.len(), key in "[a-z\\[\\]=.\"]{0,12}", number in proptest::num::f32::ANY,
        ) {
            let mut text: String = GOOD.chars().take(cut).collect();
            text.push_str(&key);
            let _ = Manifest::parse(&text, "a.toml");
            let _ = Manifest::parse(&format!("[inputs.x]\nrange=[{number}, 1.0]\nstd=[{number}]"), "a.toml");
        }
    }
}

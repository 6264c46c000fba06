//! The description beside an engine, `cartoon.engine.json` for `cartoon.engine`: a compiled engine has no header that
//! could be asked.
//!
//! ```json
//! {
//!   "inputs": [{
//!     "name": "image", "dtype": "float32", "shape": ["batch", 3, "height", "width"],
//!     "min": [1, 3, 256, 256], "opt": [4, 3, 512, 512], "max": [8, 3, 1024, 1024]
//!   }],
//!   "outputs": [{ "name": "result", "dtype": "float32", "shape": ["batch", 3, "height", "width"] }],
//!   "trt": "10.16.1",
//!   "hardware_architecture": "89"
//! }
//! ```
//!
//! A dimension is a number, or a name where it varies; then `min`, `opt` and `max` say how far. The last two lines may
//! be left out.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::io::{Io, Range, Tensor, with_range};
use crate::engine::ort::onnx::Element;
use crate::engine::{Error, manifest};
use crate::tensor::Dim;

/// Larger files are refused unread.
const MAX_BYTES: u64 = 64 * 1024;
/// Most inputs, and most outputs.
const MAX_TENSORS: usize = 64;
/// TensorRT has no tensors of more dimensions.
const MAX_RANK: usize = 8;
/// Largest number in a shape.
const MAX_DIM: usize = 1 << 31;
/// Longest name, in bytes.
const MAX_NAME: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sidecar {
    inputs: Vec<Described>,
    outputs: Vec<Described>,
    trt: Option<String>,
    hardware_architecture: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    name: String,
    dtype: String,
    shape: Vec<DimText>,
    min: Option<Vec<usize>>,
    opt: Option<Vec<usize>>,
    max: Option<Vec<usize>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a dimension is a number, or a name in quotes")]
enum DimText {
    Number(usize),
    Name(String),
}

/// Where the sidecar of an engine is looked for.
pub(super) fn path_of(engine: &Path) -> PathBuf {
    let mut name = engine.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// Reads the sidecar beside an engine. None when there is none.
pub(super) fn beside(engine: &Path) -> Result<Option<Io>, Error> {
    let path = path_of(engine);
    let name = path.display().to_string();
    let refuse = |reason: String| Error::Manifest {
        path: name.clone(),
        reason,
    };
    let Some(bytes) = manifest::small_file(&path, MAX_BYTES).map_err(refuse)? else {
        return Ok(None);
    };
    parse(&bytes).map(Some).map_err(refuse)
}

/// Reads a sidecar. The error is a clause.
pub(super) fn parse(bytes: &[u8]) -> Result<Io, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    let sidecar: Sidecar = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut names = std::collections::BTreeSet::new();
    let mut tensors = |list: Vec<Described>, table: &str, is_input| -> Result<Vec<Tensor>, String> {
        if list.is_empty() || list.len() > MAX_TENSORS {
            return Err(format!("\"{table}\" lists {}: expected 1 to {MAX_TENSORS}", list.len()));
        }
        let read = list.into_iter().map(|tensor| {
            let tensor = tensor.check(is_input)?;
            if !names.insert(tensor.name.clone()) {
                return Err(format!("two tensors have the name `{}`", tensor.name));
            }
            Ok(tensor)
        });
        read.collect()
    };
    let inputs = tensors(sidecar.inputs, "inputs", true)?;
    let outputs = tensors(sidecar.outputs, "outputs", false)?;
    if let Some(text) = &sidecar.trt
        && !(text.contains('.') && text.split('.').all(|part| part.parse::<u32>().is_ok()))
    {
        return Err(format!("\"trt\" is \"{text}\": expected a version, such as 10.16.1"));
    }
    if let Some(text) = &sidecar.hardware_architecture
        && text.strip_suffix('+').unwrap_or(text).parse::<u16>().is_err()
    {
        return Err(format!(
            "\"hardware_architecture\" is \"{text}\": expected a compute capability without its dot, such as 89 or 80+"
        ));
    }
    Ok(Io {
        inputs,
        outputs,
        tensorrt: sidecar.trt,
        architecture: sidecar.hardware_architecture,
    })
}

impl Described {
    fn check(self, is_input: bool) -> Result<Tensor, String> {
        let name = self.name;
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(format!(
                "a tensor's name has 1 to {MAX_NAME} characters, not {:?}",
                shorten(&name)
            ));
        }
        let element = Element::named(&self.dtype).ok_or_else(|| {
            let known = Element::names();
            format!(
                "`{name}`: \"dtype\" is {:?}: expected one of {known}",
                shorten(&self.dtype)
            )
        })?;
        if self.shape.len() > MAX_RANK {
            return Err(format!(
                "`{name}`: {} dimensions are more than {MAX_RANK}",
                self.shape.len()
            ));
        }
        let mut shape = Vec::new();
        for dim in self.shape {
            shape.push(match dim {
                DimText::Number(n @ 1..=MAX_DIM) => Dim::Fixed(n),
                DimText::Number(n) => {
                    return Err(format!("`{name}`: no dimension is {n}; write a name where it varies"));
                }
                DimText::Name(text) if !text.is_empty() && text.len() <= MAX_NAME => Dim::Dynamic(text),
                DimText::Name(_) => return Err(format!("`{name}`: a dimension's name has 1 to {MAX_NAME} bytes")),
            });
        }
        let varies = shape.iter().any(|dim| dim.fixed().is_none());
        let range = match (self.min, self.opt, self.max) {
            (Some(min), Some(opt), Some(max)) => {
                if min.iter().chain(&opt).chain(&max).any(|n| !(1..=MAX_DIM).contains(n)) {
                    return Err(format!("`{name}`: min, opt and max are numbers from 1"));
                }
                Some(Range { min, opt, max })
            }
            (None, None, None) if is_input && varies => {
                return Err(format!(
                    "`{name}`: {} varies: say how far in \"min\", \"opt\" and \"max\", which the engine was compiled with",
                    crate::tensor::shape_text(&shape)
                ));
            }
            (None, None, None) => None,
            _ => return Err(format!("`{name}`: \"min\", \"opt\" and \"max\" come together")),
        };
        let (shape, range) = with_range(&name, shape, range)?;
        Ok(Tensor {
            name,
            element,
            shape,
            range,
        })
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

/// A sidecar to be filled in, for messages.
pub(super) const TEMPLATE: &str = r#"{
  "inputs": [{
    "name": "image", "dtype": "float32", "shape": ["batch", 3, "height", "width"],
    "min": [1, 3, 512, 512], "opt": [4, 3, 512, 512], "max": [4, 3, 512, 512]
  }],
  "outputs": [{ "name": "result", "dtype": "float32", "shape": ["batch", 3, "height", "width"] }]
}"#;

/// The sidecar's text for what is known of an engine.
pub(super) fn text(io: &Io) -> String {
    let dims = |shape: &[Dim]| -> Vec<serde_json::Value> {
        let one = |dim: &Dim| match dim {
            Dim::Fixed(n) => (*n).into(),
            Dim::Dynamic(name) => name.as_str().into(),
        };
        shape.iter().map(one).collect()
    };
    let one = |tensor: &Tensor| {
        let mut object = serde_json::json!({
            "name": tensor.name,
            "dtype": tensor.element.name(),
            "shape": dims(&tensor.shape),
        });
        if let Some(range) = &tensor.range {
            object["min"] = range.min.clone().into();
            object["opt"] = range.opt.clone().into();
            object["max"] = range.max.clone().into();
        }
        object
    };
    let mut object = serde_json::json!({
        "inputs": io.inputs.iter().map(one).collect::<Vec<_>>(),
        "outputs": io.outputs.iter().map(one).collect::<Vec<_>>(),
    });
    if let Some(version) = &io.tensorrt {
        object["trt"] = version.as_str().into();
    }
    if let Some(architecture) = &io.architecture {
        object["hardware_architecture"] = architecture.as_str().into();
    }
    format!("{object:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::Folder;

    const GOOD: &str = r#"{
        "inputs": [{
            "name": "image", "dtype": "float16", "shape": ["batch", 3, "height", 512],
            "min": [2, 3, 256, 512], "opt": [2, 3, 512, 512], "max": [2, 3, 1024, 512]
        }],
        "outputs": [{ "name": "result", "dtype": "f32", "shape": ["batch", 3, "height", 512] }],
        "trt": "10.16.1",
        "hardware_architecture": "80+"
    }"#;

    #[test]
    fn every_field_is_read_and_written() {
        let io = parse(GOOD.as_bytes()).unwrap();
        assert_eq!(io.inputs[0].text(), "float16 [2, 3, height, 512]");
        assert_eq!(io.inputs[0].limits(2), Some((256, 1024)));
        assert_eq!(io.inputs[0].limits(0), Some((2, 2)));
        assert_eq!(io.outputs[0].text(), "float32 [batch, 3, height, 512]");
        assert_eq!(
            (io.tensorrt.as_deref(), io.architecture.as_deref()),
            (Some("10.16.1"), Some("80+"))
        );
        assert_eq!(parse(text(&io).as_bytes()), Ok(io));
    }

    #[test]
    fn the_template_is_a_sidecar() {
        assert_eq!(parse(TEMPLATE.as_bytes()).unwrap().inputs.len(), 1);
    }

    #[test]
    fn mistakes_are_named() {
        let input = |fields: &str| {
            format!(r#"{{"inputs":[{{{fields}}}],"outputs":[{{"name":"o","dtype":"f32","shape":[1]}}]}}"#)
        };
        for (text, part) in [
            (GOOD.replace("trt", "tensorrt"), "unknown field `tensorrt`"),
            (GOOD.replace("\"opt\"", "\"best\""), "unknown field `best`"),
            (GOOD.replace("float16", "half"), "expected one of float32, uint8"),
            (GOOD.replace("10.16.1", "ten"), "expected a version"),
            (GOOD.replace("80+", "sm_80"), "such as 89 or 80+"),
            (
                GOOD.replace("\"result\"", "\"image\""),
                "two tensors have the name `image`",
            ),
            (
                input(r#""name":"x","dtype":"f32","shape":["n"]"#),
                "say how far in \"min\"",
            ),
            (
                input(r#""name":"x","dtype":"f32","shape":["n"],"min":[1]"#),
                "come together",
            ),
            (input(r#""name":"x","dtype":"f32","shape":[0]"#), "no dimension is 0"),
            (
                input(r#""name":"x","dtype":"f32","shape":[-1]"#),
                "a number, or a name in quotes",
            ),
            (
                input(r#""name":"x","dtype":"f32","shape":[1.5]"#),
                "a number, or a name in quotes",
            ),
            (input(r#""name":"","dtype":"f32","shape":[1]"#), "1 to 256"),
            (
                input(r#""name":"x","dtype":"f32","shape":[1,1,1,1,1,1,1,1,1]"#),
                "more than 8",
            ),
            (
                input(r#""name":"x","dtype":"f32","shape":["n"],"min":[1],"opt":[0],"max":[2]"#),
                "from 1",
            ),
            (r#"{"inputs":[],"outputs":[]}"#.into(), "\"inputs\" lists 0"),
            ("{}".into(), "missing field `inputs`"),
            ("[".repeat(10_000), "line 1"),
        ] {
            let reason = parse(text.as_bytes()).expect_err(&text);
            assert!(reason.contains(part), "{part} in {reason}");
        }
        assert!(parse(b"\xff").unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn it_lies_beside_the_engine_and_a_huge_one_is_refused() {
        let folder = Folder::new("sidecar");
        let engine = folder.path().join("a.engine");
        assert_eq!(beside(&engine), Ok(None));
        std::fs::write(folder.path().join("a.engine.json"), GOOD).unwrap();
        assert!(beside(&engine).unwrap().is_some());
        std::fs::write(folder.path().join("a.engine.json"), " ".repeat(64 * 1024 + 1)).unwrap();
        assert!(beside(&engine).unwrap_err().to_string().contains("larger than 64 KiB"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_near_miss_panics(cut in 0..GOOD.len(), rest in "[\\[\\]{}\",:0-9a-z]{0,12}") {
            let mut text: String = GOOD.chars().take(cut).collect();
            text.push_str(&rest);
            let _ = parse(text.as_bytes());
            text.extend(GOOD.chars().skip(cut));
            let _ = parse(text.as_bytes());
        }
    }
}

//! What a model file is, and by way of which file it is opened.

use std::path::{Path, PathBuf};

use super::archive::{self, Content};
use super::io::{Io, Tensor};
use super::store::Cache;
use super::wrapper::{self, Payload};
use super::{convention, sidecar};
use crate::engine::Error;
use crate::engine::manifest::{self, Family, Manifest};
use crate::engine::ort::onnx::{self, Summary};

/// A model file.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::engine) enum Source {
    /// A model to be run, or compiled. None: a format whose declarations only the runtime can read.
    Model(Option<Summary>),
    /// A compiled engine.
    Compiled(Compiled),
}

/// A compiled engine.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::engine) struct Compiled {
    /// The ONNX file to open.
    pub(in crate::engine) wrapper: PathBuf,
    /// What it takes and gives.
    pub(in crate::engine) io: Io,
    /// It was compiled by TensorRT for RTX.
    pub(in crate::engine) rtx: bool,
    /// Its own metadata.
    pub(in crate::engine) metadata: std::collections::BTreeMap<String, String>,
}

impl Source {
    /// Looks at a file, and writes its wrapper where it needs one.
    pub(in crate::engine) fn find(path: &Path, manifest: &Manifest, cache: Option<&Path>) -> Result<Self, Error> {
        let payload = match kind(path)? {
            File::Engine => Payload::Link,
            File::Archive => Payload::Archive,
            File::Context(summary) => return Ok(Self::Compiled(of_context(path, summary))),
            File::Model(summary) => return Ok(Self::Model(summary)),
        };
        let (io, _) = describe(path, manifest)?;
        io.check_filter(&name_of(path))?;
        Ok(Self::Compiled(Compiled {
            wrapper: wrapper::place(path, payload, &io, &Cache::at(cache)?)?,
            io,
            rtx: false,
            metadata: Default::default(),
        }))
    }
}

impl Source {
    /// What the model's file declares.
    pub(in crate::engine) fn summary(&self) -> Option<&Summary> {
        match self {
            Self::Model(summary) => summary.as_ref(),
            Self::Compiled(_) => None,
        }
    }

    pub(in crate::engine) fn compiled(&self) -> Option<&Compiled> {
        match self {
            Self::Model(_) => None,
            Self::Compiled(compiled) => Some(compiled),
        }
    }
}

fn of_context(path: &Path, summary: Summary) -> Compiled {
    let context = summary.context.unwrap_or_default();
    Compiled {
        wrapper: path.into(),
        io: Io {
            inputs: summary.inputs.iter().map(Tensor::from).collect(),
            outputs: summary.outputs.iter().map(Tensor::from).collect(),
            tensorrt: None,
            architecture: Some(context.architecture).filter(|text| !text.is_empty()),
        },
        rtx: context.source.contains("RTX"),
        metadata: summary.metadata,
    }
}

/// What kind of file it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum File {
    /// An engine's bytes.
    Engine,
    /// An engine in an archive of PyTorch's.
    Archive,
    /// An ONNX file that stands for an engine.
    Context(Summary),
    /// Another ONNX file, or something that only the runtime can read.
    Model(Option<Summary>),
}

pub(super) fn kind(path: &Path) -> Result<File, Error> {
    let not_a_model = |reason: String| Error::NotAModel {
        path: path.display().to_string(),
        reason,
    };
    let content = archive::content(path).map_err(|error| Error::Unreadable {
        path: path.display().to_string(),
        reason: error.to_string(),
    })?;
    let engine = path
        .extension()
        .is_some_and(|extension| extension == "engine" || extension == "plan");
    match content {
        Content::Zip => {
            archive::locate(path).map_err(not_a_model)?;
            Ok(File::Archive)
        }
        Content::Legacy => Err(not_a_model(archive::LEGACY_REASON.into())),
        Content::Other if engine => Ok(File::Engine),
        Content::Other => Ok(match onnx::read(path) {
            Ok(summary) if summary.context.is_some() => File::Context(summary),
            read => File::Model(read.ok()),
        }),
    }
}

/// Where an engine's inputs and outputs are known from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whence {
    /// The file beside it.
    Sidecar(PathBuf),
    /// Its name, and the family in the file beside it.
    Name(PathBuf),
}

/// What an engine takes and gives, from what lies beside it.
pub(super) fn describe(path: &Path, manifest: &Manifest) -> Result<(Io, Whence), Error> {
    if let Some(io) = sidecar::beside(path)? {
        return Ok((io, Whence::Sidecar(sidecar::path_of(path))));
    }
    let beside = manifest::path_of(path);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let unknown = |what: String| Error::NotAModel {
        path: path.display().to_string(),
        reason: format!("it is a compiled TensorRT engine, which does not say what it takes; {what}"),
    };
    match (convention::sizes(&stem), manifest.model_type) {
        (Some(sizes), Some(family)) => {
            let io = convention::io(sizes, family).map_err(unknown)?;
            Ok((io, Whence::Name(beside)))
        }
        (Some(_), None) => Err(unknown(format!(
            "its name has the sizes that ComfyUI compiled it for: say the family of the model in {}, as \
             model-type = \"sd1\" (or {})",
            beside.display(),
            Family::NAMES
        ))),
        (None, _) => Err(unknown(format!(
            "compile it anew from its ONNX file, which needs no more than that (`comfystream engine build --model \
             {stem}.onnx`, or `model={stem}.onnx` with backend=tensorrt), or describe it in {}:\n{}",
            sidecar::path_of(path).display(),
            sidecar::TEMPLATE
        ))),
    }
}

/// For messages.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::Folder;

    const FAMILY: &str = "sd15_$stat-b-2-h-512-w-512_00001_";

    fn find(path: &Path, folder: &Folder) -> Result<Source, Error> {
        let manifest = Manifest::beside(path)?.unwrap_or_default();
        Source::find(path, &manifest, Some(&folder.path().join("cache")))
    }

    fn refusal(path: &Path, folder: &Folder) -> String {
        find(path, folder).expect_err("it is refused").to_string()
    }

    #[test]
    fn an_engine_with_a_sidecar_gets_a_wrapper() {
        let folder = Folder::new("source");
        for name in ["a.engine", "a.plan"] {
            let engine = folder.path().join(name);
            std::fs::write(&engine, "engine").unwrap();
            std::fs::write(sidecar::path_of(&engine), sidecar::TEMPLATE).unwrap();
            let Ok(Source::Compiled(compiled)) = find(&engine, &folder) else {
                panic!("{name}: {}", refusal(&engine, &folder));
            };
            let read = onnx::read(&compiled.wrapper).unwrap();
            assert_eq!(read.inputs[0].name, "image");
            assert_eq!(compiled.io.inputs[0].limits(0), Some((1, 4)));
            assert!(!compiled.rtx);
        }
    }

    #[test]
    fn an_engine_without_a_description_says_which_file_to_write_and_what_into_it() {
        let folder = Folder::new("source-bare");
        let engine = folder.path().join("cartoon.engine");
        std::fs::write(&engine, "engine").unwrap();
        let text = refusal(&engine, &folder);
        for part in [
            "comfystream engine build --model cartoon.onnx",
            "cartoon.engine.json:\n{\n",
            "\"shape\": [\"batch\", 3, \"height\", \"width\"]",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_name_of_comfyui_needs_the_family_and_a_unet_is_no_filter() {
        let folder = Folder::new("source-family");
        let engine = folder.path().join(format!("{FAMILY}.engine"));
        std::fs::write(&engine, "engine").unwrap();
        let text = refusal(&engine, &folder);
        assert!(
            text.contains("model-type = \"sd1\"") && text.contains(&format!("{FAMILY}.toml")),
            "{text}"
        );
        std::fs::write(folder.path().join(format!("{FAMILY}.toml")), "model-type = 'sdxl'").unwrap();
        let text = refusal(&engine, &folder);
        assert!(
            text.contains("UNet of a diffusion model (inputs x, timesteps, context, y)"),
            "{text}"
        );
        assert!(text.contains("comfystream engine inspect"), "{text}");
        std::fs::write(folder.path().join(format!("{FAMILY}.toml")), "model-type = 'sd9'").unwrap();
        let text = refusal(&engine, &folder);
        assert!(text.contains("unknown variant `sd9`, expected one of `sd1`"), "{text}");
    }

    #[test]
    fn an_archive_of_pytorch_is_unpacked_beside_its_wrapper() {
        let folder = Folder::new("source-archive");
        let engine = folder.path().join("a.engine");
        let bytes = vec![7; 1000];
        archive::tests::archive(&engine, &[("archive/data.pkl", b"x"), ("archive/data/0", &bytes)]);
        std::fs::write(sidecar::path_of(&engine), sidecar::TEMPLATE).unwrap();
        let Ok(Source::Compiled(compiled)) = find(&engine, &folder) else {
            panic!("{}", refusal(&engine, &folder));
        };
        assert_eq!(std::fs::read(compiled.wrapper.with_file_name("engine")).unwrap(), bytes);
        archive::tests::archive(&engine, &[("archive/data.pkl", b"x"), ("archive/x", &bytes)]);
        assert!(refusal(&engine, &folder).contains("holds no tensor"));
        std::fs::write(&engine, b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19").unwrap();
        assert!(refusal(&engine, &folder).contains("PyTorch's older format"));
    }

    #[test]
    fn an_onnx_file_that_stands_for_an_engine_is_opened_as_it_is() {
        let folder = Folder::new("source-context");
        let engine = folder.path().join("a.engine");
        std::fs::write(&engine, "engine").unwrap();
        std::fs::write(sidecar::path_of(&engine), sidecar::TEMPLATE).unwrap();
        let Ok(Source::Compiled(first)) = find(&engine, &folder) else {
            panic!("{}", refusal(&engine, &folder));
        };
        let Ok(Source::Compiled(again)) = find(&first.wrapper, &folder) else {
            panic!("{}", refusal(&first.wrapper, &folder));
        };
        assert_eq!(again.wrapper, first.wrapper);
        let model = format!("{}/src/engine/testdata/invert.onnx", env!("CARGO_MANIFEST_DIR"));
        assert!(matches!(find(Path::new(&model), &folder), Ok(Source::Model(Some(_)))));
        std::fs::write(folder.path().join("x.ort"), "ORTM").unwrap();
        assert_eq!(find(&folder.path().join("x.ort"), &folder), Ok(Source::Model(None)));
    }
}

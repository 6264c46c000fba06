//! The small ONNX file by way of which ONNX Runtime runs an engine that others compiled.
//!
//! Its only node names the engine's file, which must lie below the wrapper's own folder: so the wrapper is in a folder
//! of the cache, with a link to the engine beside it. The folder's name follows from the engine's path, size and time
//! and from what the wrapper declares; another engine or another sidecar makes another one.

use std::path::{Path, PathBuf};

use prost::Message;

use super::io::Io;
use super::key::hex;
use super::store::Cache;
use super::{archive, store};
use crate::engine::Error;
use crate::engine::ort::onnx::{Attribute, Declaration, EP_CONTEXT, Graph, Model, Node, Opset, ValueInfo};

/// The wrapper's name in its folder.
pub(super) const MODEL: &str = "model.onnx";
/// The engine's name beside it.
pub(super) const ENGINE: &str = "engine";

/// How an engine's bytes come to lie beside the wrapper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// By a link to the file.
    Link,
    /// Taken out of an archive.
    Archive,
}

/// The wrapper's content.
pub(super) fn model(io: &Io) -> Model {
    let declare = |tensors: &[super::io::Tensor]| -> Vec<ValueInfo> {
        let declared = tensors.iter().map(Declaration::from);
        declared.map(|tensor| ValueInfo::from(&tensor)).collect()
    };
    let names = |tensors: &[super::io::Tensor]| tensors.iter().map(|tensor| tensor.name.clone()).collect();
    let mut attributes = vec![
        Attribute::int("main_context", 1),
        Attribute::int("embed_mode", 0),
        Attribute::text("ep_cache_context", ENGINE),
        Attribute::text("source", TENSORRT),
    ];
    if let Some(architecture) = &io.architecture {
        attributes.push(Attribute::text("hardware_architecture", architecture));
    }
    let opset = |domain: &str, version| Opset {
        domain: domain.into(),
        version,
    };
    Model {
        ir_version: 8,
        producer_name: "gst-comfy".into(),
        graph: Some(Graph {
            node: vec![Node {
                input: names(&io.inputs),
                output: names(&io.outputs),
                name: ENGINE.into(),
                op_type: EP_CONTEXT.into(),
                attribute: attributes,
                domain: "com.microsoft".into(),
            }],
            name: ENGINE.into(),
            input: declare(&io.inputs),
            output: declare(&io.outputs),
        }),
        opset_import: vec![opset("", 17), opset("com.microsoft", 1)],
        metadata: Vec::new(),
    }
}

/// ONNX Runtime's name for the provider that is to run it.
pub(super) const TENSORRT: &str = "TensorrtExecutionProvider";

/// The wrapper of an engine, written unless it is there.
pub(super) fn place(engine: &Path, payload: Payload, io: &Io, cache: &Cache) -> Result<PathBuf, Error> {
    let bytes = model(io).encode_to_vec();
    let unreadable = |error: std::io::Error| Error::Unreadable {
        path: engine.display().to_string(),
        reason: error.to_string(),
    };
    let engine = engine.canonicalize().map_err(unreadable)?;
    let stamp = store::stamp(&engine).map_err(unreadable)?;
    let folder = cache.wrappers().join(&hex(&[stamp.as_bytes(), &bytes])[..32]);
    let wrapper = folder.join(MODEL);
    // A link that leads nowhere any more does not count as being there.
    if wrapper.is_file() && folder.join(ENGINE).is_file() {
        return Ok(wrapper);
    }
    let made = store::fill(&folder, |folder| {
        match payload {
            Payload::Link => std::os::unix::fs::symlink(&engine, folder.join(ENGINE))?,
            Payload::Archive => archive::extract(&engine, &folder.join(ENGINE)).map_err(std::io::Error::other)?,
        }
        std::fs::write(folder.join(MODEL), &bytes)?;
        store::describe_wrapper(folder, &engine)
    });
    made.map_err(|error| store::unwritable(&folder, &error))?;
    Ok(wrapper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::Folder;
    use crate::engine::trt::sidecar;

    fn io() -> Io {
        let mut io = sidecar::parse(sidecar::TEMPLATE.as_bytes()).unwrap();
        io.architecture = Some("89".into());
        io
    }

    #[test]
    fn a_wrapper_lies_beside_a_link_to_its_engine_and_is_written_once() {
        let folder = Folder::new("wrapper");
        let cache = Cache::at(Some(folder.path())).unwrap();
        let engine = folder.path().join("a.engine");
        std::fs::write(&engine, "engine").unwrap();
        let wrapper = place(&engine, Payload::Link, &io(), &cache).unwrap();
        assert_eq!(std::fs::read(wrapper.with_file_name("engine")).unwrap(), b"engine");
        let written = std::fs::metadata(&wrapper).unwrap().modified().unwrap();
        assert_eq!(place(&engine, Payload::Link, &io(), &cache).unwrap(), wrapper);
        assert_eq!(std::fs::metadata(&wrapper).unwrap().modified().unwrap(), written);

        let mut other = io();
        other.inputs[0].name = "picture".into();
        assert_ne!(
            place(&engine, Payload::Link, &other, &cache).unwrap(),
            wrapper,
            "another sidecar"
        );
        std::fs::write(&engine, "another engine").unwrap();
        assert_ne!(
            place(&engine, Payload::Link, &io(), &cache).unwrap(),
            wrapper,
            "another engine"
        );
        assert_eq!(
            place(&folder.path().join("b"), Payload::Link, &io(), &cache)
                .unwrap_err()
                .to_string()
                .split(':')
                .next(),
            Some(&*format!("model file {}/b cannot be read", folder.path().display()))
        );
    }

    #[test]
    fn a_wrapper_without_its_engine_is_made_anew() {
        let folder = Folder::new("wrapper-anew");
        let cache = Cache::at(Some(folder.path())).unwrap();
        let engine = folder.path().join("a.engine");
        std::fs::write(&engine, "engine").unwrap();
        let wrapper = place(&engine, Payload::Link, &io(), &cache).unwrap();
        std::fs::remove_file(wrapper.with_file_name("engine")).unwrap();
        assert_eq!(place(&engine, Payload::Link, &io(), &cache).unwrap(), wrapper);
        assert!(wrapper.with_file_name("engine").is_file());
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_named() {
        let folder = Folder::new("wrapper-unwritable");
        std::fs::write(folder.path().join("a.engine"), "engine").unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let cache = Cache::at(Some(&folder.path().join("file"))).unwrap();
        let error = place(&folder.path().join("a.engine"), Payload::Link, &io(), &cache).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("cannot be written") && text.contains("engine-cache"),
            "{text}"
        );
    }

    /// The reference implementation's checker looks at it as strictly as at any model.
    #[test]
    fn the_checker_of_onnx_accepts_a_wrapper() {
        let python = format!("{}/.work/venv/bin/python", env!("CARGO_MANIFEST_DIR"));
        let folder = Folder::new("wrapper-checked");
        let cache = Cache::at(Some(folder.path())).unwrap();
        let engine = folder.path().join("a.engine");
        std::fs::write(&engine, "engine").unwrap();
        let wrapper = place(&engine, Payload::Link, &io(), &cache).unwrap();
        let program = "import onnx, sys\n\
            model = onnx.load(sys.argv[1])\n\
            onnx.checker.check_model(model, full_check=True)\n\
            node, = model.graph.node\n\
            values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}\n\
            assert values == {'main_context': 1, 'embed_mode': 0, 'ep_cache_context': b'engine',\n\
                'source': b'TensorrtExecutionProvider', 'hardware_architecture': b'89'}, values\n\
            assert [i.name for i in model.graph.input] == ['image'], model.graph.input\n";
        let output = std::process::Command::new(&python)
            .args(["-c", program])
            .arg(&wrapper)
            .output()
            .unwrap_or_else(|error| panic!("{python}: {error}; scripts/setup.sh python makes it"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

//! The sample models, and ONNX Runtime to run them.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository")
        .to_owned()
}

/// Path of a sample model. Fails when ONNX Runtime is not there to run it: `make setup` fetches both.
pub fn model(name: &str) -> String {
    runtime();
    let path = root().join("models").join(name);
    assert!(
        path.is_file(),
        "{} is missing; models/make_models.py writes it",
        path.display()
    );
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// Fails, with what to do, when there is no ONNX Runtime.
pub fn runtime() {
    let path = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from).unwrap_or_else(|| {
        panic!(
            "ORT_DYLIB_PATH is not set, and this test runs a model: run `make setup`, then `make test`, or set it to \
             libonnxruntime.so of 1.23 or newer"
        )
    });
    assert!(
        path.is_file(),
        "ORT_DYLIB_PATH is {}, and there is no such file: run `make setup`",
        path.display()
    );
}

//! Models that several streams share: one graph, one engine, one batch of frames from all of them.

use serde::Serialize;

use crate::infergraph::{Backend, Precision};

/// What has to be the same for streams to share a graph.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// What people call it.
    pub name: String,
    /// An .onnx file, `builtin:invert` or `builtin:null?...`.
    pub model: String,
    /// Which runtime and provider.
    pub backend: Backend,
    /// Number of the GPU.
    pub device: u32,
    /// Numeric precision asked of the provider.
    pub precision: Precision,
    /// Processor threads of one run; 0: half of the cores.
    pub threads: u32,
    /// Most frames of one batch, 1 to 64.
    pub batch: u32,
    /// Nanoseconds after which a batch leaves unfilled; None: the element decides.
    pub timeout: Option<u64>,
}

/// Where a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// It is being loaded and warmed up.
    Loading,
    /// Frames may come.
    Ready,
    /// It cannot run.
    Error,
}

/// All graphs.
#[derive(Debug)]
pub struct Pool {}

impl Pool {
    /// An empty one.
    pub fn new() -> std::sync::Arc<Self> {
        todo!()
    }

    /// Loads a model and keeps it, whether or not a stream uses it.
    pub fn keep(&self, key: &Key) -> Result<(), crate::infergraph::Error> {
        let _ = key;
        todo!()
    }

    /// Where a model is, and what is said of it; None: nobody uses it.
    pub fn readiness(&self, key: &Key) -> Option<(Readiness, String, Option<f64>)> {
        let _ = key;
        todo!()
    }
}

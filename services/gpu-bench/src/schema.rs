//! What is measured, as it is written to docs/measurements/GPU-DATE.json and read back for the page.
//!
//! Times are in the unit that the name ends with. A part that was not measured is absent, and `failures` says why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counted up when a reader of older files would misunderstand newer ones.
pub(crate) const SCHEMA: u32 = 1;

/// One run of the bench.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    /// Without a GPU, or with tiny models: shows that the program works, and nothing else.
    pub(crate) dry_run: bool,
    /// Test data with figures that nobody measured.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) invented: bool,
    /// `2026-11-21`, UTC.
    pub(crate) date: String,
    /// As it was called.
    pub(crate) command: String,
    pub(crate) machine: Machine,
    pub(crate) versions: Versions,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oracle: Option<Vec<OracleRow>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) models: Option<Vec<ModelTimes>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tensorrt: Option<TensorRt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernels: Option<Kernels>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) copies: Option<Copies>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) busy: Option<Busy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) contexts: Option<Contexts>,
    /// What was to be measured and could not be.
    #[serde(default)]
    pub(crate) failures: Vec<Failure>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    /// As its driver names it; None: the processor alone.
    pub(crate) gpu: Option<String>,
    /// Compute capability, `9.0`.
    pub(crate) architecture: Option<String>,
    pub(crate) gpu_memory_gib: Option<f64>,
    pub(crate) cpu: Option<String>,
    pub(crate) cores: usize,
    pub(crate) memory_gib: Option<u64>,
    pub(crate) kernel: String,
    /// Of the system, over the minute before it began.
    pub(crate) load_before: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Versions {
    pub(crate) gst_comfy: String,
    /// Of the sources that the program was built from.
    pub(crate) commit: Option<String>,
    /// Newest CUDA that the driver knows.
    pub(crate) driver_cuda: Option<String>,
    /// The driver's own, `580.65.06`.
    pub(crate) driver: Option<String>,
    pub(crate) onnxruntime: Option<String>,
    /// PyTorch, and the CUDA that it was built with.
    #[serde(default)]
    pub(crate) torch: Option<String>,
}

/// Something that could not be measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failure {
    pub(crate) what: String,
    /// The exact words of whoever refused.
    pub(crate) reason: String,
}

/// Times of calls that are alike, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spread {
    pub(crate) calls: usize,
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p95: f64,
}

/// A sample model on the provider, beside the same on the processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OracleRow {
    pub(crate) model: String,
    pub(crate) provider: String,
    pub(crate) batch: usize,
    /// Largest difference of any element, in the tensor's own range of 0 to 1; of a byte as its 255th part.
    pub(crate) difference: f64,
    pub(crate) met: bool,
}

/// One model, by batch size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelTimes {
    pub(crate) model: String,
    /// Sizes of the symbolic dimensions, without the batch.
    pub(crate) sizes: BTreeMap<String, usize>,
    /// Largest difference between the provider and the processor at a small size.
    pub(crate) difference: Option<f64>,
    pub(crate) rows: Vec<ModelRow>,
    pub(crate) fits: Vec<FitRow>,
    /// Two sessions on two streams at batch 1.
    #[serde(default)]
    pub(crate) streams: Vec<StreamsRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelRow {
    pub(crate) runner: Runner,
    /// Replayed as a CUDA graph.
    pub(crate) graph: bool,
    pub(crate) batch: usize,
    pub(crate) ms: Spread,
}

/// Who runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Runner {
    /// ONNX Runtime's CUDA provider; its processor provider in a dry run.
    Ours,
    /// PyTorch.
    Torch,
}

/// T(B) = a + b B, by least squares over the medians.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FitRow {
    pub(crate) runner: Runner,
    pub(crate) graph: bool,
    pub(crate) a_ms: f64,
    pub(crate) b_ms: f64,
    /// Root of the mean square of what the line leaves over.
    pub(crate) residual_ms: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamsRow {
    pub(crate) graph: bool,
    /// One session alone, per call.
    pub(crate) one_ms: f64,
    /// Two at once, per pair of calls.
    pub(crate) pair_ms: f64,
    /// One session, batch of 2, per call.
    pub(crate) batch2_ms: f64,
}

/// A compiled engine through ONNX Runtime's TensorRT provider. Ratios alone: NVIDIA's licence restricts what may be
/// published about its runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TensorRt {
    pub(crate) engine: String,
    /// Largest difference from the model on the processor; None without the model.
    pub(crate) difference: Option<f64>,
    pub(crate) rows: Vec<RatioRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RatioRow {
    pub(crate) batch: usize,
    /// Its time by that of the CUDA provider on the same model in the same run.
    pub(crate) of_cuda: Option<f64>,
    /// B T(1) / T(B) of its own.
    pub(crate) gain: f64,
}

/// Conversion of frames on the device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernels {
    /// Bytes read and written per second by a device copy of 256 MiB: what a floor is made of.
    pub(crate) memory_gb_s: f64,
    pub(crate) rows: Vec<KernelRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KernelRow {
    /// `pre`, `post`, `pre+post`.
    pub(crate) what: String,
    /// `NV12 1920x1080 -> f16 512x512`.
    pub(crate) conversion: String,
    pub(crate) batch: usize,
    /// In a CUDA graph.
    pub(crate) graph: bool,
    /// Of one batch, the device's time of many in a row by their number.
    pub(crate) us: f64,
    /// Bytes that have to be read and written.
    pub(crate) bytes: u64,
    /// The goal, where there is one.
    #[serde(default)]
    pub(crate) goal_us: Option<f64>,
}

/// Copies between main memory and the device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Copies {
    /// Pinned copies of 256 MiB.
    pub(crate) up_gb_s: f64,
    pub(crate) down_gb_s: f64,
    pub(crate) rows: Vec<CopyRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CopyRow {
    /// `NV12 512x512`.
    pub(crate) what: String,
    pub(crate) bytes: u64,
    pub(crate) up: bool,
    pub(crate) pinned: bool,
    /// Host time, from the call until the copy is done.
    pub(crate) us: f64,
}

/// The whole way of a batch, without GStreamer, beside the engine alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Busy {
    pub(crate) model: String,
    pub(crate) rows: Vec<BusyRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BusyRow {
    pub(crate) batch: usize,
    /// Upload, conversion, model, conversion, download; two lanes in flight. Each pass is beside one of `raw_fps`.
    pub(crate) fps: Vec<f64>,
    /// Bound runs back to back, waited for in groups.
    pub(crate) raw_fps: Vec<f64>,
    /// Least of the passes' ratios.
    pub(crate) share: f64,
    /// Calls in which a thread of ours waits for the device.
    pub(crate) waits_per_batch: Option<f64>,
    /// Of this process, on all its threads, ONNX Runtime's own not counted.
    pub(crate) allocations_per_batch: f64,
}

/// A pointer of a private context, used in the primary one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// Bytes of the buffer.
    pub(crate) bytes: u64,
    pub(crate) rows: Vec<ContextRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContextRow {
    pub(crate) what: String,
    /// None: it was refused, and `refused` says how.
    pub(crate) us: Option<f64>,
    /// Whether every byte came out right.
    pub(crate) right: bool,
    #[serde(default)]
    pub(crate) refused: Option<String>,
}

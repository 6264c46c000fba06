//! What gst-comfy knows, without GStreamer: no clock, no threads, and I/O only behind features.
//!
//! In reading order:
//!
//! - [`flight`]: which frame leaves next, and which never will. The policy behind `comfyflightbuffer`.
//! - [`batch`]: which frames share one run of the model. The policy behind `comfybatch`.
//! - [`tensor`]: shapes, dtypes, layouts, images; [`tensor::convert`] is the slow, plainly right conversion
//!   that every fast one is compared with.
//! - `cuda`, with the feature of that name: a GPU's streams, memory, and kernels that convert frames there.
//! - [`engine`]: what an engine is: the trait, the model's manifest, the calibrated `null` engine and ONNX Runtime.
//! - [`trickle`]: Livepeer's trickle protocol: segments that can be read while they are written. The policy of server,
//!   publisher and subscriber; with feature `http` also the server and the clients themselves.
//! - [`workflow`]: ComfyUI graphs: read, checked, and planned for the nodes that run here.
//! - [`timing`]: the longest of recent times, for LATENCY answers.
//!
//! Policies take the time as an argument and answer with `#[must_use]` verdicts; the caller reads the clock.

pub mod batch;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod engine;
pub mod flight;
pub mod tensor;
pub mod timing;
pub mod trickle;
pub mod workflow;

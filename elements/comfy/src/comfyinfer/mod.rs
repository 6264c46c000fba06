//! SECTION: comfyinfer
//!
//! Runs a model on batches: each frame is converted straight into the engine's input tensor in one pass, the model
//! runs on its own thread, and its pictures come back in pooled frames. With `in-flight=2` one batch is converted
//! while another is run.
//!
//! Caps and memory: `video/x-comfy-batch` in system memory, RGB, BGR, RGBA, BGRx, RGBx, BGRA, NV12, I420, GRAY8, in
//! and out. The output's size is the model's; its format is the input's where downstream takes that. Frames are
//! scaled to the size a model wants. A model that runs on a GPU also takes and gives frames in `memory:CUDAMemory`, and
//! P010_10LE and RGBP in either: they are converted there, and never mapped. Buffers for frames in main memory are
//! page-locked then, upstream's too where it takes the pool that is offered. The device's primary context is shared as
//! GstContext `gst.cuda.context` from READY on.
//! Tensors: B,C,H,W or B,H,W,C with or without B, u8, f16 or f32, as the model's manifest (`model.toml` beside
//! `model.onnx`), its metadata, or its names and shapes say.
//! Another model: `model` may be written while the element runs. It is loaded and warmed up aside, for the caps in
//! force, and takes over between two batches: no frame is dropped or delayed, those on their way meet the old one. A
//! model that cannot be had, or whose pictures downstream does not take, changes nothing. The last write wins.
//! Until the first model is there frames wait, pass, or run on CUDA, as `warmup-policy` says. Frames that pass have to
//! be fit for the model and for downstream both, and comfybatch with `batch-size=0` makes batches of 1.
//! Latency: min the time a batch takes from its arrival to its departure, measured, with 5 % head room, anew with each
//! model; max `in-flight` x N frame durations.
//! Metas: reads and edits ComfyBatchMeta; writes ComfyTensorMeta on frames when the model has outputs that are not
//! pictures.
//! Messages: PROGRESS while a model is loaded and warmed up; element message `comfyinfer` when the model fails and
//! when it works again (`failing`), when another is loaded, in use or refused (`swap`: loading, done, failed; `model`,
//! `error`), and when frames begin and end to go on without the model (`warming-up`, `policy`); a warning with each
//! swap that failed, and on the first output that is not finite.
//!
//! ```text
//! gst-launch-1.0 videotestsrc num-buffers=8 ! video/x-raw,format=RGB ! comfybatch batch-size=4 ! comfyinfer model=builtin:invert ! comfyunbatch ! fakesink
//! ```
//!
//! Since: 0.1

use comfy_core::engine;
use gst::prelude::*;

mod imp;
mod negotiate;
mod output;
mod restore;
mod settings;
mod state;
mod swap;
mod task;
mod tensors;
mod upstream;
mod worker;

glib::wrapper! {
    /// The element.
    pub struct ComfyInfer(ObjectSubclass<imp::ComfyInfer>) @extends gst::Element, gst::Object;
}

/// Which runtime and provider runs the model.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstComfyInferBackend")]
#[allow(missing_docs)]
pub enum Backend {
    #[default]
    #[enum_value(
        name = "Auto: the best that works on this machine; stats says which and why",
        nick = "auto"
    )]
    Auto,
    #[enum_value(name = "CPU: ONNX Runtime on the processor", nick = "cpu")]
    Cpu,
    #[enum_value(name = "CUDA: ONNX Runtime's CUDA provider", nick = "cuda")]
    Cuda,
    #[enum_value(name = "TensorRT: ONNX Runtime's TensorRT provider", nick = "tensorrt")]
    Tensorrt,
    #[enum_value(name = "RTX: TensorRT for RTX, NVIDIA's plugin for ONNX Runtime", nick = "rtx")]
    Rtx,
    #[enum_value(name = "Null: no model, frames pass in a calibrated time", nick = "null")]
    Null,
}

impl From<Backend> for engine::Backend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Auto => engine::Backend::Auto,
            Backend::Cpu => engine::Backend::Cpu,
            Backend::Cuda => engine::Backend::Cuda,
            Backend::Tensorrt => engine::Backend::TensorRt,
            Backend::Rtx => engine::Backend::Rtx,
            Backend::Null => engine::Backend::Null,
        }
    }
}

/// Numeric precision asked of the provider.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstComfyInferPrecision")]
#[allow(missing_docs)]
pub enum Precision {
    #[default]
    #[enum_value(name = "Auto: as the model says", nick = "auto")]
    Auto,
    #[enum_value(name = "FP32: single precision", nick = "fp32")]
    Fp32,
    #[enum_value(name = "FP16: half precision where the provider can", nick = "fp16")]
    Fp16,
}

impl From<Precision> for engine::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Auto => engine::Precision::Auto,
            Precision::Fp32 => engine::Precision::Fp32,
            Precision::Fp16 => engine::Precision::Fp16,
        }
    }
}

/// What happens to frames when the model fails on them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstComfyInferOnError")]
#[allow(missing_docs)]
pub enum OnError {
    #[default]
    #[enum_value(name = "Fail: post an error and stop", nick = "fail")]
    Fail,
    #[enum_value(name = "Pass through: the input goes on, marked and counted", nick = "passthrough")]
    Passthrough,
    #[enum_value(name = "Hold: the last good picture goes on, marked and counted", nick = "hold")]
    Hold,
}

/// What happens to frames until the first model is there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstComfyInferWarmupPolicy")]
#[allow(missing_docs)]
pub enum WarmupPolicy {
    #[default]
    #[enum_value(name = "Wait: they wait for the model", nick = "wait")]
    Wait,
    #[enum_value(
        name = "Pass through: they go on as they came, marked and counted",
        nick = "pass-through"
    )]
    PassThrough,
    #[enum_value(
        name = "CUDA: the model runs on the CUDA provider while TensorRT's engine is built",
        nick = "cuda"
    )]
    Cuda,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "comfyinfer", gst::Rank::NONE, ComfyInfer::static_type())
}

//! comfyinfer's properties: names, defaults, and what they mean to the core.

use std::path::PathBuf;

use comfy_core::engine::OpenRequest;
use comfy_core::engine::null::PREFIX;
use gst::prelude::*;

use super::{Backend, OnError, Precision, WarmupPolicy};

pub(super) const PROP_MODEL: &str = "model";
const PROP_BACKEND: &str = "backend";
const PROP_DEVICE_ID: &str = "device-id";
const PROP_PRECISION: &str = "precision";
const PROP_ENGINE_CACHE: &str = "engine-cache";
const PROP_IN_FLIGHT: &str = "in-flight";
const PROP_THREADS: &str = "threads";
pub(super) const PROP_ON_ERROR: &str = "on-error";
const PROP_SHARED: &str = "shared";
const PROP_WARMUP_POLICY: &str = "warmup-policy";
pub(super) const PROP_STATS: &str = "stats";

const DEFAULT_BACKEND: Backend = Backend::Auto;
const DEFAULT_PRECISION: Precision = Precision::Auto;
const DEFAULT_IN_FLIGHT: u32 = 2;
const DEFAULT_ON_ERROR: OnError = OnError::Fail;
const DEFAULT_WARMUP_POLICY: WarmupPolicy = WarmupPolicy::Wait;
const MAX_IN_FLIGHT: u32 = 8;
const MAX_THREADS: u32 = 256;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) model: Option<String>,
    backend: Backend,
    device_id: u32,
    precision: Precision,
    engine_cache: Option<String>,
    pub(super) in_flight: u32,
    threads: u32,
    pub(super) on_error: OnError,
    pub(super) shared: Option<String>,
    pub(super) warmup_policy: WarmupPolicy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: None,
            backend: DEFAULT_BACKEND,
            device_id: 0,
            precision: DEFAULT_PRECISION,
            engine_cache: None,
            in_flight: DEFAULT_IN_FLIGHT,
            threads: 0,
            on_error: DEFAULT_ON_ERROR,
            shared: None,
            warmup_policy: DEFAULT_WARMUP_POLICY,
        }
    }
}

impl Settings {
    pub(super) fn request(&self) -> OpenRequest {
        OpenRequest {
            model: self.model.clone().unwrap_or_default(),
            backend: self.backend.into(),
            device: self.device_id,
            precision: self.precision.into(),
            threads: self.threads as usize,
            cache: self.engine_cache.as_ref().map(PathBuf::from),
            // Frames come later than the model, which then learns their size from them.
            shapes: None,
            library: plugin_folder(),
        }
    }

    /// The GPU that the model may run on.
    pub(super) fn gpu(&self) -> Option<u32> {
        let named = matches!(self.backend, Backend::Cuda | Backend::Tensorrt);
        let model = self.model.as_deref().unwrap_or("");
        let file = !model.is_empty() && !model.starts_with(PREFIX);
        (named || (self.backend == Backend::Auto && file)).then_some(self.device_id)
    }

    /// Whether frames will pass untouched, as far as settings tell before anything is loaded.
    pub(super) fn is_identity(&self) -> bool {
        let model = self.model.as_deref().unwrap_or("");
        let null = model.starts_with("builtin:null") || (model.is_empty() && self.backend == Backend::Null);
        null && !model.contains("copy=true")
    }

    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        const TYPED: &str = "type checked by GObject";
        match name {
            PROP_MODEL => self.model = value.get().expect(TYPED),
            PROP_BACKEND => self.backend = value.get().expect(TYPED),
            PROP_DEVICE_ID => self.device_id = value.get().expect(TYPED),
            PROP_PRECISION => self.precision = value.get().expect(TYPED),
            PROP_ENGINE_CACHE => self.engine_cache = value.get().expect(TYPED),
            PROP_IN_FLIGHT => self.in_flight = value.get().expect(TYPED),
            PROP_THREADS => self.threads = value.get().expect(TYPED),
            PROP_ON_ERROR => self.on_error = value.get().expect(TYPED),
            PROP_SHARED => self.shared = value.get().expect(TYPED),
            PROP_WARMUP_POLICY => self.warmup_policy = value.get().expect(TYPED),
            name => unreachable!("property {name} is not writable"),
        }
    }

    pub(super) fn get(&self, name: &str) -> glib::Value {
        match name {
            PROP_MODEL => self.model.to_value(),
            PROP_BACKEND => self.backend.to_value(),
            PROP_DEVICE_ID => self.device_id.to_value(),
            PROP_PRECISION => self.precision.to_value(),
            PROP_ENGINE_CACHE => self.engine_cache.to_value(),
            PROP_IN_FLIGHT => self.in_flight.to_value(),
            PROP_THREADS => self.threads.to_value(),
            PROP_ON_ERROR => self.on_error.to_value(),
            PROP_SHARED => self.shared.to_value(),
            PROP_WARMUP_POLICY => self.warmup_policy.to_value(),
            name => unreachable!("no property {name}"),
        }
    }
}

/// Where this plugin lies, or the program that it is linked into: ONNX Runtime may be beside it.
fn plugin_folder() -> Option<PathBuf> {
    let file = gst::Registry::get().find_plugin("comfy")?.filename();
    let file = file.or_else(|| std::env::current_exe().ok())?;
    file.parent().map(PathBuf::from)
}

/// Every property.
pub(super) fn properties() -> Vec<glib::ParamSpec> {
    vec![
                glib::ParamSpecString::builder(PROP_MODEL)
                    .nick("Model")
                    .blurb("Path of an .onnx model or a TensorRT engine (.engine, .plan), with its manifest, if any, beside it as .toml; or builtin:invert, builtin:null?base=5ms&per-image=2ms. Written while the element runs, it is loaded aside and takes over between two batches; if that fails, the one in use stays and is read back. Elements with `shared` set refuse it then")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecEnum::builder_with_default(PROP_BACKEND, DEFAULT_BACKEND)
                    .nick("Backend")
                    .blurb("Which runtime runs the model; a named one fails with its reason when it cannot be had, auto takes the best that works: tensorrt, rtx, cuda, cpu")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder(PROP_DEVICE_ID)
                    .nick("Device Id")
                    .blurb("Number of the GPU that runs the model, from 0; unused on the processor")
                    .maximum(63)
                    .default_value(0)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder_with_default(PROP_PRECISION, DEFAULT_PRECISION)
                    .nick("Precision")
                    .blurb("Numeric precision asked of the provider; the processor runs every model as it is")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder(PROP_ENGINE_CACHE)
                    .nick("Engine Cache")
                    .blurb("Folder for engines compiled from models (unset = a folder of the user's cache)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder(PROP_IN_FLIGHT)
                    .nick("In Flight")
                    .blurb("Batches between arrival and departure: 1 converts, runs and converts back in turn, 2 converts one while another runs, more only adds latency")
                    .minimum(1)
                    .maximum(MAX_IN_FLIGHT)
                    .default_value(DEFAULT_IN_FLIGHT)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder(PROP_THREADS)
                    .nick("Threads")
                    .blurb("Processor threads of one run (0 = half of the cores, at least one)")
                    .maximum(MAX_THREADS)
                    .default_value(0)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder_with_default(PROP_ON_ERROR, DEFAULT_ON_ERROR)
                    .nick("On Error")
                    .blurb("What happens to frames when the model fails on them in the middle of a stream; what goes on is marked, counted and told")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecString::builder(PROP_SHARED)
                    .nick("Shared")
                    .blurb("Elements of one process with the same name here and the same model settings share one loaded model, which none of them changes while it runs (unset = own)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder_with_default(PROP_WARMUP_POLICY, DEFAULT_WARMUP_POLICY)
                    .nick("Warm-up Policy")
                    .blurb("What happens to frames until the first model is loaded and warmed up; those that do not meet it are counted and told. A load that fails ends the stream whatever this says")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>(PROP_STATS)
                    .nick("Statistics")
                    .blurb("Model and runtime in use, the model that is being loaded, whether the one in use makes pictures, batches and frames, frames failed, passed through, gone on before the model was there, and held, values not finite, tensors, the memory of frames in and out, frames that crossed to and from a GPU or were copied on their way, whether CUDA graphs are in use, mean nanoseconds per batch of each stage, and the latency answered")
                    .read_only()
                    .build(),
            ]
}

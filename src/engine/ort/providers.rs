//! Execution providers, and what each is told.
#![allow(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ::ort::ep::cuda::ConvAlgorithmSearch;
use ::ort::ep::{ArbitrarilyConfigurableExecutionProvider, CUDA, TensorRT};
use ::ort::session::builder::SessionBuilder;

use super::library::{Runtime, text};
use crate::engine::{OpenRequest, Precision};

/// Where a session runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    TensorRt,
    Rtx,
    Cuda,
    Cpu,
}

impl Provider {
    pub(super) fn nick(self) -> &'static str {
        match self {
            Provider::TensorRt => "tensorrt",
            Provider::Rtx => "rtx",
            Provider::Cuda => "cuda",
            Provider::Cpu => "cpu",
        }
    }
}

/// A provider with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Options {
    Cpu,
    /// With its runs recorded as graphs, where somebody asks for that.
    Cuda {
        recorded: bool,
    },
    TensorRt(Vec<(&'static str, String)>),
    Rtx(Vec<(&'static str, String)>),
}

/// The plugin's file, and the name of the provider in it.
const RTX_FILE: &str = "libonnxruntime_providers_nv_tensorrt_rtx.so";
const RTX: &str = "NvTensorRTRTXExecutionProvider";

/// Has a session run on a provider, which must work or say why: the default is to go on without it in silence.
///
/// # Safety
///
/// The stream (a `CUstream`), if any, is one of the device's primary context, and outlives every session that is made.
pub(super) unsafe fn add(
    builder: SessionBuilder,
    runtime: &Runtime,
    options: &Options,
    request: &OpenRequest,
    stream: Option<*mut ()>,
) -> Result<SessionBuilder, String> {
    let device = i32::try_from(request.device).unwrap_or(i32::MAX);
    // The default search measures every algorithm at the first batch of each size, which takes seconds.
    let recorded = matches!(options, Options::Cuda { recorded: true });
    let mut cuda = CUDA::default()
        .with_cuda_graph(recorded)
        .with_device_id(device)
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        .with_tf32(request.precision != Precision::Fp32);
    if let Some(stream) = stream {
        // SAFETY: as the caller says.
        cuda = unsafe { cuda.with_compute_stream(stream) };
    }
    let cuda = || cuda.build().error_on_failure();
    match options {
        Options::Cpu => Ok(builder),
        Options::Cuda { .. } => builder.with_execution_providers([cuda()]).map_err(text),
        Options::TensorRt(options) => {
            let mut tensorrt = TensorRT::default();
            for (key, value) in options {
                tensorrt = tensorrt.with_arbitrary_config(key, value);
            }
            if let Some(stream) = stream {
                // SAFETY: as the caller says.
                tensorrt = unsafe { tensorrt.with_compute_stream(stream) };
            }
            // What TensorRT cannot do is better done by CUDA than by the processor.
            let all = [tensorrt.build().error_on_failure(), cuda()];
            builder.with_execution_providers(all).map_err(text)
        }
        Options::Rtx(options) => {
            register_rtx(runtime)?;
            let devices = runtime
                .environment
                .devices()
                .filter(|device| device.ep().is_ok_and(|ep| ep == RTX));
            let device = devices.into_iter().nth(request.device as usize);
            let device = device.ok_or("no EP devices")?;
            let named: Vec<(String, String)> = options
                .iter()
                .map(|(key, value)| (format!("{RTX}.{key}"), value.clone()))
                .collect();
            builder.with_devices([device], Some(&named)).map_err(text)
        }
    }
}

/// Makes the plugin known to ONNX Runtime, once per process.
fn register_rtx(runtime: &Runtime) -> Result<(), String> {
    static REGISTERED: Mutex<bool> = Mutex::new(false);
    let mut registered = REGISTERED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *registered {
        return Ok(());
    }
    let set = std::env::var_os("COMFY_RTX_EP").filter(|value| !value.is_empty());
    let file = rtx_file(set.map(PathBuf::from).as_deref(), &runtime.path)?;
    runtime.environment.register_ep_library(RTX, &file).map_err(text)?;
    *registered = true;
    Ok(())
}

/// Where the plugin is: where it is said to be, or beside ONNX Runtime.
fn rtx_file(set: Option<&Path>, runtime: &Path) -> Result<PathBuf, String> {
    let place = match set {
        Some(path) if path.is_dir() => path.join(RTX_FILE),
        Some(path) => path.into(),
        None => runtime.with_file_name(RTX_FILE),
    };
    if place.is_file() {
        return std::path::absolute(place).map_err(|error| error.to_string());
    }
    let which = match set {
        Some(_) => format!("{} (COMFY_RTX_EP) does not exist", place.display()),
        None => format!("no {RTX_FILE} beside ONNX Runtime"),
    };
    Err(format!(
        "{which} (take pip's onnxruntime-ep-nv-tensorrt-rtx-cu13, and set COMFY_RTX_EP to its folder)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::Folder;

    #[test]
    fn the_plugin_is_where_it_is_said_to_be_or_beside_the_runtime() {
        let folder = Folder::new("rtx");
        let runtime = folder.path().join("libonnxruntime.so.1");
        let other = folder.path().join("other");
        std::fs::create_dir(&other).unwrap();
        let beside = rtx_file(None, &runtime).unwrap_err();
        assert!(beside.contains("set COMFY_RTX_EP to its folder"), "{beside}");
        assert!(
            rtx_file(Some(&other), &runtime)
                .unwrap_err()
                .contains("(COMFY_RTX_EP) does not exist")
        );
        for path in [folder.path().join(RTX_FILE), other.join(RTX_FILE)] {
            std::fs::write(path, "").unwrap();
        }
        assert_eq!(rtx_file(None, &runtime), Ok(folder.path().join(RTX_FILE)));
        for set in [other.clone(), other.join(RTX_FILE)] {
            assert_eq!(rtx_file(Some(&set), &runtime), Ok(other.join(RTX_FILE)));
        }
    }
}

//! Sessions: providers, options, and what a loaded model declares.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "cuda")]
use ::ort::ep::ExecutionProvider as _;
use ::ort::ep::cuda::ConvAlgorithmSearch;
use ::ort::ep::{CUDA, ExecutionProviderDispatch, TensorRT};
use ::ort::logging::LogLevel;
use ::ort::session::Session;
use ::ort::session::builder::{GraphOptimizationLevel, LoadCanceler, SessionBuilder};
use ::ort::value::{Outlet, TensorElementType, ValueType};

#[cfg(feature = "cuda")]
use super::device::{Reach, Side};
use super::exit::{self, End, Owned};
use super::library::{self, Runtime, text};
use crate::engine::fit::Declared;
use crate::engine::{Backend, Error, OpenRequest, Precision};
use crate::tensor::{DType, Dim};

/// Where a session runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    TensorRt,
    Cuda,
    Cpu,
}

impl Provider {
    fn nick(self) -> &'static str {
        match self {
            Provider::TensorRt => "tensorrt",
            Provider::Cuda => "cuda",
            Provider::Cpu => "cpu",
        }
    }
}

/// A session and how it came about.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) session: Owned<Session>,
    pub(super) provider: Provider,
    /// The GPU's side of it.
    #[cfg(feature = "cuda")]
    pub(super) side: Option<Side>,
    /// One line for `stats`.
    pub(super) runtime: String,
}

/// Loads the model on the provider that is asked for, or on the best that works.
pub(super) fn open(runtime: &Runtime, request: &OpenRequest, name: &str) -> Result<Opened, Error> {
    let path = Path::new(&request.model);
    let wanted: &[Provider] = match request.backend {
        Backend::Auto => &[Provider::TensorRt, Provider::Cuda, Provider::Cpu],
        Backend::TensorRt => &[Provider::TensorRt],
        Backend::Cuda => &[Provider::Cuda],
        Backend::Cpu | Backend::Null => &[Provider::Cpu],
    };
    let threads = threads(request);
    let mut failures = Vec::new();
    for provider in wanted {
        library::take_warning();
        match attempt(runtime, request, path, *provider) {
            Ok(made) => {
                let mut line = format!("ONNX Runtime {} on {}", runtime.version, provider.nick());
                line.push_str(&match provider {
                    Provider::Cpu => format!(", {threads} thread{}", if threads == 1 { "" } else { "s" }),
                    Provider::Cuda | Provider::TensorRt => format!(" device {}", request.device),
                });
                line.push_str(&format!(", from {}", runtime.path.display()));
                for (provider, reason) in &failures {
                    line.push_str(&format!("; not {}: {reason}", Provider::nick(*provider)));
                }
                if let Some(warning) = library::take_warning() {
                    line.push_str(&format!("; warning: {warning}"));
                }
                return Ok(Opened {
                    session: made.session,
                    provider: *provider,
                    #[cfg(feature = "cuda")]
                    side: made.side,
                    runtime: line,
                });
            }
            Err(reason) => failures.push((*provider, reason)),
        }
    }
    let reason = failures.pop().map(|(_, reason)| reason).unwrap_or_default();
    let backend = match request.backend {
        Backend::TensorRt => "tensorrt",
        Backend::Cuda => "cuda",
        Backend::Auto | Backend::Cpu | Backend::Null => {
            return Err(Error::NotAModel {
                path: request.model.clone(),
                reason,
            });
        }
    };
    // Whose fault it is: a model that the processor refuses too is no model.
    if let Err(reason) = attempt(runtime, request, path, Provider::Cpu) {
        return Err(Error::NotAModel {
            path: request.model.clone(),
            reason,
        });
    }
    Err(Error::Backend {
        backend,
        reason: format!("{name}: {reason}; {}", advice(backend, runtime)),
    })
}

fn advice(backend: &str, runtime: &Runtime) -> String {
    let more = if backend == "tensorrt" { ", TensorRT" } else { "" };
    format!(
        "it needs an NVIDIA GPU with its driver, and a GPU build of ONNX Runtime with CUDA, cuDNN{more}; {} was loaded \
         (set ORT_DYLIB_PATH to another), and backend auto takes what there is",
        runtime.path.display()
    )
}

fn threads(request: &OpenRequest) -> usize {
    match request.threads {
        0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
        n => n,
    }
}

/// A session, and the GPU's side of it.
struct Made {
    session: Owned<Session>,
    #[cfg(feature = "cuda")]
    side: Option<Side>,
}

#[cfg(not(feature = "cuda"))]
fn attempt(runtime: &Runtime, request: &OpenRequest, path: &Path, provider: Provider) -> Result<Made, String> {
    let session = commit(runtime, path, || providers(request, provider), request)?;
    Ok(Made { session })
}

#[cfg(feature = "cuda")]
fn attempt(runtime: &Runtime, request: &OpenRequest, path: &Path, provider: Provider) -> Result<Made, String> {
    // Only for whoever names it: it is slower than what it stands for, and than the processor.
    #[cfg(feature = "sim")]
    if let (Backend::Cuda, Some(offset)) = (request.backend, crate::cuda::sim::shadow()) {
        let side = Side::open(request.device, Reach::Shadow(offset))?;
        let session = commit(runtime, path, || None, request)?;
        return Ok(Made {
            session,
            side: Some(side),
        });
    }
    let runs_on_a_gpu = match provider {
        Provider::Cpu => false,
        Provider::Cuda => CUDA::is_available().unwrap_or(false),
        Provider::TensorRt => TensorRT::is_available().unwrap_or(false),
    };
    let Some(mut side) = runs_on_a_gpu
        .then(|| Side::open(request.device, Reach::Device))
        .transpose()?
    else {
        let session = commit(runtime, path, || providers(request, provider, None, false), request)?;
        return Ok(Made { session, side: None });
    };
    // Runs can be recorded only where the provider does all of the model, which it says by failing.
    if provider == Provider::Cuda {
        let recorded = || providers(request, provider, Some(&side), true);
        if let Ok(session) = commit(runtime, path, recorded, request) {
            side.can_record = true;
            return Ok(Made {
                session,
                side: Some(side),
            });
        }
    }
    let session = commit(
        runtime,
        path,
        || providers(request, provider, Some(&side), false),
        request,
    )?;
    Ok(Made {
        session,
        side: Some(side),
    })
}

fn commit(
    runtime: &Runtime,
    path: &Path,
    providers: impl FnOnce() -> Option<Vec<ExecutionProviderDispatch>>,
    request: &OpenRequest,
) -> Result<Owned<Session>, String> {
    // ort panics on types that it does not know, and what a file holds is not ours to trust.
    let enter = |end| exit::enter(end).map_err(|error| error.to_string());
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let _call = enter(None)?;
        let mut builder = builder(runtime, request)?;
        // Each one by itself must work or say why: the default is to go on without it in silence.
        if let Some(providers) = providers() {
            builder = builder.with_execution_providers(providers).map_err(text)?;
        }
        let _load = enter(Some(Arc::new(Load(builder.canceler()))))?;
        let session = Owned::new(builder.commit_from_file(path).map_err(text)?);
        // Other models are optimised with other static objects.
        exit::guard();
        Ok(session)
    }));
    opened.unwrap_or_else(|_| Err("it declares a type that is not supported".into()))
}

/// Ends a load.
struct Load(LoadCanceler);

impl End for Load {
    fn end(&self) {
        // It sets a flag, and cannot fail. Should it, the load ends by itself.
        let _ = self.0.cancel();
    }
}

fn builder(runtime: &Runtime, request: &OpenRequest) -> Result<SessionBuilder, String> {
    let builder = Session::builder(&runtime.environment).map_err(text)?;
    // Optimisation and denormals are absent from minimal builds, which work all the same.
    let builder = builder
        .with_optimization_level(GraphOptimizationLevel::All)
        .unwrap_or_else(|e| e.recover());
    let builder = builder.with_flush_to_zero().unwrap_or_else(|e| e.recover());
    let builder = builder.with_intra_threads(threads(request)).map_err(text)?;
    let builder = builder.with_inter_threads(1).map_err(text)?;
    // Spinning threads burn the cores between the frames of a live stream.
    let builder = builder.with_intra_op_spinning(false).map_err(text)?;
    // Patterns are planned per shape, and the batch changes from run to run.
    let builder = builder.with_memory_pattern(false).map_err(text)?;
    builder.with_log_level(LogLevel::Warning).map_err(text)
}

fn providers(
    request: &OpenRequest,
    provider: Provider,
    #[cfg(feature = "cuda")] side: Option<&Side>,
    #[cfg(feature = "cuda")] recorded: bool,
) -> Option<Vec<ExecutionProviderDispatch>> {
    let device = i32::try_from(request.device).unwrap_or(i32::MAX);
    // The default search measures every algorithm at the first batch of each size, which takes seconds.
    let cuda = CUDA::default()
        .with_device_id(device)
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        .with_tf32(request.precision != Precision::Fp32);
    #[cfg(feature = "cuda")]
    let cuda = match side {
        Some(side) => side.with_stream(cuda.with_cuda_graph(recorded), |ep, stream| {
            // SAFETY: the stream lives in the side, which is dropped after the session.
            unsafe { ep.with_compute_stream(stream) }
        }),
        None => cuda,
    };
    let cuda = cuda.build().error_on_failure();
    let tensorrt = || {
        let mut ep = TensorRT::default()
            .with_device_id(device)
            .with_fp16(request.precision == Precision::Fp16);
        #[cfg(feature = "cuda")]
        if let Some(side) = side {
            ep = side.with_stream(ep, |ep, stream| {
                // SAFETY: as above.
                unsafe { ep.with_compute_stream(stream) }
            });
        }
        if let Some(folder) = &request.cache {
            let folder = folder.display();
            ep = ep.with_engine_cache(true).with_engine_cache_path(&folder);
            ep = ep.with_timing_cache(true).with_timing_cache_path(folder);
        }
        ep.build().error_on_failure()
    };
    match provider {
        Provider::Cpu => None,
        Provider::Cuda => Some(vec![cuda]),
        // What TensorRT cannot do is better done by CUDA than by the processor.
        Provider::TensorRt => Some(vec![tensorrt(), cuda]),
    }
}

/// An input or output as the session reports it.
pub(super) fn declared(outlet: &Outlet) -> Declared {
    let name = outlet.name().to_owned();
    match outlet.dtype() {
        ValueType::Tensor {
            ty,
            shape,
            dimension_symbols,
        } => {
            let symbol = |at: usize| dimension_symbols.get(at).cloned().unwrap_or_default();
            let dim =
                |(at, n): (usize, &i64)| usize::try_from(*n).map_or_else(|_| Dim::Dynamic(symbol(at)), Dim::Fixed);
            Declared {
                name,
                dtype: dtype(*ty),
                shape: shape.iter().enumerate().map(dim).collect(),
            }
        }
        other => {
            let kind = match other {
                ValueType::Sequence(_) => "a sequence",
                ValueType::Map { .. } => "a map",
                _ => "an optional value",
            };
            Declared {
                name,
                dtype: Err(kind.into()),
                shape: Vec::new(),
            }
        }
    }
}

fn dtype(ty: TensorElementType) -> Result<DType, String> {
    match ty {
        TensorElementType::Uint8 => Ok(DType::U8),
        TensorElementType::Float16 => Ok(DType::F16),
        TensorElementType::Float32 => Ok(DType::F32),
        TensorElementType::Int32 => Ok(DType::I32),
        TensorElementType::Int64 => Ok(DType::I64),
        other => Err(format!("{other:?}").to_lowercase()),
    }
}

//! Sessions: providers, options, and what a loaded model declares.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "cuda")]
use ::ort::ep::{CUDA, ExecutionProvider as _, TensorRT};
use ::ort::logging::LogLevel;
use ::ort::session::Session;
use ::ort::session::builder::{GraphOptimizationLevel, LoadCanceler, SessionBuilder};
use ::ort::value::{Outlet, TensorElementType, ValueType};

use super::compile::{Asked, Kind, Plan};
#[cfg(feature = "cuda")]
use super::device::{Reach, Side};
use super::exit::{self, End, Owned};
use super::library::{self, Runtime, text};
use super::onnx::Summary;
use super::providers::{self, Options, Provider};
use crate::engine::fit::Declared;
use crate::engine::trt::options::{self, Profile};
use crate::engine::trt::{Compiled, machine, messages};
use crate::engine::{Backend, Cancel, Error, OpenRequest, Progress};
use crate::tensor::{DType, Dim};

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

/// What is to be loaded.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) runtime: &'static Runtime,
    pub(super) request: &'a OpenRequest,
    /// For messages.
    pub(super) name: &'a str,
    /// What the model's file declares, where it can be read.
    pub(super) summary: Option<&'a Summary>,
    /// Of a compiled engine.
    pub(super) compiled: Option<&'a Compiled>,
    /// The sizes to compile for.
    pub(super) profile: Option<&'a Profile>,
    pub(super) progress: &'a dyn Fn(Progress),
    pub(super) cancel: &'a Cancel,
    /// The GPU's side of what is loaded now.
    #[cfg(feature = "cuda")]
    pub(super) side: Option<&'a Side>,
}

/// What a provider made of a job: a session, and what to add to the runtime's line.
struct Made {
    session: Owned<Session>,
    note: String,
    #[cfg(feature = "cuda")]
    side: Option<Side>,
}

impl Job<'_> {
    /// The file, as it was named.
    pub(super) fn path(&self) -> &Path {
        Path::new(&self.request.model)
    }

    /// The model's name without what stands behind its last dot.
    pub(super) fn stem(&self) -> String {
        self.path()
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// One load of one file on one provider.
    pub(super) fn load<'b>(&'b self, path: &'b Path, options: &'b Options) -> Load<'b> {
        Load {
            runtime: self.runtime,
            request: self.request,
            path,
            // A wrapper has nothing to optimise, and its one node must stay what it is.
            optimize: self.compiled.is_none(),
            options,
            cancel: self.cancel,
            #[cfg(feature = "cuda")]
            side: self.side,
        }
    }

    #[cfg(not(feature = "cuda"))]
    fn attempt(&self, provider: Provider) -> Result<Made, String> {
        let (session, note) = self.attempt_on(provider)?;
        Ok(Made { session, note })
    }

    #[cfg(feature = "cuda")]
    fn attempt(&self, provider: Provider) -> Result<Made, String> {
        // Only for whoever names it: it is slower than what it stands for, and than the processor.
        #[cfg(feature = "sim")]
        if let (Backend::Cuda, Provider::Cuda, Some(offset)) =
            (self.request.backend, provider, crate::cuda::sim::shadow())
        {
            let mut side = Side::open(self.request.device, Reach::Shadow(offset))?;
            // As if it recorded: each run is done anew, as a replay would.
            side.can_record = true;
            let side = Some(side);
            let (session, note) = self.attempt_on(Provider::Cpu)?;
            return Ok(Made { session, note, side });
        }
        // A build without the provider says so itself, and needs no GPU for that.
        let runs_there = {
            let _call = exit::enter(None).map_err(|error| error.to_string())?;
            match provider {
                Provider::Cuda => CUDA::is_available().unwrap_or(false),
                Provider::TensorRt => TensorRT::is_available().unwrap_or(false),
                Provider::Rtx | Provider::Cpu => false,
            }
        };
        let mut side = match runs_there.then(|| Side::open(self.request.device, Reach::Device)) {
            None => None,
            Some(Ok(side)) => Some(side),
            Some(Err(reason)) => {
                // A library that is missing, too, is what to install first, and the provider names it.
                let options = match provider {
                    Provider::TensorRt => Options::TensorRt(Vec::new()),
                    _ => Options::Cuda { recorded: false },
                };
                return Err(self.load(self.path(), &options).probe().err().unwrap_or(reason));
            }
        };
        // Runs can be recorded only where the provider does all of the model, which it says by failing.
        if provider == Provider::Cuda && side.is_some() {
            let job = Job {
                side: side.as_ref(),
                ..*self
            };
            if let Ok(session) = job.load(job.path(), &Options::Cuda { recorded: true }).session() {
                if let Some(side) = &mut side {
                    side.can_record = true;
                }
                let note = String::new();
                return Ok(Made { session, note, side });
            }
            self.cancel.check().map_err(|error| error.to_string())?;
        }
        let job = Job {
            side: side.as_ref(),
            ..*self
        };
        let (session, note) = job.attempt_on(provider)?;
        Ok(Made { session, note, side })
    }

    fn attempt_on(&self, provider: Provider) -> Result<(Owned<Session>, String), String> {
        let device = self.request.device;
        match (provider, self.compiled) {
            (Provider::TensorRt, None) => {
                let (runtime, request, cancel) = (self.runtime, self.request, self.cancel);
                #[cfg(feature = "cuda")]
                let side = self.side;
                let asked = Asked {
                    request,
                    name: self.name,
                    profile: self.profile,
                    progress: self.progress,
                    cancel,
                };
                // Called on another thread, from which `progress` must not be.
                let load = |path: &Path, options: &Options, kind: Kind| {
                    let load = Load {
                        runtime,
                        request,
                        path,
                        optimize: kind == Kind::Model,
                        options,
                        cancel,
                        #[cfg(feature = "cuda")]
                        side,
                    };
                    load.session()
                };
                Plan::new(self)?.open(&asked, &load)
            }
            (Provider::TensorRt, Some(compiled)) => {
                if let Some(here) = machine::capability(device)
                    && let Some(reason) = messages::other_gpu(&compiled.io, &self.stem(), &here)
                {
                    return Err(reason);
                }
                let options = Options::TensorRt(options::run(device, self.request.precision));
                Ok((self.load(&compiled.wrapper, &options).session()?, String::new()))
            }
            (Provider::Rtx, compiled) => {
                let options = Options::Rtx(options::rtx(self.profile, None));
                let path = compiled.map_or(self.path(), |compiled| compiled.wrapper.as_path());
                Ok((self.load(path, &options).session()?, String::new()))
            }
            (Provider::Cuda, _) => {
                let options = Options::Cuda { recorded: false };
                Ok((self.load(self.path(), &options).session()?, String::new()))
            }
            (Provider::Cpu, _) => Ok((self.load(self.path(), &Options::Cpu).session()?, String::new())),
        }
    }

    /// What was said, as what it means.
    fn clause(&self, said: String, warning: Option<&str>) -> String {
        let all = warning.map_or_else(|| said.clone(), |warning| format!("{said}; {warning}"));
        let of_engine = self.compiled.and_then(|compiled| {
            let here = machine::capability(self.request.device);
            messages::of_engine(&all, &compiled.io, &self.stem(), here.as_deref())
        });
        of_engine.or_else(|| messages::explain(&said)).unwrap_or(said)
    }
}

/// Loads the model on the provider that is asked for, or on the best that works.
pub(super) fn open(job: &Job<'_>) -> Result<Opened, Error> {
    let (runtime, request) = (job.runtime, job.request);
    let mut failures = Vec::new();
    for provider in wanted(job)? {
        library::take_warning();
        let attempted = job.attempt(*provider);
        job.cancel.check()?;
        let warning = library::take_warning();
        match attempted {
            Ok(made) => {
                let mut line = format!("ONNX Runtime {} on {}", runtime.version, provider.nick());
                line.push_str(&match provider {
                    Provider::Cpu => {
                        let threads = threads(request);
                        format!(", {threads} thread{}", if threads == 1 { "" } else { "s" })
                    }
                    Provider::Cuda | Provider::Rtx | Provider::TensorRt => format!(" device {}", request.device),
                });
                line.push_str(&made.note);
                line.push_str(&format!(", from {}", runtime.path.display()));
                for (provider, reason) in &failures {
                    line.push_str(&format!("; not {}: {reason}", Provider::nick(*provider)));
                }
                if let Some(warning) = warning {
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
            Err(reason) => failures.push((*provider, job.clause(reason, warning.as_deref()))),
        }
    }
    let (provider, reason) = failures.pop().unwrap_or((Provider::Cpu, String::new()));
    if provider == Provider::Cpu {
        return Err(Error::NotAModel {
            path: request.model.clone(),
            reason,
        });
    }
    // Whose fault it is: a model that the processor refuses too is no model.
    if job.compiled.is_none()
        && let Err(reason) = job.attempt(Provider::Cpu)
    {
        job.cancel.check()?;
        return Err(Error::NotAModel {
            path: request.model.clone(),
            reason,
        });
    }
    Err(Error::Backend {
        backend: provider.nick(),
        reason: format!("{}: {reason}; {}", job.name, advice(job, provider)),
    })
}

/// The providers to try, the best first.
fn wanted(job: &Job<'_>) -> Result<&'static [Provider], Error> {
    let named: &[Provider] = match job.request.backend {
        Backend::Auto => &[Provider::TensorRt, Provider::Rtx, Provider::Cuda, Provider::Cpu],
        Backend::TensorRt => &[Provider::TensorRt],
        Backend::Rtx => &[Provider::Rtx],
        Backend::Cuda => &[Provider::Cuda],
        Backend::Cpu | Backend::Null => &[Provider::Cpu],
    };
    let Some(compiled) = job.compiled else {
        return Ok(named);
    };
    let (only, nick): (&[Provider], _) = if compiled.rtx {
        (&[Provider::Rtx], "rtx")
    } else {
        (&[Provider::TensorRt], "tensorrt")
    };
    if named.iter().any(|provider| only.contains(provider)) {
        return Ok(only);
    }
    Err(Error::Setting(format!(
        "{} is a compiled engine, which backend={nick} runs and no other; set `backend` to that or to auto, or `model` \
         to the ONNX file that it was made from",
        job.name
    )))
}

fn advice(job: &Job<'_>, provider: Provider) -> String {
    let runtime = job.runtime.path.display();
    let needs = match provider {
        Provider::TensorRt => "a GPU build of ONNX Runtime with CUDA, cuDNN and TensorRT",
        Provider::Cuda | Provider::Cpu => "a GPU build of ONNX Runtime with CUDA and cuDNN",
        Provider::Rtx => "ONNX Runtime 1.24 or later with NVIDIA's plugin for it",
    };
    let auto = if job.compiled.is_some() {
        ""
    } else {
        ", and backend auto takes what there is"
    };
    format!(
        "it needs an NVIDIA GPU with its driver, and {needs}; {runtime} was loaded (set ORT_DYLIB_PATH to another){auto}"
    )
}

fn threads(request: &OpenRequest) -> usize {
    match request.threads {
        0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
        n => n,
    }
}

/// One load. It may be handed to another thread.
pub(super) struct Load<'a> {
    runtime: &'static Runtime,
    request: &'a OpenRequest,
    path: &'a Path,
    optimize: bool,
    options: &'a Options,
    cancel: &'a Cancel,
    #[cfg(feature = "cuda")]
    side: Option<&'a Side>,
}

impl Load<'_> {
    /// Whether the provider can be had at all; nothing is loaded for it but its libraries.
    pub(super) fn probe(&self) -> Result<(), String> {
        self.guarded(|| self.builder().map(drop))
    }

    pub(super) fn session(&self) -> Result<Owned<Session>, String> {
        self.guarded(|| {
            let mut builder = self.builder()?;
            let canceler = builder.canceler();
            let load = Arc::new(Canceler(canceler.clone()));
            let _load = exit::enter(Some(load)).map_err(|error| error.to_string())?;
            let _cancel = self.cancel.on_cancel(move || cancel(&canceler));
            let session = Owned::new(builder.commit_from_file(self.path).map_err(text)?);
            // Other models are optimised with other static objects.
            exit::guard();
            Ok(session)
        })
    }

    /// ort panics on types that it does not know, and what a file holds is not ours to trust.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let done = catch_unwind(AssertUnwindSafe(|| {
            let _call = exit::enter(None).map_err(|error| error.to_string())?;
            work()
        }));
        done.unwrap_or_else(|_| Err("it declares a type that is not supported".into()))
    }

    fn builder(&self) -> Result<SessionBuilder, String> {
        let builder = builder(self.runtime, self.request, self.optimize)?;
        let stream = None;
        #[cfg(feature = "cuda")]
        let stream = self.side.map(Side::stream).or(stream);
        // SAFETY: the stream lives in the side, which is dropped after the session that is made of this.
        unsafe { providers::add(builder, self.runtime, self.options, self.request, stream) }
    }
}

/// Ends a load.
struct Canceler(LoadCanceler);

impl End for Canceler {
    fn end(&self) {
        cancel(&self.0);
    }
}

fn cancel(canceler: &LoadCanceler) {
    // It sets a flag, and cannot fail. Should it, the load ends by itself.
    let _ = canceler.cancel();
}

pub(super) fn builder(runtime: &Runtime, request: &OpenRequest, optimize: bool) -> Result<SessionBuilder, String> {
    let builder = Session::builder(&runtime.environment).map_err(text)?;
    let level = if optimize {
        GraphOptimizationLevel::All
    } else {
        GraphOptimizationLevel::Disable
    };
    // Optimisation and denormals are absent from minimal builds, which work all the same.
    let builder = builder.with_optimization_level(level).unwrap_or_else(|e| e.recover());
    let builder = builder.with_flush_to_zero().unwrap_or_else(|e| e.recover());
    let builder = builder.with_intra_threads(threads(request)).map_err(text)?;
    let builder = builder.with_inter_threads(1).map_err(text)?;
    // Spinning threads burn the cores between the frames of a live stream.
    let builder = builder.with_intra_op_spinning(false).map_err(text)?;
    // Patterns are planned per shape, and the batch changes from run to run.
    let builder = builder.with_memory_pattern(false).map_err(text)?;
    builder.with_log_level(LogLevel::Warning).map_err(text)
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

//! Models by way of ONNX Runtime, which is found at run time: nothing of it is needed to build.

mod block;
mod compile;
#[cfg(feature = "cuda")]
mod device;
mod exit;
mod lane;
mod library;
pub(super) mod onnx;
#[cfg(feature = "cuda")]
pub mod probe;
mod providers;
mod session;
mod shapes;

pub(super) use exit::watch_thread;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ::ort::session::Session;

use super::fit;
use super::manifest::{self, Manifest};
use super::trt::{self, Limits, Source, options};
use super::turn::Turn;
use super::{Cancel, Engine, Error, Lane, LaneRequest, OpenRequest, Progress, Role, Spec};
use providers::Provider;
use session::Job;

pub use onnx::Element;

/// Larger files are refused unread. Weights beside the model (external data) do not count.
const MAX_BYTES: u64 = 8 << 30;

/// The runtime in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file, or the name under which the system found it.
    pub path: std::path::PathBuf,
    /// `1.31.1`.
    pub version: String,
    /// Providers that this build holds, by their nicks; whether they work here is another question.
    pub providers: Vec<&'static str>,
}

/// Finds and loads the runtime without a model; `library` as in [`OpenRequest::library`].
pub fn found(library: Option<&Path>) -> Result<Found, Error> {
    use ::ort::ep::{CUDA, ExecutionProvider, TensorRT};
    let runtime = library::load(library)?;
    // The list is one of the runtime's static objects, which do not outlive the process's exit.
    let _call = exit::enter(None)?;
    let has = |nick, available: ::ort::Result<bool>| available.unwrap_or(false).then_some(nick);
    let providers = [
        has("tensorrt", TensorRT::is_available()),
        has("cuda", CUDA::is_available()),
        Some("cpu"),
    ];
    Ok(Found {
        path: runtime.path.clone(),
        version: runtime.version.clone(),
        providers: providers.into_iter().flatten().collect(),
    })
}

/// Opens a model file.
pub fn open(request: &OpenRequest, progress: &dyn Fn(Progress), cancel: &Cancel) -> Result<Arc<dyn Engine>, Error> {
    let path = Path::new(&request.model);
    let name = path
        .file_name()
        .map_or_else(|| request.model.clone(), |name| name.to_string_lossy().into_owned());
    check_file(path, request)?;
    let manifest = Manifest::beside(path)?.unwrap_or_default();
    let source = Source::find(path, &manifest, request.cache.as_deref())?;
    let before = declared_fit(&name, &manifest, &source);
    let (mut limits, mut profile) = (None, None);
    match (&source, &before) {
        // What an engine takes is known, and one that fits no frames need not be loaded to say so.
        (Source::Compiled(compiled), Some(fitted)) => {
            limits = Limits::new(&compiled.io, fitted.as_ref().map_err(Clone::clone)?)
        }
        (Source::Model(_), Some(Ok(fitted))) => {
            profile = fitted.profile(request)?;
            limits = profile.as_ref().and_then(|profile| Limits::of_profile(profile, fitted));
        }
        // Why a model does not fit is said by the runtime's own reading of it.
        (_, None | Some(Err(_))) => {}
    }
    progress(Progress {
        what: "loading ONNX Runtime".into(),
        percent: 0,
    });
    let runtime = library::load(request.library.as_deref())?;
    cancel.check()?;
    progress(Progress {
        what: format!("loading {name}"),
        percent: 10,
    });
    let job = Job {
        runtime,
        request,
        name: &name,
        summary: source.summary(),
        compiled: source.compiled(),
        profile: profile.as_ref(),
        progress,
        cancel,
        #[cfg(feature = "cuda")]
        side: None,
    };
    let opened = session::open(&job).or_else(|error| {
        // A load that was ended, because the process exits or somebody wishes it, says nothing about the model.
        exit::enter(None).and(cancel.check()).and(Err(error))
    })?;
    let engine = source.compiled().map(|compiled| (compiled.io.clone(), job.stem()));
    let mut fitted = match (before, &source) {
        // Metadata of the model is not in what was compiled of it.
        (Some(Ok(fitted)), Source::Model(Some(_))) if opened.provider == Provider::TensorRt => fitted,
        (Some(Ok(fitted)), Source::Compiled(_)) => fitted,
        _ => {
            let _call = exit::enter(None)?;
            let metadata = opened.session.metadata().ok();
            let list = |outlets: &[::ort::value::Outlet]| outlets.iter().map(session::declared).collect::<Vec<_>>();
            fit_model(
                &name,
                &manifest,
                &|key| metadata.as_ref()?.custom(key),
                &list(opened.session.inputs()),
                &list(opened.session.outputs()),
            )?
        }
    };
    progress(Progress {
        what: format!("loaded {name}"),
        percent: 100,
    });
    // Only TensorRT compiles for certain sizes; what others run takes what the model takes.
    let limits = limits.filter(|_| matches!(opened.provider, Provider::TensorRt | Provider::Rtx));
    if let Some(limits) = &limits {
        limits.fix(&mut fitted);
    }
    let spec = Spec {
        name,
        inputs: fitted.inputs,
        outputs: fitted.outputs,
        batch: limits
            .as_ref()
            .map_or(fitted.batch, |limits| limits.batch(fitted.batch)),
        runtime: opened.runtime,
    };
    Ok(Arc::new(Model {
        limits,
        shared: Arc::new(Shared {
            spec,
            on_cpu: opened.provider == Provider::Cpu,
            session: Mutex::new(opened.session),
            turn: Arc::default(),
            #[cfg(feature = "cuda")]
            side: opened.side,
            engine,
        }),
    }))
}

/// Fits what a file declares, before the runtime reads it. None: only the runtime can.
fn declared_fit(name: &str, manifest: &Manifest, source: &Source) -> Option<Result<fit::Fitted, Error>> {
    let list = |tensors: &[onnx::Declaration]| -> Vec<fit::Declared> {
        let one = |tensor: &onnx::Declaration| fit::Declared {
            name: tensor.name.clone(),
            dtype: tensor.element.dtype().ok_or_else(|| tensor.element.name()),
            shape: tensor.shape.clone(),
        };
        tensors.iter().map(one).collect()
    };
    let (inputs, outputs, metadata) = match source {
        Source::Model(summary) => {
            let summary = summary.as_ref()?;
            (list(&summary.inputs), list(&summary.outputs), &summary.metadata)
        }
        Source::Compiled(compiled) => {
            let declarations =
                |tensors: &[trt::Tensor]| tensors.iter().map(onnx::Declaration::from).collect::<Vec<_>>();
            let io = &compiled.io;
            (
                list(&declarations(&io.inputs)),
                list(&declarations(&io.outputs)),
                &compiled.metadata,
            )
        }
    };
    Some(fit_model(
        name,
        manifest,
        &|key| metadata.get(key).cloned(),
        &inputs,
        &outputs,
    ))
}

fn fit_model(
    name: &str,
    manifest: &Manifest,
    metadata: &dyn Fn(&str) -> Option<String>,
    inputs: &[fit::Declared],
    outputs: &[fit::Declared],
) -> Result<fit::Fitted, Error> {
    let model = fit::Model {
        name,
        manifest_name: &manifest::path_of(Path::new(name)).display().to_string(),
        manifest,
        metadata,
        inputs,
        outputs,
    };
    model.fit()
}

impl fit::Fitted {
    /// The sizes to compile for.
    fn profile(&self, request: &OpenRequest) -> Result<Option<options::Profile>, Error> {
        let image = self.inputs.iter().find_map(|port| match port.role {
            Role::Image(image) => Some((port, image)),
            Role::Tensor => None,
        });
        let Some((port, image)) = image else { return Ok(None) };
        options::profile(port, &image, request.shapes.as_ref())
    }
}

/// Refuses what is wrong with the file itself before anything is loaded for it.
fn check_file(path: &Path, request: &OpenRequest) -> Result<(), Error> {
    let name = || request.model.clone();
    let unreadable = |reason: String| Error::Unreadable { path: name(), reason };
    let not_a_model = |reason: &str| Error::NotAModel {
        path: name(),
        reason: reason.into(),
    };
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound { path: name() },
        _ => unreadable(error.to_string()),
    })?;
    let found = file.metadata().map_err(|error| unreadable(error.to_string()))?;
    if found.is_dir() {
        return Err(unreadable("it is a folder; set `model` to a file in it".into()));
    }
    match found.len() {
        0 => Err(not_a_model("the file is empty")),
        bytes if bytes > MAX_BYTES => Err(not_a_model("the file is larger than 8 GiB")),
        _ => Ok(()),
    }
}

/// What the lanes of one model have in common.
#[derive(Debug)]
struct Shared {
    spec: Spec,
    /// Whether tensors in main memory are used in place; elsewhere the input is copied when it is bound.
    on_cpu: bool,
    session: Mutex<exit::Owned<Session>>,
    /// To be held before the session is locked: waiting for it can be interrupted.
    turn: Arc<Turn>,
    /// After the session, which works on its stream.
    #[cfg(feature = "cuda")]
    side: Option<device::Side>,
    /// Of a compiled engine, with the name of the model that it was made from, as far as that is known.
    engine: Option<(trt::Io, String)>,
}

impl Shared {
    fn run_error(&self, reason: String) -> Error {
        let explained = self.engine.as_ref();
        let explained = explained.and_then(|(io, stem)| trt::messages::of_engine(&reason, io, stem, None));
        let reason = explained.unwrap_or(reason);
        Error::Run {
            model: self.spec.name.clone(),
            reason,
        }
    }
}

#[derive(Debug)]
struct Model {
    /// Of an engine that was compiled for certain sizes.
    limits: Option<Limits>,
    shared: Arc<Shared>,
}

impl Engine for Model {
    fn spec(&self) -> &Spec {
        &self.shared.spec
    }

    fn lane(&self, request: &LaneRequest) -> Result<Box<dyn Lane>, Error> {
        request.check()?;
        if let Some(limits) = &self.limits {
            limits.check(&self.shared.spec.name, request)?;
        }
        Ok(Box::new(lane::OrtLane::new(self.shared.clone(), request)?))
    }

    #[cfg(feature = "cuda")]
    fn device(&self) -> Option<Arc<crate::cuda::Device>> {
        self.shared.side.as_ref().map(|side| side.device.clone())
    }

    #[cfg(feature = "cuda")]
    fn device_lane(&self, request: &LaneRequest) -> Result<Box<dyn super::device::DeviceLane>, Error> {
        request.check()?;
        if let Some(limits) = &self.limits {
            limits.check(&self.shared.spec.name, request)?;
        }
        Ok(Box::new(device::OrtDeviceLane::new(self.shared.clone(), request)?))
    }
}

#[cfg(all(test, any(feature = "sim", feature = "gpu")))]
mod device_tests;
#[cfg(test)]
mod engine_tests;
#[cfg(all(test, feature = "gpu"))]
mod gpu_tests;
#[cfg(test)]
mod tests;

//! Models by way of ONNX Runtime, which is found at run time: nothing of it is needed to build.

mod block;
#[cfg(feature = "cuda")]
mod device;
mod exit;
mod lane;
mod library;
mod session;
mod shapes;

pub(super) use exit::watch_thread;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ::ort::session::Session;

use super::fit;
use super::manifest::{self, Manifest};
use super::turn::Turn;
use super::{Engine, Error, Lane, LaneRequest, OpenRequest, Progress, Spec};
use session::Provider;

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
pub fn open(request: &OpenRequest, progress: &dyn Fn(Progress)) -> Result<Arc<dyn Engine>, Error> {
    let path = Path::new(&request.model);
    let name = path
        .file_name()
        .map_or_else(|| request.model.clone(), |name| name.to_string_lossy().into_owned());
    check_file(path, request)?;
    let manifest = Manifest::beside(path)?.unwrap_or_default();
    progress(Progress {
        what: "loading ONNX Runtime".into(),
        percent: 0,
    });
    let runtime = library::load(request.library.as_deref())?;
    progress(Progress {
        what: format!("loading {name}"),
        percent: 10,
    });
    let opened = session::open(runtime, request, &name).or_else(|error| {
        // A load that was ended, because the process exits, says nothing about the model.
        exit::enter(None).and(Err(error))
    })?;
    let fitted = {
        let _call = exit::enter(None)?;
        let metadata = opened.session.metadata().ok();
        let model = fit::Model {
            name: &name,
            manifest_name: &manifest::path_of(Path::new(&name)).display().to_string(),
            manifest: &manifest,
            metadata: &|key| metadata.as_ref()?.custom(key),
            inputs: &opened
                .session
                .inputs()
                .iter()
                .map(session::declared)
                .collect::<Vec<_>>(),
            outputs: &opened
                .session
                .outputs()
                .iter()
                .map(session::declared)
                .collect::<Vec<_>>(),
        };
        model.fit()?
    };
    progress(Progress {
        what: format!("loaded {name}"),
        percent: 100,
    });
    let spec = Spec {
        name,
        inputs: fitted.inputs,
        outputs: fitted.outputs,
        batch: fitted.batch,
        runtime: opened.runtime,
    };
    Ok(Arc::new(Model {
        shared: Arc::new(Shared {
            spec,
            on_cpu: opened.provider == Provider::Cpu,
            session: Mutex::new(opened.session),
            turn: Arc::default(),
            #[cfg(feature = "cuda")]
            side: opened.side,
        }),
    }))
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
    if path
        .extension()
        .is_some_and(|extension| extension == "engine" || extension == "plan")
    {
        return Err(Error::Backend {
            backend: "tensorrt",
            reason: format!(
                "{} is a compiled TensorRT engine, which needs a CUDA build of ONNX Runtime with TensorRT and cannot be \
                 opened directly; set `model` to the ONNX file that it was made from, and `cache` to a folder",
                request.model
            ),
        });
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
}

impl Shared {
    fn run_error(&self, reason: String) -> Error {
        Error::Run {
            model: self.spec.name.clone(),
            reason,
        }
    }
}

#[derive(Debug)]
struct Model {
    shared: Arc<Shared>,
}

impl Engine for Model {
    fn spec(&self) -> &Spec {
        &self.shared.spec
    }

    fn lane(&self, request: &LaneRequest) -> Result<Box<dyn Lane>, Error> {
        request.check()?;
        Ok(Box::new(lane::OrtLane::new(self.shared.clone(), request)?))
    }

    #[cfg(feature = "cuda")]
    fn device(&self) -> Option<Arc<crate::cuda::Device>> {
        self.shared.side.as_ref().map(|side| side.device.clone())
    }

    #[cfg(feature = "cuda")]
    fn device_lane(&self, request: &LaneRequest) -> Result<Box<dyn super::device::DeviceLane>, Error> {
        request.check()?;
        Ok(Box::new(device::OrtDeviceLane::new(self.shared.clone(), request)?))
    }
}

#[cfg(all(test, feature = "sim"))]
mod device_tests;
#[cfg(test)]
mod tests;

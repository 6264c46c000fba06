//! Finding ONNX Runtime on this machine, and loading it once per process.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::ort::environment::Environment;
use ::ort::logging::LogLevel;
use once_cell::sync::OnceCell;

use super::exit;
use crate::engine::Error;

/// The oldest ONNX Runtime that has the calls used here (`api-23`).
const OLDEST: &str = "1.23";

/// The runtime, once loaded.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) environment: Environment,
    /// `1.31.1`.
    pub(super) version: String,
    /// The file, or the name under which the system found it.
    pub(super) path: PathBuf,
}

/// Never dropped: ONNX Runtime refuses a second environment in one process.
static RUNTIME: OnceCell<Runtime> = OnceCell::new();

static WARNING: Mutex<Option<String>> = Mutex::new(None);

/// The runtime. The first call that finds it decides which; `library` of later ones is not looked at.
pub(super) fn load(library: Option<&Path>) -> Result<&'static Runtime, Error> {
    RUNTIME.get_or_try_init(|| {
        let _call = exit::enter_first()?;
        exit::guard();
        let mut failures = Vec::new();
        for place in places(library, &|name| std::env::var_os(name)) {
            match place.file() {
                Ok(file) => match attempt(&file) {
                    Ok(runtime) => {
                        exit::guard();
                        return Ok(runtime);
                    }
                    Err(reason) => failures.push((place, reason)),
                },
                Err(reason) => failures.push((place, reason)),
            }
        }
        Err(Error::Runtime(not_found(&failures)))
    })
}

/// The last warning of the runtime since the last call.
pub(super) fn take_warning() -> Option<String> {
    WARNING.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Somewhere to look.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// A file, or a folder that may hold one, and why it is looked at.
    Path(PathBuf, &'static str),
    /// A name for the system's own search.
    Name(&'static str),
}

fn places(library: Option<&Path>, env: &dyn Fn(&str) -> Option<OsString>) -> Vec<Place> {
    let mut places = Vec::new();
    let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = set("ORT_DYLIB_PATH") {
        places.push(Place::Path(path, "ORT_DYLIB_PATH"));
    }
    if let Some(library) = library {
        let is_runtime = library
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(STEM));
        let folder = match library.parent() {
            Some(parent) if is_runtime || library.is_file() => parent,
            _ => library,
        };
        if is_runtime {
            places.push(Place::Path(library.into(), "as set"));
        }
        // As installed: beside lib/gstreamer-1.0 for the plugin, below any of the usual lib folders for a program in bin.
        let debian = format!("../lib/{}-linux-gnu/comfy", std::env::consts::ARCH);
        for place in ["", "comfy", "../comfy", "../lib/comfy", "../lib64/comfy", &debian] {
            let path = if place.is_empty() {
                folder.into()
            } else {
                folder.join(place)
            };
            places.push(Place::Path(path, "beside the plugin"));
        }
    }
    if let Some(home) = set("COMFY_HOME") {
        places.push(Place::Path(home.join("lib"), "COMFY_HOME"));
    }
    places.extend([Place::Name("libonnxruntime.so.1"), Place::Name("libonnxruntime.so")]);
    places
}

const STEM: &str = "libonnxruntime.so";

impl Place {
    fn file(&self) -> Result<PathBuf, String> {
        let path = match self {
            Place::Name(name) => return Ok(PathBuf::from(name)),
            Place::Path(path, _) => path,
        };
        // A relative path would be looked for beside the executable.
        let path = std::path::absolute(path).map_err(|error| error.to_string())?;
        let found = std::fs::metadata(&path).map_err(|_| "does not exist".to_owned())?;
        if !found.is_dir() {
            return Ok(path);
        }
        let entries = std::fs::read_dir(&path).map_err(|error| error.to_string())?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let newest = names.filter_map(|name| Some((version(&name)?, name))).max();
        newest
            .map(|(_, name)| path.join(name))
            .ok_or_else(|| format!("holds no {STEM}*"))
    }

    fn text(&self) -> String {
        match self {
            Place::Path(path, why) => format!("{} ({why})", path.display()),
            Place::Name(name) => format!("{name} (the system's libraries)"),
        }
    }
}

/// `libonnxruntime.so.1.31.1` as [1, 31, 1]; a bare `libonnxruntime.so` is the oldest of all.
fn version(name: &str) -> Option<Vec<u32>> {
    let rest = name.strip_prefix(STEM)?;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    rest.strip_prefix('.')?
        .split('.')
        .map(|part| part.parse().ok())
        .collect()
}

fn attempt(file: &Path) -> Result<Runtime, String> {
    // ort asserts what a library of that name should answer; one that does not must not end the process.
    let built = catch_unwind(AssertUnwindSafe(|| -> Result<Environment, String> {
        let builder = ::ort::init_from(file).map_err(|error| error.to_string())?;
        builder
            .with_name("gst-comfy")
            .with_telemetry(false)
            .with_logger(Arc::new(remember))
            .build()
            .map_err(text)
    }));
    let environment = built.map_err(|_| "is not ONNX Runtime".to_owned())??;
    // Now that it is loaded, its own word counts, not the file's name.
    let build = ::ort::info();
    let branch = build
        .split("git-branch=")
        .nth(1)
        .and_then(|rest| rest.split(',').next())
        .unwrap_or_default();
    let version = branch.trim().strip_prefix("rel-").map(str::to_owned);
    let version = version.or_else(|| {
        let name = std::fs::canonicalize(file)
            .ok()?
            .file_name()?
            .to_string_lossy()
            .into_owned();
        name.strip_prefix(STEM)?.strip_prefix('.').map(str::to_owned)
    });
    let version = version.or_else(|| ::ort::util::probe(file).map(|minor| format!("1.{minor}")));
    let version = version.unwrap_or_else(|| "of unknown version".into());
    Ok(Runtime {
        environment,
        version,
        path: file.into(),
    })
}

fn remember(level: LogLevel, _category: &str, _id: &str, _location: &str, message: &str) {
    if matches!(level, LogLevel::Warning | LogLevel::Error | LogLevel::Fatal) {
        let text = message.trim().to_owned();
        *WARNING.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }
}

fn not_found(failures: &[(Place, String)]) -> String {
    let looked: Vec<String> = failures
        .iter()
        .map(|(place, why)| format!("{}: {why}", place.text()))
        .collect();
    format!(
        "ONNX Runtime {OLDEST} or later was not found; run `make setup`, or set ORT_DYLIB_PATH to libonnxruntime.so. \
         Looked at:\n{}",
        looked.join("\n")
    )
}

/// What the runtime says, on one line, to be put into a sentence.
pub(super) fn text<R>(error: ::ort::Error<R>) -> String {
    let words: Vec<&str> = error.message().split_whitespace().collect();
    words.join(" ").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::Folder;

    #[test]
    fn places_come_in_order() {
        let env = |name: &str| match name {
            "ORT_DYLIB_PATH" => Some("/a/libonnxruntime.so.1".into()),
            "COMFY_HOME" => Some("/home".into()),
            _ => None,
        };
        let texts: Vec<String> = places(Some(Path::new("/p")), &env).iter().map(Place::text).collect();
        assert_eq!(
            texts,
            [
                "/a/libonnxruntime.so.1 (ORT_DYLIB_PATH)",
                "/p (beside the plugin)",
                "/p/comfy (beside the plugin)",
                "/p/../comfy (beside the plugin)",
                "/p/../lib/comfy (beside the plugin)",
                "/p/../lib64/comfy (beside the plugin)",
                &format!(
                    "/p/../lib/{}-linux-gnu/comfy (beside the plugin)",
                    std::env::consts::ARCH
                ),
                "/home/lib (COMFY_HOME)",
                "libonnxruntime.so.1 (the system's libraries)",
                "libonnxruntime.so (the system's libraries)",
            ]
        );
        let file = places(Some(Path::new("/p/libonnxruntime.so.1.31.1")), &|_| None);
        assert_eq!(file[0].text(), "/p/libonnxruntime.so.1.31.1 (as set)");
        assert_eq!(file[1].text(), "/p (beside the plugin)");
    }

    #[test]
    fn the_newest_of_a_folder_is_taken_and_its_providers_are_not() {
        let folder = Folder::new("library");
        let place = Place::Path(folder.path().into(), "test");
        assert_eq!(place.file(), Err("holds no libonnxruntime.so*".into()));
        for name in [
            "libonnxruntime.so",
            "libonnxruntime.so.1.9.0",
            "libonnxruntime.so.1.31.1",
            "libonnxruntime.so.1.4",
            "libonnxruntime_providers_cuda.so",
            "libonnxruntime.so.1.99.0.bak",
        ] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(place.file(), Ok(folder.path().join("libonnxruntime.so.1.31.1")));
    }

    #[test]
    fn what_is_no_library_is_an_error_that_names_it() {
        let folder = Folder::new("no-library");
        let file = folder.path().join("libonnxruntime.so");
        std::fs::write(&file, "not a library").unwrap();
        // Whatever is tried after a library was loaded succeeds with that one, so only the text is checked here.
        let failures = [(
            Place::Path(file.clone(), "ORT_DYLIB_PATH"),
            "invalid ELF header".to_owned(),
        )];
        let text = not_found(&failures);
        assert!(text.contains("run `make setup`, or set ORT_DYLIB_PATH"), "{text}");
        assert!(
            text.ends_with(&format!("{} (ORT_DYLIB_PATH): invalid ELF header", file.display())),
            "{text}"
        );
    }
}

//! A model in ONNX by way of TensorRT: compiled once into the cache, opened from there afterwards.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::providers::Options;
use super::session::Job;
use crate::engine::trt::key::Key;
use crate::engine::trt::store::{self, Record};
use crate::engine::trt::{Cache, machine, options};
use crate::engine::{Cancel, Error, OpenRequest, Progress};

/// How often it is said for how long a compilation has been going on.
const TICK: Duration = Duration::from_secs(1);

/// Where an engine goes, or is already.
pub(super) struct Plan {
    cache: Cache,
    folder: PathBuf,
    record: Record,
    /// Everything that the engine will be asked to do is known beforehand.
    complete: bool,
}

impl Plan {
    /// Finds the folder, once it is known that the provider can be had. The error is a clause.
    pub(super) fn new(job: &Job<'_>) -> Result<Self, String> {
        let device = job.request.device;
        let plain = Options::TensorRt(options::run(device, job.request.precision));
        job.load(job.path(), &plain).probe()?;
        let plan = || -> Result<Self, Error> {
            let cache = Cache::at(job.request.cache.as_deref())?;
            (job.progress)(Progress {
                what: format!("looking for a compiled engine of {}", job.name),
                percent: 15,
            });
            let nothing = BTreeSet::new();
            let weights = job.summary.map_or(&nothing, |summary| &summary.external);
            let model = cache.model_hash(job.path(), weights, &|| job.cancel.check())?;
            let unknown = || "unknown".to_owned();
            let key = Key {
                model,
                precision: options::precision(job.request.precision).into(),
                profile: job.profile.map(options::Profile::text).unwrap_or_default(),
                onnx_runtime: job.runtime.version.clone(),
                tensorrt: machine::tensorrt().unwrap_or_else(unknown),
                driver: machine::driver().unwrap_or_else(unknown),
                architecture: machine::gpu(device).unwrap_or_else(unknown),
            };
            let fixed = job.summary.is_some_and(|summary| {
                let dims = summary.inputs.iter().flat_map(|tensor| &tensor.shape);
                dims.into_iter().all(|dim| dim.fixed().is_some())
            });
            Ok(Self {
                folder: cache.folder(&key, &job.stem()),
                record: Record {
                    path: job.path().display().to_string(),
                    key,
                    build_seconds: None,
                },
                cache,
                complete: fixed || job.profile.is_some(),
            })
        };
        plan().map_err(|error| error.to_string())
    }

    /// Opens what was compiled before, or compiles; `load` does either. With the session comes what to add to the
    /// runtime's line.
    pub(super) fn open<T: Send>(mut self, asked: &Asked<'_>, load: &Load<'_, T>) -> Result<(T, String), String> {
        let context = self.folder.join(options::CONTEXT);
        let note = |folder: &Path| format!(", engine in {}", folder.display());
        let request = asked.request;
        if context.is_file() {
            let options = Options::TensorRt(options::run(request.device, request.precision));
            // One that does not open is compiled again, over it.
            if let Ok(session) = load(&context, &options, Kind::Context) {
                return Ok((session, note(&self.folder)));
            }
            asked.cancel.check().map_err(|error| error.to_string())?;
        }
        std::fs::create_dir_all(&self.folder).map_err(|error| store::unwritable(&self.folder, &error).to_string())?;
        let model = Path::new(&request.model);
        let compile = options::compile(&options::Compile {
            device: request.device,
            precision: request.precision,
            profile: asked.profile,
            complete: self.complete,
            folder: &self.folder,
            prefix: &model.file_stem().unwrap_or_default().to_string_lossy(),
            cache: &self.cache,
        });
        let options = Options::TensorRt(compile);
        let last = self.cache.last_build(&self.record.key);
        let (session, took) = with_ticks(|| load(model, &options, Kind::Model), &|so_far| {
            (asked.progress)(Progress {
                what: said(asked.name, so_far, last),
                percent: percent(so_far, last),
            });
        });
        match session {
            Ok(session) => {
                // Without frames of a known size nothing is compiled before they come.
                self.record.build_seconds = (self.complete && !was_quick(took)).then_some(took.as_secs_f64());
                store::write_record(&self.folder, &self.record).map_err(|error| error.to_string())?;
                Ok((session, note(&self.folder)))
            }
            Err(reason) => {
                // Only what is empty goes: what is there may be of use to the next attempt.
                let _ = std::fs::remove_dir(&self.folder);
                Err(reason)
            }
        }
    }
}

/// What is asked for.
pub(super) struct Asked<'a> {
    pub(super) request: &'a OpenRequest,
    /// For messages.
    pub(super) name: &'a str,
    pub(super) profile: Option<&'a options::Profile>,
    pub(super) progress: &'a dyn Fn(Progress),
    pub(super) cancel: &'a Cancel,
}

/// Loads a file with settings, on whichever thread it is called.
pub(super) type Load<'a, T> = dyn Fn(&Path, &Options, Kind) -> Result<T, String> + Sync + 'a;

/// What is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The model itself, which is compiled.
    Model,
    /// What compiling it left behind.
    Context,
}

/// No engine is compiled within this time: it came out of the cache.
fn was_quick(took: Duration) -> bool {
    took < Duration::from_millis(200)
}

/// `compiling cartoon.onnx for 40 s; last time 95 s`.
fn said(name: &str, so_far: Duration, last: Option<f64>) -> String {
    let mut text = format!("compiling {name} for {} s", so_far.as_secs());
    if let Some(last) = last {
        text.push_str(&format!("; last time {last:.0} s"));
    }
    text
}

/// Of the whole opening, from the 20th to the 90th.
fn percent(so_far: Duration, last: Option<f64>) -> u8 {
    let part = last.map_or(0.0, |last| (so_far.as_secs_f64() / last.max(1.0)).min(1.0));
    20 + (part * 70.0) as u8
}

/// Does something on another thread, and says now and then for how long; with the result comes how long it took.
fn with_ticks<T: Send>(work: impl FnOnce() -> T + Send, tick: &dyn Fn(Duration)) -> (T, Duration) {
    #[expect(clippy::disallowed_methods, reason = "measures real time, for people to read")]
    let now = Instant::now;
    let start = now();
    std::thread::scope(|scope| {
        let (done, is_done) = mpsc::sync_channel::<()>(1);
        let worker = scope.spawn(move || {
            // Dropped on every way out, a panic among them.
            let _done = done;
            work()
        });
        tick(Duration::ZERO);
        while is_done.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
            tick(now().duration_since(start));
        }
        let result = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (result, now().duration_since(start))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::Folder;

    #[test]
    fn a_compilation_says_for_how_long_and_how_long_it_took_before() {
        let so_far = Duration::from_millis(40_900);
        assert_eq!(
            said("a.onnx", so_far, Some(95.2)),
            "compiling a.onnx for 40 s; last time 95 s"
        );
        assert_eq!(said("a.onnx", so_far, None), "compiling a.onnx for 40 s");
        for (last, expected) in [(None, 20), (Some(81.8), 55), (Some(10.0), 90), (Some(0.0), 90)] {
            assert_eq!(percent(so_far, last), expected, "{last:?}");
        }
    }

    fn request(folder: &Folder) -> OpenRequest {
        OpenRequest {
            model: folder.path().join("a.onnx").display().to_string(),
            ..OpenRequest::default()
        }
    }

    fn plan(folder: &Folder, complete: bool) -> Plan {
        let cache = Cache::at(Some(&folder.path().join("cache"))).unwrap();
        let key = Key {
            model: "ab".into(),
            precision: "auto".into(),
            profile: String::new(),
            onnx_runtime: "1".into(),
            tensorrt: "10".into(),
            driver: "580".into(),
            architecture: "89".into(),
        };
        Plan {
            folder: cache.folder(&key, "a"),
            record: Record {
                path: "a.onnx".into(),
                key,
                build_seconds: None,
            },
            cache,
            complete,
        }
    }

    fn open(folder: &Folder, complete: bool, load: &Load<'_, Kind>) -> Result<(Kind, String), String> {
        let asked = Asked {
            request: &request(folder),
            name: "a.onnx",
            profile: None,
            progress: &|_| (),
            cancel: &Cancel::default(),
        };
        plan(folder, complete).open(&asked, load)
    }

    /// A provider that leaves a context model where it is told to.
    fn provider(_: &Path, options: &Options, kind: Kind) -> Result<Kind, String> {
        let Options::TensorRt(options) = options else {
            return Err("other settings".into());
        };
        let context = options.iter().find(|(key, _)| *key == "trt_ep_context_file_path");
        if let Some((_, path)) = context {
            std::fs::write(path, "context").map_err(|error| error.to_string())?;
        }
        Ok(kind)
    }

    #[test]
    fn what_was_compiled_once_is_opened_from_then_on() {
        let folder = Folder::new("compile");
        let (first, note) = open(&folder, true, &provider).unwrap();
        assert_eq!(first, Kind::Model);
        let kept = plan(&folder, true).folder;
        assert_eq!(note, format!(", engine in {}", kept.display()));
        assert!(store::read_record(&kept).is_some());
        assert_eq!(open(&folder, true, &provider).map(|(kind, _)| kind), Ok(Kind::Context));
        let damaged = |path: &Path, options: &Options, kind| match kind {
            Kind::Context => Err("damaged".into()),
            Kind::Model => provider(path, options, kind),
        };
        assert_eq!(
            open(&folder, true, &damaged).map(|(kind, _)| kind),
            Ok(Kind::Model),
            "compiled again"
        );
    }

    #[test]
    fn sizes_that_come_with_the_frames_leave_no_context() {
        let folder = Folder::new("compile-open");
        for _ in 0..2 {
            assert_eq!(open(&folder, false, &provider).map(|(kind, _)| kind), Ok(Kind::Model));
        }
        let record = store::read_record(&plan(&folder, false).folder).unwrap();
        assert_eq!(record.build_seconds, None);
    }

    #[test]
    fn a_compilation_that_fails_leaves_nothing_behind() {
        let folder = Folder::new("compile-failed");
        let failed = open(&folder, true, &|_, _, _| Err("no".into()));
        assert_eq!(failed, Err("no".into()));
        assert!(!plan(&folder, true).folder.exists());
    }

    #[test]
    fn ticks_come_on_the_callers_thread_while_another_works() {
        let ticks = std::cell::Cell::new(0);
        let caller = std::thread::current().id();
        let (other, took) = with_ticks(|| std::thread::current().id(), &|_| {
            assert_eq!(std::thread::current().id(), caller);
            ticks.set(ticks.get() + 1);
        });
        assert_ne!(other, caller);
        assert!(ticks.get() >= 1 && took < Duration::from_secs(600));
    }

    #[test]
    fn a_panic_of_the_work_is_the_callers() {
        let work = || -> () { panic!("on purpose") };
        let caught = std::panic::catch_unwind(|| with_ticks(work, &|_| ()));
        assert!(caught.is_err());
    }
}

//! A model in ONNX by way of TensorRT: compiled once into the cache, opened from there afterwards.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ::ort::session::Session;

use super::exit::Owned;
use super::providers::Options;
use super::session::Job;
use crate::engine::trt::key::Key;
use crate::engine::trt::store::{self, Record};
use crate::engine::trt::{Cache, machine, options};
use crate::engine::{Error, Progress};

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

    /// Opens what was compiled before, or compiles. With the session comes what to add to the runtime's line.
    pub(super) fn open(mut self, job: &Job<'_>) -> Result<(Owned<Session>, String), String> {
        let context = self.folder.join(options::CONTEXT);
        let note = |folder: &Path| format!(", engine in {}", folder.display());
        if context.is_file() {
            let options = Options::TensorRt(options::run(job.request.device, job.request.precision));
            // One that does not open is compiled again, over it.
            if let Ok(session) = job.load(&context, &options).of_context().session() {
                return Ok((session, note(&self.folder)));
            }
            job.cancel.check().map_err(|error| error.to_string())?;
        }
        std::fs::create_dir_all(&self.folder).map_err(|error| store::unwritable(&self.folder, &error).to_string())?;
        let compile = options::compile(&options::Compile {
            device: job.request.device,
            precision: job.request.precision,
            profile: job.profile,
            complete: self.complete,
            folder: &self.folder,
            prefix: &job.stem(),
            cache: &self.cache,
        });
        let options = Options::TensorRt(compile);
        let load = job.load(job.path(), &options);
        let last = self.cache.last_build(&self.record.key);
        let (session, took) = with_ticks(|| load.session(), &|so_far| {
            (job.progress)(Progress {
                what: said(job.name, so_far, last),
                percent: percent(so_far, last),
            });
        });
        match session {
            Ok(session) => {
                // Without frames of a known size nothing is compiled before they come.
                self.record.build_seconds = (self.complete && !context_was_quick(took)).then_some(took.as_secs_f64());
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

/// No engine is compiled within this time: it came out of the cache.
fn context_was_quick(took: Duration) -> bool {
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

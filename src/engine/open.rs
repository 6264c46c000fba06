//! Opening an engine by name, alone or shared by name within the process.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use super::{Backend, Cancel, Engine, Error, OpenRequest, Progress, null};

/// Opens a model, or a built-in engine. Blocks while it loads, seconds or, where an engine is compiled, minutes.
pub fn open(request: &OpenRequest, progress: &dyn Fn(Progress)) -> Result<Arc<dyn Engine>, Error> {
    open_with(request, progress, &Cancel::default())
}

/// The same; another thread can end it, which makes it [`Error::Interrupted`].
///
/// ONNX Runtime looks at that between the steps of a load. Compiling an engine is one step: it is waited for, and what
/// was compiled serves the next opening.
pub fn open_with(
    request: &OpenRequest,
    progress: &dyn Fn(Progress),
    cancel: &Cancel,
) -> Result<Arc<dyn Engine>, Error> {
    cancel.check()?;
    let model = request.model.as_str();
    if model.is_empty() && request.backend == Backend::Null {
        return null::open_with("builtin:null", cancel);
    }
    if model.is_empty() {
        return Err(Error::Setting(
            "no model is set; set the `model` property to a model file, builtin:null or builtin:invert".into(),
        ));
    }
    if model.starts_with(null::PREFIX) {
        return match request.backend {
            Backend::Auto | Backend::Cpu | Backend::Null => null::open_with(model, cancel),
            #[cfg(feature = "cuda")]
            Backend::Cuda => null::open_on(model, request.device, cancel),
            _ => Err(Error::Setting(format!(
                "model {model} is built in and runs on the processor; set `backend` to auto, or `model` to a file"
            ))),
        };
    }
    if request.backend == Backend::Null {
        return Err(Error::Setting(format!(
            "backend null runs no model file, but `model` is {model}; leave `model` empty or choose another backend"
        )));
    }
    open_file(request, progress, cancel)
}

/// Has the process exit well while models are loaded or run, if it is this thread that exits it.
///
/// To be called on threads that have to do with engines and do not belong to them: the application's, as a rule.
pub fn watch_thread() {
    #[cfg(feature = "ort")]
    super::ort::watch_thread();
}

#[cfg(feature = "ort")]
fn open_file(request: &OpenRequest, progress: &dyn Fn(Progress), cancel: &Cancel) -> Result<Arc<dyn Engine>, Error> {
    super::ort::open(request, progress, cancel)
}

#[cfg(not(feature = "ort"))]
fn open_file(request: &OpenRequest, _progress: &dyn Fn(Progress), _cancel: &Cancel) -> Result<Arc<dyn Engine>, Error> {
    Err(Error::Runtime(format!(
        "{} cannot be run: this build has no ONNX Runtime support; build with the `ort` feature",
        request.model
    )))
}

/// Opens an engine that others who use the same `name` share, for as long as one of them holds it.
///
/// Who comes while it is being opened waits for it. `progress` must not open the same name.
pub fn open_shared(name: &str, request: &OpenRequest, progress: &dyn Fn(Progress)) -> Result<Arc<dyn Engine>, Error> {
    static TABLE: LazyLock<Table> = LazyLock::new(Table::default);
    TABLE.open(name, request, || open(request, progress))
}

#[derive(Default)]
struct Table {
    /// Lock order: this, then nothing. An entry's own lock is held while opening; this one is not.
    entries: Mutex<HashMap<String, Arc<Mutex<Entry>>>>,
}

#[derive(Default)]
struct Entry {
    request: OpenRequest,
    engine: Option<Weak<dyn Engine>>,
}

/// What is behind these mutexes is replaced as a whole, and an opening that panicked has changed nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    fn open(
        &self,
        name: &str,
        request: &OpenRequest,
        open: impl FnOnce() -> Result<Arc<dyn Engine>, Error>,
    ) -> Result<Arc<dyn Engine>, Error> {
        let entry = {
            let mut entries = lock(&self.entries);
            // One that somebody else is about to look into has a second owner, and stays.
            entries.retain(|_, entry| Arc::strong_count(entry) > 1 || lock(entry).is_live());
            entries.entry(name.to_owned()).or_default().clone()
        };
        let mut entry = lock(&entry);
        if let Some(engine) = entry.live() {
            if entry.request == *request {
                return Ok(engine);
            }
            return Err(Error::Setting(format!(
                "engine `{name}` is in use with other settings: {}; make them equal or choose another name",
                differences(&entry.request, request)
            )));
        }
        let engine = open()?;
        entry.request = request.clone();
        entry.engine = Some(Arc::downgrade(&engine));
        Ok(engine)
    }
}

impl Entry {
    /// Without taking hold of the engine, whose last holder would then have to free it here.
    fn is_live(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.strong_count() > 0)
    }

    fn live(&self) -> Option<Arc<dyn Engine>> {
        self.engine.as_ref().and_then(Weak::upgrade)
    }
}

/// `model is a.onnx there and b.onnx here, threads is 1 there and 2 here`.
fn differences(there: &OpenRequest, here: &OpenRequest) -> String {
    // Taken apart by name, so that a new field cannot be forgotten here.
    let OpenRequest {
        model,
        backend,
        device,
        precision,
        threads,
        cache,
        shapes,
        library,
    } = there;
    let fields = [
        ("model", format!("{model:?}"), format!("{:?}", here.model)),
        ("backend", format!("{backend:?}"), format!("{:?}", here.backend)),
        ("device", format!("{device:?}"), format!("{:?}", here.device)),
        ("precision", format!("{precision:?}"), format!("{:?}", here.precision)),
        ("threads", format!("{threads:?}"), format!("{:?}", here.threads)),
        ("cache", format!("{cache:?}"), format!("{:?}", here.cache)),
        ("shapes", format!("{shapes:?}"), format!("{:?}", here.shapes)),
        ("library", format!("{library:?}"), format!("{:?}", here.library)),
    ];
    let texts = fields.into_iter().filter(|(_, there, here)| there != here);
    texts
        .map(|(name, there, here)| format!("{name} is {there} there and {here} here"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(model: &str) -> OpenRequest {
        OpenRequest {
            model: model.into(),
            ..OpenRequest::default()
        }
    }

    fn quiet(_: Progress) {}

    #[test]
    fn one_name_is_one_engine_while_somebody_holds_it() {
        let table = Table::default();
        let null = request("builtin:null");
        let first = table.open("a", &null, || open(&null, &quiet)).unwrap();
        let second = table.open("a", &null, || panic!("opened twice")).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        let other = table.open("b", &null, || open(&null, &quiet)).unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
        drop((first, second));
        let invert = request("builtin:invert");
        let third = table.open("a", &invert, || open(&invert, &quiet)).unwrap();
        assert_eq!(third.spec().name, "builtin:invert");
        assert_eq!(lock(&table.entries).len(), 2);
    }

    #[test]
    fn another_request_under_the_same_name_is_refused_with_what_differs() {
        let name = "another-request";
        let _held = open_shared(name, &request("builtin:null"), &quiet).unwrap();
        let wanted = OpenRequest {
            threads: 3,
            ..request("builtin:invert")
        };
        let text = open_shared(name, &wanted, &quiet).err().unwrap().to_string();
        assert_eq!(
            text,
            "engine `another-request` is in use with other settings: model is \"builtin:null\" there and \
             \"builtin:invert\" here, threads is 0 there and 3 here; make them equal or choose another name"
        );
    }

    #[test]
    fn openers_at_the_same_time_get_one_engine_and_other_names_do_not_wait() {
        let table = Table::default();
        let null = request("builtin:null");
        let (inside, entered) = std::sync::mpsc::sync_channel(1);
        let (go, gate) = std::sync::mpsc::sync_channel::<()>(1);
        std::thread::scope(|scope| {
            let (table, null) = (&table, &null);
            let slow = scope.spawn(move || {
                table.open("a", null, || {
                    inside.send(()).unwrap();
                    gate.recv().unwrap();
                    open(null, &quiet)
                })
            });
            entered.recv().unwrap();
            let waiting = scope.spawn(|| table.open("a", null, || panic!("opened twice")));
            table.open("b", null, || open(null, &quiet)).unwrap();
            go.send(()).unwrap();
            let (slow, waiting) = (slow.join().unwrap().unwrap(), waiting.join().unwrap().unwrap());
            assert!(Arc::ptr_eq(&slow, &waiting));
        });
    }

    #[test]
    fn a_failed_or_panicking_opening_leaves_the_name_free() {
        let table = Table::default();
        let null = request("builtin:null");
        assert!(table.open("a", &null, || Err(Error::Interrupted)).is_err());
        let attempt = || table.open("a", &null, || panic!("on purpose"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt)).is_err());
        assert!(table.open("a", &null, || open(&null, &quiet)).is_ok());
    }

    #[test]
    fn requests_that_make_no_sense_say_what_to_do() {
        let with = |model: &str, backend| OpenRequest {
            backend,
            ..request(model)
        };
        for (request, part) in [
            (with("", Backend::Auto), "set the `model` property"),
            (with("builtin:null", Backend::TensorRt), "set `backend` to auto"),
            (with("a.onnx", Backend::Null), "leave `model` empty"),
        ] {
            let text = open(&request, &quiet).err().unwrap().to_string();
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(
            open(&with("", Backend::Null), &quiet).unwrap().spec().name,
            "builtin:null"
        );
    }
}

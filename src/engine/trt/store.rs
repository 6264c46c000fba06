//! The cache on disk: compiled engines by key, and wrappers.
//!
//! ```text
//! ~/.cache/gst-comfy/engines/cartoon-0f3a9c2b44d81e57/   key.json, the engine, model_ctx.onnx
//!                    engines/timing/                     what TensorRT learnt about kernels, for all of them
//!                    engines/hashes.json                 hashes of models, by path, size and time
//!                    wrappers/2b7d.../                   model.onnx, engine (a link, as a rule), wrapper.json
//! ```
//!
//! A folder that was named has the same inside, with `wrappers` in it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::key::{Key, digits};
use crate::engine::Error;

const KEY_FILE: &str = "key.json";
const WRAPPER_FILE: &str = "wrapper.json";
const HASH_FILE: &str = "hashes.json";
const TIMING: &str = "timing";
/// Larger files of ours are not ours.
const MAX_JSON: u64 = 1 << 20;
/// Hashes that are remembered.
const MAX_HASHES: usize = 256;
/// Entries that are listed.
const MAX_ENTRIES: usize = 10_000;

/// `$XDG_CACHE_HOME/gst-comfy`, or below `$HOME`. None: neither is set.
pub fn default_cache() -> Option<PathBuf> {
    root(&|name| std::env::var_os(name))
}

fn root(env: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(base.join("gst-comfy"))
}

/// Where compiled engines and wrappers are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    engines: PathBuf,
    wrappers: PathBuf,
}

/// One thing in the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its folder.
    pub path: PathBuf,
    /// The model or engine that it was made from.
    pub model: String,
    /// What it takes on disk; a link counts as nothing.
    pub bytes: u64,
    /// Since it was made.
    pub age: Duration,
    /// Seconds that compiling took, where it was compiled to its end.
    pub build_seconds: Option<f64>,
    /// What it was compiled for, each with its name.
    pub parts: Vec<(&'static str, String)>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An engine compiled from a model.
    Engine,
    /// What ONNX Runtime needs to open an engine that others compiled.
    Wrapper,
    /// What TensorRT learnt about kernels.
    Timing,
}

/// What to remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prune {
    /// Only what is older.
    pub older_than: Option<Duration>,
    /// Never one of this many newest.
    pub keep: usize,
    /// Also what TensorRT learnt about kernels, which every later compilation profits from.
    pub timing: bool,
    /// Says what would go, and lets it stay.
    pub dry_run: bool,
}

/// What stands in `key.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::engine) struct Record {
    /// The model's path.
    pub(in crate::engine) path: String,
    pub(in crate::engine) key: Key,
    /// None: not compiled to its end.
    pub(in crate::engine) build_seconds: Option<f64>,
}

#[derive(Serialize, Deserialize)]
struct WrapperRecord {
    engine: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Hashes(BTreeMap<String, Hash>);

#[derive(Serialize, Deserialize)]
struct Hash {
    stamp: String,
    sha256: String,
}

impl Cache {
    /// In this folder, or in the user's cache.
    pub fn at(folder: Option<&Path>) -> Result<Self, Error> {
        if let Some(folder) = folder {
            return Ok(Self {
                engines: folder.into(),
                wrappers: folder.join("wrappers"),
            });
        }
        let root = default_cache().ok_or_else(|| {
            Error::Setting("there is no folder for engines: set `engine-cache`, XDG_CACHE_HOME or HOME".into())
        })?;
        Ok(Self {
            engines: root.join("engines"),
            wrappers: root.join("wrappers"),
        })
    }

    /// The folder of compiled engines.
    pub fn engines(&self) -> &Path {
        &self.engines
    }

    pub(super) fn wrappers(&self) -> &Path {
        &self.wrappers
    }

    pub(in crate::engine) fn timing(&self) -> PathBuf {
        self.engines.join(TIMING)
    }

    /// The folder of one engine.
    pub(in crate::engine) fn folder(&self, key: &Key, stem: &str) -> PathBuf {
        self.engines.join(key.folder(stem))
    }

    /// What is there, newest first.
    pub fn list(&self, now: SystemTime) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for folder in [&self.engines, &self.wrappers] {
            let found = match fs::read_dir(folder) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(Error::Setting(format!("{} cannot be read: {error}", folder.display())));
                }
            };
            for entry in found.filter_map(Result::ok).take(MAX_ENTRIES) {
                entries.extend(self.entry(entry.path(), now));
            }
        }
        entries.sort_by(|a, b| a.age.cmp(&b.age).then_with(|| a.path.cmp(&b.path)));
        Ok(entries)
    }

    /// None: nothing of ours.
    fn entry(&self, path: PathBuf, now: SystemTime) -> Option<Entry> {
        let inside = |name: &str| path.join(name);
        let (kind, model, record, made) = if let Some(record) = read_record(&path) {
            (Kind::Engine, record.path.clone(), Some(record), inside(KEY_FILE))
        } else if let Some(wrapper) = read_json::<WrapperRecord>(&inside(WRAPPER_FILE)) {
            (Kind::Wrapper, wrapper.engine, None, inside(WRAPPER_FILE))
        } else if path == self.timing() && path.is_dir() {
            (Kind::Timing, String::new(), None, path.clone())
        } else {
            return None;
        };
        let made = fs::metadata(made).and_then(|found| found.modified()).ok()?;
        Some(Entry {
            kind,
            model,
            bytes: size(&path, 3),
            age: now.duration_since(made).unwrap_or_default(),
            build_seconds: record.as_ref().and_then(|record| record.build_seconds),
            parts: record
                .iter()
                .flat_map(|record| record.key.parts())
                .map(|(name, value)| (name, value.to_owned()))
                .collect(),
            path,
        })
    }

    /// Removes entries, and nothing else. What was removed, newest first.
    pub fn prune(&self, what: &Prune, now: SystemTime) -> Result<Vec<Entry>, Error> {
        let (timing, entries): (Vec<_>, Vec<_>) = self
            .list(now)?
            .into_iter()
            .partition(|entry| entry.kind == Kind::Timing);
        let old = |entry: &Entry| what.older_than.is_none_or(|limit| entry.age > limit);
        let going = entries.into_iter().skip(what.keep).filter(old);
        let going: Vec<Entry> = going.chain(timing.into_iter().filter(|_| what.timing)).collect();
        if !what.dry_run {
            for entry in &going {
                fs::remove_dir_all(&entry.path)
                    .map_err(|error| Error::Setting(format!("{} cannot be removed: {error}", entry.path.display())))?;
            }
        }
        Ok(going)
    }

    /// How long the same model took when it was last compiled.
    pub(in crate::engine) fn last_build(&self, key: &Key) -> Option<f64> {
        let folders = fs::read_dir(&self.engines).ok()?.filter_map(Result::ok);
        let records = folders.take(MAX_ENTRIES).filter_map(|entry| {
            let record = read_record(&entry.path())?;
            let made = fs::metadata(entry.path().join(KEY_FILE)).and_then(|found| found.modified());
            (record.key.model == key.model).then_some((made.ok()?, record.build_seconds?))
        });
        records.max_by_key(|(made, _)| *made).map(|(_, seconds)| seconds)
    }

    /// SHA-256 of a model and of its files of weights, remembered for as long as no file's size and time change.
    /// `go_on` is asked between blocks; its error ends it.
    pub(in crate::engine) fn model_hash(
        &self,
        model: &Path,
        weights: &std::collections::BTreeSet<String>,
        go_on: &dyn Fn() -> Result<(), Error>,
    ) -> Result<String, Error> {
        let unreadable = |path: &Path, error: io::Error| Error::Unreadable {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        let model = model.canonicalize().map_err(|error| unreadable(model, error))?;
        let beside = |name: &String| model.with_file_name("").join(name);
        let files: Vec<PathBuf> = std::iter::once(model.clone())
            .chain(weights.iter().map(beside))
            .collect();
        let mut stamps = String::new();
        for file in &files {
            stamps.push_str(&stamp(file).map_err(|error| unreadable(file, error))?);
            stamps.push('\n');
        }
        let memory = self.engines.join(HASH_FILE);
        let mut hashes: Hashes = read_json(&memory).unwrap_or_default();
        let name = model.display().to_string();
        if let Some(known) = hashes.0.get(&name).filter(|known| known.stamp == stamps) {
            return Ok(known.sha256.clone());
        }
        let mut hash = Sha256::new();
        let mut block = vec![0; 1 << 20];
        for path in &files {
            let mut file = fs::File::open(path).map_err(|error| unreadable(path, error))?;
            let length = file.metadata().map_err(|error| unreadable(path, error))?.len();
            hash.update(length.to_le_bytes());
            loop {
                go_on()?;
                match file.read(&mut block).map_err(|error| unreadable(path, error))? {
                    0 => break,
                    bytes => hash.update(&block[..bytes]),
                }
            }
        }
        let sha256 = digits(hash);
        if hashes.0.len() >= MAX_HASHES {
            hashes.0.clear();
        }
        let stamp = stamps;
        let known = Hash {
            stamp,
            sha256: sha256.clone(),
        };
        hashes.0.insert(name, known);
        // Without it the next start takes longer, and that is all.
        let _ = write_json(&memory, &hashes);
        Ok(sha256)
    }
}

/// What tells that a file is the one that was seen before.
pub(super) fn stamp(path: &Path) -> io::Result<String> {
    let found = fs::metadata(path)?;
    let time = found.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{}|{}|{}", path.display(), found.len(), time.as_nanos()))
}

/// Makes a folder with what `fill` puts into it, or none at all: others see it complete.
pub(super) fn fill(folder: &Path, fill: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary(folder)?;
    fs::create_dir_all(&temporary)?;
    let done = fill(&temporary).and_then(|()| {
        fs::rename(&temporary, folder).or_else(|_| {
            // What is in the way is not usable, or it would have been used.
            fs::remove_dir_all(folder)?;
            fs::rename(&temporary, folder)
        })
    });
    if done.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    done
}

/// A name beside this one that nobody else uses. Makes the folder that both are in.
fn temporary(path: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(parent)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(parent.join(format!(".{name}.{}.{count}", std::process::id())))
}

pub(in crate::engine) fn unwritable(folder: &Path, error: &io::Error) -> Error {
    Error::Setting(format!(
        "{} cannot be written: {error}; set `engine-cache` to a folder that can",
        folder.display()
    ))
}

pub(super) fn describe_wrapper(folder: &Path, engine: &Path) -> io::Result<()> {
    let engine = engine.display().to_string();
    write_json(&folder.join(WRAPPER_FILE), &WrapperRecord { engine })
}

pub(in crate::engine) fn read_record(folder: &Path) -> Option<Record> {
    read_json(&folder.join(KEY_FILE))
}

pub(in crate::engine) fn write_record(folder: &Path, record: &Record) -> Result<(), Error> {
    fs::create_dir_all(folder)
        .and_then(|()| write_json(&folder.join(KEY_FILE), record))
        .map_err(|error| unwritable(folder, &error))
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_JSON).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let temporary = temporary(path)?;
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    fs::write(&temporary, text)?;
    fs::rename(&temporary, path)
}

/// Bytes of all files, links not followed.
fn size(path: &Path, depth: usize) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let sizes = entries.filter_map(Result::ok).filter_map(|entry| {
        let found = entry.metadata().ok()?;
        Some(match (found.is_dir(), depth) {
            (true, 0) => 0,
            (true, _) => size(&entry.path(), depth - 1),
            (false, _) if found.is_file() => found.len(),
            (false, _) => 0,
        })
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::super::key::tests::key;
    use super::*;
    use crate::engine::testing::Folder;

    fn record(model: &str, seconds: Option<f64>) -> Record {
        let mut key = key();
        key.model = model.into();
        Record {
            path: format!("/models/{model}.onnx"),
            key,
            build_seconds: seconds,
        }
    }

    /// An engine in the cache that is this many hours old.
    fn engine(cache: &Cache, model: &str, hours: u64, now: SystemTime) -> PathBuf {
        let record = record(model, Some(hours as f64));
        let folder = cache.folder(&record.key, model);
        write_record(&folder, &record).unwrap();
        fs::write(folder.join("a.engine"), vec![1; 1000]).unwrap();
        let file = fs::File::options().append(true).open(folder.join(KEY_FILE)).unwrap();
        file.set_modified(now - Duration::from_secs(3600 * hours)).unwrap();
        folder
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(2_000_000_000)
    }

    fn cache(folder: &Folder) -> Cache {
        Cache::at(Some(folder.path())).unwrap()
    }

    fn models(entries: &[Entry]) -> Vec<&str> {
        entries
            .iter()
            .map(|entry| entry.model.trim_start_matches("/models/").trim_end_matches(".onnx"))
            .collect()
    }

    #[test]
    fn the_folder_is_the_users_cache() {
        let with = |cache: Option<&str>, home: Option<&str>| {
            root(&|name| match name {
                "XDG_CACHE_HOME" => cache.map(OsString::from),
                _ => home.map(OsString::from),
            })
        };
        assert_eq!(with(Some("/c"), Some("/h")), Some("/c/gst-comfy".into()));
        assert_eq!(with(None, Some("/h")), Some("/h/.cache/gst-comfy".into()));
        assert_eq!(with(Some("relative"), Some("/h")), Some("/h/.cache/gst-comfy".into()));
        assert_eq!(with(None, None), None);
    }

    #[test]
    fn what_is_there_is_listed_newest_first_and_what_is_others_is_not() {
        let folder = Folder::new("store-list");
        let cache = cache(&folder);
        assert_eq!(cache.list(now()).unwrap(), []);
        for (model, hours) in [("b", 2), ("a", 1), ("c", 3)] {
            engine(&cache, model, hours, now());
        }
        fs::create_dir_all(folder.path().join("photos")).unwrap();
        fs::write(folder.path().join("photos/key.json"), "{}").unwrap();
        fs::write(folder.path().join("notes.txt"), "x").unwrap();
        let entries = cache.list(now()).unwrap();
        assert_eq!(models(&entries), ["a", "b", "c"]);
        assert_eq!(entries[0].age, Duration::from_secs(3600));
        assert!((1000..3000).contains(&entries[0].bytes), "{}", entries[0].bytes);
        assert_eq!(entries[0].build_seconds, Some(1.0));
        assert_eq!(entries[0].parts[5], ("driver", "580.65".into()));
    }

    #[test]
    fn what_is_pruned_is_what_was_asked_for() {
        let hours = |hours: u64| Some(Duration::from_secs(3600 * hours));
        for (what, gone) in [
            (Prune::default(), &["a", "b", "c"][..]),
            (
                Prune {
                    older_than: hours(2),
                    ..Prune::default()
                },
                &["c"],
            ),
            (
                Prune {
                    keep: 1,
                    ..Prune::default()
                },
                &["b", "c"],
            ),
            (
                Prune {
                    keep: 3,
                    older_than: hours(0),
                    ..Prune::default()
                },
                &[],
            ),
        ] {
            for dry_run in [true, false] {
                let folder = Folder::new("store-prune");
                let cache = cache(&folder);
                for (model, hours) in [("a", 1), ("b", 2), ("c", 3)] {
                    engine(&cache, model, hours, now());
                }
                fs::create_dir_all(cache.timing()).unwrap();
                fs::write(folder.path().join("notes.txt"), "x").unwrap();
                let what = Prune {
                    dry_run,
                    ..what.clone()
                };
                assert_eq!(models(&cache.prune(&what, now()).unwrap()), gone, "{what:?}");
                let left = cache.list(now()).unwrap().len() - 1;
                assert_eq!(left, if dry_run { 3 } else { 3 - gone.len() });
                assert!(cache.timing().is_dir() && folder.path().join("notes.txt").is_file());
            }
        }
        let folder = Folder::new("store-prune-timing");
        let cache = cache(&folder);
        fs::create_dir_all(cache.timing()).unwrap();
        let all = Prune {
            timing: true,
            ..Prune::default()
        };
        assert_eq!(cache.prune(&all, now()).unwrap()[0].kind, Kind::Timing);
        assert!(!cache.timing().exists());
    }

    #[test]
    fn the_last_build_of_the_same_model_is_remembered() {
        let folder = Folder::new("store-last");
        let cache = cache(&folder);
        assert_eq!(cache.last_build(&key()), None);
        engine(&cache, "a", 5, now());
        let mut other = record("a", Some(2.0));
        other.key.driver = "another".into();
        let newer = cache.folder(&other.key, "a");
        write_record(&newer, &other).unwrap();
        let file = fs::File::options().append(true).open(newer.join(KEY_FILE)).unwrap();
        file.set_modified(now()).unwrap();
        assert_eq!(cache.last_build(&record("a", None).key), Some(2.0));
        assert_eq!(cache.last_build(&record("b", None).key), None);
    }

    #[test]
    fn a_model_is_hashed_with_its_weights_and_only_when_it_changed() {
        let folder = Folder::new("store-hash");
        let cache = cache(&folder);
        let model = folder.path().join("a.onnx");
        let weights = std::collections::BTreeSet::from(["a.bin".to_owned()]);
        fs::write(&model, "model").unwrap();
        assert!(
            cache.model_hash(&model, &weights, &|| Ok(())).is_err(),
            "weights that are not there"
        );
        fs::write(folder.path().join("a.bin"), "weights").unwrap();
        let first = cache.model_hash(&model, &weights, &|| Ok(())).unwrap();
        assert_eq!(first.len(), 64);
        let stopped = || Err(Error::Interrupted);
        assert_eq!(
            cache.model_hash(&model, &weights, &stopped),
            Ok(first.clone()),
            "remembered"
        );
        fs::write(folder.path().join("a.bin"), "weights!").unwrap();
        assert_eq!(cache.model_hash(&model, &weights, &stopped), Err(Error::Interrupted));
        assert_ne!(cache.model_hash(&model, &weights, &|| Ok(())).unwrap(), first);
        fs::write(folder.path().join("hashes.json"), "garbage").unwrap();
        assert!(cache.model_hash(&model, &weights, &|| Ok(())).is_ok());
    }

    #[test]
    fn a_folder_appears_complete_or_not_at_all() {
        let folder = Folder::new("store-fill");
        let to = folder.path().join("x/y");
        assert!(fill(&to, |_| Err(io::ErrorKind::Other.into())).is_err());
        assert_eq!(fs::read_dir(folder.path().join("x")).unwrap().count(), 0);
        fill(&to, |to| fs::write(to.join("a"), "1")).unwrap();
        fill(&to, |to| fs::write(to.join("a"), "2")).unwrap();
        assert_eq!(fs::read_to_string(to.join("a")).unwrap(), "2");
        assert_eq!(fs::read_dir(folder.path().join("x")).unwrap().count(), 1);
    }
}

//! The channels of a server, and what they may use together.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{ChannelInfo, Config, Refusal, Totals};
use crate::trickle::channel::{Append, Channel, OpenWrite};
use crate::trickle::wire::{CHANGES, KEPT, MAX_MIME, is_name, value};

/// One channel.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) mime: String,
    ring: Mutex<Channel<Waker>>,
    memory: Arc<AtomicUsize>,
    created: Duration,
    rate: Mutex<Rate>,
}

/// Bytes per second, over the time between two looks.
#[derive(Debug, Default, Clone, Copy)]
struct Rate {
    at: Duration,
    bytes_in: u64,
    bytes_out: u64,
    per_second: (f64, f64),
}

impl Entry {
    /// Looks at the ring, or changes it. Who is to be woken is, after the lock is gone.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Channel<Waker>) -> T) -> T {
        let mut woken = Vec::new();
        let result = {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            let before = ring.held();
            let result = change(&mut ring);
            let after = ring.held();
            if after >= before {
                self.memory.fetch_add(after - before, Ordering::Relaxed);
            } else {
                self.memory.fetch_sub(before - after, Ordering::Relaxed);
            }
            ring.take_woken(&mut woken);
            result
        };
        for waker in woken {
            waker.wake();
        }
        result
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let held = self.ring.get_mut().unwrap_or_else(PoisonError::into_inner).held();
        self.memory.fetch_sub(held, Ordering::Relaxed);
    }
}

/// All channels.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) config: Config,
    pub(super) base: String,
    channels: RwLock<HashMap<String, Arc<Entry>>>,
    /// The server has stopped. Changed and asked with `channels` locked.
    stopped: AtomicBool,
    memory: Arc<AtomicUsize>,
    started: Instant,
    pub(super) counters: Counters,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicUsize,
    pub(super) accepted: AtomicU64,
    pub(super) created: AtomicU64,
    pub(super) swept: AtomicU64,
    /// Of channels that are gone.
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    segments: AtomicU64,
    pub(super) answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

impl Registry {
    pub(super) fn new(config: Config, base: String) -> Self {
        let registry = Self {
            config,
            base,
            channels: RwLock::default(),
            stopped: AtomicBool::new(false),
            memory: Arc::default(),
            started: Instant::now(),
            counters: Counters::default(),
        };
        if registry.config.changefeed {
            // It is the first, so there is room.
            let _ = registry.create(CHANGES, value::JSON, false);
        }
        registry
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Entry>> {
        self.read().get(name).cloned()
    }

    /// Makes a channel, or finds it. `hooked`: the operator's hook may refuse it.
    pub(super) fn create(&self, name: &str, mime: &str, hooked: bool) -> Result<Arc<Entry>, Refusal> {
        if let Some(entry) = self.find(name) {
            return Ok(entry);
        }
        if !is_name(name) {
            return Err(Refusal::BadChannel);
        }
        if mime.len() > MAX_MIME {
            return Err(Refusal::BadType);
        }
        if hooked && let Some(hooks) = &self.config.hooks {
            hooks.before_create(name, mime).map_err(Refusal::Denied)?;
        }
        let now = self.now();
        let entry = {
            let mut channels = self.write();
            if let Some(entry) = channels.get(name) {
                return Ok(entry.clone());
            }
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Refusal::Stopped);
            }
            if channels.len() >= self.config.max_channels {
                return Err(Refusal::Channels(self.config.max_channels));
            }
            let entry = Arc::new(Entry {
                name: name.to_owned(),
                mime: mime.to_owned(),
                ring: Mutex::new(Channel::new(now, self.config.channel)),
                memory: self.memory.clone(),
                created: now,
                rate: Mutex::default(),
            });
            channels.insert(name.to_owned(), entry.clone());
            entry
        };
        self.counters.created.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(channel = name, mime, "channel created");
        self.announce("added", name);
        Ok(entry)
    }

    /// Ends a channel. False if there is none.
    pub(super) fn delete(&self, name: &str, hooked: bool) -> Result<bool, Refusal> {
        if self.find(name).is_none() {
            return Ok(false);
        }
        if hooked && let Some(hooks) = &self.config.hooks {
            hooks.before_delete(name).map_err(Refusal::Denied)?;
        }
        let removed = self.write().remove(name);
        Ok(removed.is_some_and(|entry| {
            self.retire(&entry);
            self.announce("removed", name);
            true
        }))
    }

    /// Channels may be made.
    pub(super) fn open(&self) {
        let _channels = self.write();
        self.stopped.store(false, Ordering::Relaxed);
    }

    /// Ends all channels, without a word in the change feed. Until [`open`](Self::open) nobody makes others: a request
    /// or a publisher from inside that comes in just then would leave one behind.
    pub(super) fn close(&self) {
        let all: Vec<_> = {
            let mut channels = self.write();
            self.stopped.store(true, Ordering::Relaxed);
            channels.drain().map(|(_, entry)| entry).collect()
        };
        for entry in all {
            self.retire(&entry);
        }
    }

    /// Ends channels in which nothing happens, and segments whose publishers do not come back.
    pub(super) fn sweep(&self) {
        let now = self.now();
        let all: Vec<_> = self.read().values().cloned().collect();
        for entry in all {
            let active = entry.with(|ring| {
                let _ = ring.tick(now);
                ring.active()
            });
            entry.look(now);
            if now.saturating_sub(active) > self.config.idle_channel && !entry.name.starts_with(KEPT) {
                tracing::info!(channel = entry.name, idle = ?self.config.idle_channel, "channel ended: nothing was written");
                self.counters.swept.fetch_add(1, Ordering::Relaxed);
                // Somebody may have deleted it, and made another of that name, since.
                let removed = {
                    let mut channels = self.write();
                    let same = channels
                        .get(&entry.name)
                        .is_some_and(|other| Arc::ptr_eq(other, &entry));
                    same.then(|| channels.remove(&entry.name)).flatten()
                };
                if removed.is_some() {
                    self.retire(&entry);
                    self.announce("removed", &entry.name);
                }
            }
        }
    }

    /// True if so much more may be held.
    pub(super) fn has_memory_for(&self, cost: usize) -> bool {
        self.memory.load(Ordering::Relaxed).saturating_add(cost) <= self.config.max_memory
    }

    pub(super) fn infos(&self) -> Vec<ChannelInfo> {
        let now = self.now();
        let mut infos: Vec<_> = self.read().values().map(|entry| entry.info(now)).collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    pub(super) fn totals(&self) -> Totals {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let mut totals = Totals {
            connections: counters.connections.load(Ordering::Relaxed),
            accepted: load(&counters.accepted),
            created: load(&counters.created),
            swept: load(&counters.swept),
            bytes_in: load(&counters.bytes_in),
            bytes_out: load(&counters.bytes_out),
            segments: load(&counters.segments),
            memory: self.memory.load(Ordering::Relaxed),
            uptime: self.now(),
            answers: counters.answers.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ..Totals::default()
        };
        for entry in self.read().values() {
            let stats = entry.with(|ring| ring.stats());
            totals.channels += 1;
            totals.readers += stats.readers;
            totals.writers += stats.writers;
            totals.bytes_in += stats.bytes_in;
            totals.bytes_out += stats.bytes_out;
            totals.segments += stats.begun;
        }
        totals
    }

    fn retire(&self, entry: &Entry) {
        let stats = entry.with(|ring| {
            ring.close();
            ring.stats()
        });
        // What readers still take of it afterwards is not counted.
        self.counters.bytes_in.fetch_add(stats.bytes_in, Ordering::Relaxed);
        self.counters.bytes_out.fetch_add(stats.bytes_out, Ordering::Relaxed);
        self.counters.segments.fetch_add(stats.begun, Ordering::Relaxed);
    }

    fn announce(&self, what: &str, name: &str) {
        if !self.config.changefeed {
            return;
        }
        let Some(feed) = self.find(CHANGES) else { return };
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
        let text = Bytes::from(format!("{{\"{what}\":[\"{escaped}\"]}}"));
        let now = self.now();
        feed.with(|ring| {
            if let OpenWrite::Opened { writer, .. } = ring.open_write(None, false) {
                match ring.append(now, &writer, text) {
                    Append::Stored | Append::Dropped | Append::Ended { .. } | Append::TooLarge => (),
                }
                let _ = ring.finish(writer);
            }
        });
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, Arc<Entry>>> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Arc<Entry>>> {
        self.channels.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn look(&self, now: Duration) {
        let stats = self.with(|ring| ring.stats());
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let time = now.saturating_sub(rate.at).as_secs_f64();
        if time < 0.9 {
            return;
        }
        let per_second = |after: u64, before: u64| (after - before) as f64 / time;
        *rate = Rate {
            at: now,
            bytes_in: stats.bytes_in,
            bytes_out: stats.bytes_out,
            per_second: (
                per_second(stats.bytes_in, rate.bytes_in),
                per_second(stats.bytes_out, rate.bytes_out),
            ),
        };
    }

    fn info(&self, now: Duration) -> ChannelInfo {
        let (stats, active) = self.with(|ring| (ring.stats(), ring.active()));
        let rate = *self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        ChannelInfo {
            name: self.name.clone(),
            mime: self.mime.clone(),
            age: now.saturating_sub(self.created),
            idle: now.saturating_sub(active),
            rate_in: rate.per_second.0,
            rate_out: rate.per_second.1,
            stats,
        }
    }
}

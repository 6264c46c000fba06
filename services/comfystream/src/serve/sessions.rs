//! Who is connected: places, names, ids.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use comfy_core::workflow::Workflow;
use comfy_pipelines::session::Session;
use comfy_pipelines::stream::Stream;
use serde::Serialize;
use tokio::sync::Notify;
use utoipa::ToSchema;

use super::clock;
use super::error::Failure;
use super::wish::Wish;

/// How a peer came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// `POST /offer`: it sends, and gets back what becomes of it.
    Offer,
    /// It sends, and others watch.
    Whip,
    /// It watches.
    Whep,
}

/// A peer that is connected, or will be.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    /// What it publishes, or watches.
    pub(crate) name: Option<String>,
    /// In seconds since 1970.
    pub(crate) created: f64,
    pub(crate) session: Arc<Session>,
    /// What is wanted of its stream; of no account to who watches.
    pub(crate) wish: Mutex<Wish>,
    /// What `get_nodes` tells of.
    pub(crate) prompts: Mutex<Vec<Workflow>>,
}

/// All of them. Its lock is held for look-ups only.
#[derive(Debug)]
pub(crate) struct Sessions {
    inner: Mutex<Inner>,
    max: usize,
    left: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Places that are promised to sessions which are being opened.
    promised: usize,
    entries: BTreeMap<String, Arc<Entry>>,
    /// Published names, with the ids of who publishes.
    names: BTreeMap<String, String>,
    closed: bool,
}

/// A place for a session, and its name, until the session is there or is not.
#[derive(Debug)]
pub(crate) struct Place {
    sessions: Arc<Sessions>,
    pub(crate) id: String,
    taken: bool,
}

impl Sessions {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            max,
            left: Notify::new(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change of it is complete in one statement.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if there is one and nobody publishes under that name.
    pub(crate) fn reserve(self: &Arc<Self>, publish: Option<&str>, busy: bool) -> Result<Place, Failure> {
        let id = id().ok_or_else(|| Failure::internal("the system gives no random numbers"))?;
        let mut inner = self.inner();
        let count = inner.entries.len() + inner.promised;
        let unavailable =
            |code, message: String, hint: &str| Failure::new(StatusCode::SERVICE_UNAVAILABLE, code, message, hint);
        if inner.closed {
            return Err(unavailable(
                "stopping",
                "the service is stopping".into(),
                "ask another, or this one when it is back",
            ));
        }
        if count >= self.max {
            let message = format!("all {} places are taken", self.max);
            return Err(unavailable(
                "sessions_full",
                message,
                "try again when a session has ended",
            ));
        }
        if busy && count > 0 {
            let message = format!("the processor is busy with {count} sessions, and frames of one more would be late");
            return Err(unavailable(
                "overloaded",
                message,
                "try again when a session has ended, or set max-sessions",
            ));
        }
        if let Some(name) = publish {
            if inner.names.contains_key(name) {
                return Err(taken(name));
            }
            inner.names.insert(name.into(), id.clone());
        }
        inner.promised += 1;
        drop(inner);
        Ok(Place {
            sessions: self.clone(),
            id,
            taken: false,
        })
    }

    /// Whether a session has that id.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Entry>> {
        self.inner().entries.get(id).cloned()
    }

    /// All that are there.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.inner().entries.values().cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        let inner = self.inner();
        inner.entries.len() + inner.promised
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// What is published under a name, or echoed by the session of that id.
    pub(crate) fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        let inner = self.inner();
        let id = inner.names.get(name).map_or(name, String::as_str);
        let entry = inner.entries.get(id).filter(|entry| entry.kind != Kind::Whep)?;
        Some(entry.session.stream().clone())
    }

    /// Lets somebody else publish under its name.
    pub(crate) fn free(&self, id: &str) {
        self.inner().names.retain(|_, owner| owner != id);
    }

    /// It has ended.
    pub(crate) fn leave(&self, id: &str) {
        self.free(id);
        let gone = self.inner().entries.remove(id);
        // Whatever it held goes outside of the lock.
        drop(gone);
        self.left.notify_waiters();
    }

    /// Lets nobody in any more, and returns who is there.
    pub(crate) fn close(&self) -> Vec<Arc<Entry>> {
        self.inner().closed = true;
        self.all()
    }

    /// Until nobody is there.
    pub(crate) async fn empty(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // Before the look, or the last one could leave between it and the wait.
            left.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            left.await;
        }
    }
}

/// Somebody publishes under that name.
pub(crate) fn taken(name: &str) -> Failure {
    Failure::new(
        StatusCode::CONFLICT,
        "name_taken",
        format!("somebody publishes {name} already"),
        "choose another name, or try again when that has ended",
    )
}

impl Place {
    /// The session is there.
    pub(crate) fn settle(mut self, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        let mut inner = self.sessions.inner();
        inner.promised -= 1;
        inner.entries.insert(self.id.clone(), entry.clone());
        drop(inner);
        self.taken = true;
        entry
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        self.sessions.inner().promised -= 1;
        self.sessions.free(&self.id);
        self.sessions.left.notify_waiters();
    }
}

/// 128 bits that nobody guesses.
fn id() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Entry {
    pub(crate) fn new(
        place: &Place,
        kind: Kind,
        name: Option<String>,
        session: Arc<Session>,
        wish: Wish,
        prompts: Vec<Workflow>,
    ) -> Self {
        Self {
            id: place.id.clone(),
            kind,
            name,
            created: clock::unix(),
            session,
            wish: Mutex::new(wish),
            prompts: Mutex::new(prompts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_names_are_given_back() {
        let sessions = Sessions::new(2);
        let first = sessions.reserve(Some("cam"), false).unwrap();
        assert_eq!(
            sessions.reserve(Some("cam"), false).unwrap_err().status,
            StatusCode::CONFLICT
        );
        let second = sessions.reserve(Some("other"), false).unwrap();
        assert_ne!(first.id, second.id);
        assert_eq!(first.id.len(), 32);
        let full = sessions.reserve(None, false).unwrap_err();
        assert_eq!(
            (full.status, full.code),
            (StatusCode::SERVICE_UNAVAILABLE, "sessions_full")
        );
        drop(first);
        assert_eq!(sessions.count(), 1);
        let again = sessions.reserve(Some("cam"), false).unwrap();
        drop((again, second));
        assert_eq!(sessions.count(), 0);
    }

    #[test]
    fn a_name_is_free_before_its_session_has_ended() {
        let sessions = Sessions::new(9);
        let dead = sessions.reserve(Some("cam"), false).unwrap();
        sessions.free(&dead.id);
        let alive = sessions.reserve(Some("cam"), false).unwrap();
        drop(dead);
        assert!(sessions.reserve(Some("cam"), false).is_err(), "it is the other's now");
        drop(alive);
    }

    #[test]
    fn a_busy_service_takes_the_first_and_no_more() {
        let sessions = Sessions::new(9);
        let first = sessions.reserve(None, true).unwrap();
        assert_eq!(sessions.reserve(None, true).unwrap_err().code, "overloaded");
        drop(first);
        sessions.close();
        assert_eq!(sessions.reserve(None, false).unwrap_err().code, "stopping");
    }

    #[tokio::test]
    async fn who_waits_for_the_last_to_leave_hears_of_it() {
        let sessions = Sessions::new(1);
        sessions.empty().await;
        let place = sessions.reserve(None, false).unwrap();
        let waiting = tokio::spawn({
            let sessions = sessions.clone();
            async move { sessions.empty().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(place);
        waiting.await.unwrap();
    }
}

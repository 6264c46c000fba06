//! What all requests share.

use std::sync::{Arc, Mutex, PoisonError};

use comfy_core::workflow::Workflow;
use comfy_pipelines::pool::{Pool, Readiness};
use comfy_pipelines::rtc;
use comfy_pipelines::session::{Role, Session};
use comfy_pipelines::source::Source;
use comfy_pipelines::stream::Stream;
use metrics::counter;
use metrics_exporter_prometheus::PrometheusHandle;

use super::attend::{self, Mailbox};
use super::catalog::Catalog;
use super::clock;
use super::error::Failure;
use super::load::Load;
use super::options::SourceOptions;
use super::sessions::{Entry, Kind, Place, Sessions};
use super::settings::Settings;
use super::wish::{Change, Wish};

/// The service.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) pool: Arc<Pool>,
    pub(crate) catalog: Catalog,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) sources: Mutex<Vec<(SourceOptions, Source)>>,
    /// The workflow of sessions that begin without one: what was last posted to `/prompt`.
    pub(crate) prompts: Mutex<Option<Vec<Workflow>>>,
    pub(crate) load: Mutex<Load>,
    pub(crate) prometheus: PrometheusHandle,
}

/// What a peer wants.
pub(crate) struct Ask {
    pub(crate) kind: Kind,
    /// What it publishes, or watches.
    pub(crate) name: Option<String>,
    pub(crate) offer: String,
    pub(crate) wish: Wish,
    pub(crate) prompts: Vec<Workflow>,
    /// What it watches.
    pub(crate) watched: Option<Arc<Stream>>,
}

impl App {
    /// Calls what may wait, where that holds nobody up.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&App) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let app = self.clone();
        match tokio::task::spawn_blocking(move || work(&app)).await {
            Ok(done) => done,
            Err(_) => Err(Failure::internal("a part of the service panicked")),
        }
    }

    /// Answers an offer. Goes on to the end when who asked has gone: a session that is half open would be nobody's.
    pub(crate) async fn open(self: &Arc<Self>, ask: Ask) -> Result<(Arc<Entry>, String), Failure> {
        let publish = match ask.kind {
            Kind::Whip => ask.name.as_deref(),
            Kind::Offer | Kind::Whep => None,
        };
        let busy = self.settings.limits.load_counts && lock(&self.load).is_full();
        let place = self.sessions.reserve(publish, busy)?;
        let app = self.clone();
        let opened = tokio::spawn(async move { app.open_at(place, ask).await }).await;
        opened.unwrap_or_else(|_| Err(Failure::internal("a part of the service panicked")))
    }

    async fn open_at(self: &Arc<Self>, place: Place, ask: Ask) -> Result<(Arc<Entry>, String), Failure> {
        let Ask {
            kind,
            name,
            offer,
            wish,
            prompts,
            watched,
        } = ask;
        let (mailbox, listener) = Mailbox::new();
        let stream = match kind {
            Kind::Whip | Kind::Whep => name.clone().unwrap_or_else(|| place.id.clone()),
            Kind::Offer => place.id.clone(),
        };
        let wanted = wish.clone();
        let opened = self.blocking(move |app| {
            let role = match (kind, watched) {
                (Kind::Whep, Some(watched)) => Role::Watch(watched),
                (Kind::Whip, _) => Role::Publish(app.catalog.settings(&wanted)?),
                (Kind::Offer | Kind::Whep, _) => Role::Echo(app.catalog.settings(&wanted)?),
            };
            let config = app.rtc();
            Ok(Session::open(&app.pool, &stream, &offer, role, &config, listener)?)
        });
        let (session, answer) = match opened.await {
            Ok(opened) => opened,
            Err(failure) => {
                counter!("comfystream_offers_refused_total", "code" => failure.code).increment(1);
                tracing::info!(code = failure.code, "offer refused: {}", failure.message);
                return Err(failure);
            }
        };
        let entry = Entry::new(&place, kind, name, session, wish, prompts);
        let entry = place.settle(entry);
        counter!("comfystream_sessions_total").increment(1);
        tracing::info!(session = %short(&entry.id), kind = ?entry.kind, name = entry.name, "session opened");
        tokio::spawn(attend::attend(self.clone(), entry.clone(), mailbox));
        Ok((entry, answer))
    }

    /// Another wish for a session's stream.
    pub(crate) async fn change(self: &Arc<Self>, entry: &Arc<Entry>, change: Change) -> Result<Wish, Failure> {
        let wish = lock(&entry.wish).with(&change)?;
        let (entry, wanted) = (entry.clone(), wish.clone());
        self.blocking(move |app| {
            let settings = app.catalog.settings(&wanted)?;
            entry.session.stream().set(settings)?;
            *lock(&entry.wish) = wanted;
            Ok(())
        })
        .await?;
        Ok(wish)
    }

    /// What sessions want that say nothing, and its workflow.
    pub(crate) fn default_wish(&self) -> Result<(Wish, Vec<Workflow>), Failure> {
        let wish = &self.settings.wish;
        match &*lock(&self.prompts) {
            Some(prompts) => Ok((wish.with(&self.catalog.change(prompts)?)?, prompts.clone())),
            None => Ok((wish.clone(), Vec::new())),
        }
    }

    /// With credentials of this moment.
    fn rtc(&self) -> rtc::Config {
        rtc::Config {
            stun: self.settings.ice.stun.clone(),
            turn: self.settings.ice.turn(clock::unix() as u64),
            ..self.settings.rtc.clone()
        }
    }

    /// What a name stands for, whoever sends it.
    pub(crate) fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        let sources = lock(&self.sources);
        let source = sources.iter().find(|(options, _)| options.name == name);
        let stream = source.map(|(_, source)| source.stream().clone());
        drop(sources);
        stream.or_else(|| self.sessions.stream(name))
    }

    /// Where the models are that are loaded at the start, and with which settings.
    pub(crate) fn readiness(&self) -> Vec<(String, Readiness, String)> {
        let state = |(name, path): &(String, String)| {
            let key = self.catalog.key_of(name, path.clone(), self.settings.wish.batch_size);
            match self.pool.readiness(&key) {
                Some(report) => (name.clone(), report.readiness, report.text),
                None => (name.clone(), Readiness::Loading, "waiting for its turn".into()),
            }
        };
        self.catalog.loaded().iter().map(state).collect()
    }
}

/// Nothing panics under our locks; should it, what they hold is complete.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Enough of an id to tell sessions apart in a log, and too little to use them.
pub(crate) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

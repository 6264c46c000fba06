//! Attends to a session while it lasts: hears what it says, does what its peer asks for.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use comfy_core::workflow;
use comfy_pipelines::rtc::ConnectionState;
use comfy_pipelines::session::{Event, Listener};
use comfy_pipelines::stream;
use metrics::counter;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::app::{App, lock, short};
use super::bucket::Bucket;
use super::clock;
use super::control::{self, Outcome, Request};
use super::error::Failure;
use super::figures;
use super::sessions::{Entry, Kind};
use super::wish::Change;

const CONTROL: &str = "control";
/// Messages that wait; what comes faster is dropped and counted.
const WAITING: usize = 256;
/// Errors kept for a peer whose channel is not open yet.
const KEPT: usize = 16;
/// Longest time that a session may take to end.
const ENDING: Duration = Duration::from_secs(20);

/// What a session says, on its way from GStreamer's threads.
pub(crate) struct Mailbox {
    events: mpsc::Receiver<Event>,
    vital: watch::Receiver<Vital>,
}

/// What must not be lost, however much else is said.
#[derive(Debug, Clone, Default, PartialEq)]
struct Vital {
    connected: bool,
    closed: bool,
    failed: Option<String>,
    ended: bool,
}

impl Mailbox {
    /// With the listener that fills it, and never waits.
    pub(crate) fn new() -> (Self, Listener) {
        let (sender, events) = mpsc::channel(WAITING);
        let (vital, watched) = watch::channel(Vital::default());
        let listener = move |event: Event| match event {
            Event::Connection(state) => vital.send_modify(|vital| match state {
                ConnectionState::Connected => vital.connected = true,
                ConnectionState::Closed => vital.closed = true,
                ConnectionState::Connecting | ConnectionState::Disconnected => (),
            }),
            Event::Failed(text) => vital.send_modify(|vital| vital.failed = Some(text)),
            Event::Ended => vital.send_modify(|vital| vital.ended = true),
            other => {
                if sender.try_send(other).is_err() {
                    counter!("comfystream_messages_dropped_total").increment(1);
                }
            }
        };
        let mailbox = Self { events, vital: watched };
        (mailbox, Arc::new(listener))
    }
}

/// What is known of a peer.
struct Attendant {
    app: Arc<App>,
    entry: Arc<Entry>,
    bucket: Bucket,
    /// Whether the peer was told that it says too much.
    scolded: bool,
    open: bool,
    /// For a peer whose channel opens late.
    state: Option<Value>,
    buffer: Option<Value>,
    errors: Vec<Value>,
    ticks: Option<Interval>,
}

/// Until it has ended.
pub(crate) async fn attend(app: Arc<App>, entry: Arc<Entry>, mailbox: Mailbox) {
    let Mailbox { mut events, mut vital } = mailbox;
    let limits = app.settings.limits;
    let rate = f64::from(limits.message_rate);
    let mut attendant = Attendant {
        bucket: Bucket::new(rate, rate * 2.0),
        scolded: false,
        open: false,
        state: None,
        buffer: None,
        errors: Vec::new(),
        ticks: None,
        app: app.clone(),
        entry: entry.clone(),
    };
    let id = short(&entry.id);
    let deadline = sleep_until(Instant::now() + limits.connect);
    tokio::pin!(deadline);
    let (mut connected, mut closing) = (false, false);
    loop {
        let now = vital.borrow_and_update().clone();
        if now.ended {
            break;
        }
        if now.connected && !connected {
            connected = true;
            tracing::info!(session = id, "connected");
        }
        if (now.closed || now.failed.is_some()) && !closing {
            closing = true;
            // Whoever publishes next need not wait until the pipelines are gone.
            app.sessions.free(&entry.id);
            if let Some(text) = now.failed {
                counter!("comfystream_sessions_failed_total").increment(1);
                tracing::warn!(session = id, "failed: {text}");
                attendant.fatal(text).await;
            }
            entry.session.close();
            deadline.as_mut().reset(Instant::now() + ENDING);
        }
        tokio::select! {
            changed = vital.changed() => if changed.is_err() {
                break;
            },
            () = &mut deadline, if closing || !connected => {
                if closing {
                    tracing::error!(session = id, "does not end within {} s: given up", ENDING.as_secs());
                    break;
                }
                tracing::info!(session = id, "nobody connected within {} s", limits.connect.as_secs_f64());
                closing = true;
                app.sessions.free(&entry.id);
                entry.session.close();
                deadline.as_mut().reset(Instant::now() + ENDING);
            }
            Some(event) = events.recv() => attendant.hear(event).await,
            () = attendant.tick() => attendant.tell_figures().await,
        }
    }
    app.sessions.leave(&entry.id);
    tracing::info!(session = id, "ended");
}

impl Attendant {
    async fn hear(&mut self, event: Event) {
        match event {
            Event::Channel(label) if label == CONTROL => {
                self.open = true;
                let mut first: Vec<Value> = self.state.clone().into_iter().chain(self.buffer.clone()).collect();
                first.append(&mut self.errors);
                self.send(first).await;
            }
            Event::Message { label, text } if label == CONTROL => self.message(text).await,
            // Nothing is expected on other channels.
            Event::Channel(_) | Event::Message { .. } => (),
            Event::Stream(event) => self.stream(event).await,
            Event::Connection(_) | Event::Failed(_) | Event::Ended => (),
        }
    }

    async fn stream(&mut self, event: stream::Event) {
        let id = short(&self.entry.id);
        match &event {
            stream::Event::Failed(text) => {
                counter!("comfystream_stream_errors_total").increment(1);
                tracing::warn!(session = id, "{text}");
            }
            stream::Event::Warning(text) => tracing::warn!(session = id, "{text}"),
            stream::Event::State { state, text, .. } => tracing::debug!(session = id, ?state, "{text}"),
            stream::Event::Buffer { state, fill, .. } => tracing::debug!(session = id, fill, "buffer: {state}"),
        }
        let Some(message) = control::push(&event) else { return };
        match event {
            stream::Event::State { .. } => self.state = Some(message.clone()),
            stream::Event::Buffer { .. } => self.buffer = Some(message.clone()),
            stream::Event::Failed(_) | stream::Event::Warning(_) => {
                if !self.open && self.errors.len() < KEPT {
                    self.errors.push(message.clone());
                }
            }
        }
        self.send(vec![message]).await;
    }

    async fn message(&mut self, text: String) {
        counter!("comfystream_messages_total").increment(1);
        if !self.bucket.take(clock::now()) {
            counter!("comfystream_messages_dropped_total").increment(1);
            if !std::mem::replace(&mut self.scolded, true) {
                let rate = self.app.settings.limits.message_rate;
                self.refuse(
                    "rate_limited",
                    format!("more than {rate} messages per second"),
                    "send fewer",
                )
                .await;
            }
            return;
        }
        self.scolded = false;
        let limit = self.app.settings.limits.message;
        if text.len() > limit {
            let message = format!("a message of {} bytes; {limit} are allowed", text.len());
            self.refuse(
                "message_too_large",
                message,
                "send large workflows by POST /offer or POST /prompt",
            )
            .await;
            return;
        }
        let answers = match control::read(&text) {
            Ok(request) => {
                let outcome = self.act(&request).await;
                request.answer(outcome)
            }
            Err(refusal) => refusal.answer(),
        };
        self.send(answers).await;
    }

    async fn act(&mut self, request: &Request) -> Result<Outcome, Failure> {
        match request {
            Request::Nodes => Ok(Outcome::Nodes(workflow::nodes_info(&lock(&self.entry.prompts)))),
            Request::Prompts(prompts) => {
                let change = self.app.catalog.change(prompts)?;
                self.change(change).await?;
                *lock(&self.entry.prompts) = prompts.clone();
                Ok(Outcome::Done)
            }
            Request::Resolution(width, height) => self.change(Change::size(*width, *height)).await,
            Request::Pause | Request::Resume => {
                let paused = Some(*request == Request::Pause);
                self.change(Change {
                    paused,
                    ..Change::default()
                })
                .await
            }
            Request::Stop => {
                let change = Change {
                    model: Some(None),
                    paused: Some(false),
                    ..Change::default()
                };
                self.change(change).await?;
                lock(&self.entry.prompts).clear();
                Ok(Outcome::Done)
            }
            Request::Settings(change) if *change == Change::default() => {
                Ok(Outcome::Settings(lock(&self.entry.wish).clone()))
            }
            Request::Settings(change) => self.change(change.clone()).await,
            Request::Stats(every) => {
                self.ticks = every.map(|every| {
                    let mut ticks = interval_at(Instant::now() + every, every);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    ticks
                });
                Ok(Outcome::Done)
            }
            Request::Ping(_) => Ok(Outcome::Time(clock::unix())),
        }
    }

    async fn change(&mut self, change: Change) -> Result<Outcome, Failure> {
        if self.entry.kind == Kind::Whep {
            return Err(Failure::new(
                StatusCode::FORBIDDEN,
                "only_watching",
                "who watches a stream cannot change it",
                "ask who publishes it",
            ));
        }
        self.app.change(&self.entry, change).await.map(Outcome::Settings)
    }

    /// At the next time that figures are wanted; never, while they are not.
    async fn tick(&mut self) {
        match &mut self.ticks {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => std::future::pending().await,
        }
    }

    async fn tell_figures(&mut self) {
        let entry = self.entry.clone();
        let figures = self.app.blocking(move |_| Ok(figures::session(&entry).stats)).await;
        if let Ok(figures) = figures {
            self.send(vec![json!({"type": "comfy:stats", "stats": figures})]).await;
        }
    }

    async fn refuse(&mut self, code: &'static str, message: String, hint: &str) {
        let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, code, message, hint);
        self.send(vec![control::error(&failure, false)]).await;
    }

    async fn fatal(&mut self, text: String) {
        let failure = Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "session_failed",
            text,
            "begin another session",
        );
        self.send(vec![control::error(&failure, true)]).await;
    }

    /// In order. A peer that is gone hears nothing, and needs nothing.
    async fn send(&mut self, messages: Vec<Value>) {
        if !self.open || messages.is_empty() {
            return;
        }
        let session = self.entry.session.clone();
        let sent = self.app.blocking(move |_| {
            for message in messages {
                session.send(CONTROL, &message.to_string())?;
            }
            Ok(())
        });
        if let Err(failure) = sent.await {
            tracing::debug!(session = short(&self.entry.id), "not sent: {}", failure.message);
        }
    }
}

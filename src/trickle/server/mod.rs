//! A server of channels, for any number of publishers and subscribers, over HTTP/1.1.
//!
//! What a publisher writes reaches every reader as soon as it is in, and is the same memory for all of them. Publishers
//! are never made to wait for readers: who is too slow loses its place in the window. What everything together may use
//! is bounded by [`Config`]; beyond that the answer is a status and a reason.
//!
//! ```no_run
//! # use comfy_core::trickle::server::{Config, Server};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::new(Config { autocreate: true, ..Config::default() })?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3389").await?;
//! server.serve(listener, None, std::future::pending()).await;
//! # Ok(())
//! # }
//! ```

mod answer;
mod body;
mod link;
mod local;
mod registry;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use self::answer::answer;
use self::link::{Link, Times, Wire};
use self::registry::Registry;
use super::channel;
use super::wire::{self, Token};

pub use local::{LocalError, LocalSegment};
pub use tls::{TlsError, tls};

/// What a connection reads at a time, and holds back of what it has to write.
const BUFFER: usize = 128 * 1024;

/// Headers of a request at most.
const MAX_HEADERS: usize = 64;

/// Pause after a failure to accept: of file handles, say, which come back only with time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a server does and what it refuses.
#[derive(Debug, Clone)]
pub struct Config {
    /// Path before the channels' names.
    pub base: String,
    /// Make a channel that somebody creates or publishes to. Off: only [`Server::create`] makes them.
    pub autocreate: bool,
    /// Tell in channel `_changes` which channels come and go.
    pub changefeed: bool,
    /// What each channel may use, and where the reference's defects are kept.
    pub channel: channel::Settings,
    /// Channels at a time.
    pub max_channels: usize,
    /// Bytes that all segments together may cost.
    pub max_memory: usize,
    /// Connections at a time.
    pub max_connections: usize,
    /// A channel in which nothing is written for this long is ended.
    pub idle_channel: Duration,
    /// How often to look for such channels.
    pub sweep: Duration,
    /// Time between two requests on a connection.
    pub idle_connection: Duration,
    /// Time for the head of a request, and for TLS to be agreed upon.
    pub header: Duration,
    /// Time in which a reader must take something, if there is something.
    pub stall: Duration,
    /// Time in which a publisher must send something once a segment has begun; none = as long as it likes.
    pub silence: Option<Duration>,
    /// How often a publisher that has not begun gets a sign of life.
    pub interim: Duration,
    /// Time after which a peer that confirms nothing of what was sent is gone.
    pub unanswered: Duration,
    /// Time for requests to end after the server was told to stop.
    pub drain: Duration,
    /// Who may publish, create and delete: the bearer of this.
    pub publish_token: Option<Token>,
    /// Who may read: the bearer of this.
    pub subscribe_token: Option<Token>,
    /// The origin whose pages may use the server, `*` for any; none = browsers keep them away.
    pub cors: Option<String>,
    /// Asked before channels are created and deleted over the network.
    pub hooks: Option<Arc<dyn Hooks>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base: "/".into(),
            autocreate: false,
            changefeed: false,
            channel: channel::Settings::default(),
            max_channels: 20_000,
            max_memory: 1 << 30,
            max_connections: 50_000,
            idle_channel: Duration::from_secs(300),
            sweep: Duration::from_secs(60),
            idle_connection: Duration::from_secs(600),
            header: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            silence: None,
            interim: Duration::from_secs(10),
            unanswered: Duration::from_secs(30),
            drain: Duration::from_secs(5),
            publish_token: None,
            subscribe_token: None,
            cors: None,
            hooks: None,
        }
    }
}

/// Asked before channels are created with `POST {channel}` and deleted with `DELETE {channel}`; not when a segment
/// creates its channel.
pub trait Hooks: fmt::Debug + Send + Sync {
    /// May this channel be created?
    fn before_create(&self, name: &str, mime: &str) -> Result<(), Denied>;
    /// May this channel be deleted?
    fn before_delete(&self, name: &str) -> Result<(), Denied>;
}

/// Why a hook refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// With this status, 400 to 499; anything else becomes 400.
    Status(u16, String),
    /// Something is wrong on our side.
    Failed(String),
}

/// Why a server refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The name cannot be a channel's.
    #[error(
        "not a channel's name: 1 to {} bytes of UTF-8 without control characters",
        wire::MAX_NAME
    )]
    BadChannel,
    /// The type cannot be a channel's.
    #[error("not a channel's type: at most {} bytes", wire::MAX_MIME)]
    BadType,
    /// There are as many channels as there may be.
    #[error("the server has {0} channels already, which is all it may; delete one first")]
    Channels(usize),
    /// The server has been told to stop.
    #[error("the server is stopping")]
    Stopped,
    /// A hook says no.
    #[error("refused: {}", match .0 { Denied::Status(_, text) | Denied::Failed(text) => text })]
    Denied(Denied),
}

/// The base path cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no base path: expected something like / or /ai/trickle/, without ? # and spaces")]
pub struct BadBase(String);

/// What there is to know of a channel.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// Its name.
    pub name: String,
    /// Its MIME type.
    pub mime: String,
    /// Since it was created.
    pub age: Duration,
    /// Since something was written.
    pub idle: Duration,
    /// Bytes written per second, of late.
    pub rate_in: f64,
    /// Bytes read per second, of late, by all readers.
    pub rate_out: f64,
    /// Counters and gauges.
    pub stats: channel::Stats,
}

/// What there is to know of a server.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Totals {
    /// Since it was made.
    pub uptime: Duration,
    /// Channels now.
    pub channels: usize,
    /// Connections now.
    pub connections: usize,
    /// Readers now, waiting ones included.
    pub readers: usize,
    /// Writers now, waiting ones included.
    pub writers: usize,
    /// Bytes that segments cost now.
    pub memory: usize,
    /// Connections so far.
    pub accepted: u64,
    /// Channels created so far.
    pub created: u64,
    /// Channels ended so far because nothing was written.
    pub swept: u64,
    /// Bytes written so far.
    pub bytes_in: u64,
    /// Bytes read so far.
    pub bytes_out: u64,
    /// Segments begun so far.
    pub segments: u64,
    /// Answers so far, by method and status.
    pub answers: BTreeMap<(&'static str, u16), u64>,
}

/// A server. Clones are the same server.
#[derive(Debug, Clone)]
pub struct Server {
    registry: Arc<Registry>,
}

impl Server {
    /// A server that serves nobody yet. Works inside a tokio runtime with time enabled.
    pub fn new(config: Config) -> Result<Self, BadBase> {
        let base = wire::base(&config.base).ok_or_else(|| BadBase(config.base.clone()))?;
        Ok(Self {
            registry: Arc::new(Registry::new(config, base)),
        })
    }

    /// Serves who connects, with TLS if it is given, until `stop` is there. Then ends all channels, lets the requests
    /// that are going on end, and returns at the latest after [`Config::drain`].
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        stop: impl Future<Output = ()>,
    ) {
        let acceptor = tls.map(TlsAcceptor::from);
        self.registry.open();
        let (ending, end) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        let mut sweeping = pin!(self.keep_house());
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = &mut sweeping => (),
                Some(_) = connections.join_next() => (),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        if let Some(stream) = self.admit(stream) {
                            let (registry, acceptor, end) = (self.registry.clone(), acceptor.clone(), end.clone());
                            connections.spawn(connection(registry, stream, acceptor, end));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        self.registry.close();
        let _ = ending.send(true);
        let deadline = Instant::now() + self.registry.config.drain;
        while let Ok(Some(_)) = timeout_at(deadline, connections.join_next()).await {}
        if !connections.is_empty() {
            tracing::warn!(connections = connections.len(), "cut off: they did not end in time");
        }
        connections.shutdown().await;
    }

    /// Serves one connection that no listener has accepted: what a fuzz target says.
    #[cfg(fuzzing)]
    pub async fn attend<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (_ending, end) = watch::channel(false);
        requests(self.registry.clone(), stream, end).await;
    }

    /// The path before the channels' names, with a slash at each end.
    pub fn base(&self) -> &str {
        &self.registry.base
    }

    /// Creates a channel. One that exists stays as it is.
    pub fn create(&self, name: &str, mime: &str) -> Result<(), Refusal> {
        self.registry.create(name, mime, false).map(drop)
    }

    /// Ends a channel. False if there is none.
    pub fn delete(&self, name: &str) -> bool {
        self.registry.delete(name, false).unwrap_or(false)
    }

    /// All channels, by name.
    pub fn channels(&self) -> Vec<ChannelInfo> {
        self.registry.infos()
    }

    /// Counters and gauges.
    pub fn totals(&self) -> Totals {
        self.registry.totals()
    }

    /// Ends channels that are idle, and segments whose publishers do not come back.
    async fn keep_house(&self) {
        let config = &self.registry.config;
        let grace = config.channel.dialect.abort_grace.unwrap_or(config.sweep);
        let often = (grace / 10).clamp(Duration::from_millis(10), Duration::from_secs(1));
        loop {
            sleep(often.min(config.sweep)).await;
            self.registry.sweep();
        }
    }

    fn admit(&self, stream: TcpStream) -> Option<TcpStream> {
        let config = &self.registry.config;
        let counters = &self.registry.counters;
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        if counters.connections.load(Ordering::Relaxed) >= config.max_connections {
            tracing::warn!(
                limit = config.max_connections,
                "a connection was refused: there are too many"
            );
            // Who speaks TLS will not understand it, and there is nothing to be done about that.
            let text = "too many connections\n";
            let head = format!(
                "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            let _ = stream.try_write(head.as_bytes());
            return None;
        }
        if let Err(error) = super::socket::prepare(&stream, config.unanswered) {
            tracing::debug!(%error, "a connection broke before it began");
            return None;
        }
        counters.connections.fetch_add(1, Ordering::Relaxed);
        Some(stream)
    }
}

/// One connection counts until this is dropped.
struct Counted(Arc<Registry>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(
    registry: Arc<Registry>,
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    end: watch::Receiver<bool>,
) {
    let _counted = Counted(registry.clone());
    match acceptor {
        None => requests(registry, stream, end).await,
        Some(acceptor) => match timeout(registry.config.header, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => requests(registry, stream, end).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
            Err(_) => tracing::debug!("no TLS in time"),
        },
    }
}

async fn requests<S>(registry: Arc<Registry>, stream: S, mut end: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = &registry.config;
    let times = Times {
        idle: config.idle_connection,
        header: config.header,
        stall: config.stall,
    };
    let link = Link::new();
    let wire = TokioIo::new(Wire::new(stream, link.clone(), times));
    let service = service_fn(|request: Request<Incoming>| {
        // Before anything more is read.
        let busy = link.busy(request.body().is_end_stream());
        Box::pin(answer(&registry, &link, busy, request))
    });
    let mut connection = http1::Builder::new()
        // A publisher that closes behind its last byte has published all of it. Who waits for an answer and goes is
        // noticed by the wire.
        .half_close(true)
        .max_buf_size(BUFFER)
        .max_headers(MAX_HEADERS)
        .title_case_headers(true)
        .serve_connection(wire, service);
    let mut ending = false;
    loop {
        let going = poll_fn(|cx| connection.poll_without_shutdown(cx));
        tokio::select! {
            result = going => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                }
                break;
            }
            changed = end.changed(), if !ending => {
                ending = true;
                if changed.is_ok() {
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    }
    connection.into_parts().io.into_inner().close().await;
}

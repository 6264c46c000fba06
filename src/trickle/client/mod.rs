//! Clients: publish and subscribe over HTTP/1.1, on tokio.
//!
//! A [`Client`] is cheap to clone; all clones share their connections. It works inside a tokio runtime with I/O and time
//! enabled, and never starts one.
//!
//! Publishing and subscribing each come in two halves. One is a task to be spawned on the runtime; the other is for
//! a thread of the caller, which is never made to wait longer than it says:
//!
//! ```no_run
//! # use comfy_core::trickle::{client::*, publisher, subscriber, wire::ChannelUrl};
//! # async fn example(piece: bytes::Bytes) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(Config::default())?;
//! let url: ChannelUrl = "trickle://localhost:3389/cam".parse()?;
//!
//! let (feed, task) = client.publish(&url, PublishSettings::default(), |_event| ());
//! tokio::spawn(task.run());
//! if feed.begin() == Begin::Begun {
//!     let _ = feed.write(piece); // on its way at once, before the segment ends
//!     feed.end();
//! }
//! feed.finish(); // the task ends when every answer is in
//!
//! let (inbox, task) = client.subscribe(vec![url], SubscribeSettings::default());
//! tokio::spawn(task.run());
//! loop {
//!     match inbox.wait(None) {
//!         Next::Arrival(Arrival::Segment { seq, .. }) => println!("segment {seq}"),
//!         Next::Arrival(Arrival::Bytes(bytes)) => println!("{} bytes", bytes.len()),
//!         Next::Arrival(Arrival::End { .. }) => (),
//!         Next::Interrupted | Next::TimedOut => (),
//!         Next::Over(why) => break println!("{why:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! To stop at once, drop or abort the task: its connections close, and the other half is told.

mod feed;
mod inbox;
mod line;
mod publish;
mod subscribe;
mod tls;
mod upload;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use tokio::time::timeout;

use self::line::{Line, Pool};
use self::upload::{Outgoing, Upload};
use super::publisher::Sent;
use super::wire::{Answer, ChannelUrl, Token, header, status};

pub use feed::{Begin, Event, Feed, Write};
pub use inbox::{Arrival, Inbox, Next};
pub use publish::{PublishSettings, PublishTask, Published};
pub use subscribe::{SubscribeSettings, SubscribeTask, Subscribed};

/// The longest text of a refusal that is kept.
const MAX_TEXT: usize = 1024;

/// How a [`Client`] connects.
#[derive(Debug, Clone)]
pub struct Config {
    /// Sent as `Authorization: Bearer`.
    pub token: Option<Token>,
    /// Trust any certificate.
    pub insecure: bool,
    /// A PEM file of certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// Time for a connection to be opened, TLS included.
    pub connect: Duration,
    /// Time for an answer to what is answered at once: create, delete, next.
    pub answer: Duration,
    /// Time after which a peer that confirms nothing of what was sent is gone.
    pub unanswered: Duration,
    /// Time that an unused connection is kept.
    pub idle: Duration,
    /// Unused connections kept per server.
    pub max_idle: usize,
    /// Sent as `User-Agent`.
    pub user_agent: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            token: None,
            insecure: false,
            ca: None,
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            unanswered: Duration::from_secs(20),
            idle: Duration::from_secs(60),
            max_idle: 4,
            user_agent: concat!("gst-comfy/", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}

/// Why a request has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting cannot be used; nothing was sent.
    #[error("{0}")]
    Setup(String),
    /// Nobody answers at the address.
    #[error("cannot connect to {address}: {source}; is the server running there?")]
    Connect {
        /// Host and port.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody answers who cannot be trusted, or who does not speak TLS.
    #[error(
        "no secure connection to {address}: {source}; name the authority of its certificate, or switch the check off \
         if you know whom you talk to"
    )]
    Tls {
        /// Host and port.
        address: String,
        /// What TLS says.
        source: io::Error,
    },
    /// The connection broke before there was an answer.
    #[error("{url}: the connection broke: {text}")]
    Broken {
        /// The channel.
        url: String,
        /// What HTTP says.
        text: String,
    },
    /// No answer within [`Config::answer`].
    #[error("{url}: no answer within {time:?}")]
    Slow {
        /// The channel.
        url: String,
        /// How long was waited.
        time: Duration,
    },
    /// The server refuses.
    #[error("{url}: the server answers {status}: {text}{}", advice(*status))]
    Refused {
        /// The channel.
        url: String,
        /// The status code.
        status: u16,
        /// What the server says.
        text: String,
    },
}

impl Error {
    fn broken(url: &ChannelUrl, source: hyper::Error) -> Self {
        // The part that says something is the innermost.
        let mut text = source.to_string();
        let mut inner: Option<&dyn std::error::Error> = std::error::Error::source(&source);
        while let Some(error) = inner {
            text = format!("{text}: {error}");
            inner = error.source();
        }
        Self::Broken {
            url: url.to_string(),
            text,
        }
    }
}

fn advice(status: u16) -> &'static str {
    match status {
        401 | 403 => "; check the token",
        404 => "; create the channel, or let the server create channels by itself",
        _ => "",
    }
}

/// Talks to servers. See the [module](self).
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    authorization: Option<HeaderValue>,
    user_agent: HeaderValue,
    tls: Arc<rustls::ClientConfig>,
    pool: Pool,
}

/// An answer whose head has come.
#[derive(Debug)]
struct Answered {
    head: Answer,
    body: Incoming,
    line: Line,
}

impl Client {
    /// A client without connections. Reads the certificate file, if there is one.
    pub fn new(config: Config) -> Result<Self, Error> {
        let bad = |what: &str| Error::Setup(format!("the {what} has characters that no HTTP header may have"));
        let authorization = match &config.token {
            Some(token) => {
                let mut value =
                    HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(|_| bad("token"))?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let user_agent = HeaderValue::from_str(&config.user_agent).map_err(|_| bad("user agent"))?;
        let tls = tls::config(config.insecure, config.ca.as_deref())?;
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                authorization,
                user_agent,
                tls,
                pool: Pool::default(),
            }),
        })
    }

    /// Creates a channel of this MIME type. One that exists stays as it is.
    pub async fn create(&self, url: &ChannelUrl, mime: &str) -> Result<(), Error> {
        let value = HeaderValue::from_str(mime).map_err(|_| {
            Error::Setup(format!(
                "{mime:?} is no MIME type: no HTTP header may have such characters"
            ))
        })?;
        let request = |builder: hyper::http::request::Builder| builder.header(header::EXPECT_CONTENT, value.clone());
        self.simple(Method::POST, url, url.path(), request).await.map(drop)
    }

    /// Ends a channel.
    pub async fn delete(&self, url: &ChannelUrl) -> Result<(), Error> {
        self.simple(Method::DELETE, url, url.path(), |request| request)
            .await
            .map(drop)
    }

    /// Ends a segment.
    pub async fn delete_segment(&self, url: &ChannelUrl, seq: u64) -> Result<(), Error> {
        let path = url.segment(super::wire::Wanted::Number(seq));
        self.simple(Method::DELETE, url, &path, |request| request)
            .await
            .map(drop)
    }

    /// Next-write: the number of the segment that has not begun. Servers of an older dialect refuse to tell.
    pub async fn next(&self, url: &ChannelUrl) -> Result<u64, Error> {
        let (answer, text) = self.simple(Method::GET, url, &url.next(), |request| request).await?;
        answer.latest.ok_or_else(|| Error::Refused {
            url: url.to_string(),
            status: answer.status,
            text: format!("{text:?}, without the number of the next segment"),
        })
    }

    /// Uses this connection as if it had been opened to that server: what a fuzz target answers on.
    #[cfg(fuzzing)]
    pub async fn supply<S>(&self, url: &ChannelUrl, stream: S) -> Result<(), Error>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let line = line::handshake(hyper_util::rt::TokioIo::new(stream), url).await?;
        self.inner.pool.give(line, &self.inner.config);
        Ok(())
    }

    /// A request that is answered at once, with a short text.
    async fn simple(
        &self,
        method: Method,
        url: &ChannelUrl,
        path: &str,
        with: impl Fn(hyper::http::request::Builder) -> hyper::http::request::Builder,
    ) -> Result<(Answer, String), Error> {
        let time = self.inner.config.answer;
        let asking = async {
            let answered = self.send(&method, url, path, None, &with).await?;
            let status = answered.head.status;
            let (head, text) = self.text(answered).await;
            match status {
                status::OK => Ok((head, text)),
                status => Err(Error::Refused {
                    url: url.to_string(),
                    status,
                    text,
                }),
            }
        };
        timeout(time, asking).await.unwrap_or_else(|_| {
            Err(Error::Slow {
                url: url.to_string(),
                time,
            })
        })
    }

    /// Reads an answer's short text to its end, and keeps the connection.
    async fn text(&self, answered: Answered) -> (Answer, String) {
        let Answered { head, body, mut line } = answered;
        let Ok(bytes) = Limited::new(body, MAX_TEXT).collect().await else {
            return (head, String::new());
        };
        // Else the next request, which may follow at once, would find it at work still.
        if line.ready().await {
            self.inner.pool.give(line, &self.inner.config);
        }
        let text = String::from_utf8_lossy(&bytes.to_bytes()).trim().to_owned();
        (head, text)
    }

    /// Sends a request, on a connection that is open already if there is one, and waits for the head of the answer.
    async fn send(
        &self,
        method: &Method,
        url: &ChannelUrl,
        path: &str,
        upload: Option<&Arc<Upload>>,
        with: &impl Fn(hyper::http::request::Builder) -> hyper::http::request::Builder,
    ) -> Result<Answered, Error> {
        let inner = &*self.inner;
        loop {
            let mut line = match inner.pool.take(url, &inner.config) {
                Some(line) => line,
                None => line::connect(url, &inner.config, &inner.tls).await?,
            };
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header(HOST, url.authority())
                .header(USER_AGENT, &inner.user_agent);
            if let Some(value) = &inner.authorization {
                request = request.header(AUTHORIZATION, value);
            }
            let body = upload.map_or_else(Outgoing::none, Upload::body);
            let request = with(request)
                .body(body)
                .map_err(|error| Error::Setup(format!("{url}: {error}")))?;
            match line.send(request).await {
                Ok(response) => {
                    return Ok(Answered {
                        head: read_head(&response),
                        body: response.into_body(),
                        line,
                    });
                }
                // The server may have closed it while it was idle, which is no failure.
                Err(_) if line.reused && upload.is_none_or(|upload| upload.sent() == Sent::Nothing) => (),
                Err(error) => return Err(Error::broken(url, error)),
            }
        }
    }
}

fn read_head(response: &Response<Incoming>) -> Answer {
    let mut answer = Answer::bare(response.status().as_u16());
    let ours = [
        header::SEQ,
        header::LATEST,
        header::CLOSED,
        CONTENT_TYPE.as_str(),
        "content-length",
    ];
    for name in ours {
        if let Some(value) = response.headers().get(name) {
            answer.header(name, value.to_str().unwrap_or_default());
        }
    }
    answer
}

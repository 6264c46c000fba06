//! Connections to servers, kept while they are of use.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::upload::Outgoing;
use super::{Config, Error};
use crate::trickle::socket::prepare;
use crate::trickle::wire::ChannelUrl;

/// What a connection reads at a time, and holds back of what it has to write.
const BUFFER: usize = 128 * 1024;

/// Headers of an answer at most. Their bytes are bounded by the buffer.
const MAX_HEADERS: usize = 64;

/// One connection, with one request on it at a time. Closed when dropped, whatever is going on.
#[derive(Debug)]
pub(super) struct Line {
    sender: SendRequest<Outgoing>,
    task: AbortHandle,
    key: Key,
    pub(super) reused: bool,
}

type Key = (bool, String, u16);

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    pub(super) async fn send(&mut self, request: hyper::Request<Outgoing>) -> hyper::Result<Response<Incoming>> {
        self.sender.send_request(request).await
    }

    /// Waits until another request can be sent. False if none can.
    pub(super) async fn ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }
}

/// Connections that nothing is going on on.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<HashMap<Key, Vec<(Instant, Line)>>>,
}

impl Pool {
    /// One that is open still, as far as we know.
    pub(super) fn take(&self, url: &ChannelUrl, config: &Config) -> Option<Line> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = idle.get_mut(&key(url))?;
        let now = Instant::now();
        lines.retain(|(since, line)| now - *since < config.idle && !line.sender.is_closed());
        // The one used last is the likeliest to be open.
        let index = lines.iter().rposition(|(_, line)| line.sender.is_ready())?;
        let (_, mut line) = lines.remove(index);
        line.reused = true;
        Some(line)
    }

    /// Keeps one whose answer was read to its end.
    pub(super) fn give(&self, line: Line, config: &Config) {
        if line.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = idle.entry(line.key.clone()).or_default();
        lines.push((Instant::now(), line));
        let too_many = lines.len().saturating_sub(config.max_idle);
        let old: Vec<_> = lines.drain(..too_many).collect();
        drop(idle);
        drop(old);
    }
}

fn key(url: &ChannelUrl) -> Key {
    (url.tls(), url.host().to_owned(), url.port())
}

/// Opens a connection.
pub(super) async fn connect(url: &ChannelUrl, config: &Config, tls: &Arc<rustls::ClientConfig>) -> Result<Line, Error> {
    let address = format!("{}:{}", url.host(), url.port());
    let refused = |source: io::Error| Error::Connect {
        address: address.clone(),
        source,
    };
    let opening = async {
        let host = url.server_name();
        let stream = TcpStream::connect((host, url.port())).await.map_err(refused)?;
        prepare(&stream, config.unanswered).map_err(refused)?;
        if !url.tls() {
            return handshake(TokioIo::new(stream), url).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|error| Error::Tls {
            address: address.clone(),
            source: io::Error::other(error),
        })?;
        let connector = TlsConnector::from(tls.clone());
        let stream = connector.connect(name, stream).await.map_err(|source| Error::Tls {
            address: address.clone(),
            source,
        })?;
        handshake(TokioIo::new(stream), url).await
    };
    timeout(config.connect, opening).await.unwrap_or_else(|_| {
        Err(refused(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no connection within {:?}", config.connect),
        )))
    })
}

pub(super) async fn handshake<T: Read + Write + Unpin + Send + 'static>(
    io: T,
    url: &ChannelUrl,
) -> Result<Line, Error> {
    let (sender, connection) = Builder::new()
        .max_buf_size(BUFFER)
        .max_headers(MAX_HEADERS)
        .handshake(io)
        .await
        .map_err(|source| Error::broken(url, source))?;
    // Its error is that of the request, too.
    let task = tokio::spawn(async move { drop(connection.await) });
    Ok(Line {
        sender,
        task: task.abort_handle(),
        key: key(url),
        reused: false,
    })
}

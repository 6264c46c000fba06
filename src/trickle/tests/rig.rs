//! A server on a port of its own, and a peer that says exactly what it is told to.

use std::collections::HashMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::trickle::server::{Config, Server};
use crate::trickle::wire::ChannelUrl;

/// Longer than anything takes, also on a busy machine.
pub(super) const LONG: Duration = Duration::from_secs(20);

/// What is waited for, or a failure.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LONG, what).await.expect("it takes too long")
}

/// Waits until something is so.
pub(super) async fn until(what: &str, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, waiting)
        .await
        .unwrap_or_else(|_| panic!("not so: {what}"));
}

pub(super) struct Rig {
    pub(super) server: Server,
    pub(super) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::with(Config {
            autocreate: true,
            ..Config::default()
        })
        .await
    }

    pub(super) async fn with(config: Config) -> Self {
        Self::at("127.0.0.1:0", config, None).await
    }

    pub(super) async fn at(address: &str, config: Config, tls: Option<std::sync::Arc<rustls::ServerConfig>>) -> Self {
        let server = Server::new(config).expect("a base path");
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let running = server.clone();
        let task = tokio::spawn(async move {
            running.serve(listener, tls, async { drop(stopped.await) }).await;
        });
        Self {
            server,
            address,
            stop: Some(stop),
            task,
        }
    }

    /// Tells the server to stop.
    pub(super) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until it has.
    pub(super) async fn stopped(mut self) {
        self.stop();
        soon(&mut self.task).await.expect("the server does not panic");
    }

    /// Cuts everything off, in the middle of whatever it is doing.
    pub(super) async fn kill(mut self) {
        self.task.abort();
        let _ = soon(&mut self.task).await;
    }

    pub(super) fn url(&self, name: &str) -> ChannelUrl {
        format!("http://{}/{name}", self.address).parse().expect("an address")
    }

    pub(super) async fn connect(&self) -> Peer<TcpStream> {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        Peer {
            stream: BufReader::new(stream),
        }
    }

    /// A request without a body, on a connection of its own.
    pub(super) async fn ask(&self, method: &str, path: &str) -> (Head, String) {
        let mut peer = self.connect().await;
        peer.ask(method, path).await;
        let head = peer.head().await;
        let body = match method {
            "HEAD" => String::new(),
            _ if head.status == 204 => String::new(),
            _ => peer.body(&head).await,
        };
        (head, body)
    }

    pub(super) async fn get(&self, path: &str) -> (Head, String) {
        self.ask("GET", path).await
    }

    /// A whole segment.
    pub(super) async fn post(&self, path: &str, text: &str) -> Head {
        let mut peer = self.connect().await;
        peer.post(path, "").await;
        peer.chunk_out(text).await;
        peer.end_out().await;
        peer.head().await
    }

    /// Readers and writers of a channel.
    pub(super) fn crowd(&self, name: &str) -> (usize, usize) {
        let channels = self.server.channels();
        let found = channels.iter().find(|channel| channel.name == name);
        found.map_or((0, 0), |channel| (channel.stats.readers, channel.stats.writers))
    }

    pub(super) async fn crowded(&self, name: &str, crowd: (usize, usize)) {
        until("so many readers and writers", || self.crowd(name) == crowd).await;
    }
}

/// The head of an answer, as it came.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) reason: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) raw: String,
}

impl Head {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(super) fn seq(&self) -> Option<&str> {
        self.header("lp-trickle-seq")
    }

    pub(super) fn latest(&self) -> Option<&str> {
        self.header("lp-trickle-latest")
    }

    pub(super) fn closed(&self) -> bool {
        self.header("lp-trickle-closed") == Some("terminated")
    }

    pub(super) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

pub(super) struct Peer<S> {
    pub(super) stream: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(super) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("it is taken");
        self.stream.flush().await.expect("it is taken");
    }

    pub(super) async fn ask(&mut self, method: &str, path: &str) {
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    }

    /// The head of a segment.
    pub(super) async fn post(&mut self, path: &str, headers: &str) {
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{headers}\r\n"
        ))
        .await;
    }

    pub(super) async fn chunk_out(&mut self, text: &str) {
        self.send(&format!("{:x}\r\n{text}\r\n", text.len())).await;
    }

    pub(super) async fn end_out(&mut self) {
        self.send("0\r\n\r\n").await;
    }

    /// The head of a request.
    pub(super) async fn request(&mut self) -> String {
        let mut raw = String::new();
        soon(async {
            while !raw.ends_with("\r\n\r\n") {
                let read = self.stream.read_line(&mut raw).await.expect("a request");
                assert_ne!(read, 0, "the connection ended: {raw:?}");
            }
        })
        .await;
        raw
    }

    /// The head of the next answer, signs of life included.
    pub(super) async fn any_head(&mut self) -> Head {
        let mut raw = String::new();
        soon(async {
            while !raw.ends_with("\r\n\r\n") {
                let read = self.stream.read_line(&mut raw).await.expect("an answer");
                assert_ne!(read, 0, "the connection ended: {raw:?}");
            }
        })
        .await;
        let mut lines = raw.lines();
        let mut first = lines.next().unwrap_or_default().splitn(3, ' ').skip(1);
        let status = first.next().and_then(|code| code.parse().ok()).expect("a status");
        let reason = first.next().unwrap_or_default().to_owned();
        let pairs = lines.filter_map(|line| line.split_once(':'));
        let headers = pairs
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Head {
            status,
            reason,
            headers,
            raw,
        }
    }

    pub(super) async fn head(&mut self) -> Head {
        loop {
            let head = self.any_head().await;
            if head.status != 100 {
                return head;
            }
        }
    }

    /// The next piece of a chunked body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        soon(self.stream.read_line(&mut size)).await.expect("a chunk");
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or_else(|_| panic!("no size: {size:?}"));
        let mut bytes = vec![0; size + 2];
        soon(self.stream.read_exact(&mut bytes)).await.expect("a whole chunk");
        bytes.truncate(size);
        (size > 0).then(|| String::from_utf8(bytes).expect("text"))
    }

    pub(super) async fn body(&mut self, head: &Head) -> String {
        let mut all = String::new();
        match head.header("content-length") {
            Some(size) => {
                let mut bytes = vec![0; size.parse().expect("a number")];
                soon(self.stream.read_exact(&mut bytes)).await.expect("a whole body");
                all = String::from_utf8(bytes).expect("text");
            }
            None => {
                while let Some(chunk) = self.chunk().await {
                    all.push_str(&chunk);
                }
            }
        }
        all
    }

    /// True once the other side has closed.
    pub(super) async fn ended(&mut self) -> bool {
        let mut scrap = [0; 64];
        matches!(soon(self.stream.read(&mut scrap)).await, Ok(0) | Err(_))
    }
}

//! A trickle server on a port of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use comfy_core::trickle::server::{Config, Server, tls};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::temp::Temp;

const ANY_PORT: &str = "127.0.0.1:0";

/// A certificate for "localhost" that nobody vouches for, in files.
pub struct Certificate {
    folder: Temp,
}

impl Certificate {
    /// A new one.
    #[allow(clippy::new_without_default, reason = "writing files is not a default")]
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let folder = Temp::new();
        folder.file("cert.pem", made.cert.pem());
        folder.file("key.pem", made.signing_key.serialize_pem());
        Self { folder }
    }

    /// `cert.pem` or `key.pem`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A server that runs until it is killed or dropped.
pub struct Relay {
    /// For a look at what it holds, and to publish from inside.
    pub server: Server,
    /// Where it listens.
    pub address: SocketAddr,
    runtime: Runtime,
    task: Option<JoinHandle<()>>,
}

impl Relay {
    /// One that creates channels for whoever publishes.
    #[allow(clippy::new_without_default, reason = "starting a server is not a default")]
    pub fn new() -> Self {
        Self::with(Config {
            autocreate: true,
            ..Config::default()
        })
    }

    /// One with these settings.
    pub fn with(config: Config) -> Self {
        Self::at(ANY_PORT.parse().expect("an address"), config)
    }

    /// One at an address where another one was.
    pub fn at(address: SocketAddr, config: Config) -> Self {
        Self::start(address, config, None)
    }

    /// One that shows this certificate.
    pub fn secure(certificate: &Certificate) -> Self {
        let shown = tls(&certificate.file("cert.pem"), &certificate.file("key.pem")).expect("a certificate");
        let config = Config {
            autocreate: true,
            ..Config::default()
        };
        Self::start(ANY_PORT.parse().expect("an address"), config, Some(shown))
    }

    fn start(address: SocketAddr, config: Config, certificate: Option<Arc<rustls::ServerConfig>>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads");
        let (server, address, task) = runtime.block_on(async {
            let server = Server::new(config).expect("a base path");
            let listener = TcpListener::bind(address).await.expect("the port is free");
            let address = listener.local_addr().expect("it listens");
            let running = server.clone();
            let task = tokio::spawn(async move { running.serve(listener, certificate, std::future::pending()).await });
            (server, address, task)
        });
        Self {
            server,
            address,
            runtime,
            task: Some(task),
        }
    }

    /// The address of a channel.
    pub fn url(&self, channel: &str) -> String {
        format!("trickle://{}/{channel}", self.address)
    }

    /// Publishes a segment from inside, in one piece.
    pub fn publish(&self, channel: &str, mime: &str, bytes: impl Into<bytes::Bytes>) {
        let _context = self.runtime.enter();
        let mut segment = self.server.begin(channel, mime, None).expect("there is room");
        segment.write(bytes.into()).expect("there is room");
        segment.finish();
    }

    /// Waits until something is so that the network brings about.
    pub fn until(&self, so: impl Fn() -> bool) {
        self.runtime.block_on(async {
            let waiting = async {
                while !so() {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            };
            let waited = tokio::time::timeout(crate::DEADLINE, waiting).await;
            waited.expect("it does not come about");
        });
    }

    /// Cuts everything off, in the middle of whatever it is doing. Gives the address, which is free then.
    pub fn kill(mut self) -> SocketAddr {
        if let Some(task) = self.task.take() {
            task.abort();
            // Aborted: there is nothing to learn from it.
            let _ = self.runtime.block_on(task);
        }
        self.address
    }
}

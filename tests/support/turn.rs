//! A TURN server, on an address of this machine.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use turn::auth::LongTermAuthHandler;
use turn::relay::relay_static::RelayAddressGeneratorStatic;
use turn::server::Server;
use turn::server::config::{ConnConfig, ServerConfig};
use webrtc_util::vnet::net::Net;

/// Relays for who knows a password made from its secret, until it is dropped.
pub struct Turn {
    runtime: Runtime,
    server: Server,
    /// `turn:HOST:PORT`.
    pub url: String,
}

impl Turn {
    /// Listens on a free port.
    pub fn start(secret: &str) -> Self {
        let host = own_address();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (server, url) = runtime.block_on(async {
            let socket = tokio::net::UdpSocket::bind((host, 0)).await.expect("a socket");
            let url = format!("turn:{}", socket.local_addr().expect("it is bound"));
            let config = ServerConfig {
                conn_configs: vec![ConnConfig {
                    conn: Arc::new(socket),
                    relay_addr_generator: Box::new(RelayAddressGeneratorStatic {
                        relay_address: host,
                        address: host.to_string(),
                        net: Arc::new(Net::new(None)),
                    }),
                }],
                realm: "test".into(),
                auth_handler: Arc::new(LongTermAuthHandler::new(secret.into())),
                channel_bind_timeout: Duration::ZERO,
                alloc_close_notify: None,
            };
            (Server::new(config).await.expect("a server"), url)
        });
        Self { runtime, server, url }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Its sockets are closed with the runtime in any case.
        let _ = self.runtime.block_on(self.server.close());
    }
}

/// One of this machine's addresses that others could reach it at.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // Nothing is sent: this asks which address would be.
    let known = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    known.map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip())
}

//! The server, the clients and the elements against programs of others: pytrickle, curl and ffmpeg.
//!
//! A publisher that is faster than a reader pushes it out of the window, which is the protocol. Where nothing may be
//! lost, a segment begins when the reader has read what was before.

mod curl;
mod media;
mod pytrickle;

use std::time::Duration;

use comfy_core::trickle::{channel, server};
use comfy_tests::Relay;

const TS: &str = "video/MP2T";

/// The address of a channel for those who know no trickle://.
fn http(relay: &Relay, channel: &str) -> String {
    format!("http://{}/{channel}", relay.address)
}

/// A relay that ends segments soon after their publisher has gone.
fn impatient() -> Relay {
    Relay::with(server::Config {
        autocreate: true,
        channel: channel::Settings {
            dialect: channel::Dialect {
                abort_grace: Some(Duration::from_millis(500)),
                ..Default::default()
            },
            ..Default::default()
        },
        ..Default::default()
    })
}

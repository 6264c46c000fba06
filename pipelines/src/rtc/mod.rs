//! Peers: one webrtcbin each, that answers an offer.

pub(crate) mod connection;
pub(crate) mod fragment;
pub mod offer;

use std::net::IpAddr;
use std::time::Duration;

use crate::codec::{Codec, NoCodec};

/// How peers are reached, and how fast they are sent to.
#[derive(Debug, Clone)]
pub struct Config {
    /// STUN servers: `stun:host:port`.
    pub stun: Vec<String>,
    /// TURN servers, with credentials of this moment.
    pub turn: Vec<Turn>,
    /// UDP ports for media, first and last; None: any.
    pub ports: Option<(u16, u16)>,
    /// The only address that is offered to peers; None: all of this machine.
    pub address: Option<IpAddr>,
    /// Whether peers may connect over TCP, too.
    pub tcp: bool,
    /// How long packets wait for one that is missing: the time in which it may be sent again. What comes in order
    /// does not wait.
    pub jitter: Duration,
    /// Whether receivers may hold pictures for even motion, as long as they find good. They are asked to show each at
    /// once otherwise.
    pub smooth: bool,
    /// Bits per second that video is sent at: least, first, most.
    pub bitrate: Bitrate,
    /// Formats that are taken, the best liked first.
    pub codecs: Vec<Codec>,
    /// How long an answer waits for addresses to be found.
    pub gathering: Duration,
    /// A peer of which nothing is heard for so long has gone.
    pub silence: Duration,
}

/// Bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bitrate {
    /// Never less.
    pub min: u32,
    /// Before anything was measured.
    pub start: u32,
    /// Never more.
    pub max: u32,
}

/// A TURN server.
#[derive(Clone, PartialEq, Eq)]
pub struct Turn {
    /// `turn:host:port` or `turns:host:port`, with `?transport=tcp` if so wanted.
    pub url: String,
    /// Who we are to it.
    pub username: String,
    /// And how it can tell.
    pub credential: String,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn")
            .field("url", &self.url)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stun: Vec::new(),
            turn: Vec::new(),
            ports: None,
            address: None,
            tcp: false,
            jitter: Duration::from_millis(40),
            smooth: false,
            bitrate: Bitrate {
                min: 100_000,
                start: 2_000_000,
                max: 8_000_000,
            },
            codecs: vec![Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1, Codec::H265],
            gathering: Duration::from_secs(2),
            silence: Duration::from_secs(15),
        }
    }
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Nothing has been heard of the peer.
    Connecting,
    /// Media flows.
    Connected,
    /// Nothing is heard of it any more; that may pass.
    Disconnected,
    /// It has gone, or was never reached.
    Closed,
}

/// Why there is no connection, or no longer what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The offer is no session description.
    #[error("the offer is not understood: {0}; it must be the SDP that RTCPeerConnection.createOffer made")]
    Offer(String),
    /// It can be read and not be answered.
    #[error("the offer cannot be answered: {0}")]
    Unfit(String),
    /// Nothing that is offered can be decoded or encoded here.
    #[error("none of the video formats offered ({offered}) works here: {}", .why.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NoCodec {
        /// Their names.
        offered: String,
        /// What is missing for each.
        why: Vec<NoCodec>,
    },
    /// webrtcbin refuses.
    #[error("{step} failed: {why}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// What it says.
        why: String,
    },
    /// It did not answer.
    #[error("{step} took longer than {} s", after.as_secs_f64())]
    Late {
        /// What was waited for.
        step: &'static str,
        /// How long.
        after: Duration,
    },
    /// An ICE candidate, or a fragment of SDP with several, is not understood.
    #[error("the candidate is not understood: {0}")]
    Candidate(String),
    /// There is no data channel of this label, or it is closed.
    #[error("there is no open data channel {0:?}")]
    Channel(String),
    /// A pipeline cannot be made.
    #[error(transparent)]
    Graph(#[from] crate::infergraph::Error),
    /// A pipeline does not start.
    #[error(transparent)]
    State(#[from] crate::state::Error),
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
}

//! A peer and what it sends or watches.

use std::sync::Arc;

use serde::Serialize;

use crate::pool::Pool;
use crate::rtc;
use crate::stream::{self, Stream};

/// What a peer is for.
#[derive(Debug, Clone)]
pub enum Role {
    /// It sends, and gets back what becomes of it.
    Echo(stream::Settings),
    /// It sends, and others watch.
    Publish(stream::Settings),
    /// It watches.
    Watch(Arc<Stream>),
}

/// What a session says.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The connection changed.
    Connection(rtc::ConnectionState),
    /// A data channel is open.
    Channel(String),
    /// The peer sent text.
    Message {
        /// On which data channel.
        label: String,
        /// What.
        text: String,
    },
    /// Its stream says something; not to who watches.
    Stream(stream::Event),
    /// The session failed, and ends.
    Failed(String),
    /// It has ended. The last event.
    Ended,
}

/// Hears what a session says, on threads of the session; it must not wait, nor close the session from there.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// Figures of the peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// `connecting`, `connected`, `disconnected`, `closed`.
    pub connection: String,
    /// The format sent; None: nothing is.
    pub codec_out: Option<String>,
    /// Bits per second that the encoder is asked for.
    pub bitrate_target: u32,
    /// How long sound is held so that it is in time with the picture.
    pub audio_delay_ms: f64,
    /// What the LATENCY query answers at the sender.
    pub latency_ms: f64,
    /// Frames sent.
    pub frames_out: u64,
    /// Frames dropped because the peer or the encoder was slow.
    pub dropped: u64,
}

/// A peer that is connected, or will be.
#[derive(Debug)]
pub struct Session {}

impl Session {
    /// Answers an offer. Waits for webrtcbin, and for addresses to be found; not for the peer, nor for a model.
    pub fn open(
        pool: &Arc<Pool>,
        name: &str,
        offer: &str,
        role: Role,
        config: &rtc::Config,
        listener: Listener,
    ) -> Result<(Arc<Self>, String), rtc::Error> {
        let _ = (pool, name, offer, role, config, listener);
        todo!()
    }

    /// The stream that it sends or watches.
    pub fn stream(&self) -> &Arc<Stream> {
        todo!()
    }

    /// Adds the candidates of a fragment of SDP (RFC 8840), as WHIP and WHEP clients send it.
    pub fn add_candidates(&self, fragment: &str) -> Result<(), rtc::Error> {
        let _ = fragment;
        todo!()
    }

    /// The user fragment of ICE that the peer has now, which an entity tag stands for.
    pub fn ice_ufrag(&self) -> String {
        todo!()
    }

    /// Starts ICE anew with the credentials and candidates of a fragment; returns ours. An error of
    /// [`rtc::Error::Unfit`] where GStreamer cannot.
    pub fn restart(&self, fragment: &str) -> Result<String, rtc::Error> {
        let _ = fragment;
        todo!()
    }

    /// Sends text on a data channel.
    pub fn send(&self, label: &str, text: &str) -> Result<(), rtc::Error> {
        let _ = (label, text);
        todo!()
    }

    /// Its figures.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Ends it, on a thread of its own; [`Event::Ended`] tells when it is done.
    pub fn close(&self) {
        todo!()
    }
}

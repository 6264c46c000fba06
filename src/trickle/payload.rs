//! What a reader makes of a channel's bytes, by the channel's type.
//!
//! The protocol has no frames: bytes arrive as the network gives them. MPEG-TS becomes whole packets, a JSON document
//! its whole segment, JSON lines whole lines; anything else passes as it comes. Control channels carry
//! `{"keep":"alive"}` between messages, which says nothing and is left out.

use bytes::{Bytes, BytesMut};

use super::ts::{Framer, PACKET};
use super::wire::value;

/// The longest document or line. A longer one is dropped and counted.
pub const MAX_DOCUMENT: usize = if cfg!(fuzzing) { 1 << 10 } else { 16 << 20 };

/// What a control channel says when there is nothing to say.
const KEEPALIVE: &[u8] = br#"{"keep":"alive"}"#;

/// What a channel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// MPEG-TS: whole packets.
    Ts,
    /// One JSON document per segment.
    Json,
    /// JSON documents, one per line.
    Lines,
    /// Anything else: bytes as they come.
    Bytes,
}

impl Kind {
    /// By MIME type, or by the first bytes where the server does not know.
    pub fn of(mime: Option<&str>, first: &[u8]) -> Self {
        let essence = mime.and_then(|mime| mime.split(';').next()).unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "video/mp2t" | "video/mpegts" => Self::Ts,
            "application/json" => Self::Json,
            "application/jsonl" | "application/x-ndjson" | "application/x-jsonlines" => Self::Lines,
            "" | value::UNKNOWN_TYPE => match first {
                [0x47, rest @ ..] if rest.get(PACKET - 1).is_none_or(|next| *next == 0x47) => Self::Ts,
                [b'{', ..] => Self::Json,
                _ => Self::Bytes,
            },
            _ => Self::Bytes,
        }
    }
}

/// Makes pieces of a channel's bytes. See the [module](self).
#[derive(Debug)]
pub struct Pieces {
    kind: Kind,
    framer: Framer,
    rest: BytesMut,
    /// The document is too long.
    overlong: bool,
    stats: Stats,
}

/// Counters of [`Pieces`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes that were no whole packet, document or line.
    pub dropped: u64,
    /// Keepalives left out.
    pub keepalives: u64,
}

impl Pieces {
    /// For a channel of this kind.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            framer: Framer::default(),
            rest: BytesMut::new(),
            overlong: false,
            stats: Stats::default(),
        }
    }

    /// Takes bytes of a segment, and gives what is whole.
    pub fn push(&mut self, bytes: Bytes) -> Vec<Bytes> {
        match self.kind {
            Kind::Bytes => vec![bytes],
            Kind::Ts => self.framer.push(bytes),
            Kind::Json => {
                self.gather(&bytes);
                Vec::new()
            }
            Kind::Lines => {
                let mut lines = Vec::new();
                for part in bytes.split_inclusive(|byte| *byte == b'\n') {
                    self.gather(part);
                    if part.ends_with(b"\n") {
                        lines.extend(self.document());
                    }
                }
                lines
            }
        }
    }

    /// The segment has ended; `complete` if all of it came. Half a document is dropped, half a packet always.
    pub fn end(&mut self, complete: bool) -> Option<Bytes> {
        self.framer.end();
        if !complete {
            self.stats.dropped += self.rest.len() as u64;
            self.rest.clear();
        }
        self.document()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        Stats {
            dropped: self.stats.dropped + self.framer.dropped(),
            ..self.stats
        }
    }

    /// Bytes that wait for what follows them.
    pub fn waiting(&self) -> usize {
        self.rest.len() + self.framer.waiting()
    }

    fn gather(&mut self, bytes: &[u8]) {
        if self.overlong || self.rest.len() + bytes.len() > MAX_DOCUMENT {
            self.overlong = true;
            self.stats.dropped += (self.rest.len() + bytes.len()) as u64;
            self.rest.clear();
        } else {
            self.rest.extend_from_slice(bytes);
        }
    }

    fn document(&mut self) -> Option<Bytes> {
        let document = self.rest.split().freeze();
        if std::mem::take(&mut self.overlong) || document.trim_ascii().is_empty() {
            return None;
        }
        let keepalive = document.len() < 64 && {
            let bare: Vec<u8> = document
                .iter()
                .copied()
                .filter(|byte| !byte.is_ascii_whitespace())
                .collect();
            bare == KEEPALIVE
        };
        self.stats.keepalives += u64::from(keepalive);
        (!keepalive).then_some(document)
    }
}

//! Publishing without a connection, from inside the process.

use bytes::Bytes;

use super::body::WriteHold;
use super::{Refusal, Server};
use crate::trickle::channel::{Append, OpenWrite};

/// Why a segment cannot be published from inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// The channel cannot be created.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The channel has ended, or the segment has.
    #[error("the segment has ended")]
    Ended,
    /// The channel has as many writers as it may.
    #[error("the channel has as many writers as it may")]
    Writers,
    /// The segment would become larger than it may.
    #[error("the segment would become larger than it may")]
    TooLarge,
    /// The server holds as much as it may.
    #[error("the server holds as much as it may")]
    Memory,
}

/// A segment that is being written. Dropped before [`finish`](Self::finish), it breaks off.
#[derive(Debug)]
pub struct LocalSegment {
    hold: WriteHold,
    seq: u64,
}

impl Server {
    /// Begins a segment, the next one if no number is given; creates the channel if need be.
    pub fn begin(&self, name: &str, mime: &str, seq: Option<u64>) -> Result<LocalSegment, LocalError> {
        let entry = self.registry.create(name, mime, false)?;
        match entry.with(|ring| ring.open_write(seq, false)) {
            OpenWrite::Opened { writer, seq, .. } => Ok(LocalSegment {
                hold: WriteHold::new(&self.registry, entry, writer),
                seq,
            }),
            OpenWrite::Ended { .. } | OpenWrite::Closed => Err(LocalError::Ended),
            OpenWrite::Full => Err(LocalError::Writers),
        }
    }
}

impl LocalSegment {
    /// Its number.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Appends to it.
    pub fn write(&mut self, bytes: Bytes) -> Result<(), LocalError> {
        match self.hold.append(bytes) {
            Some(Append::Stored | Append::Dropped) => Ok(()),
            Some(Append::Ended { .. }) => Err(LocalError::Ended),
            Some(Append::TooLarge) => Err(LocalError::TooLarge),
            None => Err(LocalError::Memory),
        }
    }

    /// Ends it.
    pub fn finish(self) {
        let _ = self.hold.finish();
    }
}

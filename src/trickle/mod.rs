//! Livepeer's trickle protocol: named channels of numbered segments, each of which can be read while it is written.
//!
//! In reading order:
//!
//! - [`wire`]: the one table of paths, headers, status codes and their texts, and what reads them.
//! - [`channel`]: what a server knows of a channel: five segments, who writes them, who waits for them.
//! - [`publisher`]: which number a segment gets, and what becomes of it when a request fails.
//! - [`subscriber`]: which segment is read next, and what to do when it is not there.
//! - [`ts`]: whole packets of MPEG-TS, and where a segment of it may begin.
//! - [`payload`]: what a reader makes of bytes, by the type of the channel.
//!
//! These know no socket and no clock. Times are the caller's, from any monotonic clock.
//!
//! With feature `http`, on tokio and HTTP/1.1:
//!
//! - `server`: channels for everybody who connects.
//! - `client`: publish and subscribe, for threads and tasks.

pub mod channel;
#[cfg(feature = "http")]
pub mod client;
pub mod payload;
pub mod publisher;
#[cfg(feature = "http")]
pub mod server;
#[cfg(feature = "http")]
mod socket;
pub mod subscriber;
pub mod ts;
pub mod wire;

#[cfg(test)]
mod tests;

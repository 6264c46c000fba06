//! Which frames share one run of the model.
//!
//! A [`Batcher`] holds the frames of one or more streams until a batch is due, and says which of them go. Events keep
//! their place among the frames of their stream as markers: one that changes nothing rides along ([`Cut::No`]), one
//! that nothing before it may wait for ends the batch early ([`Cut::Before`]).
//!
//! A batch is due, and gives as its [`Reason`] the first of these that holds:
//!
//! 1. [`Reason::Full`]: it has as many frames as it may.
//! 2. The reason of a cut: it took the last frames before one. That marker is its last entry.
//! 3. [`Reason::Caps`]: the next frame of a stream belongs to another group, and no batch holds two.
//! 4. [`Reason::Drain`]: [`Batcher::drain`] was asked for, or a stream can hold no more markers.
//! 5. [`Reason::Timeout`]: the oldest frame has waited long enough.
//!
//! Times are the caller's monotonic clock (`now`), except deadlines and gaps, which are running times; the two are
//! never compared with each other. Nothing is allocated once the queues have grown to their working size.

pub mod latency;
mod policy;
mod stats;
pub mod turns;
mod verdict;

pub use policy::Batcher;
pub use stats::Stats;
pub use verdict::{Cut, Entry, Leave, MAX_BATCH_SIZE, MAX_MARKERS, Mark, Next, Offer, Policy, Reason, Settings};

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

//! Which frame leaves next, and which never will.
//!
//! A [`FlightBuffer`] stands before a model that takes frames a batch at a time. It collects a few batches before it
//! releases the first frame, so that the model never waits for an uneven source, and passes frames on as fast as they
//! are taken from then on. It holds a bounded number of frames; what happens to the next one is [`Leaky`].
//!
//! ```text
//!             threshold reached, or nothing left to wait for
//!   Filling ------------------------------------------------> Running
//!      ^                                                       |   ^
//!      |        rebuffer                                       |   | the next frame
//!      +-------------------- nothing for too long -------------+   |
//!                                                              +-> Underrun
//! ```
//!
//! Times are running times of frames ([`Timing::time`]) or the caller's monotonic clock (`now`); the two are never
//! compared with each other. Nothing is allocated once the queue has grown to its working size.

mod policy;
mod stats;
mod verdict;

pub use policy::FlightBuffer;
pub use stats::Stats;
pub use verdict::{
    Admit, Change, Leaky, MAX_BATCH_SIZE, MAX_MARKERS, Mark, Marker, Next, Settings, State, Timing, Why,
};

#[cfg(test)]
mod model;
#[cfg(test)]
pub(crate) mod sequences;
#[cfg(test)]
mod tests;

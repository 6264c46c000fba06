//! Tests of the protocol. Where its specification has a numbered case, the test's name carries the number.

mod channel;
mod model;
#[cfg(feature = "http")]
mod order;
mod payload;
mod publisher;
mod sim;
mod subscriber;
mod ts;
mod wire;

#[cfg(feature = "http")]
mod clients;
#[cfg(feature = "http")]
mod faults;
#[cfg(feature = "http")]
mod hostile;
#[cfg(feature = "http")]
mod limits;
#[cfg(feature = "http")]
mod rig;
#[cfg(feature = "http")]
mod server;

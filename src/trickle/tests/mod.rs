//! Tests of the protocol. Where its specification has a numbered case, the test's name carries the number.

mod channel;

mod publisher;
mod subscriber;
mod wire;

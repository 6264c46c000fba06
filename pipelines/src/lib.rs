//! Graphs as code.
//!
//! In reading order:
//!
//! - [`mod@register`]: our elements, made known to this process; [`packages`]: what brings an element that is missing.
//! - [`infergraph`]: the chain that runs a model on one stream; [`trace`]: when each frame passed where in it.
//! - [`codec`]: which encoder and decoder to take.
//! - [`session`]: a peer and what it sends or watches; [`rtc`]: its webrtcbin; [`stream`]: where frames come from, what is
//!   done with them; [`source`]: those that no peer sends; [`pool`]: models that streams share.
//! - [`ingress`], [`egress`]: from packets to pictures and back; [`link`]: joins between pipelines; [`stages`]: where
//!   frames spend their time; `gate`: how many a model is given at once.
//! - [`watch`]: what a pipeline says; [`state`]: state changes with a deadline.
//! - [`sidebyside`]: frames before and after; [`process`]: a file or URI through the chain into a file.

pub mod codec;
pub mod egress;
mod gate;
pub mod infergraph;
pub mod ingress;
pub mod link;
pub mod packages;
pub mod pool;
pub mod process;
pub mod register;
pub mod rtc;
pub mod session;
pub mod sidebyside;
pub mod source;
pub mod stages;
pub mod state;
pub mod stream;
pub mod trace;
pub mod watch;

pub use register::register;

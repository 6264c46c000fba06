//! TensorRT engines: compiled models, bound to one kind of GPU and one version of TensorRT.
//!
//! - A file that others compiled (`.engine`, `.plan`, or such bytes in a file of PyTorch's) is opened by way of a
//!   `wrapper`: a small ONNX file whose only node names the engine. What the engine takes and gives stands in a
//!   `sidecar` beside it, or follows from a name (`convention`) that ComfyUI gave it.
//! - A model in ONNX is compiled when it is first opened, with `options`, into a folder named by a `key`: the next
//!   start opens what lies there, and anything that would make it another engine makes it another folder.
//! - [`inspect`] shows what a file is, `store` lists and removes what was compiled, and `messages` turns what
//!   providers say into what to do.

mod archive;
mod convention;
mod inspect;
mod io;
pub(super) mod key;
mod limits;
pub(super) mod machine;
pub(super) mod messages;
pub(super) mod options;
mod sidecar;
mod source;
pub(super) mod store;
mod wrapper;

pub use inspect::{Inspected, Row, inspect};
pub use io::{Io, Range, Tensor};
pub use store::{Cache, Entry, Kind, Prune, default_cache};

pub(super) use limits::Limits;
pub(super) use source::{Compiled, Source};

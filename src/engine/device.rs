//! Lanes whose tensors are in a GPU's memory, where frames are converted, too.
//!
//! What a lane does to a batch is queued on streams, and the caller's thread goes on: [`DeviceLane::load`] queues the
//! way in, [`DeviceLane::run`] the model, [`DeviceLane::store`] the way out. Two lanes of one engine overlap.

use std::sync::Arc;

use super::{Error, Geometry, Interrupt};
use crate::tensor::{DeviceImage, Image, ImageMut, ImageSpec, TensorRef, Written};

/// A frame to read.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// In main memory: it crosses once, as it is, by way of pinned memory.
    Host(Image<'a>),
    /// On the lane's device.
    Device(DeviceImage),
}

/// A frame to write.
#[derive(Debug)]
pub enum Target<'a> {
    /// In main memory: it crosses once, in its own format.
    Host(ImageMut<'a>),
    /// On the lane's device.
    Device(DeviceImage),
}

/// The tensors of one batch in flight, in a GPU's memory. Allocates nothing after its first batch of a format.
///
/// A batch goes through `load`, `run`, `wait` and `store`, in this order. A batch that is given up is still waited for
/// before its frames are let go: the device may be reading them.
pub trait DeviceLane: Send {
    /// What its tensors look like.
    fn geometry(&self) -> &Geometry;

    /// Queues the conversion of these frames, all of one kind, into the input tensor's first slots. The frames have to
    /// stay as they are until [`DeviceLane::wait`] has returned, those in page-locked memory included.
    fn load(&mut self, spec: &ImageSpec, frames: &[Source<'_>]) -> Result<(), Error>;

    /// Queues the model's run on the first `count` images behind the load, and returns as soon as the runtime does.
    /// Without a load it runs on what is there, to be timed.
    fn run(&mut self, count: usize) -> Result<(), Error>;

    /// Waits until everything that was queued is done. The failures of the device show here.
    fn wait(&mut self) -> Result<(), Error>;

    /// Converts the picture output into these frames, one per slot, and returns when they are complete. Outputs that
    /// are no pictures are brought to main memory on the way.
    fn store(&mut self, spec: &ImageSpec, frames: &mut [Target<'_>]) -> Result<Written, Error>;

    /// The share of image `slot` in output `port`, of a tensor that is no picture, after a store.
    fn output(&self, port: usize, slot: usize) -> TensorRef<'_>;

    /// A handle with which another thread ends the waits for the engine's turn. What the device has begun, it finishes.
    fn interrupt(&self) -> Arc<dyn Interrupt>;

    /// What there is to say about it, for `stats`.
    fn report(&self) -> Report;
}

/// What a lane has done, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Whether runs are recorded once and replayed.
    pub graphs: Graphs,
    /// What crossed so far.
    pub crossings: Crossings,
}

/// CUDA graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graphs {
    /// In use: recorded runs gave what plain ones gave, on two different inputs.
    On,
    /// Not in use, and why.
    Off(&'static str),
}

/// What crossed between main memory and the device, and what was copied besides, since the lane was made. In frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Crossings {
    /// Read from main memory.
    pub uploads: u64,
    /// Written to main memory.
    pub downloads: u64,
    /// Copied by the processor on their way, to or from page-locked memory.
    pub host_copies: u64,
    /// Copied on the device, because they came in another context.
    pub device_copies: u64,
}

impl Crossings {
    /// Adds another's.
    pub fn add(&mut self, other: Crossings) {
        *self = self.each(other, |own, other| own + other);
    }

    /// What was added since it was `earlier`.
    pub fn since(self, earlier: Crossings) -> Crossings {
        self.each(earlier, |own, earlier| own - earlier)
    }

    fn each(self, other: Crossings, join: impl Fn(u64, u64) -> u64) -> Crossings {
        Crossings {
            uploads: join(self.uploads, other.uploads),
            downloads: join(self.downloads, other.downloads),
            host_copies: join(self.host_copies, other.host_copies),
            device_copies: join(self.device_copies, other.device_copies),
        }
    }
}

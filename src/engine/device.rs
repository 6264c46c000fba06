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
    /// stay as they are until [`DeviceLane::wait`] has returned; those in main memory are free at once.
    fn load(&mut self, spec: &ImageSpec, frames: &[Source<'_>]) -> Result<(), Error>;

    /// Queues the model's run on the first `count` images behind the load, and returns as soon as the runtime does.
    fn run(&mut self, count: usize) -> Result<(), Error>;

    /// Waits until everything that was queued is done. The failures of the device show here.
    fn wait(&mut self) -> Result<(), Error>;

    /// Converts the picture output into these frames, one per slot, and returns when they are complete. Outputs that
    /// are no pictures are brought to main memory on the way.
    fn store(&mut self, spec: &ImageSpec, frames: &mut [Target<'_>]) -> Result<Written, Error>;

    /// The share of image `slot` in output `port`, of a tensor that is no picture, after a store.
    fn output(&self, port: usize, slot: usize) -> TensorRef<'_>;

    /// A handle with which another thread ends the waits for a run.
    fn interrupt(&self) -> Arc<dyn Interrupt>;
}

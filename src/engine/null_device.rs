//! Engines without a model in a GPU's memory: the same times and faults, with frames that never leave the device.

use std::sync::Arc;

use super::device::{DeviceLane, Graphs, Report, Source, Target};
use super::frames::{Frames, failed};
use super::{Error, Geometry, Interrupt, Lane, LaneRequest};
use crate::cuda::{Device, DeviceBuffer, Stream};
use crate::tensor::{ImageSpec, TensorRef, Written};

/// A lane of a built-in engine on a device.
pub(super) struct NullDeviceLane {
    frames: Frames,
    input: DeviceBuffer,
    output: DeviceBuffer,
    /// The engine's work, as a copy is done by the same kernels.
    invert: bool,
    /// Takes the time, and fails when it is asked to; it has no tensors.
    pace: Box<dyn Lane>,
    geometry: Geometry,
    /// Where the model's work is queued.
    compute: Arc<Stream>,
    name: String,
}

impl NullDeviceLane {
    pub(super) fn new(
        device: &Arc<Device>,
        compute: &Arc<Stream>,
        request: &LaneRequest,
        pace: Box<dyn Lane>,
        (name, invert): (&str, bool),
    ) -> Result<Self, Error> {
        let geometry = pace.geometry().clone();
        let frames = Frames::new(name, device, request)?;
        let bytes = geometry.input.len() * geometry.input.dtype.size() * request.batch;
        let room = || DeviceBuffer::new(device, bytes).map_err(|error| failed(name, &error));
        Ok(Self {
            frames,
            input: room()?,
            output: room()?,
            invert,
            pace,
            geometry,
            compute: compute.clone(),
            name: name.into(),
        })
    }
}

impl DeviceLane for NullDeviceLane {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn load(&mut self, spec: &ImageSpec, frames: &[Source<'_>]) -> Result<(), Error> {
        let (tensor, address) = (self.geometry.input, self.input.address());
        self.frames.load(spec, frames, &tensor, address, frames.len())
    }

    fn run(&mut self, count: usize) -> Result<(), Error> {
        self.frames.before(&self.compute)?;
        let paced = self.pace.run(count);
        let image = self.geometry.input;
        let (from, to) = (self.input.address(), self.output.address());
        let device = self.frames.device().clone();
        let queued = device.kernels().and_then(|kernels| {
            if self.invert {
                kernels.invert(&self.compute, image.dtype, from, to, image.len() * count)
            } else {
                self.compute.copy(from, to, image.len() * image.dtype.size() * count)
            }
        });
        self.frames.after(&self.compute)?;
        paced?;
        queued.map_err(|error| failed(&self.name, &error))
    }

    fn wait(&mut self) -> Result<(), Error> {
        self.frames.wait()
    }

    fn store(&mut self, spec: &ImageSpec, frames: &mut [Target<'_>]) -> Result<Written, Error> {
        let (tensor, address) = (self.geometry.input, self.output.address());
        self.frames.store(spec, frames, &tensor, address)
    }

    fn output(&self, _port: usize, _slot: usize) -> TensorRef<'_> {
        TensorRef::U8(&[])
    }

    fn interrupt(&self) -> Arc<dyn Interrupt> {
        self.pace.interrupt()
    }

    fn report(&self) -> Report {
        Report {
            graphs: Graphs::Off("built-in engines do not record"),
            crossings: self.frames.crossings(),
        }
    }
}

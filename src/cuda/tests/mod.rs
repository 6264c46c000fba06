//! Everything in this module against the simulated driver.

mod convert;
mod driver;
mod ptx;

use std::sync::Arc;

use super::sim::{self, Sim, Turn};
use super::{Device, DeviceBuffer, Pinned, Stream};
use crate::tensor::tests::{Elements, Frame};
use crate::tensor::{DType, DeviceImage, DevicePlane, f16};

/// The simulated driver, compiled by whichever test comes first.
fn driver() -> &'static Sim {
    let folder = tempfile::tempdir().unwrap();
    sim::load(folder.path()).unwrap()
}

/// A device, and the turn at it. Fields are dropped in this order: the turn ends last.
struct Rig {
    stream: Stream,
    device: Arc<Device>,
    turn: Turn,
}

impl Rig {
    fn new() -> Rig {
        let turn = driver().turn();
        let device = Device::open(0).unwrap();
        Rig {
            stream: Stream::new(&device).unwrap(),
            device,
            turn,
        }
    }

    /// Bytes on the device.
    fn put(&self, bytes: &[u8]) -> DeviceBuffer {
        let mut pinned = Pinned::for_upload(&self.device, bytes.len()).unwrap();
        pinned.as_mut_slice().copy_from_slice(bytes);
        let buffer = DeviceBuffer::new(&self.device, bytes.len()).unwrap();
        self.stream.upload(&pinned, 0..bytes.len(), buffer.address()).unwrap();
        self.stream.synchronize().unwrap();
        buffer
    }

    /// All bytes of a buffer.
    fn get(&self, buffer: &DeviceBuffer) -> Vec<u8> {
        let mut pinned = Pinned::for_download(&self.device, buffer.len()).unwrap();
        self.stream
            .download(buffer.address(), &mut pinned, 0..buffer.len())
            .unwrap();
        self.stream.synchronize().unwrap();
        pinned.as_slice().to_vec()
    }

    fn put_frame(&self, frame: &Frame) -> DeviceFrame {
        let planes = frame.spec.format.planes();
        let buffers: Vec<_> = frame.planes[..planes].iter().map(|plane| self.put(plane)).collect();
        let mut image = DeviceImage::default();
        for (plane, buffer) in buffers.iter().enumerate() {
            image.planes[plane] = DevicePlane {
                address: buffer.address(),
                stride: frame.strides[plane],
            };
        }
        DeviceFrame { image, buffers }
    }

    fn get_frame(&self, frame: &DeviceFrame, like: &Frame) -> Frame {
        let mut out = like.clone();
        for (plane, buffer) in frame.buffers.iter().enumerate() {
            out.planes[plane] = self.get(buffer);
        }
        out
    }
}

/// A frame on the device, each plane an allocation of its own, so that a byte beyond it fails.
struct DeviceFrame {
    image: DeviceImage,
    buffers: Vec<DeviceBuffer>,
}

fn elements(dtype: DType, bytes: &[u8]) -> Elements {
    match dtype {
        DType::F16 => Elements::F16(bytes.as_chunks().0.iter().map(|b| f16::from_ne_bytes(*b)).collect()),
        DType::F32 => Elements::F32(bytes.as_chunks().0.iter().map(|b| f32::from_ne_bytes(*b)).collect()),
        _ => Elements::U8(bytes.to_vec()),
    }
}

//! Everything in this module against the simulated driver; with feature `gpu` against a real one, which can neither
//! count nor fail on demand, so that fewer tests are left.

mod convert;
#[cfg(not(feature = "gpu"))]
mod driver;
#[cfg(not(feature = "gpu"))]
mod ptx;

use std::sync::Arc;

use cudarc::driver::sys;

#[cfg(not(feature = "gpu"))]
use super::sim::{self, Sim, Turn};
use super::{Device, DeviceBuffer, Pinned, Stream};
use crate::tensor::tests::{Elements, Frame};
use crate::tensor::{DType, DeviceImage, DevicePlane, Handle, f16};

/// The simulated driver, compiled by whichever test comes first.
#[cfg(not(feature = "gpu"))]
fn driver() -> &'static Sim {
    let folder = tempfile::tempdir().unwrap();
    sim::load(folder.path()).unwrap()
}

/// A device, and the turn at it. Fields are dropped in this order: the turn ends last.
pub(crate) struct Rig {
    pub(crate) stream: Stream,
    pub(crate) device: Arc<Device>,
    #[cfg(not(feature = "gpu"))]
    pub(crate) turn: Turn,
    #[cfg(feature = "gpu")]
    _turn: std::sync::MutexGuard<'static, ()>,
}

impl Rig {
    #[cfg(feature = "gpu")]
    pub(crate) fn new() -> Rig {
        use std::sync::{Mutex, PoisonError};

        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let device = Device::open(0).unwrap_or_else(|error| panic!("feature gpu asks for a device, and {error}"));
        Rig {
            stream: Stream::new(&device).unwrap(),
            device,
            _turn: turn,
        }
    }

    #[cfg(not(feature = "gpu"))]
    pub(crate) fn new() -> Rig {
        let turn = driver().turn();
        let device = Device::open(0).unwrap();
        Rig {
            stream: Stream::new(&device).unwrap(),
            device,
            turn,
        }
    }

    /// Bytes on the device.
    pub(crate) fn put(&self, bytes: &[u8]) -> DeviceBuffer {
        let mut pinned = Pinned::for_upload(&self.device, bytes.len()).unwrap();
        pinned.as_mut_slice().copy_from_slice(bytes);
        let buffer = DeviceBuffer::new(&self.device, bytes.len()).unwrap();
        self.stream.upload(&pinned, 0..bytes.len(), buffer.address()).unwrap();
        self.stream.synchronize().unwrap();
        buffer
    }

    /// All bytes of a buffer.
    pub(crate) fn get(&self, buffer: &DeviceBuffer) -> Vec<u8> {
        let mut pinned = Pinned::for_download(&self.device, buffer.len()).unwrap();
        self.stream
            .download(buffer.address(), &mut pinned, 0..buffer.len())
            .unwrap();
        self.stream.synchronize().unwrap();
        pinned.as_slice().to_vec()
    }

    pub(crate) fn put_frame(&self, frame: &Frame) -> DeviceFrame {
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

    pub(crate) fn get_frame(&self, frame: &DeviceFrame, like: &Frame) -> Frame {
        let mut out = like.clone();
        for (plane, buffer) in frame.buffers.iter().enumerate() {
            out.planes[plane] = self.get(buffer);
        }
        out
    }
}

/// A frame on the device, each plane an allocation of its own, so that a byte beyond it fails.
pub(crate) struct DeviceFrame {
    pub(crate) image: DeviceImage,
    buffers: Vec<DeviceBuffer>,
}

fn elements(dtype: DType, bytes: &[u8]) -> Elements {
    match dtype {
        DType::F16 => Elements::F16(bytes.as_chunks().0.iter().map(|b| f16::from_ne_bytes(*b)).collect()),
        DType::F32 => Elements::F32(bytes.as_chunks().0.iter().map(|b| f32::from_ne_bytes(*b)).collect()),
        _ => Elements::U8(bytes.to_vec()),
    }
}

/// A context beside the primary one, as GStreamer's elements make where nobody stops them.
pub(crate) struct OtherContext {
    raw: sys::CUcontext,
    allocations: std::cell::RefCell<Vec<u64>>,
}

/// A frame in it.
pub(crate) struct ForeignFrame {
    pub(crate) image: DeviceImage,
}

impl Rig {
    pub(crate) fn other_context(&self) -> OtherContext {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the handle is written to a local variable; the context is made current, and taken off again.
        unsafe {
            sys::cuCtxCreate_v2(&mut raw, 0, 0).result().unwrap();
            sys::cuCtxPopCurrent_v2(&mut std::ptr::null_mut()).result().unwrap();
        }
        OtherContext {
            raw,
            allocations: std::cell::RefCell::default(),
        }
    }
}

impl OtherContext {
    pub(crate) fn put_frame(&self, rig: &Rig, frame: &Frame) -> ForeignFrame {
        let mut image = DeviceImage {
            // SAFETY: the context lives in `self`, which outlives the frame in these tests.
            context: unsafe { Handle::new(self.raw as u64) },
            ..DeviceImage::default()
        };
        for (plane, bytes) in frame.planes[..frame.spec.format.planes()].iter().enumerate() {
            let mut address = 0;
            // SAFETY: the context is alive, the bytes are copied during the call, and the address is a local variable.
            unsafe {
                sys::cuCtxPushCurrent_v2(self.raw).result().unwrap();
                sys::cuMemAlloc_v2(&mut address, bytes.len()).result().unwrap();
                sys::cuMemcpyHtoD_v2(address, bytes.as_ptr().cast(), bytes.len())
                    .result()
                    .unwrap();
                sys::cuCtxPopCurrent_v2(&mut std::ptr::null_mut()).result().unwrap();
            }
            self.allocations.borrow_mut().push(address);
            image.planes[plane] = DevicePlane {
                address,
                stride: frame.strides[plane],
            };
        }
        rig.device.bind().unwrap();
        ForeignFrame { image }
    }
}

impl Drop for OtherContext {
    fn drop(&mut self) {
        // SAFETY: the allocations and the context are ours, and used no more.
        unsafe {
            let _ = sys::cuCtxPushCurrent_v2(self.raw);
            for address in self.allocations.get_mut().drain(..) {
                let _ = sys::cuMemFree_v2(address);
            }
            let _ = sys::cuCtxPopCurrent_v2(&mut std::ptr::null_mut());
            let _ = sys::cuCtxDestroy_v2(self.raw);
        }
    }
}

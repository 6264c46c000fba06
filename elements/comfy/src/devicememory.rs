//! Frames in a GPU's memory: the context that is shared with other elements, pools, and where frames lie.
//!
//! ONNX Runtime, TensorRT and our kernels use a device's primary context. GStreamer's own elements make one of their
//! own unless somebody tells them of another, so this one is wrapped once per process and device, and handed out by
//! the GstContext mechanism. Frames that come in another context all the same cost one copy on the device.
//!
//! Nothing here maps device memory for the processor: that would be a hidden, blocking copy to main memory.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::{Arc, LazyLock, Weak};

use comfy_core::cuda::Device;
use comfy_core::tensor::{DeviceImage, DevicePlane, Handle};
use glib::translate::*;
use gst::ffi as gst_ffi;
use gst::prelude::*;
use parking_lot::Mutex;

use crate::gstcuda::{self, CudaMemory, GstCuda};

/// The caps feature of frames in CUDA memory.
pub(crate) const FEATURE: &str = "memory:CUDAMemory";

/// A GPU, as this process and GStreamer's elements in it share it.
pub(crate) struct Gpu {
    pub(crate) device: Arc<Device>,
    cuda: &'static GstCuda,
    /// A GstCudaContext around the device's primary context.
    context: gst::Object,
    /// What elements upstream may queue their work on, from 1.24 on.
    stream: Option<Stream>,
}

/// A GstCudaStream.
struct Stream {
    raw: *mut std::ffi::c_void,
    functions: gstcuda::Streams,
}

// SAFETY: a GstCudaStream is a counted object without a thread of its own; all its functions may be called from any.
unsafe impl Send for Stream {}
// SAFETY: as above, and it never changes.
unsafe impl Sync for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: it is ours since `gst_cuda_stream_new`, and nobody uses it afterwards.
        unsafe { (self.functions.unref)(self.raw) }
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// Which memory frames are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Memory {
    /// Main memory.
    #[default]
    System,
    /// A GPU's.
    Cuda,
}

impl Memory {
    /// Of fixed caps, of frames or of batches.
    pub(crate) fn of(caps: &gst::CapsRef) -> Self {
        match caps.features(0).is_some_and(|features| features.contains(FEATURE)) {
            true => Memory::Cuda,
            false => Memory::System,
        }
    }

    /// For `stats`: the name that caps give it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Memory::System => "SystemMemory",
            Memory::Cuda => "CUDAMemory",
        }
    }
}

/// What is done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Gpu {
    /// The GPU of this number, or why frames cannot be kept there.
    pub(crate) fn open(ordinal: u32) -> Result<Arc<Self>, String> {
        static OPEN: LazyLock<Mutex<HashMap<u32, Weak<Gpu>>>> = LazyLock::new(Mutex::default);
        // Held while one is opened: two of them would be two contexts to everybody else.
        let mut open = OPEN.lock();
        if let Some(gpu) = open.get(&ordinal).and_then(Weak::upgrade) {
            return Ok(gpu);
        }
        let gpu = Arc::new(Self::new(ordinal)?);
        open.insert(ordinal, Arc::downgrade(&gpu));
        Ok(gpu)
    }

    fn new(ordinal: u32) -> Result<Self, String> {
        let device = Device::open(ordinal as usize).map_err(|error| error.to_string())?;
        let cuda = GstCuda::get()?;
        let number = c_int::try_from(ordinal).map_err(|_| format!("there is no GPU {ordinal}"))?;
        let handle = device.raw_context() as *mut std::ffi::c_void;
        // SAFETY: the handle is that of a live context of this device, kept alive below for as long as the wrapper.
        let wrapped = unsafe { (cuda.context_new_wrapped)(handle, number) };
        if wrapped.is_null() {
            return Err(format!("GStreamer cannot use the CUDA context of GPU {ordinal}"));
        }
        // SAFETY: a new GstCudaContext, whose only reference is ours by its documentation.
        let context: gst::Object = unsafe { from_glib_full(wrapped) };
        // SAFETY: the key is used here alone, with this type. It keeps the primary context for as long as anybody keeps
        // the wrapper, other elements included.
        unsafe { context.set_data("comfy-device", device.clone()) };
        let stream = cuda.streams.and_then(|functions| {
            // SAFETY: the context is alive for the call.
            let raw = unsafe { (functions.new)(wrapped) };
            (!raw.is_null()).then_some(Stream { raw, functions })
        });
        Ok(Self {
            device,
            cuda,
            context,
            stream,
        })
    }

    /// For elements that ask, by message or query.
    pub(crate) fn context(&self) -> gst::Context {
        // SAFETY: the context is alive for the call, which takes a reference of its own and returns a new GstContext.
        unsafe { from_glib_full((self.cuda.context_new_cuda_context)(self.context.as_ptr())) }
    }

    /// Answers a CONTEXT query, if it is about CUDA.
    pub(crate) fn answer(&self, query: &mut gst::query::Context) -> bool {
        let asked = query.context_type() == gstcuda::CONTEXT_TYPE;
        if asked {
            query.set_context(&self.context());
        }
        asked
    }

    /// Whether a GstContext from elsewhere carries this GPU's context. None: it is about something else.
    pub(crate) fn is_own(&self, context: &gst::Context) -> Option<bool> {
        if context.context_type() != gstcuda::CONTEXT_TYPE {
            return None;
        }
        let other = context.structure().get::<gst::Object>(gstcuda::CONTEXT_TYPE).ok()?;
        Some(self.handle(other.as_ptr()) == self.device.raw_context())
    }

    fn handle(&self, context: *mut gst_ffi::GstObject) -> u64 {
        // SAFETY: callers hand a live GstCudaContext.
        unsafe { (self.cuda.context_get_handle)(context) as u64 }
    }

    /// A pool of frames in this GPU's memory, active.
    pub(crate) fn pool(&self, frames: &gst::Caps, size: u32, min: u32) -> Result<gst::BufferPool, glib::BoolError> {
        let pool = self.new_pool(frames, size, min)?;
        pool.set_active(true)?;
        Ok(pool)
    }

    /// The same for an upstream element to activate.
    pub(crate) fn new_pool(&self, frames: &gst::Caps, size: u32, min: u32) -> Result<gst::BufferPool, glib::BoolError> {
        // SAFETY: the context is alive for the call, and the pool keeps a reference. The new pool is ours.
        let pool = unsafe { (self.cuda.buffer_pool_new)(self.context.as_ptr()) };
        if pool.is_null() {
            return Err(glib::bool_error!("GStreamer makes no CUDA buffer pool"));
        }
        // SAFETY: as above.
        let pool: gst::BufferPool = unsafe { from_glib_full(pool) };
        let mut config = pool.config();
        config.set_params(Some(frames), size, min, 0);
        config.add_option("GstBufferPoolOptionVideoMeta");
        if let Some(stream) = &self.stream {
            // SAFETY: config and stream are alive for the call; the config takes a reference to the stream.
            unsafe { (stream.functions.set_in_config)(config.as_mut().as_mut_ptr(), stream.raw) };
        }
        pool.set_config(config)?;
        Ok(pool)
    }

    /// Where a frame lies. The buffer has to be kept for as long as the device uses it.
    pub(crate) fn image(
        &self,
        buffer: &gst::BufferRef,
        info: &gst_video::VideoInfo,
        access: Access,
    ) -> Result<DeviceImage, String> {
        if buffer.n_memory() != 1 {
            return Err(format!("it has {} memories in place of one", buffer.n_memory()));
        }
        let memory = buffer.peek_memory(0).as_mut_ptr();
        // SAFETY: the memory belongs to the buffer, which outlives the call.
        if unsafe { (self.cuda.is_cuda_memory)(memory) } == glib::ffi::GFALSE {
            return Err("it is not in CUDA memory, though its caps say so".into());
        }
        // SAFETY: it is a GstCudaMemory, as just asked, of which only the public part is read.
        let context = unsafe { (*memory.cast::<CudaMemory>()).context };
        let context = self.handle(context);
        let stream = self.stream.as_ref().map_or(Handle::NONE, |own| {
            // SAFETY: a GstCudaMemory; the stream it names lives as long as the memory.
            unsafe {
                let raw = (own.functions.of_memory)(memory);
                match raw.is_null() {
                    true => Handle::NONE,
                    false => Handle::new((own.functions.get_handle)(raw) as u64),
                }
            }
        });
        let context = match context == self.device.raw_context() {
            true => Handle::NONE,
            // SAFETY: the memory keeps its context alive.
            false => unsafe { Handle::new(context) },
        };
        Ok(DeviceImage {
            planes: planes(buffer, info, access)?,
            stream,
            context,
        })
    }
}

/// Device addresses by way of a map that asks for them, so that offsets and strides are those of the frame's own meta.
fn planes(buffer: &gst::BufferRef, info: &gst_video::VideoInfo, access: Access) -> Result<[DevicePlane; 3], String> {
    let flags = gstcuda::MAP_CUDA
        | match access {
            Access::Read => gst_ffi::GST_MAP_READ,
            Access::Write => gst_ffi::GST_MAP_WRITE,
        };
    let mut frame = MaybeUninit::<gst_video::ffi::GstVideoFrame>::zeroed();
    // SAFETY: info and buffer are alive for the call, and the frame is written when it succeeds. The buffer is not
    // written through a shared reference: the map of device memory hands out an address and leaves the bytes alone.
    let mapped = unsafe {
        let buffer = buffer.as_ptr().cast_mut();
        gst_video::ffi::gst_video_frame_map(frame.as_mut_ptr(), info.to_glib_none().0.cast_mut(), buffer, flags)
    };
    if mapped == glib::ffi::GFALSE {
        return Err("its device address cannot be had".into());
    }
    // SAFETY: filled by the successful map.
    let mut frame = unsafe { frame.assume_init() };
    let mut planes = [DevicePlane::default(); 3];
    for (plane, target) in planes.iter_mut().enumerate().take(info.n_planes() as usize) {
        *target = DevicePlane {
            address: frame.data[plane] as u64,
            // The stride that holds for this frame, from its meta.
            stride: usize::try_from(frame.info.stride[plane]).unwrap_or(0),
        };
    }
    // SAFETY: mapped above. The address stays valid for as long as the memory: only the map is given back.
    unsafe { gst_video::ffi::gst_video_frame_unmap(&mut frame) };
    Ok(planes)
}

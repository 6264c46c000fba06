//! Page-locked main memory for frames: a GPU reads and writes it by itself, without the processor's copy in between.
//!
//! Offered to whoever makes the frames that come in, and used for those that go out. It is cached, unlike memory that
//! is locked for uploads alone: decoders read the frames that they have written, and so does everybody downstream.
#![allow(unsafe_code)]

use std::sync::Arc;

use comfy_core::cuda::{Device, Pinned};
use glib::translate::*;
use gst::prelude::*;
use gst::subclass::prelude::*;

glib::wrapper! {
    /// An allocator of page-locked memory.
    pub struct PinnedAllocator(ObjectSubclass<imp::PinnedAllocator>) @extends gst::Allocator, gst::Object;
}

impl PinnedAllocator {
    /// Of memory that this device reaches.
    pub(crate) fn new(device: &Arc<Device>) -> Self {
        let allocator: Self = glib::Object::new();
        // New, so nothing was set.
        let _ = allocator.imp().device.set(device.clone());
        allocator
    }
}

/// A pool of frames in main memory that the device reaches, not yet active.
pub(crate) fn pool(
    allocator: &PinnedAllocator,
    frames: &gst::Caps,
    size: u32,
    min: u32,
) -> Result<gst::BufferPool, glib::BoolError> {
    let pool = gst_video::VideoBufferPool::new();
    let mut config = pool.config();
    config.set_params(Some(frames), size, min, 0);
    config.set_allocator(Some(allocator.upcast_ref::<gst::Allocator>()), None);
    config.add_option("GstBufferPoolOptionVideoMeta");
    pool.set_config(config)?;
    Ok(pool.upcast())
}

/// Page-locked bytes as a GstMemory holds them.
struct Bytes(Pinned);

impl AsMut<[u8]> for Bytes {
    fn as_mut(&mut self) -> &mut [u8] {
        self.0.as_mut_slice()
    }
}

mod imp {
    use super::*;

    #[derive(Default)]
    pub struct PinnedAllocator {
        pub(super) device: once_cell::sync::OnceCell<Arc<Device>>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for PinnedAllocator {
        const NAME: &'static str = "GstComfyPinnedAllocator";
        type Type = super::PinnedAllocator;
        type ParentType = gst::Allocator;
    }

    impl ObjectImpl for PinnedAllocator {}
    impl GstObjectImpl for PinnedAllocator {}

    // SAFETY: what it returns is a new memory, or null where there is none left. It frees nothing itself: each memory
    // knows how.
    unsafe impl AllocatorImpl for PinnedAllocator {
        unsafe fn alloc(&self, size: usize, params: &gst::AllocationParams) -> *mut gst::ffi::GstMemory {
            let Some(whole) = size
                .checked_add(params.prefix())
                .and_then(|bytes| bytes.checked_add(params.padding()))
            else {
                return std::ptr::null_mut();
            };
            // Locked memory begins at a page, which is more alignment than anybody asks for.
            let pinned = self
                .device
                .get()
                .and_then(|device| Pinned::for_download(device, whole).ok());
            let memory: *mut gst::ffi::GstMemory = match pinned {
                Some(pinned) => gst::Memory::from_mut_slice(Bytes(pinned)).into_glib_ptr(),
                // Locked memory is scarce. Frames in any other are copied once more, and arrive.
                None => gst::Memory::with_size(whole).into_glib_ptr(),
            };
            // SAFETY: a new memory of `whole` bytes, ours alone: what is before and behind the frame stays hidden.
            unsafe { gst::ffi::gst_memory_resize(memory, params.prefix() as isize, size) };
            memory
        }
    }
}

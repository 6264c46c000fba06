//! [`ComfyTensorMeta`]: what a model says about a frame when it is not a picture.
//!
//! Each tensor is the frame's own share of an output, so the batch dimension is gone. The members are those of
//! upstream's tensor meta in newer GStreamer, so that moving there is a rename.
#![allow(unsafe_code)]

use std::{fmt, mem, ptr, sync::LazyLock};

use comfy_core::tensor::DType;
use glib::translate::*;

/// One tensor that belongs to a frame.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// The output's name in the model.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions in row-major order, without the batch.
    pub dims: Vec<usize>,
    /// The elements in the machine's byte order.
    pub data: gst::Buffer,
}

/// The tensors of one frame.
#[repr(transparent)]
pub struct ComfyTensorMeta(imp::ComfyTensorMeta);

// SAFETY: owned data without ties to a thread.
unsafe impl Send for ComfyTensorMeta {}
// SAFETY: shared access only reads.
unsafe impl Sync for ComfyTensorMeta {}

impl ComfyTensorMeta {
    /// Attaches tensors to a frame.
    pub fn add(frame: &mut gst::BufferRef, tensors: Vec<Tensor>) {
        let mut params = mem::ManuallyDrop::new(Some(tensors));
        // SAFETY: the frame is writable by its &mut; `init` takes the tensors out of `params`.
        let meta = unsafe {
            gst::ffi::gst_buffer_add_meta(
                frame.as_mut_ptr(),
                imp::info(),
                ptr::from_mut::<Option<Vec<Tensor>>>(&mut params).cast(),
            )
        };
        assert!(!meta.is_null(), "a writable buffer accepts metas");
    }

    /// The tensors.
    pub fn tensors(&self) -> &[Tensor] {
        &self.0.tensors
    }
}

// SAFETY: GstType is the layout registered for the API type below.
unsafe impl gst::MetaAPI for ComfyTensorMeta {
    type GstType = imp::ComfyTensorMeta;

    fn meta_api() -> glib::Type {
        imp::api()
    }
}

impl fmt::Debug for ComfyTensorMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.tensors.fmt(f)
    }
}

mod imp {
    use super::*;

    #[repr(C)]
    pub struct ComfyTensorMeta {
        parent: gst::ffi::GstMeta,
        pub(super) tensors: Vec<Tensor>,
    }

    pub(super) fn api() -> glib::Type {
        static API: LazyLock<glib::Type> = LazyLock::new(|| {
            // SAFETY: the name is static, and the list of tags is its terminator alone.
            unsafe {
                from_glib(gst::ffi::gst_meta_api_type_register(
                    c"ComfyTensorMetaAPI".as_ptr(),
                    [ptr::null::<std::ffi::c_char>()].as_ptr() as *mut *const _,
                ))
            }
        });
        *API
    }

    unsafe extern "C" fn init(
        meta: *mut gst::ffi::GstMeta,
        params: glib::ffi::gpointer,
        _buffer: *mut gst::ffi::GstBuffer,
    ) -> glib::ffi::gboolean {
        // SAFETY: called by `add` alone, with the option it built.
        unsafe {
            let Some(tensors) = (*params.cast::<Option<Vec<Tensor>>>()).take() else {
                return glib::ffi::GFALSE;
            };
            ptr::write(ptr::addr_of_mut!((*meta.cast::<ComfyTensorMeta>()).tensors), tensors);
        }
        glib::ffi::GTRUE
    }

    unsafe extern "C" fn free(meta: *mut gst::ffi::GstMeta, _buffer: *mut gst::ffi::GstBuffer) {
        // SAFETY: initialised by `init`, freed once.
        unsafe { ptr::drop_in_place(ptr::addr_of_mut!((*meta.cast::<ComfyTensorMeta>()).tensors)) }
    }

    unsafe extern "C" fn transform(
        dest: *mut gst::ffi::GstBuffer,
        meta: *mut gst::ffi::GstMeta,
        _buffer: *mut gst::ffi::GstBuffer,
        _kind: glib::ffi::GQuark,
        _data: glib::ffi::gpointer,
    ) -> glib::ffi::gboolean {
        // What a model said about a frame stays true of its copies, scaled or converted.
        // SAFETY: GStreamer hands the meta it copies and a writable destination.
        unsafe {
            let copy = (*meta.cast::<ComfyTensorMeta>()).tensors.clone();
            super::ComfyTensorMeta::add(gst::BufferRef::from_mut_ptr(dest), copy);
        }
        glib::ffi::GTRUE
    }

    pub(super) fn info() -> *const gst::ffi::GstMetaInfo {
        struct Info(*const gst::ffi::GstMetaInfo);
        // SAFETY: GStreamer keeps registered infos for ever and never changes them.
        unsafe impl Send for Info {}
        // SAFETY: as above.
        unsafe impl Sync for Info {}

        static INFO: LazyLock<Info> = LazyLock::new(|| {
            // SAFETY: the functions match the registered size and type.
            Info(unsafe {
                gst::ffi::gst_meta_register(
                    api().into_glib(),
                    c"ComfyTensorMeta".as_ptr(),
                    mem::size_of::<ComfyTensorMeta>(),
                    Some(init),
                    Some(free),
                    Some(transform),
                )
            })
        });
        INFO.0
    }
}

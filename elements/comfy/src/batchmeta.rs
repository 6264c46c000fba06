//! How a batch travels: [`ComfyBatchMeta`] on a buffer without memory owns the frames, untouched, and the serialized
//! events that stood between them. No pixel is copied to form a batch.
//!
//! The meta is registered natively: a custom meta carries its fields in a structure and costs ten times as much as
//! one reference to a frame. It has no tags, so that no filter mistakes it for something it understands. Copying a
//! container references the frames; the copy may then be edited without touching the original.
#![allow(unsafe_code)]

use std::{
    fmt, mem, ptr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use comfy_core::batch::Reason;
use glib::translate::*;
use parking_lot::Mutex;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// Not yet seen by a model.
    #[default]
    Pending,
    /// `output` is the model's work (or the frame itself, when the model is the identity).
    Inferred,
    /// The model failed and the input frame goes on in its place.
    PassedThrough,
    /// The model failed and the last good output goes on in its place.
    Duplicated,
    /// The model failed and nothing replaces the frame.
    Failed,
}

/// One frame of a batch.
#[derive(Debug, Clone)]
pub struct Frame {
    /// As it came in; its timestamps, flags and metas are what comes out again.
    pub input: gst::Buffer,
    /// What the model made of it. None: the input itself goes on.
    pub output: Option<gst::Buffer>,
    /// Number of the comfybatch sink pad, and of the comfyunbatch src pad.
    pub stream: u32,
    /// Counts the frames of its stream from 0.
    pub sequence: u64,
    /// What became of it.
    pub status: Status,
}

/// A serialized event and where it stood.
#[derive(Debug, Clone)]
pub struct Between {
    /// It came before the frame with this index (== number of frames: after the last).
    pub position: usize,
    /// Its stream.
    pub stream: u32,
    /// The event as it arrived.
    pub event: gst::Event,
}

/// Emptied vectors that wait for their next batch, so that forming a batch allocates nothing in the steady state.
#[derive(Debug, Default)]
pub struct Spares(Mutex<Vec<(Vec<Frame>, Vec<Between>)>>);

impl Spares {
    /// More than are ever in flight at once.
    const KEPT: usize = 32;

    fn take(&self) -> (Vec<Frame>, Vec<Between>) {
        self.0.lock().pop().unwrap_or_default()
    }

    fn give(&self, frames: Vec<Frame>, events: Vec<Between>) {
        let mut spares = self.0.lock();
        if spares.len() < Self::KEPT {
            spares.push((frames, events));
        }
    }
}

/// A batch.
#[derive(Debug)]
pub struct Batch {
    /// Counts batches from 0.
    pub sequence: u64,
    /// Most frames it could have held.
    pub capacity: usize,
    /// Why it left.
    pub reason: Reason,
    /// Monotonic time at which its first frame arrived.
    pub first_arrival: Duration,
    /// Monotonic time at which it was formed.
    pub formed: Duration,
    /// The frames, in order.
    pub frames: Vec<Frame>,
    /// The events between them, in order.
    pub events: Vec<Between>,
    spares: Option<Arc<Spares>>,
}

impl Batch {
    /// An empty batch, in storage that `spares` keeps.
    pub fn new(spares: &Arc<Spares>) -> Self {
        let (frames, events) = spares.take();
        Self {
            sequence: 0,
            capacity: 0,
            reason: Reason::Full,
            first_arrival: Duration::ZERO,
            formed: Duration::ZERO,
            frames,
            events,
            spares: Some(spares.clone()),
        }
    }
}

impl Clone for Batch {
    fn clone(&self) -> Self {
        let (mut frames, mut events) = self.spares.as_ref().map(|s| s.take()).unwrap_or_default();
        frames.extend(self.frames.iter().cloned());
        events.extend(self.events.iter().cloned());
        Self {
            frames,
            events,
            spares: self.spares.clone(),
            ..*self
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let (mut frames, mut events) = (mem::take(&mut self.frames), mem::take(&mut self.events));
        // Frames are released before the storage can be handed to another batch.
        frames.clear();
        events.clear();
        if let Some(spares) = &self.spares {
            spares.give(frames, events);
        }
    }
}

/// The meta that carries a [`Batch`].
#[repr(transparent)]
pub struct ComfyBatchMeta(imp::ComfyBatchMeta);

// SAFETY: the meta is plain owned data behind the buffer's own locking rules; nothing in it is tied to a thread.
unsafe impl Send for ComfyBatchMeta {}
// SAFETY: shared access only reads.
unsafe impl Sync for ComfyBatchMeta {}

impl ComfyBatchMeta {
    /// Attaches `batch` to a container.
    pub fn add(container: &mut gst::BufferRef, batch: Batch) {
        let mut params = mem::ManuallyDrop::new(Some(batch));
        // SAFETY: the container is writable by its &mut; the info is ours; `init` takes the batch out of `params`,
        // which outlives the call.
        let meta = unsafe {
            gst::ffi::gst_buffer_add_meta(
                container.as_mut_ptr(),
                imp::info(),
                ptr::from_mut::<Option<Batch>>(&mut params).cast(),
            )
        };
        assert!(!meta.is_null(), "a writable buffer accepts metas");
    }

    /// The batch.
    pub fn batch(&self) -> &Batch {
        &self.0.batch
    }

    /// The batch, to be edited; the container must be writable.
    pub fn batch_mut(&mut self) -> &mut Batch {
        &mut self.0.batch
    }

    /// Takes the batch out of a container: moved when the container is ours alone, else copied by reference.
    pub fn take(mut container: gst::Buffer) -> Option<Batch> {
        match container.get_mut() {
            Some(owned) => {
                let mut meta = owned.meta_mut::<ComfyBatchMeta>()?;
                let batch = meta.batch_mut();
                let empty = Batch {
                    frames: Vec::new(),
                    events: Vec::new(),
                    spares: None,
                    ..*batch
                };
                Some(mem::replace(batch, empty))
            }
            None => container.meta::<ComfyBatchMeta>().map(|meta| meta.batch().clone()),
        }
    }
}

// SAFETY: GstType is the C layout registered for the API type below, and ComfyBatchMeta is transparent over it.
unsafe impl gst::MetaAPI for ComfyBatchMeta {
    type GstType = imp::ComfyBatchMeta;

    fn meta_api() -> glib::Type {
        imp::api()
    }
}

impl fmt::Debug for ComfyBatchMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.batch.fmt(f)
    }
}

mod imp {
    use super::*;

    #[repr(C)]
    pub struct ComfyBatchMeta {
        parent: gst::ffi::GstMeta,
        pub(super) batch: Batch,
    }

    pub(super) fn api() -> glib::Type {
        static API: LazyLock<glib::Type> = LazyLock::new(|| {
            // SAFETY: the name is static, and the list of tags is its terminator alone.
            unsafe {
                from_glib(gst::ffi::gst_meta_api_type_register(
                    c"ComfyBatchMetaAPI".as_ptr(),
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
        // SAFETY: called by `add` alone, with the option it built; the memory behind `batch` is uninitialised.
        unsafe {
            let Some(batch) = (*params.cast::<Option<Batch>>()).take() else {
                return glib::ffi::GFALSE;
            };
            ptr::write(ptr::addr_of_mut!((*meta.cast::<ComfyBatchMeta>()).batch), batch);
        }
        glib::ffi::GTRUE
    }

    unsafe extern "C" fn free(meta: *mut gst::ffi::GstMeta, _buffer: *mut gst::ffi::GstBuffer) {
        // SAFETY: initialised by `init`, freed once.
        unsafe { ptr::drop_in_place(ptr::addr_of_mut!((*meta.cast::<ComfyBatchMeta>()).batch)) }
    }

    unsafe extern "C" fn transform(
        dest: *mut gst::ffi::GstBuffer,
        meta: *mut gst::ffi::GstMeta,
        _buffer: *mut gst::ffi::GstBuffer,
        kind: glib::ffi::GQuark,
        _data: glib::ffi::gpointer,
    ) -> glib::ffi::gboolean {
        static COPY: LazyLock<glib::Quark> = LazyLock::new(|| glib::Quark::from_str("gst-copy"));
        if kind != COPY.into_glib() {
            return glib::ffi::GFALSE;
        }
        // SAFETY: GStreamer hands the meta it copies and a writable destination.
        unsafe {
            let copy = (*meta.cast::<ComfyBatchMeta>()).batch.clone();
            super::ComfyBatchMeta::add(gst::BufferRef::from_mut_ptr(dest), copy);
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
                    c"ComfyBatchMeta".as_ptr(),
                    mem::size_of::<ComfyBatchMeta>(),
                    Some(init),
                    Some(free),
                    Some(transform),
                )
            })
        });
        INFO.0
    }
}

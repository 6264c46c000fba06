//! libgstcuda, which other GStreamer elements keep frames in a GPU's memory with, found at run time.
//!
//! It is opened by name and never linked: Debian's links half a desktop, and a machine without it is none the worse.
//! Only functions are used whose signatures are the same in 1.22 and everything later. `gst_cuda_allocator_alloc` is
//! not: it took another parameter in 1.24 under the same name. Streams came in 1.24, all of them or none.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use glib::ffi::{GFALSE, gboolean};
use gst::ffi as gst_ffi;
use libloading::Library;
use once_cell::sync::OnceCell;

/// The name that 1.22 and all later ones have.
const FILE: &str = "libgstcuda-1.0.so.0";

/// Type of the GstContext that carries a GstCudaContext, and the name of the field in it.
pub(crate) const CONTEXT_TYPE: &str = "gst.cuda.context";

/// `GST_MAP_CUDA`: the pointer of the map is a device's.
pub(crate) const MAP_CUDA: gst_ffi::GstMapFlags = gst_ffi::GST_MAP_FLAG_LAST << 1;

/// The public part of `GstCudaMemory`, the same since 1.22.
#[repr(C)]
pub(crate) struct CudaMemory {
    pub(crate) memory: gst_ffi::GstMemory,
    pub(crate) context: *mut gst_ffi::GstObject,
    // More follows, of which nothing is used.
}

type Object = *mut gst_ffi::GstObject;

/// The functions that are used. Pointers are theirs: who frees what is said in GStreamer's documentation.
#[derive(Debug)]
pub(crate) struct GstCuda {
    pub(crate) load_library: unsafe extern "C" fn() -> gboolean,
    pub(crate) memory_init_once: unsafe extern "C" fn(),
    /// CUcontext and CUdevice to a new GstCudaContext, which does not own them.
    pub(crate) context_new_wrapped: unsafe extern "C" fn(*mut c_void, c_int) -> Object,
    pub(crate) context_get_handle: unsafe extern "C" fn(Object) -> *mut c_void,
    /// A new GstContext with a reference to the GstCudaContext.
    pub(crate) context_new_cuda_context: unsafe extern "C" fn(Object) -> *mut gst_ffi::GstContext,
    pub(crate) buffer_pool_new: unsafe extern "C" fn(Object) -> *mut gst_ffi::GstBufferPool,
    pub(crate) is_cuda_memory: unsafe extern "C" fn(*mut gst_ffi::GstMemory) -> gboolean,
    /// From 1.24 on.
    pub(crate) streams: Option<Streams>,
}

/// What 1.24 added.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    /// A new GstCudaStream of a GstCudaContext.
    pub(crate) new: unsafe extern "C" fn(Object) -> *mut c_void,
    pub(crate) get_handle: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    pub(crate) unref: unsafe extern "C" fn(*mut c_void),
    /// Of a GstCudaMemory; null: none. Not referenced for the caller.
    pub(crate) of_memory: unsafe extern "C" fn(*mut gst_ffi::GstMemory) -> *mut c_void,
    pub(crate) set_in_config: unsafe extern "C" fn(*mut gst_ffi::GstStructure, *mut c_void),
}

impl GstCuda {
    /// The library, or why it cannot be used here.
    pub(crate) fn get() -> Result<&'static Self, String> {
        static LOADED: OnceCell<GstCuda> = OnceCell::new();
        LOADED.get_or_try_init(|| {
            let library = open(FILE)?;
            let functions = Self::resolve(&library)?;
            // Functions of a library that is never unloaded, as its own statics demand.
            std::mem::forget(library);
            // SAFETY: it takes nothing, and may be called at any time.
            if unsafe { (functions.load_library)() } == GFALSE {
                return Err("GStreamer's CUDA library does not find the NVIDIA driver's libcuda.so.1".into());
            }
            // SAFETY: as above, once the driver is loaded.
            unsafe { (functions.memory_init_once)() };
            Ok(functions)
        })
    }

    fn resolve(library: &Library) -> Result<Self, String> {
        // SAFETY: the names are those of libgstcuda, whose headers give them these signatures in 1.22 and later.
        unsafe {
            Ok(Self {
                load_library: required(library, "gst_cuda_load_library")?,
                memory_init_once: required(library, "gst_cuda_memory_init_once")?,
                context_new_wrapped: required(library, "gst_cuda_context_new_wrapped")?,
                context_get_handle: required(library, "gst_cuda_context_get_handle")?,
                context_new_cuda_context: required(library, "gst_context_new_cuda_context")?,
                buffer_pool_new: required(library, "gst_cuda_buffer_pool_new")?,
                is_cuda_memory: required(library, "gst_is_cuda_memory")?,
                streams: Streams::resolve(library),
            })
        }
    }
}

impl Streams {
    /// # Safety
    ///
    /// The library is libgstcuda.
    unsafe fn resolve(library: &Library) -> Option<Self> {
        // SAFETY: the caller says what the library is; its headers give these names these signatures since 1.24.
        unsafe {
            Some(Self {
                new: required(library, "gst_cuda_stream_new").ok()?,
                get_handle: required(library, "gst_cuda_stream_get_handle").ok()?,
                unref: required(library, "gst_cuda_stream_unref").ok()?,
                of_memory: required(library, "gst_cuda_memory_get_stream").ok()?,
                set_in_config: required(library, "gst_buffer_pool_config_set_cuda_stream").ok()?,
            })
        }
    }
}

fn open(file: &str) -> Result<Library, String> {
    // SAFETY: GStreamer's libraries do nothing when loaded but register their statics.
    unsafe { Library::new(file) }.map_err(|error| {
        format!("{file} cannot be loaded ({error}); it comes with GStreamer's plugins-bad, 1.22 or later")
    })
}

/// # Safety
///
/// `T` is the type of a function pointer, and the library's function of that name has its signature.
unsafe fn required<T: Copy>(library: &Library, name: &str) -> Result<T, String> {
    // SAFETY: as the caller says.
    let symbol = unsafe { library.get::<T>(name) };
    symbol
        .map(|symbol| *symbol)
        .map_err(|_| format!("{FILE} has no {name}: GStreamer 1.22 or later is needed"))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    const BASE: [&str; 7] = [
        "gst_cuda_load_library",
        "gst_cuda_memory_init_once",
        "gst_cuda_context_new_wrapped",
        "gst_cuda_context_get_handle",
        "gst_context_new_cuda_context",
        "gst_cuda_buffer_pool_new",
        "gst_is_cuda_memory",
    ];
    const STREAMS: [&str; 5] = [
        "gst_cuda_stream_new",
        "gst_cuda_stream_get_handle",
        "gst_cuda_stream_unref",
        "gst_cuda_memory_get_stream",
        "gst_buffer_pool_config_set_cuda_stream",
    ];

    /// A library with functions of these names, which nobody calls.
    fn stand_in(name: &str, symbols: &[&str]) -> Library {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/stand-ins");
        std::fs::create_dir_all(&folder).unwrap();
        let source = folder.join(format!("{name}-{}.c", std::process::id()));
        let file = source.with_extension("so");
        let text: String = symbols
            .iter()
            .map(|symbol| format!("void {symbol}(void) {{}}\n"))
            .collect();
        std::fs::write(&source, text).unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&file)
            .arg(&source)
            .status()
            .expect("a C compiler, which also links every Rust program");
        assert!(built.success());
        let library = open(file.to_str().unwrap()).unwrap();
        for path in [&source, &file] {
            std::fs::remove_file(Path::new(path)).unwrap();
        }
        library
    }

    #[test]
    fn the_library_of_1_22_has_what_is_needed_and_a_later_one_streams_besides() {
        // Debian's own, of the version that is the floor; a newer system's has streams.
        let own = GstCuda::resolve(&open(FILE).unwrap()).unwrap();
        let streams_since = (1, 24);
        let (major, minor, ..) = gst::version();
        assert_eq!(own.streams.is_some(), (major, minor) >= streams_since);

        assert!(GstCuda::resolve(&stand_in("v122", &BASE)).unwrap().streams.is_none());
        let later = [&BASE[..], &STREAMS[..]].concat();
        assert!(GstCuda::resolve(&stand_in("v124", &later)).unwrap().streams.is_some());
        // One that is half there is not used at all.
        let half = [&BASE[..], &STREAMS[..4]].concat();
        assert!(GstCuda::resolve(&stand_in("half", &half)).unwrap().streams.is_none());
    }

    #[test]
    fn a_library_that_lacks_a_function_is_refused_by_the_functions_name() {
        for missing in BASE {
            let rest: Vec<&str> = BASE.into_iter().filter(|name| *name != missing).collect();
            let error = GstCuda::resolve(&stand_in(missing, &rest)).unwrap_err();
            assert!(error.contains(missing) && error.contains("1.22 or later"), "{error}");
        }
    }

    #[test]
    fn a_missing_library_is_an_error_that_says_what_brings_it() {
        let error = open("libgstcuda-that-is-not-here.so.0").unwrap_err();
        assert!(error.contains("plugins-bad"), "{error}");
    }
}

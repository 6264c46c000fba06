//! A GPU that is simulated: our elements and GStreamer's own CUDA elements, on a driver that runs on the processor.
//!
//! Debian's libgstcuda and `nvcodec` plugin are the real ones. The plugin registers nothing where the libraries of
//! NVIDIA's decoder and encoder are missing, so that one is there which refuses to decode anything.

use std::process::Command;
use std::sync::OnceLock;

use comfy_core::cuda::sim::{self, Sim, Turn};

use crate::temp::Temp;

/// What `nvcodec` asks its library for; each answers that it cannot.
const DECODER: [&str; 13] = [
    "cuvidCtxLockCreate",
    "cuvidCtxLockDestroy",
    "cuvidCtxLock",
    "cuvidCtxUnlock",
    "cuvidCreateDecoder",
    "cuvidDestroyDecoder",
    "cuvidDecodePicture",
    "cuvidCreateVideoParser",
    "cuvidParseVideoData",
    "cuvidDestroyVideoParser",
    "cuvidMapVideoFrame64",
    "cuvidUnmapVideoFrame64",
    "cuvidGetDecoderCaps",
];

/// The simulated GPU, for one test at a time. It comes first in every test of a file: what asks for a driver before
/// finds that there is none.
pub fn simulate() -> Turn {
    static SIM: OnceLock<&'static Sim> = OnceLock::new();
    let sim = SIM.get_or_init(|| {
        let folder = Temp::new();
        let sim = sim::load(folder.path()).expect("a C compiler, which also links every Rust program");
        decoder(&folder);
        crate::init();
        let plugin = gst::Registry::get()
            .find_plugin("nvcodec")
            .and_then(|plugin| plugin.filename())
            .expect("GStreamer's nvcodec plugin, of plugins-bad");
        gst::Plugin::load_file(&plugin).expect("it loads");
        assert!(
            gst::ElementFactory::find("cudaupload").is_some(),
            "nvcodec registers cudaupload once it finds a driver"
        );
        sim
    });
    sim.turn()
}

/// Loads a library that looks like the decoder's.
#[allow(unsafe_code)]
fn decoder(folder: &Temp) {
    let names = DECODER
        .iter()
        .flat_map(|name| [(*name).to_owned(), name.replace("64", "")]);
    let mut functions: Vec<String> = names
        .map(|name| format!("int {name}(void) {{ return 801; }}\n"))
        .collect();
    functions.sort();
    functions.dedup();
    let source = folder.path().join("decoder.c");
    let file = folder.path().join("libnvcuvid.so.1");
    std::fs::write(&source, functions.concat()).expect("room in the folder");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wl,-soname,libnvcuvid.so.1", "-o"])
        .arg(&file)
        .arg(&source)
        .status();
    assert!(built.is_ok_and(|status| status.success()), "the C compiler works");
    // SAFETY: it was just compiled from the text above, and does nothing when it is loaded.
    let library = unsafe { libloading::Library::new(&file) }.expect("it can be loaded");
    // For good, so that whoever asks for its name finds it.
    std::mem::forget(library);
}

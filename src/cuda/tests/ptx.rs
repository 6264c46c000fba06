//! The kernels' text, which is made of `frames.cu` here.
//!
//! NVIDIA's compiler needs no GPU. `scripts/setup.sh nvrtc` fetches it; `COMFY_NVRTC` names another folder that holds
//! the same version. With `COMFY_NVRTC_WRITE=1` the text is written rather than compared.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use libloading::Library;

use crate::cuda::kernels::{ENTRIES, FromJob, IntoJob, InvertJob, PTX};

/// C++03 leaves out what the compiler brings of its own. Without contraction, numbers come out as on the CPU.
const OPTIONS: [&CStr; 3] = [c"--gpu-architecture=compute_75", c"--fmad=false", c"--std=c++03"];

#[test]
fn the_text_suits_the_drivers_that_are_asked_for() {
    let line = |start: &str| PTX.lines().find_map(|line| line.strip_prefix(start)).unwrap();
    let version: Vec<u32> = line(".version ")
        .split('.')
        .map(|part| part.trim().parse().unwrap())
        .collect();
    assert!(version <= vec![8, 2], "{version:?}");
    assert_eq!(line(".target "), "sm_75");
    assert_eq!(line(".address_size "), "64");
    for name in ENTRIES {
        let name = name.to_str().unwrap();
        assert!(PTX.contains(&format!(".visible .entry {name}(")), "{name}");
    }
    assert_eq!(PTX.matches(".entry ").count(), ENTRIES.len());
    // The parameters are as long as those that are handed over.
    let sizes = [size_of::<IntoJob>(), size_of::<FromJob>(), size_of::<InvertJob>()];
    for (name, size) in ENTRIES.into_iter().zip(sizes) {
        let parameter = format!(".param .align 8 .b8 {}_param_0[{size}]", name.to_str().unwrap());
        assert!(PTX.contains(&parameter), "{parameter}");
    }
    // Memory of each thread's own would mean that the table of frames is copied.
    assert!(!PTX.contains(".local "));
}

#[test]
fn the_text_is_what_the_source_compiles_to() {
    let Some(folder) = compiler() else { return };
    let text = compile(&folder.join("libnvrtc.so.12"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cuda/kernels/frames.ptx");
    if std::env::var_os("COMFY_NVRTC_WRITE").is_some_and(|value| value == "1") {
        std::fs::write(path, text).unwrap();
        return;
    }
    assert!(
        text == PTX,
        "src/cuda/kernels/frames.ptx is not what frames.cu compiles to: COMFY_NVRTC_WRITE=1 cargo test -p comfy-core \
         --features cuda cuda::tests::ptx"
    );
}

/// The folder of NVIDIA's compiler; None where there is none, or on request.
fn compiler() -> Option<PathBuf> {
    if std::env::var_os("COMFY_NO_NVRTC").is_some_and(|value| value == "1") {
        return None;
    }
    if let Some(folder) = std::env::var_os("COMFY_NVRTC") {
        return Some(folder.into());
    }
    // No compiler is pinned for other systems; the text is the same for all.
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return None;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".work/nvrtc");
    assert!(
        folder.join("libnvrtc.so.12").exists(),
        "the compiler of the kernels is missing: scripts/setup.sh nvrtc fetches it (61 MB on disk); COMFY_NO_NVRTC=1 \
         goes without, and does not notice a frames.ptx that is out of date"
    );
    Some(folder)
}

type Program = *mut c_void;

fn compile(library: &Path) -> String {
    // SAFETY: it is NVIDIA's compiler, in the version that is pinned; each function has the type that its header says,
    // each pointer leads to a local variable or to text that ends with a zero, and lives through its call.
    unsafe {
        let nvrtc = Library::new(library).unwrap();
        let version = nvrtc
            .get::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int>(b"nvrtcVersion")
            .unwrap();
        let create = nvrtc
            .get::<unsafe extern "C" fn(
                *mut Program,
                *const c_char,
                *const c_char,
                c_int,
                *const *const c_char,
                *const *const c_char,
            ) -> c_int>(b"nvrtcCreateProgram")
            .unwrap();
        let compile = nvrtc
            .get::<unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int>(b"nvrtcCompileProgram")
            .unwrap();
        let destroy = nvrtc
            .get::<unsafe extern "C" fn(*mut Program) -> c_int>(b"nvrtcDestroyProgram")
            .unwrap();
        let text_of = |program: Program, size: &[u8], get: &[u8]| {
            let size = nvrtc
                .get::<unsafe extern "C" fn(Program, *mut usize) -> c_int>(size)
                .unwrap();
            let get = nvrtc
                .get::<unsafe extern "C" fn(Program, *mut u8) -> c_int>(get)
                .unwrap();
            let mut len = 0;
            assert_eq!(size(program, &mut len), 0);
            let mut text = vec![0; len];
            assert_eq!(get(program, text.as_mut_ptr()), 0);
            CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap().to_owned()
        };
        let (mut major, mut minor) = (0, 0);
        assert_eq!(version(&mut major, &mut minor), 0);
        assert_eq!((major, minor), (12, 2), "another version writes another text");
        let source = CString::new(include_str!("../kernels/frames.cu")).unwrap();
        let mut program = std::ptr::null_mut();
        let name = c"frames.cu".as_ptr();
        assert_eq!(
            create(
                &mut program,
                source.as_ptr(),
                name,
                0,
                std::ptr::null(),
                std::ptr::null()
            ),
            0
        );
        let options = OPTIONS.map(CStr::as_ptr);
        let answer = compile(program, options.len() as c_int, options.as_ptr());
        assert_eq!(
            answer,
            0,
            "{}",
            text_of(program, b"nvrtcGetProgramLogSize", b"nvrtcGetProgramLog")
        );
        let text = text_of(program, b"nvrtcGetPTXSize", b"nvrtcGetPTX");
        assert_eq!(destroy(&mut program), 0);
        text
    }
}

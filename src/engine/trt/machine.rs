//! What of this machine a compiled engine depends on, asked without loading anything large.

use std::path::{Path, PathBuf};

/// Version of TensorRT that the loader would take, by its file's name.
pub(in crate::engine) fn tensorrt() -> Option<String> {
    let set = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = [
        format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH),
        "/usr/lib64".into(),
        "/usr/lib".into(),
        "/usr/local/lib".into(),
        "/usr/local/tensorrt/lib".into(),
        "/opt/tensorrt/lib".into(),
    ];
    let mut folders = std::env::split_paths(&set).chain(usual.into_iter().map(PathBuf::from));
    folders.find_map(|folder| version_of(&folder.join("libnvinfer.so.10"), "libnvinfer.so."))
}

/// `10.16.1` of a link to `libnvinfer.so.10.16.1`.
fn version_of(link: &Path, stem: &str) -> Option<String> {
    let file = link.canonicalize().ok()?;
    Some(file.file_name()?.to_str()?.strip_prefix(stem)?.to_owned())
}

/// Version of NVIDIA's driver.
pub(in crate::engine) fn driver() -> Option<String> {
    let text = std::fs::read_to_string("/sys/module/nvidia/version").ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Compute capability of a GPU: `89` for 8.9.
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
pub(in crate::engine) fn capability(device: u32) -> Option<String> {
    use cudarc::driver::{result, sys};

    // SAFETY: it looks for the library and calls nothing in it; the other calls end the process without it.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    result::init().ok()?;
    let device = result::device::get(i32::try_from(device).ok()?).ok()?;
    let ask = |attribute| {
        // SAFETY: the device was given out by the driver in this process.
        unsafe { result::device::get_attribute(device, attribute) }.ok()
    };
    let major = ask(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = ask(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Some(format!("{major}{minor}"))
}

/// Compute capability of a GPU: without the driver's library nobody says.
#[cfg(not(feature = "cuda"))]
pub(in crate::engine) fn capability(_device: u32) -> Option<String> {
    None
}

/// The GPU by its compute capability, or by the names of all that are here.
pub(in crate::engine) fn gpu(device: u32) -> Option<String> {
    capability(device).or_else(|| models(Path::new("/proc/driver/nvidia/gpus")))
}

/// The line `Model: NVIDIA L4` in a file per GPU.
fn models(folder: &Path) -> Option<String> {
    let folders = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let name = |path: PathBuf| {
        let text = std::fs::read_to_string(path.join("information")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
        Some(line.trim().to_owned())
    };
    let mut names: Vec<String> = folders.filter_map(|entry| name(entry.path())).collect();
    names.sort();
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::Folder;

    #[test]
    fn a_librarys_version_is_its_files_name() {
        let folder = Folder::new("machine");
        let file = folder.path().join("libnvinfer.so.10.16.1");
        let link = folder.path().join("libnvinfer.so.10");
        assert_eq!(version_of(&link, "libnvinfer.so."), None);
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(version_of(&link, "libnvinfer.so.").as_deref(), Some("10.16.1"));
    }

    #[test]
    fn gpus_are_known_by_name_where_the_driver_does_not_say_more() {
        let folder = Folder::new("machine-gpus");
        assert_eq!(models(folder.path()), None);
        for (bus, name) in [("1", "NVIDIA L4"), ("0", "NVIDIA A10")] {
            let gpu = folder.path().join(bus);
            std::fs::create_dir_all(&gpu).unwrap();
            std::fs::write(gpu.join("information"), format!("Model: \t\t {name}\nIRQ: 7\n")).unwrap();
        }
        assert_eq!(models(folder.path()).as_deref(), Some("NVIDIA A10, NVIDIA L4"));
    }

    #[test]
    fn asking_a_machine_without_a_gpu_is_harmless() {
        for device in [0, 63, u32::MAX] {
            let _ = (capability(device), gpu(device), driver(), tensorrt());
        }
    }
}

//! Finding shared libraries as the dynamic linker would, without loading them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the file named `name` is; None: the linker would not find it.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let set = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = std::env::split_paths(&set).filter(|folder| !folder.as_os_str().is_empty());
    let named = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    named.or_else(|| cached(name)).or_else(|| {
        let folders = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"];
        folders
            .iter()
            .map(|folder| Path::new(folder).join(name))
            .find(|path| path.is_file())
    })
}

/// In the linker's cache.
fn cached(name: &str) -> Option<PathBuf> {
    let listed = ["/sbin/ldconfig", "ldconfig"]
        .iter()
        .find_map(|program| Command::new(program).arg("-p").output().ok())?;
    in_list(&String::from_utf8_lossy(&listed.stdout), name).filter(|path| path.is_file())
}

/// `libcuda.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcuda.so.1`
fn in_list(list: &str, name: &str) -> Option<PathBuf> {
    list.lines().find_map(|line| {
        let (key, path) = line.trim().split_once(" => ")?;
        (key.split_whitespace().next() == Some(name)).then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linkers_list_is_read_by_whole_names() {
        let list = "2 libs found in cache `/etc/ld.so.cache'\n\
                    \tlibcuda.so.12 (libc6,x86-64) => /a/libcuda.so.12\n\
                    \tlibcuda.so.1 (libc6,x86-64) => /b/libcuda.so.1\n";
        assert_eq!(in_list(list, "libcuda.so.1"), Some("/b/libcuda.so.1".into()));
        assert_eq!(in_list(list, "libcuda.so"), None);
    }

    #[test]
    fn the_c_library_is_found() {
        assert!(find("libc.so.6").is_some());
        assert_eq!(find("libcomfynothing.so.1"), None);
    }
}

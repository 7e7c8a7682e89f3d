//! NVIDIA's libraries on this machine: which are there, where, in which version.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A library that the GPU build uses.
#[derive(Debug)]
pub(super) struct Library {
    /// What people call it.
    pub(super) name: &'static str,
    /// Its file, without a path.
    pub(super) file: &'static str,
    /// How to get it.
    pub(super) help: &'static str,
    /// Where it is, symbolic links followed; none when it was not found.
    pub(super) found: Option<PathBuf>,
}

impl Library {
    /// The version in the file's name, such as `13.1.0.3`.
    pub(super) fn version(&self) -> Option<&str> {
        let name = self.found.as_deref()?.file_name()?.to_str()?;
        name.split_once(".so.").map(|(_, version)| version)
    }
}

/// Name, file, and how to get it.
const LIBRARIES: &[(&str, &str, &str)] = &[
    ("CUDA driver", "libcuda.so.1", "install NVIDIA's driver"),
    ("cuBLAS", "libcublas.so.13", "install CUDA 13's cuBLAS"),
    ("cuBLASLt", "libcublasLt.so.13", "install CUDA 13's cuBLAS"),
    ("cuRAND", "libcurand.so.10", "install CUDA 13's cuRAND"),
    ("NCCL", "libnccl.so.2", "install NCCL 2.28 or later; several GPUs need it"),
    ("cuDNN", "libcudnn.so.9", "install cuDNN 9; without it attention runs on kernels of our own"),
];

/// All of them, looked for where the loader looks: the folders of `LD_LIBRARY_PATH` (given as
/// `search_path`), the loader's cache, the usual folders.
pub(super) fn find(search_path: Option<&str>) -> Vec<Library> {
    let cache = cached();
    let named = search_path.unwrap_or_default().split(':').filter(|folder| !folder.is_empty());
    let folders: Vec<&Path> = named.chain(USUAL.iter().copied()).map(Path::new).collect();
    let library = |&(name, file, help): &(&'static str, &'static str, &'static str)| {
        let in_folder = folders.iter().map(|folder| folder.join(file)).find(|path| path.exists());
        let in_cache = || cache.iter().find(|path| path.ends_with(file)).cloned();
        let found = in_folder.or_else(in_cache);
        let found = found.map(|path| path.canonicalize().unwrap_or(path));
        Library { name, file, help, found }
    };
    LIBRARIES.iter().map(library).collect()
}

const USUAL: &[&str] = &[
    "/usr/local/cuda/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
];

/// The files that `ldconfig` knows.
fn cached() -> Vec<PathBuf> {
    let Ok(output) = Command::new("ldconfig").arg("-p").output() else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.split_once(" => ")).map(|(_, path)| path.into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_by_the_search_path_with_its_version() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libnccl.so.2.28.9");
        crate::base::atomic_file::write(&file, b"").unwrap();
        std::os::unix::fs::symlink(&file, folder.path().join("libnccl.so.2")).unwrap();
        let found = find(Some(&format!("/nowhere:{}", folder.path().display())));
        let nccl = found.iter().find(|library| library.name == "NCCL").unwrap();
        assert_eq!(nccl.version(), Some("2.28.9"));
    }
}

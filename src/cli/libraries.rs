//! NVIDIA's libraries on this machine: which are there, where, in which version.

use crate::stages::devices::library_versions;
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
    /// Its version by its own word, where this build can ask it.
    said: Option<String>,
}

impl Library {
    /// Its version, such as `2.28.9`: what its file's name has of it, or its own word where that says
    /// more of the same.
    pub(super) fn version(&self) -> Option<&str> {
        let name = self.found.as_deref()?.file_name()?.to_str()?;
        let named = name.split_once(".so.").map(|(_, version)| version);
        let said = self.said.as_deref();
        said.filter(|said| said.starts_with(named.unwrap_or_default())).or(named)
    }

    /// Whether its version is known and older than what the program needs.
    pub(super) fn is_too_old(&self) -> bool {
        let mut numbers = self.version().unwrap_or_default().split('.').map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            return false;
        };
        self.name == "NCCL" && (major, minor) < OLDEST_NCCL
    }
}

const OLDEST_NCCL: (u32, u32) = (2, 28);

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
    let said = library_versions();
    let library = |&(name, file, help): &(&'static str, &'static str, &'static str)| {
        let in_folder = folders.iter().map(|folder| folder.join(file)).find(|path| path.exists());
        let in_cache = || cache.iter().find(|path| path.ends_with(file)).cloned();
        let found = in_folder.or_else(in_cache);
        let found = found.map(|path| path.canonicalize().unwrap_or(path));
        let said = said.iter().find(|(known, _)| *known == name).map(|(_, said)| said.clone());
        Library { name, file, help, found, said }
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
        assert_eq!((nccl.version(), nccl.is_too_old()), (Some("2.28.9"), false));
        let old = Library { said: Some("2.27.3".to_owned()), ..find(None).remove(4) };
        let old = Library { found: Some("/usr/lib/libnccl.so.2".into()), ..old };
        assert_eq!((old.version(), old.is_too_old()), (Some("2.27.3"), true));
    }
}

//! Files and folders that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `bytes` to `path`: a reader sees the old content or the new, never a part.
///
/// The parent folder is made when it is missing.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// Writes `path` through `fill`, flushed to the disk before it takes its name.
pub fn write_with(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        fs::create_dir_all(parent)?;
    }
    let partial = partial_name(path);
    let mut file = BufWriter::new(File::create(&partial)?);
    let filled =
        fill(&mut file).and_then(|()| file.flush()).and_then(|()| file.get_ref().sync_all());
    drop(file);
    match filled.and_then(|()| fs::rename(&partial, path)) {
        Ok(()) => sync_folder(parent.unwrap_or(Path::new("."))),
        Err(error) => {
            // The write failed; that the leftover cannot be removed either would say nothing new.
            let _ = fs::remove_file(&partial);
            Err(error)
        }
    }
}

/// Gives the finished folder `from` the name `to`, on the same file system.
pub fn rename_folder(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::rename(from, to)?;
    sync_folder(to.parent().unwrap_or(Path::new("")))
}

/// Makes the names in `folder` durable; a path without parts is the current folder.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    let here = folder.as_os_str().is_empty();
    File::open(if here { Path::new(".") } else { folder })?.sync_all()
}

fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".partial-{}", std::process::id()));
    path.with_file_name(name)
}

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

/// Writes `bytes` to a file that a person named: where a symbolic link leads, and into devices and
/// pipes as they are; else as [`write`] does.
pub fn write_named(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::canonicalize(path) {
        Ok(target) if target.is_file() => write(&target, bytes),
        Ok(target) => File::options().write(true).open(target)?.write_all(bytes),
        Err(_) => write(path, bytes),
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

/// Begins folder `to` under a temporary name with the files of folder `from`, which lie in it
/// directly: hard links where the file system can. [`rename_folder`] finishes it.
pub fn begin_copy(from: &Path, to: &Path) -> io::Result<PathBuf> {
    let partial = with_ending(to, PARTIAL);
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = partial.join(entry.file_name());
        if fs::hard_link(entry.path(), &copy).is_err() {
            // Another file system, or one without hard links: a copy does as well.
            fs::copy(entry.path(), &copy)?;
            File::open(&copy)?.sync_all()?;
        }
    }
    sync_folder(&partial)?;
    Ok(partial)
}

/// Removes a folder; when that is cut short, what is left of it has no name any more.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    let doomed = with_ending(path, ".old.partial");
    fs::rename(path, &doomed)?;
    fs::remove_dir_all(&doomed)
}

/// Makes the names in `folder` durable; a path without parts is the current folder.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    let here = folder.as_os_str().is_empty();
    File::open(if here { Path::new(".") } else { folder })?.sync_all()
}

/// Removes what interrupted writes left below `folder`: files that [`write_with`] had begun, and
/// folders that had not got their name yet ([`PARTIAL`]). Nobody else may be writing there.
pub fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, is_folder) = (entry.path(), entry.file_type()?.is_dir());
        match (is_leftover(&entry.file_name().to_string_lossy()), is_folder) {
            (true, true) => fs::remove_dir_all(&path)?,
            (true, false) => fs::remove_file(&path)?,
            (false, true) => remove_leftovers(&path)?,
            (false, false) => {}
        }
    }
    Ok(())
}

/// Ending of the name of a folder that is still being written.
pub const PARTIAL: &str = ".partial";

fn is_leftover(name: &str) -> bool {
    let numbered = name.rsplit_once(".partial-");
    let process =
        |(_, id): (_, &str)| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    name.ends_with(PARTIAL) || numbered.is_some_and(process)
}

fn partial_name(path: &Path) -> PathBuf {
    with_ending(path, &format!("{PARTIAL}-{}", std::process::id()))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(ending);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn named_outputs_go_through_links_and_into_devices() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        write_named(&file, b"new").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_named(&link, b"through the link").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"through the link");
        assert!(link.is_symlink());
        write_named(Path::new("/dev/null"), b"gone").unwrap();
        assert!(!Path::new("/dev/null").is_file());
        assert!(write_named(folder.path(), b"a folder is no file").is_err());
    }

    #[test]
    fn leftovers_of_interrupted_writes_go_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a.partial-12", "b/c.partial-3", "d.partial/e", "keep/f.partial-x", "g.json"] {
            write(&path(name), b"x").unwrap();
        }
        remove_leftovers(folder.path()).unwrap();
        assert!(path("keep/f.partial-x").exists() && path("g.json").exists());
        let gone = ["a.partial-12", "b/c.partial-3", "d.partial"];
        assert!(gone.iter().all(|name| !path(name).exists()));
    }
}

//! Puts what people look for into the run folder: `checkpoints/STAGE` of a train stage, `failed/STAGE`
//! of an evaluation that failed.

use crate::artifacts::record::is_measured;
use crate::artifacts::{Artifact, Record};
use crate::base::atomic_file;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Makes `checkpoints/STAGE` of `run_folder` hold the files of `artifact`, and gives that folder.
///
/// Files are hard links where the file system can, so they take no room and stay when the cache is
/// cleared. Measured files (see [`is_measured`]) are left out. A folder that holds this artifact
/// already is left as it is.
pub(super) fn checkpoint(
    artifact: &Artifact,
    run_folder: &Path,
    stage: &str,
) -> io::Result<PathBuf> {
    let folder = run_folder.join("checkpoints");
    let place = folder.join(stage);
    if holds(&place, &artifact.record) {
        return Ok(place);
    }
    fs::create_dir_all(&folder)?;
    // The run folder is this process's alone, so these are a killed one's.
    atomic_file::remove_leftovers(&folder)?;
    let partial = folder.join(format!(".{stage}{}", atomic_file::PARTIAL));
    for name in artifact.record.files.keys().filter(|name| !is_measured(name)) {
        let (from, to) = (artifact.output.join(name), partial.join(name));
        fs::create_dir_all(to.parent().unwrap_or(&partial))?;
        if fs::hard_link(&from, &to).is_err() {
            // Another file system, or one without hard links: a copy does as well.
            fs::copy(&from, &to)?;
        }
    }
    let record = serde_json::to_vec_pretty(&artifact.record)?;
    atomic_file::write(&partial.join("artifact.json"), &record)?;
    let old = folder.join(format!(".{stage}.old{}", atomic_file::PARTIAL));
    if place.exists() {
        fs::rename(&place, &old)?;
    }
    atomic_file::rename_folder(&partial, &place)?;
    if old.exists() {
        fs::remove_dir_all(&old)?;
    }
    Ok(place)
}

/// Folder of the run folder in which failed evaluations keep what they had computed.
const FAILED: &str = "failed";

/// Copies the files in `output` to `failed/STAGE` of `run_folder`, in place of earlier ones, and
/// gives that folder.
pub(super) fn failed(output: &Path, run_folder: &Path, stage: &str) -> io::Result<PathBuf> {
    let place = run_folder.join(FAILED).join(stage);
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::create_dir_all(&place)?;
    for (name, path) in crate::base::digest::files_below(output)? {
        let target = place.join(name);
        fs::create_dir_all(target.parent().unwrap_or(&place))?;
        fs::copy(&path, &target)?;
    }
    Ok(place)
}

/// Whether `place` holds the output that `record` tells of: same digest, every file in its size.
fn holds(place: &Path, record: &Record) -> bool {
    let read = fs::read(place.join("artifact.json")).unwrap_or_default();
    let same = serde_json::from_slice::<Record>(&read).is_ok_and(|there| {
        there.fingerprint == record.fingerprint && there.output == record.output
    });
    let whole = |(name, file): (&String, &crate::artifacts::FileRecord)| {
        let size = fs::metadata(place.join(name)).map(|metadata| metadata.len());
        is_measured(name) || size.is_ok_and(|size| size == file.size)
    };
    same && record.files.iter().all(whole)
}

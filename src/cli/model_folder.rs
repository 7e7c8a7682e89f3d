//! Where the trained model of a run lies, and why a run has none.

use super::closing;
use super::failure::Failure;
use super::run_folder::RECIPE;
use super::unfinished;
use crate::report::runs::Progress;
use crate::report::summary::{self, RunState, StageState};
use crate::stages;
use std::path::{Path, PathBuf};

/// The folder that holds `checkpoint/`: the path itself, its parent, or the last training of a run.
pub(super) fn of(path: &Path) -> Result<PathBuf, Failure> {
    found(path).ok_or_else(|| none(path))
}

/// Whether a run has written into `folder`.
pub(super) fn is_run(folder: &Path) -> bool {
    folder.join(RECIPE).is_file() || folder.join("checkpoints").is_dir()
}

fn found(path: &Path) -> Option<PathBuf> {
    if has_checkpoint(path) {
        return Some(path.to_owned());
    }
    if path.join("manifest.json").is_file() {
        let parent = path.parent().filter(|parent| has_checkpoint(parent));
        return Some(parent.unwrap_or(path).to_owned());
    }
    if stages::is_checkpoint(path) {
        return Some(path.to_owned());
    }
    let trained = path.join("checkpoints");
    let summary = summary::read(path);
    let stages = summary.iter().flat_map(|summary| summary.stages.iter().rev());
    let mut named = stages.map(|stage| trained.join(&stage.name));
    named.find(|folder| has_checkpoint(folder)).or_else(|| newest_in(&trained))
}

fn has_checkpoint(folder: &Path) -> bool {
    folder.join("checkpoint").is_dir()
}

/// The model that was put into `checkpoints` last, of a run that has not told of its stages.
fn newest_in(checkpoints: &Path) -> Option<PathBuf> {
    let put = |folder: &PathBuf| folder.join("artifact.json").metadata()?.modified();
    let folders = folders(checkpoints).into_iter().filter(|folder| has_checkpoint(folder));
    folders.max_by_key(|folder| put(folder).ok())
}

/// Folders in `folder` whose name does not hide them.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let seen = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    seen.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Says why there is no model at `path`, and where one may be.
fn none(path: &Path) -> Failure {
    let message = format!("`{}` holds no checkpoint", path.display());
    if !is_run(path) {
        let help = "give a run folder (`sft-run runs` lists them) or one of its `checkpoints/…`";
        return Failure::wrong(message, help);
    }
    let (why, help) = standing(path);
    let help = match older(path) {
        Some(older) => format!("`{}` has one", older.display()),
        None => help,
    };
    Failure::wrong(format!("{message}: {why}"), help)
}

/// Why the run in `folder` has no model, and what to do.
fn standing(folder: &Path) -> (String, String) {
    let (summary, progress) = match unfinished::of(folder) {
        Some(run) => (Some(run.summary), Some(run.progress)),
        None => (summary::read(folder), None),
    };
    if let Some(output) = summary.as_ref().and_then(|summary| closing::trained(summary, folder)) {
        let help = format!("`{}` has it, as long as the cache is not cleared", output.display());
        return ("its run left the model in the cache".to_owned(), help);
    }
    let place = progress.as_ref().and_then(Progress::place);
    let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
    let mut stages = summary.iter().flat_map(|summary| &summary.stages);
    let trained =
        stages.any(|stage| stage.kind == "train" && stage.state != StageState::NotReached);
    let again = "start it again, or give another run (`sft-run runs` lists them)";
    let (why, help) = match summary.as_ref().map(|summary| summary.state) {
        Some(RunState::Running) => (
            format!("its run has not written one yet{place}"),
            "wait for it, or give another run (`sft-run runs` lists them)",
        ),
        Some(RunState::Interrupted) => (
            format!("its run was interrupted before it wrote one{place}"),
            "start the run's command again to continue it",
        ),
        Some(RunState::Done | RunState::UpToDate) if trained => {
            ("its run's model is not in the cache any more".to_owned(), again)
        }
        Some(RunState::Done | RunState::UpToDate) => (
            "its run trained no model".to_owned(),
            "give a run that trains one (`sft-run runs` lists them)",
        ),
        Some(RunState::Failed) | None => ("its run failed before it wrote one".to_owned(), again),
    };
    (why, help.to_owned())
}

/// The newest run with a model among those that were set aside in `folder`.
fn older(folder: &Path) -> Option<PathBuf> {
    let aside = folders(folder).into_iter().filter_map(|path| {
        let number: u64 = path.file_name()?.to_str()?.strip_prefix("run_")?.parse().ok()?;
        found(&path)?;
        let started = summary::read(&path).map(|summary| summary.started).unwrap_or_default();
        Some(((started, number), path))
    });
    aside.max_by(|one, other| one.0.cmp(&other.0)).map(|(_, path)| path)
}

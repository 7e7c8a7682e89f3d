//! Which checkpoints are kept beside the last: the best by a number of training, as NeMo keeps them.

use crate::base::atomic_file;
use crate::base::file_pattern::FilePattern;
use crate::checkpoint::manifest::Progress;
use crate::checkpoint::native::Checkpoint;
use crate::spec::job::{Keep, TrainJob};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Their folder in the stage's output.
pub const KEPT_FOLDER: &str = "kept";

/// The kept checkpoints of a run.
#[derive(Debug)]
pub(super) struct Keeper {
    keep: Keep,
    pattern: FilePattern,
    folder: PathBuf,
    kept: Vec<Kept>,
}

#[derive(Clone, Debug)]
struct Kept {
    score: f64,
    step: u64,
    path: PathBuf,
}

/// A checkpoint that is to be kept, and those that go for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placing {
    /// Its folder.
    path: PathBuf,
    /// Worse ones.
    evicted: Vec<PathBuf>,
}

impl Keeper {
    /// What is kept in the output folder of a run that goes on from `resumed`, if the job keeps any.
    ///
    /// Later ones are removed, for the run makes them again.
    pub(super) fn open(
        job: &TrainJob,
        output: &Path,
        resumed: Option<&Checkpoint>,
    ) -> io::Result<Option<Keeper>> {
        let Some(keep) = &job.stage.keep else { return Ok(None) };
        let header = resumed.map(|checkpoint| &checkpoint.manifest().header);
        let progress = header.map(|header| header.progress).unwrap_or_default();
        let mut keeper = Keeper::of(keep, output, progress.step)?;
        // A kill may have come between this checkpoint and its being kept.
        if let Some(checkpoint) = resumed
            && let Some(score) = header.and_then(|header| header.training.as_ref()?.score)
            && let Some(placing) = keeper.offer(progress, score)
        {
            placing.carry_out(checkpoint.folder())?;
        }
        Ok(Some(keeper))
    }

    fn of(keep: &Keep, output: &Path, step: u64) -> io::Result<Keeper> {
        let folder = output.join(KEPT_FOLDER);
        // The recipe's rules have read the pattern.
        let pattern = FilePattern::parse(&keep.filename).map_err(io::Error::other)?;
        let mut kept = Vec::new();
        if folder.exists() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                match scored(&path).filter(|found| found.step <= step) {
                    Some(found) => kept.push(found),
                    None => fs::remove_dir_all(&path)?,
                }
            }
        }
        kept.sort_by_key(|found| found.step);
        Ok(Keeper { keep: keep.clone(), pattern, folder, kept })
    }

    /// Where the checkpoint of `progress` is kept, if it is among the best so far.
    pub(super) fn offer(&mut self, progress: Progress, score: f64) -> Option<Placing> {
        let step = progress.step;
        if self.kept.iter().any(|kept| kept.step == step) {
            return None;
        }
        let mut evicted = Vec::new();
        if usize::try_from(self.keep.save_top_k).is_ok_and(|most| self.kept.len() >= most) {
            let worst = self.worst()?;
            if !self.is_better(score, self.kept[worst].score) {
                return None;
            }
            evicted.push(self.kept.remove(worst).path);
        }
        let value = |name: &str| match name {
            "step" => step as f64,
            "consumed_samples" => progress.consumed_samples as f64,
            _ => score,
        };
        let path = self.folder.join(self.pattern.format(value));
        self.kept.push(Kept { score, step, path: path.clone() });
        Some(Placing { path, evicted })
    }

    /// Puts the best one in the place of checkpoint `target`, if it is to be the result.
    pub(super) fn put_best(&self, target: &Path) -> io::Result<()> {
        let Some(best) = self.result() else { return Ok(()) };
        let begun = atomic_file::begin_copy(best, target)?;
        atomic_file::remove_folder(target)?;
        atomic_file::rename_folder(&begun, target)
    }

    fn result(&self) -> Option<&Path> {
        let mut kept = self.kept.iter();
        let mut best = kept.next()?;
        for other in kept {
            if self.is_better(other.score, best.score) {
                best = other;
            }
        }
        self.keep.save_best_model.then_some(&best.path)
    }

    /// The place of the worst in the list; of equals, the latest.
    fn worst(&self) -> Option<usize> {
        let mut worst = 0;
        for (place, other) in self.kept.iter().enumerate().skip(1) {
            if !self.is_better(other.score, self.kept[worst].score) {
                worst = place;
            }
        }
        (!self.kept.is_empty()).then_some(worst)
    }

    fn is_better(&self, score: f64, than: f64) -> bool {
        if self.keep.more_is_better { score > than } else { score < than }
    }
}

fn scored(path: &Path) -> Option<Kept> {
    let checkpoint = Checkpoint::open(path).ok()?;
    let header = &checkpoint.manifest().header;
    let score = header.training.as_ref()?.score?;
    Some(Kept { score, step: header.progress.step, path: path.to_owned() })
}

impl Placing {
    /// Puts the checkpoint `from` there, sharing its files, and removes those that go for it.
    pub(super) fn carry_out(&self, from: &Path) -> io::Result<()> {
        let begun = atomic_file::begin_copy(from, &self.path)?;
        for path in self.evicted.iter().filter(|path| path.exists()) {
            atomic_file::remove_folder(path)?;
        }
        atomic_file::rename_folder(&begun, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::job::Monitor;

    fn keeper(save_top_k: i64, more_is_better: bool) -> Keeper {
        let filename = "gpt--{val_loss:.2f}-{step}-{consumed_samples:.1f}".to_owned();
        let monitor = Monitor::ValLoss;
        let keep = Keep { save_top_k, monitor, more_is_better, filename, save_best_model: true };
        Keeper::of(&keep, Path::new("none"), 0).unwrap()
    }

    /// Names of what is kept after these scores at steps 1, 2, ….
    fn after(keeper: &mut Keeper, scores: &[f64]) -> Vec<u64> {
        for (step, score) in (1..).zip(scores) {
            keeper.offer(Progress { step, consumed_samples: step * 8 }, *score);
        }
        keeper.kept.iter().map(|kept| kept.step).collect()
    }

    #[test]
    fn the_best_stay_and_the_earlier_of_equals() {
        let scores = [3.0, 2.0, 2.0, 2.5, 1.0];
        assert_eq!(after(&mut keeper(1, false), &scores), [5]);
        assert_eq!(after(&mut keeper(2, false), &scores), [2, 5]);
        assert_eq!(after(&mut keeper(2, true), &scores), [1, 4]);
        assert_eq!(after(&mut keeper(-1, false), &scores), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn names_tell_the_score_and_nothing_is_kept_twice() {
        let mut keeper = keeper(1, false);
        let progress = Progress { step: 4, consumed_samples: 32 };
        let placing = keeper.offer(progress, 2.306).unwrap();
        let name = "gpt--val_loss=2.31-step=4-consumed_samples=32.0";
        assert_eq!(placing.path, Path::new("none/kept").join(name));
        assert_eq!(keeper.offer(progress, 2.306), None);
        let better = keeper.offer(Progress { step: 6, consumed_samples: 48 }, 2.0).unwrap();
        assert_eq!(better.evicted, [placing.path]);
        assert_eq!(keeper.result(), Some(better.path.as_path()));
    }
}

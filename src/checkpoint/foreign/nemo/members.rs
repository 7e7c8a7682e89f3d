//! The files of a NeMo or Megatron-LM checkpoint, in an archive or a folder.

use crate::base::mapped_file::MappedFile;
use crate::checkpoint::foreign::archive;
use crate::checkpoint::foreign::stored::Piece;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Names of a rank's weights.
const WEIGHTS: [&str; 2] = ["model_weights.ckpt", "model_optim_rng.pt"];
const SETTINGS: &str = "model_config.yaml";
const LATEST: &str = "latest_checkpointed_iteration.txt";

/// A rank of the layout that it was saved at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) pipeline: usize,
    pub(super) tensor: usize,
}

/// The files.
#[derive(Debug)]
pub(super) struct Members {
    /// Every file that may matter, by its path in the checkpoint.
    files: BTreeMap<String, Piece>,
    /// The weights of each rank.
    pub(super) ranks: BTreeMap<Rank, Piece>,
}

/// Finds the files at `path`: an archive, its unpacked folder, ranks' folders, or Megatron-LM's
/// folder of iterations, of which the latest is taken.
pub(super) fn find(path: &Path) -> Result<Members, String> {
    let files = if path.is_dir() { folder(&latest(path)?)? } else { archive::members(path)? };
    if files.keys().any(|name| name.ends_with(".distcp") || name.ends_with(".metadata")) {
        return Err("it is saved as a distributed checkpoint (torch_dist), which is not read: \
                    convert it with NeMo to one file per rank"
            .to_owned());
    }
    let mut ranks = BTreeMap::new();
    for (name, file) in &files {
        if let Some(rank) = rank(name)
            && ranks.insert(rank, file.clone()).is_some()
        {
            return Err(format!("two of its files are weights of one rank, one is `{name}`"));
        }
    }
    if ranks.is_empty() {
        return Err(format!("it has no {}", WEIGHTS.join(" and no ")));
    }
    Ok(Members { files, ranks })
}

/// Megatron-LM's latest iteration below `path`, or `path` itself.
fn latest(path: &Path) -> Result<PathBuf, String> {
    let Ok(text) = fs::read_to_string(path.join(LATEST)) else { return Ok(path.to_owned()) };
    let name = match text.trim() {
        "release" => "release".to_owned(),
        number => {
            let number: u64 =
                number.parse().map_err(|_| format!("its {LATEST} says `{number}`"))?;
            format!("iter_{number:07}")
        }
    };
    Ok(path.join(name))
}

/// The files of a folder and of its folders of ranks.
fn folder(path: &Path) -> Result<BTreeMap<String, Piece>, String> {
    let cannot = |error: std::io::Error| format!("it cannot be read: {error}");
    let mut files = BTreeMap::new();
    let entries = fs::read_dir(path).map_err(cannot)?;
    for entry in entries {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().map_err(cannot)?;
        if kind.is_dir() && (is_rank_folder(&name) || name == "model_weights") {
            for inner in fs::read_dir(entry.path()).map_err(cannot)? {
                let inner = inner.map_err(cannot)?;
                let file = inner.file_name().to_string_lossy().into_owned();
                let wanted = WEIGHTS.contains(&file.as_str()) || file.ends_with(".distcp");
                if wanted && inner.path().is_file() {
                    files.insert(format!("{name}/{file}"), mapped(&inner.path())?);
                }
            }
        } else if entry.path().is_file() && entry.metadata().map_err(cannot)?.len() > 0 {
            files.insert(name, mapped(&entry.path())?);
        }
    }
    Ok(files)
}

fn mapped(path: &Path) -> Result<Piece, String> {
    let file = MappedFile::open(path);
    let file = file.map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    Ok(Piece::whole(file))
}

fn is_rank_folder(name: &str) -> bool {
    name.starts_with("mp_rank_") || name.starts_with("tp_rank_")
}

/// The rank that a file holds the weights of: `mp_rank_TT`, `mp_rank_TT_PPP` (Megatron-LM),
/// `tp_rank_TT_pp_rank_PPP` (NeMo), or no folder at all.
fn rank(name: &str) -> Option<Rank> {
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    if !WEIGHTS.contains(&file) {
        return None;
    }
    if folder.is_empty() {
        return Some(Rank { pipeline: 0, tensor: 0 });
    }
    let number = |text: &str| text.parse::<usize>().ok().filter(|rank| *rank < 1 << 16);
    if let Some(numbers) = folder.strip_prefix("mp_rank_") {
        let (tensor, pipeline) = numbers.split_once('_').unwrap_or((numbers, "0"));
        return Some(Rank { pipeline: number(pipeline)?, tensor: number(tensor)? });
    }
    let (tensor, pipeline) = folder.strip_prefix("tp_rank_")?.split_once("_pp_rank_")?;
    Some(Rank { pipeline: number(pipeline)?, tensor: number(tensor)? })
}

impl Members {
    /// Tensor- and pipeline-parallel ranks; all must be there.
    pub(super) fn layout(&self) -> Result<(usize, usize), String> {
        let tensor = self.ranks.keys().map(|rank| rank.tensor + 1).max().unwrap_or(0);
        let pipeline = self.ranks.keys().map(|rank| rank.pipeline + 1).max().unwrap_or(0);
        for stage in 0..pipeline {
            for rank in 0..tensor {
                let wanted = Rank { pipeline: stage, tensor: rank };
                if !self.ranks.contains_key(&wanted) {
                    return Err(format!("the weights of {wanted} are missing"));
                }
            }
        }
        Ok((tensor, pipeline))
    }

    /// The text of `model_config.yaml`, if there is one.
    pub(super) fn settings(&self) -> Option<Result<String, String>> {
        let bytes = self.files.get(SETTINGS)?;
        let text = String::from_utf8(bytes.to_vec());
        Some(text.map_err(|_| format!("its {SETTINGS} is not UTF-8")))
    }

    /// The tokenizer's files among the members, by the names that recipes give them: settings name
    /// them as `nemo:HASH_NAME`.
    pub(super) fn tokenizer(&self, settings: &Map<String, Value>) -> BTreeMap<String, Vec<u8>> {
        let keys: BTreeSet<&str> = ["model", "vocab_file", "merge_file"].into();
        let file = |key: &&str| {
            let name = settings.get(*key)?.as_str()?;
            let bytes = self.files.get(name.strip_prefix("nemo:").unwrap_or(name))?;
            Some((format!("tokenizer.{key}"), bytes.to_vec()))
        };
        keys.iter().filter_map(file).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Rank, rank};

    #[test]
    fn folders_of_ranks() {
        let check = |name: &str, expected: Option<(usize, usize)>| {
            let expected = expected.map(|(tensor, pipeline)| Rank { pipeline, tensor });
            assert_eq!(rank(name), expected, "{name}");
        };
        check("model_weights.ckpt", Some((0, 0)));
        check("mp_rank_03/model_weights.ckpt", Some((3, 0)));
        check("mp_rank_01_002/model_optim_rng.pt", Some((1, 2)));
        check("tp_rank_11_pp_rank_004/model_weights.ckpt", Some((11, 4)));
        check("tp_rank_x_pp_rank_004/model_weights.ckpt", None);
        check("model_config.yaml", None);
        check("elsewhere/model_weights.ckpt", None);
    }
}

//! Which program wrote a checkpoint, told from what lies in the folder.

use std::fmt;
use std::path::{Path, PathBuf};

/// A checkpoint's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Ours: `manifest.json` and files of pieces.
    Native,
    /// Hugging Face: `config.json` and weights.
    HuggingFace,
    /// A `.nemo` archive, or its unpacked folder.
    Nemo,
    /// Megatron-LM's `latest_checkpointed_iteration.txt` and `iter_*` folders.
    Megatron,
    /// A GGUF file.
    Gguf,
    /// Folders or files of one rank each, as NeMo and Megatron-LM write them.
    RankShards,
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Format::Native => "a native checkpoint",
            Format::HuggingFace => "a Hugging Face checkpoint",
            Format::Nemo => "a NeMo checkpoint",
            Format::Megatron => "a Megatron-LM checkpoint",
            Format::Gguf => "a GGUF file",
            Format::RankShards => "a checkpoint cut into ranks (`mp_rank_*` or `tp_rank_*`)",
        })
    }
}

/// The format of what lies at `path`, and the file or folder that told; none when it is unknown.
///
/// A stage's output counts as the checkpoint in it.
pub fn detect(path: &Path) -> Option<(Format, PathBuf)> {
    for folder in [path.to_owned(), path.join("checkpoint")] {
        if folder.join("manifest.json").is_file() {
            return Some((Format::Native, folder));
        }
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    let has = |name: &str| path.join(name).exists();
    let format = match extension {
        Some("nemo") => Format::Nemo,
        Some("gguf") => Format::Gguf,
        _ if has("model_config.yaml") => Format::Nemo,
        _ if has("latest_checkpointed_iteration.txt") => Format::Megatron,
        _ if has("config.json") => Format::HuggingFace,
        _ if has("model_weights.ckpt") || has("model_optim_rng.pt") => Format::RankShards,
        _ if has_rank_folder(path) => Format::RankShards,
        _ => return None,
    };
    Some((format, path.to_owned()))
}

fn has_rank_folder(path: &Path) -> bool {
    let Ok(entries) = path.read_dir() else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("mp_rank_") || name.starts_with("tp_rank_")
    })
}

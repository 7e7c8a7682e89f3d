//! What a run of the plan would need and does not have.

use super::estimate::too_large;
use super::outside::{self, Facts};
use super::stage::Missing;
use crate::recipe::{CheckedRecipe, NamedStage};
use crate::spec::job::Job;
use crate::spec::recipe::{DataPrefix, Model, Stage, Weighted};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The ready token files of a blend; none when the recipe names no such files. A file of weight 0
/// is not part of it.
pub(super) fn blend(model: &Model) -> Option<Vec<Weighted>> {
    match model.data.as_ref()?.data_prefix.as_ref()? {
        DataPrefix::Blend(files) if !files.is_empty() => {
            Some(files.iter().filter(|file| file.weight > 0.0).cloned().collect())
        }
        _ => None,
    }
}

/// Everything that a run would lack, in the order in which stages need it; `jobs` are those of the
/// recipe's stages.
pub(super) fn missing<'a>(
    recipe: &CheckedRecipe,
    jobs: impl Iterator<Item = &'a Job>,
    facts: &Facts,
) -> Vec<Missing> {
    let mut found = Vec::new();
    for (stage, job) in recipe.stages().iter().zip(jobs) {
        found.extend(devices(stage, facts));
        found.extend(files(recipe, stage, facts));
        found.extend(data(stage));
        found.extend(tokenizer(recipe, stage));
        found.extend(checkpoint(recipe, stage, (job, facts)));
        found.extend(unusable(recipe, stage, (job, facts)));
        if let Job::Train(job) = job {
            found.extend(too_large(job, &stage.settings.trainer, facts));
        }
        found.extend(facts.refusals.map(|refusals| refusals(job)).unwrap_or_default());
    }
    let mut once: Vec<Missing> = Vec::new();
    for one in found {
        if !once.contains(&one) {
            once.push(one);
        }
    }
    once
}

fn devices(stage: &NamedStage, facts: &Facts) -> Option<Missing> {
    let trainer = &stage.settings.trainer;
    let computes = !matches!(stage.stage, Stage::Tokenize(_) | Stage::Shard(_) | Stage::Load(_));
    let wanted = trainer.devices.unwrap_or(1);
    if !computes || !trainer.on_gpu() || facts.gpus >= wanted {
        return None;
    }
    let here = match facts.gpus {
        _ if !facts.built_for_gpus => "and this build computes on the CPU only".to_owned(),
        0 => "none that the driver lists is here (`sft-run doctor` tells more)".to_owned(),
        gpus => format!("{gpus} here"),
    };
    let s = if wanted == 1 { "" } else { "s" };
    let first = if facts.built_for_gpus {
        "run it on such a machine"
    } else {
        "build with `cargo build --release --features cuda` on a machine with CUDA"
    };
    Some(Missing {
        what: format!("{wanted} GPU{s} per node, {here}"),
        key: "trainer.accelerator".to_owned(),
        help: format!(
            "{first}, or set trainer.accelerator=cpu trainer.devices=1 trainer.num_nodes=1 and \
             the model parallel sizes to 1"
        ),
    })
}

/// A checkpoint that is there and cannot be loaded; the key is the one that names it.
fn checkpoint(
    recipe: &CheckedRecipe,
    stage: &NamedStage,
    (job, facts): (&Job, &Facts),
) -> Option<Missing> {
    let resumed = outside::resumed(recipe, stage);
    let written = outside::checkpoint(recipe, stage);
    let written = written.or_else(|| resumed.as_ref().map(|(_, path)| path.clone()))?;
    let path = recipe.folder().join(written);
    let name = if resumed.is_some() { "resume" } else { "checkpoint" };
    let missing = refused(job, name, &path, facts)?;
    if let Some((key, _)) = resumed {
        return Some(Missing { key: key.to_owned(), ..missing });
    }
    let of_stage = matches!(&stage.stage, Stage::Load(load) if load.restore_from_path.is_some());
    let own = stage.path.as_ref().filter(|_| of_stage);
    let key = own.map_or(missing.key, |own| format!("{own}.restore_from_path"));
    Some(Missing { key, ..missing })
}

/// Rows, prompts and metrics' files that are there and cannot be used; the key is the one that names
/// them.
fn unusable(
    recipe: &CheckedRecipe,
    stage: &NamedStage,
    (job, facts): (&Job, &Facts),
) -> Vec<Missing> {
    let inputs = outside::inputs(recipe, stage).into_iter();
    // Checkpoints have more than one key.
    let inputs = inputs.filter(|(name, _)| noun(name) != "checkpoint");
    let refused = inputs.filter_map(|(name, input)| {
        let missing = refused(job, &name, &input.path, facts)?;
        Some(Missing { key: key(stage, &name), ..missing })
    });
    refused.collect()
}

/// What the stage's input `name` at `path`, which is there, is refused for.
fn refused(job: &Job, name: &str, path: &Path, facts: &Facts) -> Option<Missing> {
    facts.input.filter(|_| outside::exists(facts, path))?(job, name, path)
}

/// Files that do not exist, one entry for each key that names some.
fn files(recipe: &CheckedRecipe, stage: &NamedStage, facts: &Facts) -> Vec<Missing> {
    let mut inputs = outside::inputs(recipe, stage);
    inputs.retain(|name, _| !outside::is_optional(name));
    if needs_vocabulary(stage) {
        inputs.extend(outside::tokenizer_files(recipe.folder(), &stage.settings.model));
    }
    let mut gone: BTreeMap<String, (&'static str, BTreeSet<PathBuf>)> = BTreeMap::new();
    for (name, input) in inputs {
        for path in input.files().into_iter().filter(|path| !outside::exists(facts, path)) {
            let key = match outside::resumed(recipe, stage).filter(|_| name == "resume") {
                Some((key, _)) => key.to_owned(),
                None => key(stage, &name),
            };
            gone.entry(key).or_insert((noun(&name), BTreeSet::new())).1.insert(path);
        }
    }
    let folder = shown(recipe.folder());
    let missing = |(key, (noun, paths)): (String, (&str, BTreeSet<PathBuf>))| {
        let mut names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        names.sort_by_cached_key(|name| natural(name));
        let (first, last) = (names.first()?, names.last()?);
        let (what, them) = match names.len() {
            1 => (format!("{noun} `{first}`"), "it"),
            2 => (format!("2 {noun}s, `{first}` and `{last}`"), "them"),
            count => (format!("{count} {noun}s, `{first}` to `{last}`"), "them"),
        };
        let found = paths.iter().next().filter(|_| names.len() == 1);
        let help = match found.and_then(|path| facts.elsewhere.get(path)) {
            Some(found) => format!(
                "paths are relative to the recipe's folder, `{folder}`: set {key} to `{}`",
                found.display()
            ),
            None => format!(
                "put {them} there, or set {key} (relative to the recipe's folder, `{folder}`)"
            ),
        };
        Some(Missing { what, key, help })
    };
    gone.into_iter().filter_map(missing).collect()
}

/// A key that puts `part_10` after `part_9`: runs of digits count as numbers.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = vec![(String::new(), 0_u64)];
    let mut in_number = false;
    for letter in name.chars() {
        let digit = letter.to_digit(10);
        if in_number && digit.is_none() {
            parts.push((String::new(), 0));
        }
        in_number = digit.is_some();
        if let Some((text, number)) = parts.last_mut() {
            match digit {
                Some(digit) => *number = number.saturating_mul(10).saturating_add(digit.into()),
                None => text.push(letter),
            }
        }
    }
    parts
}

fn shown(folder: &Path) -> String {
    if folder.as_os_str().is_empty() { ".".to_owned() } else { folder.display().to_string() }
}

fn noun(input: &str) -> &'static str {
    match input.split('.').next() {
        Some("rows" | "choices") => "row file",
        Some("prefix") => "token file",
        Some("tokenizer") => "tokenizer file",
        Some("checkpoint" | "resume") => "checkpoint",
        Some("metrics" | "validate") => "metric's file",
        _ => "file",
    }
}

/// The recipe's key that names an input.
fn key(stage: &NamedStage, input: &str) -> String {
    let own = stage.path.as_ref().map(ToString::to_string);
    match (input.split_once('.').unwrap_or((input, "")), own) {
        (("rows", at), Some(own)) => format!("{own}.sources.{at}.rows"),
        (("rows", _), None) => "model.data.train_ds.file_names".to_owned(),
        (("prefix", _), _) => "model.data.data_prefix".to_owned(),
        (("tokenizer", file), _) => format!("model.tokenizer.{file}"),
        (("checkpoint", _), _) => "restore_from_path".to_owned(),
        (("choices", _), Some(own)) => format!("{own}.choices.rows"),
        (("metrics" | "validate", _), Some(own)) => format!("{own}.{input}"),
        ((input, _), Some(own)) => format!("{own}.{input}_file"),
        ((input, _), None) => input.to_owned(),
    }
}

fn data(stage: &NamedStage) -> Option<Missing> {
    let Stage::Train(train) = &stage.stage else { return None };
    if train.data.is_some() || blend(&stage.settings.model).is_some() {
        return None;
    }
    let data = stage.settings.model.data.as_ref();
    let what = match data.and_then(|data| data.data_prefix.as_ref()) {
        Some(DataPrefix::Placeholder(name)) => format!(
            "training data: `{name}` is a name that trlx's scripts gave a meaning, no files"
        ),
        _ => "training data: the recipe names none".to_owned(),
    };
    Some(Missing {
        what,
        key: "model.data.data_prefix".to_owned(),
        help: "set it to ready token files, `[1.0, PATH]` without `.bin`, or name rows in \
               model.data.train_ds.file_names"
            .to_owned(),
    })
}

fn tokenizer(recipe: &CheckedRecipe, stage: &NamedStage) -> Option<Missing> {
    let needs = outside::reads_tokenizer(recipe, stage) || needs_vocabulary(stage);
    if !needs || outside::tokenizer(&recipe.recipe().model).is_some() {
        return None;
    }
    Some(Missing {
        what: "the tokenizer's files: the recipe names none".to_owned(),
        key: "model.tokenizer".to_owned(),
        help: "set model.tokenizer.vocab_file and model.tokenizer.merge_file (library megatron), \
               or model.tokenizer.model (huggingface, sentencepiece)"
            .to_owned(),
    })
}

/// Whether the stage's job holds the model's shape, of which the vocabulary is a part.
fn needs_vocabulary(stage: &NamedStage) -> bool {
    matches!(stage.stage, Stage::Load(_) | Stage::Train(_))
}

#[cfg(test)]
mod tests {
    use super::natural;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = ["p_10.bin", "p_9.bin", "p_9.idx", "p.bin", "p_010b"];
        names.sort_by_cached_key(|name| natural(name));
        assert_eq!(names, ["p.bin", "p_9.bin", "p_9.idx", "p_10.bin", "p_010b"]);
    }
}

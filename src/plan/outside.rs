//! What planning must know of the world outside the recipe: which files it asks for, and the facts.

use super::lacks::blend;
use super::stage::{Missing, Outside};
use crate::base::digest::Digest;
use crate::recipe::problem::Problem;
use crate::recipe::{CheckedRecipe, NamedStage};
use crate::spec::job::{Job, TokenizerKind};
use crate::spec::recipe::choice::TokenizerLibrary;
use crate::spec::recipe::{MetricChoice, Model, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a recipe asks the outside for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Every file and folder whose hash planning needs, in name order.
    pub files: Vec<PathBuf>,
    /// The recipe's folder, to which paths in the recipe are relative.
    pub folder: PathBuf,
    /// The tokenizer: its kind and its files by the names that jobs give them.
    pub tokenizer: Option<(TokenizerKind, BTreeMap<String, PathBuf>)>,
    /// Whether a stage asks for GPUs.
    pub gpus: bool,
}

/// Why a stage cannot use its input of a name, which lies at a path, if it cannot.
pub type InputRefusal = fn(&Job, &str, &Path) -> Option<Missing>;

/// What is known of the outside. Planning reads nothing itself.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Hashes of the files of [`Wanted`] that exist.
    pub digests: BTreeMap<PathBuf, Digest>,
    /// Files that do not exist, and the ones that do when their path is taken to be relative to the
    /// folder in which the program was started: paths that a recipe can name them by.
    pub elsewhere: BTreeMap<PathBuf, PathBuf>,
    /// Number of ids of the tokenizer, when its files exist.
    pub vocab_size: Option<usize>,
    /// GPUs that this build of the program can use on this machine.
    pub gpus: usize,
    /// Whether this build has code for GPUs.
    pub built_for_gpus: bool,
    /// Bytes of one GPU's memory, when it is known.
    pub gpu_memory: Option<u64>,
    /// Bytes of this machine's memory, when it is known.
    pub host_memory: Option<u64>,
    /// What of a job this build of the program cannot do; none refuses nothing.
    pub refusals: Option<fn(&Job) -> Vec<Missing>>,
    /// Looks into the inputs of stages; none refuses nothing.
    pub input: Option<InputRefusal>,
}

/// What `recipe` asks the outside for.
pub fn wanted(recipe: &CheckedRecipe) -> Wanted {
    let mut files = BTreeSet::new();
    for stage in recipe.stages() {
        files.extend(inputs(recipe, stage).values().flat_map(Outside::files));
    }
    let tokenizer = tokenizer(&recipe.recipe().model).map(|(kind, named)| {
        let located = named.into_iter().map(|(name, written)| {
            let path = recipe.folder().join(written);
            files.insert(path.clone());
            (name, path)
        });
        (kind, located.collect())
    });
    let gpus = recipe.stages().iter().any(|stage| stage.settings.trainer.on_gpu());
    let folder = recipe.folder().to_path_buf();
    Wanted { files: files.into_iter().collect(), folder, tokenizer, gpus }
}

/// The inputs of a stage that come from files, by name; their hashes are not filled in.
pub(super) fn inputs(recipe: &CheckedRecipe, stage: &NamedStage) -> BTreeMap<String, Outside> {
    let mut named: Vec<(String, String)> = Vec::new();
    let mut prefixes = Vec::new();
    match &stage.stage {
        Stage::Tokenize(tokenize) => {
            let rows = tokenize.sources.iter().enumerate();
            named.extend(rows.map(|(at, source)| (format!("rows.{at}"), source.rows.clone())));
        }
        Stage::Load(_) => {
            let path = checkpoint(recipe, stage);
            named.extend(path.map(|path| ("checkpoint".to_owned(), path)));
        }
        Stage::Train(train) => {
            if train.data.is_none() {
                prefixes = blend(&stage.settings.model).unwrap_or_default();
            }
            let path = resumed(recipe, stage);
            named.extend(path.map(|(_, path)| ("resume".to_owned(), path)));
            if let Some(validate) = &train.validate {
                named.extend(metric_files(&validate.metrics, "validate.metrics"));
            }
        }
        Stage::Generate(generate) => {
            let path = generate.prompts_file.clone();
            named.extend(path.map(|path| ("prompts".to_owned(), path)));
        }
        Stage::Evaluate(evaluate) => {
            named.extend(metric_files(&evaluate.metrics, "metrics"));
            let rows = evaluate.choices.as_ref().map(|choices| choices.rows.clone());
            named.extend(rows.map(|rows| ("choices".to_owned(), rows)));
        }
        Stage::Shard(_) => {}
    }
    let folder = recipe.folder();
    let mut inputs: BTreeMap<_, _> =
        named.into_iter().map(|(name, written)| (name, outside(folder, written, &[]))).collect();
    if reads_tokenizer(recipe, stage) {
        inputs.extend(tokenizer_files(folder, &stage.settings.model));
    }
    for (at, file) in prefixes.into_iter().enumerate() {
        inputs.insert(format!("prefix.{at}"), outside(folder, file.prefix, &[".bin", ".idx"]));
    }
    inputs
}

/// The files of metrics, below the input's name `under`.
fn metric_files(metrics: &[MetricChoice], under: &str) -> Vec<(String, String)> {
    let of = |(number, metric): (usize, &MetricChoice)| -> Vec<(String, String)> {
        let files = metric.files().into_iter();
        files.map(|(name, path)| (format!("{under}.{number}.{name}"), path.to_owned())).collect()
    };
    metrics.iter().enumerate().flat_map(of).collect()
}

/// Whether an input counts only where it exists: a word of a metric's command may be any word.
pub(super) fn is_optional(input: &str) -> bool {
    input.contains(".command.")
}

fn outside(folder: &Path, written: String, endings: &'static [&'static str]) -> Outside {
    Outside { path: folder.join(&written), written, endings, digest: None }
}

/// The tokenizer's files by the names that jobs give them; none when the recipe names none.
pub(super) fn tokenizer_files(folder: &Path, model: &Model) -> BTreeMap<String, Outside> {
    let files = tokenizer(model).map(|(_, files)| files).unwrap_or_default();
    files.into_iter().map(|(name, written)| (name, outside(folder, written, &[]))).collect()
}

/// The checkpoint that a load stage restores, as the recipe writes it.
pub(super) fn checkpoint(recipe: &CheckedRecipe, stage: &NamedStage) -> Option<String> {
    let Stage::Load(load) = &stage.stage else { return None };
    let given = load.restore_from_path.as_deref();
    given.or_else(|| recipe.recipe().restore_from_path()).map(str::to_owned)
}

/// Whether a stage reads text with the recipe's tokenizer: to make samples, or because none goes
/// along with its model.
pub(super) fn reads_tokenizer(recipe: &CheckedRecipe, stage: &NamedStage) -> bool {
    match &stage.stage {
        Stage::Tokenize(_) => true,
        Stage::Generate(generate) => !has_tokenizer(recipe, &generate.model),
        Stage::Evaluate(evaluate) => {
            evaluate.choices.is_some() && !has_tokenizer(recipe, &evaluate.model)
        }
        Stage::Shard(_) | Stage::Load(_) | Stage::Train(_) => false,
    }
}

/// The checkpoint that a train stage continues from, as the recipe writes it, and the key of it.
pub(super) fn resumed(
    recipe: &CheckedRecipe,
    stage: &NamedStage,
) -> Option<(&'static str, String)> {
    let Stage::Train(_) = &stage.stage else { return None };
    let manager = recipe.recipe().exp_manager.resume_from_checkpoint.as_ref();
    let own = stage.settings.model.resume_from_checkpoint.as_ref();
    let own = own.map(|path| ("model.resume_from_checkpoint", path.clone()));
    own.or_else(|| manager.map(|path| ("exp_manager.resume_from_checkpoint", path.clone())))
}

/// Refuses a recipe of which several train stages would continue from a checkpoint.
pub(super) fn one_resumes(recipe: &CheckedRecipe) -> Result<(), Box<Problem>> {
    let resumed: Vec<_> =
        recipe.stages().iter().filter_map(|stage| resumed(recipe, stage)).collect();
    let [(key, _), _, ..] = resumed.as_slice() else { return Ok(()) };
    let path = key.split('.').fold(crate::recipe::path::Path::default(), |path, key| path.key(key));
    let message = "several train stages would continue from one checkpoint";
    let help = "say it in the stage that is meant: `with: {model: {resume_from_checkpoint: PATH}}`";
    Err(Box::new(Problem::error("plan::resume", message).about(path).help(help)))
}

/// Whether a tokenizer goes along with the output of the load or train stage `name`: one that was
/// trained on rows has it, one that was only loaded has not.
fn has_tokenizer(recipe: &CheckedRecipe, name: &str) -> bool {
    let found = recipe.stages().iter().find(|stage| stage.name == name);
    matches!(found.map(|stage| &stage.stage), Some(Stage::Train(train)) if train.data.is_some())
}

/// The tokenizer's kind and the files it needs, as the recipe writes them; none when the recipe
/// names no tokenizer that we have, or not its files.
pub(super) fn tokenizer(model: &Model) -> Option<(TokenizerKind, BTreeMap<String, String>)> {
    let given = model.tokenizer.as_ref()?;
    let (vocab, merges) = (given.vocab_file.as_deref(), given.merge_file.as_deref());
    // Hugging Face tokenizers are named by file, or by a folder in place of a repository.
    let hugging_face = given.model.as_deref().or(given.kind.as_deref());
    let (kind, files) = match given.library? {
        TokenizerLibrary::Megatron => (
            TokenizerKind::Gpt2Bpe,
            vec![("tokenizer.vocab_file", vocab), ("tokenizer.merge_file", merges)],
        ),
        TokenizerLibrary::HuggingFace => {
            (TokenizerKind::HuggingFace, vec![("tokenizer.model", hugging_face)])
        }
        TokenizerLibrary::SentencePiece => {
            (TokenizerKind::SentencePiece, vec![("tokenizer.model", given.model.as_deref())])
        }
        _ => return None,
    };
    let named = |(name, path): (&str, Option<&str>)| Some((name.to_owned(), path?.to_owned()));
    Some((kind, files.into_iter().map(named).collect::<Option<_>>()?))
}

/// Whether `path` was hashed.
pub(super) fn exists(facts: &Facts, path: &Path) -> bool {
    facts.digests.contains_key(path)
}

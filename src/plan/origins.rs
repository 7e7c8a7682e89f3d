//! From a setting of a job back to the line of the recipe that decided it.

use super::fingerprint;
use super::stage::Stage;
use crate::recipe::path::{Path, Step};
use crate::recipe::place::{Marks, Origin};
use crate::recipe::{CheckedRecipe, NamedStage};
use serde_json::Value;
use std::collections::BTreeMap;

/// Where each setting of `planned` was written, by its path in the job; defaults have no entry.
pub(super) fn of(
    recipe: &CheckedRecipe,
    stage: &NamedStage,
    planned: &Stage,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect(&fingerprint::settings(planned), &Path::default(), &mut |path| {
        let marks = recipe_path(stage, path).and_then(|written| nearest(recipe, stage, &written));
        if let Some(text) = marks.and_then(|marks| text(&marks.value)) {
            found.insert(path.to_string(), text);
        }
    });
    found
}

fn collect(value: &Value, path: &Path, each: &mut impl FnMut(&Path)) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, item)| collect(item, &path.key(key), each));
        }
        Value::Array(items) if !items.is_empty() => {
            let numbered = items.iter().enumerate();
            numbered.for_each(|(at, item)| collect(item, &path.index(at), each));
        }
        _ => each(path),
    }
}

/// The recipe's path of a job's setting: the same one, but where the job groups or renames.
fn recipe_path(stage: &NamedStage, path: &Path) -> Option<Path> {
    let keys: Vec<&str> = path.0.iter().map(word).collect();
    let renamed: Vec<&str> = match keys.as_slice() {
        ["model", "architecture", "vocab_size"] => vec!["model", "tokenizer"],
        ["model", "architecture", "padded_vocab_size"]
            if stage.settings.model.padded_vocab_size.is_none() =>
        {
            vec!["model", "make_vocab_size_divisible_by"]
        }
        ["model", "architecture", rest @ ..] => [&["model"], rest].concat(),
        ["model", "tokenizer"] => vec!["model", "tokenizer", "library"],
        ["model", "chat_template"] => vec!["model", "tokenizer", "chat_template"],
        ["model", "restore"] => vec!["restore_from_path"],
        ["model", "frozen", ..] if stage.settings.model.frozen.is_none() => {
            vec!["model", "num_layers_unfrozen"]
        }
        ["model", "data", "source", ..] => vec!["model", "data", "data_prefix"],
        ["model", "data", "shuffle"] => vec!["model", "data", "dataloader_type"],
        ["model", "optim", "do_layer_norm_weight_decay"] => {
            vec!["model", "do_layer_norm_weight_decay"]
        }
        ["trainer", "degrees", "data"] => vec!["trainer", "devices"],
        ["trainer", "degrees", "tensor"] => vec!["model", "tensor_model_parallel_size"],
        ["trainer", "degrees", "pipeline"] => vec!["model", "pipeline_model_parallel_size"],
        ["trainer", "degrees", "virtual_pipeline"] => {
            vec!["model", "virtual_pipeline_model_parallel_size"]
        }
        ["trainer", "degrees", "sequence"] => vec!["model", "sequence_parallel"],
        ["stage", "nemo", ..] => {
            vec!["exp_manager", "checkpoint_callback_params", "save_nemo_on_train_end"]
        }
        ["stage", ..] => return own_path(stage, path),
        _ => return Some(path.clone()),
    };
    Some(renamed.into_iter().fold(Path::default(), |path, key| path.key(key)))
}

/// A setting of the stage's own: below its place in `stages`, without the job's names of forms.
fn own_path(stage: &NamedStage, path: &Path) -> Option<Path> {
    let forms = ["by_hash", "all", "format", "templates", "nemo"];
    let steps = path.0.iter().skip(1).filter(|step| !forms.contains(&word(step)));
    let renamed = steps.map(|step| match word(step) {
        "field" => Step::Key("by".to_owned()),
        _ => step.clone(),
    });
    Some(Path(stage.path.as_ref()?.0.iter().cloned().chain(renamed).collect()))
}

fn word(step: &Step) -> &str {
    match step {
        Step::Key(key) => key,
        Step::Index(_) => "",
    }
}

/// The marks of the value at `path`, or of the list or mapping around it that was written whole.
fn nearest<'a>(recipe: &'a CheckedRecipe, stage: &NamedStage, path: &Path) -> Option<&'a Marks> {
    let mut at = path.clone();
    loop {
        // A whole section is no place of a value in it.
        if at.0.len() < 2 && at != *path {
            return None;
        }
        if let Some(marks) = recipe.origin(stage, &at) {
            // A mapping around a value that nobody wrote says nothing.
            let list = matches!(path.0.get(at.0.len()), None | Some(Step::Index(_)));
            return list.then_some(marks);
        }
        at = at.parent()?;
    }
}

/// `FILE:LINE` or `override N`.
fn text(origin: &Origin) -> Option<String> {
    match origin {
        Origin::File(place) => Some(format!("{}:{}", place.file.name, place.line_and_column().0)),
        Origin::Override(number, _) => Some(format!("override {number}")),
        Origin::Default => None,
    }
}

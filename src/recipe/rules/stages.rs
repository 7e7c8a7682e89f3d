//! Written stages: inputs that exist and have the right kind, splits that give samples.

use super::{choices, metrics, overlay, tasks};
use crate::base::suggest;
use crate::recipe::findings::Findings;
use crate::recipe::path::Path;
use crate::recipe::stages::NamedStage;
use crate::spec::job::Split;
use crate::spec::recipe::stage::SplitChoice;
use crate::spec::recipe::{Data, Evaluate, Recipe, Source, Stage, Task};

pub(super) fn check(stages: &[NamedStage], findings: &mut Findings) {
    for stage in stages {
        let Some(path) = &stage.path else { continue };
        name(stage, path, findings);
        for (key, input, kinds) in inputs(&stage.stage) {
            let path = key.split('.').fold(path.clone(), |path, key| path.key(key));
            check_input(stages, stage, (&path, input, kinds), findings);
        }
        match &stage.stage {
            Stage::Tokenize(tokenize) => tasks::check(tokenize, path, findings),
            Stage::Evaluate(evaluate) => evaluation(stages, evaluate, path, findings),
            Stage::Train(train) => {
                overlay::check(train, path, findings);
                if let Some(validate) = &train.validate {
                    let path = path.key("validate");
                    evaluation(stages, &validate.as_evaluate(), &path, findings);
                }
            }
            _ => {}
        }
    }
    if stages.is_empty() {
        findings
            .error("recipe::no_stages", "stages", "empty", "`stages` names no stage")
            .help("name at least one stage, or leave `stages` out for the default ones");
    }
}

/// NeMo's ways to name data and prompts make the default stages; beside written ones they would be
/// read by nobody.
pub(super) fn check_unused(recipe: &Recipe, findings: &mut Findings) {
    let data = recipe.model.data.as_ref();
    let dataset = |which: fn(&Data) -> bool| data.is_some_and(which);
    let keys = [
        (
            "model.data.train_ds",
            dataset(|data| data.train_ds.is_some()),
            "`sources` of a tokenize stage",
        ),
        (
            "model.data.validation_ds",
            dataset(|data| data.validation_ds.is_some()),
            "`split` of a tokenize stage's sources",
        ),
        (
            "model.data.test_ds",
            dataset(|data| data.test_ds.is_some()),
            "`split` of a tokenize stage's sources",
        ),
        ("inference", recipe.inference.is_some(), "`gen_kwargs` of a generate stage"),
        ("prompts", recipe.prompts.is_some(), "`prompts` of a generate stage"),
    ];
    for (key, _, instead) in keys.into_iter().filter(|(_, set, _)| *set) {
        findings
            .error(
                "recipe::unused_with_stages",
                key,
                "read by no stage",
                format!("`{key}` does nothing beside written stages"),
            )
            .help(format!("use {instead}, or leave `stages` out for the default ones"));
    }
}

/// Names become names of folders.
fn name(stage: &NamedStage, path: &Path, findings: &mut Findings) {
    let good = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    if stage.name.is_empty() || !stage.name.chars().all(good) {
        findings
            .error(
                "recipe::stage_name",
                path.parent().unwrap_or_default(),
                "this name",
                format!("`{}` cannot be the name of a stage", stage.name),
            )
            .help("use letters, digits, `_` and `-`: the name becomes a folder's name");
    }
}

type Input<'a> = (&'static str, &'a str, &'static [&'static str]);

/// Which stages a stage reads: the key, the name, the kinds that fit.
fn inputs(stage: &Stage) -> Vec<Input<'_>> {
    const WEIGHTS: &[&str] = &["load", "train"];
    const SAMPLES: &[&str] = &["tokenize"];
    const SHARDS: &[&str] = &["shard"];
    match stage {
        Stage::Tokenize(_) | Stage::Load(_) => Vec::new(),
        Stage::Shard(shard) => vec![("data", &shard.data, SAMPLES)],
        Stage::Train(train) => {
            let mut inputs: Vec<Input> = vec![("model", &train.model, WEIGHTS)];
            inputs.extend(train.data.as_ref().map(|data| ("data", data.as_str(), SHARDS)));
            let validate = train.validate.as_ref();
            inputs.extend(validate.map(|it| ("validate.data", it.data.as_str(), SAMPLES)));
            inputs
        }
        Stage::Evaluate(evaluate) => {
            let data = evaluate.data.as_deref().map(|data| ("data", data, SAMPLES));
            [("model", evaluate.model.as_str(), WEIGHTS)].into_iter().chain(data).collect()
        }
        Stage::Generate(generate) => vec![("model", &generate.model, WEIGHTS)],
    }
}

fn check_input(
    stages: &[NamedStage],
    reader: &NamedStage,
    (path, input, kinds): (&Path, &str, &[&str]),
    findings: &mut Findings,
) {
    let fitting = stages
        .iter()
        .filter(|stage| kinds.contains(&stage.stage.kind()) && stage.name != reader.name)
        .map(|stage| stage.name.as_str());
    let fitting: Vec<&str> = fitting.collect();
    let wanted = kinds.join(" or ");
    let choices = if fitting.is_empty() {
        format!("there is no {wanted} stage: add one")
    } else {
        suggest::choices(input, &format!("{wanted} stages:"), fitting)
    };
    match stages.iter().find(|stage| stage.name == input) {
        None => {
            findings
                .error(
                    "recipe::unknown_stage",
                    path.clone(),
                    "no such stage",
                    format!("no stage is called `{input}`"),
                )
                .help(choices);
        }
        Some(found) if found.name == reader.name => {
            findings
                .error(
                    "recipe::stage_cycle",
                    path.clone(),
                    "its own output",
                    format!("stage `{input}` reads its own output"),
                )
                .help(choices);
        }
        Some(found) if !kinds.contains(&found.stage.kind()) => {
            let kind = found.stage.kind();
            findings
                .error(
                    "recipe::stage_kind",
                    path.clone(),
                    format!("a {kind} stage"),
                    format!("`{path}` needs a {wanted} stage, but `{input}` is a {kind} stage"),
                )
                .help(choices);
        }
        Some(_) => {}
    }
}

fn evaluation(stages: &[NamedStage], evaluate: &Evaluate, path: &Path, findings: &mut Findings) {
    if evaluate.metrics.is_empty() {
        findings
            .error(
                "recipe::missing_value",
                path.key("metrics"),
                "empty",
                format!("`{path}` computes nothing"),
            )
            .help("name a metric, such as `metrics: [exact_match, loss]`");
    }
    metrics::check(&evaluate.metrics, &path.key("metrics"), findings);
    choices::check(evaluate, path, findings);
    let Some(data) = &evaluate.data else { return };
    let named = stages.iter().find(|stage| stage.name == *data).map(|stage| &stage.stage);
    let Some(Stage::Tokenize(tokenize)) = named else { return };
    let split = evaluate.split.unwrap_or(Split::Test);
    if !tokenize.sources.iter().any(|source| gives(source, split)) {
        findings
            .error(
                "recipe::empty_split",
                path.key("split"),
                "no rows",
                format!("no rows of `{data}` go to the {} split", split.name()),
            )
            .help(format!(
                "give a source `split: {{by: FIELD, {}: 0.05}}`, or choose another split",
                split.name()
            ));
    }
    let tasks = || tokenize.sources.iter().flat_map(|source| &source.tasks).map(Task::name);
    let Some(task) = evaluate.task.as_deref().filter(|task| tasks().all(|known| known != *task))
    else {
        return;
    };
    findings
        .error(
            "recipe::unknown_task",
            path.key("task"),
            "no such task",
            format!("`{data}` has no task called `{task}`"),
        )
        .help(suggest::choices(task, "tasks:", tasks()));
}

fn gives(source: &Source, split: Split) -> bool {
    match &source.split {
        SplitChoice::All(all) => *all == split,
        SplitChoice::By(shares) => match split {
            Split::Train => true,
            Split::Validation => shares.validation > 0.0,
            Split::Test => shares.test > 0.0,
        },
    }
}

//! The stages of a recipe: those it writes, or those that its data calls for.

use super::path::Path;
use crate::spec::job::Split;
use crate::spec::metric::MetricName;
use crate::spec::recipe::stage::SplitChoice;
use crate::spec::recipe::{
    Data, DataPrefix, Dataset, Evaluate, GenKwargs, Generate, Inference, Load, MetricChoice, Model,
    Recipe, Shard, Source, Stage, Task, Tokenize, Train, Trainer,
};
use serde_yaml::Value;
use std::sync::Arc;

/// One stage as it will be planned.
#[derive(Clone, Debug)]
pub struct NamedStage {
    /// Its name.
    pub name: String,
    /// Its kind and settings; tasks have their `add_bos` and `add_eos` filled in.
    pub stage: Stage,
    /// Where the stage's settings stand (`stages.NAME.KIND`); none for a default stage.
    pub path: Option<Path>,
    /// The recipe's `trainer` and `model` with the stage's `with` merged over them.
    pub settings: Arc<Settings>,
}

impl NamedStage {
    /// Where the settings stand that hold for this stage alone, if it has any.
    pub fn overlay(&self) -> Option<Path> {
        let has = matches!(&self.stage, Stage::Train(train) if train.overlay.is_some());
        self.path.as_ref().filter(|_| has).map(|path| path.key("with"))
    }
}

/// The `trainer` and `model` sections that hold for a stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The `trainer` section.
    pub trainer: Trainer,
    /// The `model` section.
    pub model: Model,
}

/// The stages of a recipe in order. `values` is what `recipe` was read from.
pub(super) fn effective(
    recipe: &Recipe,
    values: &Value,
) -> Result<Vec<NamedStage>, serde_yaml::Error> {
    let shared =
        Arc::new(Settings { trainer: recipe.trainer.clone(), model: recipe.model.clone() });
    let written = recipe.stages.as_ref().map(|stages| stages.0.clone());
    let is_written = written.is_some();
    let mut stages = Vec::new();
    for (name, stage) in written.unwrap_or_else(|| defaults(recipe)) {
        let path = is_written.then(|| Path::default().key("stages").key(&name).key(stage.kind()));
        let overlay = overlay(values, &name);
        let settings = overlay.map_or(Ok(Arc::clone(&shared)), |over| merged(values, over))?;
        let stage = filled(stage, recipe, &settings);
        stages.push(NamedStage { name, stage, path, settings });
    }
    Ok(stages)
}

fn overlay<'a>(values: &'a Value, name: &str) -> Option<&'a Value> {
    values.get("stages")?.get(name)?.get("train")?.get("with").filter(|over| over.is_mapping())
}

fn merged(values: &Value, over: &Value) -> Result<Arc<Settings>, serde_yaml::Error> {
    let section = |key: &str| {
        let mut base = values.get(key).cloned().unwrap_or(Value::Null);
        if let Some(over) = over.get(key) {
            lay_over(&mut base, over);
        }
        base
    };
    // `Option` reads a missing section as null.
    let trainer: Option<Trainer> = serde_yaml::from_value(section("trainer"))?;
    let model: Option<Model> = serde_yaml::from_value(section("model"))?;
    Ok(Arc::new(Settings {
        trainer: trainer.unwrap_or_default(),
        model: model.unwrap_or_default(),
    }))
}

/// Mappings merge, everything else is replaced.
fn lay_over(base: &mut Value, over: &Value) {
    let (Value::Mapping(base), Value::Mapping(over)) = (&mut *base, over) else {
        *base = over.clone();
        return;
    };
    for (key, value) in over {
        match base.get_mut(key) {
            Some(below) => lay_over(below, value),
            None => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

/// A stage with NeMo's keys in force where it is silent: tasks take `model.data.add_bos`,
/// `model.data.add_eos` and `model.answer_only_loss`, training the steps between checkpoints.
fn filled(mut stage: Stage, recipe: &Recipe, settings: &Settings) -> Stage {
    let data = recipe.model.data.as_ref();
    match &mut stage {
        Stage::Tokenize(tokenize) => {
            for task in tokenize.sources.iter_mut().flat_map(|source| &mut source.tasks) {
                task.answer_only_loss = task.answer_only_loss.or(recipe.model.answer_only_loss);
                // A chat template writes the ends of a text itself.
                if task.chat_template.is_some() {
                    continue;
                }
                task.add_bos = task.add_bos.or(data.and_then(|data| data.add_bos));
                task.add_eos = task.add_eos.or(data.and_then(|data| data.add_eos));
            }
        }
        Stage::Train(train) => {
            let every = || recipe.exp_manager.checkpoint_every(&settings.trainer);
            train.checkpoint_every.get_or_insert_with(every);
        }
        _ => {}
    }
    stage
}

/// What a recipe without `stages` asks for.
fn defaults(recipe: &Recipe) -> Vec<(String, Stage)> {
    let named = |stage: Stage| (stage.kind().to_owned(), stage);
    if recipe.inference.is_some() || recipe.prompts.is_some() {
        return vec![named(Stage::Load(Load::default())), named(generate(recipe))];
    }
    let rows = recipe.model.data.as_ref().filter(|data| data.train_ds.is_some());
    let train = Train {
        data: rows.map(|_| "shard".to_owned()),
        model: "load".to_owned(),
        checkpoint_every: None,
        validate: None,
        overlay: None,
    };
    let mut stages = Vec::new();
    if let Some(data) = rows {
        stages.push(named(Stage::Tokenize(tokenize(data, &recipe.model))));
        let shard = Shard { data: "tokenize".to_owned(), packing: Some(false) };
        stages.push(named(Stage::Shard(shard)));
    }
    stages.push(named(Stage::Load(Load::default())));
    stages.push(named(Stage::Train(train)));
    stages.extend(rows.and_then(evaluate).map(Stage::Evaluate).map(named));
    stages
}

fn generate(recipe: &Recipe) -> Stage {
    Stage::Generate(Generate {
        model: "load".to_owned(),
        prompts: Some(recipe.prompts.clone().unwrap_or_default()),
        prompts_file: None,
        gen_kwargs: recipe.inference.as_ref().map(Inference::gen_kwargs),
    })
}

fn splits(data: &Data) -> [(Split, Option<&Dataset>); 3] {
    [
        (Split::Train, data.train_ds.as_ref()),
        (Split::Validation, data.validation_ds.as_ref()),
        (Split::Test, data.test_ds.as_ref()),
    ]
}

fn tokenize(data: &Data, model: &Model) -> Tokenize {
    let mut sources = Vec::new();
    for (split, rows) in splits(data) {
        let Some(rows) = rows else { continue };
        let task = task(rows, model);
        let source = |file: String| Source {
            rows: file,
            split: SplitChoice::All(split),
            tasks: vec![task.clone()],
        };
        sources.extend(rows.files().into_iter().map(source));
    }
    Tokenize { sources }
}

/// NeMo's rules for a row (`gpt_sft_dataset.py`), the older keys included.
fn task(rows: &Dataset, model: &Model) -> Task {
    let prompt = rows.context_key.as_deref().unwrap_or("input");
    let label = rows.label_key.as_deref().unwrap_or("output");
    let newline = rows.separate_prompt_and_response_with_newline.unwrap_or(false);
    let template = rows.prompt_template.clone().unwrap_or_else(|| {
        let between = if newline { "\n" } else { " " };
        format!("{{{prompt}}}{between}{{{label}}}")
    });
    // The older data set speaks of `context` and `answer` instead of naming fields.
    let cut = match rows.truncation_field.as_deref() {
        None | Some("context") => prompt.to_owned(),
        Some("answer") => label.to_owned(),
        Some(fields) => fields.to_owned(),
    };
    Task {
        prompt_template: Some(template),
        label_key: Some(label.to_owned()),
        truncation_field: Some(cut),
        truncation_method: rows.truncation_method,
        tokens_to_generate: Some(rows.tokens_to_generate.unwrap_or(0)),
        answer_only_loss: Some(model.answer_only_loss.unwrap_or(false)),
        add_bos: Some(rows.add_bos.unwrap_or(false)),
        add_eos: Some(rows.add_eos.unwrap_or(true)),
        ..Task::default()
    }
}

/// The test rows are evaluated, else the validation rows.
fn evaluate(data: &Data) -> Option<Evaluate> {
    let held_out = [(Split::Test, &data.test_ds), (Split::Validation, &data.validation_ds)];
    let present = |(split, rows): (Split, &'_ Option<Dataset>)| {
        rows.clone().filter(|rows| !rows.files().is_empty()).map(|rows| (split, rows))
    };
    let (split, rows) = held_out.into_iter().find_map(present)?;
    let named = rows.metric.as_ref().and_then(|metric| metric.name.as_deref()).unwrap_or("loss");
    let mut metrics = vec![MetricName::Loss];
    metrics.extend(metric(named).filter(|metric| *metric != MetricName::Loss));
    let metrics = metrics.into_iter().map(MetricChoice::Named).collect();
    Some(Evaluate {
        model: "train".to_owned(),
        data: Some("tokenize".to_owned()),
        split: Some(split),
        metrics,
        gen_kwargs: Some(GenKwargs {
            use_greedy: Some(true),
            max_length: Some(rows.tokens_to_generate.unwrap_or(32)),
            ..GenKwargs::default()
        }),
        ..Evaluate::default()
    })
}

/// NeMo's names of metrics that we compute.
pub(super) const NEMO_METRICS: [(&str, MetricName); 4] = [
    ("loss", MetricName::Loss),
    ("exact_string_match", MetricName::ExactMatch),
    ("rouge", MetricName::RougeL),
    ("token_f1", MetricName::TokenF1),
];

fn metric(name: &str) -> Option<MetricName> {
    NEMO_METRICS.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric)
}

/// Whether `model.data.data_prefix` names files, as opposed to nothing or a placeholder.
pub(super) fn names_shards(model: &Model) -> bool {
    match model.data.as_ref().and_then(|data| data.data_prefix.as_ref()) {
        Some(DataPrefix::Blend(files)) => !files.is_empty(),
        Some(DataPrefix::Splits { train, .. }) => !train.is_empty(),
        Some(DataPrefix::Placeholder(_)) | None => false,
    }
}

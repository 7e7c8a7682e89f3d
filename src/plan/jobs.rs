//! Stages of the recipe to jobs: what each is asked to do, every default filled in.

use super::lacks::blend;
use super::outside::{self, Facts};
use super::shape::{architecture, degrees, recompute, sequence_length};
use crate::layout::frozen;
use crate::layout::parameters::table;
use crate::recipe::path::Path;
use crate::recipe::problem::Problem;
use crate::recipe::{CheckedRecipe, NamedStage, Settings};
use crate::spec::architecture::Architecture;
use crate::spec::job::{
    ChoiceSet, DataSource, EarlyStopping, EvaluateJob, EvaluateStage, Format, GenerateJob,
    GenerateStage, Job, LoadJob, LoadModel, LoadStage, NemoFile, ReadingTrainer, RowSource,
    ShardJob, ShardModel, ShardStage, Split, SplitRule, Task, TokenizeJob, TokenizeModel,
    TokenizeStage, TokenizerKind, TokenizerSettings, TrainData, TrainJob, TrainModel, TrainStage,
    TrainTrainer,
};
use crate::spec::optimization::{Degrees, Optimizer, OptimizerName, Precision, Schedule};
use crate::spec::recipe::choice::{MonitorMode, OptimizerChoice, ScheduleChoice, TruncationMethod};
use crate::spec::recipe::stage::SplitChoice;
use crate::spec::recipe::stage::TOKENIZERS_TEMPLATE;
use crate::spec::recipe::{self, DataPrefix, ExpManager, MetricChoice, Stage, Trainer};

/// The job of `stage`.
pub(super) fn job(
    recipe: &CheckedRecipe,
    stage: &NamedStage,
    facts: &Facts,
) -> Result<Job, Box<Problem>> {
    let model = &stage.settings.model;
    let job = match &stage.stage {
        Stage::Tokenize(settings) => Job::Tokenize(TokenizeJob {
            model: TokenizeModel {
                // Without a tokenizer the run is refused; the plan shows the usual one.
                tokenizer: outside::tokenizer(model)
                    .map_or(TokenizerKind::HuggingFace, |(kind, _)| kind),
                chat_template: model
                    .tokenizer
                    .as_ref()
                    .and_then(|tokenizer| tokenizer.chat_template.clone()),
                encoder_seq_length: sequence_length(model)?,
            },
            stage: TokenizeStage { sources: settings.sources.iter().map(source).collect() },
        }),
        Stage::Shard(settings) => Job::Shard(ShardJob {
            model: ShardModel { encoder_seq_length: sequence_length(model)?, seed: model.seed() },
            stage: ShardStage { packing: settings.packing.unwrap_or(false) },
        }),
        Stage::Load(settings) => {
            let restore = outside::checkpoint(recipe, stage).is_some();
            Job::Load(LoadJob {
                model: LoadModel {
                    architecture: architecture(stage, facts)?,
                    seed: model.seed(),
                    restore,
                    megatron_legacy: restore && model.megatron_legacy.unwrap_or(false),
                },
                stage: LoadStage { strict: settings.strict.unwrap_or(true) },
            })
        }
        Stage::Train(settings) => Job::Train(train(recipe, stage, settings, facts)?),
        Stage::Evaluate(settings) => Job::Evaluate(EvaluateJob {
            trainer: reading(&stage.settings),
            model: tokenizer_settings(recipe, stage),
            stage: evaluation(settings, stage),
        }),
        Stage::Generate(settings) => Job::Generate(GenerateJob {
            trainer: reading(&stage.settings),
            model: tokenizer_settings(recipe, stage),
            stage: GenerateStage {
                prompts: settings.prompts.clone().unwrap_or_default(),
                gen_kwargs: generation(settings.gen_kwargs.as_ref(), stage),
            },
        }),
    };
    Ok(job)
}

/// The layout of training, without what only training has use for. GPUs read in training's number
/// format, the CPU in fp32, which is no slower there.
fn reading(settings: &Settings) -> ReadingTrainer {
    let degrees = Degrees { virtual_pipeline: 1, sequence: false, ..degrees(settings) };
    let trainer = &settings.trainer;
    let precision = if trainer.on_gpu() { trainer.precision() } else { Precision::Fp32 };
    ReadingTrainer { degrees, precision }
}

/// The recipe's tokenizer, where the stage reads text with it.
fn tokenizer_settings(recipe: &CheckedRecipe, stage: &NamedStage) -> TokenizerSettings {
    let found = outside::tokenizer(&stage.settings.model);
    let needed = found.filter(|_| outside::reads_tokenizer(recipe, stage));
    TokenizerSettings { tokenizer: needed.map(|(kind, _)| kind) }
}

fn choices(given: &recipe::Choices) -> ChoiceSet {
    ChoiceSet {
        prompt: given.prompt.clone(),
        choices: given.choices.clone(),
        answer: given.answer.clone(),
        labels: given.labels.clone(),
        delimiter: given.delimiter.clone().unwrap_or_else(|| " ".to_owned()),
    }
}

fn evaluation(settings: &recipe::Evaluate, stage: &NamedStage) -> EvaluateStage {
    EvaluateStage {
        split: settings.split.unwrap_or(Split::Test),
        task: settings.task.clone(),
        limit: settings.limit,
        metrics: settings.metrics.iter().filter_map(MetricChoice::filled).collect(),
        gen_kwargs: generation(settings.gen_kwargs.as_ref(), stage),
        choices: settings.choices.as_ref().map(choices),
    }
}

/// NeMo's defaults: the validation loss, less is better, 0.001, ten validations.
fn early_stopping(manager: &ExpManager) -> Option<EarlyStopping> {
    let given = manager.early_stopping_callback_params.clone().unwrap_or_default();
    manager.create_early_stopping_callback.filter(|wanted| *wanted).map(|_| EarlyStopping {
        monitor: given.monitor.unwrap_or_else(|| "val_loss".to_owned()),
        more_is_better: given.mode == Some(MonitorMode::Max),
        min_delta: given.min_delta.unwrap_or(0.001),
        patience: given.patience.unwrap_or(10),
    })
}

fn generation(
    given: Option<&recipe::GenKwargs>,
    stage: &NamedStage,
) -> crate::spec::generation::Generation {
    given.cloned().unwrap_or_default().filled(stage.settings.model.seed())
}

fn source(source: &recipe::Source) -> RowSource {
    let split = match &source.split {
        SplitChoice::All(split) => SplitRule::All(*split),
        SplitChoice::By(by) => {
            SplitRule::ByHash { field: by.by.clone(), validation: by.validation, test: by.test }
        }
    };
    RowSource { split, tasks: source.tasks.iter().map(task).collect() }
}

fn task(task: &recipe::Task) -> Task {
    let is_text = task.text.is_some();
    Task {
        name: task.name.clone().unwrap_or_else(|| "default".to_owned()),
        share: task.share.unwrap_or(1.0),
        format: format(task),
        answer_only_loss: task.answer_only_loss.unwrap_or(!is_text),
        add_bos: task.add_bos.unwrap_or(false),
        add_eos: task.add_eos.unwrap_or(task.chat_template.is_none()),
    }
}

fn format(task: &recipe::Task) -> Format {
    if let Some(field) = &task.text {
        return Format::Text { field: field.clone() };
    }
    if let Some(template) = &task.chat_template {
        return Format::Chat {
            template: Some(template.clone()).filter(|template| template != TOKENIZERS_TEMPLATE),
            messages: task.messages.clone().unwrap_or_else(|| "messages".to_owned()),
            date: task.date.clone(),
        };
    }
    if let Some(template) = &task.prompt_template {
        let fields = task.truncation_field.as_deref().unwrap_or_default().split(',');
        let fields = fields.map(str::trim).filter(|field| !field.is_empty());
        return Format::Nemo {
            prompt_template: template.clone(),
            label_key: task.label_key.clone().unwrap_or_else(|| "output".to_owned()),
            truncation_field: fields.map(str::to_owned).collect(),
            truncate_left: task.truncation_method == Some(TruncationMethod::Left),
            tokens_to_generate: task.tokens_to_generate.unwrap_or(0),
        };
    }
    Format::Templates {
        prompt: task.prompt.clone().unwrap_or_default(),
        answer: task.answer.clone().unwrap_or_default(),
    }
}

fn train(
    recipe: &CheckedRecipe,
    stage: &NamedStage,
    settings: &recipe::Train,
    facts: &Facts,
) -> Result<TrainJob, Box<Problem>> {
    let (model, trainer) = (&stage.settings.model, &stage.settings.trainer);
    let needed = |key: &str| lacking("model", key, "give it a value");
    let max_steps = steps(trainer)?;
    let shape = architecture(stage, facts)?;
    outside::one_resumes(recipe)?;
    Ok(TrainJob {
        model: TrainModel {
            architecture: shape.clone(),
            encoder_seq_length: sequence_length(model)?,
            global_batch_size: model
                .global_batch_size
                .ok_or_else(|| needed("global_batch_size"))?,
            micro_batch_size: model.micro_batch_size.ok_or_else(|| needed("micro_batch_size"))?,
            seed: model.seed(),
            optim: optimizer(model, max_steps)?,
            megatron_amp_o2: model.megatron_amp_o2.unwrap_or(false),
            recompute: recompute(model),
            loss_scaling: (trainer.precision() == Precision::Fp16).then(|| model.loss_scaling()),
            frozen: frozen(model, &shape)?,
            data: train_data(model, settings)?,
        },
        trainer: TrainTrainer {
            max_steps,
            val_check_interval: trainer.validation_interval(),
            limit_val_batches: trainer.validation_batches(),
            gradient_clip_val: trainer.gradient_clip_val.unwrap_or(0.0),
            precision: trainer.precision(),
            degrees: degrees(&stage.settings),
            log_every_n_steps: trainer.log_every_n_steps.unwrap_or(1),
        },
        // CheckedRecipe::stages has filled it in.
        stage: TrainStage {
            checkpoint_every: settings.checkpoint_every.unwrap_or(0),
            keep: recipe.recipe().exp_manager.kept(),
            validate: settings
                .validate
                .as_ref()
                .map(|validate| evaluation(&validate.as_evaluate(), stage)),
            early_stopping: early_stopping(&recipe.recipe().exp_manager),
            nemo: nemo(&recipe.recipe().exp_manager, model),
        },
    })
}

/// The `.nemo` file that the recipe asks for at the end of training.
fn nemo(manager: &ExpManager, model: &recipe::Model) -> Option<NemoFile> {
    let params = manager.checkpoint_callback_params.as_ref()?;
    let make_vocab_size_divisible_by = model.make_vocab_size_divisible_by.unwrap_or(128);
    params.save_nemo_on_train_end?.then_some(NemoFile { make_vocab_size_divisible_by })
}

/// Patterns of the frozen parameters by our names, each of which names some.
fn frozen(model: &recipe::Model, shape: &Architecture) -> Result<Vec<String>, Box<Problem>> {
    let wrong = |key: &str, message: &str, help: &str| {
        Box::new(problem("plan::frozen", message, "model", key).help(help))
    };
    let layers = shape.num_layers;
    let unfrozen = match model.num_layers_unfrozen {
        None | Some(-1) => layers,
        Some(count) => {
            usize::try_from(count).ok().filter(|count| *count <= layers).ok_or_else(|| {
                let message = format!("{count} of {layers} layers cannot learn");
                wrong("num_layers_unfrozen", &message, "give at most `num_layers`, or -1 for all")
            })?
        }
    };
    let table = table(shape);
    let mut patterns: Vec<String> = (0..layers - unfrozen).map(frozen::layer).collect();
    for given in model.frozen.iter().flatten() {
        let name = given.trim_start_matches("model.").trim_start_matches("language_model.");
        let pattern = vec![name.to_owned()];
        if !table.iter().any(|parameter| frozen::names(&pattern, &parameter.name)) {
            let message = format!("`{given}` names no parameter of this model");
            let help = "name some as they are in a checkpoint (`sft-run inspect` lists them), \
                        such as `embedding.*` or `encoder.layers.0.*`";
            return Err(wrong("frozen", &message, help));
        }
        patterns.extend(pattern);
    }
    patterns.sort();
    patterns.dedup();
    if table.iter().all(|parameter| frozen::names(&patterns, &parameter.name)) {
        let key = if model.frozen.is_some() { "frozen" } else { "num_layers_unfrozen" };
        return Err(wrong(key, "every parameter is frozen", "leave some that learn"));
    }
    Ok(patterns)
}

fn steps(trainer: &Trainer) -> Result<u64, Box<Problem>> {
    trainer
        .steps()
        .ok_or_else(|| lacking("trainer", "max_steps", "set it to the number of optimizer steps"))
}

fn optimizer(model: &recipe::Model, max_steps: u64) -> Result<Optimizer, Box<Problem>> {
    let optim = model.optim.as_ref().ok_or_else(|| lacking("model", "optim", "give it a `lr`"))?;
    let unbuilt = |key: &str| lacking("model.optim", key, "name one that is built");
    let name = optim.name.map_or(Some(OptimizerName::Adamw), OptimizerChoice::built);
    let schedule = |sched: &recipe::Sched| -> Result<Schedule, Box<Problem>> {
        let name = sched.name.and_then(ScheduleChoice::built);
        Ok(Schedule {
            name: name.ok_or_else(|| unbuilt("sched.name"))?,
            warmup_steps: sched.warmup(max_steps),
            constant_steps: sched.constant(max_steps),
            min_lr: sched.min_lr.unwrap_or(0.0),
            max_steps: sched.length(max_steps),
        })
    };
    Ok(Optimizer {
        name: name.ok_or_else(|| unbuilt("name"))?,
        lr: optim.lr.ok_or_else(|| lacking("model.optim", "lr", "give it a value"))?,
        weight_decay: optim.weight_decay.unwrap_or(0.0),
        betas: optim.betas(),
        eps: optim.eps.unwrap_or(1e-8),
        do_layer_norm_weight_decay: model.do_layer_norm_weight_decay.unwrap_or(false),
        sched: optim.sched.as_ref().map(schedule).transpose()?,
    })
}

fn train_data(model: &recipe::Model, settings: &recipe::Train) -> Result<TrainData, Box<Problem>> {
    let data = model.data.clone().unwrap_or_default();
    let source = match (&settings.data, &data.data_prefix) {
        (Some(_), _) => DataSource::Shards,
        (None, Some(DataPrefix::Splits { .. })) => {
            let help = "write one blend, `[weight, path, …]`, and cut it by `splits_string`";
            let message = "token files for each split are not built";
            let unbuilt = problem("plan::not_built", message, "model.data", "data_prefix");
            return Err(Box::new(unbuilt.help(help)));
        }
        (None, _) => DataSource::Prefixes {
            weights: blend(model).unwrap_or_default().iter().map(|file| file.weight).collect(),
            splits: data.splits().ok_or_else(|| {
                lacking("model.data", "splits_string", "write three shares, such as `900,50,50`")
            })?,
        },
    };
    Ok(TrainData {
        source,
        reset_position_ids: data.reset_position_ids.unwrap_or(false),
        reset_attention_mask: data.reset_attention_mask.unwrap_or(false),
        eod_mask_loss: data.eod_mask_loss.unwrap_or(false),
        shuffle: data.shuffle(),
    })
}

fn lacking(section: &str, key: &str, help: &str) -> Box<Problem> {
    let message = format!("training needs `{section}.{key}`");
    Box::new(problem("plan::needed", &message, section, key).help(help))
}

fn problem(code: &'static str, message: &str, section: &str, key: &str) -> Problem {
    let keys = section.split('.').chain(key.split('.'));
    let path = keys.fold(Path::default(), |path, key| path.key(key));
    Problem::error(code, message).about(path)
}

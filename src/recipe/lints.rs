//! Settings that can be run but hardly mean what they say, each with a code and the reason.

use super::findings::{Findings, number};
use super::path::Path;
use super::rules::gen_kwargs;
use super::stages::NamedStage;
use crate::spec::architecture::Activation;
use crate::spec::recipe::choice::Granularity;
use crate::spec::recipe::{Amount, GenKwargs, Model, Recipe, Sched, Stage, Tokenize, Trainer};

/// Looks at every set of settings and at every stage.
pub(super) fn check(recipe: &Recipe, stages: &[NamedStage], findings: &mut Findings) {
    for stage in stages {
        findings.in_overlay(stage.overlay());
        let (trainer, model) = (&stage.settings.trainer, &stage.settings.model);
        layout(model, findings);
        width(model, findings);
        length(model, findings);
        recompute(model, findings);
        if matches!(stage.stage, Stage::Train(_)) {
            validation(trainer, findings);
            schedule(trainer, model, findings);
        }
        if recipe.verify.is_some() {
            dropout(model, findings);
        }
    }
    findings.in_overlay(None);
    for stage in stages {
        let Some(path) = &stage.path else { continue };
        if let Some(settings) = gen_kwargs(&stage.stage) {
            greedy(settings, &path.key("gen_kwargs"), findings);
        }
    }
    inference(recipe, findings);
    chat_template(recipe, stages, findings);
    legacy_order(recipe, stages, findings);
    for stage in stages {
        if let Stage::Tokenize(tokenize) = &stage.stage {
            let path = stage.path.as_ref();
            ends(tokenize, path, findings);
        }
    }
}

/// Tokenize stages make samples with the tokenizer's chat template, and hand it on.
fn chat_template(recipe: &Recipe, stages: &[NamedStage], findings: &mut Findings) {
    let tokenizer = recipe.model.tokenizer.as_ref();
    let is_set = tokenizer.is_some_and(|tokenizer| tokenizer.chat_template.is_some());
    if is_set && !stages.iter().any(|stage| matches!(stage.stage, Stage::Tokenize(_))) {
        findings
            .lint(
                "lint::chat_template",
                "model.tokenizer.chat_template",
                "read by no stage",
                "the chat template goes along with what a tokenize stage writes, and there is none",
            )
            .help("remove model.tokenizer.chat_template, or add a tokenize stage");
    }
}

/// The order is that of a checkpoint's weights.
fn legacy_order(recipe: &Recipe, stages: &[NamedStage], findings: &mut Findings) {
    let restores = |stage: &NamedStage| matches!(&stage.stage, Stage::Load(load) if load.restore_from_path.is_some());
    let starts = recipe.restore_from_path().is_some() || stages.iter().any(restores);
    if recipe.model.megatron_legacy == Some(true) && !starts {
        findings
            .lint(
                "lint::megatron_legacy",
                "model.megatron_legacy",
                "nothing has this order",
                "it says in which order a checkpoint has queries, keys and values, and none is read",
            )
            .help("remove model.megatron_legacy, or set restore_from_path");
    }
}

/// An answer whose end is not learned goes on until the last token that is allowed.
fn ends(tokenize: &Tokenize, path: Option<&Path>, findings: &mut Findings) {
    for (at, source) in tokenize.sources.iter().enumerate() {
        for (index, task) in source.tasks.iter().enumerate() {
            let answers = task.chat_template.is_none() && task.text.is_none();
            if !answers || task.add_eos != Some(false) {
                continue;
            }
            let own = |path: &Path| {
                path.key("sources").index(at).key("tasks").index(index).key("add_eos")
            };
            let key = path.map_or(Path::from("model.data.train_ds.add_eos"), own);
            findings
                .lint(
                    "lint::no_end",
                    key,
                    "no end is learned",
                    format!("task `{}` never shows where an answer ends", task.name()),
                )
                .help("set add_eos to true, or end answers with a text that `end_strings` names");
        }
    }
}

fn layout(model: &Model, findings: &mut Findings) {
    let tensor = model.tensor_model_parallel_size.unwrap_or(1);
    if model.sequence_parallel == Some(true) && tensor == 1 {
        findings
            .lint(
                "lint::sequence_parallel",
                "model.sequence_parallel",
                "nothing to split over",
                "sequence_parallel does nothing with one tensor rank; NeMo switches it off without a word",
            )
            .with("model.tensor_model_parallel_size", "one tensor rank")
            .help("set model.sequence_parallel to false, or model.tensor_model_parallel_size above 1");
    }
}

/// 4 × hidden is the rule for two matrices; gated activations have three and are narrower.
fn width(model: &Model, findings: &mut Findings) {
    let (Some(ffn), Some(hidden)) = (model.ffn_hidden_size, model.hidden_size) else { return };
    let plain = matches!(model.activation(), Activation::Gelu | Activation::GeluErf);
    if plain && ffn != 4 * hidden {
        findings
            .lint(
                "lint::ffn_hidden_size",
                "model.ffn_hidden_size",
                format!("{ffn} channels"),
                format!("with gelu the MLP is usually 4 × hidden_size = {} wide, not {ffn}", 4 * hidden),
            )
            .with("model.hidden_size", format!("{hidden} channels"))
            .help("make sure that the checkpoint has this width; `${multiply:4, ${.hidden_size}}` is the usual one");
    }
}

fn length(model: &Model, findings: &mut Findings) {
    let data = model.data.as_ref().and_then(|data| data.seq_length);
    let (Some(data), Some(most)) = (data, model.encoder_seq_length) else { return };
    if data < most {
        findings
            .lint(
                "lint::short_sequences",
                "model.data.seq_length",
                format!("{data} tokens"),
                format!("sequences have {data} tokens, though the model takes {most}"),
            )
            .with("model.encoder_seq_length", format!("{most} tokens"))
            .help("write `seq_length: ${model.encoder_seq_length}` to use them all");
    }
}

fn recompute(model: &Model, findings: &mut Findings) {
    let (lint, what, granularity) = match model.activations_checkpoint_granularity {
        Some(Granularity::Full) => return,
        Some(Granularity::Selective) => {
            ("lint::selective_recompute", "with selective recomputation", "selective")
        }
        None => ("lint::no_recompute", "while nothing is recomputed", "null"),
    };
    let (method, layers) = ("activations_checkpoint_method", "activations_checkpoint_num_layers");
    let has_layers = model.activations_checkpoint_num_layers.is_some();
    let (key, other) = match model.activations_checkpoint_method {
        Some(_) => (method, has_layers.then_some(layers)),
        None if has_layers => (layers, None),
        None => return,
    };
    let (both, means, it) = match other {
        Some(other) => (format!("{key} and {other}"), "mean", "both"),
        None => (key.to_owned(), "means", "it"),
    };
    let set = other.map_or(format!("model.{key}"), |_| it.to_owned());
    let message = format!("{both} {means} nothing {what}");
    let mut found = findings.lint(
        lint,
        Path::from("model").key(key),
        "set aside",
        format!("{message}; NeMo ignores {it}"),
    );
    if let Some(other) = other {
        found = found.with(Path::from("model").key(other), "set aside");
    }
    found
        .with("model.activations_checkpoint_granularity", granularity)
        .help(format!("set {set} to null, or the granularity to full"));
}

fn validation(trainer: &Trainer, findings: &mut Findings) {
    let Some(Amount::Count(interval)) = trainer.val_check_interval else { return };
    let off = match trainer.limit_val_batches {
        Some(Amount::Count(batches)) => batches == 0,
        Some(Amount::Share(share)) => share <= 0.0,
        None => false,
    };
    if off && interval > 0 {
        findings
            .lint(
                "lint::validation_off",
                "trainer.limit_val_batches",
                "no batches",
                format!(
                    "validation every {interval} steps looks at no batch, so there is no val_loss"
                ),
            )
            .with("trainer.val_check_interval", format!("every {interval} steps"))
            .help("raise trainer.limit_val_batches, or set trainer.val_check_interval to 0");
    } else if let Some(steps) = trainer.steps().filter(|steps| interval > *steps) {
        findings
            .lint(
                "lint::validation_beyond_run",
                "trainer.val_check_interval",
                format!("every {interval} steps"),
                format!(
                    "the run ends after {steps} steps, sooner than every {interval}: it is validated only at its end"
                ),
            )
            .with("trainer.max_steps", format!("{steps} steps"))
            .help(format!("set trainer.val_check_interval to at most {steps}"));
    }
}

fn schedule(trainer: &Trainer, model: &Model, findings: &mut Findings) {
    let (Some(steps), Some(optim)) = (trainer.steps(), &model.optim) else { return };
    let Some(sched) = &optim.sched else { return };
    let length = sched.length(steps);
    if length != steps {
        findings
            .lint(
                "lint::schedule_length",
                "model.optim.sched.max_steps",
                format!("{length} steps"),
                format!("the learning rate is planned for {length} steps, the run has {steps}"),
            )
            .with("trainer.max_steps", format!("{steps} steps"))
            .help("write `max_steps: ${trainer.max_steps}`, or remove it from the schedule");
    }
    constant(sched, length, optim.lr, findings);
    let warmup = sched.warmup(steps);
    if warmup >= steps {
        findings
            .lint(
                "lint::warmup_beyond_run",
                "model.optim.sched.warmup_steps",
                format!("{warmup} steps of warm-up"),
                format!(
                    "the run ends after {steps} steps, before the learning rate reaches its peak"
                ),
            )
            .with("trainer.max_steps", format!("{steps} steps"))
            .help(format!("set model.optim.sched.warmup_steps below {steps}"));
    }
}

/// NeMo's constant phase comes last and is at `min_lr`: longer than the run, it is all there is.
fn constant(sched: &Sched, length: u64, peak: Option<f64>, findings: &mut Findings) {
    let (constant, warmup) = (sched.constant(length), sched.warmup(length));
    if constant == 0 || constant + warmup < length {
        return;
    }
    let least = number(sched.min_lr.unwrap_or(0.0));
    let peak = peak.map(|peak| format!(", not at lr {}", number(peak))).unwrap_or_default();
    findings
        .lint(
            "lint::constant_steps",
            "model.optim.sched.constant_steps",
            format!("{constant} of {length} steps"),
            format!("constant_steps {constant} fills the schedule of {length} steps: the run stays at min_lr {least}{peak}"),
        )
        .with("model.optim.sched.min_lr", "the learning rate after warm-up")
        .help("constant_steps is not a hold at the peak: set it to 0 for a cosine from lr to min_lr");
}

fn dropout(model: &Model, findings: &mut Findings) {
    let keys = ["hidden_dropout", "attention_dropout", "ffn_dropout"];
    for (key, rate) in keys.into_iter().zip(model.dropouts()) {
        if rate > 0.0 {
            findings
                .lint(
                    "lint::dropout_in_verify",
                    Path::from("model").key(key),
                    number(rate),
                    format!(
                        "a reproducibility run with {key} {} compares random masks as well",
                        number(rate)
                    ),
                )
                .with("verify", "asked for here")
                .help(format!("set model.{key} to 0 in recipes that are verified"));
        }
    }
}

fn greedy(settings: &GenKwargs, path: &Path, findings: &mut Findings) {
    if !settings.is_greedy() {
        return;
    }
    let ignored = [
        ("top_k", settings.top_k.is_some_and(|k| k > 0)),
        ("top_p", settings.top_p.is_some_and(|p| p > 0.0 && p < 1.0)),
        (
            "temperature",
            settings.temperature.is_some_and(|value| (value - 1.0).abs() > f64::EPSILON),
        ),
    ];
    set_aside(&ignored, &path.key("use_greedy"), path, findings);
}

fn inference(recipe: &Recipe, findings: &mut Findings) {
    let Some(inference) = recipe.inference.as_ref().filter(|known| known.greedy == Some(true))
    else {
        return;
    };
    let ignored = [
        ("top_k", inference.top_k.is_some_and(|k| k > 0)),
        (
            "temperature",
            inference.temperature.is_some_and(|value| (value - 1.0).abs() > f64::EPSILON),
        ),
    ];
    let path = Path::from("inference");
    set_aside(&ignored, &path.key("greedy"), &path, findings);
}

fn set_aside(ignored: &[(&str, bool)], greedy: &Path, path: &Path, findings: &mut Findings) {
    for (key, _) in ignored.iter().filter(|(_, set)| *set) {
        findings
            .lint(
                "lint::greedy_sampling",
                path.key(key),
                "set aside",
                format!(
                    "{key} has no effect on greedy decoding, which takes the most likely token"
                ),
            )
            .with(greedy.clone(), "greedy")
            .help(format!("remove {key}, or sample"));
    }
}

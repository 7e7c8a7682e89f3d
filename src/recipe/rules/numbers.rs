//! The optimizer's numbers, the learning rate, the length of the run, precision.

use crate::recipe::findings::{Findings, number};
use crate::recipe::path::Path;
use crate::spec::recipe::choice::OptimizerChoice;
use crate::spec::recipe::{Amount, Model, Optim, Sched, Trainer};

pub(super) fn check(trainer: &Trainer, model: &Model, findings: &mut Findings) {
    precision(trainer, model, findings);
    validation(trainer, findings);
    let Some(optim) = &model.optim else { return };
    betas(optim, findings);
    decay(optim, findings);
    if let Some(sched) = &optim.sched {
        rates(optim, sched, findings);
        ratios(sched, findings);
    }
}

/// What only a train stage needs.
pub(super) fn check_training(trainer: &Trainer, model: &Model, findings: &mut Findings) {
    if trainer.steps().is_none() {
        let found = trainer.max_steps.map_or("not set".to_owned(), |steps| steps.to_string());
        findings
            .error(
                "recipe::missing_value",
                "trainer.max_steps",
                "needs a number of steps",
                format!(
                    "training needs a number of optimizer steps, but trainer.max_steps is {found}"
                ),
            )
            .help("set trainer.max_steps; training by epochs is not built");
    }
    let needed = [
        ("model.global_batch_size", model.global_batch_size.is_none(), "sequences per step"),
        ("model.micro_batch_size", model.micro_batch_size.is_none(), "sequences per forward pass"),
        (
            "model.optim.lr",
            model.optim.as_ref().and_then(|optim| optim.lr).is_none(),
            "peak learning rate",
        ),
    ];
    for (path, _, what) in needed.into_iter().filter(|(_, missing, _)| *missing) {
        findings
            .error(
                "recipe::missing_value",
                path,
                "missing here",
                format!("training needs `{path}`, the {what}"),
            )
            .help(format!("set {path}"));
    }
}

fn precision(trainer: &Trainer, model: &Model, findings: &mut Findings) {
    let Some(other) = model.precision.filter(|other| other.0 != trainer.precision()) else {
        return;
    };
    findings
        .error(
            "recipe::precision",
            "model.precision",
            "differs",
            format!(
                "model.precision ({}) and trainer.precision ({}) differ",
                other.name(),
                trainer.precision.map_or("32", |name| name.name()),
            ),
        )
        .with("trainer.precision", "decides")
        .help("remove model.precision: trainer.precision decides");
}

fn validation(trainer: &Trainer, findings: &mut Findings) {
    let whole = |amount: Option<Amount>| match amount {
        Some(Amount::Share(share)) => Some(share).filter(|share| *share > 0.0 && *share < 1.0),
        _ => None,
    };
    if let Some(share) = whole(trainer.limit_val_batches) {
        findings
            .error(
                "recipe::share_of_epoch",
                "trainer.limit_val_batches",
                "a share",
                format!("validating on {} of the batches is not built", number(share)),
            )
            .help("give a whole number of batches, or 1.0 for all of them");
    }
    if let Some(Amount::Share(share)) = trainer.val_check_interval
        && trainer.limit_val_batches != Some(Amount::Count(0))
    {
        findings
            .error(
                "recipe::share_of_epoch",
                "trainer.val_check_interval",
                "a share",
                format!("validating every {} of an epoch is not built", number(share)),
            )
            .help("give a whole number of steps; 0 switches validation off");
    }
}

fn betas(optim: &Optim, findings: &mut Findings) {
    for (index, beta) in optim.betas().into_iter().enumerate() {
        if (0.0..1.0).contains(&beta) {
            continue;
        }
        findings
            .error(
                "recipe::betas",
                Path::from("model.optim.betas").index(index),
                "out of bounds",
                format!("a decay of moments must lie in [0, 1), not {}", number(beta)),
            )
            .help("NeMo's values are [0.9, 0.95] or [0.9, 0.98]");
    }
}

fn decay(optim: &Optim, findings: &mut Findings) {
    let decay = optim.weight_decay.unwrap_or(0.0);
    if optim.name == Some(OptimizerChoice::Adam) && decay > 0.0 {
        findings
            .error(
                "recipe::refused",
                "model.optim.name",
                "L2 regularization",
                format!(
                    "NeMo's `adam` adds weight_decay {} to the gradient, which is not built",
                    number(decay)
                ),
            )
            .with("model.optim.weight_decay", "not zero")
            .help("use `adamw`, whose decay is decoupled, or set model.optim.weight_decay=0");
    }
}

fn rates(optim: &Optim, sched: &Sched, findings: &mut Findings) {
    let (Some(peak), Some(least)) = (optim.lr, sched.min_lr) else { return };
    if least > peak {
        findings
            .error(
                "recipe::learning_rate",
                "model.optim.sched.min_lr",
                "above the peak",
                format!("min_lr {} is above lr {}", number(least), number(peak)),
            )
            .with("model.optim.lr", "the peak")
            .help("the learning rate falls from lr to min_lr: make min_lr the smaller one");
    }
}

fn ratios(sched: &Sched, findings: &mut Findings) {
    let pairs = [
        ("warmup", sched.warmup_steps.is_some() && sched.warmup_ratio.is_some()),
        ("constant", sched.constant_steps.is_some() && sched.constant_ratio.is_some()),
    ];
    for (name, _) in pairs.into_iter().filter(|(_, both)| *both) {
        findings
            .error(
                "recipe::contradiction",
                format!("model.optim.sched.{name}_ratio").as_str(),
                "a share of the steps",
                format!("{name}_steps and {name}_ratio are both set"),
            )
            .with(format!("model.optim.sched.{name}_steps").as_str(), "a number of steps")
            .help("keep one of them");
    }
}

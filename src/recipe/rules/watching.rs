//! Values that are watched during training: they must be computed at all.

use crate::base::suggest;
use crate::recipe::findings::Findings;
use crate::recipe::stages::NamedStage;
use crate::spec::event::VALIDATION_METRIC;
use crate::spec::job::Monitor;
use crate::spec::recipe::{ExpManager, Stage, Train};

pub(super) fn check(manager: &ExpManager, stages: &[NamedStage], findings: &mut Findings) {
    let given = manager.early_stopping_callback_params.as_ref();
    let monitor = given.and_then(|given| given.monitor.as_deref()).unwrap_or("val_loss");
    let stops = manager.create_early_stopping_callback == Some(true);
    for stage in stages {
        let Stage::Train(train) = &stage.stage else { continue };
        let validates = stage.settings.trainer.validation_interval() > 0;
        if !validates && let Some(path) = stage.path.as_ref().filter(|_| train.validate.is_some()) {
            findings
                .error(
                    "recipe::no_validation",
                    path.key("validate"),
                    "at no step",
                    format!("`{}` never validates", stage.name),
                )
                .help("set trainer.val_check_interval to a number of steps, limit_val_batches above 0");
        }
        if let Some(Monitor::Metric(monitor)) = manager.kept().map(|keep| keep.monitor)
            && validates
            && computed(train).all(|name| name != monitor)
        {
            let names: Vec<String> = computed(train).collect();
            let lead = format!("`{}` computes", stage.name);
            let choices = suggest::choices(&monitor, &lead, names.iter().map(String::as_str));
            findings
                .error(
                    "recipe::monitor",
                    "exp_manager.checkpoint_callback_params.monitor",
                    "ranks checkpoints",
                    format!(
                        "checkpoints are ranked by `{monitor}`, which `{}` does not compute",
                        stage.name
                    ),
                )
                .help(choices);
        }
        if stops && !(validates && computed(train).any(|name| name == monitor)) {
            let names: Vec<String> = computed(train).collect();
            let choices = if validates {
                let lead = format!("`{}` computes", stage.name);
                suggest::choices(monitor, &lead, names.iter().map(String::as_str))
            } else {
                "set trainer.val_check_interval to a number of steps".to_owned()
            };
            findings
                .error(
                    "recipe::monitor",
                    "exp_manager.create_early_stopping_callback",
                    "watches",
                    format!(
                        "early stopping watches `{monitor}`, which `{}` does not compute",
                        stage.name
                    ),
                )
                .help(choices);
        }
    }
}

/// The values that validations of `train` compute.
fn computed(train: &Train) -> impl Iterator<Item = String> {
    let metrics = train.validate.iter().flat_map(|validate| &validate.metrics);
    let named = metrics.map(|metric| format!("{VALIDATION_METRIC}{}", metric.name()));
    std::iter::once("val_loss".to_owned()).chain(named)
}

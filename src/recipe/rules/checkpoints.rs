//! Which checkpoints are kept: what ranks them and what they are called.

use crate::base::file_pattern::FilePattern;
use crate::recipe::findings::Findings;
use crate::spec::job::Monitor;
use crate::spec::recipe::{ExpManager, Trainer};

const PARAMS: &str = "exp_manager.checkpoint_callback_params";

pub(super) fn check(manager: &ExpManager, trainer: &Trainer, findings: &mut Findings) {
    if manager.save_top_k().is_none() {
        return;
    }
    let name = manager.monitor();
    match Monitor::named(name) {
        None => {
            findings
                .error(
                    "recipe::monitor",
                    format!("{PARAMS}.monitor").as_str(),
                    "not a number of training",
                    format!(
                        "checkpoints cannot be ranked by `{name}`, which training does not compute"
                    ),
                )
                .help("name `val_loss`, `reduced_train_loss`, or `val_metrics/avg_NAME` of a metric of `validate`");
        }
        Some(Monitor::ValLoss | Monitor::Metric(_)) if trainer.validation_interval() == 0 => {
            findings
                .error(
                    "recipe::monitor",
                    format!("{PARAMS}.monitor").as_str(),
                    "never computed",
                    format!("checkpoints cannot be ranked by `{name}`: there are no validations"),
                )
                .with("trainer.val_check_interval", "no validations")
                .help("set trainer.val_check_interval, or monitor `reduced_train_loss`");
        }
        Some(_) => {}
    }
    filename(manager, findings);
}

fn filename(manager: &ExpManager, findings: &mut Findings) {
    let text = manager.checkpoint_filename();
    let known = |name: &&str| !["step", "consumed_samples", manager.monitor()].contains(name);
    let problem = match FilePattern::parse(&text) {
        Err(reason) => Some(reason),
        Ok(pattern) => pattern
            .names()
            .find(known)
            .map(|name| format!("`{{{name}}}` is not known when it is saved"))
            .or_else(|| {
                let unique =
                    manager.save_top_k() == Some(1) || pattern.names().any(|name| name == "step");
                (!unique).then(|| "several checkpoints would have the same name".to_owned())
            }),
    };
    if let Some(reason) = problem {
        let path = format!("{PARAMS}.filename");
        let message = format!("checkpoints cannot be called `{text}`: {reason}");
        findings.error("recipe::filename", path.as_str(), "this name", message).help(format!(
            "use {{step}}, {{consumed_samples}} and {{{}:.2f}}, and put {{step}} in it",
            manager.monitor()
        ));
    }
}

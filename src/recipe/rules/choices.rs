//! Judged sets: either samples or rows of multiple choice, each with metrics of its own.

use super::templates;
use crate::recipe::findings::Findings;
use crate::recipe::path::Path;
use crate::spec::metric::MetricName;
use crate::spec::recipe::{Choices, Evaluate, MetricChoice};

pub(super) fn check(evaluate: &Evaluate, path: &Path, findings: &mut Findings) {
    metrics(evaluate, &path.key("metrics"), findings);
    match (&evaluate.choices, &evaluate.data) {
        (None, None) => findings
            .error(
                "recipe::missing_value",
                path.key("data"),
                "nothing to evaluate on",
                format!("`{path}` has neither samples nor rows of multiple choice"),
            )
            .help("name a tokenize stage in `data`, or rows in `choices`"),
        (Some(choices), data) => {
            let path = path.key("choices");
            let beside = [
                ("data", data.is_some()),
                ("split", evaluate.split.is_some()),
                ("task", evaluate.task.is_some()),
            ];
            for (key, _) in beside.into_iter().filter(|(_, given)| *given) {
                findings
                    .error(
                        "recipe::contradiction",
                        path.parent().unwrap_or_default().key(key),
                        "of samples",
                        format!("`{key}` chooses samples, but `choices` names rows of its own"),
                    )
                    .with(path.clone(), "rows of multiple choice")
                    .help(format!(
                        "remove `{key}`, or evaluate the samples in a stage of their own"
                    ));
            }
            forms(choices, &path, findings);
        }
        (None, Some(_)) => {}
    }
}

fn forms(choices: &Choices, path: &Path, findings: &mut Findings) {
    templates::of_row(&choices.prompt, path, "prompt", findings);
    let labels = choices.labels.as_ref().map(|labels| ("labels", labels));
    let given = [("choices", &choices.choices), ("answer", &choices.answer)];
    for (key, expression) in given.into_iter().chain(labels) {
        templates::expression(expression, path, key, findings);
    }
}

/// Accuracies of choices belong to choices, all others to samples.
fn metrics(evaluate: &Evaluate, path: &Path, findings: &mut Findings) {
    for (index, metric) in evaluate.metrics.iter().enumerate() {
        let of_choices =
            matches!(metric, MetricChoice::Named(name) if MetricName::is_of_choices(*name));
        if of_choices == evaluate.choices.is_some() {
            continue;
        }
        let name = metric.name();
        let (message, help) = if of_choices {
            (
                format!("`{name}` is a metric of multiple choice, which this evaluation has not"),
                "name its rows in `choices` of an evaluate stage",
            )
        } else {
            (
                format!("`{name}` is a metric of samples, and `choices` gives none"),
                "name `acc` and `acc_norm` here, and the others in a stage with `data`",
            )
        };
        findings
            .error("recipe::metric_form", path.index(index), "of another kind", message)
            .help(help);
    }
}

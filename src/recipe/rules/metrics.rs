//! Metrics of a recipe's own: made in one way, under a name that is free.

use crate::recipe::findings::Findings;
use crate::recipe::path::Path;
use crate::recipe::render::{self, Flaw};
use crate::spec::metric::MetricName;
use crate::spec::recipe::{MetricChoice, OwnMetric};

pub(super) fn check(metrics: &[MetricChoice], path: &Path, findings: &mut Findings) {
    for (index, metric) in metrics.iter().enumerate() {
        let path = path.index(index);
        let MetricChoice::Own(own) = metric else { continue };
        name(own, &metrics[..index], &path, findings);
        form(own, &path, findings);
        if let Some(regex) = &own.regex
            && let Err(error) = regex::Regex::new(regex)
        {
            let message = format!("metric `{}`: {error}", own.name);
            findings
                .error("recipe::regex", path.key("regex"), "no regular expression", message)
                .help("write it in the syntax of Rust's `regex`; there are no look-arounds");
        }
        if let Some(expression) = &own.expression
            && let Err(Flaw { reason, meant }) = render::check_expression(expression)
        {
            let message = format!("metric `{}`: {reason}", own.name);
            let advice = "write a minijinja expression over `prompt`, `expected` and `output`";
            findings
                .error("recipe::expression", path.key("expression"), "no expression", message)
                .help(meant.as_deref().unwrap_or(advice));
        }
    }
}

fn name(own: &OwnMetric, earlier: &[MetricChoice], path: &Path, findings: &mut Findings) {
    let ours = MetricName::ALL.iter().any(|metric| metric.name() == own.name);
    let taken = earlier.iter().any(|metric| metric.name() == own.name);
    let good = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    let message = if ours {
        format!("`{}` is a metric of the program's", own.name)
    } else if taken {
        format!("two metrics are called `{}`", own.name)
    } else if own.name.is_empty() || !own.name.chars().all(good) {
        format!("`{}` cannot be the name of a metric", own.name)
    } else {
        return;
    };
    findings
        .error("recipe::metric_name", path.key("name"), "this name", message)
        .help("give it a name of its own, of letters, digits, `_` and `-`");
}

fn form(own: &OwnMetric, path: &Path, findings: &mut Findings) {
    let ways = own.ways();
    let given = match ways.as_slice() {
        [] => "in no way".to_owned(),
        [_] => String::new(),
        several => format!("in several ways: {}", several.join(", ")),
    };
    if !given.is_empty() {
        findings
            .error(
                "recipe::metric_form",
                path.clone(),
                "this metric",
                format!("metric `{}` is made {given}", own.name),
            )
            .help("give one of `regex`, `expression`, `lexicon`, `classifier`, `command`");
    }
    if own.command.as_ref().is_some_and(|command| command.is_empty() || command[0].is_empty()) {
        findings
            .error(
                "recipe::missing_value",
                path.key("command"),
                "empty",
                format!("metric `{}` names no program", own.name),
            )
            .help("write the program and its arguments: `command: [python3, score.py]`");
    }
    let of_classifiers =
        [("label", own.label.is_some()), ("with_prompt", own.with_prompt.is_some())];
    let given = of_classifiers.into_iter().filter(|(_, given)| *given && own.classifier.is_none());
    for (key, _) in given {
        findings
            .error(
                "recipe::metric_form",
                path.key(key),
                "no classifier to read it",
                format!("`{key}` belongs to a `classifier`, which metric `{}` has not", own.name),
            )
            .help("remove it");
    }
    if own.timeout.is_some() && own.command.is_none() {
        findings
            .error(
                "recipe::metric_form",
                path.key("timeout"),
                "no program to wait for",
                format!("`timeout` belongs to a `command`, which metric `{}` has not", own.name),
            )
            .help("remove it");
    }
    if own.timeout.is_some_and(|timeout| timeout <= 0.0 || timeout > 1e6) {
        findings
            .error(
                "recipe::timeout",
                path.key("timeout"),
                "out of range",
                format!("metric `{}` has no time to answer, or for ever", own.name),
            )
            .help("give a number of seconds above 0 and below a million");
    }
}

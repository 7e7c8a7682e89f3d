//! Sources and tasks of tokenize stages: shares that leave rows to learn from, one way to make text.

use super::rows::check_template;
use super::templates;
use crate::recipe::findings::{Findings, number};
use crate::recipe::path::Path;
use crate::spec::recipe::stage::{SplitBy, SplitChoice};
use crate::spec::recipe::{Source, Task, Tokenize};
use jiff::civil::Date;

pub(super) fn check(tokenize: &Tokenize, path: &Path, findings: &mut Findings) {
    let path = path.key("sources");
    if tokenize.sources.is_empty() {
        findings
            .error(
                "recipe::missing_value",
                path.clone(),
                "empty",
                "a tokenize stage needs at least one file of rows",
            )
            .help("add `- {rows: PATH, tasks: […]}`");
    }
    for (index, source) in tokenize.sources.iter().enumerate() {
        let path = path.index(index);
        if let SplitChoice::By(split) = &source.split {
            shares(split, &path.key("split"), findings);
        }
        tasks(source, &path.key("tasks"), findings);
    }
}

fn shares(split: &SplitBy, path: &Path, findings: &mut Findings) {
    let held_out = split.validation + split.test;
    if held_out < 1.0 {
        return;
    }
    let message = format!(
        "validation {} + test {} = {} leaves no rows to learn from",
        number(split.validation),
        number(split.test),
        number(held_out),
    );
    findings
        .error("recipe::shares", path.key("test"), number(split.test), message)
        .with(path.key("validation"), number(split.validation))
        .help("make their sum less than 1; all rows to one split is `split: test`");
}

fn tasks(source: &Source, path: &Path, findings: &mut Findings) {
    if source.tasks.is_empty() {
        findings
            .error(
                "recipe::missing_value",
                path.clone(),
                "empty",
                "rows without a task give no samples",
            )
            .help("add `- {name: NAME, prompt: \"…\", answer: \"…\"}`");
    }
    for (index, task) in source.tasks.iter().enumerate() {
        let path = path.index(index);
        let earlier = source.tasks.iter().take(index).position(|other| other.name() == task.name());
        if let Some(earlier) = earlier {
            let first = path.parent().unwrap_or_default().index(earlier);
            findings
                .error(
                    "recipe::duplicate_task",
                    path.key("name"),
                    "again here",
                    format!("two tasks of these rows are called `{}`", task.name()),
                )
                .with(first.key("name"), "first here")
                .help("give each task a name of its own: evaluation selects samples by it");
        }
        if task.share == Some(0.0) {
            findings
                .error(
                    "recipe::shares",
                    path.key("share"),
                    "0",
                    format!("task `{}` takes none of the rows", task.name()),
                )
                .help("give it a share above 0, or remove the task");
        }
        form(task, &path, findings);
        templates::of_task(task, &path, findings);
    }
}

/// Exactly one way to make text, and no key of another way.
fn form(task: &Task, path: &Path, findings: &mut Findings) {
    let name = task.name();
    let templates = task.prompt.is_some() || task.answer.is_some();
    let chat = task.chat_template.is_some();
    let given = [templates, task.text.is_some(), task.prompt_template.is_some(), chat];
    let forms = "`prompt` and `answer`, or `text`, or `prompt_template`, or `chat_template`";
    if given.iter().filter(|given| **given).count() != 1 {
        let many = given.contains(&true);
        let message = if many {
            format!("task `{name}` makes its text in more than one way")
        } else {
            format!("task `{name}` does not say how text is made of a row")
        };
        findings
            .error("recipe::task_form", path.clone(), "this task", message)
            .help(format!("give {forms}"));
        return;
    }
    if templates && (task.prompt.is_none() || task.answer.is_none()) {
        let (has, lacks) =
            if task.prompt.is_some() { ("prompt", "answer") } else { ("answer", "prompt") };
        findings
            .error(
                "recipe::task_form",
                path.key(has),
                format!("has no `{lacks}`"),
                format!("task `{name}` has a {has}, but no {lacks}"),
            )
            .help(format!("add `{lacks}`; for rows that are all text, write `text: FIELD`"));
    }
    let nemo = [
        ("label_key", task.label_key.is_some()),
        ("truncation_field", task.truncation_field.is_some()),
        ("truncation_method", task.truncation_method.is_some()),
        ("tokens_to_generate", task.tokens_to_generate.is_some()),
    ];
    let chat = [("messages", task.messages.is_some()), ("date", task.date.is_some())];
    if task.prompt_template.is_none() {
        belong_to("prompt_template", &nemo, name, path, findings);
    }
    if task.chat_template.is_none() {
        belong_to("chat_template", &chat, name, path, findings);
    }
    if let Some(template) = &task.prompt_template {
        let label = task.label_key.as_deref().unwrap_or("output");
        check_template(template, label, &path.key("prompt_template"), findings);
    }
    if let Some(date) = task.date.as_deref().filter(|date| date.parse::<Date>().is_err()) {
        findings
            .error(
                "recipe::date",
                path.key("date"),
                "no day",
                format!("`{date}` is not a day of the calendar"),
            )
            .help("write year, month and day, such as 2024-07-26");
    }
    if task.text.is_some() && task.answer_only_loss == Some(true) {
        findings
            .error(
                "recipe::task_form",
                path.key("answer_only_loss"),
                "no answer",
                format!("task `{name}` has no answer to learn from: it is all text"),
            )
            .help("remove `answer_only_loss`, or write the task with `prompt` and `answer`");
    }
}

/// Keys of one way to make text, in a task that does it another way.
fn belong_to(form: &str, keys: &[(&str, bool)], name: &str, path: &Path, findings: &mut Findings) {
    for (key, _) in keys.iter().filter(|(_, set)| *set) {
        findings
            .error(
                "recipe::task_form",
                path.key(key),
                format!("without {form}"),
                format!("`{key}` belongs to a `{form}`, which task `{name}` does not have"),
            )
            .help(format!("remove `{key}`, or write the task with `{form}`"));
    }
}

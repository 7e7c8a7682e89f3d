//! Templates and expressions over rows: whether they can be read, and name what exists.

use crate::recipe::findings::Findings;
use crate::recipe::path::Path;
use crate::recipe::render::{self, Flaw};
use crate::spec::recipe::stage::TOKENIZERS_TEMPLATE;
use crate::spec::recipe::{Model, Task};

/// The templates of a task.
pub(super) fn of_task(task: &Task, path: &Path, findings: &mut Findings) {
    for (key, template) in [("prompt", &task.prompt), ("answer", &task.answer)] {
        if let Some(template) = template {
            of_row(template, path, key, findings);
        }
    }
    if let Some(template) = &task.chat_template {
        of_chat(template, path, findings);
    }
}

/// A template over a row's fields, the value of `key` in the section at `path`.
pub(super) fn of_row(template: &str, path: &Path, key: &str, findings: &mut Findings) {
    if let Err(Flaw { reason, meant }) = render::check_template(template) {
        let advice = "write a minijinja template over the row's fields, such as `{{ question }}`";
        findings
            .error("recipe::template", path.key(key), "no template", format!("`{key}`: {reason}"))
            .help(meant.as_deref().unwrap_or(advice));
    }
}

/// A chat template, or the word for the tokenizer's.
pub(super) fn of_chat(template: &str, path: &Path, findings: &mut Findings) {
    if template == TOKENIZERS_TEMPLATE {
        return;
    }
    if let Err(Flaw { reason, meant }) = render::check_chat_template(template) {
        let message = format!("`chat_template`: {reason}");
        let advice = "write a Hugging Face chat template, a Jinja template over `messages`";
        findings
            .error("recipe::template", path.key("chat_template"), "no template", message)
            .help(meant.as_deref().unwrap_or(advice));
    }
}

/// An expression over a row's fields.
pub(super) fn expression(source: &str, path: &Path, key: &str, findings: &mut Findings) {
    if let Err(Flaw { reason, meant }) = render::check_syntax(source) {
        let message = format!("`{key}`: {reason}");
        let advice = "write a minijinja expression over the row's fields, such as `endings`";
        findings
            .error("recipe::expression", path.key(key), "no expression", message)
            .help(meant.as_deref().unwrap_or(advice));
    }
}

/// The chat template that the recipe gives its tokenizer.
pub(super) fn of_tokenizer(model: &Model, findings: &mut Findings) {
    let given = model.tokenizer.as_ref().and_then(|tokenizer| tokenizer.chat_template.as_deref());
    let Some(template) = given else { return };
    let path = Path::from("model.tokenizer");
    if template == TOKENIZERS_TEMPLATE {
        findings
            .error(
                "recipe::template",
                path.key("chat_template"),
                "no template",
                "`chat_template` of the tokenizer itself has to be a template",
            )
            .help(
                "write a Hugging Face chat template, or leave it out: the tokenizer's own is taken",
            );
        return;
    }
    of_chat(template, &path, findings);
}

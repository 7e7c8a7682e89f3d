//! A train stage's `with`: settings that training reads.

use crate::recipe::findings::Findings;
use crate::recipe::path::Path;
use crate::spec::recipe::{Model, Train};

/// Settings of `model` that other stages read, so that they would do nothing here.
pub(super) fn check(train: &Train, path: &Path, findings: &mut Findings) {
    let Some(model) = train.overlay.as_ref().and_then(|overlay| overlay.model.as_deref()) else {
        return;
    };
    let path = path.key("with").key("model");
    for (key, _, who) in unread(model, train).into_iter().filter(|(_, set, _)| *set) {
        let at = key.split('.').fold(path.clone(), |path, key| path.key(key));
        findings
            .error(
                "recipe::unread_overlay",
                at,
                "read by another stage",
                format!("`model.{key}` does nothing for one train stage: {who}"),
            )
            .help(format!("set `model.{key}` in the recipe's own section, for all stages"));
    }
}

fn unread(model: &Model, train: &Train) -> Vec<(&'static str, bool, &'static str)> {
    const TOKENIZE: &str = "it is about making tokens of rows";
    const START: &str = "it is about the weights that a load stage makes";
    const SHARDS: &str = "the stage reads the shards that `data` names";
    let data = model.data.clone().unwrap_or_default();
    let shards = train.data.is_some();
    vec![
        ("tokenizer", model.tokenizer.is_some(), TOKENIZE),
        ("answer_only_loss", model.answer_only_loss.is_some(), TOKENIZE),
        ("data.add_bos", data.add_bos.is_some(), TOKENIZE),
        ("data.add_eos", data.add_eos.is_some(), TOKENIZE),
        ("data.train_ds", data.train_ds.is_some(), TOKENIZE),
        ("data.validation_ds", data.validation_ds.is_some(), TOKENIZE),
        ("data.test_ds", data.test_ds.is_some(), TOKENIZE),
        ("restore_from_path", model.restore_from_path.is_some(), START),
        ("init_method_std", model.init_method_std.is_some(), START),
        ("use_scaled_init_method", model.use_scaled_init_method.is_some(), START),
        ("data.data_prefix", shards && data.data_prefix.is_some(), SHARDS),
        ("data.splits_string", shards && data.splits_string.is_some(), SHARDS),
    ]
}

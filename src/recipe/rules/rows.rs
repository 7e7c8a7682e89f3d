//! `model.data`: ready shards with weights, row files of NeMo's SFT keys.

use crate::base::suggest;
use crate::recipe::findings::{Findings, count, number};
use crate::recipe::path::Path;
use crate::recipe::stages::NEMO_METRICS;
use crate::spec::recipe::{Data, DataPrefix, Dataset, Model, Weighted};

pub(super) fn check(model: &Model, findings: &mut Findings) {
    let Some(data) = &model.data else { return };
    splits(data, findings);
    weights(data, findings);
    let files = [
        ("train_ds", &data.train_ds),
        ("validation_ds", &data.validation_ds),
        ("test_ds", &data.test_ds),
    ];
    for (name, rows) in files {
        let Some(rows) = rows else { continue };
        let path = Path::from("model.data").key(name);
        batches(&path, rows, model, findings);
        probabilities(&path, rows, findings);
        template(&path, rows, findings);
        metric(&path, rows, findings);
        if name == "train_ds" && rows.files().is_empty() {
            findings
                .error(
                    "recipe::missing_value",
                    path.key("file_names"),
                    "no files",
                    "model.data.train_ds names no row files",
                )
                .help("set model.data.train_ds.file_names to a list of JSONL files");
        }
    }
    let both = data.train_ds.is_some() && crate::recipe::stages::names_shards(model);
    if both {
        findings
            .error(
                "recipe::contradiction",
                "model.data.data_prefix",
                "ready shards",
                "model.data names both ready shards and row files to learn from",
            )
            .with("model.data.train_ds", "row files")
            .help("keep data_prefix or train_ds");
    }
}

fn splits(data: &Data, findings: &mut Findings) {
    let Some(text) = data.splits_string.as_ref().filter(|_| data.splits().is_none()) else {
        return;
    };
    findings
        .error(
            "recipe::splits",
            "model.data.splits_string",
            "cannot be read",
            format!("`{text}` does not give shares of train, validation and test"),
        )
        .help("write three numbers with commas between, such as 900,50,50");
}

fn weights(data: &Data, findings: &mut Findings) {
    let lists: Vec<&Vec<Weighted>> = match &data.data_prefix {
        Some(DataPrefix::Blend(files)) => vec![files],
        Some(DataPrefix::Splits { train, validation, test }) => vec![train, validation, test],
        Some(DataPrefix::Placeholder(_)) | None => return,
    };
    for files in lists.into_iter().filter(|files| !files.is_empty()) {
        let sum: f64 = files.iter().map(|file| file.weight).sum();
        if let Some(file) = files.iter().find(|file| file.weight < 0.0) {
            let message = format!("{} has the weight {}", file.prefix, number(file.weight));
            findings
                .error("recipe::weights", "model.data.data_prefix", "a negative weight", message)
                .help("weights are shares of the samples: 0 or more");
        } else if sum <= 0.0 {
            findings
                .error(
                    "recipe::weights",
                    "model.data.data_prefix",
                    "no weight above 0",
                    "the weights of the token files add up to 0",
                )
                .help("give at least one file a weight above 0");
        }
    }
}

fn batches(path: &Path, rows: &Dataset, model: &Model, findings: &mut Findings) {
    let pairs = [
        ("global_batch_size", rows.global_batch_size, model.global_batch_size),
        ("micro_batch_size", rows.micro_batch_size, model.micro_batch_size),
    ];
    for (key, own, whole) in pairs {
        let (Some(own), Some(whole)) = (own, whole) else { continue };
        if own != whole {
            findings
                .error(
                    "recipe::batch_size",
                    path.key(key),
                    format!("{own}"),
                    format!("{path}.{key} ({own}) and model.{key} ({whole}) differ"),
                )
                .with(Path::from("model").key(key), format!("{whole}"))
                .help(format!("write `{key}: ${{model.{key}}}`"));
        }
    }
}

fn probabilities(path: &Path, rows: &Dataset, findings: &mut Findings) {
    let Some(shares) = &rows.concat_sampling_probabilities else { return };
    let (files, at) = (rows.files().len(), path.key("concat_sampling_probabilities"));
    let sum: f64 = shares.iter().sum();
    if shares.len() != files {
        let message = format!("{} for {}", count(shares.len(), "share"), count(files, "row file"));
        findings
            .error("recipe::shares", at, format!("{} shares", shares.len()), message)
            .with(path.key("file_names"), format!("{files} files"))
            .help("give one share for each file");
    } else if (sum - 1.0).abs() > 1e-6 {
        let message = format!("the shares of the row files add up to {}, not to 1", number(sum));
        findings
            .error("recipe::shares", at, format!("sum {}", number(sum)), message)
            .help("make the shares add up to 1");
    } else if files > 1 {
        findings
            .error(
                "recipe::refused",
                at,
                "not built",
                "drawing samples from several row files by given shares is not built",
            )
            .help("set it to null: then every row of every file is used once per epoch");
    }
}

fn template(path: &Path, rows: &Dataset, findings: &mut Findings) {
    let Some(template) = &rows.prompt_template else { return };
    let label = rows.label_key.as_deref().unwrap_or("output");
    check_template(template, label, &path.key("prompt_template"), findings);
}

/// NeMo's rule: the answer's field stands in the template, and stands last.
pub(super) fn check_template(template: &str, label: &str, path: &Path, findings: &mut Findings) {
    let field = format!("{{{label}}}");
    if template.ends_with(&field) {
        return;
    }
    let message = if template.contains(&field) {
        format!("text follows {field} in the prompt template")
    } else {
        format!("the prompt template does not contain the answer's field {field}")
    };
    findings.error("recipe::prompt_template", path.clone(), "this template", message).help(format!(
        "end the template with {field}, the field that label_key names; for text after the answer write a tokenize stage with `prompt` and `answer`"
    ));
}

fn metric(path: &Path, rows: &Dataset, findings: &mut Findings) {
    let Some(name) = rows.metric.as_ref().and_then(|metric| metric.name.as_deref()) else { return };
    let known = || NEMO_METRICS.iter().map(|(name, _)| *name);
    if known().any(|other| other == name) {
        return;
    }
    findings
        .error(
            "recipe::refused",
            path.key("metric").key("name"),
            "not built",
            format!("the metric `{name}` is not built"),
        )
        .help(suggest::choices(name, "known here:", known()));
}

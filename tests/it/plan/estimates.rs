//! What fits which devices: refusals with what to cut, layouts that fit, schedules.

use crate::recipe_check::load_with;
use serde_json::Value;
use sft_run::base::digest::Digest;
use sft_run::plan::schedule::pipelines;
use sft_run::plan::suggest::suggestions;
use sft_run::plan::{self, Facts, Plan, wanted};
use std::path::{Path, PathBuf};

const GIB: u64 = 1 << 30;

/// The recipe planned where every file exists and devices have `memory` bytes.
fn planned(recipe: &str, overrides: &[&str], memory: u64) -> Plan {
    let path = Path::new(recipe);
    let recipe = load_with(path, overrides).unwrap_or_else(|problems| panic!("{problems:#?}")).0;
    let named = |path: PathBuf| {
        let digest = Digest::of_bytes(path.as_os_str().as_encoded_bytes());
        (path, digest)
    };
    let facts = Facts {
        digests: wanted(&recipe).files.into_iter().map(named).collect(),
        vocab_size: Some(if path.ends_with("megatron_llama2_7b.yaml") { 32000 } else { 50257 }),
        gpus: 64,
        gpu_memory: Some(memory),
        host_memory: Some(memory),
        ..Facts::default()
    };
    plan::compile(&recipe, &facts).unwrap()
}

/// What a run lacks in memory.
fn lack(plan: &Plan) -> Option<String> {
    let memory = |text: &String| text.contains("GiB on each GPU") || text.contains("of memory");
    plan.missing().iter().map(ToString::to_string).find(memory)
}

#[test]
fn a_run_that_does_not_fit_is_refused_with_what_to_cut() {
    let cases: [(&str, &[&str], u64); 5] = [
        ("recipes/sft_megatron_20b.yaml", &[], 40 * GIB),
        ("recipes/megatron_1.3b.yaml", &[], 64 * GIB),
        ("recipes/megatron_65b.yaml", &["model.tensor_model_parallel_size=2"], 40 * GIB),
        (
            "recipes/megatron_65b.yaml",
            &["trainer.num_nodes=1", "model.pipeline_model_parallel_size=1"],
            24 * GIB,
        ),
        (
            "recipes/quickstart.yaml",
            &["model.hidden_size=4096", "model.num_attention_heads=32"],
            4 * GIB,
        ),
    ];
    let text = |(recipe, overrides, memory): (&str, &[&str], u64)| {
        let lack = lack(&planned(recipe, overrides, memory)).unwrap();
        format!("{recipe} {}\n  {lack}\n", overrides.join(" "))
    };
    insta::assert_snapshot!(cases.map(text).join("\n"));
    for recipe in ["quickstart", "megatron_20b", "megatron_65b", "megatron_llama2_7b"] {
        assert_eq!(lack(&planned(&format!("recipes/{recipe}.yaml"), &[], 80 * GIB)), None);
    }
}

#[test]
fn layouts_that_fit_come_best_first_and_their_settings_give_them() {
    let recipe = "recipes/sft_megatron_20b.yaml";
    let found = suggestions(&planned(recipe, &[], 40 * GIB)).remove(0);
    let tables = [80, 100, 140].map(|columns| found.table(8, columns));
    for (table, columns) in tables.iter().zip([80, 100, 140]) {
        let lines = table.lines().filter(|line| !line.starts_with("to get"));
        assert!(lines.clone().all(|line| line.chars().count() <= columns), "{table}");
    }
    insta::assert_snapshot!(tables.join("\n"));
    assert!(!found.current.fits);
    for one in &found.suggestions {
        let overrides: Vec<&str> = one.overrides.iter().map(String::as_str).collect();
        let plan = planned(recipe, &overrides, 40 * GIB);
        assert_eq!(lack(&plan), None);
        let header = &plan.headers()[0];
        assert_eq!(header.degrees, one.degrees);
        // The vocabulary is padded by the tensor ranks, which moves a few rows.
        let off = header.bytes_per_device.abs_diff(one.bytes) as f64 / one.bytes as f64;
        assert!(off < 0.01, "{one:?} takes {}", header.bytes_per_device);
        assert!(suggestions(&plan)[0].current.overrides.is_empty());
    }
}

#[test]
fn schedules_are_shown_as_a_grid_and_as_lists_of_operations() {
    let overrides = [
        "model.micro_batch_size=8",
        "model.global_batch_size=256",
        "++model.virtual_pipeline_model_parallel_size=2",
    ];
    let plain = &overrides[..2];
    let mut text = String::new();
    for overrides in [plain, &overrides[..]] {
        let view = pipelines(&planned("recipes/megatron_65b.yaml", overrides, 80 * GIB)).remove(0);
        text.push_str(&format!("{}\n", view.title()));
        for line in view.grid(110) {
            let line: String = line.iter().map(sft_run::plan::schedule::Piece::text).collect();
            text.push_str(&format!("|{line}|\n"));
        }
        text.push_str(&format!("{:.3}\n{}\n\n", view.bubble, view.table().join("\n")));
        let json = serde_json::to_value(&view).unwrap();
        let operations = json["schedule"]["stages"][0].as_array().unwrap();
        let count = |name: &str| operations.iter().filter(|op| op["operation"] == name).count();
        assert_eq!(count("forward"), count("backward"));
        // The first stage gets gradients of all chunks, and activations of all but the first.
        assert_eq!(count("receive"), count("send"));
        assert_ne!(operations[0]["micro_batch"], Value::Null);
    }
    insta::assert_snapshot!(text);
}

//! Mistakes that people make, each with the error that they see (`INSTA_UPDATE=always` rewrites them).

use super::{load_with, yaml_files};
use sft_run::recipe::diagnostic::{json, render_width};
use std::path::Path;

const FOLDER: &str = "tests/fixtures/recipes/bad";

#[test]
fn every_bad_recipe_is_refused_with_its_error() {
    let names = yaml_files(FOLDER);
    assert!(names.len() >= 20, "{} bad recipes", names.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(format!("../../../{FOLDER}"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for name in names {
        // Tests run in the package's folder, so the short name is what stands in the error.
        let loaded = load_with(&Path::new(FOLDER).join(&name), &[]);
        let Err(problems) = loaded else { panic!("{name} loads, though it is a bad recipe") };
        let rendered = render_width(&problems, false, 100);
        let advised = problems.iter().all(|problem| problem.help.is_some());
        assert!(advised, "{name}: an error without advice\n{rendered}");
        settings.bind(|| insta::assert_snapshot!(name.trim_end_matches(".yaml"), rendered));
    }
}

#[test]
fn errors_are_told_as_json_too() {
    let path = Path::new(FOLDER).join("typo_in_key.yaml");
    let Err(problems) = load_with(&path, &[]) else { panic!("a bad recipe loads") };
    let told = json(&problems);
    let first = &told[0];
    assert_eq!(first["code"], "recipe::unknown_key");
    assert_eq!(first["severity"], "error");
    assert_eq!(first["path"], "model.tensor_model_paralel_size");
    assert_eq!((first["line"].as_u64(), first["column"].as_u64()), (Some(13), Some(3)));
    assert_eq!(first["help"], "did you mean `tensor_model_parallel_size`?");
}

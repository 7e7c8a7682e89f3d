//! The order of stages, and what cannot be ordered.

use super::fixture::{seal, stage, stages};
use proptest::prelude::*;
use sft_run::plan::{Draft, Source, Stage, draw};
use std::path::Path;

fn problems(stages: Vec<Stage>) -> Vec<String> {
    let found = Draft { stages, ..Draft::default() }.seal().unwrap_err();
    let line = |problem: &sft_run::recipe::problem::Problem| {
        let path = problem.path.as_ref().map(ToString::to_string).unwrap_or_default();
        let help = problem.help.clone().unwrap_or_default();
        format!("{} at {path}: {} ({help})", problem.code, problem.message)
    };
    found.iter().map(line).collect()
}

#[test]
fn a_circle_is_named_in_full() {
    let circle = vec![
        stage("a", "train", &[("model", "c")]),
        stage("b", "train", &[("model", "a")]),
        stage("c", "train", &[("model", "b")]),
        stage("d", "evaluate", &[("model", "c")]),
        stage("self", "train", &[("model", "self")]),
    ];
    insta::assert_snapshot!(problems(circle).join("\n"));
}

#[test]
fn names_that_lead_nowhere_are_all_reported() {
    let wrong = vec![
        stage("tokenize", "tokenize", &[]),
        stage("shard", "shard", &[("data", "tokenise")]),
        stage("train", "train", &[("data", "tokenize"), ("model", "weights")]),
        stage("Shard", "shard", &[("data", "tokenize")]),
        stage("../x", "load", &[]),
    ];
    insta::assert_snapshot!(problems(wrong).join("\n"));
}

#[test]
fn the_recipes_order_is_kept_where_it_can_be() {
    let mut reversed = stages(Path::new("rows"));
    reversed.reverse();
    let plan = seal(reversed);
    let names: Vec<_> = plan.stages().iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["load", "tokenize", "shard", "train", "generate", "evaluate"]);
}

#[test]
fn drawings() {
    let plan = seal(stages(Path::new("rows")));
    let runs = |name: &str| ["train", "evaluate", "generate"].contains(&name);
    insta::assert_snapshot!("mermaid", draw::mermaid(&plan, runs));
    insta::assert_snapshot!("dot", draw::dot(&plan, runs));
    insta::assert_snapshot!("lines", draw::lines(&plan, runs));
}

proptest! {
    /// Train stages that read from each other at random: either every stage stands after the one it
    /// reads from, or the circle that is named is one.
    #[test]
    fn an_order_or_a_true_circle(reads in prop::collection::vec(0usize..12, 1..12)) {
        let count = reads.len();
        let mut stages = vec![stage("s0", "load", &[])];
        for (at, from) in reads.iter().enumerate() {
            let from = format!("s{}", from % (count + 1));
            stages.push(stage(&format!("s{}", at + 1), "train", &[("model", &from)]));
        }
        let reads_from = |stages: &[Stage], name: &str| {
            let stage = stages.iter().find(|stage| stage.name == name).unwrap();
            match stage.inputs.get("model") {
                Some(Source::Stage(from)) => Some(from.clone()),
                _ => None,
            }
        };
        let all = stages.clone();
        match (Draft { stages, ..Draft::default() }).seal() {
            Ok(plan) => {
                let names: Vec<_> = plan.stages().iter().map(|stage| stage.name.clone()).collect();
                prop_assert_eq!(names.len(), count + 1);
                for (at, name) in names.iter().enumerate() {
                    if let Some(from) = reads_from(&all, name) {
                        prop_assert!(names[..at].contains(&from));
                    }
                }
            }
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                for problem in problems {
                    prop_assert_eq!(problem.code, "plan::cycle");
                    let circle = problem.message.rsplit(": ").next().unwrap();
                    let names: Vec<_> = circle.split(" -> ").collect();
                    prop_assert_eq!(names.first(), names.last());
                    for pair in names.windows(2) {
                        prop_assert_eq!(reads_from(&all, pair[0]).unwrap(), pair[1]);
                    }
                }
            }
        }
    }
}

//! Rules across settings; each names the numbers that do not fit.

mod around;
mod checkpoints;
mod choices;
mod decoding;
mod layout;
mod metrics;
mod numbers;
mod overlay;
mod rows;
mod shape;
mod stages;
mod tasks;
mod templates;
mod watching;

use super::findings::Findings;
use super::stages::NamedStage;
use crate::spec::recipe::{Recipe, Stage};

pub(super) use decoding::gen_kwargs;

/// Applies all rules.
pub(super) fn check(recipe: &Recipe, stages: &[NamedStage], findings: &mut Findings) {
    for stage in distinct(stages) {
        findings.in_overlay(stage.overlay());
        let (trainer, model) = (&stage.settings.trainer, &stage.settings.model);
        layout::check(trainer, model, findings);
        shape::check(model, findings);
        numbers::check(trainer, model, findings);
        if matches!(stage.stage, Stage::Train(_)) {
            numbers::check_training(trainer, model, findings);
            checkpoints::check(&recipe.exp_manager, trainer, findings);
        }
    }
    findings.in_overlay(None);
    around::check(recipe, findings);
    rows::check(&recipe.model, findings);
    templates::of_tokenizer(&recipe.model, findings);
    stages::check(stages, findings);
    watching::check(&recipe.exp_manager, stages, findings);
    if recipe.stages.is_some() {
        stages::check_unused(recipe, findings);
    }
    decoding::check(recipe, stages, findings);
}

/// One stage of each set of settings; a train stage where there is one, for it has more rules.
fn distinct(stages: &[NamedStage]) -> Vec<&NamedStage> {
    let trains = |stage: &&NamedStage| matches!(stage.stage, Stage::Train(_));
    let mut chosen: Vec<&NamedStage> = Vec::new();
    let others = stages.iter().filter(|stage| !trains(stage));
    for stage in stages.iter().filter(trains).chain(others) {
        if !chosen.iter().any(|known| known.settings == stage.settings) {
            chosen.push(stage);
        }
    }
    chosen
}

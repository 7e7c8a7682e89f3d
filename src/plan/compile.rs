//! A checked recipe to a sealed plan.

use super::draft::Draft;
use super::estimate::{self, workload};
use super::header::Header;
use super::jobs;
use super::lacks;
use super::origins;
use super::outside::{self, Facts};
use super::shape;
use super::stage::{Backend, Source, Stage};
use super::{Around, Plan};
use crate::layout::memory::per_device;
use crate::layout::parameters;
use crate::recipe::problem::{Problem, sort};
use crate::recipe::{CheckedRecipe, NamedStage};
use crate::spec::job::Job;
use crate::spec::recipe;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Compiles `recipe`. What a run would lack is in [`Plan::missing`]; what no run could ever do is a
/// problem, and all problems are reported at once, in the order of their places.
pub fn compile(recipe: &CheckedRecipe, facts: &Facts) -> Result<Plan, Vec<Problem>> {
    let mut problems: Vec<Problem> = Vec::new();
    let (mut stages, mut headers) = (Vec::new(), Vec::new());
    for named in recipe.stages() {
        match stage(recipe, named, facts) {
            Ok(stage) => {
                headers.extend(header(named, &stage, facts));
                stages.push(stage);
            }
            Err(problem) if problems.contains(&*problem) => {}
            Err(problem) => problems.push(*problem),
        }
    }
    if !problems.is_empty() {
        return Err(placed(recipe, problems));
    }
    let missing = lacks::missing(recipe, stages.iter().map(|stage| &stage.job), facts);
    let draft = Draft {
        name: recipe.name().to_owned(),
        stages,
        missing,
        headers,
        run_folder: run_folder(recipe),
        keeps_checkpoints: recipe.recipe().exp_manager.keeps_checkpoints(),
        around: Around::of(recipe),
    };
    draft.seal().map_err(|problems| placed(recipe, problems))
}

fn stage(recipe: &CheckedRecipe, named: &NamedStage, facts: &Facts) -> Result<Stage, Box<Problem>> {
    let job = jobs::job(recipe, named, facts)?;
    let mut inputs: BTreeMap<String, Source> = BTreeMap::new();
    for (name, mut file) in outside::inputs(recipe, named) {
        file.digest = file.digest_by(|path| facts.digests.get(path).copied());
        if file.digest.is_some() || !outside::is_optional(&name) {
            inputs.insert(name, Source::File(file));
        }
    }
    for (name, stage) in named_inputs(&named.stage) {
        inputs.insert(name.to_owned(), Source::Stage(stage.to_owned()));
    }
    let computes = matches!(job, Job::Train(_) | Job::Evaluate(_) | Job::Generate(_));
    let backend = if named.settings.trainer.on_gpu() { Backend::Cuda } else { Backend::Cpu };
    let mut stage = Stage {
        name: named.name.clone(),
        job,
        inputs,
        backend: computes.then_some(backend),
        origins: BTreeMap::new(),
    };
    stage.origins = origins::of(recipe, named, &stage);
    Ok(stage)
}

/// The inputs that name stages.
fn named_inputs(stage: &recipe::Stage) -> Vec<(&'static str, &str)> {
    match stage {
        recipe::Stage::Tokenize(_) | recipe::Stage::Load(_) => Vec::new(),
        recipe::Stage::Shard(shard) => vec![("data", &shard.data)],
        recipe::Stage::Train(train) => {
            let data = train.data.as_deref().map(|data| ("data", data));
            let validate = train.validate.as_ref();
            let validate = validate.map(|validate| ("validate.data", validate.data.as_str()));
            data.into_iter().chain([("model", train.model.as_str())]).chain(validate).collect()
        }
        recipe::Stage::Evaluate(evaluate) => {
            let data = evaluate.data.as_deref().map(|data| ("data", data));
            data.into_iter().chain([("model", evaluate.model.as_str())]).collect()
        }
        recipe::Stage::Generate(generate) => vec![("model", &generate.model)],
    }
}

fn header(named: &NamedStage, stage: &Stage, facts: &Facts) -> Option<Header> {
    let Job::Train(job) = &stage.job else { return None };
    let trainer = &named.settings.trainer;
    let model = &named.settings.model;
    let on_gpu = trainer.on_gpu();
    let memory = per_device(&workload(job));
    Some(Header {
        stage: named.name.clone(),
        num_nodes: trainer.num_nodes.unwrap_or(1),
        devices: trainer.devices.unwrap_or(1),
        device_kind: if on_gpu { "GPU" } else { "CPU" },
        degrees: job.trainer.degrees,
        global_batch_size: job.model.global_batch_size,
        micro_batch_size: job.model.micro_batch_size,
        sequence_length: job.model.encoder_seq_length,
        steps: job.trainer.max_steps,
        parameters: parameters::element_count(&job.model.architecture) as u64,
        vocabulary_known: shape::vocab_size(model, facts).is_some(),
        bytes_per_device: memory.total(),
        memory,
        cluster: estimate::cluster(trainer, facts),
        sequences: None,
    })
}

/// `explicit_log_dir`, or `exp_dir/name/version`; without an `exp_dir` it is `runs`.
fn run_folder(recipe: &CheckedRecipe) -> PathBuf {
    let manager = &recipe.recipe().exp_manager;
    let name = manager.name.as_deref().unwrap_or_else(|| recipe.name());
    let below = |folder: &str| {
        let named = Path::new(folder).join(name);
        manager.version.as_ref().map_or(named.clone(), |version| named.join(version))
    };
    match &manager.explicit_log_dir {
        Some(folder) => PathBuf::from(folder),
        None => below(manager.exp_dir.as_deref().unwrap_or("runs")),
    }
}

/// Gives problems the places of the values that they are about.
fn placed(recipe: &CheckedRecipe, problems: Vec<Problem>) -> Vec<Problem> {
    let place = |problem: Problem| {
        let marks = problem.path.as_ref().and_then(|path| recipe.resolved().marks.get(path));
        let place = marks.and_then(|marks| marks.value.place().or(marks.key.as_ref())).cloned();
        if problem.place.is_some() { problem } else { problem.at(place.as_ref(), "here") }
    };
    let mut problems: Vec<_> = problems.into_iter().map(place).collect();
    sort(&mut problems);
    problems
}

//! `sweep.html`: a sweep on one page that needs no other file and no network.

mod importance;

use super::pages::{self, Source};
use super::record::{Error, RunRecord};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The file's name in the sweep's folder.
pub const FILE: &str = "sweep.html";

const SOURCE: Source =
    Source { file: FILE, template: include_str!("sweep.html"), script: include_str!("sweep.js") };

/// Most points of one curve on the page.
const MAX_POINTS: usize = 400;

/// What the page is made of.
#[derive(Clone, Debug)]
pub struct Data {
    /// The recipe's name.
    pub name: String,
    /// Its path.
    pub recipe: String,
    /// What is compared.
    pub metric: String,
    /// Whether small is best.
    pub small_is_best: bool,
    /// The keys that have several values.
    pub keys: Vec<String>,
    /// Those of them whose values lie evenly in the logarithm.
    pub log_keys: Vec<String>,
    /// The trials, best first.
    pub trials: Vec<Trial>,
    /// The command that runs the best trial again.
    pub best: Option<String>,
}

/// A trial.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its number.
    pub number: usize,
    /// `done`, `stopped`, `failed`, `running`, `waiting`, `interrupted` or `open`.
    pub state: &'static str,
    /// Its values by key.
    pub values: BTreeMap<String, String>,
    /// What is compared.
    pub value: Option<f64>,
    /// Why it failed.
    pub error: Option<String>,
    /// Its run folder.
    pub folder: PathBuf,
}

/// The page as plain values for the template and the script.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    title: String,
    recipe: String,
    metric: String,
    small_is_best: bool,
    keys: Vec<String>,
    /// For each key, whether its axis is logarithmic.
    log: Vec<bool>,
    trials: Vec<Shown>,
    done: usize,
    /// `done` when all trials are, `failed` when some did, `interrupted` otherwise.
    badge: &'static str,
    /// Trials that have a value to be drawn.
    valued: usize,
    /// Whether there is any curve.
    has_curves: bool,
    /// Keys with their share of the metric's variance, largest first.
    importance: Vec<(String, f64)>,
    best: Option<String>,
    /// The best trial's resolved recipe.
    best_recipe: String,
}

#[derive(Clone, Debug, Serialize)]
struct Shown {
    number: usize,
    state: &'static str,
    /// In the order of the page's keys.
    values: Vec<String>,
    value: Option<f64>,
    error: Option<String>,
    steps: Vec<u64>,
    losses: Vec<f64>,
    validation_steps: Vec<u64>,
    validation_losses: Vec<f64>,
}

impl Page {
    /// The page of a sweep; curves are read from the trials' run folders, where there are some.
    pub fn of(data: &Data) -> Page {
        let trials: Vec<Shown> = data.trials.iter().map(|trial| shown(trial, &data.keys)).collect();
        let results: Vec<(&[String], f64)> = trials
            .iter()
            .filter(|trial| trial.state == "done")
            .filter_map(|trial| Some((trial.values.as_slice(), trial.value?)))
            .collect();
        let shares = (0..data.keys.len()).map(|at| importance::share(&results, at));
        let mut importance: Vec<(String, f64)> = data.keys.iter().cloned().zip(shares).collect();
        importance.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
        let failed = trials.iter().any(|trial| trial.state == "failed");
        let badge = match results.len() {
            all if all == trials.len() => "done",
            _ if failed => "failed",
            _ => "interrupted",
        };
        let best = data.trials.first().filter(|trial| trial.state == "done");
        let recipe = best.and_then(|trial| RunRecord::read(&trial.folder).ok());
        Page {
            title: data.name.clone(),
            recipe: data.recipe.clone(),
            metric: data.metric.clone(),
            small_is_best: data.small_is_best,
            keys: data.keys.clone(),
            log: data.keys.iter().map(|key| data.log_keys.contains(key)).collect(),
            done: results.len(),
            badge,
            valued: trials.iter().filter(|trial| trial.value.is_some_and(f64::is_finite)).count(),
            has_curves: trials.iter().any(Shown::has_curves),
            importance,
            best: data.best.clone(),
            best_recipe: recipe.map(|record| record.recipe).unwrap_or_default(),
            trials,
        }
    }
}

impl Shown {
    fn has_curves(&self) -> bool {
        !self.steps.is_empty() || !self.validation_steps.is_empty()
    }
}

fn shown(trial: &Trial, keys: &[String]) -> Shown {
    let training = RunRecord::read(&trial.folder)
        .ok()
        .and_then(|record| record.trainings.into_iter().next_back());
    let training = training.unwrap_or_default();
    let stride = training.steps.len().div_ceil(MAX_POINTS).max(1);
    let steps = || training.steps.iter().step_by(stride);
    Shown {
        number: trial.number,
        state: trial.state,
        values: keys.iter().map(|key| trial.values.get(key).cloned().unwrap_or_default()).collect(),
        value: trial.value,
        error: trial.error.clone(),
        steps: steps().map(|step| step.step).collect(),
        losses: steps().map(|step| step.reduced_train_loss).collect(),
        validation_steps: training.validations.iter().map(|one| one.step).collect(),
        validation_losses: training.validations.iter().map(|one| one.val_loss).collect(),
    }
}

/// The page as HTML.
pub fn render(page: &Page) -> Result<String, Error> {
    pages::render(&SOURCE, page)
}

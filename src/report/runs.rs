//! A list of runs: which are wanted, in what order, and what is shown of each.

use super::difference;
use super::numbers::{count, duration, quantity};
use super::summary::{StageSummary, Summary};
use serde::Serialize;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Metrics that get a column of their own, at most.
const METRICS: usize = 5;

/// A run, as its folder tells it.
#[derive(Clone, Debug)]
pub struct ListedRun {
    /// Its folder.
    pub folder: PathBuf,
    /// Its `summary.json`.
    pub summary: Summary,
    /// How far it is, when it has not come to its end.
    pub progress: Option<Progress>,
    /// The values of its `recipe.resolved.yaml` by path.
    pub settings: BTreeMap<String, String>,
}

/// How far a run is that has not come to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The process that is at work, in its own words; none when none is any more.
    pub process: Option<String>,
    /// The stage at work.
    pub stage: Option<String>,
    /// Steps done of a train stage.
    pub step: Option<u64>,
    /// Its steps in all.
    pub steps: Option<u64>,
}

impl Progress {
    /// `running (process 4711, train step 40 of 300)`, `interrupted (train step 40 of 300)`.
    pub fn words(&self) -> String {
        let process = self.process.as_deref();
        let process = process.map(|words| words.split(':').next().unwrap_or(words).to_owned());
        let parts: Vec<String> = process.into_iter().chain(self.place()).collect();
        let state = if self.process.is_some() { "running" } else { "interrupted" };
        if parts.is_empty() { state.to_owned() } else { format!("{state} ({})", parts.join(", ")) }
    }

    /// `train step 40 of 300`.
    pub fn place(&self) -> Option<String> {
        let stage = self.stage.as_ref()?;
        let of = self.steps.map(|steps| format!(" of {}", count(steps))).unwrap_or_default();
        let step = self.step.map(|step| format!(" step {}{of}", count(step)));
        Some(format!("{stage}{}", step.unwrap_or_default()))
    }
}

/// `KEY`, an operator and a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    key: String,
    operator: Operator,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
    Contains,
}

/// The longer spellings first: `<=` begins with `<`.
const OPERATORS: [(&str, Operator); 7] = [
    ("!=", Operator::Unequal),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("=", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::More),
    ("~", Operator::Contains),
];

impl Condition {
    /// Reads `state=done`, `loss<1.5`, `model.optim.lr>=1e-3`, `name~quick`.
    pub fn parse(text: &str) -> Result<Condition, String> {
        let start = text.find(['!', '<', '>', '=', '~']).unwrap_or(text.len());
        let (key, rest) = text.split_at(start);
        let found = OPERATORS.iter().find_map(|(sign, operator)| {
            rest.strip_prefix(sign).map(|value| (*operator, value.trim()))
        });
        match found {
            Some((operator, value)) if !key.trim().is_empty() => {
                Ok(Condition { key: key.trim().to_owned(), operator, value: value.to_owned() })
            }
            _ => Err("write KEY=VALUE, KEY!=VALUE, <, <=, >, >= or KEY~PART".to_owned()),
        }
    }

    /// The key it asks about.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether it holds of `run`; never where the run has no such value, save for `!=`.
    pub fn holds(&self, run: &ListedRun) -> bool {
        let Some(value) = run.value(&self.key) else { return self.operator == Operator::Unequal };
        let order = value.compare(&Value::of_text(&self.value));
        match self.operator {
            Operator::Equal => order == Some(Ordering::Equal),
            Operator::Unequal => order != Some(Ordering::Equal),
            Operator::Less => order == Some(Ordering::Less),
            Operator::AtMost => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Operator::More => order == Some(Ordering::Greater),
            Operator::AtLeast => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            Operator::Contains => value.text().contains(&self.value),
        }
    }
}

/// What a key says of a run.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(f64),
    Text(String),
}

impl Value {
    fn of_text(text: &str) -> Value {
        text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Number)
    }

    fn text(&self) -> String {
        match self {
            Value::Number(number) => number.to_string(),
            Value::Text(text) => text.clone(),
        }
    }

    /// Numbers by size, texts by their letters; a number and a text are not compared.
    fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Number(one), Value::Number(other)) => one.partial_cmp(other),
            (Value::Text(one), Value::Text(other)) => Some(one.cmp(other)),
            _ => None,
        }
    }
}

impl ListedRun {
    /// Metrics of the last stage that has some, which is what a run is about; of a run that trains,
    /// those of a trained model only.
    fn metrics(&self) -> Option<&BTreeMap<String, f64>> {
        let trains = self.summary.stages.iter().any(|stage| stage.kind == "train");
        let stages = self.summary.stages.iter().rev();
        let told = stages.filter(|stage| !trains || self.measures_trained(stage));
        told.map(|stage| &stage.metrics).find(|metrics| !metrics.is_empty())
    }

    /// Whether `stage` reads its model from a training.
    fn measures_trained(&self, stage: &StageSummary) -> bool {
        let path = format!("stages.{}.{}.model", stage.name, stage.kind);
        // A stage that the recipe does not write evaluates what was trained.
        let Some(model) = self.settings.get(&path) else { return true };
        let mut stages = self.summary.stages.iter();
        stages.any(|from| from.name == *model && from.kind == "train")
    }

    /// Where it lies: a run that was set aside stands after the one in whose folder it is, those
    /// with higher numbers first.
    fn place(&self) -> (&Path, Option<Reverse<u64>>) {
        let name = self.folder.file_name().and_then(OsStr::to_str);
        let number = name.and_then(|name| name.strip_prefix("run_")?.parse().ok());
        match (number, self.folder.parent()) {
            (Some(number), Some(parent)) => (parent, Some(Reverse(number))),
            _ => (&self.folder, None),
        }
    }

    fn value(&self, key: &str) -> Option<Value> {
        let summary = &self.summary;
        Some(match key {
            "run" => Value::Text(self.folder.display().to_string()),
            "name" => Value::Text(summary.name.clone()),
            "recipe" => Value::Text(summary.recipe.clone()),
            "started" => Value::Text(summary.started.clone()),
            "state" => Value::Text(summary.state.words().to_owned()),
            "time" => Value::Number(summary.seconds),
            "git_commit" => Value::Text(summary.environment.get("git_commit")?.clone()),
            key => match self.metrics().and_then(|metrics| metrics.get(key)) {
                Some(number) => Value::Number(*number),
                None => Value::of_text(self.settings.get(key)?),
            },
        })
    }
}

/// Every key that a condition or an order may name, for `runs`.
pub fn keys(runs: &[ListedRun]) -> BTreeSet<String> {
    let fixed = ["run", "name", "recipe", "started", "state", "time", "git_commit"];
    let metrics = runs.iter().filter_map(ListedRun::metrics).flat_map(BTreeMap::keys);
    let settings = runs.iter().flat_map(|run| run.settings.keys());
    fixed.into_iter().map(str::to_owned).chain(metrics.chain(settings).cloned()).collect()
}

/// Puts the newest first, which no two runs tie in.
pub fn newest_first(runs: &mut [ListedRun]) {
    runs.sort_by(|one, other| {
        let age = other.summary.started.cmp(&one.summary.started);
        age.then_with(|| one.place().cmp(&other.place()))
            .then_with(|| one.folder.cmp(&other.folder))
    });
}

/// Sorts by `key`; runs without such a value come last, equal ones stay in their order.
pub fn sort(runs: &mut [ListedRun], key: &str, reverse: bool) {
    runs.sort_by(|one, other| match (one.value(key), other.value(key)) {
        (Some(one), Some(other)) => {
            let order = one.compare(&other).unwrap_or_else(|| one.text().cmp(&other.text()));
            if reverse { order.reverse() } else { order }
        }
        (one, other) => other.is_some().cmp(&one.is_some()),
    });
}

/// Header and rows: metrics as columns, and with `settings` those that are not the same everywhere.
///
/// `first` names a metric that must be among the columns.
pub fn table(
    runs: &[ListedRun],
    settings: bool,
    first: Option<&str>,
) -> (Vec<String>, Vec<Vec<String>>) {
    let metrics = metric_columns(runs, first);
    let differing = if settings { differing(runs) } else { Vec::new() };
    let mut header: Vec<String> =
        ["run", "started", "state", "time"].into_iter().map(str::to_owned).collect();
    header.extend(differing.iter().chain(&metrics).cloned());
    let row = |run: &ListedRun| {
        let summary = &run.summary;
        let mut row = vec![
            run.folder.display().to_string(),
            summary.started.clone(),
            run.progress.as_ref().map_or(summary.state.words().to_owned(), Progress::words),
            duration(summary.seconds),
        ];
        let setting = |path: &String| run.settings.get(path).cloned().unwrap_or("–".to_owned());
        row.extend(differing.iter().map(setting));
        let number = |name: &String| run.metrics().and_then(|metrics| metrics.get(name)).copied();
        row.extend(metrics.iter().map(|name| number(name).map_or("–".to_owned(), quantity)));
        row
    };
    (header, runs.iter().map(row).collect())
}

/// The metrics that most runs have, at most [`METRICS`], `first` among them.
fn metric_columns(runs: &[ListedRun], first: Option<&str>) -> Vec<String> {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for name in runs.iter().filter_map(ListedRun::metrics).flat_map(BTreeMap::keys) {
        *counts.entry(name).or_default() += 1;
    }
    let mut names: Vec<(&String, usize)> = counts.into_iter().collect();
    names.sort_by_key(|(name, count)| (first != Some(name.as_str()), std::cmp::Reverse(*count)));
    names.into_iter().take(METRICS).map(|(name, _)| name.clone()).collect()
}

/// Paths of the settings that are not the same in every run.
fn differing(runs: &[ListedRun]) -> Vec<String> {
    let Some((first, rest)) = runs.split_first() else { return Vec::new() };
    let paths: BTreeSet<&String> = runs.iter().flat_map(|run| run.settings.keys()).collect();
    // Where a run lies is its first column.
    let place = ["exp_manager.explicit_log_dir", "exp_manager.exp_dir"];
    let differs = |path: &&&String| {
        let value = first.settings.get(**path);
        !place.contains(&path.as_str()) && rest.iter().any(|run| run.settings.get(**path) != value)
    };
    paths.iter().filter(differs).map(|path| (*path).clone()).collect()
}

/// The settings of a resolved recipe's text.
pub fn settings(recipe: &str) -> BTreeMap<String, String> {
    difference::values(recipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::{RunState, VERSION};

    fn run(folder: &str, lr: &str, seconds: f64) -> ListedRun {
        let summary = Summary {
            version: VERSION,
            name: "tiny".to_owned(),
            recipe: String::new(),
            command: Vec::new(),
            started: String::new(),
            seconds,
            state: RunState::Done,
            error: None,
            parameters: None,
            stages: Vec::new(),
            environment: BTreeMap::new(),
            inputs: BTreeMap::new(),
            crates: BTreeMap::new(),
            device_seconds: 0.0,
        };
        let recipe = format!("model:\n  seed: 1\n  optim: {{lr: {lr}}}\n");
        ListedRun { folder: folder.into(), summary, progress: None, settings: settings(&recipe) }
    }

    #[test]
    fn conditions_compare_numbers_by_size_and_texts_by_letters() {
        let run = run("a", "1e-3", 12.0);
        let holds = |text: &str| Condition::parse(text).unwrap().holds(&run);
        assert!(holds("model.optim.lr=0.001") && holds("model.optim.lr<0.01") && holds("time>=12"));
        assert!(holds("state=done") && holds("name~in") && holds("state != failed"));
        assert!(!holds("time<12") && !holds("state=failed") && !holds("nothing=1"));
        assert!(!holds("state<5"), "a text is neither more nor less than a number");
        assert!(Condition::parse("lr").is_err() && Condition::parse("=1").is_err());
    }

    #[test]
    fn runs_of_one_second_have_an_order() {
        let started = |folder: &str, second: u32| {
            let mut run = run(folder, "1e-3", 1.0);
            run.summary.started = format!("2026-11-22T23:31:{second:02}Z");
            run
        };
        let mut runs = [
            started("runs/b", 7),
            started("runs/a/run_9", 7),
            started("runs/a/run_10", 7),
            started("runs/a/run_2", 8),
            started("runs/a", 7),
        ];
        let sorted = ["runs/a/run_2", "runs/a", "runs/a/run_10", "runs/a/run_9", "runs/b"];
        for turn in 0..5 {
            runs.rotate_left(turn);
            newest_first(&mut runs);
            let folders = runs.each_ref().map(|run| run.folder.display().to_string());
            assert_eq!(folders, sorted);
        }
    }

    #[test]
    fn an_unfinished_run_says_how_far_it_is() {
        let mut progress =
            Progress { process: Some("process 7: sft-run a: b".to_owned()), ..Progress::default() };
        assert_eq!(progress.words(), "running (process 7)");
        progress.stage = Some("train".to_owned());
        (progress.step, progress.steps) = (Some(40), Some(1300));
        assert_eq!(progress.words(), "running (process 7, train step 40 of 1,300)");
        progress.process = None;
        assert_eq!(progress.words(), "interrupted (train step 40 of 1,300)");
    }

    #[test]
    fn runs_are_sorted_and_show_what_differs() {
        let mut runs = [run("a", "1e-3", 2.0), run("b", "1e-4", 1.0)];
        sort(&mut runs, "model.optim.lr", false);
        assert_eq!(runs.each_ref().map(|run| run.folder.display().to_string()), ["b", "a"]);
        sort(&mut runs, "time", true);
        assert_eq!(runs[0].folder, PathBuf::from("a"));
        let (header, rows) = table(&runs, true, None);
        assert_eq!(header, ["run", "started", "state", "time", "model.optim.lr"]);
        assert_eq!(rows[0][4], "0.001");
    }
}

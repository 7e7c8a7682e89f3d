//! A sweep as a table, best first, with only the columns that differ.

use super::sampler;
use super::state::{State, Trial, TrialEnd};
use crate::report::numbers::quantity;
use crate::report::tables;
use crate::spec::recipe::sweep::SamplerName;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

/// Who is at work on a sweep now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtWork {
    /// Whether a process drives the sweep.
    pub sweep: bool,
    /// The trials that processes run.
    pub trials: BTreeSet<usize>,
}

/// One trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its number, from 0.
    pub trial: usize,
    /// `done`, `stopped`, `failed`, `running`, `waiting` for its process in a sweep
    /// that goes on, `interrupted`, or `open` when it has not been started.
    pub state: &'static str,
    /// Its values by key.
    pub values: BTreeMap<String, String>,
    /// What is compared.
    pub value: Option<f64>,
    /// All numbers of its run.
    pub numbers: BTreeMap<String, f64>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What is compared.
    pub metric: String,
    /// The keys that have several values, in the order of the axes.
    pub keys: Vec<String>,
    /// The other numbers that differ.
    pub others: Vec<String>,
    /// The trials, best first; those without a result last, by number.
    pub rows: Vec<Row>,
}

impl Table {
    /// The table of a sweep on which these are at work.
    pub fn of(state: &State, at_work: &AtWork) -> Table {
        let mut rows: Vec<Row> = state
            .trials
            .iter()
            .enumerate()
            .map(|(number, trial)| row(state, (number, trial), at_work))
            .collect();
        rows.sort_by(|one, other| {
            let rank = |row: &Row| (row.state != "done", row.value.is_none());
            let cost = |row: &Row| row.value.map_or(f64::INFINITY, |value| state.cost(value));
            rank(one)
                .cmp(&rank(other))
                .then(cost(one).total_cmp(&cost(other)))
                .then(one.trial.cmp(&other.trial))
        });
        let keys = state.header.space.varied();
        let names: BTreeSet<&String> = rows.iter().flat_map(|row| row.numbers.keys()).collect();
        let metric = state.header.metric.clone();
        let others = names
            .into_iter()
            .filter(|name| !(**name == metric || name.ends_with(&format!(".{metric}"))));
        let varies = |name: &&String| {
            let all: BTreeSet<u64> = rows
                .iter()
                .filter_map(|row| row.numbers.get(*name))
                .map(|number| number.to_bits())
                .collect();
            all.len() > 1
        };
        let others = others.filter(varies).cloned().collect();
        Table { metric, keys, others, rows }
    }

    /// The table for a terminal of `width` columns.
    pub fn text(&self, width: usize) -> String {
        let mut head = vec!["trial", "state"];
        head.extend(self.keys.iter().map(String::as_str));
        head.push(&self.metric);
        head.extend(self.others.iter().map(String::as_str));
        let number = |value: Option<f64>| value.map_or("–".to_owned(), quantity);
        let row = |row: &Row| {
            let mut cells = vec![row.trial.to_string(), row.state.to_owned()];
            cells.extend(
                self.keys.iter().map(|key| row.values.get(key).cloned().unwrap_or_default()),
            );
            cells.push(number(row.value));
            cells.extend(self.others.iter().map(|name| number(row.numbers.get(name).copied())));
            cells
        };
        tables::words_within(width, &head, self.rows.iter().map(row).collect())
    }

    /// `3 of 8 trials done, 1 interrupted, 4 open`.
    pub fn counts(&self) -> String {
        let count = |word: &str| self.rows.iter().filter(|row| row.state == word).count();
        let mut text = format!("{} of {} trials done", count("done"), self.rows.len());
        for word in ["stopped", "failed", "running", "waiting", "interrupted", "open"] {
            match count(word) {
                0 => {}
                some => text += &format!(", {some} {word}"),
            }
        }
        text
    }

    /// The table as CSV, numbers in full.
    pub fn csv(&self) -> String {
        let fixed = ["trial".to_owned(), "state".to_owned()];
        let head = fixed.into_iter().chain(self.keys.iter().cloned()).chain([self.metric.clone()]);
        let mut text = line(head.chain(self.others.iter().cloned()));
        for row in &self.rows {
            let number =
                |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
            let values =
                self.keys.iter().map(|key| row.values.get(key).cloned().unwrap_or_default());
            let cells = [row.trial.to_string(), row.state.to_owned()].into_iter().chain(values);
            let numbers = self.others.iter().map(|name| number(row.numbers.get(name).copied()));
            text += &line(cells.chain([number(row.value)]).chain(numbers));
        }
        text
    }

    /// The table for programs.
    pub fn json(&self) -> Json {
        let row = |row: &Row| {
            json!({
                "trial": row.trial, "state": row.state, "values": row.values, "value": row.value,
                "numbers": row.numbers, "error": row.error,
            })
        };
        json!({"metric": self.metric, "trials": self.rows.iter().map(row).collect::<Vec<_>>()})
    }
}

fn row(state: &State, (number, trial): (usize, &Trial), at_work: &AtWork) -> Row {
    // Only the estimator does not know yet what it will try.
    let is_known = trial.points.is_some() || state.header.sampler != SamplerName::Tpe;
    let points = if is_known { state.points(number) } else { Vec::new() };
    let values = sampler::typed(&state.header.space, &points).into_iter();
    let values = values.map(|(key, value)| (super::space::name(&key).to_owned(), value)).collect();
    let (word, numbers, error) = match &trial.end {
        None => (unfinished(number, trial, at_work), BTreeMap::new(), None),
        Some(TrialEnd::Done { numbers, .. }) => ("done", numbers.clone(), None),
        Some(TrialEnd::Stopped) => ("stopped", BTreeMap::new(), None),
        Some(TrialEnd::Failed(error)) => ("failed", BTreeMap::new(), Some(error.clone())),
    };
    let value = state.value(trial).or_else(|| trial.rungs.last().copied());
    Row { trial: number, state: word, values, value, numbers, error }
}

/// The word for a trial without an end.
fn unfinished(number: usize, trial: &Trial, at_work: &AtWork) -> &'static str {
    if trial.points.is_none() {
        "open"
    } else if at_work.trials.contains(&number) {
        "running"
    } else if at_work.sweep {
        "waiting"
    } else {
        "interrupted"
    }
}

/// Cells with commas between; those that need it in quotes.
fn line(cells: impl Iterator<Item = String>) -> String {
    let cell = |cell: String| {
        let plain = !cell.contains([',', '"', '\n', '\r']);
        if plain { cell } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
    };
    cells.map(cell).collect::<Vec<_>>().join(",") + "\n"
}

//! The answers of two runs' evaluations: differences with intervals, and the rows that changed.

use crate::cli::failure::Failure;
use crate::report::numbers::{one_line, quantity};
use crate::report::record::RunRecord;
use crate::report::tables;
use crate::spec::event::Sample;
use crate::stages::compare::{self, Difference};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Changed rows that are shown of each stage.
const SHOWN: usize = 10;

/// One stage of both runs.
pub(super) struct Compared<'run> {
    stage: &'run str,
    pairs: usize,
    differences: Vec<Difference>,
    changed: Vec<(&'run Sample, &'run Sample)>,
}

/// Every stage that answered the same prompts in both runs.
pub(super) fn of(runs: [&RunRecord; 2]) -> Result<Vec<Compared<'_>>, Failure> {
    let stages: BTreeSet<&str> = runs[0].samples.iter().map(|(stage, _)| stage.as_str()).collect();
    let mut found = Vec::new();
    for stage in stages {
        let [first, second] = runs.map(|run| -> Vec<&Sample> {
            let own = run.samples.iter().filter(|(name, _)| name == stage);
            own.map(|(_, sample)| sample).filter(|sample| sample.expected.is_some()).collect()
        });
        let pairs = compare::paired(&first, &second);
        if pairs.is_empty() {
            continue;
        }
        let differences = compare::differences(&pairs).map_err(|error| Failure::failed(&error))?;
        let count = pairs.len();
        let changed = pairs.into_iter().filter(|(one, two)| one.output != two.output).collect();
        found.push(Compared { stage, pairs: count, differences, changed });
    }
    Ok(found)
}

impl Compared<'_> {
    /// Tables for people.
    pub(super) fn text(&self, heads: &[String; 2], width: usize) -> String {
        let rows = self.differences.iter().map(|one| {
            let interval = one.interval.map(|[low, high]| {
                let sure = if low > 0.0 || high < 0.0 { "" } else { " (may be chance)" };
                format!("{} … {}{sure}", quantity(low), quantity(high))
            });
            vec![
                one.metric.clone(),
                quantity(one.first),
                quantity(one.second),
                quantity(one.difference),
                interval.unwrap_or_default(),
            ]
        });
        let columns = [self.stage, &heads[0], &heads[1], "difference", "95% interval"];
        let mut text = tables::words(&columns, rows.collect());
        text += &format!("  {} of {} answers differ\n", self.changed.len(), self.pairs);
        let part = (width.saturating_sub(12) / 3).max(12);
        let rows = self.changed.iter().take(SHOWN).map(|(one, two)| {
            [&one.prompt, &one.output, &two.output].map(|text| one_line(text, part)).to_vec()
        });
        if !self.changed.is_empty() {
            text += &tables::words(&["prompt", &heads[0], &heads[1]], rows.collect());
        }
        text
    }

    /// The same for programs, with every changed row.
    pub(super) fn json(&self) -> Value {
        let changed = self.changed.iter().map(|(one, two)| {
            json!({"prompt": one.prompt, "expected": one.expected, "first": one.output,
                   "second": two.output, "first_scores": one.scores, "second_scores": two.scores})
        });
        json!({"stage": self.stage, "pairs": self.pairs, "differences": self.differences,
               "changed": changed.collect::<Vec<_>>()})
    }
}

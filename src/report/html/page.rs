//! What the page shows, as plain values for the template.

use super::curves::Curves;
use super::tables::{FreeText, MetricsTable, SampleTable};
use crate::base::shell_words;
use crate::report::numbers::{count, duration, quantity};
use crate::report::record::{RunRecord, Training};
use crate::report::summary::{RunState, StageState, StageSummary};
use serde::Serialize;
use std::collections::BTreeMap;

/// The page.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    title: String,
    state: RunState,
    state_label: &'static str,
    error: Option<String>,
    recipe_path: String,
    command: String,
    started: String,
    duration: String,
    parameters: Option<String>,
    cards: Vec<Card>,
    curves: Vec<Curves>,
    metrics: MetricsTable,
    samples: SampleTable,
    texts: Vec<FreeText>,
    stages: Vec<StageRow>,
    recipe: String,
    environment: BTreeMap<String, String>,
}

/// One number at the top.
#[derive(Debug, Serialize)]
struct Card {
    label: String,
    value: String,
    note: String,
}

/// One stage.
#[derive(Debug, Serialize)]
struct StageRow {
    name: String,
    kind: String,
    state: StageState,
    state_label: &'static str,
    reason: String,
    time: String,
    /// Percent of the longest stage's time, for the bar.
    share: f64,
    fingerprint: String,
    facts: Vec<(String, f64)>,
}

impl Page {
    /// The page of `record`.
    pub(super) fn of(record: &RunRecord) -> Page {
        let summary = &record.summary;
        let metrics = MetricsTable::of(record);
        let longest = summary.stages.iter().map(|stage| stage.seconds).fold(0.0, f64::max);
        Page {
            title: summary.name.clone(),
            state: summary.state,
            state_label: summary.state.words(),
            error: summary.error.clone(),
            recipe_path: summary.recipe.clone(),
            command: shell_words::joined(summary.command.iter().map(String::as_str)),
            started: summary.started.replace('T', " ").replace('Z', " UTC"),
            duration: duration(summary.seconds),
            parameters: summary.parameters.map(count),
            cards: cards(record, &metrics),
            curves: record.trainings.iter().map(Curves::of).collect(),
            metrics,
            samples: SampleTable::of(record),
            texts: FreeText::all(record),
            stages: summary.stages.iter().map(|stage| StageRow::of(stage, longest)).collect(),
            recipe: record.recipe.clone(),
            environment: summary.environment.clone(),
        }
    }
}

impl StageRow {
    fn of(stage: &StageSummary, longest: f64) -> StageRow {
        let ran = stage.seconds > 0.0;
        StageRow {
            name: stage.name.clone(),
            kind: stage.kind.clone(),
            state: stage.state,
            state_label: stage_label(stage.state),
            reason: stage.reason.clone(),
            time: if ran { duration(stage.seconds) } else { String::new() },
            share: if ran { 100.0 * stage.seconds / longest } else { 0.0 },
            fingerprint: stage.fingerprint.chars().take(8).collect(),
            facts: stage.facts.iter().map(|(name, value)| (name.clone(), *value)).collect(),
        }
    }
}

fn stage_label(state: StageState) -> &'static str {
    match state {
        StageState::Run => "run",
        StageState::Reused => "reused",
        StageState::Failed => "failed",
        StageState::NotReached => "not reached",
    }
}

/// The numbers at the top: metrics of the last evaluation first, then training.
fn cards(record: &RunRecord, metrics: &MetricsTable) -> Vec<Card> {
    let mut cards = metric_cards(metrics);
    if let Some(training) = record.trainings.last() {
        cards.extend(training_cards(training));
    }
    cards
}

fn metric_cards(metrics: &MetricsTable) -> Vec<Card> {
    // A length says nothing alone; the table has it.
    let rows = metrics.rows.iter().filter(|row| row.name != "length");
    let shown = rows.filter_map(|row| Some((row, row.values.last()?.as_ref()?)));
    let several = metrics.stages.len() > 1;
    let first_stage = metrics.stages.first().filter(|_| several);
    let make = |(row, value): (&super::tables::MetricRow, &f64)| {
        let before = row.values.first().copied().flatten().zip(first_stage);
        let note = before.map(|(value, stage)| format!("{stage}: {}", quantity(value)));
        card(&row.name.replace('_', " "), quantity(*value), note.unwrap_or_default())
    };
    shown.take(3).map(make).collect()
}

fn training_cards(training: &Training) -> Vec<Card> {
    let mut cards = Vec::new();
    let best = training.validations.iter().min_by(|a, b| a.val_loss.total_cmp(&b.val_loss));
    if let Some(best) = best {
        let note = format!("best, at step {}", count(best.step));
        cards.push(card("validation loss", quantity(best.val_loss), note));
    }
    if let Some(last) = training.steps.last() {
        let note = format!("at step {}", count(last.step));
        cards.push(card("train loss", quantity(last.reduced_train_loss), note));
        let mut speeds: Vec<f64> =
            training.steps.iter().map(|step| step.tokens_per_second).collect();
        speeds.sort_by(f64::total_cmp);
        let median = speeds[speeds.len() / 2];
        cards.push(card("tokens per second", quantity(median.round()), "median step".to_owned()));
    }
    cards
}

fn card(label: &str, value: String, note: String) -> Card {
    Card { label: label.to_owned(), value, note }
}

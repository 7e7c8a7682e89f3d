//! Tables for the terminal: metrics and trainings side by side, samples, lists.

use super::numbers::{one_line, quantity};
use super::record::Training;
use super::summary::StageSummary;
use crate::spec::event::{Sample, StepMetrics};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use std::collections::BTreeSet;

/// A column of numbers: its head, and a number for each row that has one.
pub type Column<'run> = (String, Box<dyn Fn(&str) -> Option<f64> + 'run>);

/// The metrics of the stages that have some, a column per stage; empty without any.
pub fn evaluations(stages: &[StageSummary]) -> String {
    let with: Vec<&StageSummary> =
        stages.iter().filter(|stage| !stage.metrics.is_empty()).collect();
    let names: BTreeSet<&str> =
        with.iter().flat_map(|stage| stage.metrics.keys()).map(String::as_str).collect();
    let columns = with.into_iter().map(|stage| -> Column<'_> {
        (stage.name.clone(), Box::new(|name| stage.metrics.get(name).copied()))
    });
    side_by_side("metric", &names.into_iter().collect::<Vec<_>>(), &columns.collect::<Vec<_>>())
}

/// The numbers of train stages, a column per stage; empty without any.
pub fn trainings(trainings: &[Training]) -> String {
    let columns =
        trainings.iter().filter(|training| !training.steps.is_empty()).map(training_column);
    side_by_side("training", &TRAINING_ROWS, &columns.collect::<Vec<_>>())
}

/// The names that [`training_column`] has numbers for.
pub const TRAINING_ROWS: [&str; 6] = [
    "steps",
    "first logged loss",
    "mean loss, last tenth",
    "best val_loss",
    "last val_loss",
    "tokens/s",
];

/// A training as a column; `mean loss, last tenth` is the mean over the last tenth of the
/// logged steps, as a sweep's `train_loss` is.
pub fn training_column(training: &Training) -> Column<'_> {
    let head = if training.stage.is_empty() { "train" } else { &training.stage };
    let (steps, validations) = (&training.steps, &training.validations);
    let number = move |name: &str| match name {
        "steps" => steps.last().map(|step| step.step as f64),
        "first logged loss" => steps.first().map(|step| step.reduced_train_loss),
        "mean loss, last tenth" => last_loss(steps),
        "best val_loss" => validations.iter().map(|one| one.val_loss).min_by(f64::total_cmp),
        "last val_loss" => validations.last().map(|one| one.val_loss),
        "tokens/s" => median(steps.iter().map(|step| step.tokens_per_second).collect()),
        _ => None,
    };
    (head.to_owned(), Box::new(number))
}

fn last_loss(steps: &[StepMetrics]) -> Option<f64> {
    let tail = &steps[steps.len() - steps.len().div_ceil(10)..];
    (!tail.is_empty())
        .then(|| tail.iter().map(|step| step.reduced_train_loss).sum::<f64>() / tail.len() as f64)
}

/// The middle number; none of none.
pub fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied()
}

/// A table with a row per name and a column per source; empty without columns.
pub fn side_by_side(corner: &str, names: &[&str], columns: &[Column<'_>]) -> String {
    if columns.is_empty() || names.is_empty() {
        return String::new();
    }
    let header =
        std::iter::once(corner.to_owned()).chain(columns.iter().map(|(head, _)| head.clone()));
    let mut table = plain(header.collect());
    for name in names {
        let cell =
            |number: &dyn Fn(&str) -> Option<f64>| number(name).map_or("–".to_owned(), quantity);
        let numbers = columns.iter().map(|(_, number)| cell(number));
        table.add_row(std::iter::once((*name).to_owned()).chain(numbers).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    text(&table)
}

/// Generations as prompt, expected, generated, in `width` columns; empty without any.
pub fn samples(samples: &[&Sample], width: usize) -> String {
    if samples.is_empty() {
        return String::new();
    }
    let expected = samples.iter().any(|sample| sample.expected.is_some());
    let widths = SampleWidths::of(samples, expected, width);
    let mut header = vec!["prompt".to_owned(), "generated".to_owned()];
    if expected {
        header.insert(1, "expected".to_owned());
    }
    let mut table = plain(header);
    for sample in samples {
        let mut row =
            vec![one_line(&sample.prompt, widths.prompt), shown(&sample.output, widths.output)];
        if expected {
            row.insert(1, one_line(sample.expected.as_deref().unwrap_or("–"), widths.expected));
        }
        table.add_row(row);
    }
    text(&table)
}

/// The generated text; one that ended at once is said to be empty.
fn shown(output: &str, width: usize) -> String {
    if output.trim().is_empty() { "(empty)".to_owned() } else { one_line(output, width) }
}

struct SampleWidths {
    prompt: usize,
    expected: usize,
    output: usize,
}

impl SampleWidths {
    /// Prompts are longest and least needed: the others take what they need, up to a third each.
    fn of(samples: &[&Sample], expected: bool, width: usize) -> SampleWidths {
        let length = |text: &str| one_line(text, usize::MAX).chars().count();
        let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
        let answer =
            longest(&mut samples.iter().filter_map(|one| one.expected.as_deref()).map(length));
        let output = longest(&mut samples.iter().map(|one| length(&one.output)));
        let room = width.saturating_sub(if expected { 12 } else { 8 });
        let answer = if expected { answer.clamp(8, (room / 3).max(8)) } else { 0 };
        let share = if expected { room / 3 } else { room * 2 / 3 };
        let output = output.clamp(9, share.max(9));
        SampleWidths {
            prompt: room.saturating_sub(output + answer).max(10),
            expected: answer,
            output,
        }
    }
}

/// A table of words.
pub fn words(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = plain(header.iter().map(|head| (*head).to_owned()).collect());
    for row in rows {
        table.add_row(row);
    }
    text(&table)
}

/// [`words`] in at most `width` columns, as long as that is possible: the widest cells are cut.
pub fn words_within(width: usize, header: &[&str], mut rows: Vec<Vec<String>>) -> String {
    /// Beside each column; one less of them, and two before the first.
    const GAP: usize = 3;
    /// What a column keeps.
    const LEAST: usize = 8;
    let length = |text: &str| text.chars().count();
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| length(cell));
        cells.chain(header.get(column).map(|head| length(head))).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..header.len()).map(widest).collect();
    while widths.iter().map(|width| width + GAP).sum::<usize>() >= width {
        match widths.iter_mut().max().filter(|width| **width > LEAST) {
            Some(widest) => *widest -= 1,
            None => break,
        }
    }
    for row in &mut rows {
        for (cell, width) in row.iter_mut().zip(&widths) {
            *cell = one_line(cell, *width);
        }
    }
    words(header, rows)
}

fn plain(header: Vec<String>) -> Table {
    let style = comfy_table::TableStyle::new()
        .header_separator(comfy_table::LineStyle::none().fill('─').junction('─'));
    let mut table = Table::new();
    table.load_style(style).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
    table.set_header(header.into_iter().map(Cell::new).collect::<Vec<_>>());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The table's lines indented by two, without trailing spaces.
fn text(table: &Table) -> String {
    table.lines().fold(String::new(), |text, line| format!("{text}  {}\n", line.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::StageState;
    use crate::spec::event::ValidationMetrics;
    use crate::spec::generation::StopReason;

    #[test]
    fn evaluations_stand_side_by_side() {
        let of = |stage: &str, number: f64| StageSummary {
            name: stage.to_owned(),
            kind: "evaluate".to_owned(),
            state: StageState::Run,
            reason: String::new(),
            seconds: 1.0,
            fingerprint: String::new(),
            output: String::new(),
            facts: std::collections::BTreeMap::new(),
            metrics: [("exact_match".to_owned(), number), ("samples".to_owned(), 2500.0)].into(),
            intervals: std::collections::BTreeMap::new(),
        };
        let text = evaluations(&[of("untrained", 0.0004), of("evaluate", 0.5312)]);
        let row = text.lines().find(|line| line.contains("exact_match")).unwrap();
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["exact_match", "4.000e-4", "0.5312"]
        );
        assert_eq!(evaluations(&[]), "");
    }

    #[test]
    fn a_training_is_summed_up() {
        let step = |step: u64| StepMetrics {
            step,
            consumed_samples: step,
            reduced_train_loss: 30.0 - step as f64,
            lr: 0.1,
            grad_norm: Some(1.0),
            loss_scale: None,
            tokens: 10,
            learned_tokens: 5,
            tokens_per_second: step as f64,
        };
        let validation = |step, val_loss| ValidationMetrics {
            step,
            consumed_samples: step,
            val_loss,
            metrics: std::collections::BTreeMap::new(),
        };
        let training = Training {
            stage: String::new(),
            steps: (1..=20).map(step).collect(),
            validations: vec![validation(10, 2.0), validation(20, 3.0)],
        };
        let (_, number) = training_column(&training);
        let numbers: Vec<_> = TRAINING_ROWS.iter().map(|name| number(name).unwrap()).collect();
        assert_eq!(numbers, [20.0, 29.0, 10.5, 2.0, 3.0, 11.0]);
    }

    #[test]
    fn words_fit_the_terminal() {
        let row =
            |name: &str, state: &str, why: &str| [name, state, why].map(str::to_owned).to_vec();
        let rows = || {
            vec![
                row(
                    "quickstart",
                    "done",
                    "model.optim.lr  0.003 → 0.001  (recipes/quickstart.yaml:31)",
                ),
                row("other", "failed", ""),
            ]
        };
        let heads = ["run", "state", "why"];
        let text = words_within(50, &heads, rows());
        assert!(text.lines().all(|line| line.chars().count() <= 50), "{text}");
        assert!(text.contains("quickstart   done     model.optim.lr  0.003 →…"), "{text}");
        assert_eq!(words_within(200, &heads, rows()), words(&heads, rows()));
    }

    #[test]
    fn samples_fit_the_terminal() {
        let sample = Sample {
            prompt: "lighthouse: a tower with a light that gives warning of shoals kind:"
                .to_owned(),
            expected: Some("artifact".to_owned()),
            output: "artifact artifact artifact artifact artifact artifact artifact".to_owned(),
            stop_reason: StopReason::EndOfSequence,
            task: None,
            scores: std::collections::BTreeMap::new(),
            tokens: 2,
            token_ids: Vec::new(),
            logprob: Vec::new(),
            full_logprob: Vec::new(),
        };
        let text = samples(&[&sample], 80);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}

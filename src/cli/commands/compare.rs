//! `sft-run compare A B`: two runs side by side.

use super::compared_answers::{self, Compared};
use crate::cli::arguments::CompareArguments;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::report::curve::{self, Series};
use crate::report::difference::{self, Difference};
use crate::report::record::{RunRecord, Training};
use crate::report::tables::{self, Column};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Runs the command.
pub(in crate::cli) fn run(
    session: &Session,
    arguments: &CompareArguments,
) -> Result<Exit, Failure> {
    let first = read(&arguments.first)?;
    let second = read(&arguments.second)?;
    let heads = [arguments.first.display().to_string(), arguments.second.display().to_string()];
    let differences = difference::of_yaml(&first.recipe, &second.recipe);
    let environments = difference::of_values(&environment(&first), &environment(&second));
    let answers = compared_answers::of([&first, &second])?;
    let both = [&differences, &environments];
    if session.terminal.json {
        session
            .terminal
            .result(&format!("{:#}", document(&heads, [&first, &second], both, &answers)));
        return Ok(Exit::Done);
    }
    let (width, most) = (session.terminal.width, session.terminal.table_width());
    let mut parts = vec![
        differing("recipe", &heads, &differences, most),
        differing("environment", &heads, &environments, most),
        trainings(&heads, [&first, &second]),
        metrics(&heads, [&first, &second]),
    ];
    parts.extend(answers.iter().map(|one| one.text(&heads, width)));
    parts.push(curves(&heads, [&first, &second], width));
    session
        .terminal
        .result(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n"));
    Ok(Exit::Done)
}

fn read(folder: &Path) -> Result<RunRecord, Failure> {
    RunRecord::read(folder).map_err(|error| {
        let help = "give two run folders; `sft-run runs` lists them";
        Failure::wrong(format!("`{}` is no run folder: {error}", folder.display()), help)
    })
}

/// Where a run was made and what from: machine, versions, git commit, crates, input files.
fn environment(run: &RunRecord) -> BTreeMap<String, String> {
    let summary = &run.summary;
    let named = |kind: &str, facts: &BTreeMap<String, String>| -> Vec<(String, String)> {
        facts.iter().map(|(name, fact)| (format!("{kind} {name}"), fact.clone())).collect()
    };
    let own = summary.environment.clone().into_iter();
    own.chain(named("crate", &summary.crates)).chain(named("input", &summary.inputs)).collect()
}

/// A table of the values of the recipes or environments that differ.
fn differing(what: &str, heads: &[String; 2], differences: &[Difference], width: usize) -> String {
    if differences.is_empty() {
        return format!("  the {what}s are the same\n");
    }
    let absent = |value: &Option<String>| value.clone().unwrap_or("–".to_owned());
    let rows =
        differences.iter().map(|one| vec![one.path.clone(), absent(&one.old), absent(&one.new)]);
    tables::words_within(width, &[what, &heads[0], &heads[1]], rows.collect())
}

fn trainings(heads: &[String; 2], runs: [&RunRecord; 2]) -> String {
    let columns = heads.iter().zip(runs).flat_map(|(head, run)| {
        let several = run.trainings.len() > 1;
        run.trainings.iter().map(move |training| {
            let (stage, number) = tables::training_column(training);
            (if several { format!("{head} {stage}") } else { head.clone() }, number)
        })
    });
    tables::side_by_side("training", &tables::TRAINING_ROWS, &columns.collect::<Vec<_>>())
}

fn metrics(heads: &[String; 2], runs: [&RunRecord; 2]) -> String {
    let of = |run: &RunRecord| -> Vec<(String, f64)> {
        let stages = run.summary.stages.iter();
        let named = stages.flat_map(|stage| {
            stage.metrics.iter().map(|(name, number)| (format!("{} {name}", stage.name), *number))
        });
        named.collect()
    };
    let numbers = runs.map(of);
    let names: BTreeSet<&str> = numbers.iter().flatten().map(|(name, _)| name.as_str()).collect();
    let columns = heads.iter().zip(&numbers).map(|(head, numbers)| -> Column<'_> {
        let find = move |name: &str| {
            numbers.iter().find(|(known, _)| known == name).map(|(_, number)| *number)
        };
        (head.clone(), Box::new(find))
    });
    tables::side_by_side(
        "metric",
        &names.into_iter().collect::<Vec<_>>(),
        &columns.collect::<Vec<_>>(),
    )
}

type Points = Vec<(u64, f64)>;

/// Loss and validation loss of both runs' last trainings.
fn curves(heads: &[String; 2], runs: [&RunRecord; 2], width: usize) -> String {
    let losses = runs.map(|run| {
        points(run, |training| {
            training.steps.iter().map(|step| (step.step, step.reduced_train_loss)).collect()
        })
    });
    let validations = runs.map(|run| {
        points(run, |training| {
            training.validations.iter().map(|one| (one.step, one.val_loss)).collect()
        })
    });
    let draw = |title: &str, points: &[Points; 2]| {
        let marks = ['•', '∘'];
        let series: Vec<Series<'_>> = (0..2)
            .map(|at| Series { name: &heads[at], mark: marks[at], points: &points[at] })
            .collect();
        let drawing = curve::draw(&series, width.min(100), 12);
        if drawing.is_empty() { drawing } else { format!("  {title}\n{drawing}") }
    };
    let drawings = [draw("reduced_train_loss", &losses), draw("val_loss", &validations)];
    drawings.into_iter().filter(|drawing| !drawing.is_empty()).collect::<Vec<_>>().join("\n")
}

fn points(run: &RunRecord, of: impl Fn(&Training) -> Points) -> Points {
    run.trainings.last().map(of).unwrap_or_default()
}

fn document(
    heads: &[String; 2],
    runs: [&RunRecord; 2],
    [recipe, environment]: [&Vec<Difference>; 2],
    answers: &[Compared<'_>],
) -> serde_json::Value {
    let side = |head: &String, run: &RunRecord| {
        let numbers: Vec<_> = run.trainings.iter().map(|training| {
            let (_, number) = tables::training_column(training);
            let numbers = tables::TRAINING_ROWS.iter().map(|name| ((*name).to_owned(), json!(number(name))));
            json!({"stage": training.stage, "numbers": numbers.collect::<serde_json::Map<_, _>>()})
        }).collect();
        json!({"folder": head, "summary": run.summary, "trainings": numbers})
    };
    json!({
        "recipe": recipe,
        "environment": environment,
        "first": side(&heads[0], runs[0]),
        "second": side(&heads[1], runs[1]),
        "answers": answers.iter().map(Compared::json).collect::<Vec<_>>(),
    })
}

//! The end of a run on the terminal: numbers, samples, paths, next commands.

use super::session::Session;
use super::terminal::Paint;
use crate::base::shell_words;
use crate::report::numbers::duration;
use crate::report::record::RunRecord;
use crate::report::summary::{RunState, Summary};
use crate::report::tables;
use crate::spec::event::Sample;
use std::path::{Path, PathBuf};

/// Samples shown of each stage.
const SAMPLES: usize = 4;

/// Prints what the run in `folder` came to.
pub(super) fn show(session: &Session, record: &RunRecord, folder: &Path) {
    let terminal = &session.terminal;
    let summary = &record.summary;
    let headline = format!("{} {}", terminal.paint(Paint::Bold, &summary.name), ending(summary));
    let mut text = format!("\n{headline}\n");
    let evaluations = tables::evaluations(&summary.stages);
    for table in
        [tables::trainings(&record.trainings), evaluations, samples(record, terminal.width)]
    {
        if !table.is_empty() {
            text += &format!("\n{table}");
        }
    }
    text += &format!("\n{}{}", places(folder), next(session, summary, folder));
    terminal.line(text.trim_end());
}

/// Says that there was nothing to do, and where the results are.
pub(super) fn show_up_to_date(session: &Session, summary: &Summary, folder: &Path) {
    let terminal = &session.terminal;
    let headline =
        format!("{} up to date, nothing to do", terminal.paint(Paint::Bold, &summary.name));
    let evaluations = tables::evaluations(&summary.stages);
    let table = if evaluations.is_empty() { evaluations } else { format!("\n{evaluations}\n") };
    terminal.line(format!("\n{headline}\n{table}{}", places(folder)).trim_end());
}

fn ending(summary: &Summary) -> String {
    let seconds = duration(summary.seconds);
    match summary.state {
        RunState::Done => format!("done in {seconds}"),
        RunState::UpToDate => "up to date, nothing to do".to_owned(),
        RunState::Failed => format!("failed after {seconds}"),
        RunState::Interrupted => format!("interrupted after {seconds}"),
        RunState::Running => format!("running for {seconds}"),
    }
}

/// A few samples of each stage that has some, those with an expected answer apart from the others.
fn samples(record: &RunRecord, width: usize) -> String {
    let last_evaluation = record
        .summary
        .stages
        .iter()
        .rev()
        .find(|stage| stage.kind == "evaluate")
        .map(|stage| stage.name.as_str());
    let of = |answered: bool| -> Vec<&Sample> {
        let mine = record.samples.iter().filter(|(stage, sample)| {
            sample.expected.is_some() == answered
                && (!answered || Some(stage.as_str()) == last_evaluation)
        });
        mine.map(|(_, sample)| sample).take(SAMPLES).collect()
    };
    let tables = [tables::samples(&of(true), width), tables::samples(&of(false), width)];
    tables.into_iter().filter(|table| !table.is_empty()).collect::<Vec<_>>().join("\n")
}

fn places(folder: &Path) -> String {
    let mut names = vec![("run folder", String::new())];
    for (word, file) in
        [("report", "report.html"), ("metrics", "metrics.jsonl"), ("checkpoints", "checkpoints")]
    {
        names.push((word, file.to_owned()));
    }
    let lines = names
        .into_iter()
        .map(|(word, name)| (word, folder.join(name)))
        .filter(|(_, path)| path.exists());
    lines.map(|(word, path)| format!("  {word:<12} {}\n", shown(&path))).collect()
}

/// The path without a `/` at its end.
fn shown(path: &Path) -> String {
    path.display().to_string().trim_end_matches('/').to_owned()
}

fn next(session: &Session, summary: &Summary, folder: &Path) -> String {
    let quoted = |path: &Path| shell_words::quoted(&shown(path));
    let mut commands = Vec::new();
    if let Some(model) = trained(summary, folder) {
        commands.push(format!("sft-run generate {} --prompt \"…\"", quoted(&model)));
    }
    let recipe = shell_words::quoted(&summary.recipe);
    commands.push(format!("sft-run plan {recipe}   # what would run again, and why"));
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    commands.push(format!("sft-run runs {}", quoted(above.unwrap_or(Path::new(".")))));
    let lines: String = commands.iter().map(|command| format!("    {command}\n")).collect();
    format!("\n  {}\n{lines}", session.terminal.paint(Paint::Bold, "next"))
}

/// What `generate` finds the last training's model by: the run folder when its checkpoint is kept
/// there, else the stage's output; none when nothing was trained.
pub(super) fn trained(summary: &Summary, folder: &Path) -> Option<PathBuf> {
    let trainings = || summary.stages.iter().rev().filter(|stage| stage.kind == "train");
    let has_checkpoint = |folder: &Path| folder.join("checkpoint").is_dir();
    let kept = |name: &str| has_checkpoint(&folder.join("checkpoints").join(name));
    if trainings().any(|stage| kept(&stage.name)) {
        return Some(folder.to_owned());
    }
    let outputs = trainings().filter(|stage| !stage.output.is_empty());
    outputs.map(|stage| PathBuf::from(&stage.output)).find(|output| has_checkpoint(output))
}

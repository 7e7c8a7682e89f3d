//! `sft-run preview`: the first samples as the model will see them.

use crate::cli::arguments::PreviewArguments;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::open;
use crate::cli::session::Session;
use crate::cli::terminal::{Paint, Terminal};
use crate::plan::{Source, Stage};
use crate::report::numbers::count;
use crate::spec::backend::Backend;
use crate::spec::job::Job;
use crate::stages::Folders;
use crate::stages::preview::{self, Preview, Shown};
use serde_json::json;
use std::path::PathBuf;

/// Runs the command.
pub(in crate::cli) fn run(
    session: &Session,
    arguments: &PreviewArguments,
) -> Result<Exit, Failure> {
    let opened = open::plan(session, &arguments.recipe)?;
    let mut previews = Vec::new();
    for stage in opened.plan.stages() {
        let Job::Tokenize(job) = &stage.job else { continue };
        let made = preview::preview(job, &folders(stage), arguments.samples);
        previews.push((stage.name.clone(), made.map_err(|error| Failure::failed(&error))?));
    }
    if previews.is_empty() {
        return Err(Failure::wrong(
            "the recipe has no tokenize stage, so it makes no samples",
            "name rows in a tokenize stage or in model.data.train_ds; `sft-run inspect PATH` shows \
             ready token files",
        ));
    }
    let terminal = &session.terminal;
    if terminal.json {
        let stages = previews.iter().map(|(name, made)| json!({"stage": name, "preview": made}));
        terminal.result(&format!("{:#}", json!(stages.collect::<Vec<_>>())));
    } else {
        let texts = previews.iter().map(|(name, made)| text(terminal, name, made));
        terminal.result(&texts.collect::<Vec<_>>().join("\n"));
    }
    Ok(Exit::Done)
}

fn folders(stage: &Stage) -> Folders {
    let file = |source: &Source| match source {
        Source::File(file) => Some(file.path.clone()),
        Source::Stage(_) => None,
    };
    let inputs = stage.inputs.iter().filter_map(|(name, from)| Some((name.clone(), file(from)?)));
    // Nothing is computed: text becomes tokens.
    Folders { inputs: inputs.collect(), backend: Backend::Cpu, output: PathBuf::new() }
}

fn text(terminal: &Terminal, stage: &str, made: &Preview) -> String {
    let mut text = format!("{}\n", terminal.paint(Paint::Bold, stage));
    for sample in &made.samples {
        text += &one(terminal, sample);
    }
    let share = 100.0 * made.learned as f64 / made.tokens.max(1) as f64;
    let (sequences, filled) = made.packed;
    text += &format!(
        "  of the first {} samples: {} tokens, {share:.1}% learned; {} cut; packed: {} sequences, \
         {:.1}% filled\n",
        count(made.seen as u64),
        count(made.tokens as u64),
        count(made.cut as u64),
        count(sequences as u64),
        100.0 * filled,
    );
    if made.masked > 0 {
        let warning = format!(
            "! {} samples have every token masked: nothing is learned from them (empty answers \
             without add_eos, or answers cut away)",
            count(made.masked as u64)
        );
        text += &format!("  {}\n", terminal.paint(Paint::Yellow, &warning));
    }
    text
}

/// One sample: what is learned in green, or in `«»` where there are no colors.
fn one(terminal: &Terminal, sample: &Shown) -> String {
    let learned = sample.learned();
    let share = 100.0 * learned as f64 / sample.tokens.len().max(1) as f64;
    let cut = if sample.cut { ", cut" } else { "" };
    let head = format!(
        "{} · {} · {} tokens, {learned} learned ({share:.1}%){cut}",
        sample.task,
        sample.split,
        sample.tokens.len(),
    );
    let mut shown = String::new();
    for token in &sample.tokens {
        let piece = token.text.replace('\n', "⏎");
        shown += &match (token.learned, terminal.color) {
            (true, true) => terminal.paint(Paint::Green, &piece),
            (true, false) => format!("«{piece}»"),
            (false, _) => terminal.paint(Paint::Dim, &piece),
        };
        shown += &terminal.paint(Paint::Dim, "|");
    }
    let ids: Vec<String> = sample.tokens.iter().map(|token| token.id.to_string()).collect();
    let warning = if learned == 0 {
        format!("    {}\n", terminal.paint(Paint::Yellow, "! every token of this sample is masked"))
    } else {
        String::new()
    };
    let ids = terminal.paint(Paint::Dim, &ids.join(" "));
    format!("  {head}\n    {shown}\n    {ids}\n{warning}")
}

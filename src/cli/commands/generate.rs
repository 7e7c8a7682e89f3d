//! `sft-run generate`: text from a run's model.

use crate::cli::arguments::GenerateArguments;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::terminal::Paint;
use crate::cli::{environment, signals};
use crate::spec::event::{Event, Sample, Sink};
use crate::spec::generation::{Generation, PenaltyRule};
use crate::spec::job::{GenerateJob, GenerateStage, Job};
use crate::stages::{self, Folders};
use serde_json::json;
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Runs the command.
pub(in crate::cli) fn run(
    session: &Session,
    arguments: &GenerateArguments,
) -> Result<Exit, Failure> {
    let model = model_folder(&arguments.model)?;
    let prompts = prompts(arguments)?;
    let stop = signals::stop_flag().map_err(|error| Failure::failed(&error))?;
    let scratch = Scratch::new().map_err(|error| Failure::failed(&error))?;
    let job = Job::Generate(GenerateJob {
        stage: GenerateStage { prompts, gen_kwargs: settings(arguments) },
    });
    let folders =
        Folders { inputs: [("model".to_owned(), model)].into(), output: scratch.0.clone() };
    let samples = Samples::default();
    stages::run(&job, &folders, &samples, &stop).map_err(|error| Failure::failed(&error))?;
    let samples = samples.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    let terminal = &session.terminal;
    if terminal.json {
        terminal.result(&format!("{:#}", json!(samples)));
        return Ok(Exit::Done);
    }
    for sample in &samples {
        terminal.result(&format!(
            "{}{}",
            terminal.paint(Paint::Dim, &sample.prompt),
            sample.output
        ));
    }
    Ok(Exit::Done)
}

/// The folder that holds `checkpoint/`: the path itself, its parent, or the last training of a run.
fn model_folder(path: &Path) -> Result<PathBuf, Failure> {
    if path.join("checkpoint").is_dir() {
        return Ok(path.to_owned());
    }
    if path.join("manifest.json").is_file() {
        let parent = path.parent().filter(|parent| parent.join("checkpoint").is_dir());
        return Ok(parent.unwrap_or(path).to_owned());
    }
    let trained = path.join("checkpoints");
    let summary = super::status::last_run(path);
    let stages = summary.iter().flat_map(|summary| summary.stages.iter().rev());
    let named = stages
        .map(|stage| trained.join(&stage.name))
        .find(|folder| folder.join("checkpoint").is_dir());
    named.ok_or_else(|| {
        let message = format!("`{}` holds no checkpoint", path.display());
        Failure::wrong(
            message,
            "give a run folder (`sft-run runs` lists them) or one of its `checkpoints/…`",
        )
    })
}

fn prompts(arguments: &GenerateArguments) -> Result<Vec<String>, Failure> {
    if !arguments.prompts.is_empty() {
        return Ok(arguments.prompts.clone());
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::wrong(
            "there is no prompt",
            "give --prompt TEXT, or prompts on stdin, one a line",
        ));
    }
    let lines: Result<Vec<String>, _> = stdin.lock().lines().collect();
    lines.map_err(|error| Failure::failed(&error))
}

fn settings(arguments: &GenerateArguments) -> Generation {
    Generation {
        use_greedy: arguments.temperature.is_none(),
        temperature: arguments.temperature.unwrap_or(1.0),
        top_k: arguments.top_k,
        top_p: arguments.top_p,
        repetition_penalty: 1.0,
        repetition_penalty_rule: PenaltyRule::Hf,
        min_length: 0,
        max_length: arguments.max_length,
        end_strings: arguments.end_strings.clone(),
        add_bos: false,
        seed: arguments.seed,
        batch_size: 32,
    }
}

/// A folder of its own that goes when this does.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Scratch> {
        let name = format!("sft-run-generate-{}-{}", std::process::id(), environment::now());
        let folder = std::env::temp_dir().join(name.replace(':', ""));
        std::fs::create_dir_all(&folder)?;
        Ok(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed lies in the system's own folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Keeps the generated samples.
#[derive(Default)]
struct Samples(Mutex<Vec<Sample>>);

impl Sink for Samples {
    fn emit(&self, event: Event) {
        if let Event::Sample(sample) = event {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
        }
    }
}

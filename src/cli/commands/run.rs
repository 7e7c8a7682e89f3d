//! `sft-run RECIPE`: walks the plan and leaves a run folder.

use crate::cli::arguments::RunArguments;
use crate::cli::collector::{Collector, Tee};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::fault;
use crate::cli::idle;
use crate::cli::nodes;
use crate::cli::notify::Refusal;
use crate::cli::open::{self, Opened};
use crate::cli::run_folder::{self, Begun, RunFolder};
use crate::cli::screen::{Layout, Screen};
use crate::cli::session::Session;
use crate::cli::tensorboard::TensorBoard;
use crate::cli::terminal::Paint;
use crate::cli::trials::{PauseAt, on_leash};
use crate::cli::{closing, environment, notify, signals};
use crate::plan::{Plan, Source};
use crate::recipe::CheckedRecipe;
use crate::report::record::RunRecord;
use crate::report::summary::{self, RunState, StageSummary, Summary};
use crate::report::{html, metrics_csv, samples};
use crate::runner::{self, Report, Settings};
use crate::spec::event::Sink;
use crate::spec::job::Job;
use crate::stages::nodes::Nodes;
use crate::stages::{self, Circumstances, Folders};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &RunArguments) -> Result<Exit, Failure> {
    let (checked, _) = open::recipe(session, &arguments.recipe)?;
    let recipe = open::resolved_text(session, &arguments.recipe)?;
    match nodes::meeting(session, &checked, recipe.clone())? {
        None => run_here(session, arguments, (checked, recipe), None),
        Some(meeting) => {
            let work = |nodes| run_here(session, arguments, (checked, recipe), Some(nodes));
            nodes::together(session, &meeting, work, Exit::Done)
        }
    }
}

/// Runs the checked recipe, whose resolved text is `recipe`; other nodes take part in its trainings.
fn run_here(
    session: &Session,
    arguments: &RunArguments,
    (checked, recipe): (CheckedRecipe, String),
    nodes: Option<Arc<Nodes>>,
) -> Result<Exit, Failure> {
    let started = (environment::now(), Instant::now());
    let path = &arguments.recipe.recipe;
    let who = (&session.terminal, &*session.command);
    let refusal = Refusal::of(who, (path, &checked), &started.0);
    let opened = refusal.told(open::plan_of(session, &arguments.recipe, checked, None))?;
    idle::note(session, &opened.checked, path);
    refusal.told(refuse_missing(&opened.plan))?;
    if let Some(fault) = arguments.inject_fault {
        fault::check(fault, &opened.plan)?;
    }
    let mut settings = opened.settings(session);
    let folder = opened.plan.run_folder().to_owned();
    settings.run_folder = opened.plan.keeps_checkpoints().then_some(&*folder);
    settings.no_cache = arguments.no_cache;
    settings.force = arguments.force.iter().cloned().collect();
    settings.from.clone_from(&arguments.from);
    settings.to.clone_from(&arguments.to);
    let run = Run {
        session,
        path,
        refusal: &refusal,
        opened: &opened,
        recipe,
        folder: folder.clone(),
        started,
        leash: arguments.leash.as_deref(),
        pause_at: arguments.pause_at,
        circumstances: Circumstances { fault: arguments.inject_fault, nodes },
    };
    let preview = runner::preview(&opened.plan, &settings)?;
    run.header();
    if preview.is_up_to_date()
        && let Some(summary) = run.finished_before(&preview)
    {
        return run.up_to_date(&settings, &summary);
    }
    run.walk(&settings)
}

fn refuse_missing(plan: &Plan) -> Result<(), Failure> {
    if plan.missing().is_empty() {
        Ok(())
    } else {
        Err(runner::Error::Missing(plan.missing().to_vec()).into())
    }
}

struct Run<'run> {
    session: &'run Session,
    /// The recipe's path as it was given.
    path: &'run Path,
    /// Who is told when it cannot begin.
    refusal: &'run Refusal,
    opened: &'run Opened,
    /// The resolved recipe's text.
    recipe: String,
    folder: PathBuf,
    started: (String, Instant),
    /// Held while the run lives, for a sweep.
    leash: Option<&'run Path>,
    /// The step after which training is paused, for a sweep.
    pause_at: Option<u64>,
    /// Where a rank is to fail, and who takes part.
    circumstances: Circumstances,
}

impl Run<'_> {
    fn header(&self) {
        let terminal = &self.session.terminal;
        if terminal.quiet {
            return;
        }
        let plan = &self.opened.plan;
        terminal.line(&terminal.paint(Paint::Bold, plan.name()));
        for header in plan.headers() {
            for line in header.to_string().lines() {
                terminal.line(&terminal.paint(Paint::Dim, &format!("  {line}")));
            }
        }
    }

    /// The summary in the run folder, if it tells of this very run, done.
    fn finished_before(&self, preview: &runner::Preview) -> Option<Summary> {
        if !self.folder.join(run_folder::RECIPE).exists()
            || run_folder::holds_another_recipe(&self.folder, &self.recipe)
        {
            return None;
        }
        let summary = summary::read(&self.folder)?;
        let ended = matches!(summary.state, RunState::Done | RunState::UpToDate);
        let same = preview.stages.len() == summary.stages.len()
            && preview.stages.iter().zip(&summary.stages).all(|(now, then)| {
                now.fingerprint.is_some_and(|name| name.to_string() == then.fingerprint)
            });
        (ended && same && self.folder.join(html::FILE).exists()).then_some(summary)
    }

    fn up_to_date(&self, settings: &Settings<'_>, summary: &Summary) -> Result<Exit, Failure> {
        let terminal = &self.session.terminal;
        let screen = Screen::new(
            *terminal,
            Layout::of(&self.opened.plan),
            signals::stop_flag().map_err(|error| Failure::failed(&error))?,
        );
        // Reuses every stage: what it still does is to see to the lock file and the checkpoints.
        let nothing = AtomicBool::new(false);
        runner::run(&self.opened.plan, settings, &stages::run, &screen, &nothing)?;
        let now = Summary { state: RunState::UpToDate, ..summary.clone() };
        let places = (self.opened.checked.folder(), Some(self.folder.as_path()));
        notify::tell(terminal, places, &self.opened.plan.around().notification, &now);
        if terminal.json {
            self.tell(&now);
        } else {
            closing::show_up_to_date(self.session, summary, &self.folder);
        }
        Ok(Exit::Done)
    }

    fn walk(&self, settings: &Settings<'_>) -> Result<Exit, Failure> {
        let plan = &self.opened.plan;
        let stop = signals::stop_flag().map_err(|error| Failure::failed(&error))?;
        let leash = self.leash.map(|path| on_leash(path, &stop)).transpose();
        let _leash = leash.map_err(|error| Failure::failed(&error))?;
        let folder = RunFolder::open(&self.folder, &self.recipe, &self.begun(&settings.holder));
        let folder = self.refusal.told(folder)?;
        // Before the run changes files that git knows, such as the lock.
        let environment = environment::record(
            self.opened.environment(self.session),
            self.opened.checked.folder(),
        );
        let screen =
            Screen::new(self.session.terminal, Layout::of(&self.opened.plan), stop.clone());
        let collector = Collector::new(plan);
        let pause = PauseAt { step: self.pause_at, stop: stop.clone() };
        let board = plan.around().tensorboard;
        let board = board.then(|| TensorBoard::new(folder.path(), trainings(plan)));
        let mut sinks: Vec<&dyn Sink> = vec![&collector, &folder, &screen, &pause];
        sinks.extend(board.iter().map(|board| -> &dyn Sink { board }));
        let sink = Tee(sinks);
        let execute = |job: &Job, folders: &Folders, sink: &dyn Sink, stop: &AtomicBool| {
            stages::run_under(job, folders, (sink, stop), &self.circumstances)
        };
        let result = runner::run(plan, settings, &execute, &sink, &stop);
        drop(sink);
        drop(screen);
        let summary = Summary { environment, ..self.summary(&collector, &result) };
        let written = write((&folder, board.as_ref()), &summary, &result);
        // Whoever started a sweep is told by the sweep.
        if let (Ok(record), None) = (&written, self.leash) {
            let places = (self.opened.checked.folder(), Some(folder.path()));
            notify::tell(
                &self.session.terminal,
                places,
                &plan.around().notification,
                &record.summary,
            );
        }
        result?;
        self.close(&written?);
        Ok(Exit::Done)
    }

    /// What the run says of itself while it goes on.
    fn begun(&self, holder: &str) -> Begun {
        let plan = &self.opened.plan;
        Begun {
            holder: holder.to_owned(),
            name: plan.name().to_owned(),
            recipe: self.path.display().to_string(),
            command: self.session.command.clone(),
            started: self.started.0.clone(),
            steps: Layout::of(plan).steps,
        }
    }

    /// The summary as JSON, with the keys of the recipe that have no effect.
    fn tell(&self, summary: &Summary) {
        let document = serde_json::to_value(summary).unwrap_or_default();
        let document = idle::with_keys(document, &self.opened.checked);
        self.session.terminal.result(&format!("{document:#}"));
    }

    fn close(&self, record: &RunRecord) {
        let terminal = &self.session.terminal;
        if terminal.json {
            self.tell(&record.summary);
        } else {
            closing::show(self.session, record, &self.folder);
        }
    }

    /// What the run says of itself at its end; the caller adds its environment.
    fn summary(&self, collector: &Collector, result: &Result<Report, runner::Error>) -> Summary {
        let stages = collector.stages(result.as_ref().ok());
        let device_seconds = device_seconds(&self.opened.plan, &stages);
        let state = match result {
            Ok(report) if report.stages.iter().any(|done| done.decision.runs()) => RunState::Done,
            Ok(_) => RunState::UpToDate,
            Err(runner::Error::Stopped { .. }) => RunState::Interrupted,
            Err(_) => RunState::Failed,
        };
        Summary {
            version: summary::VERSION,
            name: self.opened.plan.name().to_owned(),
            recipe: self.path.display().to_string(),
            command: self.session.command.clone(),
            started: self.started.0.clone(),
            seconds: self.started.1.elapsed().as_secs_f64(),
            state,
            error: result.as_ref().err().map(ToString::to_string),
            parameters: self.opened.plan.headers().last().map(|header| header.parameters),
            stages,
            environment: BTreeMap::new(),
            inputs: inputs(&self.opened.plan),
            crates: environment::crates(),
            device_seconds,
        }
    }
}

/// Leaves the run folder's files, whether the run went well or not.
fn write(
    (folder, board): (&RunFolder, Option<&TensorBoard>),
    summary: &Summary,
    result: &Result<Report, runner::Error>,
) -> Result<RunRecord, Failure> {
    folder.check()?;
    if let Ok(report) = result {
        adopt(folder, report)?;
    }
    gather(folder, summary)?;
    summary.write(folder.path()).map_err(|error| Failure::failed(&error))?;
    // Of an interrupted run the lock file goes on to tell how far it was.
    if summary.state != RunState::Interrupted {
        folder.settle()?;
    }
    html::write(folder.path()).map_err(|error| Failure::failed(&error))?;
    metrics_csv::write(folder.path()).map_err(|error| Failure::failed(&error))?;
    let record = RunRecord::read(folder.path()).map_err(|error| Failure::failed(&error))?;
    if let Some(board) = board {
        board.finish(&record).map_err(|error| Failure::failed(&error))?;
    }
    Ok(record)
}

/// Digests of the files from outside, by the names that the recipe gives them.
fn inputs(plan: &Plan) -> BTreeMap<String, String> {
    let sources = plan.stages().iter().flat_map(|stage| stage.inputs.values());
    let files = sources.filter_map(|source| match source {
        Source::File(file) => Some((file.written.clone(), file.digest?.to_string())),
        Source::Stage(_) => None,
    });
    files.collect()
}

/// Seconds of the stages that compute, on all their devices.
fn device_seconds(plan: &Plan, stages: &[StageSummary]) -> f64 {
    let seconds = |stage: &StageSummary| {
        let degrees = match &plan.stage(&stage.name)?.job {
            Job::Train(job) => job.trainer.degrees,
            Job::Evaluate(job) => job.trainer.degrees,
            Job::Generate(job) => job.trainer.degrees,
            Job::Tokenize(_) | Job::Shard(_) | Job::Load(_) => return None,
        };
        Some(stage.seconds * degrees.world_size() as f64)
    };
    stages.iter().filter_map(seconds).sum()
}

fn trainings(plan: &Plan) -> usize {
    plan.stages().iter().filter(|stage| matches!(stage.job, Job::Train(_))).count()
}

/// Takes metrics over from the stages' own records.
fn adopt(folder: &RunFolder, report: &Report) -> Result<(), Failure> {
    for done in report.stages.iter().filter(|done| done.kind == "train") {
        let recorded = done.artifact.output.join("metrics.jsonl");
        folder.adopt_metrics(&done.stage, &recorded)?;
    }
    Ok(())
}

/// Takes samples over from the stages' outputs, those of a failed evaluation included.
fn gather(folder: &RunFolder, summary: &Summary) -> Result<(), Failure> {
    let mut generated: Vec<(String, PathBuf)> = Vec::new();
    for stage in summary.stages.iter().filter(|stage| !stage.output.is_empty()) {
        let output = Path::new(&stage.output);
        let file = match stage.kind.as_str() {
            "evaluate" => "samples.jsonl",
            "generate" => "generations.jsonl",
            "train" => {
                generated.extend(validations(&stage.name, output));
                continue;
            }
            _ => continue,
        };
        let path = output.join(file);
        if path.exists() {
            generated.push((stage.name.clone(), path));
        }
    }
    samples::gather(folder.path(), &generated).map_err(|error| Failure::failed(&error))
}

/// The samples of a train stage's validations, in the order of their steps.
fn validations(stage: &str, output: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(output.join("validation_samples")).into_iter().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let step = path.file_stem()?.to_str()?.strip_prefix("step-")?.parse().ok()?;
            Some((step, path))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(step, path)| (format!("{stage}, step {step}"), path)).collect()
}

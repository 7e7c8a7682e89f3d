//! `sft-run verify`: the recipe again, beside its lock.

use crate::artifacts::{Lock, Store};
use crate::base::{atomic_file, shell_words, suggest};
use crate::cli::arguments::RecipeArguments;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::nodes;
use crate::cli::open::{self, Opened};
use crate::cli::scratch::Scratch;
use crate::cli::screen::{Layout, Screen};
use crate::cli::session::Session;
use crate::cli::signals;
use crate::cli::terminal::{Paint, Terminal};
use crate::cli::verify_arguments::VerifyArguments;
use crate::plan::Plan;
use crate::report::junit::{self, Case, Ending};
use crate::report::numbers::duration;
use crate::runner::{self, Settings};
use crate::spec::event::{Event, Sink};
use crate::stages;
use crate::verify::{self, Check, Finding, Request, StageVerdict, Tolerances, Verdict};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &VerifyArguments) -> Result<Exit, Failure> {
    let opened = open::plan(session, &arguments.recipe)?;
    nodes::refuse_several(&opened.checked, "verify")?;
    if !opened.plan.missing().is_empty() {
        return Err(runner::Error::Missing(opened.plan.missing().to_vec()).into());
    }
    let lock = lock(&opened, &arguments.recipe.recipe)?;
    known_stages(&opened.plan, &arguments.stages)?;
    let scratch = Scratch::new(opened.store.root(), "verify")?;
    let store = Store::open(scratch.path());
    let verdict = verdict(session, (&opened, &lock), arguments, &store)?;
    if let Some(path) = &arguments.junit {
        let text =
            junit::document(&format!("sft-run verify {}", opened.plan.name()), &cases(&verdict));
        atomic_file::write_named(path, text.as_bytes()).map_err(|error| {
            Failure::Failed(format!("cannot write `{}`: {error}", path.display()))
        })?;
    }
    let updated = arguments.update && !verdict.is_same();
    if updated {
        accept(session, &opened, &store)?;
    }
    show(session, arguments, (&opened, &verdict), updated);
    Ok(if verdict.is_same() || updated { Exit::Done } else { Exit::Different })
}

fn lock(opened: &Opened, recipe: &Path) -> Result<Lock, Failure> {
    Lock::read(&opened.lock)?.ok_or_else(|| {
        Failure::wrong(
            format!("there is no lock `{}` to hold the recipe to", opened.lock.display()),
            format!("`sft-run {}` runs it and writes one", recipe.display()),
        )
    })
}

fn known_stages(plan: &Plan, names: &[String]) -> Result<(), Failure> {
    let Some(unknown) = names.iter().find(|name| plan.stage(name).is_none()) else { return Ok(()) };
    let known = plan.stages().iter().map(|stage| stage.name.as_str());
    let message = format!("--stages names `{unknown}`, which is not a stage");
    Err(Failure::wrong(message, suggest::choices(unknown, "the stages are", known)))
}

fn verdict(
    session: &Session,
    (opened, lock): (&Opened, &Lock),
    arguments: &VerifyArguments,
    store: &Store,
) -> Result<Verdict, Failure> {
    let wishes = &opened.plan.around().verification;
    let request = Request {
        plan: &opened.plan,
        lock,
        cache: &opened.store,
        settings: settings(session, opened, store),
        steps: arguments.steps.or(wishes.steps.filter(|_| !arguments.update)),
        only: arguments.stages.iter().cloned().collect(),
        tolerances: Tolerances(wishes.tolerances.clone()),
        to_the_end: arguments.all || arguments.update,
    };
    let stop = signals::stop_flag().map_err(|error| Failure::failed(&error))?;
    // The walk raises the flag itself at a step that differs: no reason to speak of Ctrl-C.
    let screen = Screen::new(session.terminal, Layout::of(&opened.plan), Arc::default());
    Ok(verify::run(&request, &stages::run, &Work(screen), &stop)?)
}

/// A run in `store` that leaves nothing elsewhere.
fn settings<'a>(session: &Session, opened: &'a Opened, store: &'a Store) -> Settings<'a> {
    let ordinary = opened.settings(session);
    Settings { store, keep_lock: true, run_folder: None, store_stays: false, ..ordinary }
}

/// Writes the lock anew from what stands in `store` after everything ran.
fn accept(session: &Session, opened: &Opened, store: &Store) -> Result<(), Failure> {
    let settings = Settings { keep_lock: false, ..settings(session, opened, store) };
    let nothing = std::sync::atomic::AtomicBool::new(false);
    // The old lock would stay where it was made elsewhere: it is to be replaced.
    std::fs::remove_file(&opened.lock).map_err(|error| Failure::failed(&error))?;
    runner::run(&opened.plan, &settings, &stages::run, &crate::spec::event::Silent, &nothing)?;
    Ok(())
}

/// Shows stages at work, and says nothing of those whose output is looked up again, nor why a
/// stage runs: everything does. What came of it stands in the table at the end.
struct Work(Screen);

impl Sink for Work {
    fn emit(&self, event: Event) {
        match event {
            Event::StageReused { .. } => {}
            Event::StageStarted { stage, kind, .. } => {
                self.0.emit(Event::StageStarted {
                    stage,
                    kind,
                    reason: "to be compared with the lock".to_owned(),
                });
            }
            other => self.0.emit(other),
        }
    }
}

fn show(
    session: &Session,
    arguments: &VerifyArguments,
    (opened, verdict): (&Opened, &Verdict),
    updated: bool,
) {
    let terminal = &session.terminal;
    if terminal.json {
        let document = json!({
            "name": opened.plan.name(),
            "same": verdict.is_same(),
            "exact": verdict.exact,
            "environment": opened.environment(session),
            "differs_in_environment": verdict.environment,
            "stages": verdict.stages,
            "lock": opened.lock,
            "lock_updated": updated,
        });
        terminal.result(&format!("{document:#}"));
        return;
    }
    terminal.result(&text(terminal, arguments, (opened, verdict), updated));
}

fn text(
    terminal: &Terminal,
    arguments: &VerifyArguments,
    (opened, verdict): (&Opened, &Verdict),
    updated: bool,
) -> String {
    let name = terminal.paint(Paint::Bold, opened.plan.name());
    let mut text = format!("\n{name} beside {}\n", opened.lock.display());
    text += &if verdict.exact {
        "  the environment is the lock's: compared to the bit\n".to_owned()
    } else {
        let differences = verdict.environment.join("; ");
        format!("  another environment ({differences}): compared within tolerances\n")
    };
    let width = verdict.stages.iter().map(|one| one.stage.chars().count()).max().unwrap_or(0);
    for stage in &verdict.stages {
        text += &line(terminal, stage, width);
    }
    text += &match verdict.first_difference() {
        None => format!("{} the same\n", terminal.paint(Paint::Green, "✓")),
        Some(_) if updated => {
            "  the lock now says what came; look at its difference before you keep it\n".to_owned()
        }
        Some((stage, findings)) => {
            let cause = findings.first().map(ToString::to_string).unwrap_or_default();
            format!(
                "{} `{}` is the first to differ: {cause}\n  {}   accepts it\n",
                terminal.paint(Paint::Red, "✗"),
                stage.stage,
                accepting(&arguments.recipe)
            )
        }
    };
    text
}

/// The command that makes what this very recipe, with its changes, comes to the lock.
fn accepting(recipe: &RecipeArguments) -> String {
    let path = |path: &Path| path.display().to_string();
    let mut words = vec!["sft-run".to_owned(), "verify".to_owned(), path(&recipe.recipe)];
    words.extend(recipe.overrides.iter().cloned());
    let options = &recipe.options;
    words.extend(options.variables.iter().flat_map(|given| ["--var".to_owned(), given.clone()]));
    words.extend(options.hparams.iter().flat_map(|json| ["--hparams".to_owned(), json.clone()]));
    let cache = options.cache_dir.iter();
    words.extend(cache.flat_map(|folder| ["--cache-dir".to_owned(), path(folder)]));
    words.push("--update".to_owned());
    shell_words::joined(words.iter().map(String::as_str))
}

fn line(terminal: &Terminal, stage: &StageVerdict, width: usize) -> String {
    let name = format!("{:width$}", stage.stage);
    let time = duration(stage.seconds);
    match &stage.check {
        Check::Same { compared } => {
            format!(
                "  {} {name}  same       {compared}  {}\n",
                terminal.paint(Paint::Green, "✓"),
                terminal.paint(Paint::Dim, &time)
            )
        }
        Check::NotChecked { reason } => {
            terminal.paint(Paint::Dim, &format!("  – {name}  no check   {reason}")) + "\n"
        }
        Check::Different { findings } => {
            let mark = terminal.paint(Paint::Red, "✗");
            let mut text = String::new();
            for (at, finding) in findings.iter().enumerate() {
                text += &match at {
                    0 => format!("  {mark} {name}  different  {finding}\n"),
                    _ => format!("    {:width$}             {finding}\n", ""),
                };
            }
            text
        }
    }
}

fn cases(verdict: &Verdict) -> Vec<Case> {
    let ending = |stage: &StageVerdict| match &stage.check {
        Check::Same { .. } => Ending::Passed,
        Check::NotChecked { reason } => Ending::Skipped(reason.clone()),
        Check::Different { findings } => {
            let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
            Ending::Failed(lines.first().cloned().unwrap_or_default(), lines.join("\n"))
        }
    };
    let case = |stage: &StageVerdict| Case {
        name: stage.stage.clone(),
        seconds: stage.seconds,
        ending: ending(stage),
    };
    verdict.stages.iter().map(case).collect()
}

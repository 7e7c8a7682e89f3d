//! `sft-run sweep`: many runs of one recipe, and what came of them.

use crate::base::{atomic_file, suggest};
use crate::cli::arguments::{RecipeArguments, SweepArguments};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::nodes;
use crate::cli::open::{self, Opened};
use crate::cli::session::Session;
use crate::cli::trials::{self, Processes};
use crate::cli::{environment, signals};
use crate::recipe::source;
use crate::report::sweep as page;
use crate::spec::job::Job;
use crate::spec::recipe::sweep::{SamplerName, Sweep};
use crate::sweep::driver::{Options, drive};
use crate::sweep::table::Table;
use crate::sweep::{
    Header, Journal, Line, Space, State, TrialEnd, best_is_small, journal, objective, rungs,
    sampler, trlx,
};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Trials of a search that does not say how many.
const TRIALS: usize = 20;
/// Trials of a grid that are checked before the first one starts.
const CHECKED: usize = 200;

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &SweepArguments) -> Result<Exit, Failure> {
    if let Some(folder) = &arguments.show {
        let (header, lines) = journal::read(folder).map_err(|error| Failure::failed(&error))?;
        show(session, arguments, &State::new(header, &lines), folder);
        return Ok(Exit::Done);
    }
    let given = Space::parse(&arguments.overrides)?;
    let base = base(arguments, &given);
    let opened = open::plan(session, &base)?;
    nodes::refuse_several(&opened.checked, "sweep")?;
    if let Some(missing) = opened.plan.missing().first() {
        let message = format!("a trial would lack {}", missing.what);
        return Err(Failure::wrong(message, missing.help.clone()));
    }
    let work = Work { session, arguments, base, opened };
    let header = work.header(given)?;
    let folder = arguments.output.clone().unwrap_or_else(|| Path::new("sweeps").join(&header.name));
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    work.check_trials(&header)?;
    let (mut state, mut journal) = begin(arguments, header, &folder)?;
    let launch = work.processes(&state, folder.clone())?;
    let stop = launch.stop.clone();
    let parallel = work.parallel(state.trials.len())?;
    let options = Options { parallel, fail_fast: arguments.fail_fast, stop: &stop };
    drive(&mut state, &mut journal, &launch, options).map_err(|error| Failure::failed(&error))?;
    finish(session, arguments, &state, &folder, stop.load(Ordering::Relaxed))
}

/// The recipe as every trial has it.
fn base(arguments: &SweepArguments, given: &Space) -> RecipeArguments {
    RecipeArguments {
        recipe: arguments.recipe.clone().unwrap_or_default(),
        overrides: given.fixed.clone(),
        options: arguments.options.clone(),
    }
}

/// What a sweep is made of.
struct Work<'a> {
    session: &'a Session,
    arguments: &'a SweepArguments,
    /// The recipe as every trial has it.
    base: RecipeArguments,
    opened: Opened,
}

impl Work<'_> {
    /// What the sweep is: trlx's file, over it the recipe's section, over it the command line.
    fn header(&self, given: Space) -> Result<Header, Failure> {
        let (arguments, checked) = (self.arguments, &self.opened.checked);
        let own = checked.recipe().sweep.clone().unwrap_or_default();
        let (mut space, foreign) = foreign(arguments.file.as_deref())?;
        space.extend(Space::of_parameters(&own.parameters.clone().unwrap_or_default().0)?);
        space.extend(given);
        if space.axes.is_empty() {
            let help = "write KEY=A,B, 'KEY=range(0,3)' or 'KEY=tag(log,interval(1e-5,1e-3))', or a `sweep` section";
            return Err(Failure::wrong("nothing varies: no key has several values", help));
        }
        let sampler = arguments.sampler.or(own.sampler).or(foreign.sampler).unwrap_or_default();
        let trials = arguments.trials.or(own.trials).or(foreign.trials).unwrap_or(TRIALS);
        let trials = sampler::count(&space, sampler, trials)
            .map_err(|message| Failure::Wrong { message, help: None })?;
        let metric = arguments.metric.clone().or(own.metric).or(foreign.metric);
        let metric = metric.unwrap_or_else(|| "val_loss".to_owned());
        self.check_metric(&metric)?;
        let mode = arguments.mode.or(own.mode).or(foreign.mode);
        let asha = arguments.asha.or(own.asha).or(foreign.asha);
        let rungs = asha.map(|reduction| rungs_of(&self.opened, &metric, reduction)).transpose()?;
        Ok(Header {
            version: journal::VERSION,
            name: checked.name().to_owned(),
            recipe: std::path::absolute(&self.base.recipe)
                .unwrap_or_else(|_| self.base.recipe.clone()),
            resolved: open::resolved_text(self.session, &self.base)?,
            small_is_best: best_is_small(&metric, mode),
            seed: arguments.seed.or(own.seed).unwrap_or(0),
            lag: self.parallel(trials)?,
            rungs: rungs.unwrap_or_default(),
            space,
            sampler,
            trials,
            metric,
            asha,
        })
    }

    /// Refuses a metric that no trial will have.
    fn check_metric(&self, metric: &str) -> Result<(), Failure> {
        let stages = self.opened.plan.stages().iter();
        let names = objective::names(stages.map(|stage| (stage.name.as_str(), &stage.job)));
        let names = names.iter().map(String::as_str);
        if objective::meant(names.clone(), metric).is_some() {
            return Ok(());
        }
        let message = format!("a trial has no metric `{metric}`, or several of that name");
        Err(Failure::wrong(message, suggest::choices(metric, "it has", names)))
    }

    /// Reads the recipe with the values of every trial of a grid, so that mistakes are told before
    /// work.
    fn check_trials(&self, header: &Header) -> Result<(), Failure> {
        let grid = header.sampler == SamplerName::Grid;
        let count = if grid { header.trials.min(CHECKED) } else { 1 };
        let state = State::new(header.clone(), &[]);
        for number in 0..count {
            let mut trial = self.base.clone();
            for (key, value) in sampler::typed(&header.space, &state.points(number)) {
                match trials::words(&key, &value).as_slice() {
                    [_, variable] => trial.options.variables.push(variable.clone()),
                    words => trial.overrides.extend(words.iter().cloned()),
                }
            }
            open::with_request(self.session, &trial, crate::recipe::load)?;
        }
        Ok(())
    }

    /// Trials at a time.
    fn parallel(&self, trials: usize) -> Result<usize, Failure> {
        let gpus = self.gpus_per_trial();
        let most = if gpus == 0 {
            environment::cores()
        } else {
            let here = environment::gpus().map_or(0, |gpus| gpus.count);
            if here < gpus {
                let message = format!("a trial needs {gpus} GPUs, {here} are here");
                let help = "lower --gpus-per-trial or the recipe's trainer.devices";
                return Err(Failure::wrong(message, help));
            }
            here / gpus
        };
        Ok(self.arguments.parallel.unwrap_or(most).min(trials).max(1))
    }

    /// GPUs of each trial; 0 on the CPU.
    fn gpus_per_trial(&self) -> usize {
        let trainer = &self.opened.checked.recipe().trainer;
        let wanted = self.arguments.gpus_per_trial.or(trainer.devices).unwrap_or(1);
        if trainer.on_gpu() { wanted } else { 0 }
    }

    fn processes(&self, state: &State, folder: PathBuf) -> Result<Processes<'_>, Failure> {
        let base = &self.base;
        let mut words = base.overrides.clone();
        let variables = base.options.variables.iter();
        words.extend(variables.flat_map(|variable| ["--var".to_owned(), variable.clone()]));
        words.extend(
            base.options.hparams.iter().flat_map(|json| ["--hparams".to_owned(), json.clone()]),
        );
        let folder_of_recipe = self.opened.checked.folder();
        let cache =
            open::cache_folder(self.session, base.options.cache_dir.as_deref(), folder_of_recipe);
        words.extend(["--cache-dir".to_owned(), cache.display().to_string()]);
        let parallel = self.parallel(state.trials.len())?;
        Ok(Processes {
            program: std::env::current_exe().map_err(|error| Failure::failed(&error))?,
            recipe: &base.recipe,
            words,
            folder,
            threads: (environment::cores() / parallel).max(1),
            gpus: self.gpus_per_trial(),
            metric: state.header.metric.clone(),
            stop: signals::stop_flag().map_err(|error| Failure::failed(&error))?,
            terminal: self.session.terminal,
        })
    }
}

fn foreign(file: Option<&Path>) -> Result<(Space, Sweep), Failure> {
    let Some(path) = file else { return Ok((Space::default(), Sweep::default())) };
    Ok(trlx::read(&source::entries(path)?)?)
}

fn rungs_of(opened: &Opened, metric: &str, reduction: u64) -> Result<Vec<u64>, Failure> {
    let trainings = opened.plan.stages().iter().filter_map(|stage| match &stage.job {
        Job::Train(job) => Some(job.trainer.max_steps),
        _ => None,
    });
    let steps: Vec<u64> = trainings.collect();
    let [steps] = steps.as_slice() else {
        let message =
            format!("asha pauses the one training of a recipe, and this one has {}", steps.len());
        return Err(Failure::wrong(message, "leave asha out"));
    };
    if !["val_loss", "best_val_loss", "train_loss"].contains(&metric) {
        let message = format!("asha compares trials while they train, and `{metric}` comes after");
        return Err(Failure::wrong(
            message,
            "use --metric val_loss or train_loss, or leave asha out",
        ));
    }
    Ok(rungs::rungs(*steps, reduction))
}

/// A new journal, or the one that is resumed.
fn begin(
    arguments: &SweepArguments,
    header: Header,
    folder: &Path,
) -> Result<(State, Journal), Failure> {
    let failed = |error: journal::Error| Failure::failed(&error);
    let there = folder.join(journal::FILE).exists();
    if !arguments.resume {
        if there {
            let message = format!("there is a sweep in `{}`", folder.display());
            return Err(Failure::wrong(
                message,
                "go on with it: --resume; or name another folder: --output FOLDER",
            ));
        }
        std::fs::create_dir_all(folder).map_err(|error| Failure::failed(&error))?;
        let journal = Journal::create(folder, &header).map_err(failed)?;
        return Ok((State::new(header, &[]), journal));
    }
    if !there {
        let message = format!("there is no sweep in `{}` to go on with", folder.display());
        return Err(Failure::wrong(
            message,
            "leave --resume out, or name its folder: --output FOLDER",
        ));
    }
    let (before, lines) = journal::read(folder).map_err(failed)?;
    let same = Header { lag: before.lag, ..header };
    if same != before {
        let message = format!(
            "the sweep in `{}` is another one: {}",
            folder.display(),
            difference(&before, &same)
        );
        return Err(Failure::wrong(
            message,
            "resume it with the recipe and the words that it was begun with",
        ));
    }
    let mut state = State::new(before, &lines);
    let mut journal = Journal::open(folder).map_err(failed)?;
    // What failed is tried again.
    for trial in 0..state.trials.len() {
        let failed_before = matches!(state.trials[trial].end, Some(TrialEnd::Failed(_)));
        if let Some(points) = state.trials[trial].points.clone().filter(|_| failed_before) {
            let line = Line::Started { trial, points };
            journal.append(&line).map_err(failed)?;
            state.take(&line);
        }
    }
    Ok((state, journal))
}

/// The first part of two sweeps that differs.
fn difference(before: &Header, now: &Header) -> String {
    let [before, now] = [before, now].map(|header| json!(header));
    let parts = before.as_object().into_iter().flatten();
    let differs = parts.filter(|(key, value)| now.get(key.as_str()) != Some(value));
    let names: Vec<&str> = differs.map(|(key, _)| key.as_str()).collect();
    format!("its {} differ", names.join(", "))
}

fn finish(
    session: &Session,
    arguments: &SweepArguments,
    state: &State,
    folder: &Path,
    stopped: bool,
) -> Result<Exit, Failure> {
    let table = Table::of(state);
    let shown = page::Page::of(&page_data(state, &table, folder));
    let text = page::render(&shown).map_err(|error| Failure::failed(&error))?;
    let path = folder.join(page::FILE);
    atomic_file::write(&path, text.as_bytes()).map_err(|error| Failure::failed(&error))?;
    show(session, arguments, state, folder);
    let failures = trials::failures(state);
    if stopped && failures.is_empty() {
        let message = "the sweep is not finished; the same command with --resume goes on with it";
        return Err(Failure::Interrupted(message.to_owned()));
    }
    if failures.is_empty() {
        return Ok(Exit::Done);
    }
    // The document on stdout has the errors already.
    if session.terminal.json {
        return Ok(Exit::Failed);
    }
    Err(Failure::Failed(format!(
        "{} of {} trials\n  {}",
        failures.len(),
        state.trials.len(),
        failures.join("\n  ")
    )))
}

fn page_data(state: &State, table: &Table, folder: &Path) -> page::Data {
    let trial = |row: &crate::sweep::table::Row| page::Trial {
        number: row.trial,
        state: row.state,
        values: row.values.clone(),
        value: row.value,
        error: row.error.clone(),
        folder: trials::run_folder(folder, row.trial),
    };
    page::Data {
        name: state.header.name.clone(),
        recipe: state.header.recipe.display().to_string(),
        metric: state.header.metric.clone(),
        small_is_best: state.header.small_is_best,
        keys: table.keys.clone(),
        trials: table.rows.iter().map(trial).collect(),
        best: best_command(state),
    }
}

/// The command that runs the best trial again.
fn best_command(state: &State) -> Option<String> {
    let points = state.points(state.best()?);
    let mut words = vec!["sft-run".to_owned(), state.header.recipe.display().to_string()];
    words.extend(state.header.space.fixed.clone());
    let values = sampler::typed(&state.header.space, &points);
    words.extend(values.iter().flat_map(|(key, value)| trials::words(key, value)));
    Some(words.join(" "))
}

fn show(session: &Session, arguments: &SweepArguments, state: &State, folder: &Path) {
    let (table, terminal) = (Table::of(state), &session.terminal);
    if terminal.json {
        let mut document = table.json();
        document["best"] = json!(state.best());
        document["command"] = json!(best_command(state));
        document["folder"] = json!(folder);
        terminal.result(&format!("{document:#}"));
    } else if arguments.csv {
        terminal.result(&table.csv());
    } else {
        terminal.result(&table.text());
        if let Some(command) = best_command(state) {
            terminal
                .result(&format!("\nbest: {command}\npage: {}", folder.join(page::FILE).display()));
        }
    }
}

//! `sft-run sweep`: many runs of one recipe, and what came of them.

use super::resumed_sweep::differences;
use super::swept;
use crate::artifacts::{Claim, Guard, claim_file};
use crate::base::suggest;
use crate::cli::arguments::{RecipeArguments, SweepArguments};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::nodes;
use crate::cli::open::{self, Opened};
use crate::cli::run_folder::RUNNING;
use crate::cli::session::Session;
use crate::cli::trials::{self, Processes};
use crate::cli::{environment, signals};
use crate::recipe::problem::Problem;
use crate::recipe::source;
use crate::spec::job::Job;
use crate::spec::recipe::sweep::{SamplerName, Sweep};
use crate::sweep::driver::{Options, drive};
use crate::sweep::{
    Header, Journal, Line, Space, State, TrialEnd, best_is_small, journal, objective, rungs,
    sampler, trlx,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Trials of a search that does not say how many.
const TRIALS: usize = 20;
/// Trials of a grid that are checked before the first one starts.
const CHECKED: usize = 200;

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &SweepArguments) -> Result<Exit, Failure> {
    if let Some(folder) = &arguments.show {
        refuse_absent(folder)?;
        let (header, lines) = journal::read(folder).map_err(|error| Failure::failed(&error))?;
        swept::show(session, arguments, &State::new(header, &lines), folder);
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
    let guard = claim(session, arguments, &folder)?;
    let (mut state, mut journal) = begin(arguments, header, &folder)?;
    let launch = work.processes(&state, folder.clone())?;
    let stop = launch.stop.clone();
    let parallel = work.parallel(state.trials.len())?;
    let options = Options { parallel, fail_fast: arguments.fail_fast, stop: &stop };
    drive(&mut state, &mut journal, &launch, options).map_err(|error| Failure::failed(&error))?;
    guard.settle().map_err(|error| Failure::failed(&error))?;
    drop(guard);
    swept::finish(session, arguments, &state, &folder, stop.load(Ordering::Relaxed))
}

fn refuse_absent(folder: &Path) -> Result<(), Failure> {
    if folder.join(journal::FILE).exists() {
        return Ok(());
    }
    Err(Failure::wrong(
        format!("there is no sweep in `{}`", folder.display()),
        "name a sweep's folder: `sweeps/NAME`, or what its --output named",
    ))
}

/// Refuses settings of the samplers that draw where every combination is tried; those of the recipe
/// only if it is the recipe that says so.
fn refuse_idle(
    arguments: &SweepArguments,
    own: &Sweep,
    sampler: SamplerName,
) -> Result<(), Failure> {
    let recipes = arguments.sampler.is_none();
    let given = [
        ("--trials", arguments.trials.is_some()),
        ("--seed", arguments.seed.is_some()),
        ("sweep.trials", recipes && own.trials.is_some()),
        ("sweep.seed", recipes && own.seed.is_some()),
    ];
    let idle = given.into_iter().find(|(_, given)| *given && sampler == SamplerName::Grid);
    let Some((option, _)) = idle else { return Ok(()) };
    Err(Failure::wrong(
        format!("{option} changes nothing where a grid tries every combination"),
        format!("add --sampler random or --sampler tpe, or leave {option} out"),
    ))
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
        refuse_idle(arguments, &own, sampler)?;
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
            let values = sampler::typed(&header.space, &state.points(number));
            for (key, value) in &values {
                match trials::words(key, value).as_slice() {
                    [_, variable] => trial.options.variables.push(variable.clone()),
                    words => trial.overrides.extend(words.iter().cloned()),
                }
            }
            let read = open::with_request(self.session, &trial, crate::recipe::load);
            read.map_err(|failure| self.in_words_of_the_sweep(failure, &values))?;
        }
        Ok(())
    }

    /// Suggests to add a key with all the values that were typed, not with those of one trial.
    fn in_words_of_the_sweep(&self, failure: Failure, values: &[(String, String)]) -> Failure {
        let Failure::Problems(problems) = failure else { return failure };
        let reword = |help: String| {
            values.iter().fold(help, |help, (key, value)| {
                let begun = format!("{key}=");
                let typed = self.arguments.overrides.iter().find(|word| word.starts_with(&begun));
                typed.map_or(help.clone(), |typed| {
                    help.replace(&format!("+{key}={value}"), &format!("+{typed}"))
                })
            })
        };
        let reworded = problems
            .into_iter()
            .map(|problem| Problem { help: problem.help.map(&reword), ..problem });
        Failure::Problems(reworded.collect())
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

/// Makes the sweep's folder this process's alone.
fn claim(session: &Session, arguments: &SweepArguments, folder: &Path) -> Result<Guard, Failure> {
    let failed = |error: std::io::Error| Failure::failed(&error);
    if arguments.resume && !folder.join(journal::FILE).exists() {
        let message = format!("there is no sweep in `{}` to go on with", folder.display());
        return Err(Failure::wrong(
            message,
            "leave --resume out, or name its folder: --output FOLDER",
        ));
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    let holder = format!("process {}: {}", std::process::id(), session.command.join(" "));
    match claim_file(&folder.join(RUNNING), &holder).map_err(failed)? {
        Claim::Mine(guard) => Ok(guard),
        Claim::Theirs(holder) => {
            let message = format!("the sweep in `{}` is in use by {holder}", folder.display());
            let help = "wait for it to end, or name another folder: --output FOLDER";
            Err(Failure::wrong(message, help))
        }
    }
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
        let journal = Journal::create(folder, &header).map_err(failed)?;
        return Ok((State::new(header, &[]), journal));
    }
    let (before, lines) = journal::read(folder).map_err(failed)?;
    let same = Header { lag: before.lag, ..header };
    if same != before {
        let differences = differences(&before, &same).join("; ");
        let message = format!("the sweep in `{}` is another one: {differences}", folder.display());
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

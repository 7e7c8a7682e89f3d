//! From the command line to a checked recipe and a plan.

use super::arguments::RecipeArguments;
use super::environment;
use super::failure::Failure;
use super::first_word::nearest_recipe;
use super::session::Session;
use super::terminal::{Paint, wrapped};
use crate::artifacts::Store;
use crate::plan::{self, Plan};
use crate::recipe::problem::{Problem, Severity};
use crate::recipe::{self, CheckedRecipe, Git, Request};
use crate::recipe::{View, config_text};
use crate::runner::{self, Settings};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A plan and what it stands on.
pub(super) struct Opened {
    /// The recipe.
    pub(super) checked: CheckedRecipe,
    /// Its plan.
    pub(super) plan: Plan,
    /// Where outputs are kept.
    pub(super) store: Store,
    /// The lock file.
    pub(super) lock: PathBuf,
    /// Whether the command line changed the recipe.
    pub(super) changed: bool,
}

impl Opened {
    /// What can change the numbers of a run here.
    pub(super) fn environment(&self, session: &Session) -> BTreeMap<String, String> {
        environment::computing(self.checked.recipe().trainer.on_gpu(), &session.environment)
    }

    /// The settings of an ordinary run.
    ///
    /// A run with overrides is not the recipe's own: it leaves the lock file alone.
    pub(super) fn settings(&self, session: &Session) -> Settings<'_> {
        let mut settings = Settings::new(&self.store, &self.lock);
        settings.environment = self.environment(session);
        settings.holder = format!("process {}: {}", std::process::id(), session.command.join(" "));
        settings.keep_lock = self.changed;
        settings
    }
}

/// Reads and checks the recipe; lints are shown, or refused with `--deny-lints`.
pub(super) fn recipe(
    session: &Session,
    arguments: &RecipeArguments,
) -> Result<(CheckedRecipe, Vec<Problem>), Failure> {
    let (checked, mut lints) = with_request(session, arguments, recipe::load)?;
    if arguments.options.deny_lints && !lints.is_empty() {
        for lint in &mut lints {
            lint.severity = Severity::Error;
        }
        return Err(Failure::Problems(lints));
    }
    let terminal = &session.terminal;
    if !lints.is_empty() && !terminal.quiet && !terminal.json {
        terminal.error(&recipe::diagnostic::render_width(
            &lints,
            terminal.error_color,
            terminal.width,
        ));
    }
    Ok((checked, lints))
}

/// Reads, checks and plans the recipe.
pub(super) fn plan(session: &Session, arguments: &RecipeArguments) -> Result<Opened, Failure> {
    plan_for(session, arguments, None)
}

/// [`plan`] for devices with `memory` bytes; without it, for those of this machine.
pub(super) fn plan_for(
    session: &Session,
    arguments: &RecipeArguments,
    memory: Option<u64>,
) -> Result<Opened, Failure> {
    let (checked, _) = recipe(session, arguments)?;
    plan_of(session, arguments, checked, memory)
}

/// Plans a recipe that was read before; see [`plan_for`].
pub(super) fn plan_of(
    session: &Session,
    arguments: &RecipeArguments,
    checked: CheckedRecipe,
    memory: Option<u64>,
) -> Result<Opened, Failure> {
    let store = Store::open(&cache_folder(
        session,
        arguments.options.cache_dir.as_deref(),
        checked.folder(),
    ));
    let mut facts = runner::facts(&plan::wanted(&checked), &store)?;
    facts.host_memory = memory.or_else(environment::memory_bytes);
    let on_gpu = checked.recipe().trainer.on_gpu();
    let gpu = || environment::gpus().and_then(|gpus| gpus.memory).filter(|_| on_gpu);
    facts.gpu_memory = memory.or_else(gpu);
    let plan = plan::compile(&checked, &facts)?;
    let lock = lock_path(&arguments.recipe);
    let changed = !arguments.overrides.is_empty()
        || arguments.options.hparams.is_some()
        || !arguments.options.variables.is_empty();
    Ok(Opened { checked, plan, store, lock, changed })
}

/// The resolved recipe as YAML, for the run folder.
pub(super) fn resolved_text(
    session: &Session,
    arguments: &RecipeArguments,
) -> Result<String, Failure> {
    let view = View { resolve: true, ..View::default() };
    with_request(session, arguments, |request| config_text(request, &view))
}

/// Hands what was typed to `read`, which is one of `recipe`'s ways in.
pub(super) fn with_request<T>(
    session: &Session,
    arguments: &RecipeArguments,
    read: impl Fn(&Request) -> Result<T, Vec<Problem>>,
) -> Result<T, Failure> {
    let path = &arguments.recipe;
    if !path.is_file() {
        return Err(no_recipe(path));
    }
    let variables = arguments
        .options
        .variables
        .iter()
        .map(|text| variable(text))
        .collect::<Result<Vec<_>, _>>()?;
    // Asking git and the GPU driver takes longer than all the rest: only where the text asks for it.
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let may_ask =
        |word: &str| text.contains("${{") && text.contains(word) || text.contains("extends:");
    let git = may_ask("git").then(|| checkout(path)).flatten();
    let gpu = may_ask("gpu").then(environment::gpus).flatten();
    let request = Request {
        path,
        overrides: &arguments.overrides,
        variables: &variables,
        environment: &session.environment,
        hparams: arguments.options.hparams.as_deref(),
        git: git.as_ref(),
        gpu: gpu.as_ref(),
    };
    Ok(read(&request)?)
}

fn no_recipe(path: &Path) -> Failure {
    let what = if path.is_dir() { "is a folder, not a recipe" } else { "does not exist" };
    let help = match nearest_recipe(path) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "give the path of a recipe (a YAML file)".to_owned(),
    };
    Failure::wrong(format!("`{}` {what}", path.display()), help)
}

fn variable(text: &str) -> Result<(String, String), Failure> {
    let split = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = split.ok_or_else(|| {
        Failure::wrong(format!("`--var {text}` names no value"), "write `--var NAME=VALUE`")
    })?;
    Ok((name.to_owned(), value.to_owned()))
}

fn checkout(recipe: &Path) -> Option<Git> {
    let folder = recipe.parent().unwrap_or(Path::new("."));
    let commit = environment::git(folder, &["rev-parse", "HEAD"])?;
    let branch = environment::git(folder, &["symbolic-ref", "--short", "HEAD"]);
    let dirty = environment::git(folder, &["status", "--porcelain"])
        .is_some_and(|changes| !changes.is_empty());
    Some(Git { commit, branch, dirty })
}

/// `--cache-dir`, else `SFT_RUN_CACHE`, else `.sft-run/cache` in `folder`.
pub(super) fn cache_folder(session: &Session, option: Option<&Path>, folder: &Path) -> PathBuf {
    let variable = session.environment.get("SFT_RUN_CACHE").filter(|value| !value.is_empty());
    let named = option.map(Path::to_path_buf).or_else(|| variable.map(PathBuf::from));
    named.unwrap_or_else(|| folder.join(".sft-run").join("cache"))
}

/// `quickstart.lock` beside `quickstart.yaml`, by a path that does not depend on the current folder.
fn lock_path(recipe: &Path) -> PathBuf {
    let template = recipe.extension().is_some_and(|ending| ending == "j2");
    let named = if template { recipe.with_extension("") } else { recipe.to_path_buf() };
    let lock = named.with_extension("lock");
    std::path::absolute(&lock).unwrap_or(lock)
}

/// Says how a stage's state looks, in the colors of the screen and as wide as it is.
pub(super) fn with_marks(session: &Session, text: &str) -> String {
    let paint = |paint, mark| session.terminal.paint(paint, mark);
    let terminal = &session.terminal;
    let text = if terminal.interactive { wrapped(text, terminal.width) } else { text.to_owned() };
    text.replace('✓', &paint(Paint::Green, "✓"))
        .replace('●', &paint(Paint::Cyan, "●"))
        .replace("  ! ", &format!("  {} ", paint(Paint::Yellow, "!")))
}

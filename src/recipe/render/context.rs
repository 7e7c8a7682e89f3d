//! What expressions see: `vars`, an allow-list of the environment, `git`, `gpu`.

use crate::recipe::problem::Problem;
use crate::recipe::resolve::Request;
use crate::recipe::scalar;
use minijinja::Value as Dynamic;
use minijinja::value::Serde;
use serde_yaml::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Environment variables that a recipe may depend on: where it runs, not who runs it with which
/// secrets. Whatever else is needed comes in by `--var name="$NAME"`.
const ALLOWED: &[&str] = &[
    "CUDA_VISIBLE_DEVICES",
    "HOME",
    "HOSTNAME",
    "LOCAL_RANK",
    "LOGNAME",
    "MASTER_ADDR",
    "MASTER_PORT",
    "NNODES",
    "NODE_RANK",
    "PWD",
    "RANK",
    "TMPDIR",
    "USER",
    "WORLD_SIZE",
];
/// The same for whole families.
const ALLOWED_PREFIXES: &[&str] = &["SFT_", "SLURM_"];

/// What to do about a variable in an expression; `--var` sets only what is declared.
const OF_VARIABLES: &str = "declare it in the recipe under `vars:`, with ??? for no default; --var name=value then sets it";

/// The names that expressions can use, and their values.
pub(crate) struct Context {
    variables: BTreeMap<String, Value>,
    environment: BTreeMap<String, String>,
    /// Set, but not on the allow-list.
    hidden: BTreeSet<String>,
    git: BTreeMap<String, Value>,
    gpu: BTreeMap<String, Value>,
    /// All names, with the dot.
    names: BTreeSet<String>,
    values: Dynamic,
}

impl Context {
    pub(crate) fn new(request: &Request) -> Context {
        let allowed = |name: &str| {
            ALLOWED.contains(&name)
                || ALLOWED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        };
        let (environment, hidden): (Vec<_>, Vec<_>) =
            request.environment.iter().partition(|(name, _)| allowed(name));
        let mut context = Context {
            variables: BTreeMap::new(),
            environment: environment.into_iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            hidden: hidden.into_iter().map(|(name, _)| name.clone()).collect(),
            git: request.git.map(git).unwrap_or_default(),
            gpu: request.gpu.map(gpu).unwrap_or_default(),
            names: BTreeSet::new(),
            values: Dynamic::UNDEFINED,
        };
        for (name, text) in request.variables {
            context.variables.insert(name.clone(), variable(text));
        }
        context.refresh();
        context
    }

    pub(crate) fn set_variable(&mut self, name: &str, value: &Value) {
        self.variables.insert(name.to_owned(), value.clone());
        self.refresh();
    }

    fn refresh(&mut self) {
        fn under<'n, V>(
            root: &str,
            map: &'n BTreeMap<String, V>,
        ) -> impl Iterator<Item = String> + 'n {
            let root = root.to_owned();
            map.keys().map(move |name| format!("{root}.{name}"))
        }
        self.names = under("vars", &self.variables)
            .chain(under("env", &self.environment))
            .chain(under("git", &self.git))
            .chain(under("gpu", &self.gpu))
            .collect();
        self.values = minijinja::context! {
            vars => Dynamic::from(Serde(&self.variables)),
            env => Dynamic::from(Serde(&self.environment)),
            git => Dynamic::from(Serde(&self.git)),
            gpu => Dynamic::from(Serde(&self.gpu)),
        };
    }

    pub(crate) fn values(&self) -> Dynamic {
        self.values.clone()
    }

    /// All names such as `vars.lr`.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Whether a dotted name, or the start of it, is defined.
    pub(crate) fn knows(&self, name: &str) -> bool {
        let mut steps = name.splitn(3, '.');
        match (steps.next(), steps.next()) {
            (Some("vars" | "env" | "git" | "gpu"), None) => true,
            (Some(root), Some(step)) => self.names.contains(&format!("{root}.{step}")),
            _ => false,
        }
    }

    /// A problem when an expression asks for a variable that is set but not on the list.
    pub(crate) fn hidden(&self, names: &[String]) -> Option<Problem> {
        let asked = names.iter().filter_map(|name| name.strip_prefix("env."));
        let name = asked.map(|name| name.split('.').next().unwrap_or(name));
        let name = name.into_iter().find(|name| self.hidden.contains(*name))?;
        let message =
            format!("the environment variable `{name}` is not one that a recipe may read");
        let known = format!("{}, {}*", ALLOWED.join(", "), ALLOWED_PREFIXES.join("*, "));
        let help = format!(
            "hand it in with --var, which is recorded: --var x=\"${name}\"; allowed: {known}"
        );
        Some(Problem::error("template::environment", message).help(help))
    }

    /// The same advice for a file that is all template, which has no `vars:` of its own to see.
    pub(crate) fn advice_for_file(advice: String) -> String {
        if advice == OF_VARIABLES { "give it with --var name=value".to_owned() } else { advice }
    }

    /// What to do about a name that is not there.
    pub(crate) fn advice(name: &str) -> String {
        match name.split('.').next() {
            Some("vars") => OF_VARIABLES.to_owned(),
            Some("env") => "the environment variable is not set; `| default(…)` helps".to_owned(),
            Some("git") => "this recipe is in no git checkout, or git has no such fact".to_owned(),
            Some("gpu") => "gpu has count, name and memory, where a GPU was found".to_owned(),
            _ => "expressions see vars, env, git and gpu".to_owned(),
        }
    }
}

/// The value that `--var name=text` stands for: a word as YAML reads it.
pub(crate) fn variable(text: &str) -> Value {
    scalar::plain(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// Whether a `--var` is used by a template that names its variables as given.
pub(crate) fn is_declared(name: &str, used: &BTreeSet<String>) -> bool {
    let dotted = format!("vars.{name}");
    let inside = format!("{dotted}.");
    used.contains("vars") || used.iter().any(|used| *used == dotted || used.starts_with(&inside))
}

fn git(git: &crate::recipe::Git) -> BTreeMap<String, Value> {
    let short: String = git.commit.chars().take(8).collect();
    let mut facts = BTreeMap::from([
        ("commit".to_owned(), Value::from(git.commit.clone())),
        ("short".to_owned(), Value::from(short)),
        ("dirty".to_owned(), Value::from(git.dirty)),
    ]);
    facts.extend(git.branch.clone().map(|branch| ("branch".to_owned(), Value::from(branch))));
    facts
}

fn gpu(gpus: &crate::recipe::Gpus) -> BTreeMap<String, Value> {
    let mut facts = BTreeMap::from([("count".to_owned(), Value::from(gpus.count))]);
    facts.extend(gpus.name.clone().map(|name| ("name".to_owned(), Value::from(name))));
    facts.extend(gpus.memory.map(|memory| ("memory".to_owned(), Value::from(memory))));
    facts
}

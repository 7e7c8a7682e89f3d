//! Why a stage runs: what differs from the run before, old to new, and where the new was written.

use crate::artifacts::{LockedInput, LockedStage};
use crate::base::digest::Digest;
use crate::plan::{Source, Stage, fingerprint};
use crate::spec::optimization::Degrees;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One reason to run a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// No earlier run knew the stage.
    New,
    /// A setting differs.
    Setting(Change),
    /// An input from outside, or from another stage than before, differs.
    Input {
        /// The input's name.
        input: String,
        /// What it was; none when it is new.
        old: Option<InputState>,
        /// What it is; none when it is gone.
        new: Option<InputState>,
    },
    /// Stages it reads from run; should their outputs come out as before, this one is reused.
    Upstream {
        /// The stages.
        stages: Vec<String>,
    },
    /// The stage's kind was of another kind, or computed otherwise, in the version that ran before.
    Version {
        /// Kind and version before.
        old: String,
        /// Kind and version now.
        new: String,
    },
    /// It ran on another class of device.
    Backend {
        /// Before.
        old: String,
        /// Now.
        new: String,
    },
    /// Nothing differs, and the output is not in the cache.
    OutputMissing,
    /// The output in the cache was changed by someone.
    OutputDamaged {
        /// What is wrong with it.
        what: String,
    },
    /// An option asks for it.
    Forced {
        /// The option.
        option: &'static str,
    },
    /// Interrupted work of the same fingerprint is continued.
    Continues,
}

/// What an input is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InputState {
    /// `stage NAME` or `file PATH`.
    pub from: String,
    /// Hash of its content; none when it is not known or the file is missing.
    pub digest: Option<Digest>,
}

impl fmt::Display for InputState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.digest {
            Some(digest) => write!(formatter, "{} ({})", self.from, digest.short()),
            None => formatter.write_str(&self.from),
        }
    }
}

/// A setting that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Its path in the job, such as `model.optim.lr`; of the layout, the recipe's keys.
    pub path: String,
    /// Its value before; none when it was not there.
    pub old: Option<Value>,
    /// Its value now; none when it is gone.
    pub new: Option<Value>,
    /// Where the value was written, such as `recipes/a.yaml:34` or `override 1`.
    pub origin: Option<String>,
}

impl Reason {
    /// Whether only where the stage computes differs: its class of device, its parallel layout. That
    /// changes the rounding, not what is asked for.
    pub fn is_about_place(&self) -> bool {
        match self {
            Reason::Backend { .. } => true,
            Reason::Setting(change) => LAYOUT.iter().any(|(key, _)| change.path == *key),
            _ => false,
        }
    }
}

/// Everything in which `stage` differs from `old`; `outputs` holds the digests of finished stages.
pub fn differences(
    old: &LockedStage,
    stage: &Stage,
    outputs: &BTreeMap<String, Digest>,
) -> Vec<Reason> {
    compare(old, stage, &super::decide::known_inputs(stage, outputs))
}

/// Everything in which `stage` differs from `old`; `inputs` holds the digests that are known.
pub(super) fn compare(
    old: &LockedStage,
    stage: &Stage,
    inputs: &BTreeMap<String, Digest>,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let (was, is) = ((old.kind.as_str(), old.version), (stage.job.kind(), stage.job.version()));
    if was != is {
        let word = |(kind, version): (&str, u32)| format!("{kind} version {version}");
        reasons.push(Reason::Version { old: word(was), new: word(is) });
    }
    let backend = stage.backend.map(|backend| backend.name().to_owned());
    if old.backend != backend {
        let word = |name: &Option<String>| name.clone().unwrap_or_else(|| "none".to_owned());
        reasons.push(Reason::Backend { old: word(&old.backend), new: word(&backend) });
    }
    reasons.extend(changes(&old.settings, stage).into_iter().map(Reason::Setting));
    reasons.extend(input_changes(&old.inputs, stage, inputs));
    reasons
}

/// The recipe's keys of a job's layout, and its own.
const LAYOUT: [(&str, &str); 5] = [
    ("trainer.devices × num_nodes", "trainer.degrees.data"),
    ("model.tensor_model_parallel_size", "trainer.degrees.tensor"),
    ("model.pipeline_model_parallel_size", "trainer.degrees.pipeline"),
    ("model.virtual_pipeline_model_parallel_size", "trainer.degrees.virtual_pipeline"),
    ("model.sequence_parallel", "trainer.degrees.sequence"),
];

/// The layout of a job by the recipe's keys; a job that leaves it out has one rank.
fn layout(settings: &Value) -> impl Iterator<Item = (String, Value)> {
    let given = serde_json::from_value(settings["trainer"]["degrees"].clone());
    let degrees: Degrees = given.unwrap_or(Degrees::SINGLE);
    let values = [
        degrees.world_size().into(),
        degrees.tensor.into(),
        degrees.pipeline.into(),
        degrees.virtual_pipeline.into(),
        degrees.sequence.into(),
    ];
    LAYOUT.iter().zip(values).map(|((key, _), value)| ((*key).to_owned(), value))
}

fn changes(old: &Value, stage: &Stage) -> Vec<Change> {
    let new = fingerprint::settings(stage);
    let has_layout = [old, &new].iter().any(|job| job["trainer"]["degrees"].is_object());
    let named = |settings: &Value| {
        let mut found = leaves(settings);
        if has_layout {
            found.retain(|path, _| !path.starts_with("trainer.degrees."));
            found.extend(layout(settings));
        }
        found
    };
    let origin = |path: &String| {
        let own = LAYOUT.iter().find(|(key, _)| key == path).map(|(_, own)| *own);
        stage.origins.get(own.unwrap_or(path)).cloned()
    };
    let (old, new) = (named(old), named(&new));
    let paths: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let differs = paths.into_iter().filter(|path| old.get(*path) != new.get(*path));
    differs
        .map(|path| Change {
            path: path.clone(),
            old: old.get(path).cloned(),
            new: new.get(path).cloned(),
            origin: origin(path),
        })
        .collect()
}

/// Every value that is not a list or mapping with something in it, by its dotted path.
fn leaves(value: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    collect(value, "", &mut found);
    found
}

fn collect(value: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, item)| collect(item, &below(key), found));
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                collect(item, &below(&at.to_string()), found);
            }
        }
        leaf => {
            found.insert(path.to_owned(), leaf.clone());
        }
    }
}

fn input_changes(
    old: &BTreeMap<String, LockedInput>,
    stage: &Stage,
    inputs: &BTreeMap<String, Digest>,
) -> Vec<Reason> {
    let names: BTreeSet<_> = old.keys().chain(stage.inputs.keys()).collect();
    let mut reasons = Vec::new();
    for name in names {
        let (was, is) = (old.get(name), stage.inputs.get(name).map(Source::describe));
        let digest = inputs.get(name);
        let same_place = was.map(|was| &was.from) == is.as_ref();
        let same_content = was.map(|was| &was.digest) == digest;
        // A file that only moved is the same input, and the fingerprint does not see its name.
        if same_content || (same_place && digest.is_none()) {
            continue;
        }
        let old = was.map(|was| InputState { from: was.from.clone(), digest: Some(was.digest) });
        let new = is.map(|from| InputState { from, digest: digest.copied() });
        reasons.push(Reason::Input { input: name.clone(), old, new });
    }
    reasons
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |value: &Option<Value>| match value {
            Some(value) => shorten(&number(value).unwrap_or_else(|| value.to_string())),
            None => "(none)".to_owned(),
        };
        write!(formatter, "{}  {} → {}", self.path, word(&self.old), word(&self.new))?;
        match &self.origin {
            Some(origin) => write!(formatter, "  ({origin})"),
            None => Ok(()),
        }
    }
}

/// A small or large number as recipes write it: `6e-5`, not `0.00006`.
fn number(value: &Value) -> Option<String> {
    let number = value.as_f64().filter(|_| value.is_f64())?;
    let plain = number == 0.0 || (1e-4..1e15).contains(&number.abs());
    (!plain).then(|| format!("{number:e}"))
}

/// Long texts, such as prompts, are cut for the line.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 48;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    let start: String = text.chars().take(LONGEST).collect();
    // A text stays one that ends.
    format!("{start}…{}", if text.starts_with('"') { "\"" } else { "" })
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::New => formatter.write_str("not run before"),
            Reason::Setting(change) => change.fmt(formatter),
            Reason::Input { input, old: Some(old), new: Some(new) } if old.from == new.from => {
                let short = |state: &InputState| {
                    state.digest.map_or_else(|| "missing".to_owned(), |digest| digest.short())
                };
                let (from, old, new) = (&new.from, short(old), short(new));
                write!(formatter, "input {input}  {from} changed ({old} → {new})")
            }
            Reason::Input { input, old: Some(old), new: Some(new) } => {
                write!(formatter, "input {input}  {old} → {new}")
            }
            Reason::Input { input, old: Some(old), new: None } => {
                write!(formatter, "input {input} is gone: it was {old}")
            }
            Reason::Input { input, new, .. } => {
                let new = new.as_ref().map(ToString::to_string).unwrap_or_default();
                write!(formatter, "input {input} is new: {new}")
            }
            Reason::Upstream { stages } => {
                let names: Vec<_> = stages.iter().map(|name| format!("`{name}`")).collect();
                let verb = if names.len() == 1 { "runs" } else { "run" };
                write!(formatter, "reads from {}, which {verb}", names.join(" and "))
            }
            Reason::Version { old, new } => write!(formatter, "{old} → {new}"),
            Reason::Backend { old, new } => write!(formatter, "device  {old} → {new}"),
            Reason::OutputMissing => formatter.write_str("its output is not in the cache"),
            Reason::OutputDamaged { what } => {
                write!(formatter, "its output in the cache is damaged: {what}")
            }
            Reason::Forced { option } => write!(formatter, "asked for by {option}"),
            Reason::Continues => formatter.write_str("continues interrupted work"),
        }
    }
}

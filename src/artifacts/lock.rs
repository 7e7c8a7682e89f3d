//! The lock file: what a run used and made, as JSON that is the same for the same run.

use super::store::{Error, disk};
use crate::base::atomic_file;
use crate::base::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

/// Version of the lock file. 1: the first. 2: what stages reported, and traces of trainings.
pub const VERSION: u32 = 2;

/// Entries of the environment that no number depends on: sums have the order of the shapes, however
/// many threads there are.
const WITHOUT_EFFECT: [&str; 2] = ["cores", "kernel"];

/// What a run used and made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// [`VERSION`].
    pub version: u32,
    /// Where it ran, in the words of the caller: program version, machine, devices.
    pub environment: BTreeMap<String, String>,
    /// The stages by name.
    pub stages: BTreeMap<String, LockedStage>,
}

/// What a stage used and made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedStage {
    /// Its kind.
    pub kind: String,
    /// Version of the kind's computation and output.
    pub version: u32,
    /// Class of device it computes on, when that can change the result.
    pub backend: Option<String>,
    /// Its name in the store.
    pub fingerprint: Digest,
    /// Its settings.
    pub settings: Value,
    /// Its inputs by name.
    pub inputs: BTreeMap<String, LockedInput>,
    /// Digest of its output.
    pub output: Digest,
    /// Numbers that it reported.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, f64>,
    /// The bits of every step, for a train stage (see [`crate::base::step_trace::to_text`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trace: BTreeMap<String, String>,
}

/// What an input was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedInput {
    /// `stage NAME`, or `file PATH` as the recipe writes it.
    pub from: String,
    /// Digest of the content.
    pub digest: Digest,
}

impl LockedInput {
    /// Whether it is a file from outside rather than a stage's output.
    pub fn is_outside(&self) -> bool {
        self.from.starts_with("file ")
    }
}

/// How a finished run stands to the lock file that lay there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There was none.
    New,
    /// Nothing differs.
    Same,
    /// The recipe and the inputs are the same and the environment is another.
    OtherEnvironment {
        /// What differs, each `key: old → new`.
        environment: Vec<String>,
        /// Stages whose output came out differently there.
        outputs: Vec<String>,
    },
    /// The same was asked for in the same environment, and these stages' outputs differ.
    NotReproduced(Vec<String>),
    /// Something else was asked for: these stages' settings or inputs differ.
    Changed(Vec<String>),
}

impl Lock {
    /// Reads the lock file at `path`; none when there is none.
    pub fn read(path: &Path) -> Result<Option<Lock>, Error> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => disk(other, "read", path)?,
        };
        let unreadable =
            |error: String| Error::Unreadable { what: "lock file", path: path.to_owned(), error };
        let lock: Lock =
            serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
        // Version 1 says less and nothing else.
        if !(1..=VERSION).contains(&lock.version) {
            return Err(unreadable(format!("its version is {}, not {VERSION}", lock.version)));
        }
        Ok(Some(lock))
    }

    /// Writes the lock file: keys sorted, one value a line.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        disk(atomic_file::write(path, self.text().as_bytes()), "write", path)
    }

    /// The text of the lock file.
    pub fn text(&self) -> String {
        // A tree of strings, numbers and maps with string keys always has a JSON form.
        let value = serde_json::to_value(self).map(sorted).unwrap_or_default();
        format!("{value:#}\n")
    }

    /// How this finished run stands to `old`.
    pub fn standing(&self, old: Option<&Lock>) -> Standing {
        let Some(old) = old else { return Standing::New };
        let changed = self.differing(old, |stage| stage.map(LockedStage::asked));
        if !changed.is_empty() {
            return Standing::Changed(changed);
        }
        let outputs = self.differing(old, |stage| stage.map(|stage| stage.output));
        let environment = old.other_environment(&self.environment);
        match (environment.is_empty(), outputs.is_empty()) {
            (true, true) => Standing::Same,
            (true, false) => Standing::NotReproduced(outputs),
            (false, _) => Standing::OtherEnvironment { environment, outputs },
        }
    }

    /// What in `environment` differs from this lock's and can change numbers, each `key: old → new`.
    pub fn other_environment(&self, environment: &BTreeMap<String, String>) -> Vec<String> {
        let matters = |map: &BTreeMap<String, String>| -> BTreeMap<String, String> {
            let entries = map.iter().filter(|(key, _)| !WITHOUT_EFFECT.contains(&key.as_str()));
            entries.map(|(key, word)| (key.clone(), word.clone())).collect()
        };
        differences(&matters(&self.environment), &matters(environment))
    }

    /// Names of the stages of which `view` shows something else here than in `old`.
    fn differing<'a, T: PartialEq>(
        &'a self,
        old: &'a Lock,
        view: impl Fn(Option<&'a LockedStage>) -> T,
    ) -> Vec<String> {
        let names: BTreeSet<_> = self.stages.keys().chain(old.stages.keys()).collect();
        let differs =
            |name: &&&String| view(self.stages.get(**name)) != view(old.stages.get(**name));
        names.iter().filter(differs).map(|name| (*name).clone()).collect()
    }
}

impl LockedStage {
    /// What was asked for, apart from what earlier stages made of it.
    fn asked(&self) -> impl PartialEq + use<'_> {
        let inputs: Vec<_> = self
            .inputs
            .iter()
            .map(|(name, input)| (name, &input.from, input.is_outside().then_some(input.digest)))
            .collect();
        (&self.kind, self.version, &self.backend, &self.settings, inputs)
    }
}

/// `key: old → new` for every key that differs.
fn differences(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let word = |map: &BTreeMap<String, String>, key: &str| {
        map.get(key).cloned().unwrap_or_else(|| "(none)".to_owned())
    };
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| format!("{key}: {} → {}", word(old, key), word(new, key)))
        .collect()
}

/// The same value with the keys of every map in order, whatever order the map keeps.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Object(map) => {
            let entries: BTreeMap<String, Value> = map.into_iter().collect();
            Value::Object(entries.into_iter().map(|(key, item)| (key, sorted(item))).collect())
        }
        scalar => scalar,
    }
}

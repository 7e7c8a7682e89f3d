//! What a run would do, stage by stage with reasons, without doing it.

use super::decide::{Decided, Decision, Previous, decide, known_inputs};
use super::scope::Scope;
use super::{Error, Settings};
use crate::artifacts::Artifact;
use crate::base::digest::Digest;
use crate::plan::header::bytes;
use crate::plan::{Header, Missing, Plan, Source};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// What a run would do; the display form is what `plan` prints, the JSON form is for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Preview {
    /// The recipe's name.
    pub recipe: String,
    /// Layout, size and length of each training.
    pub trainings: Vec<Header>,
    /// The stages in execution order.
    pub stages: Vec<StagePreview>,
    /// What a run would lack.
    pub missing: Vec<Missing>,
}

/// What would happen to one stage.
#[derive(Clone, Debug, Serialize)]
pub struct StagePreview {
    /// Its name.
    pub stage: String,
    /// Its kind.
    pub kind: &'static str,
    /// Reuse or run, and why.
    #[serde(flatten)]
    pub decision: Decision,
    /// Its fingerprint; none while an input is not known.
    pub fingerprint: Option<Digest>,
    /// Its fingerprint in the run before.
    pub previous: Option<Digest>,
    /// Bytes of its output, when it is reused.
    pub bytes: Option<u64>,
}

impl Preview {
    /// Whether a run would do nothing.
    pub fn is_up_to_date(&self) -> bool {
        self.missing.is_empty() && self.stages.iter().all(|stage| !stage.decision.runs())
    }

    /// Whether the stage called `name` runs.
    pub fn runs(&self, name: &str) -> bool {
        self.stages.iter().any(|stage| stage.stage == name && stage.decision.runs())
    }
}

/// Works out what [`super::run`] would do now.
pub fn preview(plan: &Plan, settings: &Settings<'_>) -> Result<Preview, Error> {
    let scope = Scope::new(plan, settings)?;
    let previous = Previous::read(settings.store, settings.lock)?;
    let mut outputs: BTreeMap<String, Digest> = BTreeMap::new();
    let mut stages = Vec::new();
    let mut sequences: BTreeMap<String, u64> = BTreeMap::new();
    for stage in scope.stages {
        let inputs = known_inputs(stage, &outputs);
        let forced = scope.forced.get(&stage.name).copied();
        let Decided { decision, fingerprint, artifact } =
            decide(stage, &inputs, settings.store, &previous, forced);
        if let Some(artifact) = &artifact {
            outputs.insert(stage.name.clone(), artifact.record.output);
            sequences.extend(training_sequences(artifact).map(|count| (stage.name.clone(), count)));
        }
        stages.push(StagePreview {
            stage: stage.name.clone(),
            kind: stage.job.kind(),
            decision,
            fingerprint,
            previous: previous.stage(&stage.name).map(|before| before.fingerprint),
            bytes: artifact.map(|artifact| artifact.record.size()),
        });
    }
    settings.store.save()?;
    let (recipe, missing) = (plan.name().to_owned(), plan.missing().to_vec());
    let trainings = plan.headers().iter().map(|header| {
        let data = plan.stage(&header.stage).and_then(|stage| stage.inputs.get("data"));
        let known = match data {
            Some(Source::Stage(data)) => sequences.get(data).copied(),
            _ => None,
        };
        Header { sequences: known, ..header.clone() }
    });
    Ok(Preview { recipe, trainings: trainings.collect(), stages, missing })
}

/// How many training sequences a shard stage reported.
#[expect(clippy::cast_sign_loss, reason = "a count")]
fn training_sequences(artifact: &Artifact) -> Option<u64> {
    artifact.record.facts.get("train_sequences").map(|count| *count as u64)
}

impl fmt::Display for Preview {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "recipe {}", self.recipe)?;
        for training in &self.trainings {
            let named = self.trainings.len() > 1;
            let name = if named { format!("{}: ", training.stage) } else { String::new() };
            writeln!(formatter, "  {name}{}", training.to_string().replace('\n', "\n  "))?;
        }
        let widest = |width: &dyn Fn(&StagePreview) -> usize| self.stages.iter().map(width).max();
        let names = widest(&|stage| stage.stage.chars().count()).unwrap_or_default();
        let hashes = widest(&|stage| stage.hashes().chars().count()).unwrap_or_default();
        for stage in &self.stages {
            stage.write(formatter, names, hashes)?;
        }
        for missing in &self.missing {
            writeln!(formatter, "  ! {missing}")?;
        }
        let runs = self.stages.iter().filter(|stage| stage.decision.runs()).count();
        let reused = self.stages.len() - runs;
        match runs {
            0 => write!(formatter, "  up to date: nothing to run, {reused} in the cache"),
            _ => write!(formatter, "  {runs} to run, {reused} in the cache"),
        }
    }
}

impl StagePreview {
    /// The fingerprint, with the one before when it is another; `?` while it is not known.
    fn hashes(&self) -> String {
        let short = |digest: Option<Digest>| digest.map_or("?".to_owned(), |digest| digest.short());
        let new = short(self.fingerprint);
        match self.previous {
            Some(old) if self.decision.runs() && Some(old) != self.fingerprint => {
                format!("{} → {new}", old.short())
            }
            _ => new,
        }
    }

    fn write(
        &self,
        formatter: &mut fmt::Formatter<'_>,
        names: usize,
        hashes: usize,
    ) -> fmt::Result {
        let (mark, word, texts) = match &self.decision {
            Decision::UpToDate => ('✓', "up to date", vec![bytes(self.bytes.unwrap_or(0))]),
            Decision::Restore => ('✓', "restored", vec![bytes(self.bytes.unwrap_or(0))]),
            Decision::Run(reasons) => {
                ('●', "run", reasons.iter().map(ToString::to_string).collect())
            }
        };
        let (name, hash) = (&self.stage, self.hashes());
        for (at, text) in texts.iter().enumerate() {
            match at {
                0 => writeln!(
                    formatter,
                    "  {mark} {name:names$}  {word:10}  {hash:hashes$}  {text}"
                )?,
                _ => writeln!(formatter, "    {:names$}  {:10}  {:hashes$}  {text}", "", "", "")?,
            }
        }
        Ok(())
    }
}

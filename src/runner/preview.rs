//! What a run would do, stage by stage with reasons, without doing it.

use super::decide::{Decided, Decision, Previous, decide, known_inputs};
use super::scope::Scope;
use super::{Error, Settings};
use crate::base::digest::Digest;
use crate::plan::{Header, Missing, Plan};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// What a run would do; the display form is what `plan` prints, the JSON form is for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Preview {
    /// The recipe's name.
    pub recipe: String,
    /// Layout, size and length of the training.
    pub header: Option<Header>,
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
    for stage in scope.stages {
        let inputs = known_inputs(stage, &outputs);
        let forced = scope.forced.get(&stage.name).copied();
        let Decided { decision, fingerprint, artifact } =
            decide(stage, &inputs, settings.store, &previous, forced);
        if let Some(artifact) = &artifact {
            outputs.insert(stage.name.clone(), artifact.record.output);
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
    let header = plan.header().cloned();
    let missing = plan.missing().to_vec();
    Ok(Preview { recipe: plan.name().to_owned(), header, stages, missing })
}

impl fmt::Display for Preview {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "recipe {}", self.recipe)?;
        if let Some(header) = &self.header {
            for line in header.to_string().lines() {
                writeln!(formatter, "  {line}")?;
            }
        }
        let width = self.stages.iter().map(|stage| stage.stage.chars().count()).max();
        for stage in &self.stages {
            stage.write(formatter, width.unwrap_or_default())?;
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
    fn write(&self, formatter: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        let name = &self.stage;
        let new = self.fingerprint.map_or_else(|| "?".to_owned(), |digest| digest.short());
        match &self.decision {
            Decision::UpToDate => writeln!(
                formatter,
                "  ✓ {name:width$}  up to date  {new}  {}",
                size(self.bytes.unwrap_or_default())
            ),
            Decision::Restore => writeln!(
                formatter,
                "  ✓ {name:width$}  restored    {new}  {}",
                size(self.bytes.unwrap_or_default())
            ),
            Decision::Run(reasons) => {
                let names = match self.previous.map(|digest| digest.short()) {
                    Some(old) if old != new => format!("{old} → {new}"),
                    _ => new,
                };
                let first = reasons.first().map(ToString::to_string).unwrap_or_default();
                writeln!(formatter, "  ● {name:width$}  run         {names}  {first}")?;
                for reason in reasons.iter().skip(1) {
                    writeln!(formatter, "    {:width$}              {reason}", "")?;
                }
                Ok(())
            }
        }
    }
}

/// Bytes with three digits and a unit.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", units[unit])
}

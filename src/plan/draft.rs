//! A plan that is not sealed yet: stages in any order, names not followed.

use super::stage::{Missing, Stage};
use super::{Around, Header, Plan, graph};
use crate::recipe::problem::Problem;
use std::path::PathBuf;

/// What [`Draft::seal`] makes a [`Plan`] of.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The recipe's name.
    pub name: String,
    /// The stages in the recipe's order.
    pub stages: Vec<Stage>,
    /// What a run would lack.
    pub missing: Vec<Missing>,
    /// Layout, size and length of each training.
    pub headers: Vec<Header>,
    /// Where people find what the run made.
    pub run_folder: PathBuf,
    /// Whether checkpoints are put there.
    pub keeps_checkpoints: bool,
    /// What the recipe asks for around its stages.
    pub around: Around,
}

impl Draft {
    /// Orders the stages and holds them to the rules of a graph; all problems at once.
    pub fn seal(self) -> Result<Plan, Vec<Problem>> {
        let mut problems: Vec<_> = self.stages.iter().filter_map(bad_name).collect();
        let (edges, unknown) = graph::edges(&self.stages);
        problems.extend(unknown);
        let order = graph::order(&self.stages, &edges).unwrap_or_else(|circles| {
            problems.extend(circles);
            Vec::new()
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let stages = order.into_iter().map(|at| self.stages[at].clone()).collect();
        Ok(Plan {
            name: self.name,
            stages,
            missing: self.missing,
            headers: self.headers,
            run_folder: self.run_folder,
            keeps_checkpoints: self.keeps_checkpoints,
            around: self.around,
        })
    }
}

/// Stage names become folder names.
fn bad_name(stage: &Stage) -> Option<Problem> {
    let fine = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let name = &stage.name;
    if name.chars().all(fine) && name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return None;
    }
    let path = crate::recipe::path::Path::default().key("stages").key(name);
    let message = format!("`{name}` cannot be a stage's name");
    let help = "use letters, digits, `-`, `_` and `.`, a letter or digit first";
    Some(Problem::error("plan::stage_name", message).about(path).help(help))
}

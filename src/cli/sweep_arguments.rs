//! The command line of `sweep`.

use super::arguments::RecipeOptions;
use crate::spec::recipe::sweep::{Mode, SamplerName};
use clap::Args;
use std::path::PathBuf;

/// `sweep`.
#[derive(Debug, Args)]
pub struct SweepArguments {
    /// The recipe
    #[arg(required_unless_present = "show")]
    pub recipe: Option<PathBuf>,
    /// What varies (KEY=A,B, 'KEY=range(0,3)', 'KEY=tag(log,interval(1e-5,1e-3))', 'zip(A=choice(1,2),B=choice(3,4))'), and changes that every trial has
    #[arg(value_name = "KEY=VALUES")]
    pub overrides: Vec<String>,
    /// A sweep file of trlx's
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How the values of a trial are chosen [default: grid, every combination]
    #[arg(long, value_parser = named::<SamplerName>, value_name = "grid|random|tpe")]
    pub sampler: Option<SamplerName>,
    /// Trials of random and tpe [default: 20]
    #[arg(long, value_name = "N")]
    pub trials: Option<usize>,
    /// Seed of random and tpe [default: 0]
    #[arg(long)]
    pub seed: Option<u64>,
    /// What is compared: `val_loss`, `best_val_loss`, `train_loss` (the mean over the last tenth of the logged steps), or STAGE.METRIC [default: `val_loss`]
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// Which end is best [default: min for losses, perplexity and length]
    #[arg(long, value_parser = named::<Mode>, value_name = "min|max")]
    pub mode: Option<Mode>,
    /// Stop trials early: one in N goes on at each rung
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    pub asha: Option<u64>,
    /// Trials at a time [default: what the GPUs or the cores allow]
    #[arg(long, value_name = "N")]
    pub parallel: Option<usize>,
    /// GPUs of each trial [default: the recipe's trainer.devices]
    #[arg(long, value_name = "N")]
    pub gpus_per_trial: Option<usize>,
    /// Stop all when one fails
    #[arg(long)]
    pub fail_fast: bool,
    /// Go on with the sweep in the output folder; what failed is tried again
    #[arg(long)]
    pub resume: bool,
    /// The sweep's folder [default: sweeps/NAME]
    #[arg(short, long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Show the sweep in this folder instead
    #[arg(long, value_name = "FOLDER", conflicts_with_all = [
        "recipe", "file", "sampler", "trials", "seed", "metric", "mode", "asha", "parallel",
        "gpus_per_trial", "fail_fast", "resume", "output",
    ])]
    pub show: Option<PathBuf>,
    /// Print the table as CSV
    #[arg(long)]
    pub csv: bool,
    /// What else is given to the recipe.
    #[command(flatten)]
    pub options: RecipeOptions,
}

/// A word of the recipe's vocabulary.
fn named<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

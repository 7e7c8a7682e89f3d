//! The command line of `verify`.

use super::arguments::RecipeArguments;
use clap::Args;
use std::path::PathBuf;

/// `verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Run only so many steps of each training (else `verify.steps` of the recipe, else all)
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Verify only these stages; what they read comes from the cache where it can
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub stages: Vec<String>,
    /// Go on after the first stage that differs
    #[arg(long)]
    pub all: bool,
    /// Run everything, show what differs and make it the lock
    #[arg(long, conflicts_with_all = ["steps", "stages"])]
    pub update: bool,
    /// Write the verdict as `JUnit` XML too
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

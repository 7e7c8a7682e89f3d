//! The recipe's `notify` section: programs that are told how a run ended.

use schemars::JsonSchema;
use serde::Deserialize;

/// Programs that are told how a run ended.
///
/// Each is a program and its arguments, run without a shell in the recipe's folder; it reads the
/// run's `summary.json` from stdin and finds `SFT_RUN_NAME`, `SFT_RUN_STATE` and `SFT_RUN_FOLDER` in
/// its environment. It has a minute; what it says on stderr is shown when it fails, and its failure
/// does not fail the run.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    /// After a run that did what it should.
    pub on_success: Option<Vec<String>>,
    /// After a run that failed or was interrupted.
    pub on_failure: Option<Vec<String>>,
}

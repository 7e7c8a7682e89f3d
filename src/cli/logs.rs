//! Log lines on stderr.

use super::arguments::{LogFormat, Output};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// Sets up logging for the process: `-v` levels, or the filter in `SFT_RUN_LOG`.
pub(super) fn start(output: &Output, environment: &BTreeMap<String, String>) {
    let level = match (output.quiet, output.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "sft_run=info,warn",
        (false, 2) => "sft_run=debug,info",
        (false, _) => "trace",
    };
    let filter = environment.get("SFT_RUN_LOG").map_or(level, String::as_str);
    let color = io::stderr().is_terminal() && !environment.contains_key("NO_COLOR");
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse_lossy(filter))
        .with_ansi(color)
        .with_writer(io::stderr);
    // Fails only when logging is set up already, as in tests that share a process.
    let _ = match output.log_format {
        LogFormat::Text => builder.without_time().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

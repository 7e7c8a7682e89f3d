//! Ctrl-C: the first lets the step finish and saves, the second ends at once.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Exit code after a second signal: 128 + SIGINT, as shells have it.
const ENDED: i32 = 130;

/// A flag that the first SIGINT or SIGTERM raises; the second ends the process.
pub(super) fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the shutdown looks at the flag before the second handler raises it.
        flag::register_conditional_shutdown(signal, ENDED, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

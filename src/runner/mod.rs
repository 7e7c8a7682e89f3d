//! Walks a plan: reuse or run, commit, report every decision as an event.

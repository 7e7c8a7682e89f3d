//! A finished stage beside what the lock says of it.

use super::finding::Finding;
use super::{METRIC_TOLERANCE, Tolerances};
use crate::artifacts::{Artifact, Found, LockedStage, Store};

/// In what `artifact`'s bytes differ from the lock's; `cache` may still hold the old output.
pub(super) fn bytes(old: &LockedStage, artifact: &Artifact, cache: &Store) -> Option<Finding> {
    let new = artifact.record.output;
    let file = || first_file(old, artifact, cache);
    (old.output != new).then(|| Finding::Output { old: old.output, new, file: file() })
}

/// The first file that differs from the old output's, where that is still in the cache.
fn first_file(old: &LockedStage, artifact: &Artifact, cache: &Store) -> Option<String> {
    let Found::Whole(before) = cache.find(&old.kind, old.fingerprint) else { return None };
    if before.record.output != old.output {
        return None;
    }
    let (was, is) = (before.record.files, &artifact.record.files);
    let differs = |name: &&String| {
        let digest = |files: &std::collections::BTreeMap<String, crate::artifacts::FileRecord>| {
            files.get(*name).map(|file| file.digest)
        };
        digest(&was) != digest(is) && !crate::artifacts::record::is_measured(name)
    };
    was.keys().chain(is.keys()).find(differs).cloned()
}

/// Metrics of an evaluation that lie outside their tolerance.
pub(super) fn metrics(
    old: &LockedStage,
    artifact: &Artifact,
    tolerances: Option<&Tolerances>,
) -> Vec<Finding> {
    let facts = &artifact.record.facts;
    let found = old.facts.iter().filter_map(|(name, old)| {
        let new = facts.get(name).copied().unwrap_or(f64::NAN);
        let tolerance = tolerances.map(|all| all.of(name, METRIC_TOLERANCE));
        let fits = match tolerance {
            None => old.to_bits() == new.to_bits(),
            Some(tolerance) => (new - old).abs() <= tolerance,
        };
        (!fits).then(|| Finding::Metric { name: name.clone(), old: *old, new, tolerance })
    });
    found.collect()
}

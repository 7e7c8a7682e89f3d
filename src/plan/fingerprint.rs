//! The hash that names a stage's output: what decides it, and nothing else.

use super::stage::Stage;
use crate::base::canonical_json;
use crate::base::digest::Digest;
use crate::spec::job::Job;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Version of this struct's content. 1: the first.
const FORMAT: u32 = 1;

/// Everything that decides a stage's output. The job goes in whole, so that a setting that is added
/// to `spec::job` cannot be forgotten here.
#[derive(Debug, Serialize)]
struct Fingerprint<'a> {
    format: u32,
    kind: &'a str,
    version: u32,
    backend: Option<&'a str>,
    job: Value,
    inputs: &'a BTreeMap<String, Digest>,
}

/// The fingerprint of `stage` when its inputs have these hashes.
///
/// It takes the hashes of what the inputs are, not of how they were made: a stage whose inputs come
/// out the same is not run again.
pub fn of(stage: &Stage, inputs: &BTreeMap<String, Digest>) -> Digest {
    of_version(stage, inputs, stage.job.version())
}

fn of_version(stage: &Stage, inputs: &BTreeMap<String, Digest>, version: u32) -> Digest {
    let fingerprint = Fingerprint {
        format: FORMAT,
        kind: stage.job.kind(),
        version,
        backend: stage.backend.map(super::Backend::name),
        job: settings(stage),
        inputs,
    };
    Digest::of_bytes(canonical_json::to_string(&to_value(&fingerprint)).as_bytes())
}

/// The job's settings without the name of its kind, and without those that decide nothing of what
/// comes out ([`TrainJob::decisive`](crate::spec::job::TrainJob::decisive)).
pub fn settings(stage: &Stage) -> Value {
    match &stage.job {
        Job::Train(job) => return job.decisive(),
        Job::Shard(job) => return job.decisive(),
        _ => {}
    }
    match to_value(&stage.job) {
        Value::Object(map) => map.into_iter().next().map(|(_, job)| job).unwrap_or_default(),
        other => other,
    }
}

/// Jobs are maps with string keys, numbers and texts, which always have a JSON form.
fn to_value(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::job::{ShardJob, ShardModel, ShardStage};

    fn stage() -> Stage {
        let job = Job::Shard(ShardJob {
            model: ShardModel { encoder_seq_length: 8, seed: 1 },
            stage: ShardStage { packing: true },
        });
        Stage {
            name: "shard".to_owned(),
            job,
            inputs: BTreeMap::new(),
            backend: None,
            origins: BTreeMap::new(),
        }
    }

    #[test]
    fn the_kinds_version_is_part_of_it_and_the_stages_name_is_not() {
        let (inputs, first) = (BTreeMap::new(), stage());
        assert_ne!(of_version(&first, &inputs, 1), of_version(&first, &inputs, 2));
        let renamed = Stage { name: "other".to_owned(), ..stage() };
        assert_eq!(of(&first, &inputs), of(&renamed, &inputs));
    }

    #[test]
    fn a_job_has_a_json_form() {
        assert_eq!(
            canonical_json::to_string(&settings(&stage())),
            r#"{"model":{"encoder_seq_length":8,"seed":1},"stage":{"packing":true}}"#
        );
    }
}

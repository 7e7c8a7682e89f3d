//! The recipe's `sweep` section: what is tried, in which order, and what is best.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;

/// What `sft-run sweep` tries.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// Values by dotted key: a list of them, or Hydra's grammar as text (`range(0,3)`,
    /// `tag(log,interval(1e-5,1e-3))`). `vars.NAME` sets a variable of the recipe's templates.
    pub parameters: Option<Parameters>,
    /// How the values of a trial are chosen. Default: grid, every combination.
    pub sampler: Option<SamplerName>,
    /// Number of trials, for random and tpe. Default: 20.
    #[schemars(range(min = 1))]
    pub trials: Option<usize>,
    /// Seed of random and tpe. Default: 0.
    pub seed: Option<u64>,
    /// What is compared: `val_loss`, `train_loss`, or a metric of an evaluate stage, such as
    /// `evaluate.exact_match`. Default: `val_loss`.
    pub metric: Option<String>,
    /// Which end is best. Default: min for losses, perplexity and length, else max.
    pub mode: Option<Mode>,
    /// Stop trials early (ASHA): of the trials that reach a rung, one in so many goes on.
    #[schemars(range(min = 2))]
    pub asha: Option<u64>,
}

/// How the values of a trial are chosen.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SamplerName {
    /// Every combination.
    #[default]
    Grid,
    /// Each value by chance.
    Random,
    /// A tree-structured Parzen estimator over the trials so far.
    Tpe,
}

/// Which end of a metric is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Small numbers.
    Min,
    /// Large numbers.
    Max,
}

/// Values by dotted key, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters(pub Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Parameters;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a mapping of values by dotted key")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                let entries = std::iter::from_fn(|| map.next_entry().transpose());
                entries.collect::<Result<_, _>>().map(Parameters)
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl JsonSchema for Parameters {
    fn schema_name() -> Cow<'static, str> {
        "Parameters".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "Values by dotted key.",
            "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "array"}]}
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

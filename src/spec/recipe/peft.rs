//! The recipe's `model.peft` section: parameter-efficient fine-tuning by NeMo's keys.

use super::union::FreeForm;
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameter-efficient fine-tuning.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Peft {
    /// `lora`, `adapter`, `ia3`, `ptuning`, …; null trains all parameters.
    pub peft_scheme: Option<String>,
    /// Trained adapters to start from.
    pub restore_from_path: Option<String>,
    /// Settings of LoRA.
    pub lora_tuning: Option<FreeForm>,
    /// Settings of adapters.
    pub adapter_tuning: Option<FreeForm>,
    /// Settings of p-tuning.
    pub p_tuning: Option<FreeForm>,
    /// Settings of IA3.
    pub ia3_tuning: Option<FreeForm>,
    /// Settings of training some parameters only.
    pub selective_tuning: Option<FreeForm>,
}

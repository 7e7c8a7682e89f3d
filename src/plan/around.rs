//! What a recipe asks for around its stages: verification, loggers, who is told.

use crate::recipe::CheckedRecipe;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a recipe asks for around its stages.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Around {
    /// `verify`.
    pub verification: Verification,
    /// Whether TensorBoard files are written (`exp_manager.create_tensorboard_logger`).
    pub tensorboard: bool,
    /// `notify`.
    pub notification: Notification,
    /// `sweep`, in the recipe's words.
    pub sweep: String,
}

/// What a verification compares.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verification {
    /// Steps of each training; none for all.
    pub steps: Option<u64>,
    /// How far numbers may lie apart in another environment, by name.
    pub tolerances: BTreeMap<String, f64>,
}

/// The programs that are told how a run ended, each as its words; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Notification {
    /// After a run that did what it should.
    pub on_success: Vec<String>,
    /// After one that failed or was interrupted.
    pub on_failure: Vec<String>,
}

impl Around {
    pub(super) fn of(checked: &CheckedRecipe) -> Around {
        let recipe = checked.recipe();
        let verify = recipe.verify.clone().unwrap_or_default();
        Around {
            sweep: recipe.sweep.as_ref().map(|sweep| format!("{sweep:?}")).unwrap_or_default(),
            verification: Verification {
                steps: verify.steps,
                tolerances: verify.tolerances.unwrap_or_default(),
            },
            tensorboard: recipe.exp_manager.create_tensorboard_logger.unwrap_or(false),
            notification: Notification::of(checked),
        }
    }
}

impl Notification {
    /// What `checked` asks for; it can be known before there is a plan.
    pub fn of(checked: &CheckedRecipe) -> Notification {
        let notify = checked.recipe().notify.clone().unwrap_or_default();
        Notification {
            on_success: notify.on_success.unwrap_or_default(),
            on_failure: notify.on_failure.unwrap_or_default(),
        }
    }
}

//! Rules of what stands around the stages: `verify`, `notify`.

use crate::recipe::findings::{Findings, number};
use crate::recipe::path::Path;
use crate::spec::recipe::Recipe;

pub(super) fn check(recipe: &Recipe, findings: &mut Findings) {
    if let Some(verify) = &recipe.verify {
        let tolerances = verify.tolerances.iter().flatten();
        for (name, tolerance) in tolerances.filter(|(_, one)| !(one.is_finite() && **one >= 0.0)) {
            findings
                .error(
                    "recipe::tolerance",
                    Path::from("verify.tolerances").key(name),
                    number(*tolerance),
                    format!("a tolerance is 0 or more, and that of `{name}` is {tolerance}"),
                )
                .help("0 asks for equal numbers; 1e-4 allows the fourth digit to differ");
        }
    }
    if let Some(notify) = &recipe.notify {
        for (name, words) in
            [("on_success", &notify.on_success), ("on_failure", &notify.on_failure)]
        {
            if words.as_ref().is_some_and(|words| words.first().is_none_or(String::is_empty)) {
                findings
                    .error(
                        "recipe::empty_command",
                        Path::from("notify").key(name),
                        "names no program",
                        format!("`notify.{name}` names no program"),
                    )
                    .help("write the program and its arguments: [python3, tell.py]");
            }
        }
    }
}

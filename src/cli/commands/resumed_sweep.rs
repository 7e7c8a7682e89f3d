//! A sweep that is to go on and is another one than was begun: what differs.

use crate::sweep::{Domain, Header, Space};
use serde_json::{Value, json};

/// What differs between two sweeps, in the words of the command line.
pub(super) fn differences(before: &Header, now: &Header) -> Vec<String> {
    let [old, new] = [before, now].map(|header| json!(header));
    let word = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => format!("`{text}`"),
        other => other.to_string(),
    };
    let mut told = Vec::new();
    for (key, what) in [
        ("recipe", "the recipe"),
        ("metric", "--metric"),
        ("sampler", "--sampler"),
        ("trials", "--trials"),
        ("seed", "--seed"),
        ("asha", "--asha"),
    ] {
        if old[key] != new[key] {
            told.push(format!("{what} was {}, now {}", word(&old[key]), word(&new[key])));
        }
    }
    if before.metric == now.metric && before.small_is_best != now.small_is_best {
        let mode = |header: &Header| if header.small_is_best { "min" } else { "max" };
        told.push(format!("--mode was {}, now {}", mode(before), mode(now)));
    }
    if before.space != now.space {
        told.push(format!(
            "what is tried was {}, now {}",
            word(&keys(&before.space).into()),
            word(&keys(&now.space).into())
        ));
    }
    if before.resolved != now.resolved || before.rungs != now.rungs && before.asha == now.asha {
        told.push("the recipe's values are other ones".to_owned());
    }
    if told.is_empty() {
        told.push("an earlier version of this program began it".to_owned());
    }
    told
}

/// `model.optim.lr, model.seed (12 values)`: the keys and how many values are listed for them.
fn keys(space: &Space) -> String {
    let listed = space.axes.iter().map(|axis| {
        let names = axis.names().join("+");
        match &axis.domain {
            Domain::Choice(values) => format!("{names} ({} values)", values.len()),
            _ => names,
        }
    });
    listed.chain(space.fixed.iter().cloned()).collect::<Vec<_>>().join(", ")
}

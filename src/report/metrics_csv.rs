//! `metrics.csv`: the lines of `metrics.jsonl` as a table that spreadsheets open.

use super::metrics_jsonl::{self, Line};
use crate::base::atomic_file;
use serde_json::Value;
use std::io;
use std::path::Path;

/// The file's name in the run folder.
pub const FILE: &str = "metrics.csv";

/// Writes the table of `metrics.jsonl` in `run_folder`; none is written where there are no metrics.
pub fn write(run_folder: &Path) -> io::Result<()> {
    let Ok(lines) = metrics_jsonl::read(&run_folder.join("metrics.jsonl")) else { return Ok(()) };
    if lines.is_empty() {
        return Ok(());
    }
    let rows = lines.iter().map(|(stage, line)| row(stage.as_deref(), line));
    let rows = rows.collect::<serde_json::Result<Vec<_>>>()?;
    atomic_file::write(&run_folder.join(FILE), table(&rows).as_bytes())
}

/// A line's values by name, its stage first when it has one.
pub fn row(stage: Option<&str>, line: &Line) -> serde_json::Result<Vec<(String, Value)>> {
    let value: Value = serde_json::from_str(&line.to_json(stage)?)?;
    Ok(value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect())
}

/// A column for every name: stage and step, then the others in the order in which they first come.
fn table(rows: &[Vec<(String, Value)>]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.sort_by_key(|name| match *name {
        "stage" => 0,
        "step" => 1,
        _ => 2,
    });
    let mut text = names.iter().map(|name| field(name)).collect::<Vec<_>>().join(",") + "\n";
    for row in rows {
        let cell = |name: &&str| {
            let value = row.iter().find(|(known, _)| known == name).map(|(_, value)| value);
            value.map_or(String::new(), |value| match value {
                Value::String(text) => field(text),
                Value::Null => String::new(),
                other => field(&other.to_string()),
            })
        };
        text += &(names.iter().map(cell).collect::<Vec<_>>().join(",") + "\n");
    }
    text
}

/// A field as RFC 4180 has it.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_name_is_a_column() {
        let row = |pairs: &[(&str, Value)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect::<Vec<_>>()
        };
        let rows = [
            row(&[("stage", json!("a, \"b\"")), ("step", json!(1)), ("lr", json!(0.1))]),
            row(&[("step", json!(2)), ("val_loss", json!(2.5))]),
        ];
        assert_eq!(table(&rows), "stage,step,lr,val_loss\n\"a, \"\"b\"\"\",1,0.1,\n,2,,2.5\n");
    }
}

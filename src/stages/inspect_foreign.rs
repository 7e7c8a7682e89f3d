//! What `inspect` says of another program's checkpoint.

use super::inspect::Inspected;
use crate::base::digest::Digest;
use crate::checkpoint::foreign::stored::Stored;
use crate::checkpoint::native::Error;
use crate::checkpoint::opened::{Opened, told};
use serde_json::Value;
use std::path::Path;

/// The facts and tensors of the checkpoint at `path`; none when it is of our own format.
pub(super) fn checkpoint(path: &Path) -> Result<Option<Inspected>, Error> {
    let opened = Opened::open(path, None)?;
    let Some(reader) = opened.foreign() else { return Ok(None) };
    let stored = reader.stored();
    let parameters: usize =
        opened.source().tensors().values().map(|facts| facts.shape.iter().product::<usize>()).sum();
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let mut facts =
        vec![fact("format", opened.format.to_string()), fact("parameters", parameters.to_string())];
    if let Some([tensor, pipeline]) = opened.layout {
        facts.push(fact("written by", format!("TP {tensor} × PP {pipeline}")));
    }
    let tokenizer = match &opened.tokenizer {
        Ok(Some(carried)) => format!("{:?}", carried.kind),
        Ok(None) => "none".to_owned(),
        Err(reason) => format!("not read: {reason}"),
    };
    facts.push(fact("tokenizer", tokenizer));
    if !reader.loose().is_empty() {
        facts.push(fact("does not fit", told(reader.loose())));
    }
    if let Ok(Value::Object(shape)) = serde_json::to_value(opened.architecture()) {
        facts.extend(
            shape.into_iter().map(|(name, value)| (name, value.to_string().replace('"', ""))),
        );
    }
    let row = |(name, tensor): (&String, &Stored)| {
        let shape: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
        let hash = tensor.contiguous().map(|bytes| Digest::of_bytes(bytes).short());
        vec![
            name.clone(),
            shape.join(" × "),
            tensor.numbers().to_string(),
            tensor.number.to_string(),
            hash.unwrap_or_else(|| "strided".to_owned()),
        ]
    };
    let header = ["tensor", "shape", "numbers", "format", "hash"].map(str::to_owned).to_vec();
    Ok(Some(Inspected {
        what: "checkpoint".to_owned(),
        path: path.to_owned(),
        facts,
        list: Some((header, stored.iter().map(row).collect())),
    }))
}

//! `config.json` of a Hugging Face sequence classifier: its family, shape and labels.

use crate::kernels::activation::Kind;
use serde_json::{Map, Value};

/// Which encoder it is built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// `distilbert`.
    DistilBert,
    /// `bert`.
    Bert,
    /// `roberta`.
    Roberta,
}

/// What its logits mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// One of the labels holds: softmax.
    OneOf,
    /// Each label holds or not: a sigmoid of its own.
    EachAlone,
}

/// A classifier's shape.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    pub(super) family: Family,
    pub(super) layers: usize,
    pub(super) heads: usize,
    /// Rows of the table of positions.
    pub(super) positions: usize,
    /// The first token's position in it.
    pub(super) first_position: usize,
    pub(super) epsilon: f64,
    pub(super) activation: Kind,
    /// Names of the labels, by number.
    pub(super) labels: Vec<String>,
    pub(super) problem: Problem,
}

impl Config {
    /// Reads the text of a `config.json`; else what is wrong with it.
    pub(super) fn read(text: &str) -> Result<Config, String> {
        let fields: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let size = |key: &str| {
            let number = fields.get(key).and_then(Value::as_u64).filter(|number| *number > 0);
            number
                .map(|number| number as usize)
                .ok_or_else(|| format!("`{key}` is no number above 0"))
        };
        let number =
            |key: &str, usual: f64| fields.get(key).and_then(Value::as_f64).unwrap_or(usual);
        let word = |key: &str| fields.get(key).and_then(Value::as_str);
        let family = match word("model_type") {
            Some("distilbert") => Family::DistilBert,
            Some("bert") => Family::Bert,
            Some("roberta") => Family::Roberta,
            other => {
                return Err(format!(
                    "model_type is {other:?}, and classifiers may be distilbert, bert and roberta"
                ));
            }
        };
        let distil = family == Family::DistilBert;
        let (layers, heads, activation) = if distil {
            ("n_layers", "n_heads", "activation")
        } else {
            ("num_hidden_layers", "num_attention_heads", "hidden_act")
        };
        let labels = labels(&fields);
        let alone = labels.len() == 1 || word("problem_type") == Some("multi_label_classification");
        // RoBERTa's positions begin after that of the padding token.
        let padding = number("pad_token_id", 1.0);
        #[expect(clippy::cast_sign_loss, reason = "a token's id")]
        let first_position = if family == Family::Roberta { padding as usize + 1 } else { 0 };
        Ok(Config {
            family,
            layers: size(layers)?,
            heads: size(heads)?,
            positions: size("max_position_embeddings")?,
            first_position,
            epsilon: if distil { 1e-12 } else { number("layer_norm_eps", 1e-12) },
            activation: activation_of(word(activation).unwrap_or("gelu"))?,
            labels,
            problem: if alone { Problem::EachAlone } else { Problem::OneOf },
        })
    }

    /// Most tokens of a text, special ones included.
    pub(super) fn longest(&self) -> usize {
        self.positions.saturating_sub(self.first_position)
    }

    /// The number of the label that is called `name` in any case; without a name the last one.
    pub(super) fn label(&self, name: Option<&str>) -> Result<usize, String> {
        let Some(name) = name else { return Ok(self.labels.len() - 1) };
        let found = self.labels.iter().position(|label| label.eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            format!("it has no label `{name}`: its labels are {}", self.labels.join(", "))
        })
    }
}

fn activation_of(name: &str) -> Result<Kind, String> {
    match name {
        "gelu" => Ok(Kind::GeluErf),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Kind::GeluTanh),
        "relu" => Ok(Kind::Relu),
        other => Err(format!("the activation `{other}` is not known: gelu, gelu_new and relu are")),
    }
}

/// `id2label`, else `num_labels` names as Transformers gives them, of which there are two by default.
fn labels(fields: &Map<String, Value>) -> Vec<String> {
    let count = fields.get("num_labels").and_then(Value::as_u64).unwrap_or(2).clamp(1, 1 << 16);
    let named = fields.get("id2label").and_then(Value::as_object).filter(|named| !named.is_empty());
    let count = named.map_or(count as usize, Map::len);
    let name = |number: usize| {
        let text = named.and_then(|named| named.get(&number.to_string())?.as_str());
        text.map_or_else(|| format!("LABEL_{number}"), str::to_owned)
    };
    (0..count).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_transformers_leaves_out_has_its_defaults() {
        let text = r#"{"model_type": "roberta", "num_hidden_layers": 1, "num_attention_heads": 2,
            "max_position_embeddings": 514, "layer_norm_eps": 1e-5, "pad_token_id": 1}"#;
        let config = Config::read(text).unwrap();
        assert_eq!(
            (config.longest(), config.labels.len(), config.activation),
            (512, 2, Kind::GeluErf)
        );
        assert_eq!((config.label(None), config.label(Some("label_0"))), (Ok(1), Ok(0)));
        assert!(config.label(Some("joy")).unwrap_err().contains("LABEL_0, LABEL_1"));
        assert!(Config::read(r#"{"model_type": "t5"}"#).unwrap_err().contains("distilbert"));
    }
}

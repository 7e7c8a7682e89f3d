//! Metrics as recipes write them: a name, or a mapping that makes a metric of one's own.

use crate::spec::metric::{Metric, MetricName};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};
use std::borrow::Cow;

/// One metric of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricChoice {
    /// One of ours.
    Named(MetricName),
    /// One of the recipe's.
    Own(Box<OwnMetric>),
}

/// A metric that the recipe makes, in one of five ways: `regex`, `expression`, `lexicon`,
/// `classifier`, `command`.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnMetric {
    /// Its name in tables and files.
    pub name: String,
    /// Share of generations in which this regular expression is found (Rust's syntax).
    pub regex: Option<String>,
    /// A minijinja expression over `prompt`, `expected` and `output`; its mean is the metric.
    pub expression: Option<String>,
    /// A file of lines `word TAB valence`: sentiment between -1 and 1.
    pub lexicon: Option<String>,
    /// A Hugging Face folder of a text classifier (`DistilBERT`, BERT, `RoBERTa`): the metric is the
    /// mean probability of a label.
    pub classifier: Option<String>,
    /// The classifier's label, such as `POSITIVE`. Default: its last one.
    pub label: Option<String>,
    /// Whether the classifier reads the prompt with the output. Default: false.
    pub with_prompt: Option<bool>,
    /// A program and its arguments: it reads a JSON object a line (`prompt`, `expected`, `output`)
    /// and writes a score a line. Words that name files beside the recipe are found there.
    pub command: Option<Vec<String>>,
    /// Longest wait for the program's next score, in seconds. Default: 120.
    #[schemars(range(min = 0))]
    pub timeout: Option<f64>,
}

impl OwnMetric {
    /// The ways in which it is made.
    pub fn ways(&self) -> Vec<&'static str> {
        let ways = [
            ("regex", self.regex.is_some()),
            ("expression", self.expression.is_some()),
            ("lexicon", self.lexicon.is_some()),
            ("classifier", self.classifier.is_some()),
            ("command", self.command.is_some()),
        ];
        ways.into_iter().filter(|(_, given)| *given).map(|(way, _)| way).collect()
    }
}

impl MetricChoice {
    /// The name in tables and files.
    pub fn name(&self) -> &str {
        match self {
            MetricChoice::Named(name) => name.name(),
            MetricChoice::Own(own) => &own.name,
        }
    }

    /// The metric with defaults filled in; none when it is made in no way.
    pub fn filled(&self) -> Option<Metric> {
        let own = match self {
            MetricChoice::Named(name) => return Some(Metric::Named(*name)),
            MetricChoice::Own(own) => own,
        };
        let name = own.name.clone();
        if let Some(regex) = own.regex.clone() {
            return Some(Metric::Regex { name, regex });
        }
        if let Some(expression) = own.expression.clone() {
            return Some(Metric::Expression { name, expression });
        }
        if own.lexicon.is_some() {
            return Some(Metric::Lexicon { name });
        }
        if own.classifier.is_some() {
            let (label, with_prompt) = (own.label.clone(), own.with_prompt.unwrap_or(false));
            return Some(Metric::Classifier { name, label, with_prompt });
        }
        let command = own.command.clone()?;
        Some(Metric::Program { name, command, timeout: own.timeout.unwrap_or(120.0) })
    }

    /// The files that it may read, named within the metric: `lexicon`, `classifier`, `command.M`. Words of a
    /// command are files only where they exist.
    pub fn files(&self) -> Vec<(String, &str)> {
        let MetricChoice::Own(own) = self else { return Vec::new() };
        let lexicon = own.lexicon.iter().map(|path| ("lexicon".to_owned(), path.as_str()));
        let classifier = own.classifier.iter();
        let classifier = classifier.map(|path| ("classifier".to_owned(), path.as_str()));
        let words = own.command.iter().flatten().enumerate();
        let words = words.filter(|(_, word)| may_name_a_file(word));
        let words = words.map(|(place, word)| (format!("command.{place}"), word.as_str()));
        lexicon.chain(classifier).chain(words).collect()
    }
}

/// No option, and no way through folders alone (`.`, `/`).
fn may_name_a_file(word: &str) -> bool {
    !word.starts_with('-') && std::path::Path::new(word).file_name().is_some()
}

impl<'de> Deserialize<'de> for MetricChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_yaml::Value::deserialize(deserializer)?;
        let parsed = if value.is_mapping() {
            serde_yaml::from_value(value).map(|own| MetricChoice::Own(Box::new(own)))
        } else {
            serde_yaml::from_value(value).map(MetricChoice::Named)
        };
        parsed.map_err(Error::custom)
    }
}

impl JsonSchema for MetricChoice {
    fn schema_name() -> Cow<'static, str> {
        "Metric".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> = MetricName::ALL.iter().map(|metric| metric.name()).collect();
        let own = OwnMetric::json_schema(generator);
        json_schema!({"anyOf": [{"type": "string", "enum": names}, own]})
    }

    fn inline_schema() -> bool {
        true
    }
}

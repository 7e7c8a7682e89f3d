//! The page's tables of metrics and of samples, stages side by side.

use crate::report::record::RunRecord;
use crate::spec::event::Sample;
use crate::spec::generation::StopReason;
use serde::Serialize;
use std::collections::BTreeMap;

/// Most rows of the table of samples.
const MAX_ROWS: usize = 200;

/// Metrics by evaluate stage.
#[derive(Debug, Serialize)]
pub(super) struct MetricsTable {
    pub(super) stages: Vec<String>,
    pub(super) rows: Vec<MetricRow>,
}

/// One metric over the stages.
#[derive(Debug, Serialize)]
pub(super) struct MetricRow {
    pub(super) name: String,
    pub(super) values: Vec<Option<f64>>,
    /// 95% intervals of the values.
    pub(super) intervals: Vec<Option<[f64; 2]>>,
    /// Whether it is a share, which a bar can show.
    pub(super) is_share: bool,
    /// Last value less the first, where both are there.
    pub(super) change: Option<f64>,
    /// Whether the change is for the better; none where neither direction is.
    pub(super) improved: Option<bool>,
}

impl MetricsTable {
    /// The metrics of every stage that has some.
    pub(super) fn of(record: &RunRecord) -> MetricsTable {
        let stages: Vec<_> =
            record.summary.stages.iter().filter(|stage| !stage.metrics.is_empty()).collect();
        let mut names: Vec<&String> =
            stages.iter().flat_map(|stage| stage.metrics.keys()).collect();
        names.sort();
        names.dedup();
        let row = |name: &String| {
            let values = stages.iter().map(|stage| stage.metrics.get(name).copied()).collect();
            let intervals = stages.iter().map(|stage| stage.intervals.get(name).copied());
            MetricRow::new(name, values, intervals.collect())
        };
        MetricsTable {
            rows: names.into_iter().map(row).collect(),
            stages: stages.iter().map(|stage| stage.name.clone()).collect(),
        }
    }
}

impl MetricRow {
    fn new(name: &str, values: Vec<Option<f64>>, intervals: Vec<Option<[f64; 2]>>) -> MetricRow {
        let change = match values.as_slice() {
            [Some(first), .., Some(last)] => Some(last - first),
            _ => None,
        };
        let improved = match name {
            "length" => None,
            "loss" | "perplexity" => change.map(|change| change < 0.0),
            _ if is_ours(name) => change.map(|change| change > 0.0),
            _ => None,
        };
        let shares = |value: &f64| (0.0..=1.0).contains(value);
        let is_share = !matches!(name, "length" | "loss" | "perplexity")
            && values.iter().flatten().all(shares);
        MetricRow { name: name.to_owned(), values, intervals, is_share, change, improved }
    }
}

/// Whether it is one of our metrics, of which more is better but where stated; of a recipe's own
/// nobody knows.
fn is_ours(name: &str) -> bool {
    crate::spec::metric::MetricName::ALL.iter().any(|metric| metric.name() == name)
}

/// Samples that have an expected answer: a row for each, a column for each stage.
#[derive(Debug, Serialize)]
pub(super) struct SampleTable {
    pub(super) stages: Vec<String>,
    pub(super) rows: Vec<SampleRow>,
    /// Rows that there are, of which `rows` are the first.
    pub(super) total: usize,
    /// Whether any answer is known to be right or wrong.
    pub(super) is_judged: bool,
}

/// One prompt and what each stage made of it.
#[derive(Debug, Serialize)]
pub(super) struct SampleRow {
    task: Option<String>,
    prompt: String,
    expected: String,
    outputs: Vec<Option<Output>>,
}

/// One stage's answer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Output {
    text: String,
    /// Whether it is the expected answer, where exact match or the accuracy of choices was asked for.
    hit: Option<bool>,
    scores: BTreeMap<String, f64>,
    stop_reason: StopReason,
}

impl SampleTable {
    /// The samples of `record`, in the order of their first appearance.
    pub(super) fn of(record: &RunRecord) -> SampleTable {
        let mut stages: Vec<&String> = Vec::new();
        let mut order: Vec<Key<'_>> = Vec::new();
        let mut answers: BTreeMap<Key<'_>, BTreeMap<&str, Output>> = BTreeMap::new();
        let mut seen: BTreeMap<(&str, Key<'_>), usize> = BTreeMap::new();
        for (stage, sample) in &record.samples {
            let Some(key) = Key::of(sample) else { continue };
            if !stages.contains(&stage) {
                stages.push(stage);
            }
            let count = seen.entry((stage, key)).or_default();
            let key = Key { number: *count, ..key };
            *count += 1;
            let known = answers.entry(key).or_insert_with(|| {
                order.push(key);
                BTreeMap::new()
            });
            known.insert(stage, Output::of(sample));
        }
        let row = |key: &Key<'_>| SampleRow {
            task: key.task.map(str::to_owned),
            prompt: key.prompt.trim().to_owned(),
            expected: key.expected.trim().to_owned(),
            outputs: stages.iter().map(|stage| answers[key].get(stage.as_str()).cloned()).collect(),
        };
        let rows: Vec<SampleRow> = order.iter().take(MAX_ROWS).map(row).collect();
        let mut outputs = rows.iter().flat_map(|row| row.outputs.iter().flatten());
        let is_judged = outputs.any(|output| output.hit.is_some());
        let stages = stages.into_iter().cloned().collect();
        SampleTable { stages, rows, total: order.len(), is_judged }
    }
}

/// What makes two stages' samples the same one: equal texts, and as many equal ones before it in its
/// stage. Rows of one stage are never the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    task: Option<&'a str>,
    prompt: &'a str,
    expected: &'a str,
    /// Equal ones before it in its stage.
    number: usize,
}

impl<'a> Key<'a> {
    fn of(sample: &'a Sample) -> Option<Key<'a>> {
        let expected = sample.expected.as_deref()?;
        Some(Key { task: sample.task.as_deref(), prompt: &sample.prompt, expected, number: 0 })
    }
}

impl Output {
    fn of(sample: &Sample) -> Output {
        let judged = ["exact_match", "acc"].into_iter().find_map(|name| sample.scores.get(name));
        let hit = judged.map(|score| *score >= 1.0);
        // The mark beside the text says that one already.
        let mut scores = sample.scores.clone();
        scores.remove("exact_match");
        Output {
            text: sample.output.trim().to_owned(),
            hit,
            scores,
            stop_reason: sample.stop_reason,
        }
    }
}

/// A text generated from a prompt that has no expected answer.
#[derive(Debug, Serialize)]
pub(super) struct FreeText {
    stage: String,
    prompt: String,
    output: String,
    tokens: usize,
    stop_reason: StopReason,
}

impl FreeText {
    /// Every such text of `record`, at most [`MAX_ROWS`].
    pub(super) fn all(record: &RunRecord) -> Vec<FreeText> {
        let free = record.samples.iter().filter(|(_, sample)| sample.expected.is_none());
        let text = |(stage, sample): &(String, Sample)| FreeText {
            stage: stage.clone(),
            prompt: sample.prompt.clone(),
            output: sample.output.clone(),
            tokens: sample.tokens,
            stop_reason: sample.stop_reason,
        };
        free.take(MAX_ROWS).map(text).collect()
    }
}

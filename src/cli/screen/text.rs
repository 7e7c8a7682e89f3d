//! The words of the screen: one line per event, in fixed columns.

use crate::cli::terminal::{Paint, Terminal};
use crate::plan::Plan;
use crate::report::numbers::{count, duration, one_line, quantity};
use crate::spec::event::{StepMetrics, ValidationMetrics};
use crate::spec::job::Job;
use std::collections::BTreeMap;

/// What the columns depend on, known before the run starts.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Width of the widest stage name.
    pub name_width: usize,
    /// Steps of each train stage.
    pub steps: BTreeMap<String, u64>,
    /// Steps between plain lines of training, where no bar is drawn.
    pub line_every: u64,
}

impl Layout {
    /// The columns for the stages of `plan`.
    pub fn of(plan: &Plan) -> Layout {
        let steps = plan.stages().iter().filter_map(|stage| match &stage.job {
            Job::Train(job) => Some((stage.name.clone(), job.trainer.max_steps)),
            _ => None,
        });
        let steps: BTreeMap<String, u64> = steps.collect();
        // Twenty lines tell how a training goes.
        let line_every = steps.values().max().map_or(1, |steps| (steps / 20).max(1));
        let names = plan.stages().iter().map(|stage| stage.name.chars().count());
        Layout { name_width: names.max().unwrap_or(0), steps, line_every }
    }

    /// The stage's name, filled up to its column.
    pub fn name(&self, stage: &str) -> String {
        format!("{stage:<width$}", width = self.name_width)
    }
}

/// `● train     why it runs`
pub(super) fn started(terminal: &Terminal, layout: &Layout, stage: &str, reason: &str) -> String {
    let reason = terminal.paint(Paint::Dim, &reasons(terminal, layout, reason));
    format!("{} {}  {reason}", terminal.paint(Paint::Cyan, "●"), layout.name(stage))
}

/// The reasons that fit beside a stage's name, each whole, and how many more there are: a part of a
/// number would be another number.
pub(super) fn reasons(terminal: &Terminal, layout: &Layout, text: &str) -> String {
    fitting(&text.replace('\n', "⏎"), terminal.width.saturating_sub(layout.name_width + 6))
}

fn fitting(text: &str, room: usize) -> String {
    let all = apart(text, "; ");
    let more = |left| if left == 0 { String::new() } else { format!("; and {left} more") };
    let mut shown = parts_fitting(all[0], room.saturating_sub(more(all.len() - 1).len()));
    for (at, one) in all.iter().enumerate().skip(1) {
        let (longer, left) = (format!("{shown}; {one}"), all.len() - at);
        if longer.chars().count() + more(left - 1).len() > room {
            return shown + &more(left);
        }
        shown = longer;
    }
    shown
}

/// What fits of one reason: its key, its values, where they were written.
fn parts_fitting(reason: &str, room: usize) -> String {
    let mut parts = apart(reason, "  ");
    while parts.len() > 1 && parts.join("  ").chars().count() > room {
        parts.pop();
    }
    parts.join("  ")
}

/// `text` cut at `separator`, where that stands in no quoted value.
fn apart<'t>(text: &'t str, separator: &str) -> Vec<&'t str> {
    let (mut parts, mut start, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, letter) in text.char_indices() {
        if !is_quoted && at >= start && text[at..].starts_with(separator) {
            parts.push(&text[start..at]);
            start = at + separator.len();
        }
        is_quoted ^= letter == '"' && !is_escaped;
        is_escaped = letter == '\\' && !is_escaped;
    }
    parts.push(&text[start..]);
    parts
}

/// `✓ load      reused 1a2b3c4d`
pub(super) fn reused(
    terminal: &Terminal,
    layout: &Layout,
    stage: &str,
    fingerprint: &str,
) -> String {
    let words = terminal.paint(Paint::Dim, &format!("reused  {fingerprint}"));
    format!("{} {}  {words}", terminal.paint(Paint::Green, "✓"), layout.name(stage))
}

/// `✓ train     2m 03s  last loss 1.83`
pub(super) fn finished(
    terminal: &Terminal,
    layout: &Layout,
    (stage, seconds): (&str, f64),
    facts: &BTreeMap<String, f64>,
) -> String {
    let facts: Vec<String> = facts
        .iter()
        .filter(|(name, _)| is_shown(name))
        .map(|(name, number)| fact(name, *number))
        .collect();
    let seconds = duration(seconds);
    let room = terminal.width.saturating_sub(layout.name_width + seconds.len() + 6);
    let facts =
        if terminal.interactive { one_line(&facts.join("  "), room) } else { facts.join("  ") };
    let facts = terminal.paint(Paint::Dim, &facts);
    format!("{} {}  {seconds}  {facts}", terminal.paint(Paint::Green, "✓"), layout.name(stage))
        .trim_end()
        .to_owned()
}

/// Facts of the splits that are not learned from stand in `summary.json` only: the line is short.
fn is_shown(name: &str) -> bool {
    !name.starts_with("test_") && !name.starts_with("validation_")
}

/// `tokens per sequence 251.4`
fn fact(name: &str, number: f64) -> String {
    let text = quantity(number);
    let text =
        if text.contains('.') && !text.contains('e') { text.trim_end_matches('0') } else { &text };
    format!("{} {text}", name.replace('_', " "))
}

/// `✗ train     failed`: the command ends with the whole error.
pub(super) fn failed(terminal: &Terminal, layout: &Layout, stage: &str) -> String {
    format!("{} {}  failed", terminal.paint(Paint::Red, "✗"), layout.name(stage))
}

/// `loss 2.3145  12,345 tokens/s`
pub(super) fn step_numbers(metrics: &StepMetrics) -> String {
    let speed = quantity(metrics.tokens_per_second.round());
    format!("loss {:.4}  {speed} tok/s", metrics.reduced_train_loss)
}

/// `step 100/400  loss 2.3145  12,345 tok/s  lr 3.0e-3  gradient norm 0.51`
pub(super) fn step(metrics: &StepMetrics, total: Option<u64>, left: Option<f64>) -> String {
    let total = total.map_or(String::new(), |total| format!("/{}", count(total)));
    let left = left.map_or(String::new(), |seconds| format!("  {} left", duration(seconds)));
    let (numbers, lr) = (step_numbers(metrics), metrics.lr);
    let norm = match (metrics.grad_norm, metrics.loss_scale) {
        (Some(norm), None) => format!("grad norm {norm:.2}"),
        (Some(norm), Some(scale)) => format!("grad norm {norm:.2}  loss scale {scale}"),
        (None, scale) => format!("skipped: overflow at loss scale {}", scale.unwrap_or(1.0)),
    };
    format!("step {}{total}  {numbers}  lr {lr:.2e}  {norm}{left}", count(metrics.step))
}

/// `step 100  val_loss 2.2967`
pub(super) fn validation(metrics: &ValidationMetrics) -> String {
    format!("step {}  val_loss {:.4}", count(metrics.step), metrics.val_loss)
}

/// `tokenizing 1,200/83,000 rows`
pub(super) fn progress(task: &str, (done, total): (u64, u64), unit: &str) -> String {
    format!("{task} {}/{} {unit}", count(done), count(total))
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn reasons_are_cut_between_them() {
        let text = "continues interrupted work; model.optim.sched.max_steps  1200 → 200  (a.yaml:3); \
                    stage.prompt  \"a; b\" → \"c\\\"; d\"";
        let check = |room, expected: &str| assert_eq!(fitting(text, room), expected);
        check(200, text);
        check(
            91,
            "continues interrupted work; model.optim.sched.max_steps  1200 → 200  (a.yaml:3); and 1 more",
        );
        check(60, "continues interrupted work; and 2 more");
        assert_eq!(
            fitting("model.optim.lr  0.1 → 0.2  (a.yaml:3)", 30),
            "model.optim.lr  0.1 → 0.2"
        );
        assert_eq!(fitting("model.optim.lr  0.1 → 0.2  (a.yaml:3)", 20), "model.optim.lr");
    }
}

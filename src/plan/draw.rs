//! Drawings of a plan: Mermaid, DOT, and lines for a terminal.

use super::Plan;
use super::stage::Source;
use std::fmt::Write as _;

/// Edges `(from, to)` in the order of the stages that read, each once.
fn edges(plan: &Plan) -> Vec<(&str, &str)> {
    let mut edges = Vec::new();
    for stage in plan.stages() {
        for source in stage.inputs.values() {
            if let Source::Stage(from) = source
                && !edges.contains(&(from.as_str(), stage.name.as_str()))
            {
                edges.push((from.as_str(), stage.name.as_str()));
            }
        }
    }
    edges
}

/// A Mermaid flowchart; stages for which `runs` is true have thick borders.
pub fn mermaid(plan: &Plan, runs: impl Fn(&str) -> bool) -> String {
    let id = |name: &str| plan.stages().iter().position(|stage| stage.name == name);
    let mut text = String::from("flowchart TD\n");
    for (at, stage) in plan.stages().iter().enumerate() {
        let class = if runs(&stage.name) { ":::run" } else { "" };
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "    s{at}[\"{}<br/>{}\"]{class}", stage.name, stage.job.kind());
    }
    for (from, to) in edges(plan) {
        let (from, to) = (id(from).unwrap_or_default(), id(to).unwrap_or_default());
        let _ = writeln!(text, "    s{from} --> s{to}");
    }
    text.push_str("    classDef run stroke-width:3px\n");
    text
}

/// A graph in Graphviz's DOT; stages for which `runs` is true are drawn bold.
pub fn dot(plan: &Plan, runs: impl Fn(&str) -> bool) -> String {
    let mut text = String::from("digraph plan {\n    node [shape=box];\n");
    for stage in plan.stages() {
        let style = if runs(&stage.name) { "bold" } else { "solid" };
        let (name, kind) = (&stage.name, stage.job.kind());
        let _ = writeln!(text, "    \"{name}\" [label=\"{name}\\n{kind}\", style={style}];");
    }
    for (from, to) in edges(plan) {
        let _ = writeln!(text, "    \"{from}\" -> \"{to}\";");
    }
    text.push_str("}\n");
    text
}

/// One line a stage with what it reads from, for a terminal.
pub fn lines(plan: &Plan, runs: impl Fn(&str) -> bool) -> String {
    let width = plan.stages().iter().map(|stage| stage.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for stage in plan.stages() {
        let mark = if runs(&stage.name) { '●' } else { '✓' };
        let edges = edges(plan);
        let from: Vec<_> =
            edges.iter().filter(|(_, to)| *to == stage.name).map(|(from, _)| *from).collect();
        let arrow = if from.is_empty() { "" } else { " ← " };
        let line = format!("{mark} {:width$}{arrow}{}", stage.name, from.join(", "));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

//! The stages as a graph: who reads from whom, in which order they run, what cannot be ordered.

use super::stage::{Source, Stage};
use crate::base::suggest;
use crate::recipe::path::Path;
use crate::recipe::problem::Problem;
use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Edges from a stage to those that read from it; nodes are positions in the list of stages.
pub(super) type Edges = DiGraphMap<usize, ()>;

/// Kinds whose output an input may be; inputs not named here come from files.
fn accepted(kind: &str, input: &str) -> &'static [&'static str] {
    match (kind, input) {
        ("shard" | "evaluate", "data") | ("train", "validate.data") => &["tokenize"],
        ("generate", "data") => &["tokenize", "shard"],
        ("train", "data") => &["shard"],
        ("train" | "evaluate" | "generate", "model") => &["load", "train"],
        _ => &[],
    }
}

/// The graph of `stages`, and every name in it that cannot be followed.
pub(super) fn edges(stages: &[Stage]) -> (Edges, Vec<Problem>) {
    let mut problems = two_writers(stages);
    let places: BTreeMap<&str, usize> =
        stages.iter().enumerate().map(|(at, stage)| (stage.name.as_str(), at)).collect();
    let mut graph = Edges::new();
    for (at, stage) in stages.iter().enumerate() {
        graph.add_node(at);
        for (input, source) in &stage.inputs {
            let Source::Stage(name) = source else { continue };
            match places.get(name.as_str()) {
                None => problems.push(unknown(stage, input, name, stages)),
                Some(from) => {
                    graph.add_edge(*from, at, ());
                    problems.extend(wrong_kind(stage, input, &stages[*from]));
                }
            }
        }
    }
    (graph, problems)
}

/// Positions in execution order: the recipe's, except that a stage waits for those it reads from.
pub(super) fn order(stages: &[Stage], graph: &Edges) -> Result<Vec<usize>, Vec<Problem>> {
    let cycles = cycles(stages, graph);
    if !cycles.is_empty() {
        return Err(cycles);
    }
    let mut done = BTreeSet::new();
    let mut order = Vec::new();
    while order.len() < stages.len() {
        let ready = |at: &usize| {
            let mut needs = graph.neighbors_directed(*at, petgraph::Direction::Incoming);
            !done.contains(at) && needs.all(|need| done.contains(&need))
        };
        // Without a cycle one is always ready.
        let Some(next) = (0..stages.len()).find(ready) else { break };
        done.insert(next);
        order.push(next);
    }
    Ok(order)
}

fn cycles(stages: &[Stage], graph: &Edges) -> Vec<Problem> {
    let mut problems = Vec::new();
    for component in tarjan_scc(graph) {
        let first = component.iter().copied().min().unwrap_or_default();
        if component.len() > 1 || graph.contains_edge(first, first) {
            let names = circle(first, &component, graph);
            let names: Vec<_> = names.iter().map(|at| stages[*at].name.as_str()).collect();
            let circle = names.join(" -> ");
            problems.push(Problem {
                help: Some("let one of them read from another stage".to_owned()),
                ..problem("plan::cycle", format!("stages wait for each other: {circle}"), names[0])
            });
        }
    }
    problems.sort_by(|a, b| a.message.cmp(&b.message));
    problems
}

/// A shortest way from `first` back to `first` inside `component`: each stage reads from the next.
fn circle(first: usize, component: &[usize], graph: &Edges) -> Vec<usize> {
    let needs = |at: usize| {
        let all = graph.neighbors_directed(at, petgraph::Direction::Incoming);
        all.filter(|need| component.contains(need)).collect::<BTreeSet<_>>()
    };
    let mut ways: VecDeque<Vec<usize>> = VecDeque::from([vec![first]]);
    let mut seen = BTreeSet::new();
    // Every stage of a component leads back to every other, so a way is found.
    while let Some(way) = ways.pop_front() {
        for need in needs(way.last().copied().unwrap_or(first)) {
            let longer: Vec<_> = way.iter().copied().chain([need]).collect();
            if need == first {
                return longer;
            }
            if seen.insert(need) {
                ways.push_back(longer);
            }
        }
    }
    vec![first, first]
}

fn two_writers(stages: &[Stage]) -> Vec<Problem> {
    let mut seen = BTreeSet::new();
    let twice = stages.iter().filter(|stage| !seen.insert(stage.name.to_lowercase()));
    twice
        .map(|stage| Problem {
            help: Some("give one of them another name".to_owned()),
            ..problem(
                "plan::two_writers",
                format!("two stages are called `{}` and would write to one folder", stage.name),
                &stage.name,
            )
        })
        .collect()
}

fn unknown(stage: &Stage, input: &str, name: &str, stages: &[Stage]) -> Problem {
    let known = stages.iter().map(|stage| stage.name.as_str());
    let help = suggest::did_you_mean(name, known.clone())
        .unwrap_or_else(|| format!("the stages are {}", suggest::listed(known)));
    Problem {
        path: Some(input_path(stage, input)),
        help: Some(help),
        ..problem("plan::unknown_stage", format!("there is no stage `{name}`"), &stage.name)
    }
}

fn wrong_kind(stage: &Stage, input: &str, from: &Stage) -> Option<Problem> {
    let accepted = accepted(stage.job.kind(), input);
    if accepted.contains(&from.job.kind()) {
        return None;
    }
    let message = format!(
        "`{input}` of `{}` reads from `{}`, which is a {} stage",
        stage.name,
        from.name,
        from.job.kind()
    );
    Some(Problem {
        path: Some(input_path(stage, input)),
        help: Some(format!("name a {} stage", accepted.join(" or "))),
        ..problem("plan::wrong_kind", message, &stage.name)
    })
}

fn input_path(stage: &Stage, input: &str) -> Path {
    stage_path(&stage.name).key(stage.job.kind()).key(input)
}

fn stage_path(name: &str) -> Path {
    Path::default().key("stages").key(name)
}

fn problem(code: &'static str, message: String, stage: &str) -> Problem {
    Problem::error(code, message).about(stage_path(stage))
}

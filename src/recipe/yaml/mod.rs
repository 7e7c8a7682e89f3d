//! YAML text to a tree with places: the parser's events, read by the rules in `scalar.rs`.

mod tags;
mod traps;

use super::place::{Origin, Place, SourceFile};
use super::problem::{self, Problem};
use super::scalar::{self, Refused};
use super::tree::{Data, Map, Node, key_text};
use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_yaml::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use tags::{tagged, unknown_tag};

/// The deepest nesting, aliases written out.
const MAX_DEPTH: usize = 64;
/// The most values, aliases written out.
const MAX_NODES: usize = 100_000;
/// The most bytes in all texts, aliases written out.
const MAX_TEXT: usize = 16 << 20;
/// Problems of one file after which reading stops.
const MAX_PROBLEMS: usize = 20;

/// Reads a text that holds one YAML mapping.
pub(crate) fn parse(file: &Arc<SourceFile>) -> Result<Node, Vec<Problem>> {
    let mut builder = Builder::new(file);
    let root = builder.document();
    let mut problems = builder.problems;
    if let Err(Stop(problem)) = &root {
        problems.extend(problem.as_deref().cloned());
    }
    problem::sort(&mut problems);
    match root {
        Ok(root) if problems.is_empty() => Ok(root),
        _ => Err(problems),
    }
}

/// The file cannot be read any further, for this reason if it is not yet in the list.
struct Stop(Option<Box<Problem>>);

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Stop {
        Stop(Some(Box::new(problem)))
    }
}

/// How much a subtree adds to the limits.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    text: usize,
    depth: usize,
}

struct Builder<'t> {
    file: &'t Arc<SourceFile>,
    parser: Parser<'t, StrInput<'t>>,
    anchors: BTreeMap<usize, (Node, Size)>,
    used: Size,
    problems: Vec<Problem>,
}

impl<'t> Builder<'t> {
    fn new(file: &'t Arc<SourceFile>) -> Builder<'t> {
        let mut options = Options::default();
        options.set_emit_comments(false);
        options.flow_nesting_limit = MAX_DEPTH;
        options.block_nesting_limit = MAX_DEPTH;
        let parser = Parser::new_from_str_with_options(&file.text, options);
        let anchors = BTreeMap::new();
        Builder { file, parser, anchors, used: Size::default(), problems: Vec::new() }
    }

    /// The whole stream: exactly one document, a mapping.
    fn document(&mut self) -> Result<Node, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(..) if root.is_some() => {
                    let problem = Problem::error("yaml::documents", "more than one document")
                        .at(Some(&self.place(self.bytes(span))), "a second one starts here");
                    return Err(problem.into());
                }
                Event::DocumentStart(..) => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, span, 0)?);
                }
                // Comments and the start of the stream.
                _ => {}
            }
        }
        match root {
            Some(root @ Node { data: Data::Map(_), .. }) => Ok(root),
            other => {
                let place = other.as_ref().and_then(|node| node.origin.place());
                let empty = other
                    .as_ref()
                    .is_none_or(|node| matches!(node.data, Data::Scalar(Value::Null)));
                let what = if empty { "the file is empty" } else { "the file holds no mapping" };
                Err(Problem::error("yaml::not_a_mapping", format!("{what}: {}", self.file.name))
                    .at(place.filter(|_| !empty), "not `key: value`")
                    .help("a recipe is a YAML mapping: lines of `key: value`")
                    .into())
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Stop> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.syntax(&error).into()),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Stop> {
        if depth > MAX_DEPTH {
            return Err(self.too_much(span, "is nested deeper", MAX_DEPTH).into());
        }
        self.charge(Size { nodes: 1, ..Size::default() }, span)?;
        let before = self.used;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.charge(Size { text: text.len(), ..Size::default() }, span)?;
                (self.scalar(&text, style, tag.as_deref(), span), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.container_tag(tag.as_deref(), "seq", span);
                (self.sequence(span, depth)?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.container_tag(tag.as_deref(), "map", span);
                (self.mapping(span, depth)?, anchor)
            }
            Event::Alias(id) => return self.alias(id, span, depth),
            other => {
                let message = format!("the YAML parser gave {other:?} where a value belongs");
                let place = self.place(self.bytes(span));
                return Err(Problem::error("yaml::syntax", message).at(Some(&place), "").into());
            }
        };
        if anchor != 0 {
            let size = Size {
                nodes: self.used.nodes - before.nodes + 1,
                text: self.used.text - before.text,
                depth: height(&node),
            };
            self.charge(size, span)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    /// A copy of what an anchor names, if the limits allow one more.
    fn alias(&mut self, id: usize, span: Span, depth: usize) -> Result<Node, Stop> {
        let Some(size) = self.anchors.get(&id).map(|(_, size)| *size) else {
            let place = self.place(self.bytes(span));
            let message = "an alias stands inside the value that it names";
            return Err(Problem::error("yaml::alias", message).at(Some(&place), "here").into());
        };
        if depth + size.depth > MAX_DEPTH {
            return Err(self.too_much(span, "is nested deeper", MAX_DEPTH).into());
        }
        self.charge(size, span)?;
        match self.anchors.get(&id) {
            Some((node, _)) => Ok(node.clone()),
            None => Err(Stop(None)),
        }
    }

    fn sequence(&mut self, start: Span, depth: usize) -> Result<Node, Stop> {
        let mut items = Vec::new();
        let end = loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                break span;
            }
            items.push(self.node(event, span, depth + 1)?);
        };
        Ok(self.container(Data::List(items), start, end))
    }

    fn mapping(&mut self, start: Span, depth: usize) -> Result<Node, Stop> {
        let mut merged = Vec::new();
        let mut own = Map::default();
        let end = loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break span;
            }
            let merges =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = if merges { None } else { self.key(event, span, depth)? };
            let key_place = self.place(self.bytes(span));
            let (event, span) = self.next()?;
            let mut value = self.node(event, span, depth + 1)?;
            if merges {
                self.merge(value, &key_place, &mut merged);
                continue;
            }
            let Some(key) = key else { continue };
            if let Some(first) = own.get(&key_text(&key)).and_then(|node| node.key.as_ref()) {
                self.duplicate(&key, &key_place, first)?;
                continue;
            }
            value.key = Some(key_place);
            own.insert(key, value);
        };
        let mut map = own;
        if !merged.is_empty() {
            let mut all = Map::default();
            for (key, value) in merged.into_iter().chain(map.into_entries()) {
                all.insert(key, value);
            }
            map = all;
        }
        Ok(self.container(Data::Map(map), start, end))
    }

    /// The key that an event starts; none after a problem with it.
    fn key(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Option<Value>, Stop> {
        let node = self.node(event, span, depth + 1)?;
        let place = self.place(self.bytes(span));
        match node.data {
            Data::Scalar(Value::Null) => {
                let problem =
                    Problem::error("yaml::key", "null is no key").at(Some(&place), "here");
                self.report(problem.help("write the key, in quotes if it is the word"))?;
            }
            Data::Scalar(key) => return Ok(Some(key)),
            Data::List(_) | Data::Map(_) => {
                let problem = Problem::error("yaml::key", "a key is one word, not a collection")
                    .at(Some(&place), "here");
                let help = self.template_help(span.start.line());
                self.report(problem.help_if(help))?;
            }
        }
        Ok(None)
    }

    /// What `<<` brings in; in a list of mappings the first one wins.
    fn merge(&mut self, value: Node, place: &Place, merged: &mut Vec<(Value, Node)>) {
        let sources = match value.data {
            Data::List(items) => items.into_iter().rev().collect(),
            Data::Map(_) | Data::Scalar(_) => vec![value],
        };
        for source in sources {
            if let Data::Map(map) = source.data {
                merged.extend(map.into_entries());
            } else {
                let problem =
                    Problem::error("yaml::merge", "`<<` takes a mapping, or a list of them");
                self.problems.push(problem.at(Some(place), "merges something else"));
            }
        }
    }

    fn duplicate(&mut self, key: &Value, again: &Place, first: &Place) -> Result<(), Stop> {
        let message = format!("the key `{}` is here twice", key_text(key));
        let (line, _) = first.line_and_column();
        let problem = Problem::error("yaml::duplicate_key", message)
            .at(Some(again), "again")
            .with(Some(first), "first here")
            .help(format!("keep one of them; the first is on line {line}"));
        self.report(problem)
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Node {
        let value = match tag {
            Some(tag) => tagged(text, tag),
            None if style == ScalarStyle::Plain => scalar::plain(text).map_err(|refused| {
                let help = match refused {
                    Refused::Equals | Refused::Merge => "put it in quotes if it is a text",
                    Refused::Range => "write a smaller number, or a float such as 1e20",
                };
                Box::new(Problem::error("yaml::scalar", refused.to_string()).help(help))
            }),
            None => Ok(Value::String(text.to_owned())),
        };
        let place = self.place(self.scalar_bytes(style, span));
        let value = value.unwrap_or_else(|problem| {
            self.problems.push(problem.at(Some(&place), "this value"));
            Value::Null
        });
        Node::scalar(value, Origin::File(place))
    }

    fn container_tag(&mut self, tag: Option<&Tag>, expected: &str, span: Span) {
        let Some(tag) = tag.filter(|tag| tag.core_suffix() != Some(expected)) else { return };
        let place = self.place(self.bytes(span));
        self.problems.push(unknown_tag(tag).at(Some(&place), "this value"));
    }

    fn container(&self, data: Data, start: Span, end: Span) -> Node {
        let (from, to) = (self.bytes(start), self.bytes(end));
        let text = self.file.text.get(from.start..to.end).unwrap_or_default();
        // A flow collection ends with its bracket; a block one is marked by its first line.
        let flow = text.starts_with(['{', '[']) && text.ends_with(['}', ']']);
        let length = if flow { text.len() } else { text.lines().next().unwrap_or("").len() };
        let origin = Origin::File(self.place(from.start..from.start + length));
        Node { data, key: None, origin }
    }

    fn report(&mut self, problem: Problem) -> Result<(), Stop> {
        self.problems.push(problem);
        if self.problems.len() < MAX_PROBLEMS { Ok(()) } else { Err(Stop(None)) }
    }

    fn charge(&mut self, size: Size, span: Span) -> Result<(), Stop> {
        self.used.nodes += size.nodes;
        self.used.text += size.text;
        if self.used.nodes > MAX_NODES {
            return Err(self.too_much(span, "holds more values", MAX_NODES).into());
        }
        if self.used.text > MAX_TEXT {
            return Err(self.too_much(span, "holds more bytes of text", MAX_TEXT).into());
        }
        Ok(())
    }

    fn too_much(&self, span: Span, what: &str, limit: usize) -> Problem {
        let message = format!("{} {what} than the limit of {limit}", self.file.name);
        let place = self.place(self.bytes(span));
        Problem::error("recipe::too_large", message)
            .at(Some(&place), "the limit is passed here")
            .help("an alias counts as everything that it names")
    }

    fn syntax(&self, error: &ScanError) -> Problem {
        let at = self.boundary(error.marker().byte_offset().unwrap_or_default());
        let length = self.file.text[at..].chars().next().map_or(0, char::len_utf8);
        let place = self.place(at..at + length);
        if traps::looks_like_rows(&self.file.text) {
            return Problem::error("yaml::syntax", "this looks like rows (JSONL), not like a recipe")
                .at(Some(&place), "a second row")
                .help("name the file in a recipe: as `rows` of a tokenize stage, or in model.data.train_ds.file_names");
        }
        Problem::error("yaml::syntax", format!("this is not YAML: {}", error.info()))
            .at(Some(&place), "here")
            .help_if(self.template_help(error.marker().line()))
    }

    fn template_help(&self, line: usize) -> Option<String> {
        traps::braces(self.file.text.lines().nth(line.checked_sub(1)?)?)
    }

    fn place(&self, span: Range<usize>) -> Place {
        Place { file: Arc::clone(self.file), span }
    }

    fn bytes(&self, span: Span) -> Range<usize> {
        let start = self.boundary(span.start.byte_offset().unwrap_or_default());
        let end = self.boundary(span.end.byte_offset().unwrap_or_default());
        start..end.max(start)
    }

    /// A scalar's span without the line breaks that end a plain or a block scalar.
    fn scalar_bytes(&self, style: ScalarStyle, span: Span) -> Range<usize> {
        let range = self.bytes(span);
        let text = self.file.text.get(range.clone()).unwrap_or_default();
        let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
        let length = if quoted { text.len() } else { text.trim_end().len() };
        range.start..range.start + length
    }

    /// The nearest place at or before an offset where a character starts.
    fn boundary(&self, at: usize) -> usize {
        let mut at = at.min(self.file.text.len());
        while !self.file.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

/// Levels below a node.
fn height(node: &Node) -> usize {
    let below = match &node.data {
        Data::Scalar(_) => return 0,
        Data::List(items) => items.iter().map(height).max(),
        Data::Map(map) => map.iter().map(|(_, node)| height(node)).max(),
    };
    1 + below.unwrap_or(0)
}

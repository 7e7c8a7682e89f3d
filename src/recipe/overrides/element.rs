//! What an override says once it is read.

use serde_yaml::Value;
use std::ops::Range;

/// What an override does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// `a=1`: the key must be there.
    Change,
    /// `+a=1`: the key must not be there.
    Add,
    /// `++a=1`.
    Force,
    /// `~a`, or `~a=1` if it has that value.
    Delete,
    /// `a+=[1]`: more items for a list. Hydra does not have this one.
    Append,
}

/// An override as it was typed, with byte places in its text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parsed {
    pub(crate) action: Action,
    pub(crate) key: Vec<String>,
    pub(crate) key_span: Range<usize>,
    /// None only for `~a`.
    pub(crate) value: Option<Element>,
    pub(crate) value_span: Range<usize>,
}

/// A value of the command line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Element {
    /// Unquoted: null, a truth, a number or a text.
    Word(Value),
    Quoted {
        text: String,
        quote: char,
    },
    List(Vec<Element>),
    Map(Vec<(Value, Element)>),
    Sweep(Sweep),
}

/// Several values for one key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sweep {
    pub(crate) kind: SweepKind,
    pub(crate) tags: Vec<String>,
    pub(crate) shuffle: bool,
}

/// How the values of a sweep are given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SweepKind {
    /// `a,b` (simple) or `choice(a,b)`.
    Choice { items: Vec<Element>, simple: bool },
    /// Half open, as Python's.
    Range { start: Value, stop: Value, step: Value },
    /// Everything between two numbers, for searches.
    Interval { start: Value, end: Value },
    /// Names by pattern.
    Glob { include: Vec<String>, exclude: Vec<String> },
}

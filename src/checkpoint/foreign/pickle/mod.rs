//! Python's pickles as plain data: nothing that a pickle names is ever called or imported.
//!
//! A pickle is a program for a small stack machine that builds objects by calling what it names.
//! Here the calls are kept as data, and names outside a short list (what checkpoints are made of)
//! are refused, so that a file with anything else in it is told to be what it is.

mod known;
mod machine;

pub use machine::parse;

/// Place of a value in [`Values`].
pub type Id = usize;

/// A value; parts of it are places of other values, so that sharing stays sharing.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// A longer integer, little-endian two's complement.
    Long(&'a [u8]),
    /// A float.
    Float(f64),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list or a set.
    List(Vec<Id>),
    /// A dictionary, in order.
    Dict(Vec<(Id, Id)>),
    /// A name that something else is made by: module and name.
    Global(&'a str, &'a str),
    /// What calling `callee` with `arguments` would give, `state` set on it and `items` put into it.
    Made {
        /// A [`Value::Global`].
        callee: Id,
        /// A tuple.
        arguments: Id,
        /// What was set on it, if anything.
        state: Option<Id>,
        /// What was put into it.
        items: Vec<(Id, Id)>,
    },
    /// Something that lies outside the pickle: what it is called.
    Persistent(Id),
}

/// All values of a pickle.
#[derive(Clone, Debug, Default)]
pub struct Values<'a> {
    values: Vec<Value<'a>>,
}

impl<'a> Values<'a> {
    /// The value at `id`.
    pub fn get(&self, id: Id) -> &Value<'a> {
        self.values.get(id).unwrap_or(&Value::None)
    }

    /// The places of all values.
    pub fn all(&self) -> impl Iterator<Item = Id> {
        0..self.values.len()
    }

    /// The entries of a dictionary or of an object that is one (`OrderedDict`).
    pub fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id) {
            Value::Dict(entries) => Some(entries),
            Value::Made { callee, items, .. } => match self.get(*callee) {
                Value::Global("collections", "OrderedDict") => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value of a dictionary under a text.
    pub fn field(&self, id: Id, key: &str) -> Option<Id> {
        let entries = self.entries(id)?;
        entries.iter().find(|(own, _)| self.text(*own) == Some(key)).map(|(_, value)| *value)
    }

    /// The state of an object, a dictionary: `argparse.Namespace` keeps its fields there.
    pub fn state(&self, id: Id) -> Option<Id> {
        match self.get(id) {
            Value::Made { state, .. } => *state,
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self, id: Id) -> Option<&'a str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An integer that is not negative.
    pub fn size(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Value::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The items of a tuple or list.
    pub fn items(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) | Value::List(items) => Some(items),
            _ => None,
        }
    }
}

/// Why bytes are not a pickle that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It names something that no checkpoint is made of.
    #[error(
        "its pickle asks Python to call `{0}`, which no checkpoint is made of: nothing was \
         executed, do not open this file with Python"
    )]
    Refused(String),
    /// It is no pickle, or one cut short.
    #[error("its pickle is damaged: {0}")]
    Damaged(&'static str),
    /// It uses an instruction that pickles of checkpoints do not have.
    #[error("its pickle has instruction 0x{0:02x} at byte {1}, which checkpoints do not have")]
    Instruction(u8, usize),
    /// It would take too much memory.
    #[error("its pickle holds more than {0} values")]
    TooLarge(usize),
}

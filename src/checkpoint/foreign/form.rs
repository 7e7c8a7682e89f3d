//! How another program's tensors are made of ours: their names, shapes and patches.
//!
//! A form is written once and read both ways: as it stands it writes their tensors from our
//! parameters, inverted it reads our parameters from their tensors.

use super::rectangles::{Corner, Patch, Rows, extent};
use crate::layout::limits;
use crate::layout::parameters::{is_vocabulary, table};
use crate::spec::architecture::Architecture;
use std::collections::BTreeMap;

/// Their tensors: the target of every patch is one of theirs, the origin one of ours.
#[derive(Clone, Debug, Default)]
pub struct Form {
    /// Shapes by name.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// What they are made of; what no patch covers is zeros (padding).
    pub patches: Vec<Patch>,
}

/// A block of a parameter of ours: first row and column.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// The parameter.
    pub name: &'a str,
    /// Its first row.
    pub row: usize,
    /// Its first column.
    pub column: usize,
}

impl<'a> From<&'a str> for Own<'a> {
    /// From the first number on.
    fn from(name: &'a str) -> Own<'a> {
        Own { name, row: 0, column: 0 }
    }
}

impl Form {
    /// Declares a tensor of theirs; patches follow.
    pub fn tensor(&mut self, name: &str, shape: &[usize]) {
        self.shapes.insert(name.to_owned(), shape.to_vec());
    }

    /// A tensor of theirs that is ours from `own` on.
    pub fn equal<'a>(&mut self, name: &str, shape: &[usize], own: impl Into<Own<'a>>) {
        self.tensor(name, shape);
        self.block((name, 0, 0), own, extent(shape));
    }

    /// A block of `[rows, columns]` numbers that is ours from `own` on.
    pub fn block<'a>(
        &mut self,
        (name, row, column): (&str, usize, usize),
        own: impl Into<Own<'a>>,
        [rows, columns]: [usize; 2],
    ) {
        self.patch((name, row.into(), column), own, [rows, columns], false);
    }

    /// A block of `[rows, columns]` of theirs that is ours with rows and columns exchanged.
    pub fn transposed<'a>(
        &mut self,
        (name, row, column): (&str, usize, usize),
        own: impl Into<Own<'a>>,
        [rows, columns]: [usize; 2],
    ) {
        self.patch((name, row.into(), column), own, [rows, columns], true);
    }

    /// A block whose rows are `rows` apart.
    pub fn patch<'a>(
        &mut self,
        (name, rows, column): (&str, Rows, usize),
        own: impl Into<Own<'a>>,
        [height, width]: [usize; 2],
        transposed: bool,
    ) {
        let own = own.into();
        self.patches.push(Patch {
            target: Corner { tensor: name.to_owned(), rows, column },
            origin: Corner {
                tensor: own.name.to_owned(),
                rows: own.row.into(),
                column: own.column,
            },
            rows: height,
            columns: width,
            transposed,
        });
    }
}

/// Refuses a shape that no model has, so that arithmetic with it is safe.
///
/// `tensors` is how many tensors the file has: a model has no more layers than that.
pub fn check(model: &Architecture, tensors: usize) -> Result<(), String> {
    if model.num_layers > tensors {
        return Err(format!("it has {tensors} tensors for {} layers", model.num_layers));
    }
    limits::problem(model).map_or(Ok(()), Err)
}

/// Shapes of our parameters by name as sources have them: the vocabulary without padding.
pub fn own_shapes(model: &Architecture) -> BTreeMap<String, Vec<usize>> {
    let shape = |parameter: crate::layout::parameters::Parameter| {
        let mut shape = parameter.shape;
        if is_vocabulary(&parameter.name) {
            shape[0] = model.vocab_size;
        }
        (parameter.name, shape)
    };
    table(model).into_iter().map(shape).collect()
}

/// Rows of a `query_key_value` of ours.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Groups, each with a key and a value head.
    pub groups: usize,
    /// Query heads of a group.
    pub queries: usize,
    /// Rows of a head.
    pub width: usize,
}

/// Which rows of a group are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// All query heads.
    Query,
    /// The key head.
    Key,
    /// The value head.
    Value,
}

impl Role {
    /// In the order in which they follow each other everywhere.
    pub const ALL: [Role; 3] = [Role::Query, Role::Key, Role::Value];
}

impl Heads {
    /// Those of a model.
    pub fn of(model: &Architecture) -> Heads {
        Heads {
            groups: model.num_query_groups,
            queries: model.num_attention_heads / model.num_query_groups,
            width: model.kv_channels,
        }
    }

    /// Rows that a role has in each group.
    pub fn rows(&self, role: Role) -> usize {
        if role == Role::Query { self.queries * self.width } else { self.width }
    }

    /// Rows of a whole group.
    pub fn group_rows(&self) -> usize {
        (self.queries + 2) * self.width
    }

    /// First row of a role in our order.
    pub fn start(&self, group: usize, role: Role) -> usize {
        let inside = match role {
            Role::Query => 0,
            Role::Key => self.queries,
            Role::Value => self.queries + 1,
        };
        group * self.group_rows() + inside * self.width
    }
}

//! Rectangles of named tensors, and tensors that are put together from rectangles of others.
//!
//! A vector of `n` numbers counts as `n` rows of one column everywhere here.

use std::collections::BTreeMap;
use std::ops::Range;

/// A rectangle of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rectangle {
    /// Its rows (dim 0).
    pub rows: Range<usize>,
    /// Its columns (dim 1).
    pub columns: Range<usize>,
}

impl Rectangle {
    /// All of a tensor of this shape.
    pub fn whole(shape: &[usize]) -> Rectangle {
        let [rows, columns] = extent(shape);
        Rectangle { rows: 0..rows, columns: 0..columns }
    }

    /// How many numbers it has.
    pub fn numbers(&self) -> usize {
        self.rows.len() * self.columns.len()
    }
}

/// Rows and columns of a shape of one or two dims.
pub fn extent(shape: &[usize]) -> [usize; 2] {
    [shape.first().copied().unwrap_or(1), shape.iter().skip(1).product()]
}

/// Tensors by name, any rectangle of which can be read.
pub trait Rectangles {
    /// Writes the numbers of a rectangle, row-major, into `into`, which has as many.
    fn read(&self, name: &str, rectangle: &Rectangle, into: &mut [f32]) -> Result<(), String>;
}

/// Evenly spaced rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rows {
    /// The first.
    pub start: usize,
    /// From one to the next, at least 1.
    pub step: usize,
}

impl From<usize> for Rows {
    /// Rows without gaps.
    fn from(start: usize) -> Rows {
        Rows { start, step: 1 }
    }
}

/// Where a patch lies in one of its two tensors: its first row and column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Corner {
    /// The tensor.
    pub tensor: String,
    /// Its rows.
    pub rows: Rows,
    /// Its first column.
    pub column: usize,
}

/// Numbers that are equal in two tensors: `rows` × `columns` of them, from a corner in each.
///
/// It can be read both ways, so one list of patches is an import and an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where the numbers go.
    pub target: Corner,
    /// Where they come from.
    pub origin: Corner,
    /// Rows as the target counts them.
    pub rows: usize,
    /// Columns as the target counts them.
    pub columns: usize,
    /// Whether the target's rows are the origin's columns; then neither side's rows have gaps.
    pub transposed: bool,
}

impl Patch {
    /// The same numbers, the other way.
    #[must_use]
    pub fn inverse(self) -> Patch {
        let (rows, columns) =
            if self.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) };
        let Patch { target, origin, transposed, .. } = self;
        Patch { target: origin, origin: target, rows, columns, transposed }
    }
}

/// Tensors put together from patches; what no patch covers is zeros.
#[derive(Debug)]
pub struct Composed<R> {
    origin: R,
    patches: BTreeMap<String, Vec<Patch>>,
}

impl<R> Composed<R> {
    /// Tensors of these patches over `origin`. Of patches onto the same place the first counts.
    pub fn new(origin: R, patches: impl IntoIterator<Item = Patch>) -> Composed<R> {
        let mut sorted: BTreeMap<String, Vec<Patch>> = BTreeMap::new();
        for patch in patches {
            let list = sorted.entry(patch.target.tensor.clone()).or_default();
            list.push(patch);
        }
        for list in sorted.values_mut() {
            // Stable: the first of those at one place stays.
            list.sort_by(|one, other| one.target.cmp(&other.target));
            list.dedup_by(|later, first| later.target == first.target);
        }
        Composed { origin, patches: sorted }
    }

    /// The patches of the tensor `name`.
    pub fn patches(&self, name: &str) -> &[Patch] {
        self.patches.get(name).map_or(&[], Vec::as_slice)
    }

    /// What the patches are read from.
    pub fn origin(&self) -> &R {
        &self.origin
    }

    /// How many numbers of the tensor `name` its patches give.
    pub fn covered(&self, name: &str) -> usize {
        self.patches(name).iter().map(|patch| patch.rows * patch.columns).sum()
    }
}

impl<R: Rectangles> Rectangles for Composed<R> {
    fn read(&self, name: &str, rectangle: &Rectangle, into: &mut [f32]) -> Result<(), String> {
        into.fill(0.0);
        for patch in self.patches(name) {
            if let Some(part) = Part::of(patch, rectangle) {
                part.read(&self.origin, rectangle, into)?;
            }
        }
        Ok(())
    }
}

/// What of a patch lies in a rectangle of the target.
struct Part<'a> {
    patch: &'a Patch,
    /// Which of the patch's rows.
    rows: Range<usize>,
    /// Which of the patch's columns.
    columns: Range<usize>,
}

impl Part<'_> {
    fn of<'a>(patch: &'a Patch, wanted: &Rectangle) -> Option<Part<'a>> {
        let Rows { start, step } = patch.target.rows;
        let below = |row: usize| row.saturating_sub(start).div_ceil(step).min(patch.rows);
        let rows = below(wanted.rows.start)..below(wanted.rows.end);
        let column = |at: usize| at.saturating_sub(patch.target.column).min(patch.columns);
        let columns = column(wanted.columns.start)..column(wanted.columns.end);
        (!rows.is_empty() && !columns.is_empty()).then_some(Part { patch, rows, columns })
    }

    fn read(
        &self,
        origin: &impl Rectangles,
        wanted: &Rectangle,
        into: &mut [f32],
    ) -> Result<(), String> {
        let Part { patch, rows, columns } = self;
        let width = wanted.columns.len();
        let target = &patch.target;
        let place = |row: usize, column: usize| {
            let row = target.rows.start + row * target.rows.step - wanted.rows.start;
            row * width + target.column + column - wanted.columns.start
        };
        let from = &patch.origin;
        if patch.transposed {
            // A row of the origin is a column of the target.
            let across = from.column + rows.start..from.column + rows.end;
            let mut line = vec![0.0; rows.len()];
            for column in columns.clone() {
                let row = from.rows.start + column;
                let one = Rectangle { rows: row..row + 1, columns: across.clone() };
                origin.read(&from.tensor, &one, &mut line)?;
                for (value, row) in line.iter().zip(rows.clone()) {
                    into[place(row, column)] = *value;
                }
            }
            return Ok(());
        }
        let across = from.column + columns.start..from.column + columns.end;
        if from.rows.step == 1 && target.rows.step == 1 && columns.len() == width {
            let first = from.rows.start + rows.start;
            let band = Rectangle { rows: first..first + rows.len(), columns: across };
            let start = place(rows.start, columns.start);
            return origin.read(&from.tensor, &band, &mut into[start..start + band.numbers()]);
        }
        for row in rows.clone() {
            let source = from.rows.start + row * from.rows.step;
            let one = Rectangle { rows: source..source + 1, columns: across.clone() };
            let start = place(row, columns.start);
            origin.read(&from.tensor, &one, &mut into[start..start + columns.len()])?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every number is its place: `100 · row + column`.
    struct Places;

    impl Rectangles for Places {
        fn read(&self, _: &str, rectangle: &Rectangle, into: &mut [f32]) -> Result<(), String> {
            let columns = || rectangle.columns.clone();
            let places = rectangle.rows.clone().flat_map(|row| columns().map(move |at| (row, at)));
            for (value, (row, column)) in into.iter_mut().zip(places) {
                *value = (100 * row + column) as f32;
            }
            Ok(())
        }
    }

    fn corner(tensor: &str, rows: Rows, column: usize) -> Corner {
        Corner { tensor: tensor.to_owned(), rows, column }
    }

    fn patches() -> Vec<Patch> {
        let even = Rows { start: 0, step: 2 };
        let odd = Rows { start: 1, step: 2 };
        let patch = |target, origin, transposed| Patch {
            target: corner("t", target, 1),
            origin: corner("o", origin, 2),
            rows: 3,
            columns: 4,
            transposed,
        };
        // Rows 0 to 5 from halves, rows 6 to 8 transposed; column 0 and rows from 9 on stay empty.
        vec![
            patch(even, 0.into(), false),
            patch(odd, 3.into(), false),
            patch(6.into(), 20.into(), true),
        ]
    }

    fn expected(row: usize, column: usize) -> f32 {
        let Some(column) = column.checked_sub(1) else { return 0.0 };
        let (source, across) = match row {
            0..6 => (row / 2 + 3 * (row % 2), 2 + column),
            6..9 => (20 + column, 2 + row - 6),
            _ => return 0.0,
        };
        (100 * source + across) as f32
    }

    proptest! {
        #[test]
        fn any_rectangle_of_a_composed_tensor(
            top in 0_usize..10, height in 1_usize..6, left in 0_usize..5, width in 1_usize..4,
        ) {
            let rectangle = Rectangle { rows: top..top + height, columns: left..(left + width).min(5) };
            let composed = Composed::new(Places, patches());
            let mut into = vec![9.0; rectangle.numbers()];
            composed.read("t", &rectangle, &mut into).unwrap();
            let mut values = into.into_iter();
            for row in rectangle.rows {
                for column in rectangle.columns.clone() {
                    prop_assert_eq!(values.next().unwrap(), expected(row, column));
                }
            }
        }
    }

    #[test]
    fn there_and_back_is_where_it_was() {
        let there = Composed::new(Places, patches());
        let back = Composed::new(there, patches().into_iter().map(Patch::inverse));
        let rectangle = Rectangle { rows: 0..6, columns: 2..6 };
        let (mut twice, mut once) = (vec![0.0; 24], vec![1.0; 24]);
        back.read("o", &rectangle, &mut twice).unwrap();
        Places.read("o", &rectangle, &mut once).unwrap();
        assert_eq!(twice, once);
    }

    #[test]
    fn of_two_patches_onto_one_place_the_first_counts() {
        let one = patches().swap_remove(0);
        let other = Patch { origin: corner("o", 7.into(), 2), ..one.clone() };
        let composed = Composed::new(Places, [one, other]);
        assert_eq!(composed.covered("t"), 12);
        let mut value = [0.0];
        composed.read("t", &Rectangle { rows: 0..1, columns: 1..2 }, &mut value).unwrap();
        assert_eq!(value, [2.0]);
    }
}

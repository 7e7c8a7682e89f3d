//! Parts of tensors: what a rank holds of a parameter, in terms of the whole parameter.

use super::parameters::Sharing;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A part of a tensor: ranges along one dim, and of what they leave a range of elements.
///
/// The elements keep the order that they have in the whole tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Text", from = "Text")]
pub struct Slice {
    /// The dim that is cut.
    pub dim: usize,
    /// What stays of it: ascending, apart from each other.
    pub ranges: Vec<Range<usize>>,
    /// Elements of the cut tensor, counted row by row (shards of an optimizer's state); none for
    /// all.
    pub flat: Option<Range<usize>>,
}

/// The form in files: ranges as pairs.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    dim: usize,
    ranges: Vec<[usize; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flat: Option<[usize; 2]>,
}

impl From<Slice> for Text {
    fn from(slice: Slice) -> Text {
        let pair = |range: Range<usize>| [range.start, range.end];
        let ranges = slice.ranges.into_iter().map(pair).collect();
        Text { dim: slice.dim, ranges, flat: slice.flat.map(pair) }
    }
}

impl From<Text> for Slice {
    fn from(text: Text) -> Slice {
        let range = |[start, end]: [usize; 2]| start..end;
        let ranges = text.ranges.into_iter().map(range).collect();
        Slice { dim: text.dim, ranges, flat: text.flat.map(range) }
    }
}

impl Slice {
    /// All of a tensor of shape `whole`.
    pub fn whole(whole: &[usize]) -> Slice {
        let rows = whole.first().copied().unwrap_or(0);
        Slice { dim: 0, ranges: std::iter::once(0..rows).collect(), flat: None }
    }

    /// What rank `rank` of `tensor` ranks holds of a parameter of shape `whole`.
    pub fn of_rank(whole: &[usize], sharing: Sharing, tensor: usize, rank: usize) -> Slice {
        match sharing {
            Sharing::Split { dim, blocks } if tensor > 1 => {
                let block = whole[dim] / blocks;
                let piece = block / tensor;
                let start = |number: usize| number * block + rank * piece;
                let ranges = (0..blocks).map(|number| start(number)..start(number) + piece);
                Slice { dim, ranges: ranges.collect(), flat: None }
            }
            Sharing::Split { .. } | Sharing::Replicated => Slice::whole(whole),
        }
    }

    /// The elements `range` of this slice.
    #[must_use]
    pub fn elements(mut self, range: Range<usize>) -> Slice {
        let offset = self.flat.as_ref().map_or(0, |flat| flat.start);
        self.flat = Some(offset + range.start..offset + range.end);
        self
    }

    /// This slice of a tensor that ends after `rows` rows; may be empty.
    ///
    /// Rows that are left out are the slice's last, if it is cut along dim 0 (the vocabulary is).
    #[must_use]
    pub fn first_rows(&self, rows: usize, whole: &[usize]) -> Slice {
        let mut slice = self.clone();
        if slice.dim == 0 {
            let cut = slice.ranges.iter().map(|range| range.start..range.end.min(rows));
            slice.ranges = cut.filter(|range| !range.is_empty()).collect();
            let left = slice.rows() * whole[1..].iter().product::<usize>();
            slice.flat = self.flat.as_ref().map(|flat| flat.start.min(left)..flat.end.min(left));
        }
        slice
    }

    /// The slice's own shape.
    pub fn shape(&self, whole: &[usize]) -> Vec<usize> {
        if let Some(flat) = &self.flat {
            return vec![flat.len()];
        }
        let mut shape = whole.to_vec();
        shape[self.dim] = self.rows();
        shape
    }

    /// Its number of elements.
    pub fn element_count(&self, whole: &[usize]) -> usize {
        self.shape(whole).iter().product()
    }

    /// What is wrong with it as a part of a tensor of shape `whole`, if anything is.
    pub fn problem(&self, whole: &[usize]) -> Option<&'static str> {
        let Some(&size) = whole.get(self.dim) else {
            return Some("it cuts a dim that is not there");
        };
        let mut end = 0;
        for range in &self.ranges {
            if range.start < end || range.is_empty() || range.end > size {
                return Some("its ranges do not fit the tensor");
            }
            end = range.end;
        }
        let cut = Slice { flat: None, ..self.clone() };
        match &self.flat {
            Some(flat) if flat.start > flat.end || flat.end > cut.element_count(whole) => {
                Some("its elements do not fit the tensor")
            }
            _ => None,
        }
    }

    /// Where its elements lie in the whole tensor: ascending runs of row-major indices.
    pub fn runs<'a>(&'a self, whole: &[usize]) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let inner: usize = whole[self.dim + 1..].iter().product();
        let outer: usize = whole[..self.dim].iter().product();
        let (stride, kept) = (whole[self.dim] * inner, self.rows() * inner);
        let flat = self.flat.clone().unwrap_or(0..outer * kept);
        let lines =
            if flat.is_empty() { 0..0 } else { flat.start / kept..(flat.end - 1) / kept + 1 };
        lines.flat_map(move |line| {
            let (mut local, flat) = (line * kept, flat.clone());
            self.ranges.iter().filter_map(move |range| {
                let here = local..local + range.len() * inner;
                local = here.end;
                let (from, to) = (flat.start.max(here.start), flat.end.min(here.end));
                let start = line * stride + range.start * inner;
                (from < to).then(|| start + from - here.start..start + to - here.start)
            })
        })
    }

    fn rows(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }
}

/// Elements that two slices of one tensor share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// Where they begin in the first slice.
    pub from: usize,
    /// Where they begin in the second.
    pub to: usize,
    /// How many.
    pub len: usize,
}

/// What slice `from` and slice `to` of a tensor of shape `whole` share, in order.
pub fn overlaps(from: &Slice, to: &Slice, whole: &[usize]) -> Vec<Overlap> {
    let (mut sources, mut targets) = (Runs::new(from, whole), Runs::new(to, whole));
    let mut found = Vec::new();
    while let (Some(source), Some(target)) = (sources.current(), targets.current()) {
        let start = source.start.max(target.start);
        let end = source.end.min(target.end);
        if start < end {
            found.push(Overlap {
                from: sources.before + start - source.start,
                to: targets.before + start - target.start,
                len: end - start,
            });
        }
        if source.end <= target.end {
            sources.advance();
        } else {
            targets.advance();
        }
    }
    found
}

/// Runs of a slice and how many of its elements came before.
struct Runs<I: Iterator<Item = Range<usize>>> {
    runs: std::iter::Peekable<I>,
    before: usize,
}

impl Runs<std::iter::Empty<Range<usize>>> {
    fn new<'a>(
        slice: &'a Slice,
        whole: &[usize],
    ) -> Runs<impl Iterator<Item = Range<usize>> + use<'a>> {
        Runs { runs: slice.runs(whole).peekable(), before: 0 }
    }
}

impl<I: Iterator<Item = Range<usize>>> Runs<I> {
    fn current(&mut self) -> Option<Range<usize>> {
        self.runs.peek().cloned()
    }

    fn advance(&mut self) {
        self.before += self.runs.next().map_or(0, |run| run.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The elements of `slice` in a tensor of shape `[4, 12]` whose elements are their indices.
    fn elements(slice: &Slice) -> Vec<usize> {
        slice.runs(&WHOLE).flatten().collect()
    }

    const WHOLE: [usize; 2] = [4, 12];

    #[test]
    fn a_rank_holds_its_piece_of_every_block() {
        let halves = Sharing::Split { dim: 0, blocks: 2 };
        let slice = Slice::of_rank(&WHOLE, halves, 2, 1);
        assert_eq!(slice.ranges, [1..2, 3..4]);
        assert_eq!(elements(&slice), (12..24).chain(36..48).collect::<Vec<_>>());
        let columns = Slice::of_rank(&WHOLE, Sharing::Split { dim: 1, blocks: 1 }, 3, 2);
        assert_eq!(elements(&columns)[..5], [8, 9, 10, 11, 20]);
        assert_eq!(columns.shape(&WHOLE), [4, 4]);
        assert_eq!(Slice::of_rank(&WHOLE, halves, 1, 0), Slice::whole(&WHOLE));
    }

    #[test]
    fn elements_of_a_slice_are_its_row_major_ones() {
        let columns = Slice { dim: 1, ranges: vec![1..3, 6..8], flat: None };
        let all = elements(&columns);
        for start in 0..=all.len() {
            for end in start..=all.len() {
                let part = columns.clone().elements(start..end);
                assert_eq!(elements(&part), all[start..end]);
            }
        }
        let twice = columns.elements(2..12).elements(3..6);
        assert_eq!(elements(&twice), all[5..8]);
    }

    #[test]
    fn the_first_rows_lose_the_tail() {
        let slice = Slice { dim: 0, ranges: vec![1..2, 3..4], flat: None };
        assert_eq!(slice.first_rows(3, &WHOLE).ranges, vec![1..2]);
        assert!(slice.first_rows(1, &WHOLE).ranges.is_empty());
        let flat = slice.elements(6..20).first_rows(3, &WHOLE);
        assert_eq!(flat.flat, Some(6..12));
    }

    #[test]
    fn slices_that_do_not_fit_are_told() {
        let slice =
            |dim, ranges: &[Range<usize>], flat| Slice { dim, ranges: ranges.to_vec(), flat };
        let check = |slice: &Slice, found: bool| {
            assert_eq!(slice.problem(&WHOLE).is_some(), found, "{slice:?}");
        };
        check(&slice(0, &[0..1, 2..4], None), false);
        check(&slice(2, std::slice::from_ref(&(0..1)), None), true);
        check(&slice(0, &[2..3, 1..2], None), true);
        check(&slice(1, std::slice::from_ref(&(3..13)), None), true);
        check(&slice(1, std::slice::from_ref(&(3..5)), Some(0..9)), true);
        let text = r#"{"dim":1,"ranges":[[3,5]],"flat":[0,9]}"#;
        let read: Slice = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }

    prop_compose! {
        fn any_slice()(
            dim in 0..2_usize,
            cuts in proptest::collection::btree_set(0..13_usize, 2..6),
            ends in (0..100_usize, 0..100_usize),
            flat in any::<bool>(),
        ) -> Slice {
            let cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(WHOLE[dim])).collect();
            let ranges = cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]);
            let ranges = ranges.filter(|range| !range.is_empty()).collect();
            let slice = Slice { dim, ranges, flat: None };
            let count = slice.element_count(&WHOLE);
            let (one, two) = (ends.0.min(count), ends.1.min(count));
            if flat { slice.elements(one.min(two)..one.max(two)) } else { slice }
        }
    }

    proptest! {
        #[test]
        fn overlaps_are_the_common_elements(one in any_slice(), two in any_slice()) {
            prop_assert_eq!(one.problem(&WHOLE), None);
            prop_assert_eq!(one.element_count(&WHOLE), elements(&one).len());
            let (from, to) = (elements(&one), elements(&two));
            let mut found = Vec::new();
            for overlap in overlaps(&one, &two, &WHOLE) {
                let left = &from[overlap.from..overlap.from + overlap.len];
                prop_assert_eq!(left, &to[overlap.to..overlap.to + overlap.len]);
                found.extend_from_slice(left);
            }
            let common: Vec<usize> = from.iter().copied().filter(|at| to.contains(at)).collect();
            prop_assert_eq!(found, common);
        }
    }
}

//! Embeddings.

use super::context::{format, of};
use super::{address, check, ffi, hold, hold_optional, optional, size};
use crate::kernels::Result;
use crate::kernels::embedding::Lookup;
use crate::kernels::timing::Part;
use candle_core::{DType, Tensor, bail};

/// The word's row plus, if given, the position's, in the table's format.
pub(in crate::kernels) fn forward(
    word: &Lookup<'_>,
    position: Option<&Lookup<'_>>,
) -> Result<Tensor> {
    let ((rows, width), dtype) = (word.table.dims2()?, word.table.dtype());
    let (tokens, context) = (word.ids.len(), of(word.table)?);
    let ids = context.words(word.ids)?;
    let positions = optional(position.map(|position| position.table), dtype)?;
    let places = position.map(|position| offset_words(&context, position)).transpose()?;
    let out = context.unfilled((tokens, width), dtype)?;
    let (table, ids, to) = (hold(word.table)?, hold(&ids)?, hold(&out)?);
    let (positions, places) = (hold_optional(positions.as_ref())?, hold_optional(places.as_ref())?);
    let work = context.work(Part::Embedding)?;
    let code = ffi::sft_gather(
        work.stream(),
        format(dtype)?,
        table.at(),
        ids.at(),
        size(word.first),
        size(rows),
        address(positions.as_ref()),
        address(places.as_ref()),
        to.at(),
        size(tokens),
        size(width),
    );
    check("embedding", code)?;
    drop(to);
    Ok(out)
}

/// A lookup's rows on the device.
fn offset_words(context: &super::context::Context, lookup: &Lookup<'_>) -> Result<Tensor> {
    if lookup.first == 0 {
        return context.words(lookup.ids);
    }
    let first = lookup.first as u32;
    context.words(&lookup.ids.iter().map(|id| id.wrapping_sub(first)).collect::<Vec<_>>())
}

/// Adds each row of `dy` to its token's row; `order` has (row, token) pairs sorted.
pub(in crate::kernels) fn backward(
    gradient: &Lookup<'_>,
    dy: &Tensor,
    order: impl FnOnce() -> Vec<(usize, usize)>,
) -> Result<()> {
    let (table, width) = (gradient.table, dy.dim(1)?);
    if table.dtype() != DType::F32 && table.dtype() != dy.dtype() {
        bail!("rows of {:?} cannot be added to a table of {:?}", dy.dtype(), table.dtype())
    }
    let (context, what) = (of(dy)?, format!("{:?} from {}", table.dims(), gradient.first));
    // The table's size and first id decide which tokens count: they are part of what is kept.
    let mut key = gradient.ids.to_vec();
    key.extend([table.dim(0)? as u32, gradient.first as u32]);
    let lists = context.of_words("order", &key, || {
        let [unique, bounds, tokens] = runs(&order());
        let send = |list: Vec<u32>| Tensor::from_vec(list.clone(), list.len(), context.device());
        Ok(vec![send(unique)?, send(bounds)?, send(tokens)?])
    })?;
    let [unique, bounds, tokens] = &lists[..] else { bail!("no order for {what}") };
    let count = size(unique.elem_count());
    if count == 0 {
        return Ok(());
    }
    let (unique, bounds, tokens) = (hold(unique)?, hold(bounds)?, hold(tokens)?);
    let (to, rows) = (hold(table)?, hold(dy)?);
    let work = context.work(Part::Embedding)?;
    let code = ffi::sft_scatter_add(
        work.stream(),
        format(table.dtype())?,
        to.at(),
        unique.at(),
        count,
        bounds.at(),
        tokens.at(),
        format(dy.dtype())?,
        rows.at(),
        size(width),
    );
    check("embedding's gradient", code)
}

/// The rows that occur, where each one's tokens begin (and the last end), and the tokens.
fn runs(order: &[(usize, usize)]) -> [Vec<u32>; 3] {
    let (mut unique, mut bounds) = (Vec::new(), Vec::new());
    for (index, (row, _)) in order.iter().enumerate() {
        if unique.last() != Some(&(*row as u32)) {
            unique.push(*row as u32);
            bounds.push(index as u32);
        }
    }
    bounds.push(order.len() as u32);
    [unique, bounds, order.iter().map(|(_, token)| *token as u32).collect()]
}

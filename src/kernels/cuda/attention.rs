//! Attention: cuDNN's where it has a form and is there, our own kernels else.

use super::context::{Context, Mask, format, of};
use super::ffi::Heads;
use super::{check, ffi, hold, in_format, size};
use crate::kernels::Result;
use crate::kernels::attention::{Continued, ProbabilityDropout, Shape};
use crate::kernels::timing::Part;
use candle_core::{DType, Tensor, bail};

/// How cuDNN sees the sequences of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// Rounded up where lengths differ, so that few plans serve all batches; the last ones are empty.
    sequences: usize,
    /// Of every sequence, or at least of the longest, rounded up.
    length: usize,
    uniform: bool,
}

impl Layout {
    fn of(starts: &[usize]) -> Layout {
        let lengths = || starts.windows(2).map(|pair| pair[1] - pair[0]);
        let longest = lengths().max().unwrap_or_default();
        let sequences = starts.len().saturating_sub(1);
        // A plan per length is worth it where lengths repeat: whole sequences, or several of one length.
        let repeats = sequences > 1 || longest % 128 == 0;
        if repeats && lengths().all(|length| length == longest) {
            return Layout { sequences, length: longest, uniform: true };
        }
        let length = if longest <= 512 {
            longest.next_power_of_two().max(64)
        } else {
            longest.next_multiple_of(512)
        };
        Layout { sequences: sequences.next_power_of_two(), length, uniform: false }
    }

    /// Numbers of f32 for one softmax statistic per head and place, padding included.
    fn statistics(&self, shape: &Shape) -> usize {
        self.sequences * self.length * shape.heads
    }
}

/// The form of cuDNN's attention for these inputs, if it has one.
fn fused(
    context: &Context,
    dtype: DType,
    starts: &[usize],
    shape: &Shape,
    dropout: Option<&ProbabilityDropout<'_>>,
) -> Option<Layout> {
    let fits = dtype != DType::F32 && shape.head_dim.is_multiple_of(8) && shape.head_dim <= 256;
    let layout = Layout::of(starts);
    let tokens = starts.last().copied().unwrap_or_default();
    // Very uneven sequences would be mostly padding.
    let dense = layout.sequences * layout.length <= 8 * tokens.max(2048);
    let usable = fits && dense && tokens > 0 && dropout.is_none() && context.sdpa().is_some();
    usable.then_some(layout)
}

/// The output `[tokens, heads·head_dim]` and the softmax's logarithmic sums, in the form that ran.
pub(in crate::kernels) fn forward(
    qkv: &Tensor,
    starts: &[usize],
    shape: &Shape,
    dropout: Option<&ProbabilityDropout<'_>>,
) -> Result<(Tensor, Tensor)> {
    let (tokens, dtype, context) = (qkv.dim(0)?, qkv.dtype(), of(qkv)?);
    let output = context.unfilled((tokens, shape.output_width()), dtype)?;
    if let Some(layout) = fused(&context, dtype, starts, shape, dropout) {
        let sums = context.unfilled(layout.statistics(shape), DType::F32)?;
        let lists = offsets(&context, starts, layout, shape)?;
        let held = lists.iter().map(hold).collect::<Result<Vec<_>>>()?;
        let [lengths, qkv_offsets, o_offsets] =
            [0, 1, 2].map(|index| super::address(held.get(index)));
        let (values, out, statistics) = (hold(qkv)?, hold(&output)?, hold(&sums)?);
        let Some(mut sdpa) = context.sdpa() else { bail!("cuDNN is gone") };
        let work = context.work(Part::Attention)?;
        let code = ffi::libraries::sft_sdpa_forward(
            sdpa.handle(),
            work.stream(),
            format(dtype)?,
            size(layout.sequences),
            size(layout.length),
            size(shape.heads),
            size(shape.groups),
            size(shape.head_dim),
            shape.scale as f32,
            lengths,
            qkv_offsets,
            o_offsets,
            values.at(),
            out.at(),
            statistics.at(),
        );
        check("attention", code)?;
        drop((out, statistics));
        return Ok((output, sums));
    }
    let sums = context.unfilled((tokens, shape.heads), DType::F32)?;
    let tiles = tiles(&context, starts)?;
    let mask = context.mask(dropout.map(|dropout| &dropout.dropout), tokens)?;
    let addresses = mask.as_ref().map(Mask::hold).transpose()?;
    let argument = mask.as_ref().zip(addresses.as_ref()).map(|(mask, held)| mask.argument(held));
    let (values, out, log_sums, list) = (hold(qkv)?, hold(&output)?, hold(&sums)?, hold(&tiles)?);
    let work = context.work(Part::Attention)?;
    let code = ffi::sft_attention_forward(
        work.stream(),
        format(dtype)?,
        &heads(shape, dropout),
        argument.as_ref(),
        list.at(),
        size(tiles.elem_count() / 4),
        values.at(),
        out.at(),
        log_sums.at(),
    );
    check("attention", code)?;
    drop((out, log_sums));
    Ok((output, sums))
}

/// What the forward left, and the output's gradient.
pub(in crate::kernels) struct Backward<'a> {
    pub(in crate::kernels) qkv: &'a Tensor,
    pub(in crate::kernels) output: &'a Tensor,
    pub(in crate::kernels) log_sums: &'a Tensor,
    pub(in crate::kernels) dy: &'a Tensor,
}

/// The gradient of qkv.
pub(in crate::kernels) fn backward(
    by: &Backward<'_>,
    starts: &[usize],
    shape: &Shape,
    dropout: Option<&ProbabilityDropout<'_>>,
) -> Result<Tensor> {
    let (tokens, dtype, context) = (by.qkv.dim(0)?, by.qkv.dtype(), of(by.qkv)?);
    let dqkv = context.unfilled((tokens, shape.qkv_width()), dtype)?;
    let dy = in_format(by.dy, dtype)?;
    let (qkv, output, sums, dy) = (hold(by.qkv)?, hold(by.output)?, hold(by.log_sums)?, hold(&dy)?);
    let to = hold(&dqkv)?;
    if let Some(layout) = fused(&context, dtype, starts, shape, dropout) {
        let lists = offsets(&context, starts, layout, shape)?;
        let held = lists.iter().map(hold).collect::<Result<Vec<_>>>()?;
        let [lengths, qkv_offsets, o_offsets] =
            [0, 1, 2].map(|index| super::address(held.get(index)));
        let Some(mut sdpa) = context.sdpa() else { bail!("cuDNN is gone") };
        let work = context.work(Part::Attention)?;
        let code = ffi::libraries::sft_sdpa_backward(
            sdpa.handle(),
            work.stream(),
            format(dtype)?,
            size(layout.sequences),
            size(layout.length),
            size(shape.heads),
            size(shape.groups),
            size(shape.head_dim),
            shape.scale as f32,
            lengths,
            qkv_offsets,
            o_offsets,
            qkv.at(),
            output.at(),
            sums.at(),
            dy.at(),
            to.at(),
        );
        check("attention's gradient", code)?;
        drop(to);
        return Ok(dqkv);
    }
    let tiles = tiles(&context, starts)?;
    let along = context.unfilled((tokens, shape.heads), DType::F32)?;
    let mask = context.mask(dropout.map(|dropout| &dropout.dropout), tokens)?;
    let addresses = mask.as_ref().map(Mask::hold).transpose()?;
    let argument = mask.as_ref().zip(addresses.as_ref()).map(|(mask, held)| mask.argument(held));
    let (list, along) = (hold(&tiles)?, hold(&along)?);
    let work = context.work(Part::Attention)?;
    let code = ffi::sft_attention_backward(
        work.stream(),
        format(dtype)?,
        &heads(shape, dropout),
        argument.as_ref(),
        list.at(),
        size(tiles.elem_count() / 4),
        qkv.at(),
        output.at(),
        sums.at(),
        dy.at(),
        along.at(),
        to.at(),
        size(tokens),
    );
    check("attention's gradient", code)?;
    drop(to);
    Ok(dqkv)
}

/// Appends the new rows' keys and values to the cache and attends; `values` is the cache
/// `[blocks, BLOCK, groups·2·head_dim]`.
pub(in crate::kernels) fn cached(
    qkv: &Tensor,
    values: &Tensor,
    continued: &Continued<'_>,
    shape: &Shape,
) -> Result<Tensor> {
    let (rows, dtype, context) = (qkv.dim(0)?, qkv.dtype(), of(qkv)?);
    if values.dtype() != dtype {
        bail!("the cache holds {:?}, the new rows are {dtype:?}", values.dtype())
    }
    let where_to = context.words(continued.list())?;
    let output = context.unfilled((rows, shape.output_width()), dtype)?;
    let (new, cache, out) = (hold(qkv)?, hold(values)?, hold(&output)?);
    let where_to = hold(&where_to)?;
    let work = context.work(Part::Attention)?;
    let code = ffi::sft_attention_cached(
        work.stream(),
        format(dtype)?,
        &heads(shape, None),
        new.at(),
        cache.at(),
        where_to.at(),
        size(continued.sequences()),
        size(continued.widest()),
        size(values.dim(1)?),
        out.at(),
        size(rows),
    );
    check("cached attention", code)?;
    drop(out);
    Ok(output)
}

#[expect(clippy::cast_possible_wrap, reason = "heads and widths are far below 2^31")]
fn heads(shape: &Shape, dropout: Option<&ProbabilityDropout<'_>>) -> Heads {
    Heads {
        heads: shape.heads as i32,
        groups: shape.groups as i32,
        head_dim: shape.head_dim as i32,
        scale: shape.scale as f32,
        first_head: dropout.map_or(0, |dropout| dropout.first_head as i32),
        all_heads: dropout.map_or(shape.heads, |dropout| dropout.all_heads) as i32,
    }
}

/// (from, to, begin, end) of every tile of every sequence.
fn tiles(context: &Context, starts: &[usize]) -> Result<Tensor> {
    let make = || {
        let size = usize::try_from(ffi::sft_attention_tile()).unwrap_or(64);
        let mut list = Vec::new();
        for pair in starts.windows(2) {
            for from in (pair[0]..pair[1]).step_by(size) {
                list.extend(
                    [from, pair[1].min(from + size), pair[0], pair[1]].map(|row| row as u32),
                );
            }
        }
        Ok(vec![Tensor::new(list, context.device())?])
    };
    Ok(context.of_starts("tiles", starts, make)?.swap_remove(0))
}

/// Lengths, and offsets of the sequences in qkv and in the output, counted in numbers; nothing when uniform.
fn offsets(
    context: &Context,
    starts: &[usize],
    layout: Layout,
    shape: &Shape,
) -> Result<Vec<Tensor>> {
    if layout.uniform {
        return Ok(Vec::new());
    }
    // The widths are part of what is kept.
    let mut key = starts.to_vec();
    key.extend([layout.sequences, shape.qkv_width(), shape.output_width()]);
    context.of_starts("offsets", &key, || {
        let end = starts.last().copied().unwrap_or_default();
        let mut padded = starts.to_vec();
        padded.resize(layout.sequences + 1, end);
        let lengths: Vec<u32> = padded.windows(2).map(|pair| (pair[1] - pair[0]) as u32).collect();
        let times =
            |width: usize| padded.iter().map(|start| (start * width) as u32).collect::<Vec<_>>();
        [lengths, times(shape.qkv_width()), times(shape.output_width())]
            .into_iter()
            .map(|list| Tensor::new(list, context.device()))
            .collect()
    })
}

//! Attention's backward: scores remade from the log-sum-exp, then the gradients of q, k and v.

use super::{ProbabilityDropout, Saved, Shape, check_starts, cut};
use crate::kernels::Result;
use crate::kernels::carrier::{expect_shape, on_real, read, tensor};
use crate::kernels::launch::vectorized;
use crate::kernels::real::Real;
use candle_core::Tensor;
use rayon::prelude::*;

/// The gradient of qkv, in its layout, from `dy` `[tokens, heads·head_dim]`.
///
/// `starts`, `shape` and `dropout` are the forward's. With probabilities `p`, their dropped form `p̃`
/// and `dp̃ = dy·vᵀ`: `dv = p̃ᵀ·dy`, `ds = p ∘ (mask ∘ dp̃ - Σ dy∘y)`, `dq = scale·ds·k`, `dk = scale·dsᵀ·q`.
pub fn backward(
    saved: &Saved,
    starts: &[usize],
    shape: &Shape,
    dropout: Option<&ProbabilityDropout<'_>>,
    dy: &Tensor,
) -> Result<Tensor> {
    let tokens = dy.dim(0)?;
    shape.check()?;
    expect_shape("dy", dy, &[tokens, shape.output_width()])?;
    expect_shape("the saved qkv", &saved.qkv, &[tokens, shape.qkv_width()])?;
    check_starts(starts, tokens)?;
    if let Some(dropout) = dropout {
        dropout.dropout.check(tokens)?;
    }
    on_real!(dy, T => {
        let (qkv, output) = (read::<T>(&saved.qkv)?, read::<T>(&saved.output)?);
        let (log_sums, dy) = (read::<T>(&saved.log_sums)?, read::<T>(dy)?);
        let mut dqkv = vec![T::ZERO; qkv.len()];
        let (qkv, output, log_sums, dy): (&[T], &[T], &[T], &[T]) = (&qkv, &output, &log_sums, &dy);
        let parts = cut(&mut dqkv, shape.qkv_width(), starts);
        parts.into_par_iter().enumerate().for_each(|(index, dqkv)| {
            let rows = |values, width| rows::<T>(values, width, starts[index], starts[index + 1]);
            let inputs = Inputs {
                first: starts[index],
                qkv: rows(qkv, shape.qkv_width()),
                output: rows(output, shape.output_width()),
                log_sums: rows(log_sums, shape.heads),
                dy: rows(dy, shape.output_width()),
            };
            sequence(inputs, shape, dropout, dqkv);
        });
        tensor(dqkv, (tokens, shape.qkv_width()))
    })
}

fn rows<T>(values: &[T], width: usize, from: usize, to: usize) -> &[T] {
    &values[from * width..to * width]
}

/// One sequence's rows of the forward and of the output's gradient.
struct Inputs<'a, T> {
    first: usize,
    qkv: &'a [T],
    output: &'a [T],
    log_sums: &'a [T],
    dy: &'a [T],
}

vectorized! {
    fn sequence<T: Real>(
        inputs: Inputs<'_, T>,
        shape: &Shape,
        dropout: Option<&ProbabilityDropout<'_>>,
        dqkv: &mut [T],
    ) {
        let (width, d, scale) = (shape.qkv_width(), shape.head_dim, T::of(shape.scale));
        let length = inputs.qkv.len() / width;
        let mut factors = vec![T::ONE; length];
        for (query, head) in (0..length).flat_map(|query| (0..shape.heads).map(move |h| (query, h))) {
            let key_at = shape.key(head / shape.heads_per_group());
            let query_at = query * width + shape.query(head);
            let at = query * shape.heads + head;
            let (dy, y) = (&inputs.dy[at * d..][..d], &inputs.output[at * d..][..d]);
            let along: T = dy.iter().zip(y).map(|(dy, y)| *dy * *y).sum();
            if let Some(dropout) = dropout {
                dropout.for_keys(inputs.first + query, head, query, |key, factor| {
                    factors[key] = T::of(factor);
                });
            }
            for (key, factor) in factors[..=query].iter().enumerate() {
                let key_at = key * width + key_at;
                let q = &inputs.qkv[query_at..][..d];
                let (k, v) = inputs.qkv[key_at..][..2 * d].split_at(d);
                let score: T = q.iter().zip(k).map(|(q, k)| *q * *k).sum();
                let p = (score * scale - inputs.log_sums[at]).exponential();
                let dp: T = dy.iter().zip(v).map(|(dy, v)| *dy * *v).sum();
                let ds = p * (*factor * dp - along) * scale;
                for channel in 0..d {
                    dqkv[query_at + channel] += ds * k[channel];
                    dqkv[key_at + channel] += ds * q[channel];
                    dqkv[key_at + d + channel] += p * *factor * dy[channel];
                }
            }
        }
    }
}

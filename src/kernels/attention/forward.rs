//! Attention's forward: a block of queries against all keys before them.

use super::{ProbabilityDropout, Shape, check_starts, cut};
use crate::kernels::Result;
use crate::kernels::carrier::{expect_shape, on_real, read, tensor};
use crate::kernels::launch::{unfilled, vectorized};
use crate::kernels::real::Real;
use candle_core::Tensor;
use rayon::prelude::*;

/// What the backward needs of the forward.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The qkv tensor as attention saw it.
    pub(super) qkv: Tensor,
    /// The output `[tokens, heads·head_dim]`.
    pub(super) output: Tensor,
    /// log Σ e^score of each token and head `[tokens, heads]`.
    pub(super) log_sums: Tensor,
}

/// Attention over `qkv` `[tokens, (heads + 2·groups)·head_dim]`; gives `[tokens, heads·head_dim]`.
///
/// `starts` holds the first row of each sequence and, last, the number of tokens.
pub fn forward(
    qkv: &Tensor,
    starts: &[usize],
    shape: &Shape,
    dropout: Option<&ProbabilityDropout<'_>>,
) -> Result<(Tensor, Saved)> {
    let tokens = qkv.dim(0)?;
    shape.check()?;
    expect_shape("qkv", qkv, &[tokens, shape.qkv_width()])?;
    check_starts(starts, tokens)?;
    if let Some(dropout) = dropout {
        dropout.dropout.check(tokens)?;
    }
    on_real!(qkv, T => {
        let values = read::<T>(qkv)?;
        let values: &[T] = &values;
        let mut output = unfilled::<T>(tokens * shape.output_width());
        let mut log_sums = unfilled::<T>(tokens * shape.heads);
        let outputs = cut(&mut output, shape.output_width(), starts);
        let sums = cut(&mut log_sums, shape.heads, starts);
        outputs.into_par_iter().zip(sums).enumerate().for_each(|(index, (output, log_sums))| {
            let width = shape.qkv_width();
            let qkv = &values[starts[index] * width..starts[index + 1] * width];
            sequence(qkv, starts[index], shape, dropout, output, log_sums);
        });
        let output = tensor(output, (tokens, shape.output_width()))?;
        let log_sums = tensor(log_sums, (tokens, shape.heads))?;
        Ok((output.clone(), Saved { qkv: qkv.clone(), output, log_sums }))
    })
}

vectorized! {
    fn sequence<T: Real>(
        qkv: &[T],
        first: usize,
        shape: &Shape,
        dropout: Option<&ProbabilityDropout<'_>>,
        output: &mut [T],
        log_sums: &mut [T],
    ) {
        let (width, d) = (shape.qkv_width(), shape.head_dim);
        let length = qkv.len() / width;
        let mut scores = vec![T::ZERO; length];
        for query in 0..length {
            for head in 0..shape.heads {
                let key_at = shape.key(head / shape.heads_per_group());
                let q = &qkv[query * width + shape.query(head)..][..d];
                for (key, score) in scores[..=query].iter_mut().enumerate() {
                    let k = &qkv[key * width + key_at..][..d];
                    let dot: T = q.iter().zip(k).map(|(q, k)| *q * *k).sum();
                    *score = dot * T::of(shape.scale);
                }
                let log_sum = softmax(&mut scores[..=query]);
                log_sums[query * shape.heads + head] = log_sum;
                if let Some(dropout) = dropout {
                    dropout.for_keys(first + query, head, query, |key, factor| {
                        scores[key] *= T::of(factor);
                    });
                }
                let out = &mut output[(query * shape.heads + head) * d..][..d];
                out.fill(T::ZERO);
                for (key, probability) in scores[..=query].iter().enumerate() {
                    let v = &qkv[key * width + key_at + d..][..d];
                    for (out, v) in out.iter_mut().zip(v) {
                        *out = probability.fma(*v, *out);
                    }
                }
            }
        }
    }
}

/// Softmax in place; gives the log-sum-exp.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of vectorised loops")]
pub(super) fn softmax<T: Real>(scores: &mut [T]) -> T {
    let mut max = scores[0];
    for score in &*scores {
        max = max.larger(*score);
    }
    let mut sum = T::ZERO;
    for score in scores.iter_mut() {
        *score = (*score - max).exponential();
        sum += *score;
    }
    let factor = T::ONE / sum;
    for score in scores {
        *score *= factor;
    }
    max + sum.logarithm()
}

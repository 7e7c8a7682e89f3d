//! Attention.

use super::{assert_close, autograd, f32_of, random, var};
use candle_core::{D, DType, Device, Tensor};
use sft_run::base::seed::Stream;
use sft_run::kernels::attention::{self, Cache, Continued, ProbabilityDropout, Shape};
use sft_run::kernels::dropout::Dropout;

fn shape(heads: usize, groups: usize, head_dim: usize) -> Shape {
    Shape { heads, groups, head_dim, scale: 1.0 / (head_dim as f64).sqrt() }
}

/// Attention of one sequence from candle's plain operations; `masks[head]` multiplies probabilities.
fn oracle(qkv: &Tensor, shape: &Shape, masks: Option<&[Tensor]>) -> Tensor {
    let (length, d) = (qkv.dim(0).unwrap(), shape.head_dim);
    let per_group = shape.heads / shape.groups;
    let hidden: Vec<f64> = (0..length)
        .flat_map(|query| (0..length).map(move |key| if key > query { -1e30 } else { 0.0 }))
        .collect();
    let hidden = Tensor::from_vec(hidden, (length, length), &Device::Cpu).unwrap();
    let head = |head: usize| {
        let group = head / per_group;
        let key_at = (group + 1) * per_group + 2 * group;
        let part = |at: usize| qkv.narrow(1, at * d, d).unwrap();
        let (q, k, v) = (part(head + 2 * group), part(key_at), part(key_at + 1));
        let scores = (q.matmul(&k.t().unwrap()).unwrap() * shape.scale).unwrap();
        let scores = (scores + &hidden).unwrap();
        let max = scores.max_keepdim(D::Minus1).unwrap().detach();
        let weights = scores.broadcast_sub(&max).unwrap().exp().unwrap();
        let sums = weights.sum_keepdim(D::Minus1).unwrap();
        let mut probabilities = weights.broadcast_div(&sums).unwrap();
        if let Some(masks) = masks {
            probabilities = (probabilities * &masks[head]).unwrap();
        }
        probabilities.matmul(&v.contiguous().unwrap()).unwrap()
    };
    let heads: Vec<_> = (0..shape.heads).map(head).collect();
    Tensor::cat(&heads, 1).unwrap()
}

fn starts(lengths: &[usize]) -> Vec<usize> {
    let sums = lengths.iter().scan(0, |sum, length| {
        *sum += length;
        Some(*sum)
    });
    std::iter::once(0).chain(sums).collect()
}

fn check(shape: Shape, lengths: &[usize]) {
    let starts = starts(lengths);
    let tokens = starts[lengths.len()];
    let qkv = var("qkv", (tokens, shape.qkv_width()));
    let dy = random("dy", (tokens, shape.output_width()));
    let parts: Vec<_> = starts
        .windows(2)
        .filter(|pair| pair[0] < pair[1])
        .map(|pair| oracle(&qkv.narrow(0, pair[0], pair[1] - pair[0]).unwrap(), &shape, None))
        .collect();
    let expected = Tensor::cat(&parts, 0).unwrap();
    let gradient = autograd(&expected, &dy, &qkv);

    let (y, saved) = attention::forward(&qkv, &starts, &shape, None).unwrap();
    assert_close(&y, &expected, 1e-12);
    let dqkv = attention::backward(&saved, &starts, &shape, None, &dy).unwrap();
    assert_close(&dqkv, &gradient, 1e-12);

    let (y, saved) = attention::forward(&f32_of(&qkv), &starts, &shape, None).unwrap();
    assert_close(&y, &expected, 2e-6);
    let dqkv = attention::backward(&saved, &starts, &shape, None, &f32_of(&dy)).unwrap();
    assert_close(&dqkv, &gradient, 5e-6);
}

#[test]
fn attention_agrees_with_autograd() {
    check(shape(1, 1, 1), &[1]);
    check(shape(4, 4, 24), &[25, 3, 1, 60, 0, 33]);
    check(shape(4, 2, 5), &[7, 40]);
    check(shape(6, 1, 16), &[17, 16, 15]);
    check(shape(3, 3, 33), &[130]);
    check(shape(2, 1, 8), &[300, 2, 257]);
}

#[test]
fn packed_sequences_do_not_see_each_other() {
    let shape = shape(4, 2, 12);
    let lengths = [31, 1, 90, 12];
    let starts = starts(&lengths);
    let qkv = f32_of(&random("qkv", (134, shape.qkv_width())));
    let dy = f32_of(&random("dy", (134, shape.output_width())));
    let (packed, saved) = attention::forward(&qkv, &starts, &shape, None).unwrap();
    let packed_gradient = attention::backward(&saved, &starts, &shape, None, &dy).unwrap();
    for (index, length) in lengths.into_iter().enumerate() {
        let rows = |tensor: &Tensor| tensor.narrow(0, starts[index], length).unwrap();
        let (alone, saved) = attention::forward(&rows(&qkv), &[0, length], &shape, None).unwrap();
        let gradient = attention::backward(&saved, &[0, length], &shape, None, &rows(&dy)).unwrap();
        assert_close(&alone, &rows(&packed), 1e-6);
        assert_close(&gradient, &rows(&packed_gradient), 1e-6);
    }
}

#[test]
fn dropout_masks_probabilities_by_address() {
    let shape = shape(4, 2, 8);
    let (tokens, starts) = (70, [0, 70]);
    let addresses: Vec<u64> = (0..tokens as u64).map(|token| 1000 + token).collect();
    let dropout = ProbabilityDropout {
        dropout: Dropout {
            rate: 0.25,
            stream: Stream::new(5, "p"),
            step: 2,
            addresses: &addresses,
            channels: None,
        },
        first_head: 0,
        all_heads: 4,
    };
    // With v = 1 in channel `key % d` of block `key / d`, outputs would be masked probabilities;
    // it is simpler to read the masks off the outputs of one-hot values, a block of keys at a time.
    let qkv = var("qkv", (tokens, shape.qkv_width()));
    let masks = masks_of(&qkv, &shape, &dropout);
    let expected = oracle(&qkv, &shape, Some(&masks));
    let dy = random("dy", (tokens, shape.output_width()));
    let (y, saved) = attention::forward(&qkv, &starts, &shape, Some(&dropout)).unwrap();
    assert_close(&y, &expected, 1e-12);
    let dqkv = attention::backward(&saved, &starts, &shape, Some(&dropout), &dy).unwrap();
    assert_close(&dqkv, &autograd(&expected, &dy, &qkv), 1e-12);

    // Two ranks with half the heads each see the same masks.
    let half = Shape { heads: 2, groups: 1, ..shape };
    for rank in 0..2 {
        let qkv = qkv.narrow(1, rank * half.qkv_width(), half.qkv_width()).unwrap();
        let dropout = ProbabilityDropout { first_head: 2 * rank, ..dropout };
        let qkv = qkv.contiguous().unwrap();
        let (part, _) = attention::forward(&qkv, &starts, &half, Some(&dropout)).unwrap();
        let whole = y.narrow(1, rank * half.output_width(), half.output_width()).unwrap();
        assert_close(&part, &whole, 1e-14);
    }
}

/// Each head's mask `[query, key]` of factors, read off attention over one-hot values.
fn masks_of(qkv: &Tensor, shape: &Shape, dropout: &ProbabilityDropout<'_>) -> Vec<Tensor> {
    let (tokens, d, heads) = (qkv.dim(0).unwrap(), shape.head_dim, shape.heads);
    let per_group = heads / shape.groups;
    let mut masks = vec![vec![0.0_f64; tokens * tokens]; heads];
    for block in 0..tokens.div_ceil(d) {
        let mut values = vec![0.0_f64; tokens * shape.qkv_width()];
        for key in block * d..tokens.min((block + 1) * d) {
            for group in 0..shape.groups {
                let value_at = ((group + 1) * (per_group + 2) - 1) * d;
                values[key * shape.qkv_width() + value_at + key - block * d] = 1.0;
            }
        }
        let one_hot = Tensor::from_vec(values, (tokens, shape.qkv_width()), &Device::Cpu).unwrap();
        // Queries and keys are zero: probabilities are 1 / (query + 1).
        let (y, _) = attention::forward(&one_hot, &[0, tokens], shape, Some(dropout)).unwrap();
        let y = super::numbers(&y);
        for (query, head) in (0..tokens).flat_map(|q| (0..heads).map(move |head| (q, head))) {
            for key in block * d..tokens.min((block + 1) * d) {
                let share = y[(query * heads + head) * d + key - block * d];
                masks[head][query * tokens + key] = share * (query + 1) as f64;
            }
        }
    }
    let dropped = masks[0].iter().filter(|factor| **factor == 0.0).count();
    assert!(dropped > tokens * (tokens - 1) / 2 + tokens, "some probabilities are dropped");
    let tensor = |mask| Tensor::from_vec(mask, (tokens, tokens), &Device::Cpu).unwrap();
    masks.into_iter().map(tensor).collect()
}

/// Two sequences.
fn of<'a>(
    starts: &'a [usize],
    blocks: [&[u32]; 2],
    lengths: &'a [usize],
) -> candle_core::Result<Continued<'a>> {
    Continued::new(starts, &blocks, lengths)
}

#[test]
fn decoding_against_a_cache_is_the_same_attention() {
    let shape = shape(4, 2, 12);
    let lengths = [23, 41];
    let starts = starts(&lengths);
    let qkv = random("qkv", (64, shape.qkv_width()));
    let (whole, _) = attention::forward(&qkv, &starts, &shape, None).unwrap();
    let cache = || Cache::new(5, &shape, (DType::F64, &Device::Cpu)).unwrap();
    let (here, elsewhere) = (cache(), cache());
    let blocks: [&[u32]; 2] = [&[3], &[4, 1]];
    // Prefill of 20 and 38 tokens, then three tokens one by one.
    let rows = |from: [usize; 2], count: [usize; 2]| {
        let part = |index: usize| qkv.narrow(0, starts[index] + from[index], count[index]).unwrap();
        Tensor::cat(&[part(0), part(1)], 0).unwrap()
    };
    let expected = |index: usize, from: usize, count: usize| {
        whole.narrow(0, starts[index] + from, count).unwrap()
    };
    let other_blocks: [&[u32]; 2] = [&[0], &[1, 2]];
    let continued = of(&[0, 20, 58], blocks, &[0, 0]).unwrap();
    let y = attention::cached(&rows([0, 0], [20, 38]), &here, &continued, &shape).unwrap();
    let other = of(&[0, 20, 58], other_blocks, &[0, 0]).unwrap();
    attention::cached(&rows([0, 0], [20, 38]), &elsewhere, &other, &shape).unwrap();
    assert_close(&y.narrow(0, 0, 20).unwrap(), &expected(0, 0, 20), 1e-12);
    assert_close(&y.narrow(0, 20, 38).unwrap(), &expected(1, 0, 38), 1e-12);
    for step in 0..3 {
        let lengths = [20 + step, 38 + step];
        let continued = of(&[0, 1, 2], blocks, &lengths).unwrap();
        let new = rows(lengths, [1, 1]);
        let y = attention::cached(&new, &here, &continued, &shape).unwrap();
        // The same bits wherever the blocks lie.
        let other = of(&[0, 1, 2], other_blocks, &lengths).unwrap();
        let again = attention::cached(&new, &elsewhere, &other, &shape).unwrap();
        assert_eq!(y.to_vec2::<f64>().unwrap(), again.to_vec2::<f64>().unwrap());
        assert_close(&y.narrow(0, 0, 1).unwrap(), &expected(0, lengths[0], 1), 1e-12);
        assert_close(&y.narrow(0, 1, 1).unwrap(), &expected(1, lengths[1], 1), 1e-12);
    }
    let refused = |blocks: [&[u32]; 2], lengths: [usize; 2]| {
        let new = rows([0, 0], [20, 38]);
        let continued = of(&[0, 20, 58], blocks, &lengths);
        let y = continued.and_then(|by| attention::cached(&new, &here, &by, &shape));
        y.unwrap_err().to_string()
    };
    let error = refused(blocks, [40, 0]);
    assert!(error.contains("sequence 0 has 1 blocks of 32 for 60 tokens"), "{error}");
    let error = refused([&[3], &[4, 5]], [0, 0]);
    assert!(error.contains("sequence 1 has block 5; the cache has 5"), "{error}");
}

#[test]
fn boundaries_that_do_not_cover_the_rows_are_refused() {
    let shape = shape(1, 1, 2);
    let qkv = random("qkv", (4, 6));
    for starts in [&[0, 3][..], &[1, 4], &[0, 3, 2, 4], &[]] {
        assert!(attention::forward(&qkv, starts, &shape, None).is_err(), "{starts:?}");
    }
}

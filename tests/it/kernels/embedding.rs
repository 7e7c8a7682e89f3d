//! Embeddings.

use super::{assert_close, autograd, random, started, var, zeros};
use candle_core::{Device, Tensor};
use sft_run::kernels::embedding::{self, Lookup};

fn ids(count: usize, rows: usize) -> Vec<u32> {
    (0..count).map(|at| ((at * at + 3 * at) % rows) as u32).collect()
}

#[test]
fn embeddings_agree_with_autograd() {
    let (word, position) = (var("word", (200, 10)), var("position", (30, 10)));
    let (tokens, places) = (ids(301, 200), ids(301, 30));
    let rows = |table: &Tensor, ids: &[u32]| {
        table.index_select(&Tensor::new(ids, &Device::Cpu).unwrap(), 0).unwrap()
    };
    let expected = (rows(&word, &tokens) + rows(&position, &places)).unwrap();
    let words = Lookup { table: &word, first: 0, ids: &tokens };
    let positions = Lookup { table: &position, first: 0, ids: &places };
    let y = embedding::forward(&words, Some(&positions)).unwrap();
    assert_close(&y, &expected, 0.0);

    let dy = random("dy", (301, 10));
    let (gradient, start) = started("gradient", (200, 10));
    embedding::backward(&Lookup { table: &gradient, ..words }, &dy).unwrap();
    assert_close(&gradient, &(autograd(&expected, &dy, &word) + start).unwrap(), 1e-14);
    let gradient = zeros((30, 10));
    embedding::backward(&Lookup { table: &gradient, ..positions }, &dy).unwrap();
    assert_close(&gradient, &autograd(&expected, &dy, &position), 1e-14);
}

#[test]
fn two_ranks_hold_half_the_vocabulary_each() {
    let (word, tokens) = (random("word", (20, 6)), ids(33, 20));
    let whole = embedding::forward(&Lookup { table: &word, first: 0, ids: &tokens }, None).unwrap();
    let half = |first: usize| {
        let table = word.narrow(0, first, 10).unwrap();
        embedding::forward(&Lookup { table: &table, first, ids: &tokens }, None).unwrap()
    };
    assert_close(&(half(0) + half(10)).unwrap(), &whole, 0.0);
}

#[test]
fn a_position_without_a_row_is_refused() {
    let (word, position) = (random("word", (4, 2)), random("position", (3, 2)));
    let words = Lookup { table: &word, first: 0, ids: &[0, 1] };
    let positions = Lookup { table: &position, first: 0, ids: &[2, 3] };
    let error = embedding::forward(&words, Some(&positions)).unwrap_err().to_string();
    assert!(error.contains("position 3 of token 1 is outside the 3 learned positions"), "{error}");
}

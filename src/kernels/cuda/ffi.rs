//! The C interface of the CUDA kernels.

#![expect(unsafe_code, reason = "foreign functions")]

pub(super) mod libraries;

pub(super) use super::arguments::{
    AdamW, Address, Dropout, Handle, Heads, LinearActivation, Stream,
};
use std::ffi::{c_char, c_int};

type A<'a> = Address<'a>;

// SAFETY: the declarations are those of the `.cu` and `.cpp` files beside this one. The functions
// only enqueue work on a stream (and allocate for the libraries); an `Address` is of numbers that
// are there, and each file of this room sees before a call that shapes and formats fit.
unsafe extern "C" {
    pub(super) safe fn sft_cuda_error(code: c_int) -> *const c_char;

    pub(super) safe fn sft_norm_backward_workspace(rows: i64, width: i64) -> i64;
    pub(super) safe fn sft_norm_forward(
        stream: Stream,
        format: c_int,
        kind: c_int,
        epsilon: f32,
        x: A<'_>,
        x_bias: A<'_>,
        dropout: Option<&Dropout<'_>>,
        residual: A<'_>,
        sum: A<'_>,
        weight: A<'_>,
        bias: A<'_>,
        y: A<'_>,
        moments: A<'_>,
        rows: i64,
        width: i64,
    ) -> c_int;
    pub(super) safe fn sft_norm_backward(
        stream: Stream,
        format: c_int,
        kind: c_int,
        x: A<'_>,
        moments: A<'_>,
        weight: A<'_>,
        bias: A<'_>,
        dy: A<'_>,
        residual: A<'_>,
        dx: A<'_>,
        y: A<'_>,
        workspace: A<'_>,
        d_weight: A<'_>,
        d_bias: A<'_>,
        d_sum: A<'_>,
        rows: i64,
        width: i64,
    ) -> c_int;
    pub(super) safe fn sft_column_workspace(rows: i64, width: i64) -> i64;
    pub(super) safe fn sft_column_sums(
        stream: Stream,
        format: c_int,
        x: A<'_>,
        rows: i64,
        width: i64,
        workspace: A<'_>,
        sum: A<'_>,
    ) -> c_int;
    pub(super) safe fn sft_activation_forward(
        stream: Stream,
        format: c_int,
        kind: c_int,
        x: A<'_>,
        bias: A<'_>,
        y: A<'_>,
        rows: i64,
        out_width: i64,
    ) -> c_int;
    pub(super) safe fn sft_activation_backward(
        stream: Stream,
        format: c_int,
        kind: c_int,
        x: A<'_>,
        bias: A<'_>,
        dy: A<'_>,
        dx: A<'_>,
        workspace: A<'_>,
        d_bias: A<'_>,
        rows: i64,
        out_width: i64,
    ) -> c_int;
    pub(super) safe fn sft_linear_activation_takes(of: &LinearActivation<'_>) -> c_int;
    pub(super) safe fn sft_linear_activation_forward(
        stream: Stream,
        of: &LinearActivation<'_>,
    ) -> c_int;
    pub(super) safe fn sft_linear_activation_backward(
        stream: Stream,
        of: &LinearActivation<'_>,
        workspace: A<'_>,
        d_bias: A<'_>,
    ) -> c_int;

    pub(super) safe fn sft_residual_forward(
        stream: Stream,
        format: c_int,
        x: A<'_>,
        bias: A<'_>,
        dropout: Option<&Dropout<'_>>,
        residual: A<'_>,
        y: A<'_>,
        rows: i64,
        width: i64,
    ) -> c_int;
    pub(super) safe fn sft_rotary(
        stream: Stream,
        format: c_int,
        qkv: A<'_>,
        table: A<'_>,
        positions: A<'_>,
        rows: i64,
        groups: i64,
        turning: i64,
        head_dim: i64,
        pairs: i64,
        sign: f32,
    ) -> c_int;
    pub(super) safe fn sft_scale(
        stream: Stream,
        format: c_int,
        x: A<'_>,
        count: i64,
        factor: f32,
    ) -> c_int;
    pub(super) safe fn sft_add(
        stream: Stream,
        format: c_int,
        x: A<'_>,
        y_format: c_int,
        y: A<'_>,
        count: i64,
        factor: f32,
    ) -> c_int;
    pub(super) safe fn sft_cast(
        stream: Stream,
        format: c_int,
        x: A<'_>,
        y_format: c_int,
        y: A<'_>,
        count: i64,
    ) -> c_int;
    pub(super) safe fn sft_clear(stream: Stream, x: A<'_>, bytes: i64) -> c_int;
    pub(super) safe fn sft_clear_ranges(
        stream: Stream,
        x: A<'_>,
        ranges: A<'_>,
        count: i64,
    ) -> c_int;

    pub(super) safe fn sft_gather(
        stream: Stream,
        format: c_int,
        table: A<'_>,
        ids: A<'_>,
        first: i64,
        rows: i64,
        positions: A<'_>,
        places: A<'_>,
        out: A<'_>,
        tokens: i64,
        width: i64,
    ) -> c_int;
    pub(super) safe fn sft_scatter_add(
        stream: Stream,
        table_format: c_int,
        table: A<'_>,
        unique: A<'_>,
        count: i64,
        bounds: A<'_>,
        order: A<'_>,
        format: c_int,
        dy: A<'_>,
        width: i64,
    ) -> c_int;

    pub(super) safe fn sft_argmax(
        stream: Stream,
        format: c_int,
        rows: A<'_>,
        forbidden: A<'_>,
        out: A<'_>,
        count: i64,
        width: i64,
        columns: i64,
    ) -> c_int;

    pub(super) safe fn sft_cross_entropy_statistics(
        stream: Stream,
        format: c_int,
        logits: A<'_>,
        labels: A<'_>,
        first: i64,
        vocab_size: i64,
        out: A<'_>,
        rows: i64,
        columns: i64,
    ) -> c_int;
    pub(super) safe fn sft_cross_entropy_gradient(
        stream: Stream,
        format: c_int,
        logits: A<'_>,
        labels: A<'_>,
        first: i64,
        vocab_size: i64,
        statistics: A<'_>,
        factor: f32,
        rows: i64,
        columns: i64,
    ) -> c_int;
    pub(super) safe fn sft_merge_statistics(
        stream: Stream,
        all: A<'_>,
        parts: i64,
        rows: i64,
        out: A<'_>,
    ) -> c_int;
    pub(super) safe fn sft_cross_entropy(
        stream: Stream,
        format: c_int,
        logits: A<'_>,
        labels: A<'_>,
        vocab_size: i64,
        statistics: A<'_>,
        factor: f32,
        rows: i64,
        columns: i64,
    ) -> c_int;
    pub(super) safe fn sft_loss_sum(
        stream: Stream,
        statistics: A<'_>,
        rows: i64,
        total: A<'_>,
    ) -> c_int;

    pub(super) safe fn sft_adamw(
        stream: Stream,
        parameters: A<'_>,
        gradients: A<'_>,
        first: A<'_>,
        second: A<'_>,
        copy_format: c_int,
        copy: A<'_>,
        count: i64,
        decaying: A<'_>,
        bounds: i64,
        by: &AdamW,
    ) -> c_int;
    pub(super) safe fn sft_adamw_split(
        stream: Stream,
        parameters: A<'_>,
        rest: A<'_>,
        gradients: A<'_>,
        first: A<'_>,
        second: A<'_>,
        count: i64,
        decaying: A<'_>,
        bounds: i64,
        by: &AdamW,
    ) -> c_int;
    pub(super) safe fn sft_join_masters(
        stream: Stream,
        parameters: A<'_>,
        rest: A<'_>,
        values: A<'_>,
        count: i64,
    ) -> c_int;
    pub(super) safe fn sft_squares_workspace() -> i64;
    pub(super) safe fn sft_sum_of_squares(
        stream: Stream,
        format: c_int,
        x: A<'_>,
        count: i64,
        workspace: A<'_>,
        total: A<'_>,
    ) -> c_int;

    pub(super) safe fn sft_attention_tile() -> i64;
    pub(super) safe fn sft_attention_forward(
        stream: Stream,
        format: c_int,
        heads: &Heads,
        dropout: Option<&Dropout<'_>>,
        tiles: A<'_>,
        count: i64,
        qkv: A<'_>,
        output: A<'_>,
        log_sums: A<'_>,
    ) -> c_int;
    pub(super) safe fn sft_attention_backward(
        stream: Stream,
        format: c_int,
        heads: &Heads,
        dropout: Option<&Dropout<'_>>,
        tiles: A<'_>,
        count: i64,
        qkv: A<'_>,
        output: A<'_>,
        log_sums: A<'_>,
        dy: A<'_>,
        along: A<'_>,
        dqkv: A<'_>,
        tokens: i64,
    ) -> c_int;
    pub(super) safe fn sft_attention_cached(
        stream: Stream,
        format: c_int,
        heads: &Heads,
        qkv: A<'_>,
        cache: A<'_>,
        where_to: A<'_>,
        sequences: i64,
        widest: i64,
        block: i64,
        output: A<'_>,
        rows: i64,
    ) -> c_int;
}

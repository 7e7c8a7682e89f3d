//! The C interface of the parts that call NVIDIA's libraries: products and attention.

use super::{A, Handle, Stream};
use std::ffi::{c_char, c_int, c_void};

// SAFETY: as beside the kernels' declarations; the files are `gemm.cpp` and `sdpa.cpp`.
unsafe extern "C" {
    pub(in crate::kernels::cuda) safe fn sft_library_error() -> *const c_char;
    pub(in crate::kernels::cuda) safe fn sft_gemm_create() -> *mut c_void;
    pub(in crate::kernels::cuda) safe fn sft_gemm_spare(gemm: Handle<'_>, multiprocessors: c_int);
    pub(in crate::kernels::cuda) safe fn sft_sdpa_create() -> *mut c_void;
    pub(in crate::kernels::cuda) safe fn sft_cudnn_version() -> i64;
    pub(in crate::kernels::cuda) safe fn sft_cublas_version() -> i64;
    pub(in crate::kernels::cuda) safe fn sft_linear_forward(
        gemm: Handle<'_>,
        stream: Stream,
        format: c_int,
        x: A<'_>,
        weight: A<'_>,
        bias: A<'_>,
        y: A<'_>,
        before: A<'_>,
        tokens: i64,
        inputs: i64,
        outputs: i64,
    ) -> c_int;
    pub(in crate::kernels::cuda) safe fn sft_linear_backward_input(
        gemm: Handle<'_>,
        stream: Stream,
        format: c_int,
        dy: A<'_>,
        weight: A<'_>,
        dx: A<'_>,
        tokens: i64,
        inputs: i64,
        outputs: i64,
    ) -> c_int;
    pub(in crate::kernels::cuda) safe fn sft_linear_backward_weight(
        gemm: Handle<'_>,
        stream: Stream,
        format: c_int,
        dy: A<'_>,
        x: A<'_>,
        dw: A<'_>,
        add: c_int,
        tokens: i64,
        inputs: i64,
        outputs: i64,
    ) -> c_int;
    pub(in crate::kernels::cuda) safe fn sft_sdpa_forward(
        sdpa: Handle<'_>,
        stream: Stream,
        format: c_int,
        sequences: i64,
        length: i64,
        heads: i64,
        groups: i64,
        head_dim: i64,
        scale: f32,
        lengths: A<'_>,
        qkv_offsets: A<'_>,
        o_offsets: A<'_>,
        qkv: A<'_>,
        output: A<'_>,
        statistics: A<'_>,
    ) -> c_int;
    pub(in crate::kernels::cuda) safe fn sft_sdpa_backward(
        sdpa: Handle<'_>,
        stream: Stream,
        format: c_int,
        sequences: i64,
        length: i64,
        heads: i64,
        groups: i64,
        head_dim: i64,
        scale: f32,
        lengths: A<'_>,
        qkv_offsets: A<'_>,
        o_offsets: A<'_>,
        qkv: A<'_>,
        output: A<'_>,
        statistics: A<'_>,
        d_output: A<'_>,
        dqkv: A<'_>,
    ) -> c_int;
}

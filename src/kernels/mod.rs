//! Operations of a GPT with an explicit forward and backward, each a safe function; the CPU's code here, CUDA's beside it.
//!
//! Tensors are carriers: contiguous, all of a call on one device, the CPU or (with the feature
//! `cuda`) an NVIDIA GPU. They hold f32, bf16 or f16 (on the CPU also f64, in tests); sums and functions are computed in f32 (f64) and rounded once, on output.
//! A kernel's tensors may be of different formats. Tokens are flattened: a micro-batch is
//! `[tokens, width]`, and `starts` holds the first row of every sequence and, last, the number of
//! rows. Nothing is padded.
//!
//! Gradients of parameters are *added* in place to the tensor handed in, which may be a view of
//! one flat buffer. Results do not depend on the number of threads: work is cut by shape alone, and
//! sums over tokens are made of fixed blocks added in order.

pub mod activation;
pub mod argmax;
pub mod attention;
pub mod cross_entropy;
pub mod device;
pub mod dropout;
pub mod embedding;
pub mod graph;
pub mod linear;
pub mod linear_activation;
pub mod masters;
pub mod norm;
pub mod optimizer;
pub mod reduce;
pub mod residual;
pub mod rotary;
pub mod timing;
mod carrier;
#[cfg(feature = "cuda")]
mod cuda;
mod launch;
mod norm_rows;
mod real;

/// A kernel's result; its errors are mismatched shapes, devices and dtypes, which are bugs of the caller.
pub type Result<T> = candle_core::Result<T>;

//! Activations of the MLP with the bias before them, plain and gated.

#![expect(clippy::inline_always, reason = "parts of loops that are built once per instruction set")]

use super::Result;
use super::carrier::{expect_shape, on_real, read, tensor};
use super::launch::{for_row_blocks, unfilled, vectorized};
use super::real::Real;
use candle_core::{Tensor, bail};

/// Which activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `x/2 · (1 + tanh(√(2/π)·(x + 0.044715x³)))` (Hendrycks and Gimpel, "Gaussian error linear units").
    GeluTanh,
    /// `x/2 · (1 + erf(x/√2))`.
    GeluErf,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²` (So et al., "Primer").
    SquaredRelu,
    /// `gelu_tanh(gate) · up` (Shazeer, "GLU variants improve transformer").
    Geglu,
    /// `gate · sigmoid(gate) · up`.
    Swiglu,
    /// `max(gate, 0) · up`.
    Reglu,
}

impl Kind {
    /// Whether the input holds two halves, gate first, then up.
    pub fn is_gated(self) -> bool {
        matches!(self, Kind::Geglu | Kind::Swiglu | Kind::Reglu)
    }

    /// Width of the output for an input of `width`.
    fn output_width(self, width: usize) -> Result<usize> {
        match (self.is_gated(), width % 2) {
            (false, _) => Ok(width),
            (true, 0) => Ok(width / 2),
            (true, _) => bail!("a gated activation needs an even width, not {width}"),
        }
    }
}

/// The activation of `x + bias`: `x` is `[tokens, width]`, `bias` `[width]`; gives `[tokens, width]`,
/// or half the width if gated.
pub fn forward(kind: Kind, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let x_type = x.dtype();
    let out_width = kind.output_width(width)?;
    if let Some(bias) = bias {
        expect_shape("bias", bias, &[width])?;
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::activation::forward(kind, x, bias, out_width);
    }
    on_real!(x, T => {
        let x = read::<T>(x)?;
        let x: &[T] = &x;
        let bias = filled_bias::<T>(bias, width)?;
        let mut y = unfilled::<T>(tokens * out_width);
        for_row_blocks(&mut y, out_width, |first, y| {
            let rows = y.len() / out_width;
            forward_block(kind, &x[first * width..(first + rows) * width], &bias, y);
        });
        tensor(y, (tokens, out_width), x_type)
    })
}

/// The gradient of `x` (and, summed over rows by `linear::backward_bias`, of the bias) `[tokens, width]`,
/// from the forward's `x` and `bias`.
pub fn backward(kind: Kind, x: &Tensor, bias: Option<&Tensor>, dy: &Tensor) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let x_type = x.dtype();
    let out_width = kind.output_width(width)?;
    expect_shape("dy", dy, &[tokens, out_width])?;
    if let Some(bias) = bias {
        expect_shape("bias", bias, &[width])?;
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::activation::backward(kind, x, bias, dy, None);
    }
    on_real!(x, T => {
        let (x, dy) = (read::<T>(x)?, read::<T>(dy)?);
        let (x, dy): (&[T], &[T]) = (&x, &dy);
        let bias = filled_bias::<T>(bias, width)?;
        let mut dx = unfilled::<T>(tokens * width);
        for_row_blocks(&mut dx, width, |first, dx| {
            let rows = dx.len() / width;
            let dy = &dy[first * out_width..(first + rows) * out_width];
            backward_block(kind, &x[first * width..(first + rows) * width], &bias, dy, dx);
        });
        tensor(dx, (tokens, width), x_type)
    })
}

/// [`backward`], which also adds the sum of the result's rows to `bias_gradient` `[width]`.
pub fn backward_with_bias(
    kind: Kind,
    x: &Tensor,
    bias: Option<&Tensor>,
    dy: &Tensor,
    bias_gradient: &Tensor,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let (tokens, width) = x.dims2()?;
        expect_shape("dy", dy, &[tokens, kind.output_width(width)?])?;
        return super::cuda::activation::backward(kind, x, bias, dy, Some(bias_gradient));
    }
    let dx = backward(kind, x, bias, dy)?;
    super::linear::backward_bias(&dx, bias_gradient)?;
    Ok(dx)
}

/// The bias, or zeros.
fn filled_bias<T: Real>(bias: Option<&Tensor>, width: usize) -> Result<Vec<T>> {
    Ok(match bias {
        Some(bias) => read::<T>(bias)?.to_vec(),
        None => vec![T::ZERO; width],
    })
}

/// A function of one number and its derivative.
trait Curve {
    fn value<T: Real>(x: T) -> T;
    /// (value, derivative).
    fn both<T: Real>(x: T) -> (T, T);
}

struct GeluTanh;
struct GeluErf;
struct Relu;
struct SquaredRelu;
struct Silu;

/// `2·√(2/π)`: since `(1 + tanh u)/2 = sigmoid(2u)`, GELU is `x · sigmoid(2u)`.
const TWICE_ROOT: f64 = 1.595_769_121_605_730_7;
const CUBE: f64 = 0.044_715;

impl Curve for GeluTanh {
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        let inner = (T::of(TWICE_ROOT * CUBE) * x).fma(x, T::of(TWICE_ROOT));
        x * (x * inner).sigmoid()
    }

    #[inline(always)]
    fn both<T: Real>(x: T) -> (T, T) {
        let square = x * x;
        let inner = T::of(TWICE_ROOT * CUBE).fma(square, T::of(TWICE_ROOT));
        let slope = T::of(3.0 * TWICE_ROOT * CUBE).fma(square, T::of(TWICE_ROOT));
        let gate = (x * inner).sigmoid();
        (x * gate, (x * gate * (T::ONE - gate)).fma(slope, gate))
    }
}

impl Curve for GeluErf {
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        x * normal_share(x)
    }

    #[inline(always)]
    fn both<T: Real>(x: T) -> (T, T) {
        let share = normal_share(x);
        let density = T::of(0.398_942_280_401_432_7) * (x * x * T::of(-0.5)).exponential();
        (x * share, x.fma(density, share))
    }
}

/// Share of the standard normal distribution below `x`.
#[inline(always)]
fn normal_share<T: Real>(x: T) -> T {
    let tail =
        (x.magnitude() * T::of(std::f64::consts::FRAC_1_SQRT_2)).erfc_positive() * T::of(0.5);
    if x > T::ZERO { T::ONE - tail } else { tail }
}

impl Curve for Relu {
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        x.larger(T::ZERO)
    }

    #[inline(always)]
    fn both<T: Real>(x: T) -> (T, T) {
        (x.larger(T::ZERO), if x > T::ZERO { T::ONE } else { T::ZERO })
    }
}

impl Curve for SquaredRelu {
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        let positive = x.larger(T::ZERO);
        positive * positive
    }

    #[inline(always)]
    fn both<T: Real>(x: T) -> (T, T) {
        let positive = x.larger(T::ZERO);
        (positive * positive, positive + positive)
    }
}

impl Curve for Silu {
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        x * x.sigmoid()
    }

    #[inline(always)]
    fn both<T: Real>(x: T) -> (T, T) {
        let gate = x.sigmoid();
        (x * gate, (x * gate).fma(T::ONE - gate, gate))
    }
}

vectorized! {
    fn forward_block<T: Real>(kind: Kind, x: &[T], bias: &[T], y: &mut [T]) {
        match kind {
            Kind::GeluTanh => plain_forward::<GeluTanh, T>(x, bias, y),
            Kind::GeluErf => plain_forward::<GeluErf, T>(x, bias, y),
            Kind::Relu => plain_forward::<Relu, T>(x, bias, y),
            Kind::SquaredRelu => plain_forward::<SquaredRelu, T>(x, bias, y),
            Kind::Geglu => gated_forward::<GeluTanh, T>(x, bias, y),
            Kind::Swiglu => gated_forward::<Silu, T>(x, bias, y),
            Kind::Reglu => gated_forward::<Relu, T>(x, bias, y),
        }
    }
}

vectorized! {
    fn backward_block<T: Real>(kind: Kind, x: &[T], bias: &[T], dy: &[T], dx: &mut [T]) {
        match kind {
            Kind::GeluTanh => plain_backward::<GeluTanh, T>(x, bias, dy, dx),
            Kind::GeluErf => plain_backward::<GeluErf, T>(x, bias, dy, dx),
            Kind::Relu => plain_backward::<Relu, T>(x, bias, dy, dx),
            Kind::SquaredRelu => plain_backward::<SquaredRelu, T>(x, bias, dy, dx),
            Kind::Geglu => gated_backward::<GeluTanh, T>(x, bias, dy, dx),
            Kind::Swiglu => gated_backward::<Silu, T>(x, bias, dy, dx),
            Kind::Reglu => gated_backward::<Relu, T>(x, bias, dy, dx),
        }
    }
}

#[inline(always)]
fn plain_forward<C: Curve, T: Real>(x: &[T], bias: &[T], y: &mut [T]) {
    let width = bias.len();
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        for ((y, x), bias) in y.iter_mut().zip(x).zip(bias) {
            *y = C::value(*x + *bias);
        }
    }
}

#[inline(always)]
fn plain_backward<C: Curve, T: Real>(x: &[T], bias: &[T], dy: &[T], dx: &mut [T]) {
    let width = bias.len();
    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
    for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(width)) {
        for (((dx, dy), x), bias) in dx.iter_mut().zip(dy).zip(x).zip(bias) {
            *dx = *dy * C::both(*x + *bias).1;
        }
    }
}

#[inline(always)]
fn gated_forward<C: Curve, T: Real>(x: &[T], bias: &[T], y: &mut [T]) {
    let half = bias.len() / 2;
    let (gate_bias, up_bias) = bias.split_at(half);
    for (x, y) in x.chunks_exact(2 * half).zip(y.chunks_exact_mut(half)) {
        let (gate, up) = x.split_at(half);
        let gates = gate.iter().zip(gate_bias);
        for ((y, (gate, gate_bias)), (up, up_bias)) in
            y.iter_mut().zip(gates).zip(up.iter().zip(up_bias))
        {
            *y = C::value(*gate + *gate_bias) * (*up + *up_bias);
        }
    }
}

#[inline(always)]
fn gated_backward<C: Curve, T: Real>(x: &[T], bias: &[T], dy: &[T], dx: &mut [T]) {
    let half = bias.len() / 2;
    let (gate_bias, up_bias) = bias.split_at(half);
    let rows = x.chunks_exact(2 * half).zip(dy.chunks_exact(half));
    for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(2 * half)) {
        let (gate, up) = x.split_at(half);
        let (d_gate, d_up) = dx.split_at_mut(half);
        for channel in 0..half {
            let (value, slope) = C::both(gate[channel] + gate_bias[channel]);
            d_gate[channel] = dy[channel] * (up[channel] + up_bias[channel]) * slope;
            d_up[channel] = dy[channel] * value;
        }
    }
}

//! Normalizations of a token's hidden vector: layernorm, layernorm1p, rmsnorm.

use super::Result;
use super::carrier::{expect_shape, on_real, read, tensor, update};
use super::dropout::Dropout;
use super::launch::{for_row_blocks, rows_per_block, unfilled};
use super::norm_rows::{
    Parameters, Rows, backward_block, forward_block, output_block, parameter_block,
};
use super::real::Real;
use candle_core::{DType, Tensor, WithDType, bail};
use rayon::prelude::*;

/// Which normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `(x - mean) / sqrt(variance + epsilon) · weight + bias` (Ba et al., "Layer normalization").
    LayerNorm,
    /// The same with `1 + weight`: the stored weight is the difference from one (Apex, NeMo).
    LayerNorm1p,
    /// `x / sqrt(mean(x²) + epsilon) · weight` (Zhang and Sennrich, "Root mean square layer normalization").
    RmsNorm,
}

/// A normalization and its parameters, `[width]` each; rmsnorm has no bias.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Which one.
    pub kind: Kind,
    /// Added to the variance or mean square.
    pub epsilon: f64,
    /// Factor per channel (less one, for layernorm1p).
    pub weight: &'a Tensor,
    /// Added per channel.
    pub bias: Option<&'a Tensor>,
    /// Number format of the normalized tensor, which may be narrower than the input's.
    pub output: DType,
}

/// What the backward needs of the forward.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The normalized tensor's input `[tokens, width]`.
    input: Tensor,
    /// Mean and reciprocal deviation of each token `[tokens, 2]`.
    moments: Tensor,
}

impl Saved {
    /// The input `[tokens, width]`; after [`add_forward`], the sum.
    pub fn input(&self) -> &Tensor {
        &self.input
    }

    /// Mean and reciprocal deviation of each token `[tokens, 2]`.
    #[cfg(feature = "cuda")]
    pub(super) fn moments(&self) -> &Tensor {
        &self.moments
    }

    /// Everything held.
    pub fn tensors(&self) -> [&Tensor; 2] {
        [&self.input, &self.moments]
    }
}

/// Gradients of the parameters, `[width]` each, to which the backward adds.
#[derive(Clone, Copy, Debug)]
pub struct Gradients<'a> {
    /// Of the weight.
    pub weight: &'a Tensor,
    /// Of the bias.
    pub bias: Option<&'a Tensor>,
    /// Of a bias that was added to the norm's input, residual and all: it gets the sum of the rows
    /// of the input's gradient.
    pub input_bias: Option<&'a Tensor>,
}

/// The normalized `x` `[tokens, width]`.
pub fn forward(x: &Tensor, norm: &Norm<'_>) -> Result<(Tensor, Saved)> {
    let (tokens, width) = x.dims2()?;
    norm.check(width)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::norm::forward(x, norm)
            .map(|(y, moments)| (y, Saved { input: x.clone(), moments }));
    }
    on_real!(x, T => {
        let values = read::<T>(x)?;
        let values: &[T] = &values;
        let weight = read::<T>(norm.weight)?;
        let bias = norm.bias.map(read::<T>).transpose()?;
        let parameters = Parameters::new(norm, &weight, bias.as_deref());
        let mut y = unfilled::<T>(values.len());
        let mut moments = unfilled::<T>(2 * tokens);
        let rows = rows_per_block(width);
        y.par_chunks_mut(rows * width.max(1))
            .zip(moments.par_chunks_mut(2 * rows))
            .zip(values.par_chunks(rows * width.max(1)))
            .for_each(|((y, moments), x)| forward_block(x, parameters, y, moments));
        let moments = tensor(moments, (tokens, 2), T::DTYPE)?;
        Ok((tensor(y, (tokens, width), norm.output)?, Saved { input: x.clone(), moments }))
    })
}

/// Normalizes `residual + dropout(x + bias)`: the sum is in [`Saved::input`].
pub fn add_forward(
    x: &Tensor,
    bias: Option<&Tensor>,
    dropout: Option<&Dropout<'_>>,
    residual: &Tensor,
    norm: &Norm<'_>,
) -> Result<(Tensor, Saved)> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let (tokens, width) = residual.dims2()?;
        expect_shape("x", x, &[tokens, width])?;
        norm.check(width)?;
        return super::cuda::norm::add_forward(x, bias, dropout, residual, norm)
            .map(|(y, input, moments)| (y, Saved { input, moments }));
    }
    forward(&super::residual::forward(x, bias, dropout, residual)?, norm)
}

/// The gradient of the input in its format, plus `residual_gradient` where the input also went on
/// unnormalized.
pub fn backward(
    saved: &Saved,
    norm: &Norm<'_>,
    gradients: &Gradients<'_>,
    dy: &Tensor,
    residual_gradient: Option<&Tensor>,
) -> Result<Tensor> {
    check_backward(saved, norm, gradients, dy, residual_gradient)?;
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return super::cuda::norm::backward(saved, norm, gradients, dy, residual_gradient);
    }
    let dx = input_gradient(saved, norm, gradients, dy, residual_gradient)?;
    if let Some(gradient) = gradients.input_bias {
        super::linear::backward_bias(&dx, gradient)?;
    }
    Ok(dx)
}

/// [`backward`], and the forward's output again with the same bits, which so need not be kept.
pub fn backward_with_output(
    saved: &Saved,
    norm: &Norm<'_>,
    gradients: &Gradients<'_>,
    dy: &Tensor,
    residual_gradient: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        check_backward(saved, norm, gradients, dy, residual_gradient)?;
        return super::cuda::norm::backward_with_output(
            saved,
            norm,
            gradients,
            dy,
            residual_gradient,
        );
    }
    Ok((backward(saved, norm, gradients, dy, residual_gradient)?, output_again(saved, norm)?))
}

/// The forward's output, from its input and moments.
fn output_again(saved: &Saved, norm: &Norm<'_>) -> Result<Tensor> {
    let (tokens, width) = saved.input.dims2()?;
    on_real!(&saved.input, T => {
        let (x, moments) = (read::<T>(&saved.input)?, read::<T>(&saved.moments)?);
        let (x, moments): (&[T], &[T]) = (&x, &moments);
        let weight = read::<T>(norm.weight)?;
        let bias = norm.bias.map(read::<T>).transpose()?;
        let parameters = Parameters::new(norm, &weight, bias.as_deref());
        let mut y = unfilled::<T>(x.len());
        for_row_blocks(&mut y, width, |first, y| {
            output_block(&x[first * width..][..y.len()], &moments[2 * first..], parameters, y);
        });
        tensor(y, (tokens, width), norm.output)
    })
}

fn check_backward(
    saved: &Saved,
    norm: &Norm<'_>,
    gradients: &Gradients<'_>,
    dy: &Tensor,
    residual_gradient: Option<&Tensor>,
) -> Result<()> {
    let (tokens, width) = dy.dims2()?;
    expect_shape("the saved input", &saved.input, &[tokens, width])?;
    norm.check(width)?;
    gradients.check(norm, width)?;
    match residual_gradient {
        Some(gradient) => expect_shape("residual_gradient", gradient, &[tokens, width]),
        None => Ok(()),
    }
}

fn input_gradient(
    saved: &Saved,
    norm: &Norm<'_>,
    gradients: &Gradients<'_>,
    dy: &Tensor,
    residual_gradient: Option<&Tensor>,
) -> Result<Tensor> {
    let (tokens, width) = dy.dims2()?;
    on_real!(dy, T => {
        let (x, moments) = (read::<T>(&saved.input)?, read::<T>(&saved.moments)?);
        let (weight, dy) = (read::<T>(norm.weight)?, read::<T>(dy)?);
        let residual = residual_gradient.map(read::<T>).transpose()?;
        let (x, dy, moments): (&[T], &[T], &[T]) = (&x, &dy, &moments);
        let residual = residual.as_deref();
        let parameters = Parameters::new(norm, &weight, None);
        let mut dx = unfilled::<T>(x.len());
        for_row_blocks(&mut dx, width, |first, dx| {
            let range = first * width..first * width + dx.len();
            let residual = residual.map(|residual| &residual[range.clone()]);
            let (x, dy) = (&x[range.clone()], &dy[range]);
            let rows = Rows { x, dy, moments: &moments[2 * first..] };
            backward_block(rows, parameters, residual, dx);
        });
        add_parameter_gradients(gradients, width, x, dy, moments)?;
        tensor(dx, (tokens, width), saved.input.dtype())
    })
}

impl Norm<'_> {
    fn check(&self, width: usize) -> Result<()> {
        expect_shape("weight", self.weight, &[width])?;
        match self.bias {
            Some(_) if self.kind == Kind::RmsNorm => bail!("rmsnorm has no bias"),
            Some(bias) => expect_shape("bias", bias, &[width]),
            None => Ok(()),
        }
    }
}

impl Gradients<'_> {
    fn check(&self, norm: &Norm<'_>, width: usize) -> Result<()> {
        expect_shape("weight gradient", self.weight, &[width])?;
        if let Some(gradient) = self.input_bias {
            expect_shape("input bias gradient", gradient, &[width])?;
        }
        match (self.bias, norm.bias) {
            (Some(gradient), Some(_)) => expect_shape("bias gradient", gradient, &[width]),
            (None, None) => Ok(()),
            _ => bail!("a norm's bias and its gradient come together or not at all"),
        }
    }
}

/// Adds `Σ dy·n` to the weight's gradient and `Σ dy` to the bias's.
fn add_parameter_gradients<T: Real>(
    gradients: &Gradients<'_>,
    width: usize,
    x: &[T],
    dy: &[T],
    moments: &[T],
) -> Result<()> {
    let mut sums = vec![T::ZERO; 2 * width];
    super::launch::sum_over_rows(&mut sums, moments.len() / 2, width, |rows, part| {
        let range = rows.start * width..rows.end * width;
        let (weight, bias) = part.split_at_mut(width);
        let moments = &moments[2 * rows.start..2 * rows.end];
        parameter_block(&x[range.clone()], &dy[range], moments, weight, bias);
    });
    let (weight, bias) = sums.split_at(width);
    update::<T, _>(gradients.weight, |sum| super::residual::add(sum, weight))?;
    match gradients.bias {
        Some(gradient) => update::<T, _>(gradient, |sum| super::residual::add(sum, bias)),
        None => Ok(()),
    }
}

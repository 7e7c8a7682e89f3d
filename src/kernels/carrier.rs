//! From tensors to slices and back; the only place that knows how candle stores numbers.

use super::Result;
use super::real::Real;
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Shape, Storage, StorageRef};
use candle_core::{Tensor, bail};
use half::{bf16, f16};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::{Deref, Range};

/// Runs `$body` with `$real` standing for the type that the tensor's numbers are computed in: their
/// own, or f32 where they are stored in half precision.
macro_rules! on_real {
    ($tensor:expr, $real:ident => $body:expr) => {
        match $tensor.dtype() {
            candle_core::DType::F32 | candle_core::DType::BF16 | candle_core::DType::F16 => {
                type $real = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $real = f64;
                $body
            }
            other => candle_core::bail!(
                "kernels compute on f32, bf16 and f16 (f64 in tests), not on {other:?}"
            ),
        }
    };
}
pub(super) use on_real;

/// A tensor's values while they are read.
pub(super) enum Values<'a, T> {
    /// As they are stored.
    Stored {
        /// Keeps them where they are.
        storage: StorageRef<'a>,
        /// The tensor's part.
        range: Range<usize>,
    },
    /// Numbers stored in half precision.
    Widened(Vec<T>),
}

/// The values of a contiguous tensor on the CPU, in row order.
pub(super) fn read<T: Real>(tensor: &Tensor) -> Result<Values<'_, T>> {
    let (storage, layout) = tensor.storage_and_layout();
    let range = contiguous(layout)?;
    match &*storage {
        Storage::Cpu(CpuStorage::BF16(values)) => Ok(Values::Widened(widened(&values[range]))),
        Storage::Cpu(CpuStorage::F16(values)) => Ok(Values::Widened(widened(&values[range]))),
        Storage::Cpu(cpu) => {
            cpu.as_slice::<T>()?;
            Ok(Values::Stored { storage, range })
        }
        _ => bail!("this kernel has no form for {:?}: move the tensor to the cpu", tensor.device()),
    }
}

impl<T: Real> Deref for Values<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let (storage, range) = match self {
            Values::Stored { storage, range } => (storage, range),
            Values::Widened(values) => return values,
        };
        let Storage::Cpu(cpu) = &**storage else { return &[] };
        // `read` has seen that the type fits.
        cpu.as_slice::<T>().map_or(&[], |values| &values[range.clone()])
    }
}

/// Numbers per task of a conversion.
const BLOCK: usize = 1 << 14;

/// A format of 16 bits: for storing only.
trait Half: Copy + Send + Sync {
    fn wide(self) -> f32;
    /// The nearest number to `value`, ties to even.
    fn nearest(value: f32) -> Self;
}

impl Half for bf16 {
    fn wide(self) -> f32 {
        self.to_f32()
    }

    fn nearest(value: f32) -> bf16 {
        bf16::from_f32(value)
    }
}

impl Half for f16 {
    fn wide(self) -> f32 {
        self.to_f32()
    }

    fn nearest(value: f32) -> f16 {
        f16::from_f32(value)
    }
}

fn widened<H: Half, T: Real>(values: &[H]) -> Vec<T> {
    let wide = |value: &H| T::of(f64::from(value.wide()));
    values.par_iter().with_min_len(BLOCK).map(wide).collect()
}

fn rounded<T: Real, H: Half>(values: &[T]) -> Vec<H> {
    let narrow = |value: &T| H::nearest(value.wide() as f32);
    values.par_iter().with_min_len(BLOCK).map(narrow).collect()
}

/// Hands the tensor's values to `change`, in place; `tensor` may be a view of a larger buffer.
/// Half precision is handed over widened, and rounded afterwards.
///
/// No tensor of the same buffer may be read or changed inside `change`.
pub(super) fn update<T: Real, R>(tensor: &Tensor, change: impl FnOnce(&mut [T]) -> R) -> Result<R> {
    in_place(tensor, |storage, range| match storage {
        CpuStorage::BF16(values) => Ok(change_half(&mut values[range], change)),
        CpuStorage::F16(values) => Ok(change_half(&mut values[range], change)),
        storage => match T::values_mut(storage) {
            Some(values) => Ok(change(&mut values[range])),
            None => bail!("the tensor changed in place does not hold {:?}", T::DTYPE),
        },
    })
}

/// Hands over the numbers of a bf16 and of an i16 tensor together, as [`update`] does, but as they
/// are stored.
pub(super) fn update_halves<R>(
    [floats, integers]: [&Tensor; 2],
    change: impl FnOnce(&mut [bf16], &mut [i16]) -> R,
) -> Result<R> {
    in_place(floats, |floats, place| match floats {
        CpuStorage::BF16(floats) => in_place(integers, |integers, range| match integers {
            CpuStorage::I16(integers) => Ok(change(&mut floats[place], &mut integers[range])),
            _ => bail!("the second tensor changed in place does not hold i16"),
        }),
        _ => bail!("the first tensor changed in place does not hold bf16"),
    })
}

/// Hands over the storage of a contiguous tensor on the CPU, with the tensor's range in it.
fn in_place<R>(
    tensor: &Tensor,
    change: impl FnOnce(&mut CpuStorage, Range<usize>) -> Result<R>,
) -> Result<R> {
    let update = Update { change: RefCell::new(Some(change)), result: RefCell::new(None) };
    tensor.inplace_op1(&update)?;
    match update.result.into_inner() {
        Some(result) => Ok(result),
        None => bail!("the change in place was not made"),
    }
}

/// A change in place as candle wants it; candle shares the operation, so its parts sit in cells.
struct Update<F, R> {
    change: RefCell<Option<F>>,
    result: RefCell<Option<R>>,
}

impl<R, F: FnOnce(&mut CpuStorage, Range<usize>) -> Result<R>> InplaceOp1 for Update<F, R> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let range = contiguous(layout)?;
        let Some(change) = self.change.borrow_mut().take() else { return Ok(()) };
        *self.result.borrow_mut() = Some(change(storage, range)?);
        Ok(())
    }
}

fn change_half<H: Half, T: Real, R>(values: &mut [H], change: impl FnOnce(&mut [T]) -> R) -> R {
    let mut wide = widened(values);
    let result = change(&mut wide);
    values.copy_from_slice(&rounded(&wide));
    result
}

fn contiguous(layout: &Layout) -> Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => bail!("kernels read contiguous tensors only, not {layout:?}"),
    }
}

/// A tensor of `values` stored as `dtype`: their own type, without a copy, or rounded to half precision.
pub(super) fn tensor<T: Real>(
    values: Vec<T>,
    shape: impl Into<Shape>,
    dtype: DType,
) -> Result<Tensor> {
    let shape = shape.into();
    match dtype {
        DType::BF16 => Tensor::from_vec(rounded::<T, bf16>(&values), shape, &Device::Cpu),
        DType::F16 => Tensor::from_vec(rounded::<T, f16>(&values), shape, &Device::Cpu),
        _ if dtype == T::DTYPE => Tensor::from_vec(values, shape, &Device::Cpu),
        _ => bail!("numbers computed in {:?} are not stored as {dtype:?}", T::DTYPE),
    }
}

/// Refuses a tensor whose shape is not `shape`; `name` says which one it is.
pub(super) fn expect_shape(name: &str, tensor: &Tensor, shape: &[usize]) -> Result<()> {
    if tensor.dims() == shape {
        return Ok(());
    }
    bail!("{name} has shape {:?}, expected {shape:?}", tensor.dims())
}

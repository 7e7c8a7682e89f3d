//! From tensors to slices and back; the only place that knows how candle stores numbers.

use super::Result;
use super::real::Real;
use candle_core::{CpuStorage, InplaceOp1, Layout, Shape, Storage, StorageRef, Tensor, bail};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, Range};

/// Runs `$body` with `$real` standing for the tensor's number type.
macro_rules! on_real {
    ($tensor:expr, $real:ident => $body:expr) => {
        match $tensor.dtype() {
            candle_core::DType::F32 => {
                type $real = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $real = f64;
                $body
            }
            other => candle_core::bail!("kernels compute in f32 (f64 in tests), not in {other:?}"),
        }
    };
}
pub(super) use on_real;

/// A tensor's values while they are read.
pub(super) struct Values<'a, T> {
    storage: StorageRef<'a>,
    range: Range<usize>,
    kind: PhantomData<T>,
}

/// The values of a contiguous tensor on the CPU, in row order.
pub(super) fn read<T: Real>(tensor: &Tensor) -> Result<Values<'_, T>> {
    let (storage, layout) = tensor.storage_and_layout();
    let range = contiguous(layout)?;
    match &*storage {
        Storage::Cpu(cpu) => cpu.as_slice::<T>().map(|_| ())?,
        _ => bail!("this kernel has no form for {:?}: move the tensor to the cpu", tensor.device()),
    }
    Ok(Values { storage, range, kind: PhantomData })
}

impl<T: Real> Deref for Values<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let Storage::Cpu(cpu) = &*self.storage else { return &[] };
        // `read` has seen that the type fits.
        cpu.as_slice::<T>().map_or(&[], |values| &values[self.range.clone()])
    }
}

/// Hands the tensor's values to `change`, in place; `tensor` may be a view of a larger buffer.
///
/// No tensor of the same buffer may be read or changed inside `change`.
pub(super) fn update<T: Real, R>(tensor: &Tensor, change: impl FnOnce(&mut [T]) -> R) -> Result<R> {
    let update = Update {
        change: RefCell::new(Some(change)),
        result: RefCell::new(None),
        kind: PhantomData,
    };
    tensor.inplace_op1(&update)?;
    match update.result.into_inner() {
        Some(result) => Ok(result),
        None => bail!("the change in place was not made"),
    }
}

/// A change in place as candle wants it; candle shares the operation, so its parts sit in cells.
struct Update<T, F, R> {
    change: RefCell<Option<F>>,
    result: RefCell<Option<R>>,
    kind: PhantomData<T>,
}

impl<T: Real, R, F: FnOnce(&mut [T]) -> R> InplaceOp1 for Update<T, F, R> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let range = contiguous(layout)?;
        let Some(values) = T::values_mut(storage) else {
            bail!("the tensor changed in place does not hold {:?}", T::DTYPE);
        };
        if let Some(change) = self.change.borrow_mut().take() {
            *self.result.borrow_mut() = Some(change(&mut values[range]));
        }
        Ok(())
    }
}

fn contiguous(layout: &Layout) -> Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => bail!("kernels read contiguous tensors only, not {layout:?}"),
    }
}

/// A tensor made of `values`, without a copy.
pub(super) fn tensor<T: Real>(values: Vec<T>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &candle_core::Device::Cpu)
}

/// Refuses a tensor whose shape is not `shape`; `name` says which one it is.
pub(super) fn expect_shape(name: &str, tensor: &Tensor, shape: &[usize]) -> Result<()> {
    if tensor.dims() == shape {
        return Ok(());
    }
    bail!("{name} has shape {:?}, expected {shape:?}", tensor.dims())
}

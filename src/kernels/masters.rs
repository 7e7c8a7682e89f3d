//! What an optimizer keeps beside parameters in half precision, so that their fp32 values are not lost.
//!
//! Beside bf16 these are 16 bits each: bf16 is the upper half of fp32, so with the lower half nothing
//! is missing. A value with bits `b` has the copy `(b + 0x8000) >> 16`, the nearest bf16 number, and
//! the lower half of `b`, as a signed number, is what rounding took from it: `b = (copy << 16) +
//! remainder`. That is one value for each pair only if ties go away from zero; where a tie goes to the
//! even number, 65,537 values have that copy. f16 has another exponent, and so fp32 beside it.

#![expect(clippy::inline_always, reason = "parts of loops that are built once per instruction set")]

use super::Result;
use super::carrier::{expect_shape, read};
use super::device::to_host;
use candle_core::{DType, Device, Tensor, bail};
use half::bf16;
use rayon::prelude::*;

/// Numbers per task.
const BLOCK: usize = 1 << 14;

/// What stands beside parameters.
#[derive(Clone, Debug)]
pub enum Masters {
    /// Nothing: the parameters are not rounded.
    Nothing,
    /// Their values in fp32.
    Whole(Tensor),
    /// What rounding took from their values, i16, beside bf16.
    Remainders(Tensor),
}

impl Masters {
    /// What stands on `device` beside parameters that are `values` `[elements]` in `format`, rounded
    /// as [`rounded`] does; values in fp32 that are there already are shared.
    pub fn of(values: &Tensor, format: DType, device: &Device) -> Result<Masters> {
        match format {
            DType::F16 => values.to_dtype(DType::F32)?.to_device(device).map(Masters::Whole),
            DType::BF16 => {
                let rest = each(&wide(values)?, |value| split(value).1)?;
                Tensor::from_vec(rest, values.shape(), &Device::Cpu)?
                    .to_device(device)
                    .map(Masters::Remainders)
            }
            _ => Ok(Masters::Nothing),
        }
    }

    /// Those beside `count` parameters from `start` on; they share the memory.
    pub fn narrow(&self, start: usize, count: usize) -> Result<Masters> {
        Ok(match self {
            Masters::Nothing => Masters::Nothing,
            Masters::Whole(values) => Masters::Whole(values.narrow(0, start, count)?),
            Masters::Remainders(rest) => Masters::Remainders(rest.narrow(0, start, count)?),
        })
    }

    /// The unrounded values of all `parameters` that these stand beside; in new memory only where
    /// there are remainders.
    pub fn values(&self, parameters: &Tensor) -> Result<Tensor> {
        self.expect_beside(parameters)?;
        match self {
            Masters::Nothing => Ok(parameters.clone()),
            Masters::Whole(values) => Ok(values.clone()),
            #[cfg(feature = "cuda")]
            Masters::Remainders(rest) if rest.device().is_cuda() => {
                super::cuda::optimizer::joined(parameters, rest)
            }
            Masters::Remainders(rest) => {
                let (copies, rest) = (parameters.to_vec1::<bf16>()?, rest.to_vec1::<i16>()?);
                let values = copies.par_iter().zip(&rest).with_min_len(BLOCK);
                let values: Vec<f32> = values.map(|(copy, rest)| join(*copy, *rest)).collect();
                Tensor::from_vec(values, parameters.shape(), &Device::Cpu)
            }
        }
    }

    /// Refuses parameters that these cannot stand beside.
    pub(super) fn expect_beside(&self, parameters: &Tensor) -> Result<()> {
        let format = parameters.dtype();
        let (beside, fits) = match self {
            Masters::Nothing if matches!(format, DType::F16 | DType::BF16) => {
                bail!("parameters in {format:?} have no masters")
            }
            Masters::Nothing => return Ok(()),
            Masters::Whole(values) => {
                (values, [values.dtype(), format] == [DType::F32, DType::F16])
            }
            Masters::Remainders(rest) => {
                (rest, [rest.dtype(), format] == [DType::I16, DType::BF16])
            }
        };
        if !fits {
            bail!("{:?} does not stand beside {format:?}", beside.dtype())
        }
        expect_shape("what stands beside the parameters", beside, parameters.dims())
    }
}

/// `values` in `format`; in bf16 ties go away from zero, so that [`Masters`] fit beside them and a
/// model has the same bits while it is trained with them and when it is read. What is rounded to bf16 is
/// on the CPU then.
pub fn rounded(values: &Tensor, format: DType) -> Result<Tensor> {
    if format != DType::BF16 || values.dtype() == format {
        return values.to_dtype(format);
    }
    let copies = each(&wide(values)?, |value| split(value).0)?;
    Tensor::from_vec(copies, values.shape(), &Device::Cpu)
}

/// In fp32 on the CPU.
fn wide(values: &Tensor) -> Result<Tensor> {
    to_host(&values.to_dtype(DType::F32)?)
}

/// Has `change` make new values of a block of bf16 parameters and their remainders.
pub(super) fn change_joined(
    copies: &mut [bf16],
    rest: &mut [i16],
    change: impl FnOnce(&mut [f32]),
) {
    let mut values: Vec<f32> =
        copies.iter().zip(rest.iter()).map(|(copy, rest)| join(*copy, *rest)).collect();
    change(&mut values);
    for ((copy, rest), value) in copies.iter_mut().zip(rest).zip(values) {
        (*copy, *rest) = split(value);
    }
}

fn each<T: Send>(values: &Tensor, of: impl Fn(f32) -> T + Sync) -> Result<Vec<T>> {
    let values = read::<f32>(values)?;
    Ok(values.par_iter().with_min_len(BLOCK).map(|value| of(*value)).collect())
}

/// The bf16 number nearest to `value`, and what has to be added to its bits, shifted up by 16. NaN stays NaN, but not
/// always the same.
#[inline(always)]
fn split(value: f32) -> (bf16, i16) {
    let bits = value.to_bits();
    // The carry would make another number of some.
    if value.is_nan() {
        return (bf16::from_bits((bits >> 16) as u16 | 0x40), 0);
    }
    (bf16::from_bits(((bits + 0x8000) >> 16) as u16), (bits as u16).cast_signed())
}

/// What [`split`] had.
#[inline(always)]
fn join(copy: bf16, rest: i16) -> f32 {
    f32::from_bits((u32::from(copy.to_bits()) << 16).wrapping_add_signed(i32::from(rest)))
}

#[cfg(test)]
mod tests {
    use super::{join, split};
    use half::bf16;
    use proptest::prelude::*;

    /// Splits and joins, and sees that the copy is the nearest number.
    fn check(bits: u32) {
        let value = f32::from_bits(bits);
        let (copy, rest) = split(value);
        if value.is_nan() {
            assert!(copy.is_nan() && join(copy, rest).is_nan(), "{bits:#x}");
            return;
        }
        assert_eq!(join(copy, rest).to_bits(), bits, "{bits:#x}");
        assert_eq!(copy.is_sign_negative(), value.is_sign_negative(), "{bits:#x}");
        let is_tie = bits & 0xffff == 0x8000;
        if is_tie {
            let away = (value.abs().to_bits() >> 16) as u16 + 1;
            assert_eq!(copy.to_bits() & 0x7fff, away, "{bits:#x}");
        } else {
            assert_eq!(copy, bf16::from_f32(value), "{bits:#x}");
        }
    }

    #[test]
    fn the_ends_of_the_range_and_ties_come_back() {
        let ends = [
            0,
            1,
            0x7fff,
            0x8000,
            0x8001,
            0xffff,
            0x1_0000,
            0x1_8000,
            0x7f_ffff,
            0x80_0000,
            0x3f7f_ffff,
            0x3f80_8000,
            0x3f81_8000,
            0x7f7f_7fff,
            0x7f7f_8000,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7f80_0001,
            0x7fbf_ffff,
            0x7fc0_0000,
            0x7fff_8000,
            0x7fff_ffff,
        ];
        for bits in ends {
            check(bits);
            check(bits | 0x8000_0000);
        }
        // Every copy, with its ties and the values beside them.
        for upper in 0..=0xffff_u32 {
            for lower in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                check((upper << 16) | lower);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn every_value_comes_back(bits in any::<u32>()) {
            check(bits);
        }
    }
}

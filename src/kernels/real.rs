//! The numbers that kernels compute with: f32 in training, f64 in tests.

#![expect(clippy::inline_always, reason = "parts of loops that are built once per instruction set")]

use candle_core::{CpuStorage, WithDType};
use std::ops::Neg;

/// f32 or f64, with the functions that vectorise.
pub(super) trait Real: WithDType + Neg<Output = Self> + std::iter::Sum {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;

    /// The nearest number to `value`.
    fn of(value: f64) -> Self;
    /// The number in f64.
    fn wide(self) -> f64;
    /// `self * factor + addend`, rounded once.
    fn fma(self, factor: Self, addend: Self) -> Self;
    /// `e` to the power `self`, to 1e-7 relative for f32; below -87 (f32) it stays at `e^-87`;
    /// NaN of NaN.
    fn exponential(self) -> Self;
    /// `1 - erf(self)` for `self >= 0`, to 2e-7 relative for f32.
    fn erfc_positive(self) -> Self;
    /// The natural logarithm.
    fn logarithm(self) -> Self;
    /// The square root.
    fn root(self) -> Self;
    /// The larger of two numbers, as one instruction; `self` when either is NaN.
    fn larger(self, other: Self) -> Self;
    /// The absolute value.
    fn magnitude(self) -> Self;
    /// Whether it is NaN.
    fn is_not_a_number(self) -> bool;
    /// The storage's values, if it holds this type.
    fn values_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;

    /// `1 / (1 + e^-self)`.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::ONE / (Self::ONE + (-self).exponential())
    }
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;

    #[inline(always)]
    fn of(value: f64) -> f32 {
        value as f32
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn fma(self, factor: f32, addend: f32) -> f32 {
        self.mul_add(factor, addend)
    }

    /// `2^n * e^r` with `r` within ±ln(2)/2, and `e^r` by its Taylor polynomial of degree 7.
    #[inline(always)]
    fn exponential(self) -> f32 {
        // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
        const ROUND: f32 = 12_582_912.0;
        const LN_2_HIGH: f32 = 0.693_359_4;
        const LN_2_LOW: f32 = -2.121_944_4e-4;
        // What is no number passes both.
        let x = if self < -87.0 { -87.0 } else { self };
        let x = if x > 88.0 { 88.0 } else { x };
        let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
        let whole = shifted - ROUND;
        let rest = whole.mul_add(-LN_2_LOW, whole.mul_add(-LN_2_HIGH, x));
        let mut sum = 1.0 / 5040.0;
        for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            sum = rest.mul_add(sum, coefficient);
        }
        let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
        sum * power
    }

    /// Numerical Recipes' `erfcc`: a Chebyshev fit whose relative error is below 1.2e-7.
    #[inline(always)]
    fn erfc_positive(self) -> f32 {
        const FIT: [f32; 9] = [
            -0.822_152_26,
            1.488_515_9,
            -1.135_204,
            0.278_868_08,
            -0.186_288_06,
            0.096_784_18,
            0.374_091_95,
            1.000_023_7,
            -1.265_512_2,
        ];
        let t = 1.0 / self.mul_add(0.5, 1.0);
        let mut sum = 0.170_872_76_f32;
        for coefficient in FIT {
            sum = t.mul_add(sum, coefficient);
        }
        t * (-self).mul_add(self, sum).exponential()
    }

    #[inline(always)]
    fn logarithm(self) -> f32 {
        self.ln()
    }

    #[inline(always)]
    fn root(self) -> f32 {
        self.sqrt()
    }

    #[inline(always)]
    fn larger(self, other: f32) -> f32 {
        if self < other { other } else { self }
    }

    #[inline(always)]
    fn magnitude(self) -> f32 {
        self.abs()
    }

    #[inline(always)]
    fn is_not_a_number(self) -> bool {
        self.is_nan()
    }

    fn values_mut(storage: &mut CpuStorage) -> Option<&mut [f32]> {
        if let CpuStorage::F32(values) = storage { Some(values) } else { None }
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;

    #[inline(always)]
    fn of(value: f64) -> f64 {
        value
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }

    #[inline(always)]
    fn fma(self, factor: f64, addend: f64) -> f64 {
        self.mul_add(factor, addend)
    }

    fn exponential(self) -> f64 {
        self.exp()
    }

    fn erfc_positive(self) -> f64 {
        candle_core::cpu::erf::erfc_f64(self)
    }

    fn logarithm(self) -> f64 {
        self.ln()
    }

    fn root(self) -> f64 {
        self.sqrt()
    }

    #[inline(always)]
    fn larger(self, other: f64) -> f64 {
        if self < other { other } else { self }
    }

    #[inline(always)]
    fn magnitude(self) -> f64 {
        self.abs()
    }

    #[inline(always)]
    fn is_not_a_number(self) -> bool {
        self.is_nan()
    }

    fn values_mut(storage: &mut CpuStorage) -> Option<&mut [f64]> {
        if let CpuStorage::F64(values) = storage { Some(values) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::Real;

    #[test]
    fn what_is_no_number_stays_none() {
        assert!(f32::NAN.exponential().is_nan() && f32::NAN.sigmoid().is_nan());
        assert!(f32::NAN.larger(0.0).is_nan() && f64::NAN.larger(0.0).is_nan());
        assert_eq!((1.0_f32.larger(2.0), 2.0_f64.larger(1.0)), (2.0, 2.0));
    }

    #[test]
    fn the_exponential_stays_within_its_range() {
        let ends = [f32::NEG_INFINITY, -1e30, 1e30, f32::INFINITY].map(Real::exponential);
        assert!(ends[..2].iter().all(|end| (1e-38..1e-37).contains(end)), "{ends:?}");
        assert!(ends[2..].iter().all(|end| (1e38..1e39).contains(&f64::from(*end))), "{ends:?}");
        for x in [-80.0_f32, -1.0, -1e-4, 0.0, 0.5, 3.0, 80.0] {
            let exact = f64::from(x).exp();
            assert!((f64::from(x.exponential()) / exact - 1.0).abs() < 1e-6, "{x}");
        }
    }
}

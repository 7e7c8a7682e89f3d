//! In which number formats a model keeps and computes what.

use crate::spec::optimization::Precision;
use candle_core::DType;

/// Number formats of a model. Gradients of parameters, moments and masters are always fp32 (f64 in an
/// f64 model; bf16's masters stand as the parameters and 16 bits more, see [`masters`]), and kernels
/// sum in fp32 whatever they read and write.
///
/// [`masters`]: crate::kernels::masters
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// Of the parameters and of the residual stream.
    pub parameters: DType,
    /// Of what goes into matrix products and attention and comes out of them, weights included.
    pub products: DType,
}

impl Formats {
    /// One format for everything.
    pub const fn uniform(dtype: DType) -> Formats {
        Formats { parameters: dtype, products: dtype }
    }

    /// The formats of a training run.
    ///
    /// With `amp_o2` (NeMo's `megatron_amp_O2`) everything is in half precision, and the optimizer
    /// holds fp32 masters. Without it half precision is what NeMo's autocast makes of it: fp32
    /// parameters, residual stream and norms; matrix products and attention in half precision.
    pub fn of(precision: Precision, amp_o2: bool) -> Formats {
        let products = match precision {
            Precision::Fp32 => DType::F32,
            Precision::Bf16 => DType::BF16,
            Precision::Fp16 => DType::F16,
        };
        let parameters = if amp_o2 { products } else { DType::F32 };
        Formats { parameters, products }
    }

    /// Format of the gradients of parameters, of moments and of masters.
    pub fn gradients(&self) -> DType {
        if self.parameters == DType::F64 { DType::F64 } else { DType::F32 }
    }
}

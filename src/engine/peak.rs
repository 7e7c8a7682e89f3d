//! The rates that makers state for their GPUs' matrix products.

use candle_core::DType;

/// Floating-point operations per second of dense products of numbers in `format`, by the data sheet of
/// the GPU called `name`; none when it is not known here. fp32 is fp32 throughout, not TF32.
pub fn operations_per_second(name: &str, format: DType) -> Option<f64> {
    let (_, half, single) = RATES.iter().find(|(part, ..)| name.contains(part))?;
    let teraflops = match format {
        DType::BF16 | DType::F16 => half,
        DType::F32 => single,
        _ => return None,
    };
    Some(teraflops * 1e12)
}

/// Part of the name, and TFLOP/s of bf16 and fp16 and of fp32; the first that fits counts.
const RATES: &[(&str, f64, f64)] = &[
    ("H100 PCIe", 756.0, 51.0),
    ("H100 NVL", 835.0, 60.0),
    ("H100", 989.0, 67.0),
    ("H200", 989.0, 67.0),
    ("GH200", 989.0, 67.0),
    ("A100", 312.0, 19.5),
    ("A800", 312.0, 19.5),
    ("L40S", 362.0, 91.6),
    ("A10", 125.0, 31.2),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_exact_name_counts() {
        let rate = |name| operations_per_second(name, DType::BF16);
        assert_eq!(rate("NVIDIA H100 80GB HBM3"), Some(989e12));
        assert_eq!(rate("NVIDIA H100 PCIe"), Some(756e12));
        assert_eq!(rate("NVIDIA A100-SXM4-80GB"), Some(312e12));
        assert_eq!(rate("a processor"), None);
        assert_eq!(operations_per_second("NVIDIA H200", DType::F32), Some(67e12));
    }
}

//! Quantized numbers of GGUF files: blocks of small integers that share scales.
//!
//! The layouts are those of ggml (`ggml-common.h`); every scale is a little-endian half.

use half::f16;

/// A kind of block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// 32 × 4 bits around 8, one scale.
    Q4_0,
    /// 32 × 4 bits, a scale and an offset.
    Q4_1,
    /// 32 × 8 bits, one scale.
    Q8_0,
    /// 256 × 4 bits in eight groups with scales and offsets of 6 bits.
    Q4K,
    /// 256 × 6 bits around 32 in sixteen groups with scales of 8 bits.
    Q6K,
}

/// Numbers of the largest block.
const LARGEST: usize = 256;

impl Block {
    /// The name that ggml gives it.
    pub fn name(self) -> &'static str {
        match self {
            Block::Q4_0 => "q4_0",
            Block::Q4_1 => "q4_1",
            Block::Q8_0 => "q8_0",
            Block::Q4K => "q4_K",
            Block::Q6K => "q6_K",
        }
    }

    /// Numbers of a block.
    pub fn numbers(self) -> usize {
        match self {
            Block::Q4_0 | Block::Q4_1 | Block::Q8_0 => 32,
            Block::Q4K | Block::Q6K => LARGEST,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Block::Q4_0 => 18,
            Block::Q4_1 => 20,
            Block::Q8_0 => 34,
            Block::Q4K => 144,
            Block::Q6K => 210,
        }
    }

    /// Writes numbers `start..start + into.len()` of the blocks in `bytes`, which hold them.
    pub fn read(self, bytes: &[u8], start: usize, into: &mut [f32]) {
        let mut values = [0.0; LARGEST];
        let size = self.numbers();
        let (mut at, mut into) = (start, into);
        while !into.is_empty() {
            let first = at / size * self.bytes();
            self.unpack(&bytes[first..first + self.bytes()], &mut values);
            let inside = at % size;
            let count = (size - inside).min(into.len());
            let (now, rest) = into.split_at_mut(count);
            now.copy_from_slice(&values[inside..inside + count]);
            (at, into) = (at + count, rest);
        }
    }

    fn unpack(self, block: &[u8], values: &mut [f32; LARGEST]) {
        match self {
            Block::Q4_0 => halves(&block[2..], values, |q| scale(block, 0) * (f32::from(q) - 8.0)),
            Block::Q4_1 => {
                halves(&block[4..], values, |q| scale(block, 0) * f32::from(q) + scale(block, 2));
            }
            Block::Q8_0 => {
                for (value, q) in values.iter_mut().zip(&block[2..]) {
                    *value = scale(block, 0) * f32::from(q.cast_signed());
                }
            }
            Block::Q4K => q4_k(block, values),
            Block::Q6K => q6_k(block, values),
        }
    }
}

fn scale(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Low halves of the bytes, then their high halves.
fn halves(bytes: &[u8], values: &mut [f32], f: impl Fn(u8) -> f32) {
    let (low, high) = values.split_at_mut(bytes.len());
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (f(byte & 15), f(byte >> 4));
    }
}

/// Each pair of groups of 32 shares 32 bytes: one has their low halves, one their high halves.
fn q4_k(block: &[u8], values: &mut [f32; LARGEST]) {
    let (d, d_min) = (scale(block, 0), scale(block, 2));
    let packed = &block[4..16];
    let group = |at: usize| -> (f32, f32) {
        let (scale, offset) = if at < 4 {
            (packed[at] & 63, packed[at + 4] & 63)
        } else {
            let (low, high) = (packed[at + 4], [packed[at - 4] >> 6, packed[at] >> 6]);
            ((low & 15) | (high[0] << 4), (low >> 4) | (high[1] << 4))
        };
        (d * f32::from(scale), d_min * f32::from(offset))
    };
    for (pair, (bytes, values)) in block[16..].chunks(32).zip(values.chunks_mut(64)).enumerate() {
        let (low, high) = values.split_at_mut(32);
        for (half, values) in [low, high].into_iter().enumerate() {
            let (scale, offset) = group(2 * pair + half);
            for (value, byte) in values.iter_mut().zip(bytes) {
                *value = scale * f32::from((byte >> (4 * half)) & 15) - offset;
            }
        }
    }
}

/// Each half of the block has 64 bytes of low bits and 32 bytes of high bits for four rows of 32.
fn q6_k(block: &[u8], values: &mut [f32; LARGEST]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = scale(block, 208);
    for (half, values) in values.chunks_mut(128).enumerate() {
        let (low, high) = (&low[64 * half..], &high[32 * half..]);
        for (row, values) in values.chunks_mut(32).enumerate() {
            for (at, value) in values.iter_mut().enumerate() {
                let four = (low[at + 32 * (row % 2)] >> (4 * (row / 2))) & 15;
                let two = (high[at] >> (2 * row)) & 3;
                let q = f32::from(four | (two << 4)) - 32.0;
                let group = scales[8 * half + 2 * row + at / 16].cast_signed();
                *value = d * f32::from(group) * q;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seed::Stream;
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};

    /// What candle quantizes reads here as candle dequantizes it.
    fn check(block: Block, dtype: GgmlDType) {
        let stream = Stream::new(7, "quantized");
        let numbers: Vec<f32> = (0..2048).map(|at| stream.normal(at) as f32).collect();
        let tensor = Tensor::from_vec(numbers, (4, 512), &Device::Cpu).unwrap();
        let quantized = QTensor::quantize(&tensor, dtype).unwrap();
        let theirs = quantized.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
        let theirs = theirs.to_vec1::<f32>().unwrap();
        let bytes = quantized.data().unwrap();
        assert_eq!(bytes.len(), 2048 / block.numbers() * block.bytes());
        for (start, end) in [(0, 2048), (0, 1), (31, 33), (250, 700), (2047, 2048)] {
            let mut ours = vec![0.0; end - start];
            block.read(&bytes, start, &mut ours);
            for (ours, theirs) in ours.iter().zip(&theirs[start..end]) {
                assert!((ours - theirs).abs() <= 1e-6 * theirs.abs(), "{ours} {theirs}");
            }
        }
    }

    #[test]
    fn every_kind_reads_as_candle_reads_it() {
        check(Block::Q4_0, GgmlDType::Q4_0);
        check(Block::Q4_1, GgmlDType::Q4_1);
        check(Block::Q8_0, GgmlDType::Q8_0);
        check(Block::Q4K, GgmlDType::Q4K);
        check(Block::Q6K, GgmlDType::Q6K);
    }
}

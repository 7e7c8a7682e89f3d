//! Random numbers that are addressed, not drawn: a value is a function of seed, name and position.
//!
//! A draw depends on nothing that came before it, so every parallel layout, batch cut and resumed
//! run sees the same numbers. The generator is Philox4x32-10 (Salmon et al., "Parallel random
//! numbers: as easy as 1, 2, 3", SC11), keyed by the seed and a hash of the stream's name.

/// A named family of random numbers indexed by position.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: [u32; 2],
}

impl Stream {
    /// The stream called `name` under `seed`, such as `dropout/layers.3/attention`.
    pub fn new(seed: u64, name: &str) -> Stream {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(name.as_bytes());
        let hash = hasher.finalize();
        let word = |at: usize| {
            let bytes = hash.as_bytes();
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Stream { key: [word(0), word(4)] }
    }

    /// The generator's key, for those who make the words elsewhere.
    pub fn key(&self) -> [u32; 2] {
        self.key
    }

    /// Four random words at `position` of `step`.
    #[inline]
    pub fn words(&self, step: u64, position: u64) -> [u32; 4] {
        let counter = [position as u32, (position >> 32) as u32, step as u32, (step >> 32) as u32];
        philox4x32(counter, self.key)
    }

    /// A random 64-bit word at `position`.
    pub fn word(&self, position: u64) -> u64 {
        let [low, high, ..] = self.words(0, position);
        u64::from(low) | u64::from(high) << 32
    }

    /// A number in [0, 1) with 53 random bits, at `position`.
    pub fn uniform(&self, position: u64) -> f64 {
        (self.word(position) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A standard normal number at `position` (Box and Muller's transform).
    pub fn normal(&self, position: u64) -> f64 {
        let [a, b, c, d] = self.words(0, position);
        let first = u64::from(a) | u64::from(b) << 32;
        let second = u64::from(c) | u64::from(d) << 32;
        // (0, 1], so that the logarithm is finite.
        let radius = ((first >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        let angle = (second >> 11) as f64 / (1u64 << 53) as f64;
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// A permutation of `0..length`: Fisher and Yates's shuffle on this stream.
    pub fn permutation(&self, length: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..length).collect();
        for last in (1..length).rev() {
            let pick = (u128::from(self.word(last as u64)) * (last as u128 + 1)) >> 64;
            order.swap(last, pick as usize);
        }
        order
    }
}

/// Ten rounds of Philox on one counter.
#[inline]
fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for _ in 0..10 {
        let first = MULTIPLIERS[0] * u64::from(counter[0]);
        let second = MULTIPLIERS[1] * u64::from(counter[2]);
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_vectors() {
        // Random123's kat_vectors: counter and key all zero, and all ones.
        let zero = philox4x32([0; 4], [0; 2]);
        assert_eq!(zero, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox4x32([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut order = Stream::new(7, "order").permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let stream = Stream::new(1, "init");
        let draws: Vec<f64> = (0..100_000).map(|position| stream.normal(position)).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|draw| draw * draw).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }
}

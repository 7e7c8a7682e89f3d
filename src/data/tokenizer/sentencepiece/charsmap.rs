//! The precompiled normalization rules of a model: a double-array trie of texts to replace.
//!
//! Layout (google/sentencepiece, `normalizer.cc`, and darts-clone's unit): u32 size of the trie in
//! bytes, the trie as u32 units, then the replacements, each ended by a zero byte. A leaf's value is
//! the offset of its replacement.

/// Replacements of texts by texts.
#[derive(Debug, Default)]
pub(super) struct CharsMap {
    units: Vec<u32>,
    replacements: Vec<u8>,
}

impl CharsMap {
    /// Reads `bytes`; no bytes are no rules.
    pub(super) fn parse(bytes: &[u8]) -> Result<CharsMap, String> {
        if bytes.is_empty() {
            return Ok(CharsMap::default());
        }
        let broken = || "its normalization rules are broken".to_owned();
        let (size, rest) = bytes.split_first_chunk().ok_or_else(broken)?;
        let size = u32::from_le_bytes(*size) as usize;
        let (trie, replacements) = rest.split_at_checked(size).ok_or_else(broken)?;
        let (units, odd) = trie.as_chunks();
        if !odd.is_empty() || units.is_empty() || replacements.last() != Some(&0) {
            return Err(broken());
        }
        let units = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        Ok(CharsMap { units, replacements: replacements.to_vec() })
    }

    /// The longest rule for the beginning of `text`: how many bytes it takes and what it gives.
    pub(super) fn longest(&self, text: &[u8]) -> Option<(usize, &str)> {
        let mut at = offset(*self.units.first()?);
        let mut found = None;
        for (index, byte) in text.iter().enumerate() {
            at ^= usize::from(*byte);
            let Some(unit) = self.units.get(at).filter(|unit| label(**unit) == u32::from(*byte))
            else {
                break;
            };
            at ^= offset(*unit);
            if unit >> 8 & 1 == 1 {
                let leaf = self.units.get(at).map(|leaf| (leaf & 0x7fff_ffff) as usize);
                found = leaf.map(|leaf| (index + 1, leaf)).or(found);
            }
        }
        let (length, start) = found?;
        let replacement = self.replacements.get(start..)?.split(|byte| *byte == 0).next()?;
        Some((length, std::str::from_utf8(replacement).ok()?))
    }
}

/// The byte that leads to a unit; a leaf has the highest bit set and so equals no byte.
fn label(unit: u32) -> u32 {
    unit & 0x8000_00ff
}

/// What is combined with the next byte to find the next unit.
fn offset(unit: u32) -> usize {
    (unit as usize >> 10) << ((unit & 0x200) >> 6)
}

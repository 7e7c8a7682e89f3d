//! Megatron's indexed dataset (`.bin`, `.idx`) with our loss mask (`.mask`) beside it.
//!
//! Source of the layout: Megatron-LM, `megatron/core/datasets/indexed_dataset.py`. Little-endian.
//!
//! ```text
//! .idx  0   9      "MMIDIDX\0\0"
//!       9   u64    version, 1
//!       17  u8     code of the token type, see TokenType
//!       18  u64    S, number of sequences
//!       26  u64    D, number of document boundaries (documents + 1)
//!       34  i32×S  length of each sequence in tokens
//!           i64×S  byte offset of each sequence in .bin
//!           i64×D  first sequence of each document; the first is 0, the last is S
//! .bin  tokens back to back, no header
//! .mask one byte per token of .bin: 1 when the token is learned as a label, else 0
//! ```
//!
//! The arrays start at an odd offset, so they are read byte by byte and never cast.

mod reader;
mod writer;

pub use reader::{Error, IndexedFile};
pub use writer::Writer;

use std::path::{Path, PathBuf};

/// The first bytes of an `.idx` file.
const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";

/// The only version there is.
const VERSION: u64 = 1;

/// Bytes before the arrays of an `.idx` file.
const HEADER: usize = 34;

/// How a token is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// Code 1.
    U8,
    /// Code 2.
    I8,
    /// Code 3.
    I16,
    /// Code 4.
    I32,
    /// Code 5.
    I64,
    /// Code 8.
    U16,
}

impl TokenType {
    /// The type that Megatron's writer takes for a vocabulary of this size.
    pub fn for_vocabulary(vocab_size: usize) -> TokenType {
        if vocab_size < 65_500 { TokenType::U16 } else { TokenType::I32 }
    }

    /// The code in the header.
    pub fn code(self) -> u8 {
        match self {
            TokenType::U8 => 1,
            TokenType::I8 => 2,
            TokenType::I16 => 3,
            TokenType::I32 => 4,
            TokenType::I64 => 5,
            TokenType::U16 => 8,
        }
    }

    /// The type with this code; none for the float codes 6 and 7 and for unknown ones.
    pub fn from_code(code: u8) -> Option<TokenType> {
        let all = [Self::U8, Self::I8, Self::I16, Self::I32, Self::I64, Self::U16];
        all.into_iter().find(|kind| kind.code() == code)
    }

    /// Bytes of one token.
    pub fn size(self) -> usize {
        match self {
            TokenType::U8 | TokenType::I8 => 1,
            TokenType::I16 | TokenType::U16 => 2,
            TokenType::I32 => 4,
            TokenType::I64 => 8,
        }
    }

    /// The token in `bytes`, which are as many as [`size`](Self::size) says.
    fn read(self, bytes: &[u8]) -> i64 {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let value = i64::from_le_bytes(wide);
        let unused = 64 - 8 * bytes.len() as u32;
        match self {
            TokenType::U8 | TokenType::U16 => value,
            // Moves the sign bit up and back down.
            _ => value << unused >> unused,
        }
    }
}

/// `prefix` with `extension` appended: `train` and `bin` make `train.bin`.
///
/// Megatron's prefixes may hold dots, so an extension is never replaced.
pub fn with_extension(prefix: &Path, extension: &str) -> PathBuf {
    let mut name = prefix.as_os_str().to_os_string();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_tokens_keep_their_sign() {
        assert_eq!(TokenType::I32.read(&(-7i32).to_le_bytes()), -7);
        assert_eq!(TokenType::I8.read(&[0xff]), -1);
        assert_eq!(TokenType::U16.read(&[0xff, 0xff]), 65_535);
        assert_eq!(TokenType::I64.read(&i64::MIN.to_le_bytes()), i64::MIN);
    }

    #[test]
    fn codes_go_both_ways() {
        for code in 0..=255 {
            let kind = TokenType::from_code(code);
            assert_eq!(kind.is_some(), matches!(code, 1..=5 | 8), "{code}");
            assert!(kind.is_none_or(|kind| kind.code() == code));
        }
    }
}

//! Reads an indexed dataset through memory maps; everything in the index is checked when it opens.

use super::{HEADER, MAGIC, TokenType, VERSION, with_extension};
use crate::base::mapped_file::MappedFile;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why an indexed dataset cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be opened.
    #[error("cannot open `{}`: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("`{}` is not a usable token file: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// An open indexed dataset.
#[derive(Debug)]
pub struct IndexedFile {
    prefix: PathBuf,
    index: MappedFile,
    tokens: MappedFile,
    mask: Option<MappedFile>,
    kind: TokenType,
    sequences: usize,
    boundaries: usize,
}

impl IndexedFile {
    /// Opens `prefix.idx`, `prefix.bin` and, when there is one, `prefix.mask`.
    pub fn open(prefix: &Path) -> Result<IndexedFile, Error> {
        let index = map(with_extension(prefix, "idx"))?;
        let tokens = map(with_extension(prefix, "bin"))?;
        let mask_path = with_extension(prefix, "mask");
        let mask = if mask_path.exists() { Some(map(mask_path)?) } else { None };
        let malformed = |extension: &str| {
            let path = with_extension(prefix, extension);
            move |reason| Error::Malformed { path, reason }
        };
        let header = Header::read(&index).map_err(malformed("idx"))?;
        let Header { kind, sequences, boundaries } = header;
        let prefix = prefix.to_path_buf();
        let file = IndexedFile { prefix, index, tokens, mask, kind, sequences, boundaries };
        file.check_index().map_err(malformed("idx"))?;
        file.check_mask().map_err(malformed("mask"))?;
        Ok(file)
    }

    /// The path without extensions.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.boundaries - 1
    }

    /// How tokens are stored.
    pub fn token_type(&self) -> TokenType {
        self.kind
    }

    /// Whether there is a `.mask` file.
    pub fn has_mask(&self) -> bool {
        self.mask.is_some()
    }

    /// The sequences of a document; empty for one that does not exist.
    pub fn document(&self, document: usize) -> Range<usize> {
        if document >= self.documents() {
            return 0..0;
        }
        count(self.boundary(document))..count(self.boundary(document + 1))
    }

    /// Number of tokens of a sequence; 0 for one that does not exist.
    pub fn sequence_length(&self, sequence: usize) -> usize {
        if sequence < self.sequences { count(self.length(sequence)) } else { 0 }
    }

    /// All tokens of a sequence.
    pub fn sequence(&self, sequence: usize) -> Result<Vec<u32>, Error> {
        let mut tokens = Vec::new();
        self.append_tokens(sequence, 0..self.sequence_length(sequence), &mut tokens)?;
        Ok(tokens)
    }

    /// The loss mask of a sequence: whether each token is learned as a label.
    ///
    /// Without a `.mask` file every token is.
    pub fn sequence_mask(&self, sequence: usize) -> Result<Vec<bool>, Error> {
        let mut mask = Vec::new();
        self.append_mask(sequence, 0..self.sequence_length(sequence), &mut mask)?;
        Ok(mask)
    }

    /// Appends the tokens `within` a sequence to `tokens`.
    pub fn append_tokens(
        &self,
        sequence: usize,
        within: Range<usize>,
        tokens: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let size = self.kind.size();
        let range = self.token_range(sequence, &within)?;
        let bytes = self.tokens.get(range).unwrap_or_default();
        for (at, bytes) in bytes.chunks_exact(size).enumerate() {
            let value = self.kind.read(bytes);
            let token = u32::try_from(value).map_err(|_| {
                let at = within.start + at;
                let reason =
                    format!("token {at} of sequence {sequence} is {value}, not a token id");
                Error::Malformed { path: with_extension(&self.prefix, "bin"), reason }
            })?;
            tokens.push(token);
        }
        Ok(())
    }

    /// Appends the loss mask `within` a sequence to `mask`.
    pub fn append_mask(
        &self,
        sequence: usize,
        within: Range<usize>,
        mask: &mut Vec<bool>,
    ) -> Result<(), Error> {
        let range = self.token_range(sequence, &within)?;
        let Some(bytes) = &self.mask else {
            mask.extend(within.map(|_| true));
            return Ok(());
        };
        let size = self.kind.size();
        let bytes = bytes.get(range.start / size..range.end / size).unwrap_or_default();
        mask.extend(bytes.iter().map(|byte| *byte != 0));
        Ok(())
    }

    /// Bytes of `.bin` that hold the tokens `within` a sequence.
    fn token_range(&self, sequence: usize, within: &Range<usize>) -> Result<Range<usize>, Error> {
        let length = self.sequence_length(sequence);
        if sequence >= self.sequences || within.start > within.end || within.end > length {
            let reason = format!(
                "tokens {}..{} of sequence {sequence} were asked for; it has {length} tokens and \
                 the file has {} sequences",
                within.start, within.end, self.sequences
            );
            return Err(Error::Malformed { path: with_extension(&self.prefix, "idx"), reason });
        }
        let start = count(self.pointer(sequence));
        let size = self.kind.size();
        Ok(start + within.start * size..start + within.end * size)
    }

    /// Lengths, offsets and boundaries fit each other and the size of `.bin`.
    fn check_index(&self) -> Result<(), String> {
        let bytes = self.tokens.len();
        for sequence in 0..self.sequences {
            let (length, pointer) = (self.length(sequence), self.pointer(sequence));
            let end = || {
                let length = usize::try_from(length).ok()?.checked_mul(self.kind.size())?;
                usize::try_from(pointer).ok()?.checked_add(length)
            };
            if end().is_none_or(|end| end > bytes) {
                return Err(format!(
                    "sequence {sequence} has {length} tokens at byte {pointer}, but the .bin file \
                     has {bytes} bytes"
                ));
            }
        }
        let mut before = 0;
        for at in 0..self.boundaries {
            let boundary = self.boundary(at);
            if boundary < before || (at == 0 && boundary != 0) {
                return Err(format!("document boundary {at} is {boundary}, after {before}"));
            }
            before = boundary;
        }
        if usize::try_from(before) != Ok(self.sequences) {
            let sequences = self.sequences;
            return Err(format!("the last document ends at {before} of {sequences} sequences"));
        }
        Ok(())
    }

    /// The mask has a byte for each token, and tokens stand at multiples of their size.
    fn check_mask(&self) -> Result<(), String> {
        let Some(mask) = &self.mask else { return Ok(()) };
        let size = self.kind.size();
        let tokens = self.tokens.len() / size;
        if mask.len() != tokens {
            return Err(format!("it has {} bytes for {tokens} tokens", mask.len()));
        }
        let odd = (0..self.sequences).find(|at| !count(self.pointer(*at)).is_multiple_of(size));
        match odd {
            Some(at) => Err(format!("sequence {at} does not start at a whole token")),
            None => Ok(()),
        }
    }

    fn length(&self, sequence: usize) -> i64 {
        i64::from(i32::from_le_bytes(self.at(HEADER + 4 * sequence)))
    }

    fn pointer(&self, sequence: usize) -> i64 {
        i64::from_le_bytes(self.at(HEADER + 4 * self.sequences + 8 * sequence))
    }

    fn boundary(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.at(HEADER + 12 * self.sequences + 8 * at))
    }

    /// `N` bytes of the index; its size was checked against the counts.
    fn at<const N: usize>(&self, offset: usize) -> [u8; N] {
        bytes_at(&self.index, offset).unwrap_or([0; N])
    }
}

/// What stands before the arrays.
struct Header {
    kind: TokenType,
    sequences: usize,
    boundaries: usize,
}

impl Header {
    fn read(index: &[u8]) -> Result<Header, String> {
        if index.starts_with(b"TNTIDX\0\0") {
            return Err("it is a legacy fairseq index (TNTIDX); rewrite it with Megatron's \
                        tools/preprocess_data.py and the mmap format"
                .to_owned());
        }
        if !index.starts_with(MAGIC) {
            return Err("it does not start with MMIDIDX, so it is not a Megatron index".to_owned());
        }
        let short = || format!("it has {} bytes, fewer than a header", index.len());
        let word = |offset| bytes_at(index, offset).map(u64::from_le_bytes).ok_or_else(short);
        let version = word(9)?;
        if version != VERSION {
            return Err(format!("version {version} is not supported, only {VERSION}"));
        }
        let [code] = bytes_at(index, 17).ok_or_else(short)?;
        let kind = TokenType::from_code(code).ok_or_else(|| match code {
            6 | 7 => format!("token type {code} is a float: this is not a token file"),
            _ => format!("token type {code} is unknown"),
        })?;
        let (sequences, boundaries) = (word(18)?, word(26)?);
        let expected = 12 * u128::from(sequences) + 8 * u128::from(boundaries) + HEADER as u128;
        let size = index.len() as u128;
        if size == expected + u128::from(sequences) && sequences > 0 {
            return Err("it has sequence modes: multimodal files are not supported".to_owned());
        }
        if size != expected {
            return Err(format!(
                "it has {size} bytes, but {sequences} sequences and {boundaries} document \
                 boundaries take {expected}"
            ));
        }
        if boundaries == 0 {
            return Err("it has no document boundaries".to_owned());
        }
        // Both counts are below the file's size, which fits.
        Ok(Header { kind, sequences: sequences as usize, boundaries: boundaries as usize })
    }
}

/// A count or an offset of the index, after `check_index` found none negative.
fn count(value: i64) -> usize {
    usize::try_from(value).unwrap_or_default()
}

fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn map(path: PathBuf) -> Result<MappedFile, Error> {
    MappedFile::open(&path).map_err(|source| Error::Open { path, source })
}

//! Writes an indexed dataset, sequence after sequence.

use super::{MAGIC, TokenType, VERSION, with_extension};
use crate::base::atomic_file;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A dataset being written; the index appears with [`finish`](Writer::finish), so that an
/// unfinished dataset cannot be opened.
#[derive(Debug)]
pub struct Writer {
    prefix: PathBuf,
    kind: TokenType,
    tokens: BufWriter<File>,
    mask: BufWriter<File>,
    lengths: Vec<u32>,
    /// First sequence of each document, and the end of the last.
    boundaries: Vec<u64>,
}

impl Writer {
    /// Begins `prefix.bin` and `prefix.mask` for tokens below `vocab_size`.
    pub fn create(prefix: &Path, vocab_size: usize) -> io::Result<Writer> {
        Ok(Writer {
            prefix: prefix.to_path_buf(),
            kind: TokenType::for_vocabulary(vocab_size),
            tokens: BufWriter::new(File::create(with_extension(prefix, "bin"))?),
            mask: BufWriter::new(File::create(with_extension(prefix, "mask"))?),
            lengths: Vec::new(),
            boundaries: vec![0],
        })
    }

    /// Appends a sequence; `learned` says of each token whether it is learned as a label.
    pub fn sequence(&mut self, tokens: &[u32], learned: &[bool]) -> io::Result<()> {
        if tokens.len() != learned.len() {
            let counts = format!("{} tokens, {} mask bytes", tokens.len(), learned.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, counts));
        }
        // Stored as i32.
        let length = i32::try_from(tokens.len()).map_err(io::Error::other)?.unsigned_abs();
        for token in tokens {
            self.write_token(*token)?;
        }
        for learned in learned {
            self.mask.write_all(&[u8::from(*learned)])?;
        }
        self.lengths.push(length);
        Ok(())
    }

    /// Ends the document that holds the sequences since the last end.
    pub fn end_document(&mut self) {
        self.boundaries.push(self.lengths.len() as u64);
    }

    /// Makes the files durable and writes the index.
    pub fn finish(mut self) -> io::Result<()> {
        for file in [&mut self.tokens, &mut self.mask] {
            file.flush()?;
            file.get_ref().sync_all()?;
        }
        if self.boundaries.last() != Some(&(self.lengths.len() as u64)) {
            self.end_document();
        }
        atomic_file::write_with(&with_extension(&self.prefix, "idx"), |file| self.write_index(file))
    }

    fn write_token(&mut self, token: u32) -> io::Result<()> {
        let too_large = |_| {
            let message = format!("token {token} does not fit the vocabulary of the file");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        };
        if self.kind == TokenType::U16 {
            let token = u16::try_from(token).map_err(too_large)?;
            self.tokens.write_all(&token.to_le_bytes())
        } else {
            let token = i32::try_from(token).map_err(too_large)?;
            self.tokens.write_all(&token.to_le_bytes())
        }
    }

    fn write_index(&self, file: &mut impl Write) -> io::Result<()> {
        file.write_all(MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        file.write_all(&[self.kind.code()])?;
        file.write_all(&(self.lengths.len() as u64).to_le_bytes())?;
        file.write_all(&(self.boundaries.len() as u64).to_le_bytes())?;
        for length in &self.lengths {
            file.write_all(&length.to_le_bytes())?;
        }
        let mut offset = 0u64;
        for length in &self.lengths {
            file.write_all(&offset.to_le_bytes())?;
            offset += u64::from(*length) * self.kind.size() as u64;
        }
        for boundary in &self.boundaries {
            file.write_all(&boundary.to_le_bytes())?;
        }
        Ok(())
    }
}

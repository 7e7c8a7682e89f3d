//! Event files that TensorBoard opens: scalars and texts.
//!
//! The format is TensorFlow's: each record is its length (`u64`), a masked CRC-32C of these 8 bytes,
//! the record, and a masked CRC-32C of it, little-endian (`tensorflow/core/lib/io/record_writer.cc`). A
//! record is an `Event` message (`tensorflow/core/util/event.proto`), which is written here by hand:
//! a handful of its fields are needed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How the names of event files begin.
pub const PREFIX: &str = "events.out.tfevents.";

/// A number with its tag.
pub type Scalar = (String, f64);

/// An event file that is being written.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A new file in `folder`; `time` is in seconds since 1970, `process` tells files of one second
    /// apart.
    pub fn create(folder: &Path, time: f64, process: u32) -> io::Result<EventFile> {
        let path = folder.join(format!("{PREFIX}{time:010.0}.sft-run.{process}"));
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        let mut events = EventFile { path, file };
        // TensorBoard takes only files that begin with this version.
        let version = Message::default().double(1, time).bytes(3, b"brain.Event:2");
        events.record(&version.0)?;
        Ok(events)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds numbers of `step`, in single precision as TensorBoard keeps them.
    pub fn scalars(&mut self, time: f64, step: u64, scalars: &[Scalar]) -> io::Result<()> {
        let mut summary = Message::default();
        for (tag, value) in scalars {
            let value = Message::default().bytes(1, tag.as_bytes()).float(2, *value);
            summary = summary.bytes(1, &value.0);
        }
        self.event(time, step, &summary)
    }

    /// Adds a text, which TensorBoard shows as Markdown.
    pub fn text(&mut self, time: f64, step: u64, tag: &str, text: &str) -> io::Result<()> {
        const DT_STRING: u64 = 7;
        let plugin = Message::default().bytes(1, b"text");
        let metadata = Message::default().bytes(1, &plugin.0);
        let one = Message::default().bytes(2, &Message::default().varint(1, 1).0);
        let tensor = Message::default().varint(1, DT_STRING).bytes(2, &one.0);
        let tensor = tensor.bytes(8, text.as_bytes());
        let value = Message::default().bytes(1, tag.as_bytes());
        let value = value.bytes(8, &tensor.0).bytes(9, &metadata.0);
        self.event(time, step, &Message::default().bytes(1, &value.0))
    }

    fn event(&mut self, time: f64, step: u64, summary: &Message) -> io::Result<()> {
        let event = Message::default().double(1, time).varint(2, step).bytes(5, &summary.0);
        self.record(&event.0)
    }

    /// One write for a record, so that a killed process leaves at most its last one broken.
    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut bytes = Vec::with_capacity(data.len() + 16);
        bytes.extend_from_slice(&length);
        bytes.extend_from_slice(&masked(&length).to_le_bytes());
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(&masked(data).to_le_bytes());
        self.file.write_all(&bytes)
    }
}

/// The CRC-32C of `bytes`, turned and shifted as `TensorFlow`'s crc32c.h has it.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protocol buffer message in the making.
#[derive(Clone, Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, field: u64, value: u64) -> Message {
        self.number(field << 3);
        self.number(value);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Message {
        self.number(field << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn float(mut self, field: u64, value: f64) -> Message {
        self.number(field << 3 | 5);
        self.0.extend_from_slice(&(value as f32).to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Message {
        self.number(field << 3 | 2);
        self.number(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// Seven bits a byte, the lowest first.
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_records_with_their_checksums() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path(), 1e9, 7).unwrap();
        events.scalars(1e9, 300, &[("lr".to_owned(), 0.5)]).unwrap();
        events.text(1e9, 0, "recipe", "a: 1").unwrap();
        assert!(events.path().ends_with("events.out.tfevents.1000000000.sft-run.7"));
        let bytes = std::fs::read(events.path()).unwrap();
        let mut rest = bytes.as_slice();
        let mut records = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked(&rest[..8]).to_le_bytes());
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked(data).to_le_bytes());
            records.push(data);
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 3);
        // wall time, step 300, a summary with one value: tag and simple value.
        let tail =
            [&[0x10, 0xac, 0x02, 0x2a, 11, 0x0a, 9, 0x0a, 2][..], b"lr", &[0x15, 0, 0, 0, 0x3f]];
        assert_eq!(records[1][9..], tail.concat());
    }
}

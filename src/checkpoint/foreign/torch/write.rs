//! Writing a file of `torch.save`: a dictionary of tensors in the zip form.

use crate::checkpoint::error::Error;
use crate::checkpoint::foreign::written::Tensors;
use safetensors::Dtype;
use std::io::{self, Seek, SeekFrom, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Writes the tensors of `names` (the name in the file, the name in `tensors`) into `target`, whose
/// byte `start` is the file's first; `target` stands there.
pub fn write<W: Write + Seek>(
    target: &mut W,
    start: u64,
    tensors: &Tensors<'_>,
    names: &[(String, &str)],
    done: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let mut zip = ZipWriter::new(Shifted { target, start });
    let failed = |error: io::Error| Error::io("write", std::path::Path::new("the archive"))(error);
    let zipped = |error: zip::result::ZipError| failed(io::Error::other(error));
    // PyTorch maps storages, which begin at multiples of 64.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(64)
        .large_file(true);
    let mut text = |name: &str, bytes: &[u8]| {
        zip.start_file(format!("archive/{name}"), options).map_err(zipped)?;
        zip.write_all(bytes).map_err(failed)
    };
    text("data.pkl", &pickle(tensors, names))?;
    text("byteorder", b"little")?;
    for (number, (_, name)) in names.iter().enumerate() {
        zip.start_file(format!("archive/data/{number}"), options).map_err(zipped)?;
        tensors.write(name, &mut zip, done)?;
    }
    let mut text = |name: &str, bytes: &[u8]| {
        zip.start_file(format!("archive/{name}"), options).map_err(zipped)?;
        zip.write_all(bytes).map_err(failed)
    };
    text("version", b"3\n")?;
    zip.finish().map_err(zipped)?;
    Ok(())
}

/// `{name: torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())}`.
fn pickle(tensors: &Tensors<'_>, names: &[(String, &str)]) -> Vec<u8> {
    let mut pickle = Pickle(b"\x80\x02}(".to_vec());
    let storage = if tensors.dtype == Dtype::BF16 { "BFloat16Storage" } else { "FloatStorage" };
    for (number, (name, own)) in names.iter().enumerate() {
        let shape = tensors.shapes().get(*own).map_or(&[][..], Vec::as_slice);
        let numbers: usize = shape.iter().product();
        let stride = |dim: usize| shape[dim + 1..].iter().product();
        let strides: Vec<usize> = (0..shape.len()).map(stride).collect();
        pickle.text(name);
        pickle.global("torch._utils", "_rebuild_tensor_v2");
        pickle.raw(b"((");
        pickle.text("storage");
        pickle.global("torch", storage);
        pickle.text(&number.to_string());
        pickle.text("cpu");
        pickle.number(numbers);
        pickle.raw(b"tQ");
        pickle.number(0);
        pickle.tuple(shape);
        pickle.tuple(&strides);
        pickle.raw(b"\x89");
        pickle.global("collections", "OrderedDict");
        pickle.raw(b")RtR");
    }
    pickle.raw(b"u.");
    pickle.0
}

struct Pickle(Vec<u8>);

impl Pickle {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.raw(b"X");
        self.raw(&(text.len() as u32).to_le_bytes());
        self.raw(text.as_bytes());
    }

    fn global(&mut self, module: &str, name: &str) {
        self.raw(format!("c{module}\n{name}\n").as_bytes());
    }

    fn number(&mut self, number: usize) {
        self.raw(b"\x8a\x08");
        self.raw(&(number as u64).to_le_bytes());
    }

    fn tuple(&mut self, numbers: &[usize]) {
        self.raw(b"(");
        for number in numbers {
            self.number(*number);
        }
        self.raw(b"t");
    }
}

/// A part of a file as a file of its own.
struct Shifted<'a, W> {
    target: &'a mut W,
    start: u64,
}

impl<W: Write> Write for Shifted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.target.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}

impl<W: Seek> Seek for Shifted<'_, W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => SeekFrom::Start(self.start + at),
            other => other,
        };
        let at = self.target.seek(to)?;
        at.checked_sub(self.start).ok_or_else(|| io::Error::other("a seek before the beginning"))
    }
}

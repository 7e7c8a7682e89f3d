//! What travels between nodes: a fixed prefix, a head of JSON, and bytes.
//!
//! ```text
//! to u32 · from u32 · bytes of the head u32 · bytes of the body u64 · head · body
//! ```
//! Integers are little-endian; [`EVERYBODY`] as the receiver means all nodes but the sender.

use super::NodeFailure;
use crate::parallel::group::Collective;
use crate::parallel::threads::{Channel, GroupKind};
use candle_core::{DType, Device, Result, Tensor, bail};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Read, Write};
use std::str::FromStr;
use std::sync::Arc;

/// Changes when frames or their meaning do; nodes with different numbers do not work together.
pub(super) const VERSION: u32 = 2;

/// The receiver of a frame for all nodes.
pub(super) const EVERYBODY: usize = u32::MAX as usize;

/// Longest head.
const HEAD: usize = 1 << 20;
/// Longest body: no tensor of one rank is larger.
const BODY: u64 = 1 << 37;

/// A message with its sender and receiver.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) to: usize,
    pub(super) from: usize,
    /// [`Head`] as JSON.
    head: Vec<u8>,
    /// Shared, since a rank's tensor may go to several nodes.
    pub(super) body: Arc<Vec<u8>>,
}

/// What a frame is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Head {
    /// The sender lives.
    Alive,
    /// Its ranks come on with work in which they need no others.
    Working,
    /// The sender leaves; nothing more comes.
    Bye,
    /// The run has failed.
    Failed(NodeFailure),
    /// Bytes for whoever asks for this subject.
    Mail { subject: String },
    /// A rank's tensor for a collective of its group.
    Input { hub: u64, input: Input, form: Form },
    /// A tensor from a rank to a rank.
    Message { hub: u64, channel: Channel, form: Form },
}

/// Whose tensor it is, and for which collective.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::parallel) struct Input {
    /// The kind of the group.
    pub(in crate::parallel) kind: GroupKind,
    /// Numbers in the run of the group's ranks.
    pub(in crate::parallel) ranks: Vec<usize>,
    /// The rank's number in the group.
    pub(in crate::parallel) rank: usize,
    /// Collectives that the group had started before.
    pub(in crate::parallel) number: u64,
    /// Which collective.
    pub(in crate::parallel) collective: Collective,
}

/// A tensor's number format and shape.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Form {
    dtype: String,
    shape: Vec<usize>,
}

impl Frame {
    pub(super) fn new((from, to): (usize, usize), head: &Head, body: Arc<Vec<u8>>) -> Frame {
        // Heads are plain data with text for keys: they have a JSON form.
        Frame { to, from, head: serde_json::to_vec(head).unwrap_or_default(), body }
    }

    /// A frame without a body.
    pub(super) fn bare(ends: (usize, usize), head: &Head) -> Frame {
        Frame::new(ends, head, Arc::default())
    }

    pub(super) fn head(&self) -> io::Result<Head> {
        Ok(serde_json::from_slice(&self.head)?)
    }

    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let number = |value: usize| u32::try_from(value).map_err(io::Error::other);
        let mut prefix = Vec::with_capacity(PREFIX + self.head.len());
        for value in [self.to, self.from, self.head.len()] {
            prefix.extend(number(value)?.to_le_bytes());
        }
        prefix.extend((self.body.len() as u64).to_le_bytes());
        prefix.extend(&self.head);
        to.write_all(&prefix)?;
        to.write_all(&self.body)
    }

    /// The next frame; none where the stream ends between frames. Memory grows only with what has
    /// come.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Frame>> {
        let mut prefix = [0; PREFIX];
        if from.read(&mut prefix[..1])? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut prefix[1..])?;
        let number = |at: usize| {
            let bytes = [prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]];
            u32::from_le_bytes(bytes) as usize
        };
        let (to, sender, head) = (number(0), number(4), number(8));
        let body = u64::from(number(12) as u32) | (u64::from(number(16) as u32) << 32);
        if head > HEAD || body > BODY {
            return Err(wrong(format!("a frame of {head} + {body} bytes")));
        }
        let (head, body) = (exactly(from, head as u64)?, exactly(from, body)?);
        Ok(Some(Frame { to, from: sender, head, body: Arc::new(body) }))
    }
}

/// Bytes before the head.
const PREFIX: usize = 20;

fn exactly(from: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

pub(super) fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

impl Form {
    pub(super) fn of(x: &Tensor) -> Form {
        Form { dtype: x.dtype().as_str().to_owned(), shape: x.dims().to_vec() }
    }

    /// The tensor of this form with these bytes, on the CPU.
    pub(super) fn tensor(&self, bytes: &[u8]) -> Result<Tensor> {
        let Ok(dtype) = DType::from_str(&self.dtype) else {
            bail!("`{}` is no number format", self.dtype)
        };
        let elements = self.shape.iter().try_fold(1_usize, |all, size| all.checked_mul(*size));
        let size = elements.and_then(|count| count.checked_mul(dtype.size_in_bytes()));
        if !is_sent(dtype) || size != Some(bytes.len()) {
            bail!("{} bytes are no tensor of {dtype:?} {:?}", bytes.len(), self.shape)
        }
        Tensor::from_raw_buffer(bytes, dtype, &self.shape, &Device::Cpu)
    }
}

/// The bytes of a tensor on the CPU, little-endian and row-major.
pub(super) fn bytes(x: &Tensor) -> Result<Vec<u8>> {
    if !is_sent(x.dtype()) {
        bail!("nodes do not exchange {:?}", x.dtype())
    }
    let mut bytes = Vec::with_capacity(x.elem_count() * x.dtype().size_in_bytes());
    x.write_bytes(&mut bytes)?;
    Ok(bytes)
}

fn is_sent(dtype: DType) -> bool {
    use DType::{BF16, F16, F32, F64, I64, U8, U32};
    matches!(dtype, F32 | F64 | BF16 | F16 | U8 | U32 | I64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::D;

    #[test]
    fn a_frame_comes_back_as_it_was_sent() {
        let x = Tensor::new(&[[1.5_f32, -0.0], [f32::INFINITY, 1e-40]], &Device::Cpu).unwrap();
        let channel = Channel { kind: GroupKind::Pipeline, from: 1, to: 2, tag: 7 };
        let head = Head::Message { hub: 3, channel, form: Form::of(&x) };
        let mut sent = Vec::new();
        Frame::new((1, 2), &head, Arc::new(bytes(&x).unwrap())).write(&mut sent).unwrap();
        let mut stream = &sent[..];
        let frame = Frame::read(&mut stream).unwrap().unwrap();
        assert_eq!((frame.from, frame.to), (1, 2));
        let Head::Message { hub: 3, channel: there, form } = frame.head().unwrap() else {
            panic!()
        };
        assert_eq!(there, channel);
        let bits = |x: &Tensor| -> Vec<u32> {
            x.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect()
        };
        let back = form.tensor(&frame.body).unwrap();
        assert_eq!((bits(&back), back.dim(D::Minus1).unwrap()), (bits(&x), 2));
        assert!(Frame::read(&mut stream).unwrap().is_none());
        // A stream that ends within a frame is no end of frames.
        for length in 1..sent.len() {
            assert!(Frame::read(&mut &sent[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn half_numbers_travel_whole() {
        for dtype in [DType::BF16, DType::F16, DType::U32, DType::I64, DType::U8, DType::F64] {
            let x = Tensor::new(&[0.5_f32, 3.0, 250.0], &Device::Cpu).unwrap();
            let x = x.to_dtype(dtype).unwrap();
            let back = Form::of(&x).tensor(&bytes(&x).unwrap()).unwrap();
            let wide = |x: &Tensor| x.to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
            assert_eq!(wide(&back), wide(&x));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let form = |dtype: &str, shape: &[usize]| Form { dtype: dtype.into(), shape: shape.into() };
        for bad in [
            form("f32", &[3]),
            form("f32", &[usize::MAX, 2]),
            form("f8e4m3", &[8]),
            form("none", &[2]),
        ] {
            assert!(bad.tensor(&[0; 8]).is_err(), "{bad:?}");
        }
        let huge = [[0_u8; 8].as_slice(), &[255; 4], &[0; 8]].concat();
        assert!(Frame::read(&mut &huge[..]).unwrap_err().to_string().contains("a frame of"));
        // A length that nothing stands behind takes no memory.
        let mut long = vec![0; 12];
        long.extend((1_u64 << 36).to_le_bytes());
        assert_eq!(Frame::read(&mut &long[..]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}

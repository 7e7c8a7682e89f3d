//! The stack machine of pickles, protocols 2 to 5, with every call kept as data.
//!
//! The instructions are those of Python's `pickletools`. Values lie in one list and name each other
//! by place, so that neither depth nor sharing can cost more memory than the pickle has bytes.

use super::known::is_known;
use super::{Error, Id, Value, Values};
use std::collections::BTreeMap;

/// Most values of one pickle; a checkpoint of a thousand layers has less than a tenth.
const MOST_VALUES: usize = 4 << 20;

type Result<T> = std::result::Result<T, Error>;

/// Reads the pickle at the beginning of `bytes`: its values, the one that it is, and its length.
pub fn parse(bytes: &[u8]) -> Result<(Values<'_>, Id, usize)> {
    let mut machine = Machine {
        bytes,
        at: 0,
        values: Values { values: vec![Value::None, Value::Bool(false), Value::Bool(true)] },
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
    };
    loop {
        let place = machine.at;
        let [instruction] = machine.array()?;
        if instruction == b'.' {
            let top = machine.pop()?;
            return Ok((machine.values, top, machine.at));
        }
        let known = machine.literal(instruction)?
            || machine.container(instruction)?
            || machine.object(instruction)?;
        if !known {
            return Err(Error::Instruction(instruction, place));
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Values<'a>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<usize, Id>,
}

/// Places of the values that need no new one each time.
const NONE: Id = 0;
const FALSE: Id = 1;
const TRUE: Id = 2;

impl<'a> Machine<'a> {
    /// Numbers, texts, bytes and the like; false when the instruction is none of these.
    fn literal(&mut self, instruction: u8) -> Result<bool> {
        let value = match instruction {
            b'N' => return self.shared(NONE),
            0x88 => return self.shared(TRUE),
            0x89 => return self.shared(FALSE),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            b'K' => Value::Int(u8::from_le_bytes(self.array()?).into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            b'B' | b'T' => Value::Bytes(self.counted(4)?),
            b'C' | b'U' => Value::Bytes(self.counted(1)?),
            0x8e | 0x96 => Value::Bytes(self.counted(8)?),
            _ => return Ok(false),
        };
        self.push(value)?;
        Ok(true)
    }

    /// Tuples, lists, dictionaries and sets; false when the instruction is none of these.
    fn container(&mut self, instruction: u8) -> Result<bool> {
        match instruction {
            b'(' => self.marks.push(self.stack.len()),
            b'0' => _ = self.pop()?,
            b'1' => _ = self.take_to_mark()?,
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b']' | 0x8f => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b't' => {
                let items = self.take_to_mark()?;
                self.push(Value::Tuple(items))?;
            }
            b'l' | 0x91 => {
                let items = self.take_to_mark()?;
                self.push(Value::List(items))?;
            }
            b'd' => {
                let items = self.take_to_mark()?;
                self.push(Value::Dict(pairs(&items)?))?;
            }
            0x85..=0x87 => {
                let count = usize::from(instruction - 0x84);
                let from = self.stack.len().checked_sub(count);
                let from = from.ok_or(Error::Damaged("its stack is empty"))?;
                let items = self.stack.split_off(from);
                self.push(Value::Tuple(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.take_to_mark()?;
                self.extend(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.put(vec![(key, value)])?;
            }
            b'u' => {
                let items = self.take_to_mark()?;
                self.put(pairs(&items)?)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Names, calls, the memo and frames; false when the instruction is none of these.
    fn object(&mut self, instruction: u8) -> Result<bool> {
        match instruction {
            0x80 => {
                let [version] = self.array()?;
                if version > 5 {
                    return Err(Error::Damaged("its version is not known"));
                }
            }
            0x95 => _ = self.array::<8>()?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (module, name) = (self.values.text(module), self.values.text(name));
                let (Some(module), Some(name)) = (module, name) else {
                    return Err(Error::Damaged("a name is not a text"));
                };
                self.global(module, name)?;
            }
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.made(callee, arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                match &mut self.values.values[object] {
                    Value::Made { state: own, .. } => *own = Some(state),
                    _ => return Err(Error::Damaged("a state is set on something plain")),
                }
            }
            b'Q' => {
                let name = self.pop()?;
                self.push(Value::Persistent(name))?;
            }
            b'q' => {
                let [at] = self.array()?;
                self.remember(at.into())?;
            }
            b'r' => {
                let at = self.length(4)?;
                self.remember(at)?;
            }
            0x94 => self.remember(self.memo.len())?,
            b'h' => {
                let [at] = self.array()?;
                self.recall(at.into())?;
            }
            b'j' => {
                let at = self.length(4)?;
                self.recall(at)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn global(&mut self, module: &'a str, name: &'a str) -> Result<()> {
        if !is_known(module, name) {
            return Err(Error::Refused(format!("{module}.{name}").chars().take(200).collect()));
        }
        self.push(Value::Global(module, name))
    }

    fn made(&mut self, callee: Id, arguments: Id) -> Result<()> {
        if !matches!(self.values.get(callee), Value::Global(..)) {
            return Err(Error::Damaged("something is called that is no name"));
        }
        self.push(Value::Made { callee, arguments, state: None, items: Vec::new() })
    }

    fn extend(&mut self, items: Vec<Id>) -> Result<()> {
        let object = self.top()?;
        match &mut self.values.values[object] {
            Value::List(own) => own.extend(items),
            Value::Made { items: own, .. } => {
                own.extend(items.into_iter().map(|item| (NONE, item)));
            }
            _ => return Err(Error::Damaged("items are put into something plain")),
        }
        Ok(())
    }

    fn put(&mut self, entries: Vec<(Id, Id)>) -> Result<()> {
        let object = self.top()?;
        match &mut self.values.values[object] {
            Value::Dict(own) | Value::Made { items: own, .. } => own.extend(entries),
            _ => return Err(Error::Damaged("entries are put into something plain")),
        }
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) -> Result<()> {
        if self.values.values.len() >= MOST_VALUES {
            return Err(Error::TooLarge(MOST_VALUES));
        }
        self.stack.push(self.values.values.len());
        self.values.values.push(value);
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "an arm among arms that may fail")]
    fn shared(&mut self, id: Id) -> Result<bool> {
        self.stack.push(id);
        Ok(true)
    }

    /// The top of the stack, above the last mark.
    fn top(&self) -> Result<Id> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.last().filter(|_| self.stack.len() > bottom);
        top.copied().ok_or(Error::Damaged("its stack is empty"))
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn take_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or(Error::Damaged("a mark is missing"))?))
    }

    fn remember(&mut self, at: usize) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(at, top);
        Ok(())
    }

    fn recall(&mut self, at: usize) -> Result<()> {
        let id = self.memo.get(&at).copied();
        self.stack.push(id.ok_or(Error::Damaged("it recalls what it did not remember"))?);
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or(Error::Damaged("it ends early"))?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Error::Damaged("it ends early"))
    }

    /// A length of so many bytes, little-endian.
    fn length(&mut self, bytes: usize) -> Result<usize> {
        let taken = self.take(bytes)?;
        let number = taken.iter().rev().fold(0_u64, |all, byte| (all << 8) | u64::from(*byte));
        usize::try_from(number).map_err(|_| Error::Damaged("a length is too large"))
    }

    fn counted(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let count = self.length(bytes)?;
        self.take(count)
    }

    fn text(&mut self, bytes: usize) -> Result<Value<'a>> {
        let bytes = self.counted(bytes)?;
        let text = std::str::from_utf8(bytes);
        text.map(Value::Text).map_err(|_| Error::Damaged("a text is not UTF-8"))
    }

    fn long(&mut self, bytes: usize) -> Result<Value<'a>> {
        let bytes = self.counted(bytes)?;
        if bytes.len() > 8 {
            return Ok(Value::Long(bytes));
        }
        let negative = bytes.last().is_some_and(|byte| *byte >= 128);
        let mut wide = [if negative { 255 } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = self.take(end.ok_or(Error::Damaged("a name does not end"))?)?;
        self.at += 1;
        std::str::from_utf8(line).map_err(|_| Error::Damaged("a name is not UTF-8"))
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>> {
    if !items.len().is_multiple_of(2) {
        return Err(Error::Damaged("a key has no value"));
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8], expected: &str) {
        let error = parse(bytes).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_payload_is_named_and_not_executed() {
        // pickle.dumps of an object whose __reduce__ gives (os.system, ("touch /tmp/x",))
        let payload = b"\x80\x02cposix\nsystem\nq\0X\x0c\0\0\0touch /tmp/xq\x01\x85q\x02Rq\x03.";
        refused(payload, "asks Python to call `posix.system`");
        let framed = b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.";
        refused(framed, "asks Python to call `builtins.eval`");
    }

    #[test]
    fn what_is_cut_short_or_senseless_is_an_error() {
        refused(b"", "ends early");
        refused(b"\x80\x02", "ends early");
        refused(b"\x80\x02X\xff\xff\xff\x7fa", "ends early");
        refused(b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xffa", "ends early");
        refused(b"\x80\x02(u.", "empty");
        refused(b"\x80\x02}(K\x01u.", "a key has no value");
        refused(b"\x80\x02h\x05.", "recalls");
        refused(b"\x80\x02e.", "mark");
        refused(b"\x80\x02\x81.", "empty");
        refused(b"\x80\x02i", "instruction 0x69");
    }

    #[test]
    fn values_are_read() {
        let (values, top, length) =
            parse(b"\x80\x02}q\0(X\x01\0\0\0aK\x05X\x01\0\0\0b\x8a\x02\x00\xffX\x01\0\0\0cNu.rest")
                .unwrap();
        assert_eq!(values.field(top, "a").and_then(|id| values.size(id)), Some(5));
        assert_eq!(values.field(top, "b").map(|id| values.get(id)), Some(&Value::Int(-256)));
        assert_eq!(values.field(top, "c"), Some(NONE));
        assert_eq!(length, 33);
    }
}

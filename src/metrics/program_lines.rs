//! Lines that a program writes, read as they come and never longer than a limit.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc::SyncSender;
use std::thread;

/// Longest line that is kept; the rest of it is dropped.
const LONGEST: usize = 4096;

/// A line, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// On stdout.
    Out(String),
    /// On stderr.
    Err(String),
}

/// Sends every line of the child's stdout and stderr; both ends close when the child has ended.
pub(super) fn listen(child: &mut Child, send: &SyncSender<Said>) {
    if let Some(stdout) = child.stdout.take() {
        let send = send.clone();
        thread::spawn(move || lines(stdout, |line| send.send(Said::Out(line)).is_ok()));
    }
    if let Some(stderr) = child.stderr.take() {
        let send = send.clone();
        thread::spawn(move || lines(stderr, |line| send.send(Said::Err(line)).is_ok()));
    }
}

/// Hands every line of `source` to `take` until it says no. A line that passes [`LONGEST`] bytes is
/// handed over at once, cut there: it may have no end.
fn lines(source: impl Read, mut take: impl FnMut(String) -> bool) {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    let mut skipping = false;
    loop {
        let Ok(bytes) = source.fill_buf() else { return };
        if bytes.is_empty() {
            break;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        if !skipping {
            line.extend_from_slice(&part[..part.len().min(LONGEST - line.len())]);
        }
        let used = end.map_or(bytes.len(), |end| end + 1);
        let whole = end.is_some();
        source.consume(used);
        let full = line.len() >= LONGEST;
        if !skipping && (whole || full) {
            if !take(text(&line)) {
                return;
            }
            line.clear();
            skipping = !whole;
        } else if whole {
            skipping = false;
        }
    }
    if !line.is_empty() {
        take(text(&line));
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_end_is_cut() {
        let long = format!("{}\nnext\nlast", "x".repeat(3 * LONGEST));
        let mut seen = Vec::new();
        lines(long.as_bytes(), |line| {
            seen.push(line.len());
            true
        });
        assert_eq!(seen, [LONGEST, 4, 4]);
    }
}

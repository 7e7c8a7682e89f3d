//! Where text for people goes, and whether it may have colors and bars.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

/// The stream for people: stdout, or stderr when stdout carries JSON.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the streams")]
pub struct Terminal {
    /// Whether stdout carries one JSON document and nothing else.
    pub json: bool,
    /// Whether only results and errors are shown.
    pub quiet: bool,
    /// Whether a person watches: bars may be drawn.
    pub interactive: bool,
    /// Whether text may be colored.
    pub color: bool,
    /// Whether text on stderr may be colored.
    pub error_color: bool,
    /// Columns.
    pub width: usize,
}

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Success.
    Green,
    /// Work going on.
    Cyan,
    /// A warning.
    Yellow,
    /// A failure.
    Red,
    /// A heading.
    Bold,
    /// Less important.
    Dim,
}

impl Terminal {
    /// The terminal as the streams and the environment describe it.
    pub fn detect(json: bool, quiet: bool, environment: &BTreeMap<String, String>) -> Terminal {
        let tty = if json { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
        let dumb = environment.get("TERM").is_some_and(|term| term == "dumb");
        let forced = environment.get("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let colored = |tty: bool| !set("NO_COLOR") && !dumb && (tty || forced);
        let (color, error_color) = (colored(tty), colored(io::stderr().is_terminal()));
        let columns = if tty { columns(json) } else { None };
        Terminal {
            json,
            quiet,
            interactive: tty && !dumb && !quiet,
            color,
            error_color,
            width: columns.unwrap_or(100),
        }
    }

    /// Writes `text` and a line end. A closed pipe is nobody's failure: the text is dropped.
    pub fn line(&self, text: &str) {
        let text = format!("{text}\n");
        let _ = if self.json {
            io::stderr().lock().write_all(text.as_bytes())
        } else {
            io::stdout().lock().write_all(text.as_bytes())
        };
    }

    /// Writes a result to stdout, whatever carries text for people.
    pub fn result(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        // As above: whoever closed the pipe has read enough.
        let _ = stdout.write_all(text.as_bytes());
        let _ = if text.ends_with('\n') { stdout.flush() } else { stdout.write_all(b"\n") };
    }

    /// Writes a part of a line to stdout, at once.
    pub fn piece(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    /// Writes `text` to stderr.
    pub fn error(&self, text: &str) {
        let _ = io::stderr().lock().write_all(format!("{}\n", text.trim_end()).as_bytes());
    }

    /// `text` in a color, where the stream for people may have colors.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        painted(self.color, paint, text)
    }

    /// `text` in a color, where stderr may have colors.
    pub fn paint_error(&self, paint: Paint, text: &str) -> String {
        painted(self.error_color, paint, text)
    }
}

fn painted(color: bool, paint: Paint, text: &str) -> String {
    if !color || text.is_empty() {
        return text.to_owned();
    }
    let code = match paint {
        Paint::Green => "32",
        Paint::Cyan => "36",
        Paint::Yellow => "33",
        Paint::Red => "31",
        Paint::Bold => "1",
        Paint::Dim => "2",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

fn columns(stderr: bool) -> Option<usize> {
    let size = if stderr {
        terminal_size::terminal_size_of(io::stderr())
    } else {
        terminal_size::terminal_size_of(io::stdout())
    };
    size.map(|(width, _)| usize::from(width.0))
}

//! Where text for people goes, and whether it may have colors and bars.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;

/// Why text for stdout was lost, the first time that it was: a full disk, not a reader who has gone.
static LOST: OnceLock<String> = OnceLock::new();

/// Keeps why text was lost. A closed pipe is nobody's failure: whoever closed it has read enough.
fn note(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = LOST.set(error.to_string());
    }
}

/// Why text for stdout was lost, if it was; asked at the end.
pub fn lost() -> Option<&'static str> {
    note(io::stdout().lock().flush());
    LOST.get().map(String::as_str)
}

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

    /// Columns of tables: those of a person's terminal; a file or a program gets every letter.
    pub fn table_width(&self) -> usize {
        if self.interactive { self.width } else { usize::MAX }
    }

    /// Writes `text` and a line end.
    pub fn line(&self, text: &str) {
        let text = format!("{text}\n");
        if self.json {
            // There is no other place to say it.
            let _ = io::stderr().lock().write_all(text.as_bytes());
        } else {
            note(io::stdout().lock().write_all(text.as_bytes()));
        }
    }

    /// Writes a result to stdout, whatever carries text for people.
    pub fn result(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        note(stdout.write_all(text.as_bytes()));
        note(if text.ends_with('\n') { stdout.flush() } else { stdout.write_all(b"\n") });
    }

    /// Writes a part of a line to stdout, at once.
    pub fn piece(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        note(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
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

/// `text` in lines of at most `width` columns, broken at spaces; what goes on stands a little to the
/// right of where its line began.
pub fn wrapped(text: &str, width: usize) -> String {
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let words = line.trim_start();
        let indent = " ".repeat((line.len() - words.len() + 4).min(width / 2));
        let mut rest = line.to_owned();
        while let Some((end, _)) = rest.char_indices().nth(width) {
            let begun = rest.len() - rest.trim_start().len();
            let fits =
                if rest[end..].starts_with(' ') { Some(end) } else { rest[..end].rfind(' ') };
            let space = fits.filter(|space| *space > begun);
            // A word that is wider than the terminal goes on its own line as it is.
            let Some(space) = space.or_else(|| rest[end..].find(' ').map(|at| end + at)) else {
                break;
            };
            let next = format!("{indent}{}", rest[space..].trim_start());
            lines.push(rest[..space].trim_end().to_owned());
            rest = next;
        }
        lines.push(rest);
    }
    lines.join("\n")
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

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn long_lines_are_broken_at_spaces() {
        assert_eq!(wrapped("  ! one two three\nshort", 12), "  ! one two\n      three\nshort");
        let wide = "a_word_that_is_wider_than_the_terminal and more";
        assert_eq!(wrapped(wide, 12), "a_word_that_is_wider_than_the_terminal\n    and more");
        assert_eq!(wrapped("é é é é", 5), "é é é\n  é");
    }
}

//! A metric computed by another program: JSON lines in, a score a line out.
//!
//! The program reads `{"prompt": …, "expected": …, "output": …}` a line on its standard input and
//! writes a number a line, in the same order. It is ended with its children when it is silent for
//! too long, answers something else, or answers too much; whatever it writes to its standard error
//! is handed on. Nothing that it prints is kept beyond a line, so it cannot fill the memory.

use super::Texts;
use super::program_lines::{Said, listen};
use std::io::{self, BufWriter, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Why a program gave no scores.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be started.
    #[error("cannot start `{program}`: {source}; give a program of the PATH, or a file's path")]
    Start {
        /// The first word of the command.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It was silent.
    #[error(
        "it hangs: no score for row {row} of {rows} within {seconds} s (`timeout`), so it was ended"
    )]
    Hung {
        /// The row without an answer, from 1.
        row: usize,
        /// All rows.
        rows: usize,
        /// The patience.
        seconds: f64,
    },
    /// It ended before it had answered.
    #[error("it ended ({status}) without a score for row {row} of {rows}{last_words}")]
    Died {
        /// How it ended.
        status: String,
        /// The first row without an answer, from 1.
        row: usize,
        /// All rows.
        rows: usize,
        /// The end of what it wrote to stderr.
        last_words: String,
    },
    /// It answered every row and then failed.
    #[error("it failed ({status}) after the last score{last_words}")]
    Failed {
        /// How it ended.
        status: String,
        /// The end of what it wrote to stderr.
        last_words: String,
    },
    /// An answer is no number.
    #[error("it answered `{answer}` for row {row}, which is no number: a score a line is expected")]
    Garbage {
        /// The row, from 1.
        row: usize,
        /// The beginning of the line.
        answer: String,
    },
    /// It answers without end.
    #[error("it answered more than the {rows} rows that it was given, so it was ended")]
    TooMuch {
        /// The rows.
        rows: usize,
    },
    /// The run was asked to stop.
    #[error("it was ended because the run was stopped")]
    Stopped,
}

/// A program that scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Its name and its arguments.
    pub command: Vec<String>,
    /// Longest wait for the next score.
    pub patience: Duration,
}

/// Lines of stderr that an error repeats.
const LAST_WORDS: usize = 5;
/// How often a wait looks whether the run was stopped.
const GLANCE: Duration = Duration::from_millis(100);

impl Program {
    /// A score for every row; `hear` gets each line of its stderr.
    pub fn scores(
        &self,
        rows: &[Texts<'_>],
        stop: &AtomicBool,
        hear: &mut dyn FnMut(&str),
    ) -> Result<Vec<f64>, Error> {
        let mut running = Running::start(self)?;
        let (send, said) = sync_channel(64);
        listen(&mut running.child, &send);
        drop(send);
        let lines: Vec<u8> = rows.iter().flat_map(super::Texts::json_line).collect();
        if let Some(stdin) = running.child.stdin.take() {
            thread::spawn(move || feed(stdin, &lines));
        }
        let mut ear = Ear { said, stop, hear, last: Vec::new() };
        let scores = self.collect(rows.len(), &mut ear, &mut running);
        drop(running);
        scores
    }

    fn collect(
        &self,
        rows: usize,
        ear: &mut Ear<'_>,
        running: &mut Running,
    ) -> Result<Vec<f64>, Error> {
        let mut scores = Vec::with_capacity(rows);
        loop {
            let row = scores.len() + 1;
            let seconds = self.patience.as_secs_f64();
            match ear.next_line(self.patience) {
                Err(RecvTimeoutError::Timeout) if ear.stop.load(Ordering::Relaxed) => {
                    return Err(Error::Stopped);
                }
                Err(RecvTimeoutError::Timeout) => return Err(Error::Hung { row, rows, seconds }),
                Err(RecvTimeoutError::Disconnected) => break,
                Ok(_) if scores.len() == rows => return Err(Error::TooMuch { rows }),
                Ok(line) => match line.trim().parse::<f64>() {
                    Ok(score) if score.is_finite() => scores.push(score),
                    _ => return Err(Error::Garbage { row, answer: beginning(&line) }),
                },
            }
        }
        let row = scores.len() + 1;
        let Some(status) = running.end(self.patience) else {
            return Err(Error::Hung { row: rows, rows, seconds: self.patience.as_secs_f64() });
        };
        let last_words = ear.last_words();
        match scores.len() == rows {
            true if status.success() => Ok(scores),
            true => Err(Error::Failed { status: status.to_string(), last_words }),
            false => Err(Error::Died { status: status.to_string(), row, rows, last_words }),
        }
    }
}

fn beginning(line: &str) -> String {
    let line = line.trim_end();
    let start: String = line.chars().take(60).collect();
    if start.len() < line.len() { format!("{start}…") } else { start }
}

/// The rows are written while the answers are read, so that neither side waits for the other.
fn feed(stdin: ChildStdin, lines: &[u8]) {
    let mut stdin = BufWriter::new(stdin);
    // A program that reads no further has its reasons: what it answers tells.
    let _ = stdin.write_all(lines).and_then(|()| stdin.flush());
}

/// Hears what the program says.
struct Ear<'a> {
    said: Receiver<Said>,
    stop: &'a AtomicBool,
    hear: &'a mut dyn FnMut(&str),
    /// The last lines of stderr.
    last: Vec<String>,
}

impl Ear<'_> {
    /// The next line of stdout; stderr is handed on meanwhile.
    fn next_line(&mut self, patience: Duration) -> Result<String, RecvTimeoutError> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.load(Ordering::Relaxed) {
                return Err(RecvTimeoutError::Timeout);
            }
            match self.said.recv_timeout(left.min(GLANCE)) {
                Ok(Said::Out(line)) => return Ok(line),
                Ok(Said::Err(line)) => {
                    (self.hear)(&line);
                    self.last.push(line);
                    if self.last.len() > LAST_WORDS {
                        self.last.remove(0);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
            }
        }
    }

    fn last_words(&self) -> String {
        if self.last.is_empty() {
            return String::new();
        }
        format!("; its last words: {}", self.last.join(" | "))
    }
}

/// The program while it runs; it does not outlive this.
struct Running {
    child: Child,
    ended: bool,
}

impl Running {
    fn start(program: &Program) -> Result<Running, Error> {
        let first = program.command.first().cloned().unwrap_or_default();
        let mut command = Command::new(&first);
        command.args(program.command.get(1..).unwrap_or_default());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        // A group of its own, so that what it starts can be ended with it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(|source| Error::Start { program: first, source })?;
        Ok(Running { child, ended: false })
    }

    /// How it ended; none when it does not.
    fn end(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.ended = true;
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        #[cfg(unix)]
        if let Some(group) =
            i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            // What it started goes too; the child is not waited for yet, so the number is its own.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

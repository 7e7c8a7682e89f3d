//! `sft-run generate --chat`: a conversation with a run's model, line by line.

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::terminal::Paint;
use crate::spec::generation::Generation;
use crate::stages::generate::{Devices, Update};
use std::io::{self, BufRead};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reads a line, streams the answer, and so on until the input ends.
pub(in crate::cli) fn run(
    session: &Session,
    (model, devices): (&Path, Devices),
    settings: &Generation,
    stop: &AtomicBool,
) -> Result<Exit, Failure> {
    let speaker = super::generate::speaker(model, devices)?;
    let conversation = speaker.conversation(settings);
    let mut conversation = conversation.map_err(|error| Failure::failed(&error))?;
    let terminal = &session.terminal;
    let mut lines = io::stdin().lock().lines();
    loop {
        if terminal.interactive {
            terminal.piece(&terminal.paint(Paint::Bold, "you: "));
        }
        let Some(line) = lines.next() else { break };
        let line = line.map_err(|error| Failure::failed(&error))?;
        if line.trim().is_empty() {
            continue;
        }
        let mut listener = |update: Update<'_>| {
            if let Update::Text { piece, .. } = update {
                terminal.piece(piece);
            }
        };
        let answer = conversation.answer(&line, stop, &mut listener);
        answer.map_err(|error| Failure::failed(&error))?;
        terminal.piece("\n");
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(Exit::Done)
}

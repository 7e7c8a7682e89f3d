//! `sft-run generate --chat`: a conversation with a run's model, line by line.

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::terminal::Paint;
use crate::spec::generation::Generation;
use crate::stages::generate::{Devices, Message, Speaker, Update};
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
    let speaker = Speaker::open(model, devices, None).map_err(|error| Failure::failed(&error))?;
    let template = speaker.chat_template().map_err(|error| Failure::failed(&error))?;
    let terminal = &session.terminal;
    let mut messages: Vec<Message> = Vec::new();
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
        messages.push(Message::user(&line));
        let mut listener = |update: Update<'_>| {
            if let Update::Text { piece, .. } = update {
                terminal.piece(piece);
            }
        };
        let answer = speaker.answer(&template, &messages, settings, stop, &mut listener);
        messages.push(Message::assistant(&answer.map_err(|error| Failure::failed(&error))?));
        terminal.piece("\n");
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(Exit::Done)
}

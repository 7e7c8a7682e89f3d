//! Text appears on the terminal token by token.

use super::{Desk, text};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

/// Every write of the program to its stdout: a datagram keeps what was written at once apart.
fn writes(desk: &Desk, words: &[&str]) -> Vec<String> {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut command = desk.command(words);
    command.stdout(OwnedFd::from(theirs)).stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    // It holds the other end of the pair.
    drop(command);
    let (mut written, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let ended = child.try_wait().unwrap();
        match ours.recv(&mut buffer) {
            Ok(length) => written.push(text(&buffer[..length])),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset));
                if let Some(status) = ended {
                    assert!(status.success());
                    return written;
                }
            }
        }
    }
}

#[test]
fn a_word_that_is_not_in_the_data_gets_a_text_token_by_token() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml", "-q"], 0);
    assert!(!desk.text("nouns.jsonl").contains("zyzzyva"));
    let prompt = "define zyzzyva:";
    let words = ["generate", "runs/tiny", "--prompt", prompt, "--min-length", "12"];
    let whole = desk.run(&words, 0);
    let written = writes(&desk, &words);
    assert_eq!(written.concat(), whole, "the pieces add up to the text");
    assert_eq!(written[0], prompt, "the prompt is there before the first token");
    assert!(written.len() > 8, "{written:?}");
    let longest = written[1..].iter().map(|piece| piece.chars().count()).max();
    assert!(longest < Some(24), "a piece is about a token: {written:?}");
}

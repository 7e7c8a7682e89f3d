//! A schedule as text: a line per stage, time from left to right.

use super::play::{Play, Span};

/// A piece of a drawing, so that whoever shows it can color it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A forward pass: ` 0 `.
    Forward(String),
    /// A backward pass: `[ 0 ]`.
    Backward(String),
    /// Waiting.
    Idle(String),
    /// Time that is left out.
    Gap,
}

/// The lines of a drawing that is at most `columns` wide; time in the middle is left out to fit.
///
/// A forward pass is the micro-batch's number, a backward pass the number in brackets; chunks are
/// letters.
pub fn lines(play: &Play, chunks: usize, columns: usize) -> Vec<Vec<Piece>> {
    let spans = || play.stages.iter().flatten();
    let cell = spans().map(|span| name(span, chunks).chars().count()).max().unwrap_or(1) + 2;
    let room = columns / cell;
    let shown = if play.end <= room { None } else { Some((room.max(4) - 1) / 2) };
    let line = |spans: &Vec<Span>| match shown {
        None => part(spans, chunks, cell, 0..play.end),
        Some(half) => {
            let mut pieces = part(spans, chunks, cell, 0..half);
            pieces.push(Piece::Gap);
            pieces.extend(part(spans, chunks, cell, play.end - half..play.end));
            pieces
        }
    };
    play.stages.iter().map(line).collect()
}

/// What a stage does in the units of time `time`; a computation that is cut shows what fits.
fn part(spans: &[Span], chunks: usize, cell: usize, time: std::ops::Range<usize>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut clock = time.start;
    let inside = |span: &&Span| span.start < time.end && span.end > time.start;
    for span in spans.iter().filter(inside) {
        let (start, end) = (span.start.max(time.start), span.end.min(time.end));
        if start > clock {
            pieces.push(Piece::Idle(" ".repeat((start - clock) * cell)));
        }
        let (width, name) = ((end - start) * cell, name(span, chunks));
        pieces.push(if span.backward {
            Piece::Backward(format!("[{name:^inner$}]", inner = width - 2))
        } else {
            Piece::Forward(format!("{name:^width$}"))
        });
        clock = end;
    }
    if clock < time.end {
        pieces.push(Piece::Idle(" ".repeat((time.end - clock) * cell)));
    }
    pieces
}

fn name(span: &Span, chunks: usize) -> String {
    let letter = match chunks {
        1 => String::new(),
        _ => letter(span.task.chunk),
    };
    format!("{}{letter}", span.task.micro_batch)
}

/// `a` to `z`, then `a1`, `b1`, …
fn letter(chunk: usize) -> String {
    let letter = char::from(b'a' + (chunk % 26) as u8);
    if chunk < 26 { letter.to_string() } else { format!("{letter}{}", chunk / 26) }
}

impl Piece {
    /// The text without color.
    pub fn text(&self) -> &str {
        match self {
            Piece::Forward(text) | Piece::Backward(text) | Piece::Idle(text) => text,
            Piece::Gap => " … ",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::schedule::play::{USUAL, play};
    use crate::layout::schedule::{QUEUE, schedule};

    fn drawing(stages: usize, chunks: usize, micro_batches: usize, columns: usize) -> String {
        let play = play(&schedule(stages, chunks, micro_batches), USUAL, QUEUE);
        let lines = play.map(|play| lines(&play, chunks, columns)).unwrap_or_default();
        let text = |line: Vec<Piece>| line.iter().map(Piece::text).collect::<String>();
        lines.into_iter().map(|line| text(line).trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn time_goes_to_the_right() {
        assert_eq!(
            drawing(2, 1, 3, 80),
            " 0  1       [ 0  ] 2 [ 1  ]   [ 2  ]\n    0 [ 0  ] 1 [ 1  ] 2 [ 2  ]\n"
        );
    }

    #[test]
    fn a_long_one_loses_its_middle() {
        let text = drawing(2, 1, 64, 60);
        assert!(
            text.lines().all(|line| line.chars().count() <= 60 && line.contains('…')),
            "{text}"
        );
        assert!(text.contains("[  63  ]"), "{text}");
    }
}

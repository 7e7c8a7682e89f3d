//! What a person sees of a run: bars on a terminal, plain lines elsewhere.

mod bars;
mod lines;
mod text;

pub use text::Layout;

use super::terminal::Terminal;
use crate::spec::event::{Event, Sink};
use bars::Bars;
use lines::Lines;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Shows events.
#[derive(Debug)]
pub struct Screen {
    face: Mutex<Face>,
    stop: Arc<AtomicBool>,
    stop_announced: AtomicBool,
}

#[derive(Debug)]
enum Face {
    Bars(Bars),
    Lines(Lines),
    Nothing,
}

impl Screen {
    /// The screen of a run; `stop` is the flag that a first Ctrl-C raises.
    pub fn new(terminal: Terminal, layout: Layout, stop: Arc<AtomicBool>) -> Screen {
        let face = match (terminal.quiet, terminal.interactive) {
            (true, _) => Face::Nothing,
            (false, true) => Face::Bars(Bars::new(terminal, layout)),
            (false, false) => Face::Lines(Lines::new(terminal, layout)),
        };
        Screen { face: Mutex::new(face), stop, stop_announced: AtomicBool::new(false) }
    }

    fn show(&self, event: &Event) {
        // A panic of another thread while it drew leaves nothing that could not be drawn over.
        let mut face = self.face.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *face {
            Face::Bars(bars) => bars.show(event),
            Face::Lines(lines) => lines.show(event),
            Face::Nothing => {}
        }
    }

    fn announce_stop(&self) {
        if self.stop.load(Ordering::Relaxed) && !self.stop_announced.swap(true, Ordering::Relaxed) {
            let text = "stopping after this step; Ctrl-C again ends at once".to_owned();
            self.show(&Event::Note { text });
        }
    }
}

impl Sink for Screen {
    fn emit(&self, event: Event) {
        self.announce_stop();
        self.show(&event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::event::{Sample, StepMetrics, ValidationMetrics};
    use crate::spec::generation::StopReason;
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// Watch it: `cargo test --lib screen:: -- --ignored --nocapture` in a terminal, or piped.
    #[test]
    #[ignore = "for the eye: takes seconds and checks nothing"]
    fn a_run_to_look_at() {
        let environment = crate::cli::environment::variables();
        let terminal = Terminal::detect(false, false, &environment);
        let layout =
            Layout { name_width: 9, steps: [("train".to_owned(), 120)].into(), line_every: 20 };
        let screen = Screen::new(terminal, layout, Arc::new(AtomicBool::new(false)));
        for event in fake_run() {
            let pause = match &event {
                Event::Step(_) | Event::Progress { .. } => 40,
                _ => 300,
            };
            screen.emit(event);
            std::thread::sleep(Duration::from_millis(pause));
        }
    }

    fn fake_run() -> Vec<Event> {
        let started = |stage: &str, reason: &str| Event::StageStarted {
            stage: stage.to_owned(),
            kind: stage.to_owned(),
            reason: reason.to_owned(),
        };
        let mut events = vec![Event::StageReused {
            stage: "tokenize".to_owned(),
            kind: "tokenize".to_owned(),
            fingerprint: "9f2c41aa".to_owned(),
        }];
        events.push(started("shard", "its input tokenize changed"));
        events.extend((0..=50).map(|done| Event::Progress {
            task: "packing".to_owned(),
            done: done * 1000,
            total: 50_000,
            unit: "samples".to_owned(),
        }));
        events.push(finished(
            "shard",
            2.4,
            &[("sequences", 12_345.0), ("tokens_per_sequence", 251.4)],
        ));
        events.push(started("train", "model.optim.lr 0.003 → 0.001 (override 1)"));
        events.push(Event::Resumed { step: 10 });
        for step in 11..=120 {
            events.push(Event::Step(StepMetrics {
                step,
                consumed_samples: step * 32,
                reduced_train_loss: 7.0 / (step as f64).sqrt(),
                lr: 3e-3,
                grad_norm: Some(0.7),
                loss_scale: None,
                tokens: 8000,
                learned_tokens: 900,
                tokens_per_second: 41_234.5,
            }));
            if step % 40 == 0 {
                let val_loss = 6.5 / (step as f64).sqrt();
                let validation = ValidationMetrics {
                    step,
                    consumed_samples: step * 32,
                    val_loss,
                    metrics: BTreeMap::new(),
                };
                events.push(Event::Validation(validation));
            }
        }
        events.push(finished("train", 123.4, &[("steps", 120.0), ("val_loss", 0.5934)]));
        events.push(started("generate", "never ran"));
        events.push(Event::Sample(Sample {
            prompt: "define lighthouse:".to_owned(),
            expected: None,
            output: "a tower with a light that gives warning of shoals to passing ships".to_owned(),
            stop_reason: StopReason::EndOfSequence,
            task: None,
            scores: std::collections::BTreeMap::new(),
            tokens: 14,
            token_ids: Vec::new(),
            logprob: Vec::new(),
            full_logprob: Vec::new(),
        }));
        events.push(Event::StageFailed {
            stage: "generate".to_owned(),
            error: "out of prompts".to_owned(),
        });
        events
    }

    fn finished(stage: &str, seconds: f64, facts: &[(&str, f64)]) -> Event {
        let facts: BTreeMap<_, _> =
            facts.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
        Event::StageFinished { stage: stage.to_owned(), seconds, facts }
    }
}

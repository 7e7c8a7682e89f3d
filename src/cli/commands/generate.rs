//! `sft-run generate`: text from a run's model.

use crate::base::atomic_file;
use crate::base::error_chain::with_causes;
use crate::cli::arguments::GenerateArguments;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::model_folder;
use crate::cli::session::Session;
use crate::cli::signals;
use crate::cli::terminal::{Paint, Terminal};
use crate::cli::text_arguments::{Accelerator, Bits};
use crate::spec::backend::Backend;
use crate::spec::generation::{Generation, PenaltyRule};
use crate::spec::job::ReadingTrainer;
use crate::spec::optimization::{Degrees, Precision};
use crate::stages;
use crate::stages::generate::{Devices, Speaker, Update, read_prompts};
use serde_json::json;
use std::io::{self, BufRead, IsTerminal};
use std::path::Path;
use std::time::Instant;

/// Runs the command: texts come as they are generated, in the order of the prompts.
pub(in crate::cli) fn run(
    session: &Session,
    arguments: &GenerateArguments,
) -> Result<Exit, Failure> {
    without_effect(session, arguments)?;
    let model = model_folder::of(&arguments.model)?;
    let stop = signals::stop_flag().map_err(|error| Failure::failed(&error))?;
    if arguments.chat {
        let devices = devices(arguments)?;
        return super::chat::run(session, (&model, devices), &settings(arguments), &stop);
    }
    let prompts = prompts(arguments)?;
    let speaker = speaker(&model, devices(arguments)?)?;
    let terminal = &session.terminal;
    let mut live = (!terminal.json).then(|| Live::begin(terminal, &prompts));
    let mut listener = |update: Update<'_>| {
        if let Some(live) = &mut live {
            live.hear(update);
        }
    };
    let began = Instant::now();
    let samples = speaker.generate(&prompts, &settings(arguments), &stop, &mut listener);
    let samples = samples.map_err(|error| {
        if let Some(live) = &live {
            live.end();
        }
        Failure::failed(&error)
    })?;
    if terminal.json || terminal.interactive {
        let new = samples.iter().map(|sample| sample.tokens).sum();
        let speed = speed(new, began.elapsed().as_secs_f64());
        terminal.error(&terminal.paint_error(Paint::Dim, &speed));
    }
    if let Some(path) = &arguments.output {
        let lines: String = samples.iter().map(|sample| format!("{}\n", json!(sample))).collect();
        atomic_file::write_named(path, lines.as_bytes()).map_err(|error| {
            Failure::Failed(format!("cannot write `{}`: {error}", path.display()))
        })?;
    }
    if terminal.json {
        terminal.result(&format!("{:#}", json!(samples)));
    }
    Ok(Exit::Done)
}

/// Refuses options that would change nothing as the others are.
fn without_effect(session: &Session, arguments: &GenerateArguments) -> Result<(), Failure> {
    let sampling = [
        ("--top-k", arguments.top_k.is_some()),
        ("--top-p", arguments.top_p.is_some()),
        ("--repetition-penalty", arguments.repetition_penalty.is_some()),
    ];
    let idle = sampling.iter().find(|(_, given)| *given && arguments.temperature.is_none());
    if let Some((option, _)) = idle {
        return Err(Failure::wrong(
            format!("{option} changes nothing where the likeliest token is taken"),
            "add --temperature 0.8 (or another) to sample",
        ));
    }
    if arguments.logprob && !session.terminal.json && arguments.output.is_none() {
        return Err(Failure::wrong(
            "--logprob has no place to go",
            "add --output FILE or --json: numbers are not shown beside the text",
        ));
    }
    Ok(())
}

/// Shows texts while several prompts are continued at once: the first that is not done streams, the
/// others wait for their turn.
struct Live<'a> {
    terminal: &'a Terminal,
    prompts: &'a [String],
    /// What each prompt has so far, and whether it is done.
    texts: Vec<(String, bool)>,
    /// The prompt that streams.
    current: usize,
}

impl<'a> Live<'a> {
    fn begin(terminal: &'a Terminal, prompts: &'a [String]) -> Live<'a> {
        let texts = vec![(String::new(), false); prompts.len()];
        let live = Live { terminal, prompts, texts, current: 0 };
        live.show_current();
        live
    }

    /// Leaves the line that a text stands in.
    fn end(&self) {
        if self.current < self.prompts.len() {
            self.terminal.piece("\n");
        }
    }

    fn show_current(&self) {
        if let (Some(prompt), Some((text, _))) =
            (self.prompts.get(self.current), self.texts.get(self.current))
        {
            self.terminal.piece(&format!("{}{text}", self.terminal.paint(Paint::Dim, prompt)));
        }
    }

    fn hear(&mut self, update: Update<'_>) {
        match update {
            Update::Text { prompt, piece } => {
                self.texts[prompt].0.push_str(piece);
                if prompt == self.current {
                    self.terminal.piece(piece);
                }
            }
            Update::Done { prompt, .. } => {
                self.texts[prompt].1 = true;
                while self.texts.get(self.current).is_some_and(|(_, is_done)| *is_done) {
                    self.terminal.piece("\n");
                    self.current += 1;
                    self.show_current();
                }
            }
        }
    }
}

fn prompts(arguments: &GenerateArguments) -> Result<Vec<String>, Failure> {
    if !arguments.prompts.is_empty() {
        return Ok(arguments.prompts.clone());
    }
    if let Some(path) = &arguments.prompts_file {
        let help = "a line is a JSON object, such as {\"prompt\": \"Once upon a time\"}";
        let read = read_prompts(path).map_err(|error| Failure::wrong(with_causes(&error), help))?;
        let none = || Failure::wrong(format!("`{}` holds no prompt", path.display()), help);
        return if read.is_empty() { Err(none()) } else { Ok(read) };
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::wrong(
            "there is no prompt",
            "give --prompt TEXT, --prompts FILE, or prompts on stdin, one a line",
        ));
    }
    let lines: Result<Vec<String>, _> = stdin.lock().lines().collect();
    let lines = lines.map_err(|error| Failure::Failed(format!("cannot read stdin: {error}")))?;
    if lines.is_empty() {
        return Err(Failure::wrong("stdin holds no prompt", "give prompts there, one a line"));
    }
    Ok(lines)
}

/// The ranks of `--tp` and `--pp`; GPUs compute in bf16 unless another format is asked for.
fn devices(arguments: &GenerateArguments) -> Result<Devices, Failure> {
    let GenerateArguments { tp: tensor, pp: pipeline, accelerator, .. } = *arguments;
    let (backend, usual) = match accelerator {
        Accelerator::Cpu => (Backend::Cpu, Precision::Fp32),
        Accelerator::Gpu => (Backend::Cuda, Precision::Bf16),
    };
    let precision = match arguments.precision {
        None => usual,
        Some(Bits::Fp32) => Precision::Fp32,
        Some(Bits::Bf16) => Precision::Bf16,
        Some(Bits::Fp16) => Precision::Fp16,
    };
    if backend == Backend::Cuda {
        check_gpus(tensor * pipeline)?;
    }
    let degrees = Degrees { pipeline, tensor, ..Degrees::SINGLE };
    Ok(Devices { trainer: ReadingTrainer { degrees, precision }, backend })
}

/// The model at `path` over `devices`, which it may not be cut into.
pub(super) fn speaker(path: &Path, devices: Devices) -> Result<Speaker, Failure> {
    Speaker::open(path, devices, None).map_err(|error| {
        if !error.is_of_layout() {
            return Failure::failed(&error);
        }
        let help = "any layout reads any checkpoint; without the two, one rank has the whole model";
        Failure::wrong(format!("--tp and --pp: {error}"), help)
    })
}

/// Refuses more GPUs than there are.
fn check_gpus(wanted: usize) -> Result<(), Failure> {
    if !stages::devices::built_for_gpus() {
        return Err(Failure::wrong(
            "--accelerator gpu: this build computes on the CPU only",
            "build with `cargo build --release --features cuda` on a machine with CUDA",
        ));
    }
    let here = stages::devices::usable_gpus();
    if here < wanted {
        return Err(Failure::wrong(
            format!("--accelerator gpu: {wanted} wanted, {here} here"),
            "`sft-run doctor` tells more; without --accelerator the CPU computes",
        ));
    }
    Ok(())
}

/// How fast the new tokens came; the prompts were read in the same time.
fn speed(tokens: usize, seconds: f64) -> String {
    format!("{tokens} new tokens in {seconds:.2} s: {:.0} a second", tokens as f64 / seconds)
}

fn settings(arguments: &GenerateArguments) -> Generation {
    Generation {
        use_greedy: arguments.temperature.is_none(),
        temperature: arguments.temperature.unwrap_or(1.0),
        top_k: arguments.top_k.unwrap_or(0),
        top_p: arguments.top_p.unwrap_or(1.0),
        repetition_penalty: arguments.repetition_penalty.unwrap_or(1.0),
        repetition_penalty_rule: PenaltyRule::Hf,
        min_length: arguments.min_length,
        max_length: arguments.max_length,
        end_strings: arguments.end_strings.clone(),
        add_bos: arguments.add_bos,
        compute_logprob: arguments.logprob,
        all_probs: false,
        seed: arguments.seed,
        batch_size: usize::try_from(arguments.batch_size).unwrap_or(usize::MAX),
    }
}

//! Settings of decoding that contradict each other.

use crate::recipe::findings::{Findings, count, number};
use crate::recipe::path::Path;
use crate::recipe::stages::NamedStage;
use crate::spec::recipe::{GenKwargs, Generate, Recipe, Stage};

pub(super) fn check(recipe: &Recipe, stages: &[NamedStage], findings: &mut Findings) {
    for stage in stages {
        let Some(path) = &stage.path else { continue };
        if let Stage::Generate(generate) = &stage.stage {
            prompts(generate, path, findings);
        }
        if let Some(settings) = gen_kwargs(&stage.stage) {
            let path =
                if matches!(stage.stage, Stage::Train(_)) { &path.key("validate") } else { path };
            decoding(settings, &path.key("gen_kwargs"), findings);
        }
    }
    if let Some(inference) = &recipe.inference {
        let path = Path::from("inference");
        lengths(
            (inference.min_tokens_to_generate, "min_tokens_to_generate"),
            (inference.tokens_to_generate, "tokens_to_generate"),
            &path,
            findings,
        );
        let greedy = inference.greedy.unwrap_or(false);
        temperature(inference.temperature, greedy, &path, findings);
        penalty(inference.repetition_penalty, &path, findings);
    }
}

/// The decoding settings of a stage.
pub(in crate::recipe) fn gen_kwargs(stage: &Stage) -> Option<&GenKwargs> {
    match stage {
        Stage::Evaluate(evaluate) => evaluate.gen_kwargs.as_ref(),
        Stage::Generate(generate) => generate.gen_kwargs.as_ref(),
        Stage::Train(train) => train.validate.as_ref()?.gen_kwargs.as_ref(),
        _ => None,
    }
}

fn prompts(generate: &Generate, path: &Path, findings: &mut Findings) {
    let given = generate.prompts.as_ref().filter(|prompts| !prompts.is_empty());
    match (given, &generate.prompts_file) {
        (None, None) => findings
            .error(
                "recipe::missing_value",
                path.key("prompts"),
                "no prompts",
                format!("`{path}` has no prompts"),
            )
            .help("give `prompts: [\"…\"]` or `prompts_file: PATH`"),
        (Some(prompts), Some(_)) => findings
            .error(
                "recipe::contradiction",
                path.key("prompts_file"),
                "a file of prompts",
                format!(
                    "`{path}` has both {} and a file of prompts",
                    count(prompts.len(), "prompt")
                ),
            )
            .with(path.key("prompts"), "prompts in place")
            .help("keep one of them"),
        _ => {}
    }
}

fn decoding(settings: &GenKwargs, path: &Path, findings: &mut Findings) {
    if let (Some(greedy), Some(sample)) = (settings.use_greedy, settings.do_sample)
        && greedy == sample
    {
        findings
            .error(
                "recipe::contradiction",
                path.key("do_sample"),
                format!("do_sample {sample}"),
                format!("use_greedy: {greedy} and do_sample: {sample} contradict each other"),
            )
            .with(path.key("use_greedy"), format!("use_greedy {greedy}"))
            .help("keep one of them: do_sample is the opposite of use_greedy");
    }
    if settings.max_length.is_some() && settings.max_new_tokens.is_some() {
        findings
            .error(
                "recipe::contradiction",
                path.key("max_new_tokens"),
                "the same setting",
                "max_length and max_new_tokens are two names of one setting",
            )
            .with(path.key("max_length"), "set here too")
            .help("keep one of them");
    }
    if settings.end_strings.is_some() && settings.stop_sequences.is_some() {
        findings
            .error(
                "recipe::contradiction",
                path.key("stop_sequences"),
                "the same setting",
                "end_strings and stop_sequences are two names of one setting",
            )
            .with(path.key("end_strings"), "set here too")
            .help("keep one of them");
    }
    let most = match settings.max_length {
        Some(most) => (Some(most), "max_length"),
        None => (settings.max_new_tokens, "max_new_tokens"),
    };
    lengths((settings.min_length, "min_length"), most, path, findings);
    temperature(settings.temperature, settings.is_greedy(), path, findings);
    penalty(settings.repetition_penalty, path, findings);
}

fn lengths(
    least: (Option<usize>, &str),
    most: (Option<usize>, &str),
    path: &Path,
    findings: &mut Findings,
) {
    let ((Some(low), low_key), (Some(high), high_key)) = (least, most) else { return };
    if low > high {
        findings
            .error(
                "recipe::contradiction",
                path.key(low_key),
                format!("at least {low}"),
                format!("at least {low} and at most {high} new tokens cannot both hold"),
            )
            .with(path.key(high_key), format!("at most {high}"))
            .help(format!("make {low_key} at most {high}"));
    }
}

fn temperature(value: Option<f64>, greedy: bool, path: &Path, findings: &mut Findings) {
    if value == Some(0.0) && !greedy {
        findings
            .error(
                "recipe::temperature",
                path.key("temperature"),
                "0",
                "logits cannot be divided by a temperature of 0",
            )
            .help("for the most likely token, set use_greedy (or NeMo's greedy) to true");
    }
}

fn penalty(value: Option<f64>, path: &Path, findings: &mut Findings) {
    if let Some(value) = value.filter(|value| *value <= 0.0) {
        findings
            .error(
                "recipe::repetition_penalty",
                path.key("repetition_penalty"),
                "must be above 0",
                format!("logits cannot be divided by a penalty of {}", number(value)),
            )
            .help("1 changes nothing; above 1, tokens that were seen become less likely");
    }
}

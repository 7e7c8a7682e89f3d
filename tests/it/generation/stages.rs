//! The stages evaluate and generate on the output of tokenize and load.

use super::sampling::{greedy, sampled};
use super::small_model::{self, learned};
use sft_run::base::atomic_file;
use sft_run::data::tokenizer::Tokenizer;
use sft_run::engine::generation::Session;
use sft_run::engine::replica::Member;
use sft_run::spec::backend::Backend;
use sft_run::spec::event::{Event, Sample, Silent, Sink};
use sft_run::spec::generation::Generation;
use sft_run::spec::job::{
    EvaluateJob, EvaluateStage, Format, GenerateJob, GenerateStage, Job, LoadJob, LoadModel,
    LoadStage, ReadingTrainer, RowSource, Split, SplitRule, Task, TokenizeJob, TokenizeModel,
    TokenizeStage, TokenizerKind, TokenizerSettings,
};
use sft_run::spec::metric::{Metric, MetricName};
use sft_run::stages::generate::{Devices, Speaker};
use sft_run::stages::{self, Folders, Outcome};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// A folder with the outputs of tokenize and load.
struct House {
    folder: tempfile::TempDir,
}

impl House {
    fn build(answer_only_loss: bool) -> House {
        let house = House { folder: tempfile::tempdir().expect("a temporary folder") };
        let mut rows = String::new();
        for number in 0..60 {
            let kind = ["animal", "plant", "person"][number % 3];
            writeln!(rows, r#"{{"term": "thing {number}", "kind": "{kind}"}}"#).expect("text");
        }
        let rows_path = house.path("rows.jsonl");
        atomic_file::write(&rows_path, rows.as_bytes()).expect("writable");
        let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/data/botchan_en_bpe_1000.model");
        let inputs = [("rows.0", rows_path), ("tokenizer.model", tokenizer)];
        house.run(&tokenize(answer_only_loss), &inputs, "data").expect("tokenizes");
        let load = LoadModel {
            architecture: learned(1000),
            seed: 3,
            restore: false,
            megatron_legacy: false,
        };
        house
            .run(&Job::Load(LoadJob { model: load, stage: LoadStage::default() }), &[], "model")
            .expect("makes weights");
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(
        &self,
        job: &Job,
        inputs: &[(&str, PathBuf)],
        output: &str,
    ) -> Result<Outcome, stages::Error> {
        self.run_with(job, inputs, output, &Silent, false)
    }

    #[expect(clippy::too_many_arguments, reason = "one place for all that a stage takes")]
    fn run_with(
        &self,
        job: &Job,
        inputs: &[(&str, PathBuf)],
        output: &str,
        sink: &dyn Sink,
        stopped: bool,
    ) -> Result<Outcome, stages::Error> {
        let output = self.path(output);
        fs::create_dir_all(&output).expect("writable");
        let inputs = inputs.iter().map(|(name, path)| ((*name).to_owned(), path.clone()));
        let folders = Folders { inputs: inputs.collect(), backend: Backend::Cpu, output };
        stages::run(job, &folders, sink, &AtomicBool::new(stopped))
    }

    fn evaluate(&self, stage: EvaluateStage, output: &str) -> Result<Outcome, stages::Error> {
        let inputs = [("data", self.path("data")), ("model", self.path("model"))];
        let (trainer, model) = (ReadingTrainer::default(), TokenizerSettings::default());
        self.run(&Job::Evaluate(EvaluateJob { trainer, model, stage }), &inputs, output)
    }

    fn samples(&self, file: &str) -> Vec<Sample> {
        let text = fs::read_to_string(self.path(file)).expect("readable");
        text.lines().map(|line| serde_json::from_str(line).expect("a sample")).collect()
    }
}

fn tokenize(answer_only_loss: bool) -> Job {
    let format = Format::Templates {
        prompt: "{{ term }} is a kind of".to_owned(),
        answer: " {{ kind }}".to_owned(),
    };
    let task = Task {
        name: "kind".to_owned(),
        share: 1.0,
        format,
        answer_only_loss,
        add_bos: false,
        add_eos: true,
    };
    let half = Task { name: "half".to_owned(), share: 0.5, ..task.clone() };
    let split = SplitRule::ByHash { field: "term".to_owned(), validation: 0.1, test: 0.6 };
    let sources = vec![RowSource { split, tasks: vec![task, half] }];
    Job::Tokenize(TokenizeJob {
        model: TokenizeModel {
            tokenizer: TokenizerKind::SentencePiece,
            chat_template: None,
            encoder_seq_length: 40,
        },
        stage: TokenizeStage { sources },
    })
}

fn stage(metrics: &[MetricName], gen_kwargs: Generation) -> EvaluateStage {
    EvaluateStage {
        split: Split::Test,
        task: Some("kind".to_owned()),
        limit: Some(20),
        metrics: metrics.iter().copied().map(Metric::Named).collect(),
        gen_kwargs,
        choices: None,
    }
}

#[test]
fn evaluate_writes_numbers_and_samples() {
    let house = House::build(true);
    let metrics = [
        MetricName::Loss,
        MetricName::Perplexity,
        MetricName::TokenAccuracy,
        MetricName::ExactMatch,
        MetricName::TokenF1,
        MetricName::Length,
    ];
    let outcome = house.evaluate(stage(&metrics, greedy()), "evaluation").expect("evaluates");
    let text = fs::read_to_string(house.path("evaluation/metrics.json")).expect("readable");
    let mut values: BTreeMap<String, f64> = serde_json::from_str(&text).expect("numbers");
    assert!((values["loss"].exp() - values["perplexity"]).abs() < 1e-9 * values["perplexity"]);
    // A model that knows nothing is no better than a guess among 1,000 ids.
    assert!(values["loss"] > 5.0, "{values:?}");
    let samples = house.samples("evaluation/samples.jsonl");
    assert_eq!(samples.len(), 20);
    let length = samples.iter().map(|sample| sample.output.chars().count()).sum::<usize>();
    assert!((values["length"] - length as f64 / 20.0).abs() < 1e-9);
    for sample in &samples {
        assert_eq!(sample.task.as_deref(), Some("kind"));
        assert!(sample.prompt.ends_with("is a kind of"), "{sample:?}");
        assert_eq!(sample.scores.len(), 3, "a score for each metric of texts");
    }
    values.insert("samples".to_owned(), 20.0);
    assert_eq!(outcome.facts, values);
}

#[test]
fn evaluation_does_not_depend_on_the_batch() {
    let house = House::build(true);
    let at = |batch_size| {
        let settings = Generation { batch_size, top_p: 0.9, ..sampled() };
        let output = format!("batches-of-{batch_size}");
        house.evaluate(stage(&[MetricName::ExactMatch], settings), &output).expect("evaluates");
        fs::read_to_string(house.path(&format!("{output}/samples.jsonl"))).expect("readable")
    };
    let alone = at(1);
    assert_eq!(at(3), alone);
    assert_eq!(at(16), alone);
}

#[test]
fn a_limit_takes_the_same_samples_again() {
    let house = House::build(true);
    let with = |limit, task: Option<&str>| {
        let task = task.map(str::to_owned);
        let stage = EvaluateStage { limit, task, ..stage(&[MetricName::ExactMatch], greedy()) };
        house.evaluate(stage, "limited").expect("evaluates");
        house.samples("limited/samples.jsonl")
    };
    let all = with(None, Some("kind"));
    assert!(all.len() > 20, "{} samples", all.len());
    assert_eq!(with(Some(7), Some("kind")), all[..7]);
    assert!(with(None, None).len() > all.len(), "both tasks");
}

#[test]
fn what_cannot_be_evaluated_is_refused() {
    let house = House::build(true);
    let fails = |house: &House, stage| chain(&house.evaluate(stage, "refused").unwrap_err());
    let text = [MetricName::ExactMatch];
    let unknown = EvaluateStage { task: Some("colour".to_owned()), ..stage(&text, greedy()) };
    assert!(fails(&house, unknown).contains("split `test` has no samples of task `colour`"));
    let hot = stage(&text, Generation { temperature: -1.0, ..sampled() });
    assert!(fails(&house, hot).contains("`temperature` is -1"));
}

#[test]
fn samples_that_are_learned_whole_are_asked_for_their_answers_too() {
    let whole = House::build(false);
    whole.evaluate(stage(&[MetricName::ExactMatch], greedy()), "text").expect("prompts are known");
    assert!(whole.samples("text/samples.jsonl").iter().all(|sample| !sample.prompt.is_empty()));
    whole.evaluate(stage(&[MetricName::Loss], greedy()), "loss").expect("loss needs no prompt");
    assert!(whole.samples("loss/samples.jsonl").is_empty());
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {}", chain(source)));
    format!("{error}{}", source.unwrap_or_default())
}

/// Keeps what it hears.
#[derive(Default)]
struct Kept(Mutex<Vec<Event>>);

impl Sink for Kept {
    fn emit(&self, event: Event) {
        self.0.lock().expect("no panic while it was held").push(event);
    }
}

#[test]
fn generate_continues_prompts_of_a_recipe_or_a_file() {
    let house = House::build(true);
    let prompts = ["thing 1 is", "the", "one day a man came"].map(str::to_owned).to_vec();
    let job = |prompts: &[String]| {
        let stage = GenerateStage { prompts: prompts.to_vec(), gen_kwargs: greedy() };
        let (trainer, model) = (ReadingTrainer::default(), TokenizerSettings::default());
        Job::Generate(GenerateJob { trainer, model, stage })
    };
    let inputs = [("model", house.path("model")), ("data", house.path("data"))];
    let sink = Kept::default();
    let outcome = house.run_with(&job(&prompts), &inputs, "generated", &sink, false);
    assert_eq!(outcome.expect("generates").facts["prompts"], 3.0);
    let samples = house.samples("generated/generations.jsonl");
    assert_eq!(
        samples.iter().map(|sample| &sample.prompt).collect::<Vec<_>>(),
        [&prompts[0], &prompts[1], &prompts[2]]
    );
    let events = sink.0.into_inner().expect("no panic while it was held");
    let shown = events.iter().filter(|event| matches!(event, Event::Sample(_))).count();
    assert_eq!(shown, 3);
    // The same from a file.
    let lines: String = prompts
        .iter()
        .map(|prompt| format!("{}\n", serde_json::json!({ "prompt": prompt })))
        .collect();
    let file = house.path("prompts.jsonl");
    atomic_file::write(&file, lines.as_bytes()).expect("writable");
    let with_file = [inputs.to_vec(), vec![("prompts", file.clone())]].concat();
    house.run(&job(&[]), &with_file, "from-file").expect("generates");
    assert_eq!(house.samples("from-file/generations.jsonl"), samples);
    atomic_file::write(&file, b"{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n").expect("writable");
    let error = chain(&house.run(&job(&[]), &with_file, "bad").unwrap_err());
    assert!(error.contains("line 2 holds no prompt") && error.contains("missing field"), "{error}");
    let error = chain(&house.run(&job(&[]), &inputs, "bad").unwrap_err());
    assert!(error.contains("there are no prompts"), "{error}");
    let error = chain(&house.run(&job(&prompts), &inputs[..1], "bad").unwrap_err());
    assert!(error.contains("no `tokenizer` folder"), "{error}");
    let stopped = house.run_with(&job(&prompts), &inputs, "bad", &Silent, true).unwrap_err();
    assert!(matches!(stopped, stages::Error::Stopped(_)), "{stopped}");
}

#[test]
fn prompts_begin_as_the_samples_did() {
    let house = House::build(true);
    let Job::Tokenize(mut job) = tokenize(true) else { panic!("a tokenize job") };
    job.stage.sources[0].tasks.iter_mut().for_each(|task| task.add_bos = true);
    let tokenizer =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data/botchan_en_bpe_1000.model");
    let inputs = [("rows.0", house.path("rows.jsonl")), ("tokenizer.model", tokenizer)];
    house.run(&Job::Tokenize(job), &inputs, "with-bos").expect("tokenizes");
    let model = small_model::random(&learned(1000));
    let member = Member::alone(&model).expect("one rank");
    let encoded = |data: &str, add_bos| {
        let tokenizer = Tokenizer::open(&house.path(data).join("tokenizer")).expect("saved");
        let session = Session::new(member.whole().expect("one rank"), &tokenizer)
            .expect("they belong together");
        let tokens = session.encode("the", add_bos).expect("encodes");
        (tokens.first() == tokenizer.bos().as_ref(), session.begun(&tokens, Some(true)))
    };
    for (data, learned) in [("data", false), ("with-bos", true)] {
        let (begins, twice) = encoded(data, None);
        assert_eq!(begins, learned, "{data}");
        assert_eq!(twice, encoded(data, Some(true)).1, "a second one is not put before it");
        assert!(encoded(data, Some(true)).0 && !encoded(data, Some(false)).0);
    }
    // The setting of an evaluation reaches the prompts.
    let outputs = |add_bos| {
        let settings = Generation { add_bos, max_length: 12, ..greedy() };
        house.evaluate(stage(&[MetricName::ExactMatch], settings), "bos").expect("evaluates");
        house.samples("bos/samples.jsonl")
    };
    assert_eq!(outputs(None), outputs(Some(false)));
    assert_ne!(outputs(None), outputs(Some(true)));
}

#[test]
fn a_beginning_that_the_prompt_spells_out_stays() {
    let gpt2 = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data/gpt2");
    let files = [("tokenizer.vocab_file", "vocab.json"), ("tokenizer.merge_file", "merges.txt")];
    let files = files.map(|(key, name)| (key.to_owned(), gpt2.join(name))).into();
    let tokenizer = Tokenizer::load(TokenizerKind::Gpt2Bpe, &files).expect("a tokenizer");
    let model = small_model::random(&learned(tokenizer.vocab_size()));
    let member = Member::alone(&model).expect("one rank");
    let session =
        Session::new(member.whole().expect("one rank"), &tokenizer).expect("they belong together");
    let begins = |add_bos| {
        let tokens = session.encode("<|endoftext|>the", add_bos).expect("encodes");
        tokens.first() == tokenizer.bos().as_ref()
    };
    assert!(begins(None) && begins(Some(true)) && !begins(Some(false)));
}

#[test]
fn log_probabilities_are_the_models_own() {
    let house = House::build(true);
    let data = house.path("data");
    let speaker = Speaker::open(&house.path("model"), Devices::CPU, Some(&data)).expect("a model");
    let stop = AtomicBool::new(false);
    let settings =
        Generation { compute_logprob: true, all_probs: true, temperature: 3.0, ..sampled() };
    let prompts = ["one day".to_owned(), "the".to_owned()];
    let samples = speaker.generate(&prompts, &settings, &stop, &mut |_| ()).expect("generates");
    for sample in samples {
        assert_eq!(sample.token_ids.len(), sample.tokens);
        assert_eq!(sample.logprob.len(), sample.tokens);
        for (place, token) in sample.token_ids.iter().enumerate() {
            let all = &sample.full_logprob[place];
            assert_eq!(all.len(), 1000);
            assert!((all.iter().map(|one| one.exp()).sum::<f64>() - 1.0).abs() < 1e-9);
            assert_eq!(all[*token as usize], sample.logprob[place]);
        }
    }
}

#[test]
fn text_streams_as_it_comes() {
    use sft_run::engine::generation::Update;
    let house = House::build(true);
    let data = house.path("data");
    let speaker = Speaker::open(&house.path("model"), Devices::CPU, Some(&data)).expect("a model");
    let mut streamed = String::new();
    let mut listener = |update: Update<'_>| {
        if let Update::Text { piece, .. } = update {
            streamed.push_str(piece);
        }
    };
    let stop = AtomicBool::new(false);
    let settings = Generation { max_length: 20, ..sampled() };
    let prompts = ["one day".to_owned()];
    let samples = speaker.generate(&prompts, &settings, &stop, &mut listener).expect("generates");
    assert_eq!(streamed, samples[0].output);
    assert!(samples[0].output.chars().count() > 5, "{:?}", samples[0]);
    let mut silent = |_: Update<'_>| ();
    let bos = Generation { add_bos: Some(true), ..settings };
    speaker.generate(&prompts, &bos, &stop, &mut silent).expect("this tokenizer has a BOS");
}

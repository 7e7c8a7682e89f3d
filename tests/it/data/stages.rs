//! The stages tokenize and shard, and what comes out of them.

use super::fixture;
use super::tokenizers::gpt2;
use sft_run::base::digest::Digest;
use sft_run::data::feed::{Feed, Ordering};
use sft_run::data::indexed::IndexedFile;
use sft_run::data::microbatch::MicroBatch;
use sft_run::data::sampler::Share;
use sft_run::data::tokenizer::Tokenizer;
use sft_run::spec::backend::Backend;
use sft_run::spec::event::{Event, Silent, Sink};
use sft_run::spec::job::{
    Format, Job, RowSource, ShardJob, ShardModel, ShardStage, Split, SplitRule, Task, TokenizeJob,
    TokenizeModel, TokenizeStage, TokenizerKind,
};
use sft_run::stages::{self, Folders, Outcome};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

const SEQ_LENGTH: usize = 64;

fn tokenize_job() -> Job {
    let task = |name: &str, share, prompt: &str, answer: &str| Task {
        name: name.to_owned(),
        share,
        format: Format::Templates { prompt: prompt.to_owned(), answer: answer.to_owned() },
        answer_only_loss: true,
        add_bos: false,
        add_eos: true,
    };
    Job::Tokenize(TokenizeJob {
        model: TokenizeModel {
            tokenizer: TokenizerKind::Gpt2Bpe,
            chat_template: None,
            encoder_seq_length: SEQ_LENGTH,
        },
        stage: TokenizeStage {
            sources: vec![RowSource {
                split: SplitRule::ByHash { field: "gloss".to_owned(), validation: 0.1, test: 0.2 },
                tasks: vec![
                    task("kind", 1.0, "{{ term }}: {{ gloss }} kind:", " {{ kind }}"),
                    task("define", 0.2, "define {{ term }}:", " {{ gloss }}"),
                ],
            }],
        },
    })
}

fn shard_job(packing: bool) -> Job {
    Job::Shard(ShardJob {
        model: ShardModel { encoder_seq_length: SEQ_LENGTH, seed: 7 },
        stage: ShardStage { packing },
    })
}

/// The first nouns of the quickstart's rows.
fn rows(count: usize) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/data/wordnet_nouns.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().take(count).fold(String::new(), |mut all, line| {
        writeln!(all, "{line}").unwrap();
        all
    })
}

/// A folder in which stages run one after another.
struct Place(tempfile::TempDir);

impl Place {
    fn new(rows: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        std::fs::write(place.path("rows.jsonl"), rows).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(
        &self,
        job: &Job,
        inputs: &[(&str, PathBuf)],
        output: &str,
    ) -> Result<Outcome, stages::Error> {
        self.run_with(job, inputs, output, &Silent)
    }

    fn run_with(
        &self,
        job: &Job,
        inputs: &[(&str, PathBuf)],
        output: &str,
        sink: &dyn Sink,
    ) -> Result<Outcome, stages::Error> {
        let inputs = inputs.iter().map(|(name, path)| ((*name).to_owned(), path.clone())).collect();
        let output = self.path(output);
        std::fs::create_dir_all(&output).unwrap();
        stages::run(
            job,
            &Folders { inputs, backend: Backend::Cpu, output },
            sink,
            &AtomicBool::new(false),
        )
    }

    fn tokenize(&self, output: &str, sink: &dyn Sink) -> Result<Outcome, stages::Error> {
        self.tokenize_by(&tokenize_job(), output, sink)
    }

    fn tokenize_by(
        &self,
        job: &Job,
        output: &str,
        sink: &dyn Sink,
    ) -> Result<Outcome, stages::Error> {
        let inputs = [
            ("rows.0", self.path("rows.jsonl")),
            ("tokenizer.vocab_file", fixture("gpt2/vocab.json")),
            ("tokenizer.merge_file", fixture("gpt2/merges.txt")),
        ];
        self.run_with(job, &inputs, output, sink)
    }
}

#[derive(Default)]
struct Events(Mutex<Vec<Event>>);

impl Sink for Events {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// A task of conversations through `template`, or through the tokenizer's.
fn chat(template: Option<&str>, date: Option<&str>) -> Task {
    let [template, date] = [template, date].map(|text| text.map(str::to_owned));
    Task {
        name: "chat".to_owned(),
        share: 1.0,
        format: Format::Chat { template, messages: "messages".to_owned(), date },
        answer_only_loss: true,
        add_bos: false,
        add_eos: false,
    }
}

#[test]
fn the_tokenizer_keeps_the_chat_template_that_the_samples_were_made_with() {
    const LOUD: &str = "{% for message in messages %}!{{ message.content }}!{% endfor %}";
    let turns = r#"[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]"#;
    let place = Place::new(&format!("{{\"messages\": {turns}}}\n"));
    let inputs = [
        ("rows.0", place.path("rows.jsonl")),
        ("tokenizer.vocab_file", fixture("gpt2/vocab.json")),
        ("tokenizer.merge_file", fixture("gpt2/merges.txt")),
    ];
    let kept = |given: Option<&str>, tasks: Vec<Task>, output: &str| {
        let Job::Tokenize(mut job) = tokenize_job() else { panic!("another job") };
        job.model.chat_template = given.map(str::to_owned);
        job.stage.sources = vec![RowSource { split: SplitRule::All(Split::Train), tasks }];
        place.run(&Job::Tokenize(job), &inputs, output).unwrap();
        let tokenizer = Tokenizer::open(&place.path(output).join("tokenizer")).unwrap();
        let template = tokenizer.chat_template().unwrap();
        (template, tokenizer.chat_date().map(str::to_owned))
    };
    let loud = Some(LOUD.to_owned());
    let day = Some("2024-07-26");
    assert_eq!(kept(None, vec![chat(Some(LOUD), None)], "of_task"), (loud.clone(), None));
    let dated = kept(Some(LOUD), vec![chat(None, day)], "of_recipe");
    assert_eq!(dated, (loud.clone(), day.map(str::to_owned)));
    // A task's own comes before the recipe's; two that differ leave the recipe's.
    let both = kept(Some("x"), vec![chat(Some(LOUD), None)], "of_both");
    assert_eq!(both, (loud, None));
    let two = vec![chat(Some(LOUD), day), chat(None, day)];
    let quiet = "{% for message in messages %}{{ message.content }}{% endfor %}";
    assert_eq!(kept(Some(quiet), two, "of_two"), (Some(quiet.to_owned()), None));
    let texts = std::fs::read_to_string(place.path("of_recipe/train.samples.jsonl")).unwrap();
    assert!(texts.contains("\"prompt\":\"!a!\""), "{texts}");
}

#[test]
fn rows_become_token_files_with_their_texts() {
    let place = Place::new(&rows(5000));
    let events = Events::default();
    let facts = place.tokenize("out", &events).unwrap().facts;
    let tokenizer = Tokenizer::open(&place.path("out/tokenizer")).unwrap();
    let mut samples = 0;
    for split in Split::ALL {
        let file = IndexedFile::open(&place.path("out").join(split.name())).unwrap();
        let texts = place.path(&format!("out/{}.samples.jsonl", split.name()));
        let texts = std::fs::read_to_string(texts).unwrap();
        assert_eq!(texts.lines().count(), file.sequences());
        let fact = facts[&format!("{}_samples", split.name())];
        assert_eq!(fact.to_string(), file.sequences().to_string());
        samples += file.sequences();
        for (at, line) in texts.lines().enumerate() {
            let line: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap();
            let ids = file.sequence(at).unwrap();
            let whole = format!(
                "{}{}",
                line["prompt"].as_str().unwrap(),
                line["expected"].as_str().unwrap()
            );
            if ids.len() < SEQ_LENGTH {
                assert_eq!(tokenizer.decode(&ids).unwrap(), whole);
                assert_eq!(ids.last().copied(), tokenizer.eos());
            }
            let answer = line["prompt_tokens"].as_u64().unwrap() as usize;
            let mask: Vec<_> = (0..ids.len()).map(|token| token >= answer).collect();
            assert_eq!(file.sequence_mask(at).unwrap(), mask);
        }
    }
    assert!((5900..6100).contains(&samples), "{samples}");
    let last = events.0.lock().unwrap().pop().unwrap();
    let Event::Progress { done, total, .. } = last else { panic!("{last:?}") };
    assert_eq!((done, total), (5000, 5000));
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let place = Place::new(&rows(1000));
    let mut digests = Vec::new();
    for output in ["a", "b"] {
        place.tokenize(output, &Silent).unwrap();
        let shard = format!("{output}.shard");
        place.run(&shard_job(true), &[("data", place.path(output))], &shard).unwrap();
        digests.push([output, &shard].map(|name| Digest::of_folder(&place.path(name)).unwrap()));
    }
    assert_eq!(digests[0], digests[1]);
}

/// Every sample of a split's training sequences, sorted, with inputs, labels, mask and positions.
fn samples(folder: &Path, split: Split) -> Vec<Vec<(u32, u32, bool, u32)>> {
    let ordering = Ordering { seed: 1, shuffle: true, seq_length: SEQ_LENGTH };
    let mut feed = Feed::shards(folder, split, ordering).unwrap();
    let all = feed.micro_batch(0..feed.count() as u64).unwrap();
    let token = |at| (all.tokens[at], all.labels[at], all.loss_mask[at], all.positions[at]);
    let spans = all.segments.windows(2);
    let mut samples: Vec<Vec<_>> =
        spans.map(|span| (span[0]..span[1]).map(token).collect()).collect();
    samples.sort();
    samples
}

#[test]
fn packed_sequences_hold_the_same_samples_as_unpacked_ones() {
    let place = Place::new(&rows(2000));
    place.tokenize("data", &Silent).unwrap();
    let data = [("data", place.path("data"))];
    let packed = place.run(&shard_job(true), &data, "packed").unwrap().facts;
    let apart = place.run(&shard_job(false), &data, "apart").unwrap().facts;
    assert!(packed["train_packing_efficiency"] > 0.95, "{packed:?}");
    assert!(packed["train_sequences"] < apart["train_sequences"] / 2.0);
    for split in Split::ALL {
        let (first, second) =
            (samples(&place.path("packed"), split), samples(&place.path("apart"), split));
        assert_eq!(first, second);
        assert!(!first.is_empty());
    }
    Tokenizer::open(&place.path("packed/tokenizer")).unwrap();
}

/// Each token's global position, id, label and mask.
fn addressed(batch: &MicroBatch) -> Vec<(u64, u32, u32, bool)> {
    let places = batch.global_positions.iter().zip(&batch.tokens);
    let labels = batch.labels.iter().zip(&batch.loss_mask);
    places.zip(labels).map(|((at, token), (label, mask))| (*at, *token, *label, *mask)).collect()
}

#[test]
fn a_step_is_the_same_tokens_however_it_is_cut() {
    let place = Place::new(&rows(1000));
    place.tokenize("data", &Silent).unwrap();
    place.run(&shard_job(true), &[("data", place.path("data"))], "shard").unwrap();
    let ordering = Ordering { seed: 5, shuffle: true, seq_length: SEQ_LENGTH };
    let feed = Feed::shards(&place.path("shard"), Split::Train, ordering).unwrap();
    let step = |micro, replicas| {
        let mut tokens: Vec<(u64, u32, u32, bool)> = Vec::new();
        for replica in 0..replicas {
            let share = Share::new(16, micro, replicas, replica).unwrap();
            let mut feed = feed.clone();
            for at in 0..share.micro_batches() {
                let batch: MicroBatch = feed.micro_batch(share.numbers(1600, at)).unwrap();
                assert_eq!(batch.sequences, micro);
                tokens.extend(addressed(&batch));
                assert_eq!(batch.learned().len(), batch.learned_count());
            }
        }
        tokens.sort_unstable();
        let before = tokens.len();
        tokens.dedup_by_key(|token| token.0);
        assert_eq!(tokens.len(), before, "a global position occurs twice");
        tokens
    };
    let whole = step(16, 1);
    for (micro, replicas) in [(1, 1), (4, 1), (8, 2), (2, 4), (1, 16)] {
        assert_eq!(step(micro, replicas), whole);
    }
}

#[test]
fn bad_rows_are_counted_and_shown_with_their_lines() {
    let mut text = rows(20);
    text += "not json\n\n[1]\n{\"term\": \"x\"}\n";
    text += "{\"term\": 1, \"gloss\": \"g\", \"kind\": \"k\"}\n";
    let place = Place::new(&text);
    let error = place.tokenize("out", &Silent).unwrap_err().to_string();
    let path = place.path("rows.jsonl").display().to_string();
    let error = error.replace(&path, "ROWS");
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines[0], "3 of 24 rows of `ROWS` cannot be used:");
    assert!(lines[1].starts_with("ROWS:21: it is not a JSON object: "), "{error}");
    assert!(lines[2].starts_with("ROWS:23: it is not a JSON object: "), "{error}");
    assert_eq!(lines[3], "ROWS:24: it has no field `gloss` (its fields: term)");
}

#[test]
fn rows_that_are_wrong_alike_are_told_once_with_what_may_be_meant() {
    let text = rows(20).replace("\"gloss\"", "\"glos\"");
    let place = Place::new(&text);
    let error = place.tokenize("out", &Silent).unwrap_err().to_string();
    let error = error.replace(&place.path("rows.jsonl").display().to_string(), "ROWS");
    assert_eq!(
        error,
        "20 of 20 rows of `ROWS` cannot be used:\nROWS:1: it has no field `gloss` (did you mean \
         `glos`? its fields: glos, kind, term), and 19 more like it"
    );
}

#[test]
fn nothing_to_learn_is_an_error() {
    let mut job = tokenize_job();
    if let Job::Tokenize(job) = &mut job {
        job.stage.sources[0].split = SplitRule::All(Split::Test);
    }
    let error = Place::new(&rows(20)).tokenize_by(&job, "out", &Silent).unwrap_err().to_string();
    assert_eq!(
        error,
        "no row gives a sample for training: check `split` and `share` of the sources"
    );
}

#[test]
fn a_file_without_rows_is_an_error() {
    for text in ["", "\n\n", "\u{feff}"] {
        let error = Place::new(text).tokenize("out", &Silent).unwrap_err().to_string();
        assert!(error.ends_with("has no rows: fill it, or take it out of the sources"), "{error}");
    }
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let [plain, marked] = [String::new(), "\u{feff}".to_owned()].map(|start| {
        let outcome = Place::new(&(start + &rows(200))).tokenize("out", &Silent).unwrap();
        outcome.facts
    });
    assert_eq!(plain, marked);
}

/// What tokenizing tells; none when it fails.
fn notes(place: &Place, job: &Job) -> Option<Vec<String>> {
    let events = Events::default();
    place.tokenize_by(job, "out", &events).ok()?;
    let events = events.0.into_inner().unwrap().into_iter();
    let notes = events.filter_map(|event| match event {
        Event::Note { text } => Some(text),
        _ => None,
    });
    Some(notes.collect())
}

#[test]
fn many_cut_samples_are_told_with_their_share() {
    let told = |length| {
        let mut job = tokenize_job();
        if let Job::Tokenize(job) = &mut job {
            job.model.encoder_seq_length = length;
        }
        notes(&Place::new(&rows(200)), &job).unwrap()
    };
    assert_eq!(told(1024), Vec::<String>::new());
    let told = told(12);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(" %) were longer than 12 tokens and were cut: raise"), "{told:?}");
}

#[test]
fn a_promised_split_that_got_no_rows_is_told() {
    // One row that goes to training: none is left for the other two.
    let all = rows(20);
    let told = all.lines().find_map(|row| notes(&Place::new(row), &tokenize_job())).unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("the validation split got no sample"), "{told:?}");
    assert!(told[1].starts_with("the test split got no sample"), "{told:?}");
}

#[test]
fn null_is_told_before_training_with_the_number_of_rows() {
    let mut text = rows(20);
    text += "{\"term\": \"x\", \"gloss\": \"g\", \"kind\": null}\n";
    let place = Place::new(&text);
    let error = place.tokenize("out", &Silent).unwrap_err().to_string();
    let error = error.replace(&place.path("rows.jsonl").display().to_string(), "ROWS");
    assert_eq!(
        error,
        "1 of 21 rows of `ROWS` cannot be used:\nROWS:21: its field `kind` is null: leave such rows \
         out, or write `{{ kind or '' }}`"
    );
}

#[test]
fn a_shorter_sequence_than_the_samples_is_an_error() {
    let place = Place::new(&rows(200));
    place.tokenize("data", &Silent).unwrap();
    let job = Job::Shard(ShardJob {
        model: ShardModel { encoder_seq_length: 16, seed: 7 },
        stage: ShardStage { packing: true },
    });
    let error = place.run(&job, &[("data", place.path("data"))], "out").unwrap_err().to_string();
    assert!(error.contains("does not fit a training sequence of 16"), "{error}");
}

#[test]
fn a_saved_tokenizer_gives_the_same_ids() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = gpt2();
    tokenizer.save(folder.path()).unwrap();
    let saved = Tokenizer::open(folder.path()).unwrap();
    let text = "The quick brown fox";
    assert_eq!(saved.encode(text).unwrap(), tokenizer.encode(text).unwrap());
    assert_eq!((saved.kind(), saved.special()), (tokenizer.kind(), tokenizer.special()));
    std::fs::write(folder.path().join("kind.json"), r#"{"version":9,"kind":"gpt2_bpe"}"#).unwrap();
    let error = Tokenizer::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("version 9 is not known here"), "{error}");
}

//! Other programs' checkpoints: models made by transformers, and round trips through every format.

use safetensors::Dtype;
use serde::Deserialize;
use sft_run::checkpoint::foreign::gguf;
use sft_run::checkpoint::foreign::hugging_face::config;
use sft_run::checkpoint::foreign::nemo::{self, Wanted, form, names};
use sft_run::checkpoint::foreign::rectangles::{Rectangle, Rectangles};
use sft_run::checkpoint::foreign::stored::Piece;
use sft_run::checkpoint::foreign::torch;
use sft_run::checkpoint::foreign::written::Tensors;
use sft_run::checkpoint::format::Format;
use sft_run::checkpoint::opened::Opened;
use sft_run::checkpoint::whole::load_model;
use sft_run::data::tokenizer::Tokenizer;
use sft_run::layout::slice::Slice;
use sft_run::model::batch::Batch;
use sft_run::spec::architecture::Architecture;
use sft_run::spec::backend::Backend;
use sft_run::spec::event::Silent;
use sft_run::spec::job::{Job, LoadJob, LoadModel, LoadStage, TokenizerKind};
use sft_run::stages::{
    self,
    convert::{Settings, Target, run},
};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Made by `tests/checkpoints/make_models.py`.
const MODELS: [&str; 5] = ["gpt2", "llama", "mistral_sharded", "gpt_neox", "gpt_neox_serial"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
}

#[derive(Deserialize)]
struct Record {
    ids: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

/// The logits of the model at `path` are those that transformers gave, to 1e-4.
fn check_logits(path: &Path, name: &str) {
    let text = fs::read_to_string(fixture(name).join("logits.json")).unwrap();
    let record: Record = serde_json::from_str(&text).unwrap();
    let model = load_model(path).unwrap();
    let positions: Vec<u32> = (0..record.ids.len() as u32).collect();
    let starts = [0, record.ids.len()];
    let batch =
        Batch { tokens: &record.ids, positions: &positions, starts: &starts, addresses: &[] };
    let ours: Vec<Vec<f32>> = model.logits(&batch, &positions).unwrap().to_vec2().unwrap();
    let mut largest = 0.0_f32;
    for (ours, theirs) in ours.iter().zip(&record.logits) {
        for (ours, theirs) in ours.iter().zip(theirs) {
            largest = largest.max((ours - theirs).abs());
        }
    }
    assert!(largest < 1e-4, "{name}: logits differ by {largest}");
}

/// All tensors of a checkpoint as bytes, without padding.
fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    all_of(&Opened::open(path, None).unwrap())
}

fn all_of(opened: &Opened) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    // The fixtures have 61 ids; padding rows of NeMo's vocabularies are not looked at.
    let cut = |name: &str, shape: &[usize]| {
        let mut shape = shape.to_vec();
        if sft_run::layout::parameters::is_vocabulary(name) {
            shape[0] = 61;
        }
        shape
    };
    let source = opened.source();
    let read = |(name, facts): (&String, &sft_run::checkpoint::source::TensorFacts)| {
        let shape = cut(name, &facts.shape);
        let bytes = source.read_slice(name, &Slice::whole(&shape)).unwrap();
        (name.clone(), (shape, bytes))
    };
    source.tensors().iter().map(read).collect()
}

fn settings(target: Target, tensor: usize, pipeline: usize) -> Settings {
    Settings { target, tensor, pipeline, bf16: None, divisible_by: 8 }
}

#[test]
fn logits_are_those_of_transformers() {
    for name in MODELS {
        check_logits(&fixture(name), name);
    }
}

#[test]
fn files_of_torch_save_are_read_in_both_forms() {
    let config = fs::read(fixture("gpt2").join("config.json")).unwrap();
    for file in ["gpt2_state.bin", "gpt2_state_legacy.bin"] {
        let folder = tempfile::tempdir().unwrap();
        put(&folder.path().join("config.json"), &config);
        put(&folder.path().join("pytorch_model.bin"), &fs::read(fixture(file)).unwrap());
        check_logits(folder.path(), "gpt2");
        assert_eq!(tensors(folder.path()), tensors(&fixture("gpt2")));
    }
}

#[test]
fn every_format_gives_back_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    for name in MODELS {
        let source = fixture(name);
        let expected = tensors(&source);
        for (target, file) in
            [(Target::HuggingFace, "hf"), (Target::Nemo, "x.nemo"), (Target::Native, "native")]
        {
            let path = folder.path().join(format!("{name}_{file}"));
            run(&source, &path, &settings(target, 1, 1), &Silent).unwrap();
            assert_eq!(tensors(&path), expected, "{name} {file}");
            check_logits(&path, name);
            let back = folder.path().join(format!("{name}_{file}_back"));
            run(&path, &back, &settings(Target::HuggingFace, 1, 1), &Silent).unwrap();
            assert_eq!(tensors(&back), expected, "{name} {file}");
        }
    }
}

#[test]
fn every_layout_to_every_layout_gives_back_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("llama");
    let expected = tensors(&source);
    let layouts = [1, 2, 4].map(|tensor| [1, 2, 4].map(|pipeline| (tensor, pipeline)));
    let layouts: Vec<(usize, usize)> = layouts.into_iter().flatten().collect();
    for (tensor, pipeline) in &layouts {
        let at = |kind: &str| folder.path().join(format!("{tensor}_{pipeline}{kind}"));
        let (native, nemo) = (at(""), at(".nemo"));
        run(&source, &native, &settings(Target::Native, *tensor, *pipeline), &Silent).unwrap();
        run(&native, &nemo, &settings(Target::Nemo, *tensor, *pipeline), &Silent).unwrap();
        assert_eq!(tensors(&native), expected);
        assert_eq!(tensors(&nemo), expected);
        for (other_tensor, other_pipeline) in &layouts {
            let other = settings(Target::Native, *other_tensor, *other_pipeline);
            let again = at(&format!("_{other_tensor}_{other_pipeline}"));
            run(&native, &again, &other, &Silent).unwrap();
            assert_eq!(tensors(&again), expected);
            let from_nemo = at(&format!("_{other_tensor}_{other_pipeline}_nemo"));
            run(&nemo, &from_nemo, &other, &Silent).unwrap();
            assert_eq!(tensors(&from_nemo), expected);
        }
    }
}

#[test]
fn bf16_is_kept_and_rounds_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let bf16 = |target| Settings { bf16: Some(true), ..settings(target, 2, 2) };
    run(&fixture("gpt2"), &at("a.nemo"), &bf16(Target::Nemo), &Silent).unwrap();
    run(&at("a.nemo"), &at("native"), &settings(Target::Native, 4, 1), &Silent).unwrap();
    run(&at("native"), &at("b.nemo"), &settings(Target::Nemo, 1, 4), &Silent).unwrap();
    assert_eq!(tensors(&at("a.nemo")), tensors(&at("b.nemo")));
    let opened = Opened::open(&at("b.nemo"), None).unwrap();
    assert!(opened.source().tensors().values().all(|facts| facts.dtype == Dtype::BF16));
}

/// Writes a folder of ranks with names and orders of the other kinds.
fn write_ranks(
    target: &Path,
    name: &str,
    cut: form::Cut,
    spell: impl Fn(&str) -> String,
) -> Architecture {
    let opened = Opened::open(&fixture(name), None).unwrap();
    let model = Architecture { padded_vocab_size: 64, ..opened.architecture().clone() };
    let all = Tensors::new(form::form(&model, &cut).unwrap(), opened.source(), Dtype::F32);
    for tensor in 0..cut.tensor {
        for pipeline in 0..cut.pipeline {
            let rank = target.join(format!("tp_rank_{tensor:02}_pp_rank_{pipeline:03}"));
            fs::create_dir_all(&rank).unwrap();
            let prefix = form::key(tensor, pipeline, "");
            let names = all.shapes().keys().filter(|key| key.starts_with(&prefix));
            let names: Vec<(String, &str)> =
                names.map(|key| (spell(&key[prefix.len()..]), key.as_str())).collect();
            let file = fs::File::create(rank.join("model_weights.ckpt")).unwrap();
            let mut file = BufWriter::new(file);
            let start = file.stream_position().unwrap();
            torch::write(&mut file, start, &all, &names, &mut |_| {}).unwrap();
            file.flush().unwrap();
        }
    }
    opened.architecture().clone()
}

const LLAMA: &str = "num_layers: 4\nhidden_size: 32\nffn_hidden_size: 48\nnum_attention_heads: 8\n\
    num_query_groups: 4\nencoder_seq_length: 64\nmax_position_embeddings: ${.encoder_seq_length}\n\
    position_embedding_type: rope\nrotary_base: 5000\nnormalization: rmsnorm\nlayernorm_epsilon: 1e-6\n\
    activation: fast-swiglu\nbias: false\nshare_embeddings_and_output_weights: false\n\
    hidden_dropout: 0.0\nattention_dropout: 0.0\nffn_dropout: 0.0\n";

type Spell = fn(&str) -> String;

#[test]
fn every_spelling_and_order_of_nemo_is_read() {
    let expected = tensors(&fixture("llama"));
    let plain = form::Cut { tensor: 2, pipeline: 2, legacy_order: false, separate_gate: false };
    let cases: [(form::Cut, Spell, &str); 5] = [
        (plain, |name| names::theirs(name, true), ""),
        (plain, |name| names::theirs(name, false).replacen("model.", "model.module.", 1), ""),
        (plain, |name| format!("state_dict.{}", names::theirs(name, false)), ""),
        (
            form::Cut { legacy_order: true, ..plain },
            |name| names::theirs(name, false),
            "megatron_legacy: true\n",
        ),
        (form::Cut { separate_gate: true, ..plain }, |name| names::theirs(name, false), ""),
    ];
    for (cut, spell, more) in cases {
        let folder = tempfile::tempdir().unwrap();
        write_ranks(folder.path(), "llama", cut, spell);
        put(&folder.path().join("model_config.yaml"), format!("{LLAMA}{more}").as_bytes());
        assert_eq!(tensors(folder.path()), expected);
    }
}

#[test]
fn megatron_lm_folders_give_the_models_logits() {
    // Two tensor and two pipeline ranks; the names and the order of before version 2;
    // Megatron-Core's names, and a release.
    for (name, model, layout) in [
        ("megatron_gpt2", "gpt2", [2, 2]),
        ("megatron_gpt2_old", "gpt2", [2, 1]),
        ("megatron_llama_core", "llama", [2, 1]),
    ] {
        let path = fixture(name);
        let opened = Opened::open(&path, None).unwrap().whole().unwrap();
        assert_eq!(opened.format, Format::Megatron);
        assert_eq!(opened.layout, Some(layout), "{name}");
        check_logits(&path, model);
        assert_eq!(tensors(&path), tensors(&fixture(model)), "{name}");
    }
}

#[test]
fn a_megatron_lm_folder_without_a_version_has_the_order_of_version_0() {
    let folder = tempfile::tempdir().unwrap();
    let old = fixture("megatron_gpt2_old/iter_0000007");
    for rank in ["mp_rank_00", "mp_rank_01"] {
        fs::create_dir(folder.path().join(rank)).unwrap();
        let mut bytes = fs::read(old.join(rank).join("model_optim_rng.pt")).unwrap();
        let name = b"checkpoint_version";
        let at = bytes.windows(name.len()).position(|part| part == name).unwrap();
        bytes[at] = b'C';
        put(&folder.path().join(rank).join("model_optim_rng.pt"), &bytes);
    }
    assert_eq!(tensors(folder.path()), tensors(&fixture("gpt2")));
}

#[test]
fn a_gguf_file_gives_the_models_logits() {
    let path = fixture("llama.gguf");
    check_logits(&path, "llama");
    assert_eq!(tensors(&path), tensors(&fixture("llama")));
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("hf");
    run(&path, &target, &settings(Target::HuggingFace, 1, 1), &Silent).unwrap();
    let model = BTreeMap::from([("tokenizer.model".to_owned(), target.join("tokenizer.model"))]);
    let tokenizer = Tokenizer::load(TokenizerKind::SentencePiece, &model).unwrap();
    assert_eq!(tokenizer.vocab_size(), 61);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
}

/// Text, score and type of the pieces of a `.model` file: its fields of number 1.
fn pieces_of(mut bytes: &[u8]) -> Vec<(String, f32, u64)> {
    let mut pieces = Vec::new();
    while let [0x0a, length, rest @ ..] = bytes {
        let (piece, after) = rest.split_at(usize::from(*length));
        bytes = after;
        let [0x0a, size, rest @ ..] = piece else { panic!("{piece:?}") };
        let (text, rest) = rest.split_at(usize::from(*size));
        let ([0x15, score @ ..], kind) = rest.split_at(5) else { panic!("{rest:?}") };
        let score = f32::from_le_bytes(score.try_into().unwrap());
        let kind = if let [0x18, kind] = kind { u64::from(*kind) } else { 1 };
        pieces.push((String::from_utf8(text.to_vec()).unwrap(), score, kind));
    }
    pieces
}

#[test]
fn a_sentencepiece_tokenizer_of_a_gguf_file_is_what_it_was() {
    let path = fixture("../data/llama_style_32000.model");
    let pieces = pieces_of(&fs::read(&path).unwrap());
    let load = |path: PathBuf| {
        let files = BTreeMap::from([("tokenizer.model".to_owned(), path)]);
        Tokenizer::load(TokenizerKind::SentencePiece, &files).unwrap()
    };
    let original = load(path);
    assert_eq!(pieces.len(), original.vocab_size());
    let metadata = serde_json::json!({
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces.iter().map(|(text, ..)| text).collect::<Vec<_>>(),
        "tokenizer.ggml.scores": pieces.iter().map(|(_, score, _)| score).collect::<Vec<_>>(),
        "tokenizer.ggml.token_type": pieces.iter().map(|(.., kind)| kind).collect::<Vec<_>>(),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    });
    let metadata = serde_json::from_value(metadata).unwrap();
    let (_, files) = gguf::tokenizer::files(&metadata).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let again = folder.path().join("tokenizer.model");
    put(&again, &files["tokenizer.model"]);
    let again = load(again);
    for text in ["The capital of France is", "  two  spaces", "naïve 東京 \u{1f600}\n\ttabs", ""]
    {
        let ids = original.encode(text).unwrap();
        assert_eq!(again.encode(text).unwrap(), ids, "{text}");
        assert_eq!(again.decode(&ids).unwrap(), original.decode(&ids).unwrap());
    }
    assert_eq!(again.special(), original.special());
}

#[test]
fn a_folder_of_ranks_without_settings_is_read_by_the_recipes_shape() {
    let folder = tempfile::tempdir().unwrap();
    for legacy_order in [false, true] {
        let cut = form::Cut { tensor: 2, pipeline: 1, legacy_order, separate_gate: false };
        let model = write_ranks(folder.path(), "llama", cut, |name| names::theirs(name, false));
        let error = Opened::open(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("nothing in it says the model's shape"), "{error}");
        let wanted = |legacy_order| Some(Wanted { architecture: &model, legacy_order });
        let opened = Opened::open(folder.path(), wanted(legacy_order)).unwrap().whole().unwrap();
        assert_eq!(opened.architecture().vocab_size, 61);
        assert_eq!(all_of(&opened), tensors(&fixture("llama")));
        // Nothing in the folder tells the orders apart: the recipe has to say which it is.
        let other = Opened::open(folder.path(), wanted(!legacy_order)).unwrap();
        assert_ne!(all_of(&other), tensors(&fixture("llama")));
    }
}

#[test]
fn hostile_files_are_refused() {
    let config = fs::read(fixture("gpt2").join("config.json")).unwrap();
    let refused = |file: &str, bytes: &[u8], expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        put(&folder.path().join("config.json"), &config);
        put(&folder.path().join(file), bytes);
        let error = Opened::open(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let payload = b"\x80\x02cposix\nsystem\nq\0X\x0c\0\0\0touch /tmp/xq\x01\x85q\x02Rq\x03.";
    refused("pytorch_model.bin", payload, "no file of torch.save");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", stored).unwrap();
    zip.write_all(payload).unwrap();
    refused("pytorch_model.bin", &zip.finish().unwrap().into_inner(), "`posix.system`");
    let mut lie = 40_u64.to_le_bytes().to_vec();
    lie.extend(br#"{"a":{"dtype":"F32","shape":[4294967296],"data_offsets":[0,17179869184]}}"#);
    refused("model.safetensors", &lie, "its header is wrong");
    refused("model.safetensors", &u64::MAX.to_le_bytes(), "its header is wrong");
    let outside = br#"{"weight_map":{"a":"../../../etc/passwd"}}"#;
    refused("model.safetensors.index.json", outside, "it names the file");
}

/// Inputs by which a fuzz target (`tests/fuzz`) once ended a reader.
#[test]
fn what_fuzzing_found_ends_no_reader() {
    let found = fixture("../fuzz");
    let gguf = fs::read(found.join("gguf-empty_dim.gguf")).unwrap();
    let error = gguf::read(&Piece::of_bytes(&gguf)).unwrap_err();
    assert!(error.contains("does not lie within the file"), "{error}");
    let settings = fs::read_to_string(found.join("archive-no_heads.yaml")).unwrap();
    let settings = nemo::config::nemo(&settings).unwrap();
    assert!(settings.architecture(&nemo::config::Found::default()).is_err());
}

#[test]
fn settings_that_are_not_read_are_named() {
    let check = |text: &str, expected: &str| {
        let error = config::read(text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    check(r#"{"model_type":"qwen2"}"#, "model_type `qwen2`");
    check(r#"{"model_type":"llama","rope_scaling":{"rope_type":"llama3"}}"#, "`llama3`");
    check(r#"{"model_type":"llama","attention_bias":true}"#, "some linear layers only");
    check(r#"{"model_type":"gpt2","n_head":5}"#, "does not divide");
    check(r#"{"model_type":"gpt2","scale_attn_by_inverse_layer_idx":true}"#, "does not understand");
}

#[test]
fn any_rectangle_is_what_the_whole_has_there() {
    let opened = Opened::open(&fixture("gpt2"), None).unwrap();
    let reader = opened.foreign().unwrap();
    let name = "encoder.layers.1.self_attention.query_key_value.weight";
    let mut whole = vec![0.0; 96 * 32];
    reader.read(name, &Rectangle { rows: 0..96, columns: 0..32 }, &mut whole).unwrap();
    let mut part = vec![0.0; 7 * 5];
    reader.read(name, &Rectangle { rows: 20..27, columns: 9..14 }, &mut part).unwrap();
    for (at, value) in part.iter().enumerate() {
        assert_eq!(*value, whole[(20 + at / 5) * 32 + 9 + at % 5]);
    }
}

fn put(path: &Path, bytes: &[u8]) {
    fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

fn load_job(architecture: Architecture, strict: bool) -> Job {
    let model = LoadModel { architecture, seed: 3, restore: true, megatron_legacy: false };
    Job::Load(LoadJob { model, stage: LoadStage { strict } })
}

#[test]
fn a_checkpoint_of_another_model_is_refused_with_both_values() {
    let path = fixture("llama");
    let found = Opened::open(&path, None).unwrap().architecture().clone();
    assert_eq!(stages::input_refusal(&load_job(found.clone(), true), "checkpoint", &path), None);
    let wanted = Architecture { num_layers: 8, rotary_base: 10_000.0, ..found };
    let refusal = stages::input_refusal(&load_job(wanted, true), "checkpoint", &path).unwrap();
    let expected =
        "num_layers is 4, the recipe says 8, rotary_base is 5000.0, the recipe says 10000.0";
    assert!(refusal.what.contains(expected), "{}", refusal.what);
}

#[test]
fn what_is_missing_starts_fresh_when_the_stage_is_not_strict() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gpt2");
    fs::create_dir(&path).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixture("gpt2").join(name), path.join(name)).unwrap();
    }
    // Another name for a tensor of the same length: one is missing, one has no place.
    let file = path.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let name = b"transformer.ln_f.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at..at + name.len()].copy_from_slice(b"transformer.lost.weight");
    put(&file, &bytes);
    let found = Opened::open(&path, None).unwrap().architecture().clone();
    let refusal =
        stages::input_refusal(&load_job(found.clone(), true), "checkpoint", &path).unwrap();
    let expected = "it lacks `encoder.final_layernorm.weight`; the model has no place for its \
                    `transformer.lost.weight`";
    assert!(refusal.what.contains(expected), "{}", refusal.what);
    let job = load_job(found, false);
    assert_eq!(stages::input_refusal(&job, "checkpoint", &path), None);
    let folders = stages::Folders {
        inputs: BTreeMap::from([("checkpoint".to_owned(), path)]),
        output: folder.path().to_owned(),
        backend: Backend::Cpu,
    };
    stages::run(&job, &folders, &Silent, &AtomicBool::new(false)).unwrap();
    let loaded = tensors(&folder.path().join("checkpoint"));
    let (_, fresh) = &loaded["encoder.final_layernorm.weight"];
    assert!(fresh.as_chunks::<4>().0.iter().all(|four| f32::from_le_bytes(*four) == 1.0));
    let expected = tensors(&fixture("gpt2"));
    assert!(
        expected.iter().all(|(name, tensor)| name.contains("final") || loaded[name] == *tensor)
    );
}

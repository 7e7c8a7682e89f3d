//! Writing a `.nemo` archive: a tar file of `model_config.yaml`, the ranks' weights, the tokenizer.

use super::form::{Cut, form, key};
use super::names;
use crate::checkpoint::error::Error;
use crate::checkpoint::foreign::form::Form;
use crate::checkpoint::foreign::torch;
use crate::checkpoint::foreign::written::Tensors;
use crate::checkpoint::opened::Carried;
use crate::checkpoint::source::Source;
use crate::layout::parameters::WORD_EMBEDDINGS;
use crate::spec::architecture::{Activation, Architecture};
use crate::spec::job::TokenizerKind;
use safetensors::Dtype;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use tar::{EntryType, Header};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Tensor- and pipeline-parallel ranks.
    pub layout: [usize; 2],
    /// Rows of the vocabulary over all ranks.
    pub padded_vocab_size: usize,
    /// NeMo's `make_vocab_size_divisible_by`.
    pub divisible_by: usize,
    /// The numbers' format.
    pub dtype: Dtype,
    /// The tokenizer that goes along.
    pub tokenizer: Option<&'a Carried>,
    /// By which name transformers finds it: NeMo opens a Hugging Face tokenizer by that
    /// (`tokenizer.type`), and not by the file in the archive.
    pub tokenizer_name: Option<&'a str>,
}

/// Writes the archive `path`.
pub fn write(
    path: &Path,
    (source, model): (&dyn Source, &Architecture),
    request: &Request<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), Error> {
    let model = &Architecture { padded_vocab_size: request.padded_vocab_size, ..model.clone() };
    let [tensor, pipeline] = request.layout;
    let cut = Cut { tensor, pipeline, legacy_order: false, separate_gate: false };
    let mut all = form(model, &cut).map_err(|reason| Error::unusable(source.path(), reason))?;
    if model.share_embeddings_and_output_weights && pipeline > 1 {
        copy_embedding(&mut all, &cut);
    }
    let tensors = Tensors::new(all, source, request.dtype);
    let total = tensors.shapes().keys().map(|name| tensors.size(name)).sum();
    let mut done = 0;
    let mut tell = |bytes| {
        done += bytes;
        progress(done, total);
    };
    let failed = || Error::io("write", path);
    let file = File::create(path).map_err(failed())?;
    let mut archive = Archive { file: BufWriter::new(file) };
    let tokenizer = tokenizer(request.tokenizer, request.tokenizer_name);
    let settings = settings(model, request, &tokenizer.settings);
    let text = serde_yaml::to_string(&settings).map_err(io::Error::other).map_err(failed())?;
    archive.member("./model_config.yaml", text.as_bytes()).map_err(failed())?;
    for (name, bytes) in &tokenizer.files {
        archive.member(&format!("./{name}"), bytes).map_err(failed())?;
    }
    for stage in 0..pipeline {
        for rank in 0..tensor {
            let name = format!("./{}model_weights.ckpt", folder(request.layout, rank, stage));
            let prefix = key(rank, stage, "");
            let names = tensors.shapes().keys().filter_map(|name| {
                let inner = name.strip_prefix(&prefix)?;
                Some((names::theirs(inner, false), name.as_str()))
            });
            let names: Vec<(String, &str)> = names.collect();
            let start = archive.begin().map_err(failed())?;
            torch::write(&mut archive.file, start + 512, &tensors, &names, &mut tell)?;
            archive.end(start, &name).map_err(failed())?;
        }
    }
    archive.finish().map_err(failed())
}

/// The folder of a rank, as NeMo names it.
fn folder([tensor, pipeline]: [usize; 2], rank: usize, stage: usize) -> String {
    match (tensor, pipeline) {
        (1, 1) => String::new(),
        (_, 1) => format!("mp_rank_{rank:02}/"),
        _ => format!("tp_rank_{rank:02}_pp_rank_{stage:03}/"),
    }
}

/// With a tied head the last stage has the embedding too.
fn copy_embedding(form: &mut Form, cut: &Cut) {
    for rank in 0..cut.tensor {
        let (first, last) =
            (key(rank, 0, WORD_EMBEDDINGS), key(rank, cut.pipeline - 1, "word_embeddings.weight"));
        if let Some(shape) = form.shapes.get(&first).cloned() {
            form.shapes.insert(last.clone(), shape);
        }
        let copies = form.patches.iter().filter(|patch| patch.target.tensor == first).cloned();
        let copies = copies.map(|mut patch| {
            patch.target.tensor.clone_from(&last);
            patch
        });
        let copies: Vec<_> = copies.collect();
        form.patches.extend(copies);
    }
}

/// The tokenizer's members and what the settings say of them.
#[derive(Default)]
struct Tokenizer {
    files: BTreeMap<String, Vec<u8>>,
    settings: Value,
}

fn tokenizer(carried: Option<&Carried>, name: Option<&str>) -> Tokenizer {
    let Some(carried) = carried else { return Tokenizer::default() };
    let mut files = BTreeMap::new();
    let mut named = |name: &str| {
        let bytes = carried.files.get(name)?;
        let mark = blake3::hash(bytes).to_hex();
        let member = format!("{}_{name}", &mark[..32]);
        files.insert(member.clone(), bytes.clone());
        Some(format!("nemo:{member}"))
    };
    let settings = match carried.kind {
        TokenizerKind::Gpt2Bpe => json!({
            "library": "megatron",
            "type": "GPT2BPETokenizer",
            "model": null,
            "vocab_file": named("vocab.json"),
            "merge_file": named("merges.txt"),
        }),
        TokenizerKind::HuggingFace => {
            named("tokenizer_config.json");
            json!({"library": "huggingface", "type": name, "model": named("tokenizer.json")})
        }
        TokenizerKind::SentencePiece => json!({
            "library": "sentencepiece", "type": null, "model": named("tokenizer.model"),
        }),
    };
    Tokenizer { files, settings }
}

/// The `model` section of a recipe for these weights.
fn settings(model: &Architecture, request: &Request<'_>, tokenizer: &Value) -> Value {
    let mut settings = serde_json::to_value(model).unwrap_or_default();
    let [tensor, pipeline] = request.layout;
    let precision = if request.dtype == Dtype::BF16 { "bf16" } else { "32" };
    let (activation, exact) = match model.activation {
        Activation::Gelu => ("gelu", false),
        Activation::GeluErf => ("gelu", true),
        Activation::Relu => ("relu", false),
        Activation::SquaredRelu => ("squared-relu", false),
        Activation::Geglu => ("fast-geglu", false),
        Activation::Swiglu => ("fast-swiglu", false),
        Activation::Reglu => ("fast-reglu", false),
    };
    let more = json!({
        "mcore_gpt": false,
        "tensor_model_parallel_size": tensor,
        "pipeline_model_parallel_size": pipeline,
        "encoder_seq_length": model.max_position_embeddings,
        "make_vocab_size_divisible_by": request.divisible_by,
        "activation": activation,
        // The exact form of GELU is what is left without these two.
        "openai_gelu": false,
        "bias_activation_fusion": !exact,
        "transformer_block_type": "pre_ln",
        "megatron_legacy": false,
        "megatron_amp_O2": false,
        "precision": precision,
        "tokenizer": tokenizer,
        "target": "nemo.collections.nlp.models.language_modeling.megatron_gpt_model.MegatronGPTModel",
    });
    if let (Some(settings), Value::Object(more)) = (settings.as_object_mut(), more) {
        // `vocab_size` is no setting of NeMo's: by it the padding is told from ids again.
        settings.remove("padded_vocab_size");
        settings.extend(more);
    }
    settings
}

/// A tar file being written; the size of a member is filled in after it.
struct Archive {
    file: BufWriter<File>,
}

impl Archive {
    fn member(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let start = self.begin()?;
        self.file.write_all(bytes)?;
        self.end(start, name)
    }

    /// Leaves room for a header; gives its place.
    fn begin(&mut self) -> io::Result<u64> {
        let start = self.file.stream_position()?;
        self.file.write_all(&[0; 512])?;
        Ok(start)
    }

    fn end(&mut self, start: u64, name: &str) -> io::Result<()> {
        let end = self.file.seek(SeekFrom::End(0))?;
        let size = end - start - 512;
        let mut header = Header::new_gnu();
        header.set_path(name)?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        self.file.seek(SeekFrom::Start(start))?;
        self.file.write_all(header.as_bytes())?;
        self.file.seek(SeekFrom::End(0))?;
        let padding = vec![0; (size.next_multiple_of(512) - size) as usize];
        self.file.write_all(&padding)
    }

    fn finish(mut self) -> io::Result<()> {
        self.file.write_all(&[0; 1024])?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

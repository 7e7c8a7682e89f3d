//! GGUF files of the LLaMA architecture: weights, tokenizer and chat template in one file.

mod header;
mod sentencepiece;
pub mod tokenizer;

pub use header::{Gguf, read};

use super::form::{self, Form, Heads, Own, Role};
use super::hugging_face::{config::Family, forms};
use super::reader::Reader;
use super::rectangles::Rows;
use super::stored::Piece;
use crate::base::mapped_file::MappedFile;
use crate::spec::architecture::{Activation, Architecture, Normalization, PositionEmbedding};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Opens the file at `path`; its metadata goes along.
pub fn open(path: &Path) -> Result<(Reader, BTreeMap<String, Value>), String> {
    let map = MappedFile::open(path).map_err(|error| format!("it cannot be read: {error}"))?;
    let Gguf { metadata, tensors } = read(&Piece::whole(map))?;
    let embedding = tensors.get("token_embd.weight").ok_or("it has no token_embd.weight")?;
    let rows = embedding.shape.first().copied().unwrap_or(0);
    let tied = !tensors.contains_key("output.weight");
    let model = architecture(&Metadata(&metadata), rows, tied)?;
    form::check(&model, tensors.len())?;
    let form = llama(&model);
    let reader = Reader::new(path, model, form, tensors, |_| false)?;
    Ok((reader, metadata))
}

struct Metadata<'a>(&'a BTreeMap<String, Value>);

impl Metadata<'_> {
    fn size(&self, key: &str) -> Result<Option<usize>, String> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        size.map(Some).ok_or_else(|| format!("its `{key}` is {value}"))
    }

    fn needed(&self, key: &str) -> Result<usize, String> {
        self.size(key)?.ok_or_else(|| format!("its metadata has no `{key}`"))
    }

    fn number(&self, key: &str, default: f64) -> f64 {
        // Singles as people write them: 1e-5 and not 9.999999747378752e-6.
        let exact = self.0.get(key).and_then(Value::as_f64);
        exact.map_or(default, |value| (value as f32).to_string().parse().unwrap_or(value))
    }
}

fn architecture(metadata: &Metadata<'_>, rows: usize, tied: bool) -> Result<Architecture, String> {
    match metadata.0.get("general.architecture").and_then(Value::as_str) {
        Some("llama") => {}
        Some(other) => return Err(format!("its architecture is `{other}`, and llama is read")),
        None => return Err("its metadata names no architecture".to_owned()),
    }
    if let Some(kind) = metadata.0.get("llama.rope.scaling.type").and_then(Value::as_str)
        && kind != "none"
    {
        return Err(format!("its rotary positions are scaled by `{kind}`, which is not read"));
    }
    let hidden = metadata.needed("llama.embedding_length")?;
    let heads = metadata.needed("llama.attention.head_count")?;
    let width = match metadata.size("llama.attention.key_length")? {
        Some(width) => width,
        None if heads > 0 => hidden / heads,
        None => 0,
    };
    let turned = metadata.size("llama.rope.dimension_count")?.unwrap_or(width);
    if turned != width {
        return Err(format!("{turned} of {width} channels of its heads turn, and all must"));
    }
    Ok(Architecture {
        num_layers: metadata.needed("llama.block_count")?,
        hidden_size: hidden,
        ffn_hidden_size: metadata.needed("llama.feed_forward_length")?,
        num_attention_heads: heads,
        num_query_groups: metadata.size("llama.attention.head_count_kv")?.unwrap_or(heads),
        kv_channels: width,
        vocab_size: rows,
        padded_vocab_size: rows,
        max_position_embeddings: metadata.needed("llama.context_length")?,
        position_embedding_type: PositionEmbedding::Rope,
        rotary_percentage: 1.0,
        rotary_base: metadata.number("llama.rope.freq_base", 10_000.0),
        seq_len_interpolation_factor: None,
        normalization: Normalization::Rmsnorm,
        layernorm_epsilon: metadata.number("llama.attention.layer_norm_rms_epsilon", 1e-5),
        activation: Activation::Swiglu,
        bias: false,
        share_embeddings_and_output_weights: tied,
        use_parallel_residual: false,
        hidden_dropout: 0.0,
        attention_dropout: 0.0,
        ffn_dropout: 0.0,
        init_method_std: 0.02,
        use_scaled_init_method: true,
    })
}

/// The tensors of llama.cpp's names. Queries and keys have the rows of each head in another order:
/// row `2i` and `2i + 1` are rows `i` and `i + width/2` of ours, pairs that turn together.
fn llama(model: &Architecture) -> Form {
    let theirs = forms::form(Family::Llama, model);
    let mut form = Form::default();
    let mut turned = BTreeMap::new();
    for (name, shape) in theirs.shapes {
        form.shapes.insert(renamed(&name), shape);
    }
    for patch in theirs.patches {
        let role = if patch.target.tensor.contains("q_proj") {
            Role::Query
        } else if patch.target.tensor.contains("k_proj") {
            Role::Key
        } else {
            let mut patch = patch;
            patch.target.tensor = renamed(&patch.target.tensor);
            form.patches.push(patch);
            continue;
        };
        turned.insert((renamed(&patch.target.tensor), role == Role::Query), patch.origin.tensor);
    }
    let heads = Heads::of(model);
    for ((name, is_query), own) in turned {
        let (role, each) = if is_query { (Role::Query, heads.queries) } else { (Role::Key, 1) };
        for head in 0..heads.groups * each {
            let start = heads.start(head / each, role) + head % each * heads.width;
            for half in 0..2 {
                let rows = Rows { start: head * heads.width + half, step: 2 };
                let row = start + half * heads.width / 2;
                let ours = Own { name: &own, row, column: 0 };
                let size = [heads.width / 2, model.hidden_size];
                form.patch((&name, rows, 0), ours, size, false);
            }
        }
    }
    form
}

/// llama.cpp's name of a tensor that Transformers calls `name`.
fn renamed(name: &str) -> String {
    const NAMES: [(&str, &str); 12] = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.", "ffn_"),
        ("_proj", ""),
    ];
    NAMES.iter().fold(name.to_owned(), |name, (theirs, ours)| name.replace(theirs, ours))
}

//! The table of parameters: each one's name, shape, place, sharing, weight decay and start value.
//!
//! Names are those of NeMo's legacy state dict without `model.language_model.`.
//! Rows of `query_key_value` are grouped as NeMo groups them: for each query group its query heads,
//! then its key head, then its value head, that is `[groups, heads/groups + 2, kv_channels]`.
//! Rows of a gated `dense_h_to_4h` are all gates, then all ups.
//!
//! # Start values
//! The value at row-major index `i` of the whole tensor (before any split) of parameter `name` is
//! `std × normal(i)`, computed in f64 and rounded once to the number format of the parameter.
//! `normal(i)` is standard normal and comes from [`crate::base::seed`]:
//! 1. `hash = blake3(seed as 8 little-endian bytes ++ "init/" ++ name)`; the Philox key is
//!    `(u32le(hash[0..4]), u32le(hash[4..8]))`.
//! 2. `(a, b, c, d) = philox4x32_10(counter = (i mod 2³², i div 2³², 0, 0), key)`.
//! 3. `u = (((a + b·2³²) >> 11) + 1) / 2⁵³`, `v = ((c + d·2³²) >> 11) / 2⁵³`,
//!    `normal(i) = sqrt(-2 ln u) · cos(2π v)`.
//!
//! Rows of the vocabulary from `vocab_size` on are padding and start as zeros, so that the values
//! of a model do not depend on how far its vocabulary is padded.

use crate::base::seed::Stream;
use crate::spec::architecture::{Architecture, Normalization, PositionEmbedding};

/// One trainable tensor of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name in checkpoints.
    pub name: String,
    /// Its shape as a whole, before any split.
    pub shape: Vec<usize>,
    /// Which part of the model it belongs to; this decides the pipeline stage.
    pub place: Place,
    /// How the ranks of the tensor axis share it.
    pub sharing: Sharing,
    /// What it is to the optimizer.
    pub role: Role,
    /// Its values before training.
    pub start: Start,
}

impl Parameter {
    /// Number of elements as a whole.
    pub fn element_count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its shape in checkpoints: without the rows that pad the vocabulary.
    ///
    /// Those rows are zeros before training and stay zeros: no logit of theirs enters the loss.
    pub fn stored_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let Start::Normal { rows, .. } = self.start {
            shape[0] = rows;
        }
        shape
    }

    /// The start value at row-major index `index` of the whole tensor; `stream` is
    /// [`start_stream`](Parameter::start_stream).
    #[inline]
    pub fn start_value(&self, stream: &Stream, index: usize) -> f64 {
        match self.start {
            Start::Normal { std, rows } if index / self.shape[1] < rows => {
                std * stream.normal(index as u64)
            }
            Start::Normal { .. } | Start::Zeros => 0.0,
            Start::Ones => 1.0,
        }
    }

    /// The random numbers that the start values are made of.
    pub fn start_stream(&self, seed: u64) -> Stream {
        Stream::new(seed, &format!("init/{}", self.name))
    }

    /// Number of elements on one of `tensor` ranks.
    pub fn local_element_count(&self, tensor: usize) -> usize {
        match self.sharing {
            Sharing::Replicated => self.element_count(),
            Sharing::Split { .. } => self.element_count() / tensor,
        }
    }
}

/// A part of the model, in the order of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Word and position embeddings: the first pipeline stage. A tied head uses it on the last too.
    Embedding,
    /// A transformer block, counted from 0 over the whole model.
    Layer(usize),
    /// The last normalization and the output layer: the last pipeline stage.
    Head,
}

/// How the ranks of the tensor axis hold a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Every rank holds all of it.
    Replicated,
    /// Along `dim` the tensor is `blocks` equal blocks; each block is cut into one piece a rank,
    /// and a rank holds its piece of every block, in the order of the blocks.
    Split {
        /// The dim that is cut.
        dim: usize,
        /// 2 for the halves of a gated layer, else 1.
        blocks: usize,
    },
}

/// What a parameter is to the optimizer (NeMo's `get_params_for_weight_decay_optimization`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A matrix: it decays.
    Weight,
    /// The weight of a normalization: it decays with `do_layer_norm_weight_decay` only.
    NormWeight,
    /// A bias: it never decays.
    Bias,
}

impl Role {
    /// Whether weight decay applies.
    pub fn decays(self, do_layer_norm_weight_decay: bool) -> bool {
        match self {
            Role::Weight => true,
            Role::NormWeight => do_layer_norm_weight_decay,
            Role::Bias => false,
        }
    }
}

/// Values before training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// Normal numbers, see the top of this file.
    Normal {
        /// Their standard deviation.
        std: f64,
        /// Rows that get them; the rows after these are zeros.
        rows: usize,
    },
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
}

/// Name of the word embedding, which is also the output layer when they are tied.
pub const WORD_EMBEDDINGS: &str = "embedding.word_embeddings.weight";
/// Name of the learned position embedding.
pub const POSITION_EMBEDDINGS: &str = "embedding.position_embeddings.weight";
/// Name of the output layer when it is not the word embedding.
pub const OUTPUT_LAYER: &str = "output_layer.weight";
/// Name of the last normalization, without `.weight` or `.bias`.
pub const FINAL_LAYERNORM: &str = "encoder.final_layernorm";

/// Whether the rows of parameter `name` are those of the vocabulary, padding among them.
pub fn is_vocabulary(name: &str) -> bool {
    name == WORD_EMBEDDINGS || name == OUTPUT_LAYER
}

/// Every parameter of the model, in the order of the forward pass.
///
/// The order is that of flat buffers and of every sum over parameters.
pub fn table(architecture: &Architecture) -> Vec<Parameter> {
    let mut table = Table { architecture, place: Place::Embedding, parameters: Vec::new() };
    table.embedding();
    for layer in 0..architecture.num_layers {
        table.place = Place::Layer(layer);
        table.layer(&format!("encoder.layers.{layer}"));
    }
    table.place = Place::Head;
    table.head();
    table.parameters
}

/// Number of elements of the whole model; padding rows of the vocabulary are counted.
pub fn element_count(architecture: &Architecture) -> usize {
    table(architecture).iter().map(Parameter::element_count).sum()
}

struct Table<'a> {
    architecture: &'a Architecture,
    place: Place,
    parameters: Vec<Parameter>,
}

const COLUMN: Sharing = Sharing::Split { dim: 0, blocks: 1 };
const ROW: Sharing = Sharing::Split { dim: 1, blocks: 1 };

impl Table<'_> {
    fn embedding(&mut self) {
        let model = self.architecture;
        self.vocabulary(WORD_EMBEDDINGS);
        if model.position_embedding_type == PositionEmbedding::LearnedAbsolute {
            let shape = [model.max_position_embeddings, model.hidden_size];
            self.weight(POSITION_EMBEDDINGS, shape, Sharing::Replicated, model.init_method_std);
        }
    }

    fn layer(&mut self, prefix: &str) {
        let model = self.architecture;
        let (hidden, std) = (model.hidden_size, model.init_method_std);
        let depth = (2.0 * model.num_layers as f64).sqrt();
        let residual_std = if model.use_scaled_init_method { std / depth } else { std };
        let query = model.num_attention_heads * model.kv_channels;
        let query_key_value = query + 2 * model.num_query_groups * model.kv_channels;
        let halves = if model.activation.is_gated() { 2 } else { 1 };
        let up = Sharing::Split { dim: 0, blocks: halves };
        let ffn = model.ffn_hidden_size;

        self.norm(&format!("{prefix}.input_layernorm"));
        let name = format!("{prefix}.self_attention.query_key_value");
        self.linear(&name, [query_key_value, hidden], COLUMN, std);
        let name = format!("{prefix}.self_attention.dense");
        self.linear(&name, [hidden, query], ROW, residual_std);
        self.norm(&format!("{prefix}.post_attention_layernorm"));
        self.linear(&format!("{prefix}.mlp.dense_h_to_4h"), [halves * ffn, hidden], up, std);
        self.linear(&format!("{prefix}.mlp.dense_4h_to_h"), [hidden, ffn], ROW, residual_std);
    }

    fn head(&mut self) {
        self.norm(FINAL_LAYERNORM);
        if !self.architecture.share_embeddings_and_output_weights {
            self.vocabulary(OUTPUT_LAYER);
        }
    }

    fn vocabulary(&mut self, name: &str) {
        let model = self.architecture;
        let start = Start::Normal { std: model.init_method_std, rows: model.vocab_size };
        let shape = vec![model.padded_vocab_size, model.hidden_size];
        self.push(name, shape, COLUMN, (Role::Weight, start));
    }

    fn linear(&mut self, prefix: &str, shape: [usize; 2], sharing: Sharing, std: f64) {
        self.weight(&format!("{prefix}.weight"), shape, sharing, std);
        if self.architecture.bias {
            // The bias of a row-parallel layer is added once, after the sum over the ranks.
            let sharing = if sharing == ROW { Sharing::Replicated } else { sharing };
            let name = format!("{prefix}.bias");
            self.push(&name, vec![shape[0]], sharing, (Role::Bias, Start::Zeros));
        }
    }

    fn norm(&mut self, prefix: &str) {
        let start = match self.architecture.normalization {
            Normalization::Layernorm1p => Start::Zeros,
            Normalization::Layernorm | Normalization::Rmsnorm => Start::Ones,
        };
        let shape = vec![self.architecture.hidden_size];
        let name = format!("{prefix}.weight");
        self.push(&name, shape.clone(), Sharing::Replicated, (Role::NormWeight, start));
        if self.architecture.normalization != Normalization::Rmsnorm {
            let name = format!("{prefix}.bias");
            self.push(&name, shape, Sharing::Replicated, (Role::Bias, Start::Zeros));
        }
    }

    fn weight(&mut self, name: &str, shape: [usize; 2], sharing: Sharing, std: f64) {
        let start = Start::Normal { std, rows: shape[0] };
        self.push(name, shape.to_vec(), sharing, (Role::Weight, start));
    }

    fn push(&mut self, name: &str, shape: Vec<usize>, sharing: Sharing, role: (Role, Start)) {
        let (place, (role, start)) = (self.place, role);
        self.parameters.push(Parameter {
            name: name.to_owned(),
            shape,
            place,
            sharing,
            role,
            start,
        });
    }
}

/// LLaMA 2 7B: a shape for tests.
#[cfg(test)]
pub(crate) fn llama_7b() -> Architecture {
    use crate::spec::architecture::Activation;
    Architecture {
        num_layers: 32,
        hidden_size: 4096,
        ffn_hidden_size: 11008,
        num_attention_heads: 32,
        num_query_groups: 32,
        kv_channels: 128,
        vocab_size: 32000,
        padded_vocab_size: 32000,
        max_position_embeddings: 2048,
        position_embedding_type: PositionEmbedding::Rope,
        rotary_percentage: 1.0,
        rotary_base: 10000.0,
        seq_len_interpolation_factor: None,
        normalization: Normalization::Rmsnorm,
        layernorm_epsilon: 1e-6,
        activation: Activation::Swiglu,
        bias: false,
        share_embeddings_and_output_weights: false,
        use_parallel_residual: false,
        hidden_dropout: 0.0,
        attention_dropout: 0.0,
        ffn_dropout: 0.0,
        init_method_std: 0.02,
        use_scaled_init_method: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::architecture::Activation;

    #[test]
    fn llama_7b_has_its_published_number_of_parameters() {
        assert_eq!(element_count(&llama_7b()), 6_738_415_616);
    }

    #[test]
    fn gpt2_small_has_its_published_number_of_parameters() {
        let gpt2 = Architecture {
            num_layers: 12,
            hidden_size: 768,
            ffn_hidden_size: 3072,
            num_attention_heads: 12,
            num_query_groups: 12,
            kv_channels: 64,
            vocab_size: 50257,
            padded_vocab_size: 50257,
            max_position_embeddings: 1024,
            position_embedding_type: PositionEmbedding::LearnedAbsolute,
            normalization: Normalization::Layernorm,
            activation: Activation::Gelu,
            bias: true,
            share_embeddings_and_output_weights: true,
            ..llama_7b()
        };
        assert_eq!(element_count(&gpt2), 124_439_808);
    }

    #[test]
    fn layers_that_write_to_the_residual_stream_start_smaller() {
        let table = table(&llama_7b());
        let check = |name: &str, std: f64| {
            let found = table.iter().find(|parameter| parameter.name == name).unwrap();
            assert_eq!(found.start, Start::Normal { std, rows: found.shape[0] });
        };
        check("encoder.layers.0.mlp.dense_h_to_4h.weight", 0.02);
        check("encoder.layers.31.mlp.dense_4h_to_h.weight", 0.02 / 8.0);
        check("encoder.layers.31.self_attention.dense.weight", 0.02 / 8.0);
    }

    #[test]
    fn only_matrices_decay_unless_norms_are_asked_for() {
        let gpt =
            Architecture { bias: true, normalization: Normalization::Layernorm1p, ..llama_7b() };
        for parameter in table(&gpt) {
            let matrix = parameter.shape.len() == 2;
            let weight = parameter.name.ends_with("weight");
            assert_eq!(parameter.role.decays(false), matrix, "{}", parameter.name);
            assert_eq!(parameter.role.decays(true), weight, "{}", parameter.name);
        }
    }
}

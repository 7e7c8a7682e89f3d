//! Names and layouts of the tensors of GPT-2, LLaMA and GPT-NeoX in Hugging Face's checkpoints.

use super::config::Family;
use crate::checkpoint::foreign::form::{Form, Heads, Own, Role};
use crate::layout::parameters::{
    FINAL_LAYERNORM, OUTPUT_LAYER, POSITION_EMBEDDINGS, WORD_EMBEDDINGS,
};
use crate::spec::architecture::{Architecture, Normalization};

/// The tensors of a model of this family.
pub fn form(family: Family, model: &Architecture) -> Form {
    let mut sheet = Sheet { form: Form::default(), model };
    match family {
        Family::Gpt2 => sheet.gpt2(),
        Family::Llama => sheet.llama(),
        Family::GptNeox => sheet.gpt_neox(),
    }
    sheet.form
}

/// Whether a tensor of the file holds no weight: masks and angles that some versions saved.
pub fn is_no_weight(name: &str) -> bool {
    let endings = [
        ".attn.bias",
        ".attn.masked_bias",
        ".attention.bias",
        ".attention.masked_bias",
        ".rotary_emb.inv_freq",
    ];
    endings.iter().any(|ending| name.ends_with(ending))
}

struct Sheet<'a> {
    form: Form,
    model: &'a Architecture,
}

impl Sheet<'_> {
    fn gpt2(&mut self) {
        let (hidden, ffn) = (self.model.hidden_size, self.model.ffn_hidden_size);
        let positions = [self.model.max_position_embeddings, hidden];
        self.vocabulary("transformer.wte.weight", WORD_EMBEDDINGS);
        self.form.equal("transformer.wpe.weight", &positions, POSITION_EMBEDDINGS);
        for layer in 0..self.model.num_layers {
            let (theirs, ours) = layer_names(format!("transformer.h.{layer}"), layer);
            self.norm(&theirs("ln_1"), &ours("input_layernorm"));
            self.gpt2_query_key_value(&theirs("attn.c_attn"), &ours(QUERY_KEY_VALUE));
            self.conv1d(&theirs("attn.c_proj"), &ours("self_attention.dense"), [hidden, hidden]);
            self.norm(&theirs("ln_2"), &ours("post_attention_layernorm"));
            self.conv1d(&theirs("mlp.c_fc"), &ours("mlp.dense_h_to_4h"), [hidden, ffn]);
            self.conv1d(&theirs("mlp.c_proj"), &ours("mlp.dense_4h_to_h"), [ffn, hidden]);
        }
        self.norm("transformer.ln_f", FINAL_LAYERNORM);
        self.head("lm_head.weight");
    }

    fn llama(&mut self) {
        let model = self.model;
        let (hidden, ffn) = (model.hidden_size, model.ffn_hidden_size);
        let query = model.num_attention_heads * model.kv_channels;
        self.vocabulary("model.embed_tokens.weight", WORD_EMBEDDINGS);
        for layer in 0..model.num_layers {
            let (theirs, ours) = layer_names(format!("model.layers.{layer}"), layer);
            self.norm(&theirs("input_layernorm"), &ours("input_layernorm"));
            for (role, name) in Role::ALL.into_iter().zip(["q_proj", "k_proj", "v_proj"]) {
                let name = theirs(&format!("self_attn.{name}"));
                self.one_role(&name, &ours(QUERY_KEY_VALUE), role);
            }
            let dense = ours("self_attention.dense");
            self.linear(&theirs("self_attn.o_proj"), dense.as_str().into(), [hidden, query]);
            self.norm(&theirs("post_attention_layernorm"), &ours("post_attention_layernorm"));
            for (half, name) in ["mlp.gate_proj", "mlp.up_proj"].into_iter().enumerate() {
                let up = ours("mlp.dense_h_to_4h");
                let own = Own { name: &up, row: half * ffn, column: 0 };
                self.linear(&theirs(name), own, [ffn, hidden]);
            }
            let down = ours("mlp.dense_4h_to_h");
            self.linear(&theirs("mlp.down_proj"), down.as_str().into(), [hidden, ffn]);
        }
        self.norm("model.norm", FINAL_LAYERNORM);
        self.head("lm_head.weight");
    }

    fn gpt_neox(&mut self) {
        let model = self.model;
        let (hidden, ffn) = (model.hidden_size, model.ffn_hidden_size);
        let rows = Heads::of(model).group_rows() * model.num_query_groups;
        self.vocabulary("gpt_neox.embed_in.weight", WORD_EMBEDDINGS);
        for layer in 0..model.num_layers {
            let (theirs, ours) = layer_names(format!("gpt_neox.layers.{layer}"), layer);
            self.norm(&theirs("input_layernorm"), &ours("input_layernorm"));
            self.norm(&theirs("post_attention_layernorm"), &ours("post_attention_layernorm"));
            let pairs = [
                // Rows per head are query, key, value, as ours are.
                ("attention.query_key_value", QUERY_KEY_VALUE, [rows, hidden]),
                ("attention.dense", "self_attention.dense", [hidden, hidden]),
                ("mlp.dense_h_to_4h", "mlp.dense_h_to_4h", [ffn, hidden]),
                ("mlp.dense_4h_to_h", "mlp.dense_4h_to_h", [hidden, ffn]),
            ];
            for (name, own, shape) in pairs {
                self.linear(&theirs(name), ours(own).as_str().into(), shape);
            }
        }
        self.norm("gpt_neox.final_layer_norm", FINAL_LAYERNORM);
        self.head("embed_out.weight");
    }

    fn vocabulary(&mut self, name: &str, own: &str) {
        self.form.equal(name, &[self.model.vocab_size, self.model.hidden_size], own);
    }

    fn head(&mut self, name: &str) {
        if !self.model.share_embeddings_and_output_weights {
            self.vocabulary(name, OUTPUT_LAYER);
        }
    }

    fn norm(&mut self, name: &str, own: &str) {
        let shape = [self.model.hidden_size];
        self.form.equal(&format!("{name}.weight"), &shape, format!("{own}.weight").as_str());
        if self.model.normalization != Normalization::Rmsnorm {
            self.form.equal(&format!("{name}.bias"), &shape, format!("{own}.bias").as_str());
        }
    }

    /// `[output, input]` as ours is.
    fn linear(&mut self, name: &str, own: Own<'_>, shape: [usize; 2]) {
        let weight = format!("{}.weight", own.name);
        self.form.equal(&format!("{name}.weight"), &shape, Own { name: &weight, ..own });
        if self.model.bias {
            let bias = format!("{}.bias", own.name);
            self.form.equal(&format!("{name}.bias"), &shape[..1], Own { name: &bias, ..own });
        }
    }

    /// `[input, output]`: GPT-2's `Conv1D`.
    fn conv1d(&mut self, name: &str, own: &str, shape: [usize; 2]) {
        let weight = format!("{name}.weight");
        self.form.tensor(&weight, &shape);
        self.form.transposed((&weight, 0, 0), format!("{own}.weight").as_str(), shape);
        let own = format!("{own}.bias");
        self.form.equal(&format!("{name}.bias"), &shape[1..], own.as_str());
    }

    /// Columns are all queries, then all keys, then all values.
    fn gpt2_query_key_value(&mut self, name: &str, own: &str) {
        let heads = Heads::of(self.model);
        let hidden = self.model.hidden_size;
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let (own_weight, own_bias) = (format!("{own}.weight"), format!("{own}.bias"));
        self.form.tensor(&weight, &[hidden, 3 * hidden]);
        self.form.tensor(&bias, &[3 * hidden]);
        for head in 0..heads.groups {
            for (part, role) in Role::ALL.into_iter().enumerate() {
                let at = part * hidden + head * heads.width;
                let row = heads.start(head, role);
                let ours = Own { name: &own_weight, row, column: 0 };
                self.form.transposed((&weight, 0, at), ours, [hidden, heads.width]);
                let ours = Own { name: &own_bias, row, column: 0 };
                self.form.block((&bias, at, 0), ours, [heads.width, 1]);
            }
        }
    }

    /// The rows of one role, group after group.
    fn one_role(&mut self, name: &str, own: &str, role: Role) {
        let heads = Heads::of(self.model);
        let (rows, hidden) = (heads.rows(role), self.model.hidden_size);
        let biases = self.model.bias.then_some(("bias", 1));
        for (kind, width) in [("weight", hidden)].into_iter().chain(biases) {
            let (name, own) = (format!("{name}.{kind}"), format!("{own}.{kind}"));
            let shape = [heads.groups * rows, width];
            self.form.tensor(&name, if kind == "bias" { &shape[..1] } else { &shape });
            for group in 0..heads.groups {
                let ours = Own { name: &own, row: heads.start(group, role), column: 0 };
                self.form.block((&name, group * rows, 0), ours, [rows, width]);
            }
        }
    }
}

const QUERY_KEY_VALUE: &str = "self_attention.query_key_value";

/// Names inside a layer, theirs and ours.
fn layer_names(prefix: String, layer: usize) -> (impl Fn(&str) -> String, impl Fn(&str) -> String) {
    let theirs = move |name: &str| format!("{prefix}.{name}");
    (theirs, move |name: &str| format!("encoder.layers.{layer}.{name}"))
}

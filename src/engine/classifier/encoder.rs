//! The encoder of BERT and its descendants: embeddings, post-norm blocks, a head over the first token.
//!
//! Source: Devlin et al. 2019, "BERT"; Sanh et al. 2019, "`DistilBERT`"; Liu et al. 2019, "`RoBERTa`";
//! the names of tensors are those of Transformers.

use super::config::{Config, Family};
use crate::checkpoint::foreign::rectangles::Rectangle;
use crate::checkpoint::foreign::stored::StoredTensors;
use crate::kernels::{activation, linear, norm};
use candle_core::{D, DType, Device, Result, Tensor};

/// A linear layer.
#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Tensor,
}

/// A layernorm.
#[derive(Debug)]
struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

/// One block.
#[derive(Debug)]
struct Block {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    output_norm: LayerNorm,
}

/// Encoder and head.
#[derive(Debug)]
pub(super) struct Encoder {
    words: Tensor,
    positions: Tensor,
    /// The first row of the table of token types, which every token has.
    kind: Option<Tensor>,
    norm: LayerNorm,
    blocks: Vec<Block>,
    /// The first layer of the head.
    pooler: Linear,
    classifier: Linear,
    heads: usize,
    first_position: usize,
    activation: activation::Kind,
    family: Family,
}

/// What tensors are called.
struct Names {
    /// Before everything but the head.
    base: &'static str,
    blocks: &'static str,
    /// Query, key, value, output, norm, up, down, norm.
    of_block: [&'static str; 8],
    pooler: &'static str,
    classifier: &'static str,
}

fn names(family: Family) -> Names {
    let bert = [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    ];
    match family {
        Family::DistilBert => Names {
            base: "distilbert",
            blocks: "distilbert.transformer.layer",
            of_block: [
                "attention.q_lin",
                "attention.k_lin",
                "attention.v_lin",
                "attention.out_lin",
                "sa_layer_norm",
                "ffn.lin1",
                "ffn.lin2",
                "output_layer_norm",
            ],
            pooler: "pre_classifier",
            classifier: "classifier",
        },
        Family::Bert => Names {
            base: "bert",
            blocks: "bert.encoder.layer",
            of_block: bert,
            pooler: "bert.pooler.dense",
            classifier: "classifier",
        },
        Family::Roberta => Names {
            base: "roberta",
            blocks: "roberta.encoder.layer",
            of_block: bert,
            pooler: "classifier.dense",
            classifier: "classifier.out_proj",
        },
    }
}

/// Tensors of a file by name.
struct Tensors<'a>(&'a StoredTensors);

impl Tensors<'_> {
    fn get(&self, name: &str) -> std::result::Result<Tensor, String> {
        let stored = self.0.get(name).ok_or_else(|| format!("it has no tensor `{name}`"))?;
        let rectangle = Rectangle::whole(&stored.shape);
        let mut values = vec![0.0; rectangle.numbers()];
        let wrong = |reason: String| format!("tensor `{name}`: {reason}");
        stored.read(&rectangle, &mut values).map_err(wrong)?;
        let tensor = Tensor::from_vec(values, stored.shape.clone(), &Device::Cpu);
        tensor.map_err(|error| wrong(error.to_string()))
    }

    fn linear(&self, name: &str) -> std::result::Result<Linear, String> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        Ok(Linear { weight: self.get(&weight)?, bias: self.get(&bias)? })
    }

    fn norm(&self, name: &str, epsilon: f64) -> std::result::Result<LayerNorm, String> {
        let Linear { weight, bias } = self.linear(name)?;
        Ok(LayerNorm { weight, bias, epsilon })
    }

    fn block(
        &self,
        prefix: &str,
        names: &Names,
        epsilon: f64,
    ) -> std::result::Result<Block, String> {
        let [query, key, value, output, attention_norm, up, down, output_norm] =
            names.of_block.map(|name| format!("{prefix}.{name}"));
        Ok(Block {
            query: self.linear(&query)?,
            key: self.linear(&key)?,
            value: self.linear(&value)?,
            output: self.linear(&output)?,
            attention_norm: self.norm(&attention_norm, epsilon)?,
            up: self.linear(&up)?,
            down: self.linear(&down)?,
            output_norm: self.norm(&output_norm, epsilon)?,
        })
    }
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear::forward(x, &self.weight, Some(&self.bias))
    }
}

impl LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let norm = norm::Norm {
            kind: norm::Kind::LayerNorm,
            epsilon: self.epsilon,
            weight: &self.weight,
            bias: Some(&self.bias),
            output: DType::F32,
        };
        Ok(norm::forward(x, &norm)?.0)
    }
}

impl Encoder {
    /// The model of `config` from its tensors; else which of them is missing or wrong.
    pub(super) fn new(
        config: &Config,
        stored: &StoredTensors,
    ) -> std::result::Result<Encoder, String> {
        let (tensors, names) = (Tensors(stored), names(config.family));
        let embedding = |part: &str| format!("{}.embeddings.{part}", names.base);
        let kinds = (config.family != Family::DistilBert)
            .then(|| tensors.get(&embedding("token_type_embeddings.weight")))
            .transpose()?;
        let first = |table: Tensor| table.narrow(0, 0, 1).map_err(|error| error.to_string());
        let block =
            |layer| tensors.block(&format!("{}.{layer}", names.blocks), &names, config.epsilon);
        let positions = tensors.get(&embedding("position_embeddings.weight"))?;
        if positions.dims()[0] != config.positions {
            return Err(format!(
                "its table of positions has {} rows, and its settings mean {}",
                positions.dims()[0],
                config.positions
            ));
        }
        let classifier = tensors.linear(names.classifier)?;
        if classifier.weight.dims()[0] != config.labels.len() {
            return Err(format!(
                "its head has {} rows for {} labels",
                classifier.weight.dims()[0],
                config.labels.len()
            ));
        }
        Ok(Encoder {
            words: tensors.get(&embedding("word_embeddings.weight"))?,
            positions,
            kind: kinds.map(first).transpose()?,
            norm: tensors.norm(&embedding("LayerNorm"), config.epsilon)?,
            blocks: (0..config.layers).map(block).collect::<std::result::Result<_, _>>()?,
            pooler: tensors.linear(names.pooler)?,
            classifier,
            heads: config.heads,
            first_position: config.first_position,
            activation: config.activation,
            family: config.family,
        })
    }

    /// The logits of one text, `[labels]`.
    pub(super) fn logits(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let ids = Tensor::from_slice(ids, ids.len(), &Device::Cpu)?;
        let words = self.words.index_select(&ids, 0)?;
        let x = (words + self.positions.narrow(0, self.first_position, ids.dim(0)?)?)?;
        let x = match &self.kind {
            Some(kind) => x.broadcast_add(kind)?,
            None => x,
        };
        let mut x = self.norm.forward(&x)?;
        for block in &self.blocks {
            x = block.forward(&x, self.heads, self.activation)?;
        }
        // The head sees the first token, which stands for the text.
        let pooled = self.pooler.forward(&x.narrow(0, 0, 1)?.contiguous()?)?;
        let pooled = match self.family {
            Family::DistilBert => pooled.relu()?,
            Family::Bert | Family::Roberta => pooled.tanh()?,
        };
        self.classifier.forward(&pooled)?.flatten_all()?.to_vec1()
    }
}

impl Block {
    /// `x` is `[tokens, width]`.
    fn forward(&self, x: &Tensor, heads: usize, kind: activation::Kind) -> Result<Tensor> {
        let attended = self.output.forward(&self.attention(x, heads)?)?;
        let x = self.attention_norm.forward(&(x + attended)?)?;
        let hidden = activation::forward(kind, &self.up.forward(&x)?, None)?;
        self.output_norm.forward(&(&x + self.down.forward(&hidden)?)?)
    }

    /// Every token attends to all of them.
    fn attention(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let head_dim = width / heads;
        let split = |layer: &Linear| {
            layer.forward(x)?.reshape((tokens, heads, head_dim))?.transpose(0, 1)?.contiguous()
        };
        let (query, key, value) = (split(&self.query)?, split(&self.key)?, split(&self.value)?);
        // [heads, tokens, tokens]
        let scores = (query.matmul(&key.transpose(1, 2)?)? / (head_dim as f64).sqrt())?;
        let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)?;
        weights.matmul(&value)?.transpose(0, 1)?.contiguous()?.reshape((tokens, width))
    }
}

//! A transformer block with its norms before its layers (pre-LN).

use super::attention::{self, Attention, Geometry};
use super::batch::Pass;
use super::mlp::{self, Mlp};
use super::norm::Norm;
use super::trunk::Reached;
use super::weights::Weights;
use crate::kernels::attention::{Cache, Continued};
use crate::kernels::dropout::{self, Dropout};
use crate::kernels::{norm, residual};
use crate::parallel::linear::RowParallel;
use crate::parallel::regions::TensorAxis;
use crate::spec::architecture::Architecture;
use candle_core::{DType, Result, Tensor};

/// `x1 = x + attention(norm(x))`, `y = x1 + mlp(norm(x1))`; with a parallel residual
/// `y = x1 + mlp(norm(x))`.
#[derive(Debug)]
pub struct Block {
    /// Number of the block in the whole model.
    pub(super) layer: usize,
    hidden_dropout: f64,
    parallel_residual: bool,
    input_norm: Norm,
    attention: Attention,
    post_attention_norm: Norm,
    mlp: Mlp,
    /// Number format of matrix products.
    products: DType,
}

/// The residual stream between two blocks: the norm that comes next adds what is not added yet.
#[derive(Clone, Debug)]
pub(super) struct Stream<'m> {
    x: Tensor,
    update: Option<Update<'m>>,
}

/// What a block's MLP gave, before its bias and dropout.
#[derive(Clone, Debug)]
struct Update<'m> {
    value: Tensor,
    by: &'m Block,
}

impl Stream<'_> {
    /// A stream to which everything is added.
    pub(super) fn whole(x: Tensor) -> Stream<'static> {
        Stream { x, update: None }
    }

    /// The stream with everything added.
    pub(super) fn settled(self, pass: &Pass<'_>) -> Result<Tensor> {
        match self.update {
            Some(Update { value, by }) => by.add(&value, &by.mlp.down, &self.x, (MLP_OUTPUT, pass)),
            None => Ok(self.x),
        }
    }
}

/// Where dropout of what the MLP adds to the stream is addressed.
const MLP_OUTPUT: &str = "mlp_output";
/// The same of attention.
const ATTENTION_OUTPUT: &str = "attention_output";

/// The blocks beside one in its chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbours<'m> {
    /// The block before it, if there is one.
    pub(super) before: Option<&'m Block>,
    /// Whether no block comes after it.
    pub(super) is_last: bool,
}

/// What its backward needs.
#[derive(Debug)]
pub struct Saved {
    input_norm: norm::Saved,
    attention: attention::Saved,
    post_attention_norm: norm::Saved,
    mlp: mlp::Saved,
}

impl Saved {
    /// Everything held.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let norms = self.input_norm.tensors().into_iter().chain(self.post_attention_norm.tensors());
        norms.chain(self.attention.tensors()).chain(self.mlp.tensors())
    }
}

impl Block {
    pub(super) fn new(
        (model, geometry): (&Architecture, &Geometry),
        axis: &TensorAxis,
        weights: &Weights,
        layer: usize,
    ) -> Result<Block> {
        let norm = |name: &str| {
            Norm::new(model, weights, &format!("encoder.layers.{layer}.{name}_layernorm"))
        };
        Ok(Block {
            layer,
            hidden_dropout: model.hidden_dropout,
            parallel_residual: model.use_parallel_residual,
            input_norm: norm("input")?,
            attention: Attention::new(geometry, axis, weights, layer)?,
            post_attention_norm: norm("post_attention")?,
            mlp: Mlp::new(model, axis, weights, layer)?,
            products: weights.formats().products,
        })
    }

    /// Stream to stream; `keeps_core` says whether the backward finds
    /// attention's core or computes it again.
    pub(super) fn forward<'m>(
        &'m self,
        stream: Stream<'_>,
        pass: &Pass<'_>,
        keeps_core: bool,
    ) -> Result<(Stream<'m>, Saved)> {
        let (normalized, input_norm) = self.begun(stream, pass)?;
        let (update, attention) = self.attention.forward(&normalized, pass, keeps_core)?;
        let (x1, normalized, post_attention_norm) =
            self.between(&update, input_norm.input(), pass)?;
        let (value, mlp) = self.mlp.forward(&normalized, pass)?;
        let stream = Stream { x: x1, update: Some(Update { value, by: self }) };
        Ok((stream, Saved { input_norm, attention, post_attention_norm, mlp }))
    }

    /// The gradient of the stream that came in; adds those of the parameters.
    ///
    /// Without dropout, the gradient of what the block before added to the stream is the stream's
    /// gradient. The kernel that makes it, the backward of this block's first norm, then adds up the
    /// gradient of that block's last bias too, so that no other kernel has to read it again; the same
    /// holds inside the block for attention's last bias and the second norm.
    ///
    /// While tensor ranks add up the gradient of a layer's input, gradients of weights that have all
    /// they need are computed: that of the MLP's second weight, then those of attention's last and the
    /// MLP's first. The latter comes so late since its input is made again only by the norm's backward,
    /// after the MLP's own sum.
    pub(super) fn backward(
        &self,
        saved: &Saved,
        dy: &Tensor,
        neighbours: Neighbours<'_>,
        (pass, reached): (&Pass<'_>, &mut Reached<'_>),
    ) -> Result<Tensor> {
        let update = self.masked(dy, MLP_OUTPUT, pass)?;
        if neighbours.is_last || self.drops(pass) {
            self.mlp.down.backward_bias(&update)?;
        }
        let (d_normalized, d_inner) = self.mlp.backward(&saved.mlp, pass, &update)?;
        // With the MLP's part; the attention's output is in it only when the MLP reads that.
        let apart = self.parallel_residual || self.drops(pass);
        let dense = &self.attention.dense;
        let sum = if apart { None } else { dense.bias_gradient()? };
        let (through, normalized) = self.post_attention_norm.backward_with_output(
            &saved.post_attention_norm,
            &d_normalized.wait()?,
            Some(dy),
            sum,
        )?;
        let mlp_input = self.mlp.up.gathered(&normalized, pass.tokens())?;
        drop(normalized);
        let into_attention = if self.parallel_residual { dy } else { &through };
        let update = self.masked(into_attention, ATTENTION_OUTPUT, pass)?;
        if apart {
            dense.backward_bias(&update)?;
        }
        let (d_normalized, d_qkv) =
            self.attention.backward(&saved.attention, pass, &update, reached)?;
        self.mlp.up.backward_weight(&mlp_input, &d_inner)?;
        drop((mlp_input, d_inner));
        let before = neighbours.before.filter(|before| !before.drops(pass));
        let sum = before.map(|before| before.mlp.down.bias_gradient()).transpose()?.flatten();
        let (dx, normalized) = self.input_norm.backward_with_output(
            &saved.input_norm,
            &d_normalized.wait()?,
            Some(&through),
            sum,
        )?;
        let first = &self.attention.query_key_value;
        first.backward_weight(&first.gathered(&normalized, pass.tokens())?, &d_qkv)?;
        Ok(dx)
    }

    /// The forward of tokens that follow those in `cache`; nothing is saved.
    pub(super) fn continued<'m>(
        &'m self,
        stream: Stream<'_>,
        pass: &Pass<'_>,
        cache: &Cache,
        continued: &Continued<'_>,
    ) -> Result<Stream<'m>> {
        let (normalized, input_norm) = self.begun(stream, pass)?;
        let positions = pass.batch.positions;
        let update = self.attention.continued(&normalized, positions, cache, continued)?;
        let (x1, normalized, _) = self.between(&update, input_norm.input(), pass)?;
        let (value, _) = self.mlp.forward(&normalized, pass)?;
        Ok(Stream { x: x1, update: Some(Update { value, by: self }) })
    }

    /// The first norm of the stream, with what the block before adds to it.
    fn begun(&self, stream: Stream<'_>, pass: &Pass<'_>) -> Result<(Tensor, norm::Saved)> {
        let Stream { x, update } = stream;
        match update {
            Some(Update { value, by }) => {
                let (bias, dropout) = (by.mlp.down.bias(), by.dropout(MLP_OUTPUT, pass));
                self.input_norm.add_forward(&value, bias, dropout.as_ref(), &x)
            }
            None => self.input_norm.forward(&x),
        }
    }

    /// The stream with what attention adds to it, and the second norm.
    fn between(
        &self,
        update: &Tensor,
        x: &Tensor,
        pass: &Pass<'_>,
    ) -> Result<(Tensor, Tensor, norm::Saved)> {
        let dense = &self.attention.dense;
        if self.parallel_residual {
            let x1 = self.add(update, dense, x, (ATTENTION_OUTPUT, pass))?;
            let (normalized, saved) = self.post_attention_norm.forward(x)?;
            return Ok((x1, normalized, saved));
        }
        let dropout = self.dropout(ATTENTION_OUTPUT, pass);
        let (normalized, saved) =
            self.post_attention_norm.add_forward(update, dense.bias(), dropout.as_ref(), x)?;
        Ok((saved.input().clone(), normalized, saved))
    }

    /// `x + dropout(update + bias of last)`.
    fn add(
        &self,
        update: &Tensor,
        last: &RowParallel,
        x: &Tensor,
        (name, pass): (&str, &Pass<'_>),
    ) -> Result<Tensor> {
        residual::forward(update, last.bias(), self.dropout(name, pass).as_ref(), x)
    }

    /// Whether something of what it adds to the residual stream is dropped.
    fn drops(&self, pass: &Pass<'_>) -> bool {
        self.dropout(MLP_OUTPUT, pass).is_some()
    }

    /// The dropout of what is added to the residual stream at the place called `name`.
    fn dropout<'a>(&self, name: &str, pass: &'a Pass<'_>) -> Option<Dropout<'a>> {
        pass.stream_dropout(self.hidden_dropout, format_args!("layers.{}/{name}", self.layer))
    }

    /// The gradient of what [`Block::add`] added, bias included, in the format of matrix products.
    fn masked(&self, dy: &Tensor, name: &str, pass: &Pass<'_>) -> Result<Tensor> {
        match self.dropout(name, pass) {
            Some(dropout) => dropout::apply(dy, &dropout)?.to_dtype(self.products),
            None => dy.to_dtype(self.products),
        }
    }
}

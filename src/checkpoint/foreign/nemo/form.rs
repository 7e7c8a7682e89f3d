//! How NeMo and Megatron-LM cut a model among ranks.

use crate::checkpoint::foreign::form::{Form, Heads, Own, Role};
use crate::layout::parameters::{Parameter, Place, Sharing, is_vocabulary, table};
use crate::spec::architecture::Architecture;

/// How a checkpoint is cut, and the orders that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Tensor-parallel ranks.
    pub tensor: usize,
    /// Pipeline stages.
    pub pipeline: usize,
    /// Rows of `query_key_value` are all queries, all keys, all values of the rank (NeMo's
    /// `megatron_legacy`, Megatron-LM's checkpoint version 0).
    pub legacy_order: bool,
    /// A gated layer's ups are a tensor of their own, `dense_h_to_4h_2`.
    pub separate_gate: bool,
}

/// The key of a tensor of a rank: ranks' tensors stand beside each other in one form.
pub fn key(tensor: usize, pipeline: usize, name: &str) -> String {
    format!("{tensor}.{pipeline}/{name}")
}

/// The tensors of all ranks, by [`key`]; names are ours with layers counted within the stage.
pub fn form(model: &Architecture, cut: &Cut) -> Result<Form, String> {
    let divided = [
        ("layers", model.num_layers, cut.pipeline),
        ("heads", model.num_attention_heads, cut.tensor),
        ("key and value heads", model.num_query_groups, cut.tensor),
        ("channels of the MLP", model.ffn_hidden_size, cut.tensor),
        ("rows of the vocabulary", model.padded_vocab_size, cut.tensor),
    ];
    for (what, size, ranks) in divided {
        if ranks == 0 || !size.is_multiple_of(ranks) {
            return Err(format!("its {size} {what} do not divide among {ranks} ranks"));
        }
    }
    let mut form = Form::default();
    for parameter in table(model) {
        let (stage, name) = local(&parameter, model.num_layers / cut.pipeline, cut.pipeline);
        for rank in 0..cut.tensor {
            let one = Share { model, cut, parameter: &parameter, rank };
            one.add(&mut form, &key(rank, stage, &name));
        }
    }
    Ok(form)
}

/// The pipeline stage of a parameter and its name there.
fn local(parameter: &Parameter, layers: usize, stages: usize) -> (usize, String) {
    match parameter.place {
        Place::Embedding => (0, parameter.name.clone()),
        Place::Head => (stages - 1, parameter.name.clone()),
        Place::Layer(layer) => {
            let (theirs, ours) =
                (format!("layers.{}.", layer % layers), format!("layers.{layer}."));
            (layer / layers, parameter.name.replacen(&ours, &theirs, 1))
        }
    }
}

/// One rank's share of one parameter.
struct Share<'a> {
    model: &'a Architecture,
    cut: &'a Cut,
    parameter: &'a Parameter,
    rank: usize,
}

impl Share<'_> {
    fn add(&self, form: &mut Form, key: &str) {
        let (cut, own) = (self.cut, self.parameter.name.as_str());
        let width: usize = self.parameter.shape[1..].iter().product();
        let rows = self.parameter.shape[0];
        match self.parameter.sharing {
            Sharing::Replicated => form.equal(key, &self.parameter.shape, own),
            _ if is_vocabulary(own) => {
                let piece = rows / cut.tensor;
                form.tensor(key, &[piece, width]);
                // The last ranks may have padding only.
                let start = (self.rank * piece).min(self.model.vocab_size);
                let real = (self.model.vocab_size - start).min(piece);
                if real > 0 {
                    form.block(
                        (key, 0, 0),
                        Own { name: own, row: start, column: 0 },
                        [real, width],
                    );
                }
            }
            Sharing::Split { dim: 0, .. }
                if own.contains("query_key_value") && cut.legacy_order =>
            {
                self.legacy_query_key_value(form, key);
            }
            Sharing::Split { dim: 0, blocks } => {
                let piece = rows / blocks / cut.tensor;
                let separate = blocks == 2 && cut.separate_gate;
                let shape = |height: usize| {
                    let whole = [height, width];
                    whole[..self.parameter.shape.len()].to_vec()
                };
                if !separate {
                    form.tensor(key, &shape(blocks * piece));
                }
                for block in 0..blocks {
                    let row = block * rows / blocks + self.rank * piece;
                    let ours = Own { name: own, row, column: 0 };
                    if separate {
                        let mark = ["dense_h_to_4h.", "dense_h_to_4h_2."][block.min(1)];
                        form.equal(&key.replace("dense_h_to_4h.", mark), &shape(piece), ours);
                    } else {
                        form.block((key, block * piece, 0), ours, [piece, width]);
                    }
                }
            }
            Sharing::Split { .. } => {
                let piece = width / cut.tensor;
                let ours = Own { name: own, row: 0, column: self.rank * piece };
                form.equal(key, &[rows, piece], ours);
            }
        }
    }

    fn legacy_query_key_value(&self, form: &mut Form, key: &str) {
        let heads = Heads::of(self.model);
        let groups = heads.groups / self.cut.tensor;
        let width: usize = self.parameter.shape[1..].iter().product();
        let whole = [groups * heads.group_rows(), width];
        form.tensor(key, &whole[..self.parameter.shape.len()]);
        let mut at = 0;
        for role in Role::ALL {
            for group in self.rank * groups..(self.rank + 1) * groups {
                let row = heads.start(group, role);
                let ours = Own { name: &self.parameter.name, row, column: 0 };
                form.block((key, at, 0), ours, [heads.rows(role), width]);
                at += heads.rows(role);
            }
        }
    }
}

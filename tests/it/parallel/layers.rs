//! Split layers in f64: each operation's backward is its adjoint, and the gradients of all parameters
//! of a model on several ranks are those of one rank.

use super::degrees;
use candle_core::{DType, Device, Error, Result, Tensor};
use sft_run::base::seed::Stream;
use sft_run::engine::gradient_reduction::GradientReduction;
use sft_run::layout::holding::Holding;
use sft_run::layout::parameters::element_count;
use sft_run::model::Model;
use sft_run::model::batch::{Batch, Noise, Targets};
use sft_run::model::formats::Formats;
use sft_run::model::weights::{Weights, start_values};
use sft_run::parallel::ranks::run;
use sft_run::parallel::regions::TensorAxis;
use sft_run::spec::architecture::{Activation, Architecture, Normalization, PositionEmbedding};
use sft_run::spec::optimization::Degrees;

fn random(name: &str, shape: (usize, usize)) -> Tensor {
    let stream = Stream::new(8, name);
    let values: Vec<f64> = (0..shape.0 * shape.1).map(|at| stream.normal(at as u64)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    (a * b)?.sum_all()?.to_scalar()
}

/// Over all ranks, ⟨summed(part), stream⟩ = ⟨part, whole(stream)⟩: each is the other's backward.
///
/// A stream that all ranks hold whole counts once.
#[test]
fn the_ways_into_and_out_of_split_layers_are_adjoint() {
    for sequence in [false, true] {
        // 7 tokens on 4 ranks: rows are padded.
        let layout = Degrees { sequence, ..degrees(1, 1, 4) };
        let sides = run(&layout, |mesh| {
            let (axis, rank) = (TensorAxis::of(&mesh), mesh.rank);
            let part = random(&format!("part {rank}"), (7, 3));
            let all = random("stream", (7, 3));
            let stream = axis.scattered(&all)?;
            assert_eq!(stream.dim(0)?, axis.stream_rows(7));
            let left = dot(&axis.reduced(&part)?, &stream)?;
            let right = dot(&part, &axis.gathered(&stream, 7)?)?;
            let left = if sequence || rank == 0 { left } else { 0.0 };
            Ok::<_, Error>([left, right])
        })
        .unwrap();
        let [left, right] =
            sides.iter().fold([0.0, 0.0], |sum, side| [sum[0] + side[0], sum[1] + side[1]]);
        assert!((left - right).abs() < 1e-12 * left.abs(), "{left} and {right}");
    }
}

fn architecture(tied: bool, activation: Activation) -> Architecture {
    Architecture {
        num_layers: 2,
        hidden_size: 12,
        ffn_hidden_size: 20,
        num_attention_heads: 8,
        num_query_groups: 4,
        kv_channels: 4,
        vocab_size: 29,
        padded_vocab_size: 32,
        max_position_embeddings: 16,
        position_embedding_type: if tied {
            PositionEmbedding::LearnedAbsolute
        } else {
            PositionEmbedding::Rope
        },
        rotary_percentage: 1.0,
        rotary_base: 10000.0,
        seq_len_interpolation_factor: None,
        normalization: if tied { Normalization::Layernorm1p } else { Normalization::Rmsnorm },
        layernorm_epsilon: 1e-5,
        activation,
        bias: true,
        share_embeddings_and_output_weights: tied,
        use_parallel_residual: false,
        hidden_dropout: 0.2,
        attention_dropout: 0.1,
        ffn_dropout: 0.3,
        init_method_std: 0.2,
        use_scaled_init_method: true,
    }
}

/// Loss and the gradients of the whole model, computed on these ranks.
fn gradients(architecture: &Architecture, layout: &Degrees) -> (f64, Vec<f64>) {
    let shake = Stream::new(4, "shake");
    let start: Vec<f64> = start_values(architecture, 3);
    let start: Vec<f64> =
        start.iter().enumerate().map(|(at, value)| value + 0.1 * shake.normal(at as u64)).collect();
    let tokens: Vec<u32> = (0..11).map(|at| at * 5 % 29).collect();
    let positions = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5];
    let addresses: Vec<u64> = (100..111).collect();
    let ranks = run(layout, |mesh| {
        let holding = Holding::of(architecture, layout, mesh.at);
        let values = Tensor::from_vec(holding.cut(&start), holding.length(), &Device::Cpu)?;
        let formats = Formats::uniform(DType::F64);
        let weights = Weights::held(holding.clone(), &values, formats, &Device::Cpu)?;
        let model = Model::of_rank(architecture, weights, &mesh)?;
        let batch = Batch {
            tokens: &tokens,
            positions: &positions,
            starts: &[0, 5, 11],
            addresses: &addresses,
        };
        let targets = Targets::new(&[1, 3, 4, 8, 10], &[7, 28, 0, 3, 16]);
        let loss = model.learn(&batch, &targets, Noise { seed: 1, step: 5 })?;
        let mut reduction = GradientReduction::new(&mesh, model.weights(), false);
        reduction.begin_rest(model.weights())?;
        reduction.land(&(0..holding.length()))?;
        Ok::<_, Error>((loss, holding, model.weights().gradients().to_vec1::<f64>()?))
    })
    .unwrap();
    let mut whole = vec![f64::NAN; element_count(architecture)];
    let loss = ranks[0].0;
    for (rank, (own, holding, gradients)) in ranks.iter().enumerate() {
        assert!((own - loss).abs() < 1e-12 * loss, "rank {rank} sees another loss");
        let everything = 0..holding.length();
        let all = [everything];
        // What several ranks hold must be the same on all of them.
        let mut before = whole.clone();
        holding.put(&all, gradients, &mut whole);
        before.iter_mut().zip(&whole).for_each(|(before, now)| {
            assert!(before.is_nan() || (*before - now).abs() < 1e-9, "{before} and {now}");
        });
    }
    (loss, whole)
}

#[test]
fn the_gradients_of_a_split_model_are_those_of_one_rank() {
    for (tied, activation) in [(false, Activation::Swiglu), (true, Activation::Gelu)] {
        let architecture = architecture(tied, activation);
        let (loss, expected) = gradients(&architecture, &Degrees::SINGLE);
        for (tensor, sequence) in [(2, false), (4, false), (2, true), (4, true)] {
            let layout = Degrees { sequence, ..degrees(1, 1, tensor) };
            let (found_loss, found) = gradients(&architecture, &layout);
            assert!((found_loss - loss).abs() < 1e-12 * loss);
            let most = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(most < 1e-9, "{layout:?}: gradients differ by {most}");
        }
    }
}

//! The recipe's `model` section: the keys of NeMo's `megatron_gpt_config.yaml`, unchanged.

use super::choice::{
    ActivationName, BlockType, Granularity, NormalizationName, PositionEmbeddingName,
    PrecisionName, RecomputeMethod,
};
use super::data::Data;
use super::optim::Optim;
use super::peft::Peft;
use super::tokenizer::Tokenizer;
use schemars::JsonSchema;
use serde::Deserialize;

/// Batches, parallel layout, architecture, numbers, data, optimizer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Sequences of one forward pass.
    #[schemars(range(min = 1))]
    pub micro_batch_size: Option<usize>,
    /// Sequences of one optimizer step, over all replicas.
    #[schemars(range(min = 1))]
    pub global_batch_size: Option<usize>,
    /// `[start, increment, samples]` of a growing batch.
    pub rampup_batch_size: Option<Vec<u64>>,
    /// Ranks that split each layer. Default: 1.
    #[schemars(range(min = 1))]
    pub tensor_model_parallel_size: Option<usize>,
    /// Pipeline stages. Default: 1.
    #[schemars(range(min = 1))]
    pub pipeline_model_parallel_size: Option<usize>,
    /// Model chunks of each pipeline stage (interleaved schedule).
    #[schemars(range(min = 1))]
    pub virtual_pipeline_model_parallel_size: Option<usize>,
    /// Ranks that share the experts.
    #[schemars(range(min = 1))]
    pub expert_model_parallel_size: Option<usize>,
    /// Ranks that split each sequence.
    #[schemars(range(min = 1))]
    pub context_parallel_size: Option<usize>,
    /// Split norms and dropout over the tensor ranks by sequence.
    pub sequence_parallel: Option<bool>,
    /// Checkpoint that training starts from.
    pub restore_from_path: Option<String>,
    /// Checkpoint that training continues from, with its optimizer's state and its place in the
    /// data: one of this program's, at any layout.
    pub resume_from_checkpoint: Option<String>,
    /// Transformer blocks that learn, the last ones; those below are frozen. -1 for all.
    #[schemars(range(min = -1))]
    pub num_layers_unfrozen: Option<i64>,
    /// Parameters that are frozen, by name; `*` stands for any text (`embedding.*`).
    pub frozen: Option<Vec<String>>,
    /// Write a `.nemo` file after each validation.
    pub save_nemo_on_validation_end: Option<bool>,
    /// Use megatron-core's model.
    pub mcore_gpt: Option<bool>,
    /// NeMo's class of the model.
    pub target: Option<String>,
    /// NeMo's version that wrote the file.
    pub nemo_version: Option<String>,
    /// Seed of start values, data order and dropout. Default: 1234.
    pub seed: Option<u64>,

    /// Tokens per sequence.
    #[schemars(range(min = 1))]
    pub encoder_seq_length: Option<usize>,
    /// Longest sequence that learned positions can number. Default: `encoder_seq_length`.
    #[schemars(range(min = 1))]
    pub max_position_embeddings: Option<usize>,
    /// Transformer blocks.
    #[schemars(range(min = 1))]
    pub num_layers: Option<usize>,
    /// Width of the residual stream.
    #[schemars(range(min = 1))]
    pub hidden_size: Option<usize>,
    /// Width of the MLP's inner layer. Default: 4 × `hidden_size`.
    #[schemars(range(min = 1))]
    pub ffn_hidden_size: Option<usize>,
    /// Query heads.
    #[schemars(range(min = 1))]
    pub num_attention_heads: Option<usize>,
    /// Key and value heads. Default: `num_attention_heads`.
    #[schemars(range(min = 1))]
    pub num_query_groups: Option<usize>,
    /// Width of a head. Default: `hidden_size / num_attention_heads`.
    #[schemars(range(min = 1))]
    pub kv_channels: Option<usize>,
    /// Standard deviation of the start values. Default: 0.02.
    #[schemars(range(min = 0))]
    pub init_method_std: Option<f64>,
    /// Smaller start values for layers that write to the residual stream. Default: true.
    pub use_scaled_init_method: Option<bool>,
    /// Dropout after the embedding and each sub-layer. Default: 0.1.
    #[schemars(range(min = 0, max = 1))]
    pub hidden_dropout: Option<f64>,
    /// Dropout of the attention probabilities. Default: 0.1.
    #[schemars(range(min = 0, max = 1))]
    pub attention_dropout: Option<f64>,
    /// Dropout inside the MLP. Default: 0.
    #[schemars(range(min = 0, max = 1))]
    pub ffn_dropout: Option<f64>,
    /// Scale scores by the layer's number and back, against fp16 overflow.
    pub apply_query_key_layer_scaling: Option<bool>,
    /// Divide attention scores by the root of the head width. Default: true.
    pub normalize_attention_scores: Option<bool>,
    /// Normalization. Default: layernorm.
    pub normalization: Option<NormalizationName>,
    /// Added to the variance in every normalization. Default: 1e-5.
    #[schemars(range(min = 0))]
    pub layernorm_epsilon: Option<f64>,
    /// Weight decay for norms too. Default: false.
    pub do_layer_norm_weight_decay: Option<bool>,
    /// Rows of the embedding are a multiple of this times the tensor-parallel size. Default: 128.
    #[schemars(range(min = 1))]
    pub make_vocab_size_divisible_by: Option<usize>,
    /// Rows of the embedding as a converted checkpoint has them.
    pub padded_vocab_size: Option<usize>,
    /// This pipeline stage holds the embedding.
    pub pre_process: Option<bool>,
    /// This pipeline stage holds the output layer.
    pub post_process: Option<bool>,
    /// A kernel for layernorm.
    pub persist_layer_norm: Option<bool>,
    /// Biases in linear layers. Default: true.
    pub bias: Option<bool>,
    /// The MLP's activation. Default: gelu.
    pub activation: Option<ActivationName>,
    /// A learned scale per head.
    pub headscale: Option<bool>,
    /// Order of norm and sub-layers. Default: `pre_ln`.
    pub transformer_block_type: Option<BlockType>,
    /// The tanh form of GELU. Default: false.
    pub openai_gelu: Option<bool>,
    /// The exact form of GELU, for ONNX export.
    pub onnx_safe: Option<bool>,
    /// How positions enter. Default: `learned_absolute`.
    pub position_embedding_type: Option<PositionEmbeddingName>,
    /// Share of a head's channels that rotary positions turn. Default: 1.
    #[schemars(range(min = 0, max = 1))]
    pub rotary_percentage: Option<f64>,
    /// Base of the rotary angles. Default: 10000.
    #[schemars(range(min = 1))]
    pub rotary_base: Option<f64>,
    /// Rotary positions are divided by this.
    #[schemars(range(min = 1))]
    pub seq_len_interpolation_factor: Option<f64>,
    /// Kind of attention.
    pub attention_type: Option<String>,
    /// The output layer is the word embedding. Default: true.
    pub share_embeddings_and_output_weights: Option<bool>,
    /// Attention and MLP of a block both read the block's input, as in GPT-NeoX. Default: false.
    pub use_parallel_residual: Option<bool>,
    /// Extended multi-head attention.
    pub use_emha: Option<bool>,
    /// The checkpoint has all queries of a rank, then all keys, then all values. It is for folders
    /// of ranks alone: `model_config.yaml` and Megatron-LM's files say it themselves. Default: false.
    pub megatron_legacy: Option<bool>,
    /// Start the learning-rate schedule again when continuing.
    pub reset_lr: Option<bool>,
    /// Count the schedule's steps from the restart.
    pub reset_lr_steps: Option<bool>,

    /// Number format; `trainer.precision` decides.
    pub precision: Option<PrecisionName>,
    /// First loss scale of fp16. Default: 2³².
    #[schemars(range(min = 1))]
    pub native_amp_init_scale: Option<f64>,
    /// Steps without overflow before the loss scale doubles. Default: 1000.
    #[schemars(range(min = 1))]
    pub native_amp_growth_interval: Option<u64>,
    /// Overflows before the loss scale halves. Default: 2.
    #[schemars(range(min = 1))]
    pub hysteresis: Option<u64>,
    /// Keep the residual stream in fp32.
    pub fp32_residual_connection: Option<bool>,
    /// Compute the loss in fp16.
    pub fp16_lm_cross_entropy: Option<bool>,
    /// Half-precision parameters with fp32 masters. Default: false.
    #[serde(rename = "megatron_amp_O2")]
    pub megatron_amp_o2: Option<bool>,
    /// Bucket size of gradient reduction.
    pub grad_allreduce_chunk_size_mb: Option<f64>,
    /// Divide gradients inside the reduction.
    pub grad_div_ar_fusion: Option<bool>,
    /// Gradients as views of buckets.
    pub gradient_as_bucket_view: Option<bool>,
    /// Accumulate weight gradients inside the matrix product.
    pub gradient_accumulation_fusion: Option<bool>,
    /// One kernel for bias and activation; with gelu it also means the tanh form. Default: true.
    pub bias_activation_fusion: Option<bool>,
    /// One kernel for bias, dropout and addition.
    pub bias_dropout_add_fusion: Option<bool>,
    /// One kernel for mask and softmax.
    pub masked_softmax_fusion: Option<bool>,
    /// Let the fused kernel make the mask.
    pub get_attention_mask_from_fusion: Option<bool>,
    /// One kernel for rotary positions.
    pub apply_rope_fusion: Option<bool>,
    /// Flash attention.
    pub use_flash_attention: Option<bool>,
    /// Make start values on the processor.
    pub use_cpu_initialization: Option<bool>,
    /// Wait after each pipeline exchange.
    pub sync_batch_comm: Option<bool>,
    /// Group the pipeline's exchanges.
    pub batch_p2p_comm: Option<bool>,
    /// Steps between collections of Python's garbage.
    pub gc_interval: Option<u64>,
    /// Level of apex's logs.
    pub apex_transformer_log_level: Option<i64>,
    /// Use Transformer Engine.
    pub transformer_engine: Option<bool>,
    /// Compute in 8-bit floats.
    pub fp8: Option<bool>,
    /// 8-bit format E4M3.
    pub fp8_e4m3: Option<bool>,
    /// 8-bit formats E4M3 and E5M2.
    pub fp8_hybrid: Option<bool>,
    /// Margin of the 8-bit scale.
    pub fp8_margin: Option<i64>,
    /// Steps between 8-bit scales.
    pub fp8_interval: Option<u64>,
    /// Steps of history for the 8-bit scale.
    pub fp8_amax_history_len: Option<u64>,
    /// How the history gives the 8-bit scale.
    pub fp8_amax_compute_algo: Option<String>,
    /// Share 8-bit maxima over the tensor ranks.
    pub reduce_amax: Option<bool>,
    /// Overlap tensor-parallel exchanges with matrix products.
    pub ub_tp_comm_overlap: Option<bool>,
    /// Settings of that overlap.
    pub ub_tp_comm_overlap_cfg: Option<String>,
    /// Keep activations or weights in the host's memory.
    pub cpu_offloading: Option<bool>,
    /// How many layers.
    pub cpu_offloading_num_layers: Option<u64>,
    /// Activations.
    pub cpu_offloading_activations: Option<bool>,
    /// Weights.
    pub cpu_offloading_weights: Option<bool>,
    /// Split parameters over the data-parallel ranks (FSDP).
    pub fsdp: Option<bool>,
    /// What FSDP splits.
    pub fsdp_sharding_strategy: Option<String>,
    /// Number format of FSDP's reduction.
    pub fsdp_grad_reduce_dtype: Option<String>,
    /// FSDP's split checkpoints.
    pub fsdp_sharded_checkpoint: Option<bool>,
    /// FSDP with the original parameters.
    pub fsdp_use_orig_params: Option<bool>,
    /// Format of NeMo's distributed checkpoints.
    pub dist_ckpt_format: Option<String>,
    /// Load them onto the device.
    pub dist_ckpt_load_on_device: Option<bool>,
    /// Save them in parallel.
    pub dist_ckpt_parallel_save: Option<bool>,
    /// Save them in parallel within replicas.
    pub dist_ckpt_parallel_save_within_dp: Option<bool>,
    /// Load them in parallel.
    pub dist_ckpt_parallel_load: Option<bool>,
    /// Processes that save them.
    pub dist_ckpt_torch_dist_multiproc: Option<u64>,
    /// Their structure stays the same.
    pub dist_ckpt_assume_constant_structure: Option<bool>,
    /// The optimizer's state in parallel.
    pub dist_ckpt_parallel_dist_opt: Option<bool>,
    /// What happens when parameters are missing.
    pub dist_ckpt_load_strictness: Option<String>,

    /// What is computed again in the backward pass.
    pub activations_checkpoint_granularity: Option<Granularity>,
    /// Which blocks are computed again.
    pub activations_checkpoint_method: Option<RecomputeMethod>,
    /// How many blocks: the group's size (uniform), or the first blocks of each stage (block).
    #[schemars(range(min = 1))]
    pub activations_checkpoint_num_layers: Option<u64>,
    /// Micro-batches whose blocks are computed again only in part.
    pub num_micro_batches_with_partial_activation_checkpoints: Option<u64>,
    /// How many blocks fewer in later pipeline stages.
    pub activations_checkpoint_layers_per_pipeline: Option<u64>,

    /// Learn from answers only (data of `train_ds`). Default: false, as in NeMo.
    pub answer_only_loss: Option<bool>,
    /// Parameter-efficient fine-tuning.
    pub peft: Option<Peft>,
    /// The tokenizer.
    pub tokenizer: Option<Tokenizer>,
    /// Vocabulary file as a packed checkpoint names it; `tokenizer.vocab_file` decides.
    pub vocab_file: Option<String>,
    /// Merges file as a packed checkpoint names it; `tokenizer.merge_file` decides.
    pub merges_file: Option<String>,
    /// The data.
    pub data: Option<Data>,
    /// The optimizer.
    pub optim: Option<Optim>,
    /// Profiling with Nsight Systems.
    pub nsys_profile: Option<NsysProfile>,
}

/// Profiling with Nsight Systems.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NsysProfile {
    /// Profile at all.
    pub enabled: Option<bool>,
    /// First step.
    pub start_step: Option<u64>,
    /// Last step.
    pub end_step: Option<u64>,
    /// Ranks.
    pub ranks: Option<Vec<u64>>,
    /// Record shapes.
    pub gen_shape: Option<bool>,
}

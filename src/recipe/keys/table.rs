//! The table itself: a status for every key.

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It changes what is done.
    Honoured,
    /// It changes nothing here, for this reason.
    NoEffect(&'static str),
    /// It is an error while it is set; `refusals.rs` has the reason.
    Refused,
}

/// Keys of one section with one status.
pub(super) struct Group {
    pub(super) under: &'static str,
    pub(super) status: Status,
    /// The keys with white space between.
    pub(super) keys: &'static str,
}

const fn honoured(under: &'static str, keys: &'static str) -> Group {
    Group { under, status: Status::Honoured, keys }
}

const fn no_effect(under: &'static str, keys: &'static str, reason: &'static str) -> Group {
    Group { under, status: Status::NoEffect(reason), keys }
}

const fn refused(under: &'static str, keys: &'static str) -> Group {
    Group { under, status: Status::Refused, keys }
}

const LIGHTNING: &str = "it sets up PyTorch Lightning, which is not used";
const LOGGERS: &str = "nothing is sent anywhere; metrics.jsonl and report.html hold the numbers";
const OWN_PACE: &str =
    "it is about speed or memory in NeMo, never about results; our kernels choose by themselves";
const PYTHON: &str = "it is about Python or its libraries, which are not used";
const TRANSFORMER_ENGINE: &str = "it sets up Transformer Engine's 8-bit floats, which are not used";
const FSDP: &str = "it sets up FSDP, which is not built (`fsdp: true` is refused)";
const OFFLOAD: &str = "it sets up offloading to the host's memory, which is not built (`cpu_offloading: true` is refused)";
const NEMO_CHECKPOINTS: &str = "it is about NeMo's own checkpoint format";
const LOADER: &str = "the data is mapped into memory and read in place, without workers";
const PACKED_CHECKPOINT: &str =
    "it is a name inside a packed checkpoint; `model.tokenizer` decides";
const SERVER: &str = "it sets up NeMo's server, which is not built (`server: true` is refused)";
const RECOMPUTE: &str = "every micro-batch and every pipeline stage computes the same blocks again; it changes memory, not results";
const FULL_BATCHES: &str = "a training step always has a whole global batch, and a validation uses every sequence it is given";

pub(super) const GROUPS: &[Group] = &[
    honoured("", "name restore_from_path vars extends"),
    honoured("sweep", "parameters.NAME sampler trials seed metric mode asha"),
    honoured("", "verify.steps verify.tolerances.NAME notify.on_success notify.on_failure"),
    no_effect("", "defaults hydra", "it sets up Hydra, which is not used"),
    refused("", "compat"),
    // trainer
    honoured(
        "trainer",
        "devices num_nodes accelerator precision max_steps log_every_n_steps val_check_interval \
         limit_val_batches accumulate_grad_batches gradient_clip_val",
    ),
    no_effect(
        "trainer",
        "max_epochs check_val_every_n_epoch",
        "the length of the run is `max_steps`, validations are counted in steps",
    ),
    no_effect(
        "trainer",
        "limit_test_batches",
        "there is no test run inside training; evaluate stages have `limit`",
    ),
    no_effect(
        "trainer",
        "logger enable_checkpointing replace_sampler_ddp use_distributed_sampler enable_model_summary \
         enable_progress_bar",
        LIGHTNING,
    ),
    no_effect("trainer", "benchmark", PYTHON),
    no_effect("trainer", "deterministic", "runs are deterministic anyway"),
    no_effect("trainer", "num_sanity_val_steps", "there is no validation before the first step"),
    refused("trainer", "max_time limit_train_batches"),
    // exp_manager
    honoured(
        "exp_manager",
        "explicit_log_dir exp_dir name version create_checkpoint_callback create_tensorboard_logger \
         resume_from_checkpoint create_early_stopping_callback",
    ),
    honoured(
        "exp_manager.checkpoint_callback_params",
        "every_n_train_steps monitor save_top_k mode filename save_best_model \
         save_nemo_on_train_end",
    ),
    refused("exp_manager.checkpoint_callback_params", "always_save_nemo"),
    no_effect(
        "exp_manager.checkpoint_callback_params",
        "save_last every_n_epochs save_last_n_optim_states",
        "the last checkpoint is always kept, they are counted in steps, and each has its optimizer state",
    ),
    no_effect(
        "exp_manager.checkpoint_callback_params",
        "model_parallel_size",
        "it is a part of NeMo's file names; checkpoints here are whole",
    ),
    no_effect(
        "exp_manager.checkpoint_callback_params",
        "dirpath",
        "checkpoints stand in the stage's folder",
    ),
    no_effect("exp_manager.checkpoint_callback_params", "async_save", OWN_PACE),
    no_effect(
        "exp_manager",
        "summary_writer_kwargs create_wandb_logger wandb_logger_kwargs \
         create_mlflow_logger mlflow_logger_kwargs create_dllogger_logger dllogger_logger_kwargs \
         create_clearml_logger clearml_logger_kwargs create_neptune_logger neptune_logger_kwargs",
        LOGGERS,
    ),
    no_effect(
        "exp_manager",
        "resume_if_exists resume_past_end resume_ignore_no_checkpoint disable_validation_on_resume \
         create_preemption_callback",
        "an interrupted stage always continues its own work and ends with the same bits, a stage whose settings changed starts afresh; `resume_from_checkpoint` continues any checkpoint",
    ),
    no_effect("exp_manager", "use_datetime_version", "run folders have no time in their names"),
    no_effect("exp_manager", "log_step_timing", "tokens per second are always logged"),
    no_effect(
        "exp_manager.step_timing_kwargs",
        "sync_cuda buffer_size reduction",
        "tokens per second are always logged",
    ),
    no_effect(
        "exp_manager",
        "log_local_rank_0_only log_global_rank_0_only seconds_to_sleep",
        "one process writes the log",
    ),
    refused("exp_manager", "files_to_copy max_time_per_run"),
    honoured("exp_manager.early_stopping_callback_params", "monitor mode min_delta patience"),
    no_effect(
        "exp_manager.early_stopping_callback_params",
        "verbose strict",
        "an early stop is always told, and a watched value that is not computed is an error",
    ),
    // model: batches and layout
    honoured(
        "model",
        "micro_batch_size global_batch_size tensor_model_parallel_size pipeline_model_parallel_size \
         virtual_pipeline_model_parallel_size sequence_parallel restore_from_path \
         resume_from_checkpoint num_layers_unfrozen frozen seed",
    ),
    refused("model", "rampup_batch_size expert_model_parallel_size context_parallel_size"),
    no_effect(
        "model",
        "save_nemo_on_validation_end",
        "`.nemo` files are written at the end (`save_nemo_on_train_end`); `save_top_k` keeps checkpoints of validations",
    ),
    no_effect(
        "model",
        "mcore_gpt target nemo_version",
        "it names NeMo's code; the model is the same",
    ),
    // model: shape
    honoured(
        "model",
        "encoder_seq_length max_position_embeddings num_layers hidden_size ffn_hidden_size \
         num_attention_heads num_query_groups kv_channels padded_vocab_size init_method_std use_scaled_init_method \
         hidden_dropout attention_dropout ffn_dropout normalization layernorm_epsilon \
         do_layer_norm_weight_decay make_vocab_size_divisible_by bias activation openai_gelu \
         bias_activation_fusion position_embedding_type rotary_percentage rotary_base \
         seq_len_interpolation_factor share_embeddings_and_output_weights \
         use_parallel_residual megatron_legacy",
    ),
    no_effect(
        "model",
        "apply_query_key_layer_scaling",
        "it scales scores down and up again so that fp16 does not overflow; here softmax is computed in fp32",
    ),
    no_effect(
        "model",
        "pre_process post_process",
        "the pipeline gives each stage its part of the model",
    ),
    refused(
        "model",
        "normalize_attention_scores headscale transformer_block_type attention_type use_emha onnx_safe reset_lr reset_lr_steps",
    ),
    // model: precision and speed
    honoured(
        "model",
        "precision megatron_amp_O2 native_amp_init_scale native_amp_growth_interval hysteresis",
    ),
    refused("model", "fp32_residual_connection fp16_lm_cross_entropy"),
    no_effect(
        "model",
        "grad_allreduce_chunk_size_mb grad_div_ar_fusion gradient_as_bucket_view gradient_accumulation_fusion \
         bias_dropout_add_fusion masked_softmax_fusion get_attention_mask_from_fusion apply_rope_fusion \
         use_flash_attention persist_layer_norm use_cpu_initialization sync_batch_comm batch_p2p_comm \
         ub_tp_comm_overlap ub_tp_comm_overlap_cfg",
        OWN_PACE,
    ),
    no_effect("model", "gc_interval apex_transformer_log_level", PYTHON),
    refused("model", "transformer_engine fp8"),
    no_effect(
        "model",
        "fp8_e4m3 fp8_hybrid fp8_margin fp8_interval fp8_amax_history_len fp8_amax_compute_algo reduce_amax",
        TRANSFORMER_ENGINE,
    ),
    refused("model", "cpu_offloading fsdp"),
    no_effect(
        "model",
        "cpu_offloading_num_layers cpu_offloading_activations cpu_offloading_weights",
        OFFLOAD,
    ),
    no_effect(
        "model",
        "fsdp_sharding_strategy fsdp_grad_reduce_dtype fsdp_sharded_checkpoint fsdp_use_orig_params",
        FSDP,
    ),
    no_effect(
        "model",
        "dist_ckpt_format dist_ckpt_load_on_device dist_ckpt_parallel_save dist_ckpt_parallel_save_within_dp \
         dist_ckpt_parallel_load dist_ckpt_torch_dist_multiproc dist_ckpt_assume_constant_structure \
         dist_ckpt_parallel_dist_opt dist_ckpt_load_strictness",
        NEMO_CHECKPOINTS,
    ),
    honoured(
        "model",
        "activations_checkpoint_granularity activations_checkpoint_method activations_checkpoint_num_layers",
    ),
    no_effect(
        "model",
        "num_micro_batches_with_partial_activation_checkpoints activations_checkpoint_layers_per_pipeline",
        RECOMPUTE,
    ),
    refused("model.nsys_profile", "enabled"),
    no_effect(
        "model.nsys_profile",
        "start_step end_step ranks gen_shape",
        "profiling is not built (`enabled: true` is refused)",
    ),
    // model: tokenizer
    honoured("model.tokenizer", "library type model vocab_file merge_file chat_template"),
    no_effect("model.tokenizer", "delimiter", "it is for tables, which are not built"),
    no_effect(
        "model.tokenizer",
        "sentencepiece_legacy",
        "special tokens are those of the `.model` file",
    ),
    no_effect("model.tokenizer", "tokenizer_model", PACKED_CHECKPOINT),
    no_effect("model.tokenizer", "use_fast", "a `tokenizer.json` is always the fast form"),
    no_effect("model", "vocab_file merges_file", PACKED_CHECKPOINT),
    // model: data
    honoured(
        "model.data",
        "data_prefix.dataset data_prefix.ignored data_prefix[].dataset splits_string seq_length dataloader_type \
         reset_position_ids reset_attention_mask eod_mask_loss add_bos add_eos",
    ),
    refused("model.data", "data_prefix.train data_prefix.validation data_prefix.test data_impl"),
    no_effect("model.data", "index_mapping_dir skip_warmup num_workers", LOADER),
    no_effect("model.data", "validation_drop_last", FULL_BATCHES),
    no_effect(
        "model.data",
        "shuffle_documents",
        "the order of sequences is `dataloader_type`; documents are cut in the order of the file",
    ),
    refused("model.data", "no_seqlen_plus_one_input_tokens pad_samples_to_global_batch_size chat"),
    no_effect(
        "model.data.chat_prompt_tokens",
        "system_turn_start turn_start label_start end_of_turn end_of_name",
        "NeMo's form of conversations is not built (`chat: true` is refused)",
    ),
    honoured("model", "answer_only_loss"),
    dataset("model.data.train_ds"),
    dataset("model.data.validation_ds"),
    dataset("model.data.test_ds"),
    honoured("model.data.train_ds", "shuffle max_seq_length"),
    no_effect("model.data.validation_ds", "shuffle", HELD_OUT),
    no_effect("model.data.test_ds", "shuffle", HELD_OUT),
    no_effect("model.data.validation_ds", "max_seq_length", ONE_LENGTH),
    no_effect("model.data.test_ds", "max_seq_length", ONE_LENGTH),
    loader("model.data.train_ds"),
    loader("model.data.validation_ds"),
    loader("model.data.test_ds"),
    predictions("model.data.train_ds"),
    predictions("model.data.validation_ds"),
    predictions("model.data.test_ds"),
    refused_rows("model.data.train_ds"),
    refused_rows("model.data.validation_ds"),
    refused_rows("model.data.test_ds"),
    no_effect(
        "model.data.train_ds.metric",
        "name average num_classes",
        "training rows are not evaluated",
    ),
    honoured("model.data.validation_ds.metric", "name"),
    honoured("model.data.test_ds.metric", "name"),
    no_effect("model.data.validation_ds.metric", "average num_classes", CLASSES),
    no_effect("model.data.test_ds.metric", "average num_classes", CLASSES),
    // model: optimizer
    honoured("model.optim", "name lr weight_decay betas eps"),
    no_effect(
        "model.optim",
        "overlap_grad_sync overlap_param_sync bucket_cap_mb contiguous_grad_buffer contiguous_param_buffer grad_sync_dtype",
        "gradients are always reduced in fp32, and buckets are our own affair",
    ),
    honoured(
        "model.optim.sched",
        "name warmup_steps warmup_ratio constant_steps constant_ratio min_lr max_steps",
    ),
    no_effect("model.optim.sched", "monitor", "no schedule here follows the loss"),
    refused("model.optim.sched", "reduce_on_plateau"),
    no_effect("model.optim.sched", "last_epoch", "the step comes from the checkpoint"),
    // model: peft
    refused("model.peft", "peft_scheme restore_from_path"),
    no_effect(
        "model.peft",
        "lora_tuning adapter_tuning p_tuning ia3_tuning selective_tuning",
        "all parameters are trained (a `peft_scheme` is refused)",
    ),
    // stages
    honoured("stages.NAME.tokenize.sources[]", "rows split.by split.validation split.test"),
    honoured(
        "stages.NAME.tokenize.sources[].tasks[]",
        "name share prompt answer text prompt_template chat_template messages date label_key truncation_field truncation_method \
         tokens_to_generate answer_only_loss add_bos add_eos",
    ),
    honoured("stages.NAME.shard", "data packing"),
    honoured("stages.NAME.load", "restore_from_path strict"),
    honoured("stages.NAME.train", "data model checkpoint_every with"),
    honoured("stages.NAME.evaluate", "model data split task limit"),
    honoured("stages.NAME.evaluate.choices", "rows prompt choices answer labels delimiter"),
    honoured("stages.NAME.evaluate.metrics[]", OWN_METRIC),
    honoured("stages.NAME.evaluate.gen_kwargs", DECODING),
    honoured("stages.NAME.train.validate", "data split task limit"),
    honoured("stages.NAME.train.validate.metrics[]", OWN_METRIC),
    honoured("stages.NAME.train.validate.gen_kwargs", DECODING),
    honoured("stages.NAME.generate", "model prompts prompts_file"),
    honoured("stages.NAME.generate.gen_kwargs", DECODING),
    // NeMo's inference file
    honoured(
        "inference",
        "greedy top_k top_p temperature add_BOS tokens_to_generate repetition_penalty min_tokens_to_generate end_strings \
         all_probs compute_logprob",
    ),
    no_effect("inference", "compute_attention_mask", OWN_PACE),
    honoured("", "prompts gpt_model_file"),
    refused("", "checkpoint_dir checkpoint_name hparams_file server web_server"),
    no_effect(
        "",
        "micro_batch_size tensor_model_parallel_size pipeline_model_parallel_size expert_model_parallel_size megatron_amp_O2",
        "a checkpoint fits any layout; decoding takes `gen_kwargs.batch_size` prompts at a time",
    ),
    no_effect("", "pipeline_model_parallel_split_rank", "it is for encoder-decoder models"),
    no_effect("", "port share username password web_port chat chatbot_config", SERVER),
];

const HELD_OUT: &str = "held-out samples are taken in the order of the files";
const ONE_LENGTH: &str = "samples of every split are cut to one length: the least of model.encoder_seq_length, \
     model.data.seq_length and model.data.train_ds.max_seq_length";
const CLASSES: &str = "it is for metrics over classes, which are not built";
const OWN_METRIC: &str =
    "name regex expression lexicon classifier label with_prompt command timeout";
const DECODING: &str = "use_greedy do_sample temperature top_k top_p repetition_penalty repetition_penalty_rule \
     max_length max_new_tokens min_length end_strings stop_sequences add_BOS compute_logprob all_probs seed batch_size";

/// Keys of a split's rows that shape its samples.
const fn dataset(under: &'static str) -> Group {
    honoured(
        under,
        "file_names file_path global_batch_size micro_batch_size \
         concat_sampling_probabilities context_key label_key add_eos add_bos \
         separate_prompt_and_response_with_newline truncation_field truncation_method prompt_template \
         tokens_to_generate",
    )
}

/// Keys of a split's rows that are about reading them.
const fn loader(under: &'static str) -> Group {
    no_effect(
        under,
        "names num_workers memmap_workers pin_memory drop_last index_mapping_dir global_sample_mapping pad_to_max_length",
        "rows are tokenized once into files, which are mapped into memory; every epoch is shuffled on its own, \
         and nothing is padded",
    )
}

const fn predictions(under: &'static str) -> Group {
    no_effect(
        under,
        "write_predictions_to_file output_file_path_prefix",
        "generated answers always stand in the evaluate stage's samples.jsonl",
    )
}

const fn refused_rows(under: &'static str) -> Group {
    refused(under, "min_seq_length add_sep assistant_prompt hf_dataset packed_sequence")
}

//! Names that other programs give to settings of ours (Hugging Face's, PyTorch's, torchtune's).

/// Other name, our path.
const NAMES: [(&str, &str); 40] = [
    ("num_hidden_layers", "model.num_layers"),
    ("n_layer", "model.num_layers"),
    ("n_layers", "model.num_layers"),
    ("n_head", "model.num_attention_heads"),
    ("n_heads", "model.num_attention_heads"),
    ("num_heads", "model.num_attention_heads"),
    ("num_key_value_heads", "model.num_query_groups"),
    ("n_kv_heads", "model.num_query_groups"),
    ("n_embd", "model.hidden_size"),
    ("d_model", "model.hidden_size"),
    ("head_dim", "model.kv_channels"),
    ("intermediate_size", "model.ffn_hidden_size"),
    ("hidden_act", "model.activation"),
    ("rms_norm_eps", "model.layernorm_epsilon"),
    ("layer_norm_eps", "model.layernorm_epsilon"),
    ("layer_norm_epsilon", "model.layernorm_epsilon"),
    ("rope_theta", "model.rotary_base"),
    ("initializer_range", "model.init_method_std"),
    ("tie_word_embeddings", "model.share_embeddings_and_output_weights"),
    ("n_positions", "model.max_position_embeddings"),
    ("max_seq_len", "model.encoder_seq_length"),
    ("sequence_length", "model.encoder_seq_length"),
    ("block_size", "model.encoder_seq_length"),
    ("dtype", "trainer.precision"),
    ("torch_dtype", "trainer.precision"),
    ("learning_rate", "model.optim.lr"),
    ("adam_epsilon", "model.optim.eps"),
    ("lr_scheduler", "model.optim.sched"),
    ("lr_scheduler_type", "model.optim.sched.name"),
    ("optimizer", "model.optim"),
    ("batch_size", "model.global_batch_size"),
    ("train_batch_size", "model.global_batch_size"),
    ("per_device_train_batch_size", "model.micro_batch_size"),
    ("max_grad_norm", "trainer.gradient_clip_val"),
    ("total_steps", "trainer.max_steps"),
    ("eval_steps", "trainer.val_check_interval"),
    ("eval_interval", "trainer.val_check_interval"),
    ("logging_steps", "trainer.log_every_n_steps"),
    ("tp_size", "model.tensor_model_parallel_size"),
    ("pp_size", "model.pipeline_model_parallel_size"),
];

/// Where a setting stands that has another name elsewhere.
pub(super) fn name(other: &str) -> Option<&'static str> {
    NAMES.iter().find(|(known, _)| *known == other).map(|(_, path)| *path)
}

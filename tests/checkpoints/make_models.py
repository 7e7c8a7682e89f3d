"""Makes small random models with transformers, with their logits, for tests/it/checkpoint.

    pip install torch transformers safetensors gguf
    python tests/checkpoints/make_models.py

Writes tests/fixtures/checkpoints/NAME: a Hugging Face folder and logits.json (ids and logits), and
megatron_*: the same models as Megatron-LM saves them, llama.gguf: one of them as llama.cpp has it.
"""

import argparse
import json
import pathlib
import shutil

import gguf
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "checkpoints"


def gpt2():
    config = GPT2Config(
        vocab_size=61, n_positions=32, n_embd=32, n_layer=4, n_head=4, n_inner=48,
        bos_token_id=0, eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def llama():
    config = LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=64,
        rope_theta=5000.0, tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def mistral():
    config = MistralConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=12, max_position_embeddings=64,
        sliding_window=None, tie_word_embeddings=True,
    )
    return MistralForCausalLM(config)


def gpt_neox(parallel):
    config = GPTNeoXConfig(
        vocab_size=61, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, rotary_pct=0.5,
        use_parallel_residual=parallel,
    )
    return GPTNeoXForCausalLM(config)


def perturb(model, generator):
    """Biases and norms start at zeros and ones, which would hide one that is lost."""
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.1 * noise)


def per_head(rows, heads):
    """Rows `all queries, all keys, all values` as Megatron-LM since version 2 has them: per head."""
    return rows.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)


def padded(table, rows):
    return torch.cat([table, torch.zeros(rows - table.shape[0], table.shape[1])])


def megatron_gpt2(model, tensor, pipeline, names, version):
    """State dicts of a GPT-2 by (tensor, pipeline rank); `names` are those of `encoder` and
    `self_attention`, version 0 has all queries, all keys, all values of a rank."""
    state, config = model.state_dict(), model.config
    encoder, attention = names
    heads, layers = config.n_head, config.n_layer // pipeline
    vocabulary = -(-config.vocab_size // (8 * tensor)) * 8 * tensor
    ranks = {}
    for t in range(tensor):
        column = lambda rows: rows.chunk(tensor)[t].clone()
        row = lambda weight: weight.chunk(tensor, 1)[t].clone()

        def query_key_value(rows):
            if version == 0:
                own = [part.chunk(tensor)[t] for part in rows.chunk(3)]
                return torch.cat(own)
            return column(per_head(rows, heads))

        words = column(padded(state["transformer.wte.weight"], vocabulary))
        for p in range(pipeline):
            blocks = {}
            for local in range(layers):
                theirs = f"transformer.h.{p * layers + local}"
                get = lambda name: state[f"{theirs}.{name}"]
                parts = {
                    "input_layernorm.weight": get("ln_1.weight"),
                    "input_layernorm.bias": get("ln_1.bias"),
                    f"{attention}.query_key_value.weight": query_key_value(get("attn.c_attn.weight").T),
                    f"{attention}.query_key_value.bias": query_key_value(get("attn.c_attn.bias")),
                    f"{attention}.dense.weight": row(get("attn.c_proj.weight").T),
                    f"{attention}.dense.bias": get("attn.c_proj.bias"),
                    "post_attention_layernorm.weight": get("ln_2.weight"),
                    "post_attention_layernorm.bias": get("ln_2.bias"),
                    "mlp.dense_h_to_4h.weight": column(get("mlp.c_fc.weight").T),
                    "mlp.dense_h_to_4h.bias": column(get("mlp.c_fc.bias")),
                    "mlp.dense_4h_to_h.weight": row(get("mlp.c_proj.weight").T),
                    "mlp.dense_4h_to_h.bias": get("mlp.c_proj.bias"),
                }
                blocks |= {f"layers.{local}.{name}": value for name, value in parts.items()}
            language, whole = {encoder: blocks}, {}
            if p == 0:
                positions = state["transformer.wpe.weight"]
                language["embedding"] = {
                    "word_embeddings": {"weight": words},
                    "position_embeddings": {"weight": positions},
                }
            if p == pipeline - 1:
                blocks["final_layernorm.weight"] = state["transformer.ln_f.weight"]
                blocks["final_layernorm.bias"] = state["transformer.ln_f.bias"]
                if p > 0:
                    whole["word_embeddings_for_head"] = {"weight": words}
            ranks[t, p] = {"language_model": language} | whole
    args = argparse.Namespace(
        num_layers=config.n_layer, hidden_size=config.n_embd, ffn_hidden_size=config.n_inner,
        num_attention_heads=heads, kv_channels=config.n_embd // heads,
        max_position_embeddings=config.n_positions, padded_vocab_size=vocabulary,
        layernorm_epsilon=config.layer_norm_epsilon, bias_gelu_fusion=True,
        params_dtype=torch.float32, betas=(0.9, 0.999), lr=1e-4, data_path=None,
    )
    return ranks, args


def megatron_core_llama(model, tensor):
    """State dicts of a LLaMA by (tensor rank, 0) with the names of Megatron-Core."""
    state, config = model.state_dict(), model.config
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    vocabulary = -(-config.vocab_size // (8 * tensor)) * 8 * tensor
    ranks = {}
    for t in range(tensor):
        column = lambda rows: rows.chunk(tensor)[t].clone()
        row = lambda weight: weight.chunk(tensor, 1)[t].clone()
        own = {"embedding.word_embeddings.weight": column(padded(state["model.embed_tokens.weight"], vocabulary))}
        for layer in range(config.num_hidden_layers):
            get = lambda name: state[f"model.layers.{layer}.{name}.weight"]
            query, key, value = (get(f"self_attn.{part}_proj") for part in "qkv")
            by_group = lambda rows, each: rows.unflatten(0, (groups, each, -1))
            grouped = [by_group(query, heads // groups), by_group(key, 1), by_group(value, 1)]
            grouped = torch.cat(grouped, 1).flatten(0, 2)
            halves = [column(get(f"mlp.{part}_proj")) for part in ("gate", "up")]
            parts = {
                "self_attention.linear_qkv.layer_norm_weight": get("input_layernorm"),
                "self_attention.linear_qkv.weight": column(grouped),
                "self_attention.linear_qkv._extra_state": None,
                "self_attention.linear_proj.weight": row(get("self_attn.o_proj")),
                "mlp.linear_fc1.layer_norm_weight": get("post_attention_layernorm"),
                "mlp.linear_fc1.weight": torch.cat(halves),
                "mlp.linear_fc2.weight": row(get("mlp.down_proj")),
            }
            own |= {f"decoder.layers.{layer}.{name}": value for name, value in parts.items()}
        own["decoder.final_layernorm.weight"] = state["model.norm.weight"]
        own["output_layer.weight"] = column(padded(state["lm_head.weight"], vocabulary))
        ranks[t, 0] = own
    args = argparse.Namespace(
        num_layers=config.num_hidden_layers, hidden_size=config.hidden_size,
        ffn_hidden_size=config.intermediate_size, num_attention_heads=heads,
        group_query_attention=True, num_query_groups=groups, kv_channels=config.head_dim,
        max_position_embeddings=config.max_position_embeddings, padded_vocab_size=vocabulary,
        norm_epsilon=config.rms_norm_eps, normalization="RMSNorm", swiglu=True,
        position_embedding_type="rope", rotary_percent=1.0, rotary_base=5000,
        add_bias_linear=False, untie_embeddings_and_output_weights=True,
        bias_gelu_fusion=False, params_dtype=torch.float32,
    )
    return ranks, args


def save_megatron(name, iteration, ranks, args, version):
    """A folder of iterations; the last one counts, and an older one is there too."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    current = iteration if iteration == "release" else f"iter_{iteration:07}"
    (folder / "iter_0000001" / "mp_rank_00").mkdir(parents=True)
    (folder / "iter_0000001" / "mp_rank_00" / "model_optim_rng.pt").write_bytes(b"older")
    (folder / "latest_checkpointed_iteration.txt").write_text(f"{iteration}")
    stages = len({stage for _, stage in ranks})
    for (tensor, stage), model in ranks.items():
        rank = f"mp_rank_{tensor:02}" + (f"_{stage:03}" if stages > 1 else "")
        (folder / current / rank).mkdir(parents=True)
        # What lies beside the weights in a real one and is no weight.
        optimizer = {"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}}
        state = {
            "args": args, "checkpoint_version": version, "iteration": iteration, "model": model,
            "optimizer": optimizer, "opt_param_scheduler": {"num_steps": 20},
            "rng_state": [{"torch_rng_state": torch.zeros(8, dtype=torch.uint8)}],
        }
        torch.save(state, folder / current / rank / "model_optim_rng.pt")


def write_gguf(model):
    """The LLaMA with llama.cpp's names; queries and keys have the rows of a head in turns."""
    state, config = model.state_dict(), model.config
    writer = gguf.GGUFWriter(FOLDER / "llama.gguf", "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    # A vocabulary that shows how SentencePiece's is kept: three that are no text, then words.
    writer.add_tokenizer_model("llama")
    words = [f"\u2581w{number}" for number in range(config.vocab_size - 3)]
    writer.add_token_list(["<unk>", "<s>", "</s>", *words])
    writer.add_token_scores([0.0] * 3 + [float(-number) for number in range(len(words))])
    writer.add_token_types([2, 3, 3] + [1] * len(words))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "model.layers": "blk", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm", "self_attn.o_proj": "attn_output",
        "self_attn.": "attn_", "mlp.": "ffn_", "_proj": "",
    }
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in state.items():
        for part, count in heads.items():
            if part in name:
                tensor = tensor.unflatten(0, (count, 2, -1)).transpose(1, 2).flatten(0, 2)
        for theirs, short in names.items():
            name = name.replace(theirs, short)
        writer.add_tensor(name, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    models = {
        "gpt2": (gpt2, False),
        "llama": (llama, False),
        "mistral_sharded": (mistral, True),
        "gpt_neox": (lambda: gpt_neox(True), False),
        "gpt_neox_serial": (lambda: gpt_neox(False), False),
    }
    for name, (make, sharded) in models.items():
        torch.manual_seed(7)
        generator = torch.Generator().manual_seed(8)
        model = make().eval()
        perturb(model, generator)
        folder = FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder, max_shard_size="20KB" if sharded else "5GB")
        (folder / "generation_config.json").unlink(missing_ok=True)
        ids = torch.randint(0, 61, (1, 20), generator=generator)
        with torch.no_grad():
            logits = model(ids).logits[0]
        record = {"ids": ids[0].tolist(), "logits": logits.tolist()}
        (folder / "logits.json").write_text(json.dumps(record))
        if name == "gpt2":
            state = model.state_dict()
            torch.save(state, FOLDER / "gpt2_state.bin")
            torch.save(state, FOLDER / "gpt2_state_legacy.bin", _use_new_zipfile_serialization=False)
            new, old = ("encoder", "self_attention"), ("transformer", "attention")
            save_megatron("megatron_gpt2", 20, *megatron_gpt2(model, 2, 2, new, 3), 3.0)
            save_megatron("megatron_gpt2_old", 7, *megatron_gpt2(model, 2, 1, old, 0), 0)
        if name == "llama":
            write_gguf(model)
            save_megatron("megatron_llama_core", "release", *megatron_core_llama(model, 2), 3.0)


if __name__ == "__main__":
    main()

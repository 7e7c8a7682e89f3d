"""Makes small random models with transformers, with their logits, for tests/it/checkpoint.

    pip install torch transformers safetensors
    python tests/checkpoints/make_models.py

Writes tests/fixtures/checkpoints/NAME: a Hugging Face folder and logits.json (ids and logits).
"""

import json
import pathlib
import shutil

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


if __name__ == "__main__":
    main()

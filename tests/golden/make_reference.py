#!/usr/bin/env python3
"""An independent float64 reference of the first training steps, written from the model's equations.

Writes, for each case, CASE.safetensors (start weights, float32) and CASE.json (shape, settings,
every sample of every step, and the loss, gradient norm and learning rate of each step).
Gradients come from PyTorch's autograd in float64; the optimizer, the clipping and the schedule are
written out by hand. Samples of a sequence are computed one by one, without packing or padding.

    pip install torch safetensors numpy && python3 make_reference.py
"""
import json
import math
import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
STEPS = 20

BASE = dict(
    num_layers=2, hidden_size=32, ffn_hidden_size=128, num_attention_heads=4, num_query_groups=4,
    kv_channels=8, vocab_size=61, padded_vocab_size=64, max_position_embeddings=32,
    position_embedding_type="learned_absolute", rotary_percentage=1.0, rotary_base=10000.0,
    seq_len_interpolation_factor=None, normalization="layernorm", layernorm_epsilon=1e-5,
    activation="gelu", bias=True, share_embeddings_and_output_weights=True, hidden_dropout=0.0,
    attention_dropout=0.0, ffn_dropout=0.0, init_method_std=0.1, use_scaled_init_method=True,
)
OPTIM = dict(
    name="adamw", lr=3e-3, weight_decay=0.1, betas=[0.9, 0.95], eps=1e-8,
    do_layer_norm_weight_decay=False,
    sched=dict(name="CosineAnnealing", warmup_steps=5, constant_steps=0, min_lr=1e-4, max_steps=20),
)
CASES = {
    # As megatron_1.3b: learned positions, layernorm, gelu, biases, tied head.
    "learned_layernorm_gelu_tied": (BASE, OPTIM),
    # As LLaMA: rotary, rmsnorm, swiglu, grouped queries, heads wider than hidden / heads.
    "rope_rmsnorm_swiglu_grouped": (
        BASE | dict(
            num_query_groups=2, kv_channels=12, ffn_hidden_size=88, vocab_size=64,
            position_embedding_type="rope", normalization="rmsnorm", layernorm_epsilon=1e-6,
            activation="swiglu", bias=False, share_embeddings_and_output_weights=False,
        ),
        OPTIM | dict(sched=OPTIM["sched"] | dict(constant_steps=4)),
    ),
    # As megatron_2b: half of each head rotated, layernorm1p, swiglu, no biases.
    "half_rope_layernorm1p": (
        BASE | dict(
            position_embedding_type="rope", rotary_percentage=0.5, normalization="layernorm1p",
            ffn_hidden_size=88, activation="swiglu", bias=False,
            share_embeddings_and_output_weights=False,
        ),
        OPTIM | dict(do_layer_norm_weight_decay=True, sched=None),
    ),
    # Stretched rotary positions, geglu, one key and value head for all queries.
    "interpolated_rope_geglu_one_group": (
        BASE | dict(
            position_embedding_type="rope", seq_len_interpolation_factor=2.0, ffn_hidden_size=64,
            activation="geglu", num_query_groups=1,
        ),
        OPTIM | dict(sched=OPTIM["sched"] | dict(warmup_steps=0)),
    ),
}


def start_weights(a, rng):
    """Weights by NeMo's names without their prefix; matrices are [out, in]."""
    h, f, d = a["hidden_size"], a["ffn_hidden_size"], a["kv_channels"]
    heads, groups = a["num_attention_heads"], a["num_query_groups"]
    gated = a["activation"] in ("swiglu", "geglu", "reglu")
    normal = lambda *shape: rng.normal(0, a["init_method_std"], shape)
    norm_weight = lambda: rng.normal(0 if a["normalization"] == "layernorm1p" else 1, 0.05, h)
    w = {"embedding.word_embeddings.weight": normal(a["padded_vocab_size"], h)}
    if a["position_embedding_type"] == "learned_absolute":
        w["embedding.position_embeddings.weight"] = normal(a["max_position_embeddings"], h)

    def linear(name, rows, columns):
        w[f"{name}.weight"] = normal(rows, columns)
        if a["bias"]:
            w[f"{name}.bias"] = rng.normal(0, 0.05, rows)

    def norm(name):
        w[f"{name}.weight"] = norm_weight()
        if a["normalization"] != "rmsnorm":
            w[f"{name}.bias"] = rng.normal(0, 0.05, h)

    for i in range(a["num_layers"]):
        layer = f"encoder.layers.{i}"
        norm(f"{layer}.input_layernorm")
        linear(f"{layer}.self_attention.query_key_value", (heads + 2 * groups) * d, h)
        linear(f"{layer}.self_attention.dense", h, heads * d)
        norm(f"{layer}.post_attention_layernorm")
        linear(f"{layer}.mlp.dense_h_to_4h", f * (2 if gated else 1), h)
        linear(f"{layer}.mlp.dense_4h_to_h", h, f)
    norm("encoder.final_layernorm")
    if not a["share_embeddings_and_output_weights"]:
        w["output_layer.weight"] = normal(a["padded_vocab_size"], h)
    return {name: value.astype(np.float32) for name, value in w.items()}


def normalize(a, x, weight, bias):
    eps = a["layernorm_epsilon"]
    if a["normalization"] == "rmsnorm":
        return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight
    centered = x - x.mean(-1, keepdim=True)
    scaled = centered / (centered.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return scaled * (1 + weight if a["normalization"] == "layernorm1p" else weight) + bias


def rotate(a, x):
    """x is [seq, heads, head_dim]; channels i and i + r/2 of the first r turn together."""
    turned = int(a["kv_channels"] * a["rotary_percentage"])
    position = torch.arange(x.shape[0], dtype=torch.float64) / (a["seq_len_interpolation_factor"] or 1)
    frequency = a["rotary_base"] ** (-torch.arange(0, turned, 2, dtype=torch.float64) / turned)
    angle = torch.outer(position, frequency)[:, None, :]
    first, second, rest = x[..., : turned // 2], x[..., turned // 2 : turned], x[..., turned:]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1)


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def activate(a, x):
    if a["activation"] == "gelu":
        return gelu(x)
    gate, up = x.chunk(2, -1)
    return (gate * torch.sigmoid(gate) if a["activation"] == "swiglu" else gelu(gate)) * up


def attention(a, x, w, name):
    heads, groups, d = a["num_attention_heads"], a["num_query_groups"], a["kv_channels"]
    per_group = heads // groups
    mixed = affine(x, w, f"{name}.query_key_value").view(-1, groups, per_group + 2, d)
    q = mixed[:, :, :per_group].reshape(-1, heads, d)
    k = mixed[:, :, per_group].repeat_interleave(per_group, 1)
    v = mixed[:, :, per_group + 1].repeat_interleave(per_group, 1)
    if a["position_embedding_type"] == "rope":
        q, k = rotate(a, q), rotate(a, k)
    scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(d)
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    probabilities = scores.masked_fill(hidden, -math.inf).softmax(-1)
    context = torch.einsum("hqk,khd->qhd", probabilities, v).reshape(-1, heads * d)
    return affine(context, w, f"{name}.dense")


def affine(x, w, name):
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def loss_sum(a, w, tokens, learn):
    """Sum of the negative log-likelihoods of the learned tokens of one sample."""
    inputs, labels = torch.tensor(tokens[:-1]), torch.tensor(tokens[1:])
    x = w["embedding.word_embeddings.weight"][inputs]
    if a["position_embedding_type"] == "learned_absolute":
        x = x + w["embedding.position_embeddings.weight"][: len(inputs)]
    norm = lambda x, name: normalize(a, x, w[f"{name}.weight"], w.get(f"{name}.bias"))
    for i in range(a["num_layers"]):
        layer = f"encoder.layers.{i}"
        x = x + attention(a, norm(x, f"{layer}.input_layernorm"), w, f"{layer}.self_attention")
        inner = affine(norm(x, f"{layer}.post_attention_layernorm"), w, f"{layer}.mlp.dense_h_to_4h")
        x = x + affine(activate(a, inner), w, f"{layer}.mlp.dense_4h_to_h")
    x = norm(x, "encoder.final_layernorm")
    head = w.get("output_layer.weight", w["embedding.word_embeddings.weight"])
    logits = (x @ head.T)[:, : a["vocab_size"]]
    log_probabilities = logits - logits.logsumexp(-1, keepdim=True)
    picked = log_probabilities[torch.arange(len(labels)), labels]
    return -(picked * torch.tensor(learn[1:], dtype=torch.float64)).sum()


def learning_rate(optim, step):
    """NeMo's CosineAnnealing; `step` counts from 0."""
    sched, base = optim["sched"], optim["lr"]
    if sched is None:
        return base
    warmup, hold, low, last = (sched[k] for k in ("warmup_steps", "constant_steps", "min_lr", "max_steps"))
    if step <= warmup and warmup > 0:
        return base * (step / warmup if hold else (step + 1) / (warmup + 1))
    span = last - warmup - hold
    if step > warmup + span:
        return low
    return low + (base - low) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / span))


def make_batches(a, rng):
    """STEPS global batches of 4 sequences, each of 1 to 3 samples, prompts not learned."""
    def sample():
        prompt, answer = int(rng.integers(1, 8)), int(rng.integers(1, 5))
        tokens = rng.integers(0, a["vocab_size"], prompt + answer)
        # Tokens repeat a pattern, so that there is something to learn.
        tokens = (tokens[0] + np.arange(prompt + answer) * 3) % a["vocab_size"]
        return dict(tokens=tokens.tolist(), learn=[0] * prompt + [1] * answer)
    sequence = lambda: [sample() for _ in range(int(rng.integers(1, 4)))]
    return [[sequence() for _ in range(4)] for _ in range(STEPS)]


def train(a, optim, weights, batches):
    w = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in weights.items()}
    moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in w.items()}
    losses, norms, rates = [], [], []
    for step, batch in enumerate(batches):
        samples = [sample for sequence in batch for sample in sequence]
        total = sum(loss_sum(a, w, s["tokens"], s["learn"]) for s in samples)
        loss = total / sum(sum(s["learn"][1:]) for s in samples)
        gradients = dict(zip(w, torch.autograd.grad(loss, list(w.values()))))
        norm = math.sqrt(sum(float(g.pow(2).sum()) for g in gradients.values()))
        scale = min(1.0, 1.0 / (norm + 1e-6))
        rate = learning_rate(optim, step)
        update(optim, w, moments, {name: g * scale for name, g in gradients.items()}, rate, step)
        losses.append(loss.item()), norms.append(norm), rates.append(rate)
    return dict(losses=losses, grad_norms=norms, learning_rates=rates)


def update(optim, w, moments, gradients, rate, step):
    """AdamW (Loshchilov and Hutter 2019); biases never decay, norm weights only when asked."""
    first_decay, second_decay = optim["betas"]
    with torch.no_grad():
        for name, value in w.items():
            first, second = moments[name]
            first.mul_(first_decay).add_((1 - first_decay) * gradients[name])
            second.mul_(second_decay).add_((1 - second_decay) * gradients[name] ** 2)
            corrected = first / (1 - first_decay ** (step + 1))
            root = (second / (1 - second_decay ** (step + 1))).sqrt() + optim["eps"]
            is_norm = "layernorm" in name
            decays = not name.endswith(".bias") and (not is_norm or optim["do_layer_norm_weight_decay"])
            decay = optim["weight_decay"] if decays else 0.0
            value -= rate * (corrected / root + decay * value)


def main():
    for index, (name, (architecture, optim)) in enumerate(CASES.items()):
        rng = np.random.default_rng(index)
        weights = start_weights(architecture, rng)
        batches = make_batches(architecture, rng)
        record = dict(architecture=architecture, optim=optim, gradient_clip_val=1.0, batches=batches)
        record |= train(architecture, optim, weights, batches)
        save_file(weights, HERE / f"{name}.safetensors")
        (HERE / f"{name}.json").write_text(json.dumps(record) + "\n")
        print(name, record["losses"][0], record["losses"][-1])


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""PyTorch's training speed on the CPU for the model, batch and packing of a recipe, fp32.

Reads the sequences that `sft-run` packed (a shard stage's folder) and the shape from a
checkpoint's manifest, trains the same GPT, and prints one JSON line per case:

    python3 tests/bench/torch_cpu.py SHARDS CHECKPOINT/manifest.json --batch 8 --threads 2

Cases: eager and compiled, each with the output head on every position (what a PyTorch user gets
from `cross_entropy(ignore_index=-100)`) and on the learned positions alone (what sft-run does).
Batches are made before the clock starts. Tokens are counted without padding, as sft-run counts.
"""
import argparse
import json
import pathlib
import statistics
import struct
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def read_sequences(folder):
    """The packed training sequences: each a list of (ids, learn) samples."""
    folder = pathlib.Path(folder)
    index = (folder / "train.idx").read_bytes()
    assert index[:9] == b"MMIDIDX\0\0"
    code, count, documents = index[17], *struct.unpack_from("<QQ", index, 18)
    ids = np.fromfile(folder / "train.bin", {4: np.int32, 8: np.uint16}[code])
    learn = np.fromfile(folder / "train.mask", np.uint8)
    lengths = np.frombuffer(index, np.int32, count, 34)
    starts = np.frombuffer(index, np.int64, documents, 34 + 12 * count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    piece = lambda i: (ids[offsets[i] : offsets[i + 1]].astype(np.int64), learn[offsets[i] : offsets[i + 1]])
    return [[piece(i) for i in range(a, b)] for a, b in zip(starts[:-1], starts[1:])]


def make_batch(sequences, length):
    """Padded tensors: ids, positions, labels (-100 where nothing is learned), attention mask."""
    shape = (len(sequences), length)
    ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels, owner = torch.full(shape, -100), torch.full(shape, -1)
    for row, samples in enumerate(sequences):
        at = 0
        for number, (tokens, learn) in enumerate(samples):
            n = len(tokens) - 1
            where = slice(at, at + n)
            ids[row, where] = torch.tensor(tokens[:-1])
            positions[row, where] = torch.arange(n)
            labels[row, where] = torch.tensor(np.where(learn[1:] > 0, tokens[1:], -100))
            owner[row, where] = number
            at += n
    mask = (owner[:, None, :, None] == owner[:, None, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()
    return ids, positions, labels, mask, int((owner >= 0).sum())


class Block(nn.Module):
    def __init__(self, a):
        super().__init__()
        h, f = a["hidden_size"], a["ffn_hidden_size"]
        self.heads = a["num_attention_heads"]
        self.norm1, self.norm2 = nn.LayerNorm(h, a["layernorm_epsilon"]), nn.LayerNorm(h, a["layernorm_epsilon"])
        self.qkv, self.out = nn.Linear(h, 3 * h, a["bias"]), nn.Linear(h, h, a["bias"])
        self.up, self.down = nn.Linear(h, f, a["bias"]), nn.Linear(f, h, a["bias"])

    def forward(self, x, mask):
        b, s, h = x.shape
        q, k, v = (t.view(b, s, self.heads, -1).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(y.transpose(1, 2).reshape(b, s, h))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, a):
        super().__init__()
        h, v = a["hidden_size"], a["padded_vocab_size"]
        self.words, self.places = nn.Embedding(v, h), nn.Embedding(a["max_position_embeddings"], h)
        self.blocks = nn.ModuleList(Block(a) for _ in range(a["num_layers"]))
        self.norm = nn.LayerNorm(h, a["layernorm_epsilon"])
        self.head = nn.Linear(h, v, bias=False)
        if a["share_embeddings_and_output_weights"]:
            self.head.weight = self.words.weight
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=a["init_method_std"])

    def hidden(self, ids, positions, mask):
        x = self.words(ids) + self.places(positions)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def loss_everywhere(self, ids, positions, labels, mask):
        logits = self.head(self.hidden(ids, positions, mask))
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)

    def loss_learned(self, ids, positions, labels, mask):
        picked = (labels.flatten() >= 0).nonzero().squeeze(-1)
        x = self.hidden(ids, positions, mask).flatten(0, 1)[picked]
        return F.cross_entropy(self.head(x), labels.flatten()[picked])


def measure(a, batches, compiled, head, warm_up):
    torch.manual_seed(0)
    model = GPT(a)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    groups = [dict(params=decayed, weight_decay=0.1), dict(params=rest, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    loss_of = model.loss_everywhere if head == "all" else model.loss_learned
    if compiled:
        # The number of learned positions changes from batch to batch.
        loss_of = torch.compile(loss_of, dynamic=None if head == "all" else True)
    speeds = []
    for number, (ids, positions, labels, mask, tokens) in enumerate(batches):
        start = time.perf_counter()
        loss = loss_of(ids, positions, labels, mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        if number >= warm_up:
            speeds.append(tokens / (time.perf_counter() - start))
    return dict(
        mode="compiled" if compiled else "eager", head=head, tokens_per_second=round(statistics.median(speeds)),
        slowest=round(min(speeds)), fastest=round(max(speeds)), steps=len(speeds), loss=value,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("manifest")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--cases", default="eager-all,eager-learned,compiled-all,compiled-learned")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    a = json.loads(pathlib.Path(arguments.manifest).read_text())["header"]["architecture"]
    plain = a["position_embedding_type"] == "learned_absolute" and a["normalization"] == "layernorm" and a["activation"] == "gelu"
    assert plain, "this script knows learned positions, layernorm and gelu"
    sequences = read_sequences(arguments.shards)
    count = arguments.steps + arguments.warm_up
    order = np.random.default_rng(0).permutation(len(sequences))[: count * arguments.batch].reshape(count, -1)
    batches = [make_batch([sequences[i] for i in row], arguments.length) for row in order]
    for case in arguments.cases.split(","):
        mode, head = case.split("-")
        result = measure(a, batches, mode == "compiled", head, arguments.warm_up)
        print(json.dumps(dict(torch=torch.__version__, threads=arguments.threads) | result), flush=True)


if __name__ == "__main__":
    main()

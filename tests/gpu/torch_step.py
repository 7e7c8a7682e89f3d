#!/usr/bin/env python3
"""PyTorch's compiled training step of a GPT of about 1.3 B parameters, in rounds that others' runs go between.

    python3 tests/gpu/torch_step.py FFN bf16|autocast ROUNDS FOLDER

torch.compile, scaled_dot_product_attention, fused AdamW; `bf16` holds everything in bf16 without fp32 masters, `autocast`
holds fp32 weights. With RANK and WORLD_SIZE it is one of several processes with a GPU each (DistributedDataParallel), of
which the first writes: tokens of all of them, its own time and memory. Writes FOLDER/MODE-FFN.ready when it is compiled,
then waits for FOLDER/MODE-FFN.go.N before round N and writes FOLDER/MODE-FFN.N, a JSON object.
"""
import json, os, sys, time
import torch, torch.nn as nn, torch.nn.functional as F

VOCABULARY, LENGTH, LAYERS, HIDDEN, HEADS, MICRO_BATCH, STEPS = 50304, 2048, 24, 2048, 16, 8, 15
ffn, mode, rounds, folder = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
torch.set_float32_matmul_precision("high")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(HIDDEN) for _ in range(2))
        self.qkv, self.out = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.up, self.down = nn.Linear(HIDDEN, ffn), nn.Linear(ffn, HIDDEN)

    def forward(self, x):
        heads = [t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.qkv(self.norms[0](x)).chunk(3, -1)]
        x = x + self.out(F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norms[1](x)), approximate="tanh"))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, HIDDEN), nn.Embedding(LENGTH, HIDDEN)
        self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(LAYERS))), nn.LayerNorm(HIDDEN)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.015)

    def forward(self, ids, labels):
        x = self.blocks(self.words(ids) + self.places(torch.arange(LENGTH, device=ids.device)))
        logits = F.linear(self.norm(x), self.words.weight).float()
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


torch.manual_seed(0)
with torch.device("cuda"):
    model = Model()
if mode == "bf16":
    model = model.bfloat16()
optimizer = torch.optim.AdamW(model.parameters(), lr=6e-5, betas=(0.9, 0.95), fused=True)
rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
if ranks > 1:
    torch.distributed.init_process_group("nccl", rank=rank, world_size=ranks)
    model = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
compiled = torch.compile(model)
ids = torch.randint(0, 50257, (MICRO_BATCH, LENGTH), device="cuda")
labels = torch.roll(ids, -1, 1)


def step():
    """The time at its end, as the GPU sees it: nothing waits between steps, as in a training."""
    with torch.autocast("cuda", torch.bfloat16, enabled=mode == "autocast"):
        loss = compiled(ids, labels)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    end = torch.cuda.Event(enable_timing=True)
    end.record()
    return end


for _ in range(3):
    step()
torch.cuda.synchronize()
name = f"{folder}/{mode}-{ffn}"
if rank == 0:
    open(f"{name}.ready", "w").close()
for number in range(rounds):
    while not os.path.exists(f"{name}.go.{number}"):
        time.sleep(0.05)
    ends = [step() for _ in range(STEPS + 3)][2:]
    torch.cuda.synchronize()
    seconds = sorted(a.elapsed_time(b) / 1e3 for a, b in zip(ends, ends[1:]))[STEPS // 2]
    row = dict(step_ms=seconds * 1e3, tokens_per_second=ranks * MICRO_BATCH * LENGTH / seconds, peak_gib=torch.cuda.max_memory_allocated() / 2**30)
    if rank == 0:
        with open(f"{name}.part", "w") as file:
            json.dump(row, file)
        os.rename(f"{name}.part", f"{name}.{number}")

#!/usr/bin/env python3
"""Generation on one GPU beside transformers: 8 prompts of 128 tokens, 128 new tokens each, a GPT of 1.3 billion parameters.

    python3 tests/gpu/generation.py target/release/sft-run [OUT] [torch_baseline.py]

Greedy tokens in fp32 must be the CPU's (a small model); the rates are medians of three in bf16. A call's rate holds what a GPU does
once (loading kernels, choosing products); the rate that follows, taken from calls of four rounds and of one, does not, as
transformers' second call does not. Writes OUT/generation.jsonl.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
OUT = os.path.abspath(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
BINARY = os.path.abspath(sys.argv[1])
WORK = tempfile.mkdtemp(prefix="generation-")
os.makedirs(OUT, exist_ok=True)

SMALL = ["model.num_layers=4", "model.hidden_size=256", "model.ffn_hidden_size=1024", "model.num_attention_heads=4"]
RECIPE = """\
name: generation
restore_from_path: null
trainer: {devices: 1, num_nodes: 1, accelerator: cpu, precision: 32, max_steps: 1}
model:
  global_batch_size: 8
  micro_batch_size: 8
  encoder_seq_length: 2048
  max_position_embeddings: 2048
  num_layers: 24
  hidden_size: 2048
  ffn_hidden_size: 8192
  num_attention_heads: 16
  init_method_std: 0.015
  make_vocab_size_divisible_by: 50304
  seed: 1234
  tokenizer: {library: huggingface, type: TOKENIZER}
stages:
  tokenize: {tokenize: {sources: [{rows: ROWS, tasks: [{name: text, prompt: "", answer: "{{ prompt }}"}]}]}}
  load: {load: {}}
"""


def record(**row):
    print(json.dumps(row), flush=True)
    with open(os.path.join(OUT, "generation.jsonl"), "a") as file:
        file.write(json.dumps(row) + "\n")


def call(*arguments):
    done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=300, cwd=WORK)
    if done.returncode != 0:
        record(failed=list(arguments)[:3], text=(done.stdout + done.stderr)[-1500:])
        sys.exit(1)
    return done


def prompts():
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(os.path.join(ROOT, "recipes/data/tokenizer.json"))
    with open(os.path.join(ROOT, "recipes/data/wordnet_nouns.jsonl")) as file:
        words = [json.loads(line) for line in file]
    path = os.path.join(WORK, "prompts.jsonl")
    with open(path, "w") as file:
        for row in range(8):
            text = " ".join(word["gloss"] for word in words[row * 100:row * 100 + 60])
            ids = tokenizer.encode(text, add_special_tokens=False).ids[:128]
            file.write(json.dumps({"prompt": tokenizer.decode(ids)}) + "\n")
    return path


def load(*settings):
    """A checkpoint of start values with its tokenizer."""
    recipe = os.path.join(WORK, "recipe.yaml")
    with open(recipe, "w") as file:
        file.write(RECIPE.replace("TOKENIZER", os.path.join(ROOT, "recipes/data/tokenizer.json")).replace("ROWS", asked))
    cache = tempfile.mkdtemp(dir=WORK)
    outputs = {}
    for stage in ("tokenize", "load"):
        call("run", recipe, *settings, "--to", stage, "--cache-dir", cache)
        (folder,) = os.listdir(os.path.join(cache, stage))
        outputs[stage] = os.path.join(cache, stage, folder, "output")
    shutil.copytree(os.path.join(outputs["tokenize"], "tokenizer"), os.path.join(outputs["load"], "tokenizer"))
    return outputs["load"]


def generate(model, *more, file=None):
    """Token ids of each prompt, and new tokens per second."""
    done = call("--json", "generate", model, "--prompts", file or asked, "--min-length", "128", "--max-length", "128",
                "--batch-size", "8", *more)
    return [one["token_ids"] for one in json.loads(done.stdout)], float(re.search(r": ([\d.]+) a second", done.stderr)[1])


def speed(model, *more):
    """One round: its rate. Three rounds more: theirs."""
    tokens, rate = generate(model, *more)
    again, of_four = generate(model, *more, file=rounds)
    assert again == tokens * 4, "a round differs from the first"
    return rate, 3 / (4 / of_four - 1 / rate)


asked = prompts()
rounds = os.path.join(WORK, "rounds.jsonl")
with open(asked) as one, open(rounds, "w") as four:
    four.write(one.read() * 4)
small = load(*SMALL)
cpu, gpu, halves = (generate(small, *more)[0] for more in (
    (), ("--accelerator", "gpu", "--precision", "32"), ("--accelerator", "gpu")))
record(part="greedy", equal=cpu == gpu, tokens=sum(map(len, cpu)),
       equal_in_bf16=sum(a == b for one, other in zip(cpu, halves) for a, b in zip(one, other)))
large = load()
for precision, times in (("bf16", 3), ("32", 1)):
    rates, after = zip(*(speed(large, "--accelerator", "gpu", "--precision", precision) for _ in range(times)))
    record(part="speed", precision=precision, tokens_per_second=sorted(rates)[times // 2], all=rates,
           after_the_first_round=round(sorted(after)[times // 2]), all_after=[round(one) for one in after])
if len(sys.argv) > 3:
    done = subprocess.run([sys.executable, sys.argv[3], "hf-generate"], capture_output=True, text=True)
    for line in done.stdout.splitlines():
        record(part="transformers", **json.loads(line))
sys.exit(0 if cpu == gpu else 1)

#!/usr/bin/env python3
"""Layouts over two GPUs against one: losses of 20 steps, a rank that fails, two processes of a GPU each, and speed.

    python3 tests/gpu/several.py target/release/sft-run [OUT] [PART …]

PART is any of `losses`, `fault`, `nodes`, `speed` (all without one). Needs two GPUs and the libraries that
.ci/cuda/libraries.sh finds. Writes OUT/several.jsonl (a line per measurement) and OUT/several.log, and ends with 1
when a loss is further from one GPU's than 1e-5 (fp32) or 1e-2 (bf16), or a rank that fails or a process that is killed is not told within a minute.
"""
import json
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BINARY = os.path.abspath(sys.argv[1])
OUT = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else tempfile.mkdtemp()
PARTS = sys.argv[3:] or ["losses", "fault", "nodes", "speed"]
WORK = tempfile.mkdtemp(prefix="several-")
os.makedirs(OUT, exist_ok=True)
LOG = open(os.path.join(OUT, "several.log"), "w")
failed = []


def record(**row):
    print(json.dumps(row), flush=True)
    with open(os.path.join(OUT, "several.jsonl"), "a") as file:
        file.write(json.dumps(row) + "\n")


def run(*arguments, limit=120):
    """Exit code (124 when it hangs), output, seconds."""
    started = time.time()
    try:
        done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=limit, cwd=WORK)
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        text = lambda part: part.decode(errors="replace") if isinstance(part, bytes) else part or ""
        code, out, err = 124, text(late.stdout), text(late.stderr)
    LOG.write(f"$ sft-run {' '.join(arguments)}\n{out}\n{err}\n= {code}, {time.time() - started:.1f} s\n\n")
    LOG.flush()
    return code, out + err, time.time() - started


LAYOUTS = {
    "one": ["trainer.devices=1"],
    "DP2": ["trainer.devices=2"],
    "TP2": ["trainer.devices=2", "model.tensor_model_parallel_size=2"],
    "TP2 sequence": ["trainer.devices=2", "model.tensor_model_parallel_size=2", "++model.sequence_parallel=true"],
    "PP2": ["trainer.devices=2", "model.pipeline_model_parallel_size=2"],
    "PP2 virtual": ["trainer.devices=2", "model.pipeline_model_parallel_size=2",
                    "++model.virtual_pipeline_model_parallel_size=2"],
}
FORMATS = {
    "fp32": (["trainer.precision=32"], 1e-5),
    "bf16": (["trainer.precision=bf16", "++model.megatron_amp_O2=true"], 1e-2),
}
SMALL = [os.path.join(ROOT, "recipes/quickstart.yaml"), "trainer.accelerator=gpu", "trainer.max_steps=20",
         "trainer.val_check_interval=0", "model.hidden_size=256", "model.num_attention_heads=8",
         "model.micro_batch_size=2", "--cache-dir", os.path.join(WORK, "cache"), "--to", "train"]


def train(name, *more, limit=120):
    folder = os.path.join(WORK, "runs", name)
    return folder, *run("run", *SMALL, f"++exp_manager.explicit_log_dir={folder}", *more, limit=limit)


def losses():
    for form, (settings, bound) in FORMATS.items():
        reference = None
        for layout, place in LAYOUTS.items():
            folder, code, text, seconds = train(f"{form}-{layout}".replace(" ", "-"), *settings, *place)
            row = dict(part="losses", format=form, layout=layout, code=code, seconds=round(seconds, 1))
            if code == 0:
                with open(os.path.join(folder, "metrics.jsonl")) as file:
                    rows = [json.loads(line) for line in file]
                found = [one["reduced_train_loss"] for one in rows if "reduced_train_loss" in one]
                if reference is None:
                    reference = found
                row |= dict(steps=len(found), first=found[0], last=found[-1],
                            largest=max(abs(a - b) for a, b in zip(found, reference)))
            if code != 0 or len(found) != 20 or row["largest"] > bound:
                failed.append(row)
                row["text"] = text[-1500:]
            record(**row)


def fault():
    for layout in ("DP2", "TP2", "PP2"):
        for kind in ("error", "panic"):
            _, code, text, seconds = train(f"fault-{layout}-{kind}", "trainer.precision=bf16", *LAYOUTS[layout],
                                           "--inject-fault", f"1:5:{kind}", "--no-cache", limit=60)
            row = dict(part="fault", layout=layout, kind=kind, code=code, seconds=round(seconds, 1))
            if code != 1 or "rank 1 of 2 failed" not in text:
                failed.append(row)
                row["text"] = text[-1500:]
            record(**row)


def start(node, name, *more):
    """A process of two, with a GPU of its own."""
    folder = os.path.join(WORK, "runs", name)
    place = dict(NNODES="2", NODE_RANK=str(node), MASTER_ADDR="127.0.0.1", MASTER_PORT="29517",
                 CUDA_VISIBLE_DEVICES=str(node), SFT_RUN_NODE_TIMEOUT="120")
    arguments = ["run", *SMALL, "trainer.num_nodes=2", f"++exp_manager.explicit_log_dir={folder}", "--no-cache", *more]
    return folder, subprocess.Popen([BINARY, *arguments], cwd=WORK, env=os.environ | place, text=True,
                                    stdout=LOG, stderr=subprocess.PIPE)


def steps(folder):
    try:
        with open(os.path.join(folder, "metrics.jsonl")) as file:
            return [one["reduced_train_loss"] for one in map(json.loads, file) if "reduced_train_loss" in one]
    except FileNotFoundError:
        return []


def nodes():
    for form, (settings, bound) in FORMATS.items():
        one, *_ = train(f"nodes-{form}-one", *settings, "trainer.devices=1")
        reference = steps(one)
        for layout in ("DP2", "TP2", "PP2"):
            more = [*settings, *LAYOUTS[layout][1:], "trainer.devices=1"]
            started = time.time()
            both = [start(node, f"nodes-{form}-{layout}", *more) for node in (0, 1)]
            told = []
            for _, process in both:
                try:
                    told.append(process.communicate(timeout=120)[1])
                except subprocess.TimeoutExpired:
                    process.kill()
                    told.append("it hangs")
            found = steps(both[0][0])
            row = dict(part="nodes", format=form, layout=layout, codes=[process.returncode for _, process in both],
                       seconds=round(time.time() - started, 1), steps=len(found))
            if found and len(found) == len(reference):
                row["largest"] = max(abs(a - b) for a, b in zip(found, reference))
            if row["codes"] != [0, 0] or row.get("largest", 1.0) > bound:
                failed.append(row)
                row["text"] = " | ".join(text[-1500:] for text in told)
            record(**row)
    for killed in (0, 1):
        more = ["trainer.precision=bf16", "trainer.devices=1", "trainer.max_steps=100000"]
        both = [start(node, f"nodes-killed-{killed}", *more) for node in (0, 1)]
        began = time.time()
        while len(steps(both[0][0])) < 5 and time.time() - began < 120:
            time.sleep(0.1)
        both[killed][1].kill()
        since = time.time()
        try:
            text = both[1 - killed][1].communicate(timeout=60)[1]
        except subprocess.TimeoutExpired:
            both[1 - killed][1].kill()
            text = "it hangs"
        code = both[1 - killed][1].returncode
        row = dict(part="nodes", killed=killed, code=code, seconds=round(time.time() - since, 1))
        if code != 1 or f"node {killed}: it is lost" not in text:
            failed.append(row)
            row["text"] = text[-1500:]
        record(**row)


LARGE = """\
name: large
restore_from_path: null
trainer: {devices: 1, num_nodes: 1, accelerator: gpu, precision: bf16, max_steps: 20, gradient_clip_val: 1.0}
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
  hidden_dropout: 0.0
  attention_dropout: 0.0
  ffn_dropout: 0.0
  make_vocab_size_divisible_by: 50304
  megatron_amp_O2: true
  seed: 1234
  tokenizer: {library: huggingface, type: TOKENIZER}
  data: {seq_length: 2048, dataloader_type: cyclic}
  optim: {name: distributed_fused_adam, lr: 6e-5, weight_decay: 0.1, betas: [0.9, 0.95]}
stages:
  tokenize: {tokenize: {sources: [{rows: ROWS, tasks: [{name: text, prompt: "", answer: "{{ text }}"}]}]}}
  shard: {shard: {data: tokenize, packing: false}}
  load: {load: {}}
  train: {train: {data: shard, model: load}}
"""


def prepare():
    """A recipe of 1.3 billion parameters whose every sequence is 2,048 tokens of WordNet, every one learned."""
    with open(os.path.join(ROOT, "recipes/data/wordnet_nouns.jsonl")) as file:
        words = [json.loads(line) for line in file]
    texts = [f"{word['term']}: {word['gloss']}" for word in words]
    rows, each = os.path.join(WORK, "rows.jsonl"), 400
    with open(rows, "w") as file:
        for row in range(256):
            start = row * 37 % len(texts)
            file.write(json.dumps({"text": " ".join((texts + texts)[start:start + each])}) + "\n")
    recipe = os.path.join(WORK, "large.yaml")
    with open(recipe, "w") as file:
        file.write(LARGE.replace("TOKENIZER", os.path.join(ROOT, "recipes/data/tokenizer.json")).replace("ROWS", rows))
    for stage in ("shard", "load"):
        code, text, seconds = run("run", recipe, "--to", stage, "--cache-dir", os.path.join(WORK, "cache"), limit=300)
        record(part="speed", stage=stage, code=code, seconds=round(seconds, 1), text="" if code == 0 else text[-1500:])
        if code != 0:
            failed.append(stage)
            return None
    return recipe


def speed():
    recipe = prepare()
    if recipe is None:
        return
    cases = {
        "one": ["model.global_batch_size=8"],
        "DP2": [*LAYOUTS["DP2"], "model.global_batch_size=16"],
        "TP2": [*LAYOUTS["TP2"], "model.global_batch_size=8"],
        "TP2 sequence": [*LAYOUTS["TP2 sequence"], "model.global_batch_size=8"],
        "PP2": [*LAYOUTS["PP2"], "model.global_batch_size=32", "model.micro_batch_size=4"],
        "one again": ["model.global_batch_size=8"],
    }
    for name, settings in cases.items():
        code, text, seconds = run("bench", recipe, *settings, "--cache-dir", os.path.join(WORK, "cache"), "--steps", "12",
                                  "--warmup", "4", "--json", limit=200)
        row = dict(part="speed", layout=name, code=code, seconds=round(seconds, 1))
        if code == 0:
            found = json.loads(text[text.index("{"):text.rindex("}") + 1])
            row |= {key: found.get(key) for key in ("tokens_per_second", "seconds_per_step", "peak_memory_bytes", "loss")}
        else:
            failed.append(row)
            row["text"] = text[-1500:]
        record(**row)


for part in PARTS:
    {"losses": losses, "fault": fault, "nodes": nodes, "speed": speed}[part]()
record(part="end", failed=len(failed))
sys.exit(1 if failed else 0)

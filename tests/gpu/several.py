#!/usr/bin/env python3
"""Layouts over several ranks against one: losses of 20 steps, a rank that fails, processes that meet, and speed.

    python3 tests/gpu/several.py target/release/sft-run [OUT] [PART …]

PART is any of `losses`, `fault`, `speed` (threads of one process, a GPU each), `nodes`, `killed` and `whole` (two or four
processes of one rank each, which meet as nodes do); all without one. `peer` beside `speed` lets PyTorch take turns with
it (torch_step.py, DistributedDataParallel), `channels` tries data parallelism with other numbers of NCCL's blocks.
Needs two GPUs, or one for nodes, killed and whole, whose processes then share it, and the libraries that
.ci/cuda/libraries.sh finds. Writes OUT/several.jsonl (a line per measurement) and OUT/several.log, and ends with 1 when a
loss is further from one rank's than 1e-5 (fp32) or 1e-2 (bf16), a greedy text is another one's, or a rank that fails or
a process that is killed is not told within a minute.
"""
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BINARY = os.path.abspath(sys.argv[1])
OUT = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else tempfile.mkdtemp()
PARTS = sys.argv[3:] or ["losses", "fault", "nodes", "killed", "whole", "speed"]
ON = os.environ.get("SFT_ACCELERATOR", "gpu")  # `cpu` rehearses this script on a machine without GPUs, as if it had two
GPUS = 2 if ON == "cpu" else len(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout.splitlines())
WORK = tempfile.mkdtemp(prefix="several-")
BEGAN = time.time()
os.makedirs(OUT, exist_ok=True)
LOG = open(os.path.join(OUT, "several.log"), "a")
failed = []


def record(**row):
    row["at"] = round(time.time() - BEGAN)
    print(json.dumps(row), flush=True)
    with open(os.path.join(OUT, "several.jsonl"), "a") as file:
        file.write(json.dumps(row) + "\n")


def run(*arguments, limit=60, env=None):
    """Exit code (124 when it hangs), output, seconds."""
    started = time.time()
    try:
        done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=limit, cwd=WORK,
                              env=os.environ | (env or {}))
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
# At the quickstart's own learning rate 20 steps of a model this wide part by themselves: two micro-batch sizes on one
# CPU differ by 3e-5 (fp32) and 3e-2 (bf16) after step 16.
SMALL = [os.path.join(ROOT, "recipes/quickstart.yaml"), f"trainer.accelerator={ON}", "trainer.max_steps=20",
         "trainer.val_check_interval=0", "model.hidden_size=256", "model.num_attention_heads=8",
         "model.micro_batch_size=2", "model.optim.lr=3e-4", "--cache-dir", os.path.join(WORK, "cache")]


def train(name, *more, limit=60):
    folder = os.path.join(WORK, "runs", name)
    return folder, *run("run", *SMALL, "--to", "train", f"++exp_manager.explicit_log_dir={folder}", *more, limit=limit)


def losses():
    for form, (settings, bound) in FORMATS.items():
        reference = None
        for layout, place in LAYOUTS.items():
            folder, code, text, seconds = train(f"{form}-{layout}".replace(" ", "-"), *settings, *place)
            row = dict(part="losses", format=form, layout=layout, code=code, seconds=round(seconds, 1))
            if code == 0:
                found = steps(folder)
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


def start(node, count, name, *more, stages=("--to", "train")):
    """A process of `count`, with a GPU of its own where there are enough.

    NCCL takes one rank a GPU and host. Where GPUs are shared, each process says that it is a host of its own: what
    passes between them goes through sockets then, as between nodes.
    """
    folder = os.path.join(WORK, "runs", name)
    place = dict(NNODES=str(count), NODE_RANK=str(node), MASTER_ADDR="127.0.0.1", MASTER_PORT="29517",
                 CUDA_VISIBLE_DEVICES=str(node % GPUS), SFT_RUN_NODE_TIMEOUT="120")
    if count > GPUS:
        place |= dict(NCCL_HOSTID=f"node{node}", NCCL_SOCKET_IFNAME="lo")
    arguments = ["run", *SMALL, f"trainer.num_nodes={count}", "trainer.devices=1",
                 f"++exp_manager.explicit_log_dir={folder}", "--no-cache", *stages, *more]
    return folder, subprocess.Popen([BINARY, *arguments], cwd=WORK, env=os.environ | place, text=True,
                                    stdout=LOG, stderr=subprocess.PIPE)


def told(processes, limit):
    """What each process says to the end, or that it hangs (it is killed then)."""
    texts, until = [], time.time() + limit
    for process in processes:
        try:
            texts.append(process.communicate(timeout=max(1, until - time.time()))[1])
        except subprocess.TimeoutExpired:
            process.kill()
            texts.append(process.communicate()[1] + "\nit hangs")
    return texts


def steps(folder):
    try:
        with open(os.path.join(folder, "metrics.jsonl")) as file:
            return [one["reduced_train_loss"] for one in map(json.loads, file) if "reduced_train_loss" in one]
    except FileNotFoundError:
        return []


TOGETHER = {
    "DP2": (2, []),
    "TP2": (2, LAYOUTS["TP2"][1:]),
    "TP2 sequence": (2, LAYOUTS["TP2 sequence"][1:]),
    "PP2": (2, LAYOUTS["PP2"][1:]),
    "PP2 virtual": (2, LAYOUTS["PP2 virtual"][1:]),
    "TP2 DP2": (4, LAYOUTS["TP2 sequence"][1:]),
    "PP2 DP2": (4, LAYOUTS["PP2"][1:]),
    "TP2 PP2": (4, [*LAYOUTS["TP2 sequence"][1:], *LAYOUTS["PP2"][1:]]),
}


def nodes():
    for form, (settings, bound) in FORMATS.items():
        one, *_ = train(f"nodes-{form}-one", *settings, "trainer.devices=1")
        reference = steps(one)
        for layout, (count, place) in TOGETHER.items():
            name, started = f"nodes-{form}-{layout}".replace(" ", "-"), time.time()
            all_of_them = [start(node, count, name, *settings, *place) for node in range(count)]
            texts = told([process for _, process in all_of_them], 60)
            found = steps(all_of_them[0][0])
            codes = [process.returncode for _, process in all_of_them]
            row = dict(part="nodes", gpus=min(GPUS, count), format=form, layout=layout, codes=codes,
                       seconds=round(time.time() - started, 1), steps=len(found))
            if found and len(found) == len(reference):
                row |= dict(first=found[0], last=found[-1], largest=max(abs(a - b) for a, b in zip(found, reference)))
            if any(codes) or row.get("largest", 1.0) > bound:
                failed.append(row)
                row["text"] = " | ".join(text[-1500:] for text in texts)
            record(**row)


def whole():
    """Training, evaluation and generation: what the evaluations measure and say greedily is what one rank does."""
    more = ["trainer.precision=32", "stages.untrained.evaluate.limit=20", "stages.evaluate.evaluate.limit=100"]
    found = {}
    for layout, (count, place) in {"one": (1, []), **{name: TOGETHER[name] for name in ("DP2", "TP2", "PP2")}}.items():
        name, started = f"whole-{layout}", time.time()
        if count == 1:
            folder = os.path.join(WORK, "runs", name)
            code, text, _ = run("run", *SMALL, "trainer.devices=1", f"++exp_manager.explicit_log_dir={folder}", *more)
            codes, texts = [code], [text]
        else:
            both = [start(node, count, name, *more, *place, stages=()) for node in range(count)]
            folder, texts = both[0][0], told([process for _, process in both], 90)
            codes = [process.returncode for _, process in both]
        row = dict(part="whole", gpus=min(GPUS, count), layout=layout, codes=codes, seconds=round(time.time() - started, 1))
        if not any(codes):
            with open(os.path.join(folder, "summary.json")) as file:
                stages = {stage["name"]: stage for stage in json.load(file)["stages"]}
            with open(os.path.join(folder, "samples.jsonl")) as file:
                rows = [json.loads(line) for line in file]
            said = [sample["output"] for sample in rows if sample["stage"] in ("evaluate", "kinds")]
            found[layout] = (stages["evaluate"]["metrics"]["loss"], said)
            (loss, said), (expected, texts_of_one) = found[layout], found.get("one", (1e9, []))
            row |= dict(loss=loss, off=abs(loss - expected), texts=len(said),
                        other=sum(a != b for a, b in zip(said, texts_of_one)))
        if any(codes) or row["off"] > 1e-5 or row["other"] or not row["texts"]:
            failed.append(row)
            row["text"] = " | ".join(text[-1500:] for text in texts)
        record(**row)


def killed():
    more = ["trainer.precision=bf16", "trainer.max_steps=100000"]
    for layout in ("DP2", "PP2"):
        for victim in (0, 1):
            both = [start(node, 2, f"killed-{layout}-{victim}", *more, *LAYOUTS[layout][1:]) for node in (0, 1)]
            began = time.time()
            while len(steps(both[0][0])) < 5 and time.time() - began < 60:
                time.sleep(0.1)
            both[victim][1].kill()
            since, other = time.time(), both[1 - victim][1]
            [text] = told([other], 60)
            row = dict(part="killed", gpus=min(GPUS, 2), layout=layout, killed=victim, steps=len(steps(both[0][0])),
                       code=other.returncode, seconds=round(time.time() - since, 1))
            if row["code"] != 1 or row["steps"] < 5 or f"node {victim}: it is lost" not in text:
                failed.append(row)
                row["text"] = text[-1500:]
            record(**row)


LARGE = """\
name: large
restore_from_path: null
trainer: {devices: 1, num_nodes: 1, accelerator: ACCELERATOR, precision: bf16, max_steps: 20, gradient_clip_val: 1.0}
model:
  global_batch_size: 8
  micro_batch_size: 8
  tensor_model_parallel_size: 1
  pipeline_model_parallel_size: 1
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


CACHE = ["--cache-dir", os.path.join(WORK, "cache")]
RECIPE = os.path.join(WORK, "large.yaml")
SHAPE = os.environ.get("SFT_OVERRIDES", "").split()


def prepare():
    """Makes what RECIPE trains on: 1.3 billion parameters, sequences of 2,048 tokens of WordNet, every one learned."""
    with open(os.path.join(ROOT, "recipes/data/wordnet_nouns.jsonl")) as file:
        words = [json.loads(line) for line in file]
    texts = [f"{word['term']}: {word['gloss']}" for word in words]
    rows, each = os.path.join(WORK, "rows.jsonl"), 400
    with open(rows, "w") as file:
        for row in range(256):
            start = row * 37 % len(texts)
            file.write(json.dumps({"text": " ".join((texts + texts)[start:start + each])}) + "\n")
    tokenizer = os.path.join(ROOT, "recipes/data/tokenizer.json")
    with open(RECIPE, "w") as file:
        file.write(LARGE.replace("TOKENIZER", tokenizer).replace("ROWS", rows).replace("ACCELERATOR", ON))
    for stage in ("shard", "load"):
        code, text, seconds = run("run", RECIPE, "--to", stage, *CACHE, *SHAPE, limit=300)
        record(part="speed", stage=stage, code=code, seconds=round(seconds, 1), text="" if code == 0 else text[-1500:])
        if code != 0:
            failed.append(stage)
            return
    PREPARED.set()


def bench(name, settings, **env):
    code, text, seconds = run("bench", RECIPE, *settings, *CACHE, *SHAPE, "--steps", "12", "--warmup", "4", "--json",
                              limit=100, env=env)
    row = dict(part="speed", layout=name, code=code, seconds=round(seconds, 1), **env)
    if code == 0:
        found = json.loads(text[text.index("{"):text.rindex("}") + 1])
        row |= {key: found.get(key) for key in ("tokens_per_second", "seconds_per_step", "seconds_by_part",
                                                "peak_memory_bytes", "loss")}
    else:
        failed.append(row)
        row["text"] = text[-1500:]
    record(**row)
    return row.get("tokens_per_second", float("nan"))


def each_alone():
    """Tokens per second of each GPU, with a training of its own at the same time as the other's."""
    rates = {}

    def one(gpu):
        rates[gpu] = bench("one", ["model.global_batch_size=8"], CUDA_VISIBLE_DEVICES=str(gpu))

    threads = [threading.Thread(target=one, args=(gpu,)) for gpu in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [rates[0], rates[1]]


def begin_peer():
    """PyTorch's two processes, which compile meanwhile."""
    place = dict(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="29519")
    return [subprocess.Popen([sys.executable, os.path.join(HERE, "torch_step.py"), "8192", "bf16", "1", WORK],
                             env=os.environ | place | dict(RANK=str(gpu), CUDA_VISIBLE_DEVICES=str(gpu)),
                             stdout=LOG, stderr=LOG) for gpu in (0, 1)]


def wait_for(path, processes, limit=60):
    """Whether the file comes; the processes that were to write it are ended otherwise."""
    until = time.time() + limit
    while not os.path.exists(path):
        if time.time() > until or any(process.poll() for process in processes):
            record(part="speed", peer="PyTorch", missing=os.path.basename(path))
            failed.append("peer")
            while processes:
                processes.pop().kill()
            return False
        time.sleep(0.05)
    return True


def speed():
    data = [*LAYOUTS["DP2"], "model.global_batch_size=16"]
    PREPARING.join()
    if not PREPARED.is_set():
        failed.append("nothing to train on")
        return
    name = os.path.join(WORK, "bf16-8192")
    if PEER:
        wait_for(f"{name}.ready", PEER)
    alone, both = [each_alone()], [bench("DP2", data)]
    if "channels" in PARTS:
        for most in ("4", "8", "16"):
            bench("DP2", data, NCCL_MAX_CTAS=most)
    both.append(bench("DP2", data))
    alone.append(each_alone())
    # Both steps end when the slower GPU's does, so what could be reached is twice that one.
    together, slower = (sum(map(how, alone)) for how in (sum, lambda rates: 2 * min(rates)))
    record(part="speed", data_parallel=[round(rate) for rate in both], each_alone=[[round(rate) for rate in pair] for pair in alone],
           share_of_both=round(sum(both) / together, 4), share_of_twice_the_slower=round(sum(both) / slower, 4))
    if PEER:
        open(f"{name}.go.0", "w").close()
        if wait_for(f"{name}.0", PEER):
            with open(f"{name}.0") as file:
                record(part="speed", peer="PyTorch, DDP, torch.compile, pure bf16", **json.load(file))
    # The vocabulary is padded to a multiple of this for each tensor rank: 50,304 again.
    halves = ["model.global_batch_size=8", "model.make_vocab_size_divisible_by=25152"]
    bench("TP2 sequence", [*LAYOUTS["TP2 sequence"], *halves])
    bench("PP2", [*LAYOUTS["PP2"], "model.global_batch_size=32", "model.micro_batch_size=4"])
    bench("TP2", [*LAYOUTS["TP2"], *halves])


WORK_OF = {"losses": losses, "fault": fault, "nodes": nodes, "killed": killed, "whole": whole, "speed": speed}
WITH_SPEED = {"peer", "channels"}
if unknown := set(PARTS) - set(WORK_OF) - (WITH_SPEED if "speed" in PARTS else set()):
    sys.exit(f"no part {', '.join(sorted(unknown))}: there are {', '.join(WORK_OF)}, and with speed {', '.join(WITH_SPEED)}")
if GPUS < 2 and set(PARTS) - {"nodes", "killed", "whole"}:
    sys.exit(f"{GPUS} GPU: only nodes, killed and whole can share it; the other parts need two")
PREPARING, PREPARED, PEER = threading.Thread(target=prepare), threading.Event(), []
if "speed" in PARTS:
    PREPARING.start()
    PEER = begin_peer() if "peer" in PARTS else []
try:
    for part in PARTS:
        if part in WORK_OF:
            WORK_OF[part]()
finally:
    for process in PEER:
        process.kill()
record(part="end", failed=len(failed))
sys.exit(1 if failed else 0)

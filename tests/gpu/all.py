#!/usr/bin/env python3
"""Everything that is to be shown on one GPU, in one go: right first, then fast.

    .ci/cuda/kernels.sh target/libsft_kernels.so        # where nvcc is
    python3 tests/gpu/all.py target/release/sft-run target/libsft_kernels.so GPT2 OUT [STEP ...]

GPT2 is a folder with GPT-2's vocab.json and merges.txt. OUT gets a log of each step and tables.md; the exit code is 1 when a
step fails. Steps, all of them when none is named:

    kernels   every kernel against f64 (kernels.py)
    same      20 steps in fp32 on GPU and CPU to 1e-4, with the same greedy tokens; bf16 twice with the same bits, and near fp32
    beside    tokens/s, memory and parts of a step at 1.3 B parameters, in turns with torch.compile (torch_step.py), for
              ffn 8192 and 3072; beside:3072 for one of them
    alone     the same without PyTorch, once (only when it is named)
    mission   recipes/megatron_1.3b.yaml from rows to generated text on one GPU; its speed beside `bench`
    formats   200 steps of a GPT of 124 M parameters in bf16 and fp32, plotted (formats.svg)
"""
import json, os, pathlib, subprocess, sys, time
from statistics import median

HERE = pathlib.Path(__file__).resolve().parent
RECIPES = HERE.parent.parent / "recipes"
PROGRAM, KERNELS, GPT2, OUT = (pathlib.Path(a).resolve() for a in sys.argv[1:5])
WANT = sys.argv[5:] or ["kernels", "same", "beside", "mission", "formats"]
ON = os.environ.get("SFT_ACCELERATOR", "gpu")  # `cpu` rehearses this script without a GPU
OUT.mkdir(parents=True, exist_ok=True)
CACHE = ["--cache-dir", OUT / "cache"]
WORDNET = """
        - rows: %s
          split: {by: gloss, validation: 0.01, test: 0.04}
          tasks:
            - {name: kind, prompt: "{{ term }}: {{ gloss }} kind:", answer: " {{ kind }}"}
            - {name: define, prompt: "define {{ term }}:", answer: " {{ gloss }}", share: 0.1}
""" % (RECIPES / "data/wordnet_nouns.jsonl")
BASE = f"""extends: {RECIPES}/megatron_1.3b.yaml
model:
  tokenizer: {{vocab_file: {GPT2}/vocab.json, merge_file: {GPT2}/merges.txt}}
  data: {{data_prefix: null, data_impl: null, splits_string: null}}
"""
TRAIN = "  load: {load: {}}\n  train: {train: {data: shard, model: load}}\n"


def sft(log, *arguments):
    """Runs the program; its output goes to a log."""
    started = time.perf_counter()
    with open(OUT / f"{log}.log", "a") as file:
        done = subprocess.run([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=file, text=True)
        file.write(done.stdout)
    if done.returncode:
        raise SystemExit(f"{log}: exit code {done.returncode}, see {OUT / log}.log")
    return done.stdout, time.perf_counter() - started


def tell(text):
    print(text, flush=True)
    with open(OUT / "tables.md", "a") as file:
        file.write(text + "\n")


def lines(folder, name="metrics.jsonl"):
    return [json.loads(line) for line in open(folder / name)]


def losses(folder):
    return [row["reduced_train_loss"] for row in lines(folder) if "reduced_train_loss" in row]


def trained(name, recipe, *overrides, to="train"):
    """A run's folder."""
    folder = OUT / name
    sft(name, "run", recipe, "--to", to, "--no-cache", *CACHE, f"++exp_manager.explicit_log_dir={folder}", *overrides)
    return folder


def kernels():
    with open(OUT / "kernels.log", "w") as log:
        done = subprocess.run([sys.executable, HERE / "kernels.py", KERNELS], stdout=log, stderr=subprocess.STDOUT)
    text = (OUT / "kernels.log").read_text().splitlines()
    tell(f"kernels: {sum(line.startswith('ok ') for line in text)} checks passed, {sum(line.startswith('BAD') for line in text)} failed")
    if done.returncode:
        raise SystemExit("kernels.py failed")


def same():
    recipe, small = RECIPES / "quickstart.yaml", ["trainer.max_steps=20", "model.hidden_size=256", "trainer.val_check_interval=20"]
    runs = {on: trained(f"fp32-{on}", recipe, f"trainer.accelerator={on}", *small, to="kinds") for on in dict.fromkeys(("cpu", ON))}
    a, b = losses(runs["cpu"]), losses(runs[ON])
    worst = max(abs(x - y) for x, y in zip(a, b))
    texts = [[row.get("output") for row in lines(folder, "samples.jsonl")] for folder in (runs["cpu"], runs[ON])]
    # Wide enough for the products that take the activation in, and slow enough that rounding stays small.
    wide = [f"trainer.accelerator={ON}", *small, "model.ffn_hidden_size=8192", "model.optim.lr=3e-4"]
    half = ["trainer.precision=bf16", "+model.megatron_amp_O2=true", *wide]
    twice = [losses(trained(f"bf16-{n}", recipe, *half)) for n in (1, 2)]
    off = max(abs(x - y) for x, y in zip(twice[0], losses(trained("fp32-wide", recipe, *wide))))
    tell(f"same: fp32 on {ON} and cpu, {len(b)} steps: losses differ by {worst:.1e} at most; greedy texts {'equal' if texts[0] == texts[1] else 'DIFFER'}; bf16 twice {'equal bits' if twice[0] == twice[1] else 'DIFFERENT BITS'}, from fp32 by {off:.1e} at most")
    if len(a) != 20 or len(a) != len(b) or worst > 1e-4 or texts[0] != texts[1] or twice[0] != twice[1] or off > 0.02:
        raise SystemExit("same: failed")


def long_recipe():
    """Sequences of 2,049 tokens without padding, every token learned: what PyTorch's step gets."""
    text, rows = "", 0
    with open(OUT / "long.jsonl", "w") as file:
        for line in open(RECIPES / "data/wordnet_nouns.jsonl"):
            row = json.loads(line)
            text += f"{row['term']}: {row['gloss']}. "
            if len(text) > 12000:
                file.write(json.dumps({"text": text}) + "\n")
                text, rows = "", rows + 1
            if rows == 320:
                break
    source = f'\n        - {{rows: {OUT}/long.jsonl, tasks: [{{name: text, prompt: "", answer: "{{{{ text }}}}"}}]}}\n'
    stages = f"stages:\n  tokenize:\n    tokenize:\n      sources:{source}  shard: {{shard: {{data: tokenize}}}}\n{TRAIN}"
    length = "  global_batch_size: 8\n  micro_batch_size: 8\n  encoder_seq_length: 2049\n  max_position_embeddings: 2049\n"
    recipe = OUT / "long.yaml"
    recipe.write_text(BASE.replace("splits_string: null", "splits_string: null, seq_length: 2049") + length + stages)
    return recipe


def bench(log, recipe, *overrides):
    text, _ = sft(log, "bench", recipe, "--steps", "15", "--warmup", "3", "--json", *CACHE, f"trainer.accelerator={ON}", "trainer.devices=1", *overrides)
    return json.loads(text)


def parts(run):
    return "ms of a step: " + ", ".join(f"{name} {1e3 * seconds:.1f}" for name, seconds in sorted(run["seconds_by_part"].items(), key=lambda part: -part[1]))


def alone():
    recipe = long_recipe()
    for ffn in (8192, 3072):
        run = bench("alone", recipe, f"model.ffn_hidden_size={ffn}")
        tell(f"alone, ffn {ffn}: {run['tokens_per_second']:,.0f} tokens/s, {run['peak_memory_bytes'] / 2**30:.1f} GiB; {parts(run)}")


def beside(ffns="8192,3072"):
    recipe = long_recipe()
    for ffn in map(int, ffns.split(",")):
        shape = f"model.ffn_hidden_size={ffn}"
        sft("beside", "run", recipe, "--to", "load", *CACHE, f"trainer.accelerator={ON}", "trainer.devices=1", shape)
        ours, theirs = [], {}
        for mode, rounds in (("bf16", 3), ("autocast", 1)):
            torch = subprocess.Popen([sys.executable, HERE / "torch_step.py", str(ffn), mode, str(rounds), OUT])
            name = OUT / f"{mode}-{ffn}"
            wait(name.with_name(name.name + ".ready"), torch)
            for number in range(rounds):
                ours.append(bench("beside", recipe, shape))
                name.with_name(f"{name.name}.go.{number}").touch()
                made = name.with_name(f"{name.name}.{number}")
                wait(made, torch)
                theirs.setdefault(mode, []).append(json.loads(made.read_text()))
            torch.wait()
        rate = median([run["tokens_per_second"] for run in ours])
        tell(f"\n| ffn {ffn} | tokens/s, each run | ours is faster by | peak GiB |\n|---|---|---|---|")
        show = lambda runs: " · ".join(f"{run['tokens_per_second']:,.0f}" for run in runs)
        tell(f"| sft-run | {show(ours)} | – | {max(run['peak_memory_bytes'] for run in ours) / 2**30:.1f} |")
        for mode, runs in theirs.items():
            tell(f"| torch.compile, {mode} | {show(runs)} | {rate / median([run['tokens_per_second'] for run in runs]):.3f} × | {max(run['peak_gib'] for run in runs):.1f} |")
        tell(f"\n{parts(ours[-1])}")


def wait(path, process):
    while not path.exists():
        if process.poll() is not None:
            raise SystemExit(f"torch_step.py ended with {process.returncode} before {path}")
        time.sleep(0.05)


def mission():
    recipe, more = OUT / "mission.yaml", "  evaluate:\n    evaluate: {model: train, data: tokenize, split: test, task: kind, limit: 64, metrics: [exact_match, loss], gen_kwargs: {use_greedy: true, max_length: 8}}\n"
    more += '  generate: {generate: {model: train, prompts: ["define river:", "define teacher:"], gen_kwargs: {use_greedy: true, max_length: 16}}}\n'
    recipe.write_text(f"{BASE}stages:\n  tokenize:\n    tokenize:\n      sources:{WORDNET}  shard: {{shard: {{data: tokenize, packing: true}}}}\n{TRAIN}{more}")
    cut = ["trainer.devices=1", f"trainer.accelerator={ON}", "model.global_batch_size=32", "model.micro_batch_size=8", "trainer.max_steps=20", *os.environ.get("SFT_OVERRIDES", "").split()]
    _, seconds = sft("mission", "run", recipe, *CACHE, f"++exp_manager.explicit_log_dir={OUT}/mission", *cut)
    steps = [row for row in lines(OUT / "mission") if "reduced_train_loss" in row]
    rates = sorted(row["tokens_per_second"] for row in steps[3:])
    alone = bench("mission", recipe, *cut)["tokens_per_second"]
    share = rates[len(rates) // 2] / alone
    tell(f"\nmission: {seconds:.0f} s from rows to text; loss {steps[0]['reduced_train_loss']:.3f} to {steps[-1]['reduced_train_loss']:.3f} in {len(steps)} steps; {rates[len(rates) // 2]:,.0f} tokens/s, {100 * share:.1f}% of bench's {alone:,.0f}")
    if steps[-1]["reduced_train_loss"] >= steps[0]["reduced_train_loss"] or share < 0.95:
        raise SystemExit("mission: the loss does not fall, or the run is slower than bench")


def plot(series):
    """Losses by step as an SVG picture: a line for each of two runs, the second dashed over the first."""
    steps, high = max(map(len, series.values())), max(max(values) for values in series.values())
    x, y = lambda step: 50 + 620 * step / steps, lambda loss: 260 - 240 * loss / high
    rows = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 310" font-family="sans-serif" font-size="12">',
            '<rect width="700" height="310" fill="white"/>']
    for loss in range(0, int(high) + 1, 2):
        rows.append(f'<path d="M50 {y(loss):.1f}H670" stroke="#ddd"/><text x="42" y="{y(loss) + 4:.1f}" text-anchor="end">{loss}</text>')
    for step in range(0, steps + 1, steps // 4):
        rows.append(f'<text x="{x(step):.1f}" y="278" text-anchor="middle">{step}</text>')
    rows.append('<text x="360" y="300" text-anchor="middle">step</text><text x="14" y="140" transform="rotate(-90 14 140)" text-anchor="middle">loss, nats</text>')
    for number, (name, values) in enumerate(series.items()):
        look = ('stroke="#1f77b4" stroke-width="3"', 'stroke="#d62728" stroke-dasharray="4 3"')[number]
        points = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in enumerate(values, 1))
        rows.append(f'<polyline fill="none" {look} points="{points}"/><path d="M540 {40 + 20 * number}h40" {look}/><text x="590" y="{44 + 20 * number}">{name}</text>')
    return "\n".join(rows + ["</svg>", ""])


def formats():
    shape = ["num_layers=12", "hidden_size=768", "ffn_hidden_size=3072", "num_attention_heads=12", "encoder_seq_length=1024", "max_position_embeddings=1024", "global_batch_size=16", "micro_batch_size=16"]
    recipe = OUT / "formats.yaml"
    recipe.write_text(f"{BASE}stages:\n  tokenize:\n    tokenize:\n      sources:{WORDNET}  shard: {{shard: {{data: tokenize, packing: true}}}}\n{TRAIN}")
    cut = [f"model.{key}" for key in shape] + ["model.data.seq_length=1024", "trainer.devices=1", f"trainer.accelerator={ON}", "trainer.max_steps=200", "model.sequence_parallel=false", *os.environ.get("SFT_OVERRIDES", "").split()]
    half = losses(trained("formats-bf16", recipe, *cut))
    full = losses(trained("formats-fp32", recipe, *cut, "trainer.precision=32", "model.precision=32", "model.megatron_amp_O2=false"))
    mean = lambda values: sum(values[-50:]) / 50
    off = mean(half) / mean(full) - 1
    (OUT / "formats.svg").write_text(plot({"bf16": half, "fp32": full}))
    tell(f"\nformats: mean loss of the last 50 of {len(full)} steps {mean(half):.4f} in bf16, {mean(full):.4f} in fp32: {100 * off:+.2f}%")
    if abs(off) > 0.01:
        raise SystemExit("formats: more than 1% apart")


STEPS = {"kernels": kernels, "same": same, "alone": alone, "beside": beside, "mission": mission, "formats": formats}
for step in WANT:
    name, *of = step.split(":")
    STEPS[name](*of)

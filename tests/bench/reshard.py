"""Reshards a made-up checkpoint from TP 1 to TP 4 beside `cp` of the same bytes, in turns.

    python3 tests/bench/reshard.py target/release/sft-run [--folder .] [--rounds 5] [--layers 24]

A LLaMA of 24 layers is 5 GB in fp32; twice that must be free in the folder. Both end with their
files on the disk: the program flushes what it writes, and `sync` flushes what `cp` wrote. Shows
each round's seconds, the program's largest memory (mapped pages of the files among it), and the
medians.
"""

import argparse
import array
import json
import pathlib
import random
import shutil
import statistics
import struct
import subprocess
import tempfile
import threading
import time

HIDDEN, FFN, HEADS, VOCABULARY = 2048, 5504, 16, 50257


def shapes(layers):
    yield "model.embed_tokens.weight", [VOCABULARY, HIDDEN]
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for part in "qkvo":
            yield f"{prefix}.self_attn.{part}_proj.weight", [HIDDEN, HIDDEN]
        yield f"{prefix}.mlp.gate_proj.weight", [FFN, HIDDEN]
        yield f"{prefix}.mlp.up_proj.weight", [FFN, HIDDEN]
        yield f"{prefix}.mlp.down_proj.weight", [HIDDEN, FFN]
        yield f"{prefix}.input_layernorm.weight", [HIDDEN]
        yield f"{prefix}.post_attention_layernorm.weight", [HIDDEN]
    yield "model.norm.weight", [HIDDEN]
    yield "lm_head.weight", [VOCABULARY, HIDDEN]


def make(folder, layers):
    """A Hugging Face folder whose numbers repeat every 4 MiB."""
    folder.mkdir()
    config = {
        "model_type": "llama", "num_hidden_layers": layers, "hidden_size": HIDDEN,
        "intermediate_size": FFN, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "max_position_embeddings": 2048, "vocab_size": VOCABULARY, "rms_norm_eps": 1e-5,
    }
    (folder / "config.json").write_text(json.dumps(config))
    generator = random.Random(7)
    block = array.array("f", (generator.gauss(0, 0.02) for _ in range(1 << 20))).tobytes()
    header, end = {}, 0
    for name, shape in shapes(layers):
        size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, end, len(block)):
            file.write(block[: end - start])
    return end


def timed(*command):
    """Seconds and the largest memory in MiB; everything older is on the disk before."""
    subprocess.run(["sync"], check=True)
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    largest = [0]

    def watch():
        while process.poll() is None:
            try:
                status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
            largest[0] = max([largest[0], *(int(peak) >> 10 for peak in peaks)])
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert process.wait() == 0, command
    seconds = time.monotonic() - start
    watcher.join()
    return seconds, largest[0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--folder", default=".")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=24)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="reshard.") as folder:
        folder = pathlib.Path(folder)
        made, source, copy, cut = (folder / name for name in ("made", "source", "copy", "cut"))
        size = make(made, given.layers)
        subprocess.run([given.program, "convert", made, source, "--to", "native"], check=True)
        shutil.rmtree(made)
        print(f"{size / 1e9:.2f} GB, largest tensor {4 * VOCABULARY * HIDDEN >> 20} MiB")
        times = []
        for number in range(given.rounds):
            files = [copy / path.name for path in source.iterdir()]
            by_cp, _ = timed("sh", "-c", 'cp -r "$0" "$1" && shift && sync "$@"', source, copy, *files)
            shutil.rmtree(copy)
            by_us, memory = timed(given.program, "convert", source, cut, "--to", "native", "--tp", "4")
            shutil.rmtree(cut)
            times.append((by_cp, by_us))
            share = f"{100 * by_cp / by_us:.0f}% of cp's speed"
            print(f"round {number + 1}: cp {by_cp:.1f} s, TP 1 to TP 4 {by_us:.1f} s, {share}, {memory} MiB")
        by_cp, by_us = (statistics.median(column) for column in zip(*times))
        print(f"medians: cp {by_cp:.1f} s, TP 1 to TP 4 {by_us:.1f} s, {100 * by_cp / by_us:.0f}%")


if __name__ == "__main__":
    main()

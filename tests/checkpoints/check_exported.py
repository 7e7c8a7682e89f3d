"""Loads what `sft-run convert --to hf` wrote from the fixtures with transformers: logits are equal.

    python tests/checkpoints/check_exported.py target/debug/sft-run

For every fixture: its folder and the folder made of it by way of a native checkpoint give the same
logits, and those are the recorded ones.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "checkpoints"


def main():
    program = sys.argv[1]
    worst = 0.0
    for fixture in sorted(path.parent for path in FOLDER.glob("*/config.json")):
        record = json.loads((fixture / "logits.json").read_text())
        with tempfile.TemporaryDirectory() as scratch:
            native, exported = f"{scratch}/native", f"{scratch}/exported"
            subprocess.run([program, "convert", fixture, native, "--to", "native"], check=True)
            subprocess.run([program, "convert", native, exported, "--to", "hf"], check=True)
            model, info = AutoModelForCausalLM.from_pretrained(
                exported, output_loading_info=True, torch_dtype=torch.float32
            )
            original = AutoModelForCausalLM.from_pretrained(fixture, torch_dtype=torch.float32)
            assert not info["missing_keys"] and not info["unexpected_keys"], info
            for (name, ours), (_, theirs) in zip(
                sorted(model.state_dict().items()), sorted(original.state_dict().items())
            ):
                assert torch.equal(ours, theirs), name
            with torch.no_grad():
                logits = model.eval()(torch.tensor([record["ids"]])).logits[0]
        difference = (logits - torch.tensor(record["logits"])).abs().max().item()
        worst = max(worst, difference)
        print(f"{fixture.name}: equal bits, logits differ by {difference:.1e}")
        assert difference < 1e-5
    print(f"largest difference {worst:.1e}")


if __name__ == "__main__":
    main()

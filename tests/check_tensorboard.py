"""Reads a run folder's event file back with TensorBoard (pip install tensorboard) and compares every
scalar and the recipe's text with metrics.jsonl and recipe.resolved.yaml: check_tensorboard.py FOLDER"""

import glob
import json
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

folder = sys.argv[1]
(path,) = glob.glob(f"{folder}/events.out.tfevents.*")
events = EventAccumulator(path, size_guidance={"scalars": 0, "tensors": 0})
events.Reload()

expected = {}
for line in open(f"{folder}/metrics.jsonl"):
    row = json.loads(line)
    for name, value in row.items():
        if name not in ("step", "stage"):
            # TensorBoard keeps single precision.
            (single,) = struct.unpack("f", struct.pack("f", value))
            tag = f"{row['stage']}/{name}" if "stage" in row else name
            expected.setdefault(tag, []).append((row["step"], single))
for tag, values in expected.items():
    found = [(scalar.step, scalar.value) for scalar in events.Scalars(tag)]
    assert found == values, f"{tag}: {found[:3]} is not {values[:3]}"
(text,) = events.Tensors("recipe")
assert open(f"{folder}/recipe.resolved.yaml").read() in text.tensor_proto.string_val[0].decode()
print(f"{len(expected)} scalars and the recipe are equal")

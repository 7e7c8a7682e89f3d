#!/usr/bin/env python3
"""kernels.py's checks of AdamW on a machine without a GPU: optimizer.cu compiled for the CPU (cuda.h), against f64 and bit by bit.

    python3 tests/gpu/on_cpu/optimizer.py    # needs g++ with C++20 and PyTorch; takes half a minute

Shows arithmetic and indexing; neither speed nor what only a GPU's memory can do.
"""
import sys

from checks import checks

names = checks("optimizer.cu")
for count in (1, 1003, 4096):
    names["safe"](names["adamw_case"], count, names["BF16"])
    names["safe"](names["adamw_split_case"], count)
names["safe"](names["split_case"])
print(f"{len(names['failed'])} failed")
sys.exit(1 if names["failed"] else 0)

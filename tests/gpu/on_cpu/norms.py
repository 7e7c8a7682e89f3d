#!/usr/bin/env python3
"""kernels.py's checks of norms on a machine without a GPU: norm.cu compiled for the CPU (cuda.h), against f64.

    python3 tests/gpu/on_cpu/norms.py        # needs g++ with C++20 and PyTorch

Shows arithmetic and indexing; neither speed nor what only a GPU's memory can do. Takes minutes: a thread is started for each of CUDA's.
"""
import sys

from checks import checks

names = checks("columns.cu", "norm.cu")
for dtype in (names["F32"], names["BF16"]):
    # More rows than blocks in the last two: several rows a block.
    for rows, width in ((37, 96), (3, 4096), (1400, 512), (1100, 33)):
        for kind in (0, 1, 2):
            names["safe"](names["norm_case"], dtype, kind, rows, width, False)
print(f"{len(names['failed'])} failed")
sys.exit(1 if names["failed"] else 0)

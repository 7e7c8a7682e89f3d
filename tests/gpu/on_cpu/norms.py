#!/usr/bin/env python3
"""kernels.py's checks of norms on a machine without a GPU: norm.cu compiled for the CPU (cuda.h), against f64.

    python3 tests/gpu/on_cpu/norms.py        # needs g++ with C++20 and PyTorch

Shows arithmetic and indexing; neither speed nor what only a GPU's memory can do. Takes minutes: a thread is started for each of CUDA's.
"""
import ctypes, pathlib, re, subprocess, sys, tempfile

from launches import launches

HERE = pathlib.Path(__file__).resolve().parent
KERNELS = HERE.parent.parent.parent / "src/kernels/cuda"


def library(folder):
    source = launches((KERNELS / "common.cuh").read_text()) + launches((KERNELS / "columns.cu").read_text()) + launches((KERNELS / "norm.cu").read_text())
    source = source.replace("extern __shared__ uint4 ring_memory[];", "alignas(16) static uint4 ring_memory[1 << 14];")
    source = re.sub(r"#include <cuda.*|#include \"common.cuh\"|#pragma.*", "", source)
    path = pathlib.Path(folder) / "norms.cpp"
    path.write_text(f'#include "{HERE}/cuda.h"\n{source}')
    command = ["g++", "-std=c++20", "-O1", "-ffp-contract=off", "-w", "-fPIC", "-shared", "-pthread", path, "-o", path.with_suffix(".so")]
    subprocess.check_call(command)
    return ctypes.CDLL(path.with_suffix(".so"))


class Missing:
    """What the library has not: products, attention."""


class Library:
    def __init__(self, there):
        self.there = there

    def __getattr__(self, name):
        return getattr(self.there, name, Missing())


with tempfile.TemporaryDirectory() as folder:
    text = (HERE.parent / "kernels.py").read_text()
    text = text[: text.index("GEMM, SDPA =")]
    for cuda, cpu in (
        ('DEV = "cuda"', 'DEV = "cpu"'),
        ("ctypes.CDLL(sys.argv[1])", "ON_CPU"),
        ("torch.cuda.synchronize()", "None"),
        ("ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)", "ctypes.c_void_p(0)"),
        ("import numpy as np", ""),
    ):
        assert cuda in text, cuda
        text = text.replace(cuda, cpu)
    names = {"ON_CPU": Library(library(folder)), "__name__": "on_cpu"}
    exec(text, names)
    for dtype in (names["F32"], names["BF16"]):
        # More rows than blocks in the last two: several rows a block.
        for rows, width in ((37, 96), (3, 4096), (1400, 512), (1100, 33)):
            for kind in (0, 1, 2):
                names["safe"](names["norm_case"], dtype, kind, rows, width, False)
    print(f"{len(names['failed'])} failed")
    sys.exit(1 if names["failed"] else 0)

#!/usr/bin/env python3
"""Which of cuBLASLt's proposals is fastest for the products of a 1.3 B model, on a GPU that is hot from work.

    python3 tests/gpu/products.py target/libsft_kernels.so

The proposals take turns, so that each sees the same clocks; a figure is the median over the rounds.
"""
import sys

sys.argv = sys.argv[:2] + ["none"]
from kernels import *  # noqa: E402,F403

T, c, ROUNDS, REPEATS, PROPOSALS = 16384, CODE[BF16], 7, 4, 8
LIB.sft_gemm_ask.argtypes = [ctypes.c_void_p, ctypes.c_int]
gemms = []
for _ in range(PROPOSALS):
    gemms.append(ctypes.c_void_p(LIB.sft_gemm_create()))
for k, g in enumerate(gemms):
    LIB.sft_gemm_ask(g, k)
for inputs, outputs in ((2048, 6144), (2048, 2048), (2048, 8192), (8192, 2048), (2048, 3072), (3072, 2048), (2048, 50304)):
    x, w, dy, bias = rnd(T, inputs, dtype=BF16), rnd(outputs, inputs, dtype=BF16, scale=0.02), rnd(T, outputs, dtype=BF16, scale=0.02), rnd(outputs, dtype=BF16)
    y, dx, dw = torch.empty_like(dy), torch.empty_like(x), torch.zeros(outputs, inputs, device=DEV)
    n = (I64(T), I64(inputs), I64(outputs))
    biased = bias if (inputs, outputs) == (2048, 6144) else None
    operations = {
        "y": lambda g: call("sft_linear_forward", g, stream(), c, x, w, biased, y, None, *n),
        "dx": lambda g: call("sft_linear_backward_input", g, stream(), c, dy, w, dx, *n),
        "dw": lambda g: call("sft_linear_backward_weight", g, stream(), c, dy, x, dw, 0, *n),
    }
    for name, run in operations.items():
        marks = [[] for _ in gemms]
        for _ in range(ROUNDS):
            for k, g in enumerate(gemms):
                run(g)
                a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                a.record()
                for _ in range(REPEATS):
                    run(g)
                b.record()
                marks[k].append((a, b))
        torch.cuda.synchronize()
        ms = [sorted(a.elapsed_time(b) / REPEATS for a, b in m)[ROUNDS // 2] for m in marks]
        best = min(range(PROPOSALS), key=lambda k: ms[k])
        print(f"{inputs}->{outputs} {name:2s} " + " ".join(f"{t:.4f}" for t in ms) + f"  best {best}: {100 * (1 - ms[best] / ms[0]):.1f}% less", flush=True)

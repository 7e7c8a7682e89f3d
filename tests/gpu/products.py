#!/usr/bin/env python3
"""Which of cuBLASLt's proposals is fastest for the products of a 1.3 B model, on a GPU at its power limit.

    python3 tests/gpu/products.py target/libsft_kernels.so

In a step the card is at its power limit, where a product that takes less energy is a faster one; in short bursts others win.
So each proposal runs alone for a quarter of a second, of which the last two thirds count.
"""
import sys

sys.argv = sys.argv[:2] + ["none"]
from kernels import *  # noqa: E402,F403

T, c, SECONDS, PROPOSALS = 16384, CODE[BF16], 0.25, 8
LIB.sft_gemm_ask.argtypes = [ctypes.c_void_p, ctypes.c_int]
GEMM = ctypes.c_void_p(LIB.sft_gemm_create())


def sustained(run):
    """Milliseconds of one call."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
    run()
    marks[0].record()
    run()
    marks[1].record()
    torch.cuda.synchronize()
    count = max(6, int(1e3 * SECONDS / marks[0].elapsed_time(marks[1])))
    for at in range(count):
        if at == count // 3:
            marks[1].record()
        run()
    marks[2].record()
    torch.cuda.synchronize()
    return marks[1].elapsed_time(marks[2]) / (count - count // 3)


hot = rnd(8192, 8192, dtype=BF16)
for _ in range(2000):
    hot @ hot
for inputs, outputs in ((2048, 6144), (2048, 2048), (2048, 8192), (8192, 2048), (2048, 3072), (3072, 2048), (2048, 50304)):
    x, w, dy, bias = rnd(T, inputs, dtype=BF16), rnd(outputs, inputs, dtype=BF16, scale=0.02), rnd(T, outputs, dtype=BF16, scale=0.02), rnd(outputs, dtype=BF16)
    y, dx, dw = torch.empty_like(dy), torch.empty_like(x), torch.zeros(outputs, inputs, device=DEV)
    n = (I64(T), I64(inputs), I64(outputs))
    biased = bias if (inputs, outputs) == (2048, 6144) else None
    operations = {
        "y": lambda: call("sft_linear_forward", GEMM, stream(), c, x, w, biased, y, None, *n),
        "dx": lambda: call("sft_linear_backward_input", GEMM, stream(), c, dy, w, dx, *n),
        "dw": lambda: call("sft_linear_backward_weight", GEMM, stream(), c, dy, x, dw, 0, *n),
    }
    for name, run in operations.items():
        ms = []
        for proposal in (-1, *range(PROPOSALS)):
            LIB.sft_gemm_ask(GEMM, proposal)
            ms.append(sustained(run))
        known, ms = ms[0], ms[1:]
        best = min(range(len(ms)), key=lambda k: ms[k])
        print(f"{inputs}->{outputs} {name:2s} taken {known:.4f}: " + " ".join(f"{t:.4f}" for t in ms) + f"  best {best}: {100 * (1 - ms[best] / known):.1f}% less", flush=True)

#!/usr/bin/env python3
"""A whole training step of the kernels, driven from Python: what they reach without the Rust side around them.

    python3 tests/gpu/step.py target/libsft_kernels.so [FFN ...]     # 8192 and 3072 when none is named

24 layers, hidden 2048, 16 heads, vocabulary 50304, micro-batch 8 x 2048, bf16, with fp32 master weights (as bf16 and
remainders), main gradients and moments: the work of torch_step.py's step plus that of the masters.
Prints the time of each part and of the step.
"""
import sys

FFNS = [int(n) for n in sys.argv[2:]] or [8192, 3072]
sys.argv = sys.argv[:2] + ["none"]
from kernels import *  # noqa: E402,F403

L, H, NH, V, B, S = 24, 2048, 16, 50304, 8, 2048
T, D = B * S, H // NH
c = CODE[BF16]


class Flat:
    """Parameters in one buffer of bf16, with the remainders of their masters, and gradients and moments in f32."""

    def __init__(self, shapes):
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        total = (sum((n + 63) // 64 * 64 for n in sizes.values()))
        self.gradient, self.first, self.second = (torch.zeros(total, device=DEV) for _ in range(3))
        self.copy, self.rest = split(torch.randn(total, device=DEV) * 0.015)
        at, self.views, self.gradients = 0, {}, {}
        # Gradients that are added to come first, so that they are cleared at once; the others are put by their first product.
        added = lambda name: len(shapes[name]) == 1 or name == "position"
        for name in sorted(shapes, key=added, reverse=True):
            shape = shapes[name]
            self.views[name] = self.copy[at : at + sizes[name]].view(shape)
            self.gradients[name] = self.gradient[at : at + sizes[name]].view(shape)
            at += (sizes[name] + 63) // 64 * 64
            if added(name):
                self.added = self.gradient[:at]


def run(ffn):
    shapes = {"word": (V, H), "position": (S, H), "norm.w": (H,), "norm.b": (H,)}
    for l in range(L):
        shapes |= {f"{l}.n1.w": (H,), f"{l}.n1.b": (H,), f"{l}.qkv.w": (3 * H, H), f"{l}.qkv.b": (3 * H,), f"{l}.out.w": (H, H), f"{l}.out.b": (H,),
                   f"{l}.n2.w": (H,), f"{l}.n2.b": (H,), f"{l}.up.w": (ffn, H), f"{l}.up.b": (ffn,), f"{l}.down.w": (H, ffn), f"{l}.down.b": (H,)}
    p = Flat(shapes)
    W, G = p.views, p.gradients
    new = lambda *shape, dtype=BF16: torch.empty(*shape, dtype=dtype, device=DEV)
    ids = torch.randint(0, 50257, (T,), device=DEV)
    labels = torch.roll(ids, -1).to(torch.int32)
    positions = torch.arange(S, device=DEV, dtype=torch.int32).repeat(B)
    def order_of(values):
        srt, order = torch.sort(values.long(), stable=True)
        unique, count = torch.unique_consecutive(srt, return_counts=True)
        bounds = torch.cat([torch.zeros(1, device=DEV, dtype=torch.long), count.cumsum(0)])
        return unique.to(torch.int32), len(unique), bounds.to(torch.int32), order.to(torch.int32)
    by_word, by_position, ids32 = order_of(ids), order_of(positions), ids.to(torch.int32)
    ws = new(max(LIB.sft_norm_backward_workspace(I64(T), I64(H)), LIB.sft_column_workspace(I64(T), I64(max(ffn, 3 * H)))), dtype=F32)
    squares, total, loss = new(LIB.sft_squares_workspace(), dtype=torch.uint8), torch.zeros(1, device=DEV, dtype=torch.float64), torch.zeros(1, device=DEV, dtype=torch.float64)
    decaying = torch.tensor([0, p.copy.numel()], device=DEV)
    common = (I64(B), I64(S), I64(NH), I64(NH), I64(D), F(1 / math.sqrt(D)), None, None, None)
    rows, wide = I64(T), I64(H)
    marks, spans = [], {}
    def part(name):
        if marks is not None and spans is not None:
            e = torch.cuda.Event(enable_timing=True); e.record(); marks.append((name, e))
    def linear(x, name, bias, inputs, outputs):
        y = new(T, outputs)
        call("sft_linear_forward", GEMM, stream(), c, x, W[name + ".w"], W[name + ".b"] if bias else None, y, None, rows, I64(inputs), I64(outputs))
        return y
    def back_input(dy, w, inputs, outputs):
        dx = new(T, inputs)
        call("sft_linear_backward_input", GEMM, stream(), c, dy, w, dx, rows, I64(inputs), I64(outputs))
        return dx
    def back_weight(dy, x, g, inputs, outputs):
        call("sft_linear_backward_weight", GEMM, stream(), c, dy, x, g, 0, rows, I64(inputs), I64(outputs))
    def linear_back(dy, x, w, g, inputs, outputs):
        back_weight(dy, x, g, inputs, outputs)
        return back_input(dy, w, inputs, outputs)
    def norm(x, bias, residual, name):
        y, moments = new(T, H), new(T, 2, dtype=F32)
        s = residual if x is None else new(T, H)
        call("sft_norm_forward", stream(), c, 0, F(1e-5), x, bias, None, residual, None if x is None else s, W[name + ".w"], W[name + ".b"], y, moments, rows, wide)
        return s, y, moments
    def norm_back(x, moments, name, dy, residual, sum_gradient=None):
        dx, y = new(T, H), new(T, H)
        call("sft_norm_backward", stream(), c, 0, x, moments, W[name + ".w"], W[name + ".b"], dy, residual, dx, y, ws, G[name + ".w"], G[name + ".b"], sum_gradient, rows, wide)
        return dx, y
    def step(k):
        part("start")
        call("sft_clear", stream(), p.added, I64(p.added.numel() * 4))
        part("clear")
        x = new(T, H)
        call("sft_gather", stream(), c, W["word"], ids32, I64(0), I64(V), W["position"], positions, x, rows, wide); part("embedding")
        kept, update, bias = [], None, None
        for l in range(L):
            x, y1, m1 = norm(update, bias, x, f"{l}.n1"); part("norm")
            qkv = linear(y1, f"{l}.qkv", True, H, 3 * H); part("gemm")
            att, stats = new(T, H), new(T * NH, dtype=F32)
            call("sft_sdpa_forward", SDPA, stream(), c, *common, qkv, att, stats); part("attention")
            out = linear(att, f"{l}.out", False, H, H); part("gemm")
            x1, y2, m2 = norm(out, W[f"{l}.out.b"], x, f"{l}.n2"); part("norm")
            inner, act = new(T, ffn), new(T, ffn)
            call("sft_linear_activation_forward", stream(), linear_activation(0, y2, W[f"{l}.up.w"], W[f"{l}.up.b"], inner, act)); part("gemm with activation")
            update = linear(act, f"{l}.down", False, ffn, H); part("gemm")
            kept.append((x, m1, qkv, att, stats, x1, m2, inner, act))
            del y1, y2
            x, bias = x1, W[f"{l}.down.b"]
        x, y, m = norm(update, bias, x, "norm"); part("norm")
        logits, stats = new(T, V), new(T, 4, dtype=F32)
        call("sft_linear_forward", GEMM, stream(), c, y, W["word"], None, logits, None, rows, wide, I64(V)); part("head gemm")
        call("sft_cross_entropy", stream(), c, logits, labels, I64(50257), stats, F(1.0), rows, I64(V))
        loss.zero_(); call("sft_loss_sum", stream(), stats, rows, loss); part("cross entropy")
        dy = linear_back(logits, y, W["word"], G["word"], H, V); part("head gemm")
        del logits
        dx, _ = norm_back(x, m, "norm", dy, None, G[f"{L - 1}.down.b"]); part("norm")
        for l in reversed(range(L)):
            x, m1, qkv, att, stats, x1, m2, inner, act = kept.pop()
            back_weight(dx, act, G[f"{l}.down.w"], ffn, H); part("gemm")
            d_inner = new(T, ffn)
            call("sft_linear_activation_backward", stream(), linear_activation(0, dx, W[f"{l}.down.w"], W[f"{l}.up.b"], inner, d_inner), ws, G[f"{l}.up.b"]); part("gemm with activation")
            d_y2 = back_input(d_inner, W[f"{l}.up.w"], H, ffn); part("gemm")
            dx, y2 = norm_back(x1, m2, f"{l}.n2", d_y2, dx, G[f"{l}.out.b"]); part("norm")
            back_weight(d_inner, y2, G[f"{l}.up.w"], H, ffn); part("gemm")
            d_att = linear_back(dx, att, W[f"{l}.out.w"], G[f"{l}.out.w"], H, H); part("gemm")
            d_qkv = new(T, 3 * H)
            call("sft_sdpa_backward", SDPA, stream(), c, *common, qkv, att, stats, d_att, d_qkv); part("attention")
            call("sft_column_sums", stream(), c, d_qkv, rows, I64(3 * H), ws, G[f"{l}.qkv.b"]); part("bias sums")
            d_y1 = back_input(d_qkv, W[f"{l}.qkv.w"], H, 3 * H); part("gemm")
            dx, y1 = norm_back(x, m1, f"{l}.n1", d_y1, dx, G[f"{l - 1}.down.b"] if l else None); part("norm")
            back_weight(d_qkv, y1, G[f"{l}.qkv.w"], H, 3 * H); part("gemm")
        for name, (unique, count, bounds, order) in (("word", by_word), ("position", by_position)):
            call("sft_scatter_add", stream(), 0, G[name], unique, I64(count), bounds, order, c, dx, wide)
        part("embedding")
        total.zero_(); call("sft_sum_of_squares", stream(), 0, p.gradient, I64(p.gradient.numel()), squares, total); part("gradient norm")
        scale = min(1.0, 1.0 / (math.sqrt(total.item()) / T + 1e-6)) / T
        by = adamw_settings(k + 1, scale)
        call("sft_adamw_split", stream(), p.copy, p.rest, p.gradient, p.first, p.second, I64(p.copy.numel()), decaying, I64(2), by); part("optimizer")
    losses, times = [], []
    torch.cuda.reset_peak_memory_stats()
    import time
    for k in range(13):
        marks.clear()
        torch.cuda.synchronize()
        start = time.perf_counter()
        step(k)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        losses.append(loss.item() / T)
        if k >= 3:
            for (_, a), (name, b) in zip(marks, marks[1:]):
                spans[name] = spans.get(name, 0.0) + a.elapsed_time(b) / 10
    seconds = sorted(times[3:])[5]
    n = sum(math.prod(s) for s in shapes.values())
    flops = (6 * (n - S * H) + 12 * L * H * S) * T / seconds
    print(f"kernels ffn {ffn}: {seconds * 1e3:.2f} ms, {T / seconds:.0f} tokens/s, MFU {flops / 989e12:.3f}, peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB, losses {losses[0]:.4f} {losses[5]:.4f} {losses[-1]:.4f}")
    print("   " + ", ".join(f"{name} {ms:.2f}" for name, ms in sorted(spans.items(), key=lambda e: -e[1])), f"; sum {sum(spans.values()):.2f} ms", flush=True)


print("cuBLAS", LIB.sft_cublas_version(), "cuDNN", LIB.sft_cudnn_version())
for ffn in FFNS:
    run(ffn)
    torch.cuda.empty_cache()

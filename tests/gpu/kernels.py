#!/usr/bin/env python3
"""The CUDA kernels against f64 on random inputs and odd shapes, and their times beside torch.compile's.

    .ci/cuda/kernels.sh target/libsft_kernels.so        # where nvcc is
    python3 tests/gpu/kernels.py target/libsft_kernels.so [check[:NAME,...]] [time]   # NAME: of adamw_case and the like

Outputs are filled with NaN before each call, inputs are drawn anew, every call runs twice and must give the same bits.
An error is |out - reference| / |reference| in the Euclidean norm. The exit code is 1 when one is above its bound.
"""
import ctypes, json, math, sys
import numpy as np
import torch

LIB = ctypes.CDLL(sys.argv[1])
WANT = {name: only for name, _, only in (word.partition(":") for word in sys.argv[2:] or ["check", "time"])}
DEV = "cuda"
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
CODE = {F32: 0, BF16: 1, F16: 2}
BOUND = {F32: 2e-5, BF16: 6e-3, F16: 1e-3}
BLOCK = 32  # of a cache: kernels/attention/cached.rs
I64, F = ctypes.c_int64, ctypes.c_float
torch.backends.cuda.matmul.allow_tf32 = False
for name in ("sft_gemm_create", "sft_sdpa_create"):
    getattr(LIB, name).restype = ctypes.c_void_p
for name in ("sft_library_error", "sft_cuda_error"):
    getattr(LIB, name).restype = ctypes.c_char_p
for name in ("sft_norm_backward_workspace", "sft_column_workspace", "sft_squares_workspace", "sft_cudnn_version", "sft_cublas_version"):
    getattr(LIB, name).restype = I64


class Dropout(ctypes.Structure):
    _fields_ = [("key", ctypes.c_uint32 * 2), ("step", ctypes.c_uint64), ("threshold", ctypes.c_uint64),
                ("addresses", ctypes.c_void_p), ("keep", F), ("first_channel", ctypes.c_uint32), ("all_channels", ctypes.c_uint32)]


class Heads(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int32) for n in ("heads", "groups", "head_dim")] + [("scale", F), ("first_head", ctypes.c_int32), ("all_heads", ctypes.c_int32)]


class AdamW(ctypes.Structure):
    _fields_ = [(n, F) for n in ("gradient", "beta_1", "beta_2", "rest_1", "rest_2", "keep", "step_size", "root_scale", "epsilon")]


class LinearActivation(ctypes.Structure):
    _fields_ = ([("format", ctypes.c_int32), ("kind", ctypes.c_int32)] + [(n, ctypes.c_void_p) for n in ("input", "weight", "bias", "before", "out")]
                + [(n, I64) for n in ("tokens", "depth", "features")])


def linear_activation(kind, x, weight, bias, before, out):
    at = lambda t: None if t is None else t.data_ptr()
    return LinearActivation(CODE[x.dtype], kind, at(x), at(weight), at(bias), at(before), at(out), x.shape[0], x.shape[1], out.shape[1])


def arg(x):
    if x is None:
        return ctypes.c_void_p(0)
    if isinstance(x, torch.Tensor):
        assert x.is_contiguous()
        return ctypes.c_void_p(x.data_ptr())
    if isinstance(x, ctypes.Structure):
        return ctypes.byref(x)
    return x


def call(name, *args):
    rc = getattr(LIB, name)(*[arg(a) for a in args])
    if rc:
        raise RuntimeError(f"{name}: {rc} {LIB.sft_cuda_error(rc).decode()} {LIB.sft_library_error().decode()}")


def stream():
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)


failed = []


def rel(out, ref):
    out, ref = out.double(), ref.double()
    return ((out - ref).norm() / ref.norm().clamp_min(1e-30)).item()


def check(name, run, outputs, references, bound, before=None):
    """run() writes `outputs`; `before` are their values before (NaN where None)."""
    before = before or [None] * len(outputs)
    bits = []
    for _ in range(2):
        for out, start in zip(outputs, before):
            out.copy_(start) if start is not None else out.fill_(float("nan"))
        run()
        torch.cuda.synchronize()
        bits.append([out.clone() for out in outputs])
    same = all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(*bits))
    errors = [rel(a, b) for a, b in zip(outputs, references)]
    bounds = bound if isinstance(bound, (list, tuple)) else [bound] * len(errors)
    good = same and all(e <= b for e, b in zip(errors, bounds))
    if not good:
        failed.append(name)
    print(f"{'ok ' if good else 'BAD'} {name:62s} " + " ".join(f"{e:.1e}" for e in errors) + ("" if same else "  BITS DIFFER"), flush=True)


def safe(f, *a):
    only = WANT.get("check")
    if only and f.__name__ not in only.split(","):
        return
    try:
        f(*a)
    except Exception as e:  # one broken kernel must not hide the others
        failed.append(f"{f.__name__}{a}")
        print(f"BAD {f.__name__} {a}: {e}", flush=True)


def rnd(*shape, dtype=F32, scale=1.0):
    return (torch.randn(*shape, device=DEV) * scale).to(dtype)


def philox(step, position, key):
    """position: uint64 array; gives [..., 4] uint32."""
    mask = np.uint64(0xFFFFFFFF)
    p = position.astype(np.uint64)
    c = [p & mask, p >> np.uint64(32), np.full_like(p, step & 0xFFFFFFFF), np.full_like(p, step >> 32)]
    k = [np.uint64(key[0]), np.uint64(key[1])]
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(second >> np.uint64(32)) ^ c[1] ^ k[0], second & mask, (first >> np.uint64(32)) ^ c[3] ^ k[1], first & mask]
        k = [(k[0] + np.uint64(0x9E3779B9)) & mask, (k[1] + np.uint64(0xBB67AE85)) & mask]
    return np.stack(c, -1).astype(np.uint32)


RATE = 0.3


def dropout(tokens):
    addresses = torch.randint(0, 2**40, (tokens,), dtype=torch.int64, device=DEV)
    d = Dropout((ctypes.c_uint32 * 2)(123456789, 987654321), 77, math.ceil(RATE * 2**32), addresses.data_ptr(), 1 / (1 - RATE))
    d.kept = addresses
    return d


def factors(d, width):
    first = d.first_channel
    quads = ((d.all_channels or width) + 3) // 4
    a = d.kept.cpu().numpy().astype(np.uint64)
    with np.errstate(over="ignore"):
        words = philox(d.step, a[:, None] * np.uint64(quads) + np.arange(quads, dtype=np.uint64), d.key)
    words = words.reshape(len(a), -1)[:, first : first + width]
    return torch.tensor(np.where(words.astype(np.uint64) >= d.threshold, 1 / (1 - RATE), 0.0), device=DEV)


def probability_factors(d, tokens, heads, all_heads, first_head, keys):
    a = d.kept.cpu().numpy().astype(np.uint64)
    quads = (keys + 3) // 4
    with np.errstate(over="ignore"):
        q = a[:, None] * np.uint64(all_heads) + np.uint64(first_head) + np.arange(heads, dtype=np.uint64)
        words = philox(d.step, (q * np.uint64(1 << 20))[..., None] + np.arange(quads, dtype=np.uint64), d.key)
    words = words.reshape(tokens, heads, -1)[..., :keys]
    return torch.tensor(np.where(words.astype(np.uint64) >= d.threshold, 1 / (1 - RATE), 0.0), device=DEV)


# ---- norms -----------------------------------------------------------------------------------------------------------
def norm_case(dtype, kind, rows, width, full):
    tag = f"norm kind {kind} {str(dtype)[6:]} {rows}x{width}{' +residual+bias+dropout' if full else ''}"
    eps = 1e-5
    x, xb, res = (rnd(*s, dtype=dtype) for s in ((rows, width), (width,), (rows, width)))
    w, b = rnd(width, dtype=dtype), rnd(width, dtype=dtype) if kind != 2 else None
    d = dropout(rows) if full else None
    y, s, mom = torch.empty_like(x), torch.empty_like(x), torch.empty(rows, 2, device=DEV)
    if full:
        total = (res.double() + (x.double() + xb.double()) * factors(d, width)).to(dtype)
    else:
        total = res
    t = total.double().requires_grad_()
    w64, b64 = w.double().requires_grad_(), (b.double().requires_grad_() if b is not None else None)
    mean = t.mean(-1, keepdim=True) if kind != 2 else torch.zeros(rows, 1, device=DEV, dtype=torch.float64)
    scale = ((t - mean).square().mean(-1, keepdim=True) + eps).rsqrt()
    ref = (t - mean) * scale * (w64 + (1 if kind == 1 else 0))
    ref = ref + b64 if b is not None else ref
    def run():
        call("sft_norm_forward", stream(), CODE[dtype], kind, F(eps), x if full else None, xb if full else None, d, res,
             s if full else None, w, b, y, mom, I64(rows), I64(width))
    outs, refs = ([y, s] if full else [y]), ([ref, total] if full else [ref])
    check(tag + " fwd", run, outs, refs, BOUND[dtype])
    if full:
        return
    dy, resg = rnd(rows, width, dtype=dtype), rnd(rows, width, dtype=dtype)
    grads = torch.autograd.grad(ref, [t, w64] + ([b64] if b is not None else []), dy.double())
    dx, again = torch.empty_like(x), torch.empty_like(x)
    dw, db, ds = (rnd(width) for _ in range(3))
    before = [None, dw.clone(), db.clone(), ds.clone(), None]
    ws = torch.full((LIB.sft_norm_backward_workspace(I64(rows), I64(width)),), float("nan"), device=DEV)
    dx_ref = grads[0] + resg.double()
    def back():
        call("sft_norm_backward", stream(), CODE[dtype], kind, res, mom, w, b, dy, resg, dx, again, ws, dw, db if b is not None else None, ds, I64(rows), I64(width))
    refs = [dx_ref, before[1] + grads[1], before[2] + (grads[2] if b is not None else 0), before[3] + dx_ref.sum(0), y]
    check(tag + " bwd", back, [dx, dw, db, ds, again], refs, [BOUND[dtype], 5e-5, 5e-5, max(5e-5, BOUND[dtype]), 0.0], before)


# ---- activations -----------------------------------------------------------------------------------------------------
def activation_case(dtype, kind, rows, out_width, with_bias):
    gated = kind >= 4
    width = out_width * (2 if gated else 1)
    x, b = rnd(rows, width, dtype=dtype), rnd(width, dtype=dtype) if with_bias else None
    x64 = x.double().requires_grad_()
    v = x64 + (b.double() if with_bias else 0)
    f = {0: lambda t: torch.nn.functional.gelu(t, approximate="tanh"), 1: torch.nn.functional.gelu, 2: torch.relu,
         3: lambda t: torch.relu(t).square(), 5: torch.nn.functional.silu}
    f[4], f[6] = f[0], f[2]
    ref = f[kind](v[:, :out_width]) * v[:, out_width:] if gated else f[kind](v)
    y, dy, dx = torch.empty(rows, out_width, device=DEV, dtype=dtype), rnd(rows, out_width, dtype=dtype), torch.empty_like(x)
    tag = f"activation {kind} {str(dtype)[6:]} {rows}x{out_width}{' bias' if with_bias else ''}"
    check(tag + " fwd", lambda: call("sft_activation_forward", stream(), CODE[dtype], kind, x, b, y, I64(rows), I64(out_width)), [y], [ref], BOUND[dtype])
    (g,) = torch.autograd.grad(ref, x64, dy.double())
    ws = torch.full((LIB.sft_column_workspace(I64(rows), I64(width)),), float("nan"), device=DEV)
    db = rnd(width)
    before = [None, db.clone()]
    check(tag + " bwd", lambda: call("sft_activation_backward", stream(), CODE[dtype], kind, x, b, dy, dx, ws, db, I64(rows), I64(out_width)),
          [dx, db], [g, before[1] + g.sum(0)], [BOUND[dtype], max(5e-5, BOUND[dtype])], before)


# ---- elementwise, embedding, buffers ---------------------------------------------------------------------------------
def small_cases(dtype, rows, width):
    t = f"{str(dtype)[6:]} {rows}x{width}"
    x, b, r, y = rnd(rows, width, dtype=dtype), rnd(width, dtype=dtype), rnd(rows, width, dtype=dtype), torch.empty(rows, width, device=DEV, dtype=dtype)
    d = dropout(rows)
    m = factors(d, width)
    check(f"residual + dropout {t}", lambda: call("sft_residual_forward", stream(), CODE[dtype], x, b, d, r, y, I64(rows), I64(width)),
          [y], [r.double() + (x.double() + b.double()) * m], BOUND[dtype])
    check(f"dropout {t}", lambda: call("sft_residual_forward", stream(), CODE[dtype], x, None, d, None, y, I64(rows), I64(width)), [y], [x.double() * m], BOUND[dtype])
    for part in (8, 13):  # a rank's part of the channels, whole vectors or not
        d.first_channel, d.all_channels = part, width + 40
        check(f"dropout of channels from {part} on {t}", lambda: call("sft_residual_forward", stream(), CODE[dtype], x, None, d, None, y, I64(rows), I64(width)), [y], [x.double() * factors(d, width)], BOUND[dtype])
    ws, sums = torch.full((LIB.sft_column_workspace(I64(rows), I64(width)),), float("nan"), device=DEV), rnd(width)
    before = [sums.clone()]
    check(f"column sums {t}", lambda: call("sft_column_sums", stream(), CODE[dtype], x, I64(rows), I64(width), ws, sums), [sums], [before[0] + x.double().sum(0)], 2e-5, before)
    z = x.clone()
    check(f"scale {t}", lambda: call("sft_scale", stream(), CODE[dtype], z, I64(x.numel()), F(0.37)), [z], [x.double() * 0.37], BOUND[dtype], [x])
    for other in (F32, BF16, F16):
        o, c = rnd(rows, width, dtype=other), torch.empty(rows, width, device=DEV, dtype=other)
        check(f"add {str(other)[6:]} to {t}", lambda: call("sft_add", stream(), CODE[dtype], z, CODE[other], o, I64(x.numel()), F(-1.5)), [z], [x.double() - 1.5 * o.double()], BOUND[dtype], [x])
        check(f"cast to {str(other)[6:]} {t}", lambda: call("sft_cast", stream(), CODE[dtype], x, CODE[other], c, I64(x.numel())), [c], [x.to(other)], 0.0)
    total, wsq = torch.zeros(1, device=DEV, dtype=torch.float64), torch.empty(LIB.sft_squares_workspace(), device=DEV, dtype=torch.uint8)
    check(f"sum of squares {t}", lambda: call("sft_sum_of_squares", stream(), CODE[dtype], x, I64(x.numel()), wsq, total), [total], [3 + x.double().square().sum().view(1)], 1e-12, [torch.full_like(total, 3)])
    # embedding: a table of `rows` ids from 5 on, tokens also outside it
    tokens, first = 3 * rows + 1, 5
    ids = torch.randint(0, rows + 10, (tokens,), device=DEV)
    ids[: tokens // 3] = 7   # one id very often
    places = torch.randint(0, rows, (tokens,), device=DEV)
    pos, out = rnd(rows, width, dtype=dtype), torch.empty(tokens, width, device=DEV, dtype=dtype)
    inside = (ids >= first) & (ids < first + rows)
    ref = torch.where(inside[:, None], x.double()[(ids - first).clamp(0, rows - 1)], 0.0) + pos.double()[places]
    i32, p32 = ids.to(torch.int32), places.to(torch.int32)
    check(f"gather {t}", lambda: call("sft_gather", stream(), CODE[dtype], x, i32, I64(first), I64(rows), pos, p32, out, I64(tokens), I64(width)), [out], [ref], BOUND[dtype])
    dy, table = rnd(tokens, width, dtype=dtype), rnd(rows, width)
    order = [k for k in sorted(range(tokens), key=lambda k: (int(ids[k]), k)) if inside[k]] if tokens < 4000 else None
    if order:
        idl = (ids - first).tolist()
        unique = sorted({idl[k] for k in order})
        bounds = [next(i for i, k in enumerate(order) if idl[k] == u) for u in unique] + [len(order)]
        un, bo, od = (torch.tensor(v, dtype=torch.int32, device=DEV) for v in (unique, bounds, order))
        before = [table.clone()]
        ref = before[0].double().index_add(0, (ids - first)[inside], dy.double()[inside])
        check(f"scatter_add {t}", lambda: call("sft_scatter_add", stream(), 0, table, un, I64(len(unique)), bo, od, CODE[dtype], dy, I64(width)), [table], [ref], 2e-6 if dtype == F32 else 1e-5, before)


def rotary_case(dtype, tokens, heads, groups, d, rotated):
    per, pairs = heads // groups, rotated // 2
    qkv = rnd(tokens, (heads + 2 * groups) * d, dtype=dtype)
    pos = torch.randint(0, 50, (tokens,), device=DEV)
    angle = torch.arange(50, device=DEV).double()[:, None] / 10000.0 ** (torch.arange(pairs, device=DEV).double() * 2 / rotated)
    table = torch.stack([angle.cos(), angle.sin()], -1).float().contiguous()
    ref = qkv.double().view(tokens, groups, per + 2, d).clone()
    c, s = table.double()[pos][..., 0][:, None, None], table.double()[pos][..., 1][:, None, None]
    a, b = ref[:, :, : per + 1, :pairs].clone(), ref[:, :, : per + 1, pairs:rotated].clone()
    ref[:, :, : per + 1, :pairs], ref[:, :, : per + 1, pairs:rotated] = a * c - b * s, b * c + a * s
    out = qkv.clone()
    p32 = pos.to(torch.int32)
    go = lambda sign: call("sft_rotary", stream(), CODE[dtype], out, table, p32, I64(tokens), I64(groups), I64(per + 1), I64(d), I64(pairs), F(sign))
    check(f"rotary {str(dtype)[6:]} heads {heads}/{groups} d {d} rotated {rotated}", lambda: go(1.0), [out], [ref.view_as(out)], BOUND[dtype], [qkv])
    check("   and back", lambda: (go(1.0), go(-1.0)), [out], [qkv], 2 * BOUND[dtype], [qkv])


# ---- cross entropy ---------------------------------------------------------------------------------------------------
def cross_entropy_case(dtype, rows, columns, vocab):
    x = rnd(rows, columns, dtype=dtype, scale=3.0)
    labels = torch.randint(0, vocab, (rows,), device=DEV)
    l32 = labels.to(torch.int32)
    x64 = x.double()[:, :vocab]
    nll = torch.nn.functional.cross_entropy(x64, labels, reduction="none")
    ref = torch.zeros(rows, columns, device=DEV, dtype=torch.float64)
    ref[:, :vocab] = torch.softmax(x64, -1)
    ref[torch.arange(rows), labels] -= 1
    t = f"{str(dtype)[6:]} {rows}x{columns} vocab {vocab}"
    out, stats, total = x.clone(), torch.empty(rows, 4, device=DEV), torch.zeros(1, device=DEV, dtype=torch.float64)
    def fused():
        call("sft_cross_entropy", stream(), CODE[dtype], out, l32, I64(vocab), stats, F(8.0), I64(rows), I64(columns))
        call("sft_loss_sum", stream(), stats, I64(rows), total)
    check(f"cross entropy in one pass {t}", fused, [out, total], [8 * ref, nll.sum().view(1)], [BOUND[dtype], 1e-6], [x, torch.zeros_like(total)])
    if not torch.equal(stats[:, 3].view(torch.int32).long(), x64.argmax(-1)):
        # ties go to the lowest column in ours
        best = x64.gather(1, stats[:, 3].view(torch.int32).long()[:, None])[:, 0]
        if not torch.equal(best, x64.max(-1).values):
            failed.append("argmax " + t)
            print("BAD argmax", t)
    # two parts of the vocabulary: each one's statistics, merged, the loss from them, the gradient of each part
    half = columns // 2 // 8 * 8 if columns >= 16 else columns // 2
    parts = [x[:, :half].contiguous(), x[:, half:].contiguous()]
    st = [torch.empty(rows, 4, device=DEV) for _ in parts]
    for part, s, first in zip(parts, st, (0, half)):
        call("sft_cross_entropy_statistics", stream(), CODE[dtype], part, l32, I64(first), I64(vocab), s, I64(rows), I64(part.shape[1]))
    both, loss = torch.empty(rows, 4, device=DEV), torch.zeros(1, device=DEV, dtype=torch.float64)
    def merged():
        call("sft_merge_statistics", stream(), torch.cat(st), I64(2), I64(rows), both)
        call("sft_loss_sum", stream(), both, I64(rows), loss)
    check(f"cross entropy's statistics merged {t}", merged, [loss], [nll.sum().view(1)], 1e-6, [torch.zeros_like(loss)])
    if not torch.equal(both[:, 3].view(torch.int32), stats[:, 3].view(torch.int32)):
        failed.append("argmax of parts " + t)
        print("BAD argmax of parts", t)
    grads = [p.clone() for p in parts]
    def cut():
        for g, first in zip(grads, (0, half)):
            call("sft_cross_entropy_gradient", stream(), CODE[dtype], g, l32, I64(first), I64(vocab), both, F(1.0), I64(rows), I64(g.shape[1]))
    check(f"cross entropy in two parts {t}", cut, grads, [ref[:, :half], ref[:, half:]], BOUND[dtype], parts)


def argmax_case(dtype, rows, width, columns):
    x = (rnd(rows, width) * 8).round().to(dtype)  # many equals
    forbidden = torch.full((rows,), -1, device=DEV, dtype=torch.int32)
    first = lambda values: [row.index(max(row)) for row in values.tolist()]
    best = first(x[:, :columns])
    forbidden[0], x[0, best[0]] = best[0], 1e4
    x[1, columns - 1] = float("nan")
    x[2, :columns] = float("-inf")
    x[3, columns:] = float("nan")
    legal = x[:, :columns].clone()
    legal[0, best[0]] = float("-inf")
    wanted = first(legal)
    wanted[1] = wanted[2] = -1
    out = torch.empty(rows, device=DEV, dtype=torch.int32)
    call("sft_argmax", stream(), CODE[dtype], x, forbidden, out, I64(rows), I64(width), I64(columns))
    good, name = out.tolist() == wanted, f"argmax {str(dtype)[6:]} {rows}x{width} of {columns}"
    if not good:
        failed.append(name)
    print(f"{'ok ' if good else 'BAD'} {name}", flush=True)


# ---- attention -------------------------------------------------------------------------------------------------------
def attention_reference(qkv, starts, heads, groups, d, dy, mask):
    per = heads // groups
    x = qkv.double().requires_grad_()
    outs, logs = [], []
    for a, b in zip(starts, starts[1:]):
        if a == b:
            continue
        part = x[a:b].view(b - a, groups, per + 2, d)
        q = part[:, :, :per].reshape(b - a, heads, d).transpose(0, 1)
        k, v = (part[:, :, per + i].repeat_interleave(per, 1).transpose(0, 1) for i in (0, 1))
        s = q @ k.transpose(1, 2) / math.sqrt(d)
        s = s.masked_fill(torch.ones(b - a, b - a, device=DEV, dtype=torch.bool).triu(1), float("-inf"))
        logs.append(torch.logsumexp(s, -1).t())
        p = torch.softmax(s, -1)
        if mask is not None:
            p = p * mask[a:b, :, : b - a].transpose(0, 1)
        outs.append((p @ v).transpose(0, 1).reshape(b - a, heads * d))
    y = torch.cat(outs)
    (g,) = torch.autograd.grad(y, x, dy.double())
    return y.detach(), torch.cat(logs).detach(), g


def tiles_of(starts):
    size = 64
    rows = [(f, min(f + size, b), a, b) for a, b in zip(starts, starts[1:]) for f in range(a, b, size)]
    return torch.tensor(rows, dtype=torch.int32, device=DEV), len(rows)


def attention_case(dtype, lengths, heads, groups, d, drop=False):
    starts = [0]
    for n in lengths:
        starts.append(starts[-1] + n)
    tokens, per = starts[-1], heads // groups
    qkv, dy = rnd(tokens, (heads + 2 * groups) * d, dtype=dtype), rnd(tokens, heads * d, dtype=dtype)
    h = Heads(heads, groups, d, 1 / math.sqrt(d), 1 if drop else 0, heads + 3 if drop else heads)
    dr = dropout(tokens) if drop else None
    mask = probability_factors(dr, tokens, heads, heads + 3, 1, max(lengths)) if drop else None
    y_ref, log_ref, g_ref = attention_reference(qkv, starts, heads, groups, d, dy, mask)
    tiles, count = tiles_of(starts)
    y, logs = torch.empty_like(dy), torch.empty(tokens, heads, device=DEV)
    t = f"attention {str(dtype)[6:]} {lengths if len(lengths) < 5 else len(lengths)} heads {heads}/{groups} d {d}{' dropout' if drop else ''}"
    bound = 4e-3 if dtype == BF16 else BOUND[dtype]
    check(t + " fwd", lambda: call("sft_attention_forward", stream(), CODE[dtype], h, dr, tiles, I64(count), qkv, y, logs), [y, logs], [y_ref, log_ref], [bound, 1e-3 if dtype != F32 else 1e-5])
    along, g = torch.empty(tokens, heads, device=DEV), torch.empty_like(qkv)
    check(t + " bwd", lambda: call("sft_attention_backward", stream(), CODE[dtype], h, dr, tiles, I64(count), qkv, y, logs, dy, along, g, I64(tokens)), [g], [g_ref], 2 * bound)
    view, ref = g.view(tokens, groups, per + 2, d), g_ref.view(tokens, groups, per + 2, d)
    print("      dq dk dv " + " ".join(f"{rel(view[:, :, s], ref[:, :, s]):.1e}" for s in (slice(0, per), per, per + 1)))
    if dtype == F32 or drop or d % 8:
        return
    # cuDNN, deterministic
    n, longest = len(lengths), max(lengths)
    uniform = min(lengths) == longest
    ragged = [None] * 3
    if not uniform:  # rounded up, as kernels/cuda/attention.rs does: more sequences (empty ones) and a longer longest
        longest, n = (longest + 63) // 64 * 64, 1 << (n - 1).bit_length()
        st = torch.tensor(starts + [tokens] * (n + 1 - len(starts)), dtype=torch.int32, device=DEV)
        ragged = [st[1:] - st[:-1], st * qkv.shape[1], st * (heads * d)]
    stats = torch.empty(n * longest * heads, device=DEV)
    common = (I64(n), I64(longest), I64(heads), I64(groups), I64(d), F(1 / math.sqrt(d)), *ragged)
    try:
        check(t.replace("attention", "cuDNN") + " fwd", lambda: call("sft_sdpa_forward", SDPA, stream(), CODE[dtype], *common, qkv, y, stats), [y], [y_ref], bound)
        check(t.replace("attention", "cuDNN") + " bwd", lambda: call("sft_sdpa_backward", SDPA, stream(), CODE[dtype], *common, qkv, y, stats, dy, g), [g], [g_ref], 2 * bound)
    except RuntimeError as e:
        print("--- cuDNN refuses:", t, str(e)[:300])


def cached_case(dtype, heads, groups, d, past, new):
    widest = -(-max(p + n for p, n in zip(past, new)) // BLOCK)
    width, per = (heads + 2 * groups) * d, heads // groups
    cache = torch.zeros(len(past) * widest + 2, BLOCK, groups, 2 * d, device=DEV, dtype=dtype)
    blocks_of = torch.randperm(len(cache))[: len(past) * widest].view(len(past), widest)
    whole = [rnd(p + n, width, dtype=dtype) for p, n in zip(past, new)]
    for w, p, blocks in zip(whole, past, blocks_of.to(DEV)):
        at = torch.arange(p, device=DEV)
        cache[blocks[at // BLOCK], at % BLOCK] = w[:p].view(p, groups, per + 2, d)[:, :, per:].reshape(p, groups, 2 * d)
    qkv = torch.cat([w[p:] for w, p in zip(whole, past)])
    rows = [(s, p + i) for s, (p, n) in enumerate(zip(past, new)) for i in range(n)]
    where_to = torch.tensor([r[i] for i in (0, 1) for r in rows] + blocks_of.flatten().tolist(), dtype=torch.int32, device=DEV)
    refs = []
    for w, p in zip(whole, past):
        y, _, _ = attention_reference(w, [0, w.shape[0]], heads, groups, d, torch.zeros(w.shape[0], heads * d, device=DEV), None)
        refs.append(y[p:])
    before, after = cache.clone(), cache.clone()
    for w, p, blocks in zip(whole, past, blocks_of.to(DEV)):
        at = torch.arange(p, len(w), device=DEV)
        after[blocks[at // BLOCK], at % BLOCK] = w[p:].view(-1, groups, per + 2, d)[:, :, per:].reshape(-1, groups, 2 * d)
    out, h = torch.empty(len(rows), heads * d, device=DEV, dtype=dtype), Heads(heads, groups, d, 1 / math.sqrt(d), 0, heads)
    check(f"cached attention {str(dtype)[6:]} heads {heads}/{groups} d {d} past {past} new {new}",
          lambda: call("sft_attention_cached", stream(), CODE[dtype], h, qkv, cache, where_to, I64(len(past)), I64(widest), I64(BLOCK), out, I64(len(rows))),
          [out, cache], [torch.cat(refs), after], [BOUND[dtype], 0], [None, before])


# ---- products, optimizer ---------------------------------------------------------------------------------------------
def linear_case(dtype, tokens, inputs, outputs):
    x, w, b, dy = rnd(tokens, inputs, dtype=dtype), rnd(outputs, inputs, dtype=dtype), rnd(outputs, dtype=dtype), rnd(tokens, outputs, dtype=dtype)
    y, dx, dw = torch.empty_like(dy), torch.empty_like(x), rnd(outputs, inputs)
    n = (I64(tokens), I64(inputs), I64(outputs))
    t = f"{str(dtype)[6:]} {tokens}x{inputs}->{outputs}"
    ref = x.double() @ w.double().t()
    check(f"linear {t}", lambda: call("sft_linear_forward", GEMM, stream(), CODE[dtype], x, w, None, y, None, *n), [y], [ref], BOUND[dtype])
    check(f"linear + bias {t}", lambda: call("sft_linear_forward", GEMM, stream(), CODE[dtype], x, w, b, y, None, *n), [y], [ref + b.double()], BOUND[dtype])
    check(f"linear dx {t}", lambda: call("sft_linear_backward_input", GEMM, stream(), CODE[dtype], dy, w, dx, *n), [dx], [dy.double() @ w.double()], BOUND[dtype])
    before = [dw.clone()]
    check(f"linear dw += {t}", lambda: call("sft_linear_backward_weight", GEMM, stream(), CODE[dtype], dy, x, dw, 1, *n), [dw], [before[0].double() + dy.double().t() @ x.double()], 2e-5, before)
    check(f"linear dw = {t}", lambda: call("sft_linear_backward_weight", GEMM, stream(), CODE[dtype], dy, x, dw, 0, *n), [dw], [dy.double().t() @ x.double()], 2e-5)
    LIB.sft_gemm_spare(GEMM, 24)
    check(f"linear dw = beside others {t}", lambda: call("sft_linear_backward_weight", GEMM, stream(), CODE[dtype], dy, x, dw, 0, *n), [dw], [dy.double().t() @ x.double()], 2e-5)
    LIB.sft_gemm_spare(GEMM, 0)
    if dtype != F32:
        pre = torch.empty_like(y)
        try:
            check(f"linear + bias + gelu {t}", lambda: call("sft_linear_forward", GEMM, stream(), CODE[dtype], x, w, b, y, pre, *n), [y, pre],
                  [torch.nn.functional.gelu(ref + b.double(), approximate="tanh"), ref + b.double()], BOUND[dtype])
        except RuntimeError as e:
            print("--- refused:", e)


def adamw_settings(step=3, scale=0.5):
    lr, b1, b2, eps, wd = 1e-3, 0.9, 0.95, 1e-8, 0.1
    return AdamW(scale, b1, b2, 1 - b1, 1 - b2, 1 - lr * wd, lr / (1 - b1**step), 1 / math.sqrt(1 - b2**step), eps)


def adamw_case(count, half):
    p, g, m, v = rnd(count), rnd(count), rnd(count), rnd(count).abs()
    by, copy = adamw_settings(), torch.empty(count, device=DEV, dtype=half)
    g64 = g.double() * 0.5
    m1, v1 = 0.9 * m.double() + 0.1 * g64, 0.95 * v.double() + 0.05 * g64.square()
    bounds = sorted(set(torch.randint(0, count + 1, (6,)).tolist()))
    bounds = torch.tensor(bounds[: len(bounds) // 2 * 2], device=DEV, dtype=torch.int64)
    decays = torch.searchsorted(bounds, torch.arange(count, device=DEV), right=True) % 2 == 1
    p1 = p.double() * torch.where(decays, 1 - 1e-4, 1.0).double() - 1e-3 / (1 - 0.9**3) * m1 / ((v1 / (1 - 0.95**3)).sqrt() + 1e-8)
    start = [p.clone(), m.clone(), v.clone(), None]
    check(f"adamw {count} copy {str(half)[6:]}", lambda: call("sft_adamw", stream(), p, g, m, v, CODE[half], copy, I64(count), bounds, I64(len(bounds)), by), [p, m, v, copy], [p1, m1, v1, p1], [1e-6, 1e-6, 1e-6, 4e-3], start)


def split(values):
    """kernels/masters.rs's `split`: the nearest bf16 numbers, ties away from zero, and what has to be added to their bits."""
    bits = values.view(torch.int32)
    upper = torch.where(values.isnan(), bits >> 16 | 0x40, (bits + 0x8000) >> 16)
    rest = torch.where(values.isnan(), 0, (bits << 16) >> 16)
    return upper.to(torch.int16).view(BF16), rest.to(torch.int16)


def adamw_split_case(count):
    """Parameters with remainders take the step of f32 parameters to the bit."""
    p, g, m, v, by = rnd(count), rnd(count), rnd(count), rnd(count).abs(), adamw_settings()
    p[::3] = ((p[::3].view(torch.int32) & ~0xFFFF) | 0x8000).view(F32)  # ties
    bounds = torch.tensor([0, count // 3], device=DEV)
    rest_of = lambda: (I64(count), bounds, I64(2), by)
    p1, m1, v1 = p.clone(), m.clone(), v.clone()
    call("sft_adamw", stream(), p1, g, m1, v1, CODE[F32], None, *rest_of())
    (copy, rest), values = split(p), torch.empty(count, device=DEV)
    def run():
        call("sft_adamw_split", stream(), copy, rest, g, m, v, *rest_of())
        call("sft_join_masters", stream(), copy, rest, values, I64(count))
    start = [copy.clone(), rest.clone(), m.clone(), v.clone(), None]
    check(f"adamw {count} with remainders", run, [copy, rest, m, v, values], [*split(p1), m1, v1, p1], 0.0, start)


def split_case():
    """A step that changes nothing splits every bf16 number's neighbours into what they were."""
    upper, lower = torch.arange(1 << 16, device=DEV), torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], device=DEV)
    bits = (upper[:, None] * 0x10000 + lower).flatten()
    values = torch.where(bits < 1 << 31, bits, bits - (1 << 32)).to(torch.int32).view(F32)
    numbers, is_nan = ~values.isnan(), values.isnan()
    zeros, by = torch.zeros_like(values), AdamW(1, 0, 0, 0, 0, 1, 0, 1, 1)
    (copy, rest), after = split(values), torch.empty_like(values)
    expected = copy.clone()
    def run():
        call("sft_adamw_split", stream(), copy, rest, zeros, zeros.clone(), zeros.clone(), I64(len(values)), None, I64(0), by)
        call("sft_join_masters", stream(), copy, rest, after, I64(len(values)))
        if not (after[is_nan].isnan().all() and copy[is_nan].isnan().all()):
            raise ValueError("NaN became a number")
        for out in (after, copy):
            out[is_nan] = 0
    bits_of = lambda x, i: torch.where(numbers, x, torch.zeros_like(x)).view(i)
    check("split and join of every bf16 number's neighbours", run, [after.view(torch.int32), copy.view(torch.int16)], [bits_of(values, torch.int32), bits_of(expected, torch.int16)], 0.0, [torch.zeros_like(bits, dtype=torch.int32), expected.view(torch.int16).clone()])


def clear_case(count):
    x, bounds = rnd(count), torch.tensor([[0, 3], [5, 5], [7, 1200], [count - 1, count]], device=DEV)
    after = x.double()
    for begin, end in bounds.tolist():
        after[begin:end] = 0
    check(f"clear of ranges of {count}", lambda: call("sft_clear_ranges", stream(), x, bounds, I64(len(bounds))), [x], [after], 0.0, [x.clone()])


def linear_activation_case(dtype, kind, tokens, depth, features, with_bias=True):
    x, w, b = rnd(tokens, depth, dtype=dtype), rnd(features, depth, dtype=dtype, scale=depth**-0.5), rnd(features, dtype=dtype) if with_bias else None
    tag = f"linear + activation {kind} {str(dtype)[6:]} {tokens}x{depth}->{features}{' bias' if with_bias else ''}"
    f = {0: lambda t: torch.nn.functional.gelu(t, approximate="tanh"), 1: torch.nn.functional.gelu, 2: torch.relu, 3: lambda t: torch.relu(t).square()}[kind]
    added = b.double() if with_bias else 0
    # What lies behind the outputs must stay as it is.
    room = [torch.empty(tokens * features + 4096, device=DEV, dtype=dtype) for _ in range(3)]
    before, y, dx = (r[:tokens * features].view(tokens, features) for r in room)
    for r in room:
        r[tokens * features:] = 7
    ref = x.double() @ w.double().t()
    # The activation is of the rounded product, as when the two are apart.
    check(tag + " fwd", lambda: call("sft_linear_activation_forward", stream(), linear_activation(kind, x, w, b, before, y)),
          [before, y], [ref, f(ref.to(dtype).double() + added)], [BOUND[dtype], 2 * BOUND[dtype]])
    kept = rnd(tokens, features, dtype=dtype)
    k64 = kept.double().requires_grad_()
    w2, dy = rnd(depth, features, dtype=dtype, scale=depth**-0.5), rnd(tokens, depth, dtype=dtype)
    (g,) = torch.autograd.grad(f(k64 + added), k64, dy.double() @ w2.double())
    ws = torch.full((LIB.sft_column_workspace(I64(tokens), I64(features)),), float("nan"), device=DEV)
    db = rnd(features)
    start = [None, db.clone()]
    back = linear_activation(kind, dy, w2, b, kept, dx)
    check(tag + " bwd", lambda: call("sft_linear_activation_backward", stream(), back, ws, db),
          [dx, db], [g, start[1] + g.sum(0)], [2 * BOUND[dtype], max(5e-5, BOUND[dtype])], start)
    check(tag + " bwd without sums", lambda: call("sft_linear_activation_backward", stream(), back, None, None), [dx], [g], 2 * BOUND[dtype])
    for r in room:
        assert (r[tokens * features:] == 7).all(), "written behind the end"


def checks():
    print("cuBLAS", LIB.sft_cublas_version(), "cuDNN", LIB.sft_cudnn_version(), "torch", torch.__version__, torch.cuda.get_device_name(0))
    for dtype in (F32, BF16, F16):
        for rows, width in ((37, 96), (5, 33), (2300, 2048), (1200, 4096), (1500, 33), (1400, 12288)):
            for kind in (0, 1, 2):
                safe(norm_case, dtype, kind, rows, width, False)
            for kind in (1, 2):
                safe(norm_case, dtype, kind, rows, width, True)
        for kind in range(7):
            safe(activation_case, dtype, kind, 300, 328, True)
            safe(activation_case, dtype, kind, 17, 13, kind % 2 == 0)
        for rows, width in ((37, 96), (21, 35), (600, 768)):
            safe(small_cases, dtype, rows, width)
        safe(rotary_case, dtype, 33, 8, 2, 64, 64)
        safe(rotary_case, dtype, 33, 4, 4, 40, 20)
        safe(cross_entropy_case, dtype, 19, 1024, 1000)
        safe(cross_entropy_case, dtype, 19, 77, 77)
        safe(cross_entropy_case, dtype, 40, 50304, 50257)
        safe(cross_entropy_case, dtype, 7, 128256, 128256)
        for rows, width, columns in ((8, 50304, 50257), (5, 77, 70), (4, 128256, 128256)):
            safe(argmax_case, dtype, rows, width, columns)
        for lengths, heads, groups, d in (([130], 2, 2, 64), ([1, 63, 64, 65, 200], 4, 2, 128), ([5, 700, 33], 8, 8, 64), ([300, 17], 4, 1, 80), ([70, 90], 3, 3, 256), ([50, 9], 2, 2, 20), ([128, 128], 4, 4, 128)):
            safe(attention_case, dtype, lengths, heads, groups, d)
        safe(attention_case, dtype, [130, 61], 4, 2, 64, True)
        safe(attention_case, dtype, [33, 90], 2, 2, 128, True)
        safe(cached_case, dtype, 4, 2, 64, [0, 5, 100], [7, 1, 1])
        safe(cached_case, dtype, 4, 4, 80, [40, 0], [3, 33])
        safe(cached_case, dtype, 2, 1, 20, [40, 0], [3, 3])
        safe(cached_case, dtype, 2, 2, 256, [9], [2])
        # One new token each, as decoding has them.
        for heads, groups, d, past in ((4, 2, 64, [0, 5, 100]), (4, 4, 128, [255, 300, 31, 32]), (8, 2, 128, [1000, 7]), (2, 1, 20, [40, 0]), (2, 2, 256, [70])):
            safe(cached_case, dtype, heads, groups, d, past, [1] * len(past))
        safe(linear_case, dtype, 130, 96, 200)
        safe(linear_case, dtype, 1000, 2048, 6144)
        safe(linear_case, dtype, 24, 40, 8)
        for tokens, inputs, outputs in ((8, 2048, 6144), (1, 8192, 2048), (13, 96, 208), (16, 2048, 3072), (5, 160, 48)):
            safe(linear_case, dtype, tokens, inputs, outputs)
        if dtype != F32 and torch.cuda.get_device_capability() == (9, 0):
            for kind in range(4):
                safe(linear_activation_case, dtype, kind, 300, 200, 136)
            # The last: several tiles for each cluster, ends of tiles on all sides, a block without features.
            for tokens, depth, features in ((256, 64, 256), (1, 8, 8), (1000, 72, 1032), (77, 1024, 8192), (4096, 2048, 3072), (9000, 200, 1032)):
                safe(linear_activation_case, dtype, 0, tokens, depth, features, depth != 72)
    safe(attention_case, BF16, [2048, 2048], 4, 4, 128)
    safe(attention_case, BF16, [1024] * 3, 4, 4, 64)
    for count in (1, 1003, 4096, 1 << 20):
        safe(adamw_case, count, BF16)
        safe(adamw_split_case, count)
    safe(split_case)
    safe(adamw_case, 1000, F16)
    safe(clear_case, 4001)
    safe(adamw_case, 1000, F32)


# ---- times -----------------------------------------------------------------------------------------------------------
def time_ms(f, n=20):
    for _ in range(4):
        f()
    times = []
    for _ in range(n):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record(); f(); b.record()
        times.append((a, b))
    torch.cuda.synchronize()
    return sorted(a.elapsed_time(b) for a, b in times)[n // 2]


def row(name, ms, what, ref_ms=None):
    print(f"{name:58s} {ms:8.3f} ms  {what:22s}" + (f"  torch.compile {ref_ms:8.3f} ms" if ref_ms else ""), flush=True)


def times():
    T, H, NH, D, V = 16384, 2048, 16, 128, 50304
    dtype, c = BF16, CODE[BF16]
    comp = lambda f: torch.compile(f, dynamic=False)
    gb = lambda nbytes, ms: f"{nbytes / ms / 1e6:7.0f} GB/s"
    big, out = rnd(T, 8192, dtype=dtype), torch.empty(T, 8192, device=DEV, dtype=dtype)
    ms = time_ms(lambda: out.copy_(big)); row("copy 16384x8192", ms, gb(4 * big.numel(), ms))
    # norm
    x, res, w, b = rnd(T, H, dtype=dtype), rnd(T, H, dtype=dtype), rnd(H, dtype=dtype), rnd(H, dtype=dtype)
    s, y, x2, mom = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x), torch.empty(T, 2, device=DEV)
    F_ = torch.nn.functional
    ref = comp(lambda x, res, w, b: (x + b + res, F_.layer_norm(x + b + res, (H,), w, b)))
    ms = time_ms(lambda: call("sft_norm_forward", stream(), c, 1, F(1e-5), x, b, None, res, s, w, b, y, mom, I64(T), I64(H)))
    row("residual + bias + layernorm fwd", ms, gb(8 * x.numel(), ms), time_ms(lambda: ref(x, res, w, b)))
    ms = time_ms(lambda: call("sft_norm_forward", stream(), c, 1, F(1e-5), None, None, None, res, None, w, b, y, mom, I64(T), I64(H)))
    row("layernorm fwd", ms, gb(4 * x.numel(), ms))
    ws = torch.empty(LIB.sft_norm_backward_workspace(I64(T), I64(H)), device=DEV)
    dw, db, ds = (torch.zeros(H, device=DEV) for _ in range(3))
    ms = time_ms(lambda: call("sft_norm_backward", stream(), c, 1, x, mom, w, b, y, res, s, None, ws, dw, db, None, I64(T), I64(H)))
    xr, wr, br = x.clone().requires_grad_(), w.clone().requires_grad_(), b.clone().requires_grad_()
    ln = comp(lambda x, w, b: F_.layer_norm(x, (H,), w, b))
    o = ln(xr, wr, br)
    ref_ms = time_ms(lambda: torch.autograd.grad(o, [xr, wr, br], y, retain_graph=True))
    row("layernorm bwd + residual", ms, gb(8 * x.numel(), ms), ref_ms)
    ms = time_ms(lambda: call("sft_norm_backward", stream(), c, 1, x, mom, w, b, y, res, s, x2, ws, dw, db, ds, I64(T), I64(H)))
    row("layernorm bwd + residual + sums of dx + output again", ms, gb(10 * x.numel(), ms))
    # activation
    for ffn in (8192, 3072):
        x8, bias, dy = rnd(T, ffn, dtype=dtype), rnd(ffn, dtype=dtype), rnd(T, ffn, dtype=dtype)
        y8, wsc, dbias = torch.empty_like(x8), torch.empty(LIB.sft_column_workspace(I64(T), I64(ffn)), device=DEV), torch.zeros(ffn, device=DEV)
        ms = time_ms(lambda: call("sft_activation_forward", stream(), c, 0, x8, bias, y8, I64(T), I64(ffn)))
        act = comp(lambda x, b: F_.gelu(x + b, approximate="tanh"))
        row(f"bias + gelu fwd {ffn}", ms, gb(4 * x8.numel(), ms), time_ms(lambda: act(x8, bias)))
        ms = time_ms(lambda: call("sft_activation_backward", stream(), c, 0, x8, bias, dy, y8, wsc, dbias, I64(T), I64(ffn)))
        xr, br = x8.clone().requires_grad_(), bias.clone().requires_grad_()
        o = act(xr, br)
        row(f"bias + gelu bwd + bias gradient {ffn}", ms, gb(6 * x8.numel(), ms), time_ms(lambda: torch.autograd.grad(o, [xr, br], dy, retain_graph=True)))
        ms = time_ms(lambda: call("sft_column_sums", stream(), c, x8, I64(T), I64(ffn), wsc, dbias))
        row(f"column sums {ffn}", ms, gb(2 * x8.numel(), ms))
        del x8, dy, y8, o, xr
    ms = time_ms(lambda: call("sft_residual_forward", stream(), c, x, b, None, res, y, I64(T), I64(H)))
    row("residual + bias", ms, gb(6 * x.numel(), ms))
    d = dropout(T)
    ms = time_ms(lambda: call("sft_residual_forward", stream(), c, x, b, d, res, y, I64(T), I64(H)))
    row("residual + bias + dropout", ms, gb(6 * x.numel(), ms))
    # embedding backward
    ids = torch.randint(0, 50257, (T,), device=DEV); ids[:800] = 11
    srt, order = torch.sort(ids, stable=True)
    un, cnt = torch.unique_consecutive(srt, return_counts=True)
    bo = torch.cat([torch.zeros(1, device=DEV, dtype=torch.long), cnt.cumsum(0)]).to(torch.int32)
    table = torch.zeros(V, H, device=DEV)
    un32, od = un.to(torch.int32), order.to(torch.int32)
    ms = time_ms(lambda: call("sft_scatter_add", stream(), 0, table, un32, I64(len(un)), bo, od, c, x, I64(H)))
    row("embedding bwd (800 equal tokens)", ms, "")
    i32 = ids.to(torch.int32)
    wt = rnd(V, H, dtype=dtype)
    ms = time_ms(lambda: call("sft_gather", stream(), c, wt, i32, I64(0), I64(V), None, None, y, I64(T), I64(H)))
    row("embedding fwd", ms, gb(4 * x.numel(), ms))
    del table, big, out
    # cross entropy
    logits, stats = rnd(T, V, dtype=dtype), torch.empty(T, 4, device=DEV)
    ms = time_ms(lambda: call("sft_cross_entropy", stream(), c, logits, i32, I64(50257), stats, F(1.0), I64(T), I64(V)), 10)
    lr = logits.clone().requires_grad_()
    ce = comp(lambda l, t: F_.cross_entropy(l.float(), t, reduction="sum"))
    ref_ms = time_ms(lambda: torch.autograd.grad(ce(lr, ids), lr), 10)
    row("cross entropy fwd + bwd", ms, gb(4 * logits.numel(), ms), ref_ms)
    del logits, lr
    # attention
    lengths = [2048] * 8
    starts = [2048 * i for i in range(9)]
    tiles, count = tiles_of(starts)
    for heads, groups, dim in ((16, 16, 128), (32, 32, 64), (16, 4, 128)):
        qkv = rnd(T, (heads + 2 * groups) * dim, dtype=dtype)
        yo, logs, dyo = torch.empty(T, heads * dim, device=DEV, dtype=dtype), torch.empty(T, heads, device=DEV), rnd(T, heads * dim, dtype=dtype)
        g, along, st = torch.empty_like(qkv), torch.empty_like(logs), torch.empty(T * heads, device=DEV)
        flop = 2 * 8 * heads * 2048 * 2048 * dim
        tf = lambda ms, k: f"{k * flop / ms / 1e9:7.0f} TFLOP/s"
        h = Heads(heads, groups, dim, 1 / math.sqrt(dim), 0, heads)
        ms = time_ms(lambda: call("sft_attention_forward", stream(), c, h, None, tiles, I64(count), qkv, yo, logs), 10)
        row(f"attention fwd, own, heads {heads}/{groups} d {dim}", ms, tf(ms, 1))
        ms = time_ms(lambda: call("sft_attention_backward", stream(), c, h, None, tiles, I64(count), qkv, yo, logs, dyo, along, g, I64(T)), 10)
        row(f"attention bwd, own, heads {heads}/{groups} d {dim}", ms, tf(ms, 2.5))
        common = (I64(8), I64(2048), I64(heads), I64(groups), I64(dim), F(1 / math.sqrt(dim)))
        st32 = torch.tensor(starts, dtype=torch.int32, device=DEV)
        ln32 = torch.tensor(lengths, dtype=torch.int32, device=DEV)
        ragged = (ln32, st32 * qkv.shape[1], st32 * (heads * dim))
        for kind, more in (("uniform", (None, None, None)), ("ragged", ragged)):
            try:
                ms = time_ms(lambda: call("sft_sdpa_forward", SDPA, stream(), c, *common, *more, qkv, yo, st), 10)
                row(f"attention fwd, cuDNN {kind}, heads {heads}/{groups} d {dim}", ms, tf(ms, 1))
                ms = time_ms(lambda: call("sft_sdpa_backward", SDPA, stream(), c, *common, *more, qkv, yo, st, dyo, g), 10)
                row(f"attention bwd, cuDNN {kind}, heads {heads}/{groups} d {dim}", ms, tf(ms, 2.5))
            except RuntimeError as e:
                print("--- cuDNN:", kind, heads, groups, dim, str(e)[:200])
        if heads == groups:
            q, k, v = (rnd(8, heads, 2048, dim, dtype=dtype).requires_grad_() for _ in range(3))
            o = F_.scaled_dot_product_attention(q, k, v, is_causal=True)
            dd = torch.randn_like(o)
            row("   torch sdpa fwd", time_ms(lambda: F_.scaled_dot_product_attention(q, k, v, is_causal=True), 10), "")
            row("   torch sdpa bwd", time_ms(lambda: torch.autograd.grad(o, [q, k, v], dd, retain_graph=True), 10), "")
            del q, k, v, o, dd
    # decoding
    cache = rnd(8 * 2048 // BLOCK, BLOCK, NH, 2 * D, dtype=dtype)
    qkv1, y1 = rnd(8, 3 * H, dtype=dtype), torch.empty(8, H, device=DEV, dtype=dtype)
    where_to = torch.cat([torch.arange(8), torch.full((8,), 255), torch.arange(8 * 2048 // BLOCK)]).to(DEV, torch.int32)
    h = Heads(16, 16, 128, 1 / math.sqrt(128), 0, 16)
    row("cached attention, 8 rows, 256 keys", time_ms(lambda: call("sft_attention_cached", stream(), c, h, qkv1, cache, where_to, I64(8), I64(2048 // BLOCK), I64(BLOCK), y1, I64(8))), "")
    logits, none, found = rnd(8, V, dtype=dtype), torch.full((8,), -1, device=DEV, dtype=torch.int32), torch.empty(8, device=DEV, dtype=torch.int32)
    row("argmax, 8 rows", time_ms(lambda: call("sft_argmax", stream(), c, logits, none, found, I64(8), I64(V), I64(50257))), "")
    # products
    for inputs, outputs in ((2048, 6144), (2048, 2048), (2048, 8192), (8192, 2048), (2048, 3072), (3072, 2048), (2048, V)):
        x, w, dy, bias = rnd(T, inputs, dtype=dtype), rnd(outputs, inputs, dtype=dtype), rnd(T, outputs, dtype=dtype), rnd(outputs, dtype=dtype)
        dw, dx, pre = torch.zeros(outputs, inputs, device=DEV), torch.empty_like(x), torch.empty_like(dy)
        n = (I64(T), I64(inputs), I64(outputs))
        flop = 2 * T * inputs * outputs
        tf = lambda f: (lambda ms: f"{ms:6.3f} {flop / ms / 1e9:5.0f}")(time_ms(f, 10))
        cells = [("fwd", lambda: call("sft_linear_forward", GEMM, stream(), c, x, w, None, pre, None, *n)), ("+bias", lambda: call("sft_linear_forward", GEMM, stream(), c, x, w, bias, pre, None, *n))]
        if outputs in (8192, 3072):
            y2 = torch.empty_like(dy)
            if torch.cuda.get_device_capability() == (9, 0):
                w2, ws2, db2 = rnd(inputs, outputs, dtype=dtype), torch.empty(LIB.sft_column_workspace(I64(T), I64(outputs)), device=DEV), torch.zeros(outputs, device=DEV)
                both = linear_activation(0, x, w, bias, pre, y2), linear_activation(0, x, w2, bias, pre, y2)
                cells.append(("+bias+gelu, own", lambda both=both: call("sft_linear_activation_forward", stream(), both[0])))
                cells.append(("dx·gelu' + bias sums, own", lambda both=both: call("sft_linear_activation_backward", stream(), both[1], ws2, db2)))
            cells.append(("+bias+gelu", lambda: call("sft_linear_forward", GEMM, stream(), c, x, w, bias, y2, pre, *n)))
        cells += [("dx", lambda: call("sft_linear_backward_input", GEMM, stream(), c, dy, w, dx, *n)), ("dw f32 +=", lambda: call("sft_linear_backward_weight", GEMM, stream(), c, dy, x, dw, 1, *n)), ("dw f32 =", lambda: call("sft_linear_backward_weight", GEMM, stream(), c, dy, x, dw, 0, *n)),
                  ("torch fwd", lambda: torch.matmul(x, w.t())), ("torch dx", lambda: torch.matmul(dy, w)), ("torch dw", lambda: torch.matmul(dy.t(), x))]
        print(f"gemm {inputs}->{outputs} (ms, TFLOP/s): " + "  ".join(f"{name} {tf(f)}" for name, f in cells), flush=True)
        del x, w, dy, dw, dx, pre
    # optimizer
    n = 1_315_725_312 // 4   # a quarter of the model: far beyond the cache
    p, g, m, v = (torch.randn(n, device=DEV) * 0.01 for _ in range(4))
    v.abs_()
    by, bounds, (cp, rest) = adamw_settings(), torch.tensor([0, n], device=DEV), split(p)
    ms = time_ms(lambda: call("sft_adamw_split", stream(), cp, rest, g, m, v, I64(n), bounds, I64(2), by), 10)
    row("adamw, 329 M, bf16 with remainders", ms, gb(28 * n, ms))
    ms = time_ms(lambda: call("sft_adamw", stream(), p, g, m, v, c, cp, I64(n), bounds, I64(2), by), 10)
    row("adamw, 329 M, f32, copy in half precision", ms, gb(30 * n, ms))
    total, wsq = torch.zeros(1, device=DEV, dtype=torch.float64), torch.empty(LIB.sft_squares_workspace(), device=DEV, dtype=torch.uint8)
    ms = time_ms(lambda: call("sft_sum_of_squares", stream(), 0, g, I64(n), wsq, total), 10)
    row("sum of squares, 329 M f32", ms, gb(4 * n, ms))
    ms = time_ms(lambda: call("sft_clear", stream(), g, I64(4 * n)), 10)
    row("clear, 329 M f32", ms, gb(4 * n, ms))


GEMM, SDPA = LIB.sft_gemm_create(), LIB.sft_sdpa_create()
assert GEMM and SDPA, LIB.sft_library_error()
GEMM, SDPA = ctypes.c_void_p(GEMM), ctypes.c_void_p(SDPA)
if "check" in WANT:
    checks()
    print(f"{len(failed)} failed" + (": " + "; ".join(failed) if failed else ""))
if "time" in WANT:
    times()
if __name__ == "__main__":
    sys.exit(1 if failed else 0)

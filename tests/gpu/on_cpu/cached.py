#!/usr/bin/env python3
"""Attention against cached keys and values on a machine without a GPU: attention_cached.cu compiled for the CPU (cuda.h), f32 against f64.

    python3 tests/gpu/on_cpu/cached.py       # needs g++ with C++20; takes a second

Shows arithmetic and indexing; neither speed nor what only a GPU's memory can do.
"""
import pathlib, re, subprocess, sys, tempfile

from launches import launches

HERE = pathlib.Path(__file__).resolve().parent
KERNELS = HERE.parent.parent.parent / "src/kernels/cuda"
FORWARD = "(cudaStream_t, int, const Heads &, const SftDropout *, const SftTile *, int64_t, const void *, void *, float *) { return 1; }"
BACKWARD = "(cudaStream_t, int, const Heads &, const SftDropout *, const SftTile *, int64_t, const void *, const float *, const float *, const void *, void *) { return 1; }"
# The forms of whole sequences are not looked at here.
ELSEWHERE = "namespace sft {" + "".join(
    f"int attention_{form}_{way}{body}" for form in ("mma", "plain") for way, body in (("forward", FORWARD), ("backward", BACKWARD))
) + "}"
MAIN = r"""static uint32_t seed = 1; static float rnd() { seed = seed * 1664525 + 1013904223; return float(seed >> 8) / (1 << 23) - 1; }
static double run(int heads, int groups, int d, std::vector<int> past, std::vector<int> fresh, std::vector<std::vector<uint32_t>> blocks, int total) {
  SftHeads h{heads, groups, d, 1 / std::sqrt(float(d)), 0, heads};
  const int width = (heads + 2 * groups) * d, per = heads / groups, n = past.size();
  std::vector<float> cache(size_t(total) * 32 * groups * 2 * d, 7.f), qkv;
  std::vector<std::vector<float>> whole(n);
  std::vector<uint32_t> owners, places, tables; size_t widest = 0;
  for (auto &b : blocks) widest = std::max(widest, b.size());
  for (int s = 0; s < n; s++) {
    whole[s].resize((past[s] + fresh[s]) * width); for (auto &x : whole[s]) x = rnd();
    for (int t = 0; t < past[s]; t++) for (int g = 0; g < groups; g++) for (int c = 0; c < 2 * d; c++)
      cache[((size_t(blocks[s][t / 32]) * 32 + t % 32) * groups + g) * 2 * d + c] = whole[s][t * width + ((g + 1) * per + 2 * g) * d + c];
    for (int t = 0; t < fresh[s]; t++) { owners.push_back(s); places.push_back(past[s] + t); }
    qkv.insert(qkv.end(), whole[s].begin() + past[s] * width, whole[s].end());
    tables.insert(tables.end(), blocks[s].begin(), blocks[s].end()); tables.resize((s + 1) * widest, 0);
  }
  std::vector<uint32_t> list = owners; list.insert(list.end(), places.begin(), places.end()); list.insert(list.end(), tables.begin(), tables.end());
  std::vector<float> out(owners.size() * heads * d), after = cache;
  for (int s = 0; s < n; s++) for (int t = past[s]; t < past[s] + fresh[s]; t++) for (int g = 0; g < groups; g++) for (int c = 0; c < 2 * d; c++)
    after[((size_t(blocks[s][t / 32]) * 32 + t % 32) * groups + g) * 2 * d + c] = whole[s][t * width + ((g + 1) * per + 2 * g) * d + c];
  int rc = sft_attention_cached(nullptr, 0, &h, qkv.data(), cache.data(), list.data(), n, widest, 32, out.data(), owners.size());
  if (rc || cache != after) return 1e9;
  double far = 0; size_t row = 0;
  for (int s = 0; s < n; s++) for (int t = past[s]; t < past[s] + fresh[s]; t++, row++) for (int head = 0; head < heads; head++) {
    int g = head / per; std::vector<double> p(t + 1); double max = -1e30, sum = 0;
    const float *q = &whole[s][t * width + (head + 2 * g) * d];
    for (int k = 0; k <= t; k++) { double x = 0; for (int c = 0; c < d; c++) x += double(q[c]) * whole[s][k * width + ((g + 1) * per + 2 * g) * d + c]; p[k] = x * h.scale; max = std::max(max, p[k]); }
    for (auto &x : p) sum += x = std::exp(x - max);
    for (int c = 0; c < d; c++) { double y = 0; for (int k = 0; k <= t; k++) y += p[k] / sum * whole[s][k * width + ((g + 1) * per + 2 * g) * d + d + c]; far = std::max(far, std::fabs(y - out[(row * heads + head) * d + c])); }
  }
  return far;
}
int main() {
  // Blocks of each sequence, in no order; rows that end and begin a block; heads of 16, 12 (no packs of 8) and 72 channels.
  const double far[] = {run(2, 1, 16, {40, 3}, {1, 2}, {{5, 1}, {3}}, 6), run(2, 2, 12, {0, 70}, {5, 1}, {{4}, {0, 6, 2}}, 7),
                        run(1, 1, 72, {31, 32}, {1, 1}, {{1}, {2, 0}}, 3), run(4, 2, 80, {0, 33, 130}, {1, 1, 1}, {{9}, {1, 4}, {0, 2, 3, 8, 5}}, 10)};
  for (const double one : far) std::printf("%g from f64\n", one);
  const SftHeads h{1, 1, 8, 1, 0, 1};
  std::vector<float> numbers(64);
  std::vector<uint32_t> list(4);
  const bool refused = sft_attention_cached(nullptr, 0, &h, numbers.data(), numbers.data(), list.data(), 1, 1, 16, numbers.data(), 1);
  std::printf("another size of blocks is %s\n", refused ? "refused" : "TAKEN");
  return !refused || std::ranges::any_of(far, [](double one) { return one > 1e-6; });
}
"""

source = "".join(launches((KERNELS / name).read_text()) for name in ("common.cuh", "attention.cuh", "attention_cached.cu"))
source = re.sub(r"#include <cuda.*|#include \"(common|attention).cuh\"|#pragma.*", "", source)
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "cached.cpp"
    path.write_text(f'#include "{HERE}/cuda.h"\n#include <cstdio>\n{source}{ELSEWHERE}{MAIN}')
    subprocess.check_call(["g++", "-std=c++20", "-O1", "-ffp-contract=off", "-w", "-pthread", path, "-o", path.with_suffix("")])
    sys.exit(subprocess.call([path.with_suffix("")]))

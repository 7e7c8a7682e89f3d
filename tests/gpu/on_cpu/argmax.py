#!/usr/bin/env python3
"""The largest number of each row on a machine without a GPU: argmax.cu compiled for the CPU (cuda.h) against its rule, number by number.

    python3 tests/gpu/on_cpu/argmax.py       # needs g++ with C++20; takes ten seconds

Shows logic and indexing; neither speed nor what only a GPU's memory can do.
"""
import pathlib, re, subprocess, sys, tempfile

from launches import launches

HERE = pathlib.Path(__file__).resolve().parent
KERNELS = HERE.parent.parent.parent / "src/kernels/cuda"
MAIN = r"""static uint32_t seed = 1; static uint32_t rnd() { seed = seed * 1664525 + 1013904223; return seed >> 8; }
static uint32_t rule(const std::vector<float> &rows, int row, int width, int columns, uint32_t forbidden) {
  float best = -INFINITY; uint32_t found = 0xffffffff;
  for (int at = 0; at < columns; at++) {
    const float x = rows[size_t(row) * width + at];
    if (std::isnan(x)) return 0xffffffff;
    if (x > best && uint32_t(at) != forbidden) best = x, found = at;
  }
  return found;
}
int main() {
  int wrong = 0, cases = 0;
  // Packs of 8 and single numbers; padding columns; fewer columns than threads and more.
  for (const auto &[width, columns] : {std::pair{64, 57}, {77, 77}, {1024, 1000}, {9000, 8961}, {9001, 9000}, {8, 0}}) for (int half = 0; half < 2; half++) {
    const int count = 6; // equal numbers, a forbidden best, NaN, NaN behind the columns, all -infinity, infinities
    std::vector<float> rows(size_t(count) * width);
    std::vector<uint32_t> forbidden(count, 0xffffffff), out(count, 7);
    for (auto &x : rows) x = float(int(rnd() % 97) - 60) / 4;
    if (columns > 1) {
      forbidden[1] = rule(rows, 1, width, columns, 0xffffffff);
      rows[2 * width + rnd() % columns] = NAN, forbidden[2] = columns / 2, rows[2 * width + columns / 2] = 99;
      for (int at = columns; at < width; at++) rows[3 * width + at] = NAN;
      for (int at = 0; at < columns; at++) rows[4 * width + at] = -INFINITY;
      rows[5 * width + columns - 1] = INFINITY, rows[5 * width + columns / 2] = INFINITY;
    }
    std::vector<__nv_bfloat16> narrow; for (float x : rows) narrow.push_back(__float2bfloat16_rn(x));
    for (size_t i = 0; i < rows.size(); i++) if (std::isnan(rows[i])) narrow[i].bits = 0x7fc0;
    alignas(16) const void *numbers = half ? (const void *)narrow.data() : rows.data();
    if (sft_argmax(nullptr, half, numbers, forbidden.data(), out.data(), count, width, columns)) wrong++;
    for (int row = 0; row < count; row++, cases++) if (out[row] != rule(rows, row, width, columns, forbidden[row]))
      wrong++, std::printf("width %d columns %d %s row %d: %u, not %u\n", width, columns, half ? "bf16" : "f32", row, out[row], rule(rows, row, width, columns, forbidden[row]));
  }
  std::vector<float> numbers(8); std::vector<uint32_t> list(1);
  if (!sft_argmax(nullptr, 0, numbers.data(), list.data(), list.data(), 1, 8, 9)) wrong++, std::printf("more columns than numbers are TAKEN\n");
  std::printf("%d rows, %d wrong\n", cases, wrong);
  return wrong > 0;
}
"""

source = launches((KERNELS / "common.cuh").read_text()) + launches((KERNELS / "argmax.cu").read_text())
source = re.sub(r"#include <cuda.*|#include \"common.cuh\"|#pragma.*", "", source)
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "argmax.cpp"
    path.write_text(f'#include "{HERE}/cuda.h"\n#include <cstdio>\n{source}{MAIN}')
    subprocess.check_call(["g++", "-std=c++20", "-O1", "-ffp-contract=off", "-w", "-pthread", path, "-o", path.with_suffix("")])
    sys.exit(subprocess.call([path.with_suffix("")]))

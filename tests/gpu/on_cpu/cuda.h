// As much of CUDA C++ as the kernels compiled here use, for a CPU: a thread is a thread, a barrier a barrier, and a warp's lanes
// exchange through memory. For logic, not for speed.
#pragma once
#include <algorithm>
#include <barrier>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static // one block runs at a time
#define __launch_bounds__(...)
#define __restrict__
using std::max, std::min;

struct float2 { float x, y; };
struct uint2 { uint32_t x, y; };
struct uint4 { uint32_t x, y, z, w; };
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

struct __nv_bfloat16 {
  uint16_t bits;
  explicit operator float() const { return std::bit_cast<float>(uint32_t(bits) << 16); }
};
struct __half { // f16 is not computed here
  uint16_t bits;
  explicit operator float() const { return 0.f; }
};
inline uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
inline float __uint_as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline float __bfloat162float(__nv_bfloat16 x) { return float(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
inline float __half2float(__half x) { return float(x); }
inline __half __float2half_rn(float) { return {}; }
inline float __fmul_rn(float a, float b) { return a * b; } // compiled with -ffp-contract=off
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }

struct Block {
  std::barrier<> all;
  std::vector<std::unique_ptr<std::barrier<>>> warps;
  std::vector<float> lanes;
  explicit Block(int threads) : all(threads), lanes(threads) {
    for (int first = 0; first < threads; first += 32) warps.push_back(std::make_unique<std::barrier<>>(min(32, threads - first)));
  }
};
inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;
inline thread_local Block *block;
inline thread_local int number;
inline void __syncthreads() { block->all.arrive_and_wait(); }
inline float __shfl_xor_sync(unsigned, float x, int offset) {
  auto &warp = *block->warps[number / 32];
  block->lanes[number] = x;
  warp.arrive_and_wait();
  const float other = block->lanes[number ^ offset];
  warp.arrive_and_wait();
  return other;
}

// A thread's copies on their way, by group: they arrive when they are waited for, not before.
struct Copy {
  void *to;
  const void *from;
  size_t bytes;
};
inline thread_local std::deque<std::vector<Copy>> on_their_way(1);
inline void __pipeline_memcpy_async(void *to, const void *from, size_t bytes) { on_their_way.back().push_back({to, from, bytes}); }
inline void __pipeline_commit() { on_their_way.emplace_back(); }
inline void __pipeline_wait_prior(int left) {
  for (; int(on_their_way.size()) - 1 > left; on_their_way.pop_front())
    for (const Copy &copy : on_their_way.front()) std::memcpy(copy.to, copy.from, copy.bytes);
}

using cudaStream_t = void *;
inline int cudaGetLastError() { return 0; }
enum { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <typename Kernel> int cudaFuncSetAttribute(Kernel, int, int) { return 0; }

// Runs a kernel's blocks one after the other.
template <typename Kernel> void launch(dim3 grid, dim3 threads, Kernel kernel) {
  const int count = int(threads.x * threads.y);
  for (unsigned at = 0; at < grid.x * grid.y; at++) {
    Block here(count);
    const auto run = [&](int thread) {
      block = &here, number = thread, gridDim = grid, blockDim = threads;
      blockIdx = dim3(at % grid.x, at / grid.x), threadIdx = dim3(thread % threads.x, thread / threads.x);
      kernel();
    };
    std::vector<std::thread> all;
    for (int thread = 0; thread < count; thread++) all.emplace_back(run, thread);
    for (auto &thread : all) thread.join();
  }
}

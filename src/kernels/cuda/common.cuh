// What every kernel here shares: number formats, 16-byte accesses, reductions, addressed random numbers, launch macros.
//
// Storage is f32, bf16 or f16; arithmetic is f32. Nothing here uses a float atomic: sums are made in an order that depends on
// shapes, on what lies at multiples of 16 bytes and on the kind of GPU alone, so that a run gives the same bits twice.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#include <cuda_runtime.h>
#include <cstdint>

namespace sft {

using bf16 = __nv_bfloat16;
using f16 = __half;

// The number formats of the C interface.
enum Format : int { F32 = 0, BF16 = 1, F16 = 2 };

// cudaErrorInvalidValue: shapes that a kernel here has no form for.
constexpr int REFUSED = 1;

// Rows whose column sums one block adds up before add_partials (columns.cu) adds these; sft_column_workspace has room for
// one sum a column of each.
constexpr int SUMMED_ROWS = 256;

template <typename T> __device__ __forceinline__ float widen(T x) { return float(x); }
template <> __device__ __forceinline__ float widen(bf16 x) { return __bfloat162float(x); }
template <> __device__ __forceinline__ float widen(f16 x) { return __half2float(x); }

template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow(float x) { return x; }
template <> __device__ __forceinline__ bf16 narrow(float x) { return __float2bfloat16_rn(x); }
template <> __device__ __forceinline__ f16 narrow(float x) { return __float2half_rn(x); }

// V numbers, moved 16 bytes at a time where V numbers have them. V is 8, or 1 for odd widths.
template <typename T, int V> struct alignas(sizeof(T) * V <= 16 ? sizeof(T) * V : 16) Pack {
  T at[V];
};

template <typename T, int V> __device__ __forceinline__ Pack<T, V> fetch(const T *from) {
  return *reinterpret_cast<const Pack<T, V> *>(from);
}

// Copies a pack into shared memory: behind the thread's back (until __pipeline_wait_prior) where it is large enough for that.
template <typename T, int V> __device__ __forceinline__ void copy_ahead(Pack<T, V> *to, const T *from) {
  if constexpr (sizeof(Pack<T, V>) % 16 == 0) {
#pragma unroll
    for (size_t at = 0; at < sizeof(Pack<T, V>); at += 16)
      __pipeline_memcpy_async(reinterpret_cast<char *>(to) + at, reinterpret_cast<const char *>(from) + at, 16);
  } else {
    *to = fetch<T, V>(from);
  }
}

// A ring in shared memory whose places are filled while earlier ones are computed on: PACKS packs a thread in each of
// PLACES. A thread copies what it alone reads, so the ring needs no barrier; every place that is committed is waited for in
// turn, whether or not anything was copied.
template <typename T, int V, int PACKS, int PLACES> struct Ring {
  static constexpr int ROOM = PLACES;
  Pack<T, V> *packs;

  static size_t bytes(int threads) { return sizeof(Pack<T, V>) * PACKS * PLACES * threads; }

  __device__ Pack<T, V> *slot(int place, int pack) const {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    return packs + (place * PACKS + pack) * threads + thread;
  }
  __device__ void copy(int place, int pack, const T *from) const { copy_ahead<T, V>(slot(place, pack), from); }
  __device__ void commit() const { __pipeline_commit(); }
  // Waits for the oldest place.
  __device__ void wait() const { __pipeline_wait_prior(PLACES - 1); }
  __device__ Pack<T, V> take(int place, int pack) const { return fetch<T, V>(slot(place, pack)->at); }
  __device__ static int after(int place) { return place + 1 == PLACES ? 0 : place + 1; }
};

template <typename T, int V> __device__ __forceinline__ void unpack(const Pack<T, V> &pack, float (&to)[V]) {
#pragma unroll
  for (int i = 0; i < V; i++) to[i] = widen(pack.at[i]);
}

template <typename T, int V> __device__ __forceinline__ void load(const T *from, float (&to)[V]) {
  unpack<T, V>(fetch<T, V>(from), to);
}

template <typename T, int V> __device__ __forceinline__ void store(T *to, const float (&from)[V]) {
  Pack<T, V> pack;
#pragma unroll
  for (int i = 0; i < V; i++) pack.at[i] = narrow<T>(from[i]);
  *reinterpret_cast<Pack<T, V> *>(to) = pack;
}

// As `store` writes it, so that what is kept and what goes on computing agree.
template <typename T, int V> __device__ __forceinline__ void round_to(float (&x)[V]) {
#pragma unroll
  for (int i = 0; i < V; i++) x[i] = widen(narrow<T>(x[i]));
}

// Sums of N numbers over a block of at most 1024 threads; every thread gets them. `shared` has 2·32·N numbers: calls that
// follow each other take turns 0 and 1 between its halves, so that each needs one barrier only.
template <int N> __device__ __forceinline__ void block_sum(float (&x)[N], float *shared, int turn) {
#pragma unroll
  for (int i = 0; i < N; i++)
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x[i] += __shfl_xor_sync(~0u, x[i], offset);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  if (warps == 1) return;
  shared += turn * 32 * N;
  if (lane == 0)
#pragma unroll
    for (int i = 0; i < N; i++) shared[i * 32 + warp] = x[i];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < N; i++) {
    x[i] = lane < warps ? shared[i * 32 + lane] : 0.f;
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x[i] += __shfl_xor_sync(~0u, x[i], offset);
  }
}

// Philox4x32-10 (Salmon et al., SC11), as base/seed.rs has it.
__device__ __forceinline__ uint4 philox(uint64_t step, uint64_t position, uint2 key) {
  uint4 c = make_uint4(uint32_t(position), uint32_t(position >> 32), uint32_t(step), uint32_t(step >> 32));
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint64_t first = 0xD2511F53ull * c.x, second = 0xCD9E8D57ull * c.z;
    c = make_uint4(uint32_t(second >> 32) ^ c.y ^ key.x, uint32_t(second), uint32_t(first >> 32) ^ c.w ^ key.y,
                   uint32_t(first));
    key.x += 0x9E3779B9u;
    key.y += 0xBB67AE85u;
  }
  return c;
}

} // namespace sft

// A dropout mask as the CPU addresses it: channel c of a token's `all_channels` has word c % 4 of block
// address·ceil(all_channels / 4) + c / 4; a rank may hold those from `first_channel` on. A word below `threshold` drops.
struct SftDropout {
  uint32_t key[2];
  uint64_t step;
  uint64_t threshold;         // rate · 2^32, rounded up
  const int64_t *addresses;   // one per token, on the device
  float keep;                 // 1 / (1 - rate)
  uint32_t first_channel;
  uint32_t all_channels;      // 0: as many as the rows have
};

namespace sft {

// Factors of V channels from `channel` on.
template <int V>
__device__ __forceinline__ void dropout_factors(const SftDropout &by, int64_t address, int width, int channel,
                                                float (&factor)[V]) {
  const uint32_t all = by.all_channels ? by.all_channels : uint32_t(width);
  const uint64_t first = uint64_t(address) * uint64_t((all + 3) / 4);
  const uint2 key = make_uint2(by.key[0], by.key[1]);
  channel += int(by.first_channel);
  if (V == 1 || (channel & 3)) {
#pragma unroll
    for (int i = 0; i < V; i++) {
      const int at = channel + i;
      const uint4 words = philox(by.step, first + at / 4, key);
      const uint32_t word = (at & 2) ? ((at & 1) ? words.w : words.z) : ((at & 1) ? words.y : words.x);
      factor[i] = word >= by.threshold ? by.keep : 0.f;
    }
  } else {
#pragma unroll
    for (int quad = 0; quad < V / 4; quad++) {
      const uint4 words = philox(by.step, first + channel / 4 + quad, key);
      factor[quad * 4 + 0] = words.x >= by.threshold ? by.keep : 0.f;
      factor[quad * 4 + 1] = words.y >= by.threshold ? by.keep : 0.f;
      factor[quad * 4 + 2] = words.z >= by.threshold ? by.keep : 0.f;
      factor[quad * 4 + 3] = words.w >= by.threshold ? by.keep : 0.f;
    }
  }
}

// Starts a kernel with a ring of so many bytes. What a block's shared memory has beyond 48 KiB is to be asked for; arrays
// of fixed size take up to 24 of them.
template <typename... P, typename... A>
int start_with_ring(void (*kernel)(P...), size_t ring, dim3 blocks, dim3 threads, cudaStream_t stream, A... arguments) {
  if (ring > 24 * 1024) {
    const int rc = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(ring));
    if (rc) return rc;
  }
  kernel<<<blocks, threads, ring, stream>>>(arguments...);
  return cudaGetLastError();
}

inline int ceil_div(int64_t a, int64_t b) { return int((a + b - 1) / b); }

inline bool aligned(const void *p) { return (reinterpret_cast<uintptr_t>(p) & 15) == 0; }

template <typename... P> bool all_aligned(P... p) { return (aligned(p) && ...); }

} // namespace sft

// Runs the statements with T for the format.
#define SFT_ON_FORMAT(format, ...)                                                                                     \
  switch (format) {                                                                                                    \
  case sft::F32: { using T = float; __VA_ARGS__; } break;                                                              \
  case sft::BF16: { using T = sft::bf16; __VA_ARGS__; } break;                                                         \
  case sft::F16: { using T = sft::f16; __VA_ARGS__; } break;                                                           \
  default: return sft::REFUSED;                                                                                        \
  }

// Runs the statements with V = 8 where the condition allows 16-byte accesses, else 1.
#define SFT_ON_VECTOR(eight, ...)                                                                                      \
  if (eight) { constexpr int V = 8; __VA_ARGS__; } else { constexpr int V = 1; __VA_ARGS__; }

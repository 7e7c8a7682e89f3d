// Attention of new tokens to the keys and values of their sequences, which stand in a cache.
#include "attention.cuh"

namespace sft {

// Where the keys and values of sequences stand in a cache [blocks, BLOCK, groups, 2·head_dim]. list: of each new row its
// sequence, of each its place in it, then of each sequence its blocks, in lines of `widest`.
struct Pages {
  static constexpr uint32_t BLOCK = 32;
  const uint32_t *list;
  int64_t rows, widest;
  __device__ uint32_t place(int64_t row) const { return list[rows + row]; }
  __device__ const uint32_t *blocks(int64_t row) const { return list + 2 * rows + list[row] * widest; }
};

// Copies keys and values of new rows behind those cached.
template <typename T>
__global__ void append(const T *__restrict__ qkv, T *__restrict__ cache, Pages pages, Heads heads) {
  const int64_t row = blockIdx.x;
  const int pair = 2 * heads.head_dim;
  const uint32_t place = pages.place(row), block = pages.blocks(row)[place / Pages::BLOCK];
  T *to = cache + (int64_t(block) * Pages::BLOCK + place % Pages::BLOCK) * heads.groups * pair;
  for (int at = threadIdx.x; at < heads.groups * pair; at += blockDim.x)
    to[at] = qkv[row * heads.qkv_width() + heads.key(at / pair) + at % pair];
}

// Channels from `channel` on, of `d`; zeros from there.
template <typename T, bool WHOLE> __device__ __forceinline__ Pack<T, 8> channels(const T *from, int channel, int d) {
  Pack<T, 8> pack{};
  if constexpr (WHOLE) {
    if (channel < d) pack = fetch<T, 8>(from + channel);
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++)
      if (channel + i < d) pack.at[i] = from[channel + i];
  }
  return pack;
}

// A softmax of some keys with the sum of their values: 8·C channels of it.
template <int C> struct Part {
  float max = -1e30f, sum = 0.f, out[8 * C] = {};
  // Takes in those of another part.
  __device__ __forceinline__ void join(float other_max, float other_sum, const float (&other)[8 * C]) {
    const float high = fmaxf(max, other_max), factor = expf(max - high), weight = expf(other_max - high);
    max = high;
    sum = fmaf(sum, factor, other_sum * weight);
#pragma unroll
    for (int i = 0; i < 8 * C; i++) out[i] = fmaf(out[i], factor, other[i] * weight);
  }
};

// The parts of a block's warps on their way to each other: eight lanes of each have C packs of 8 channels.
template <int C> struct Meeting {
  static constexpr int WARPS = 8;
  float maxima[WARPS], sums[WARPS], outs[WARPS][64 * C];
};

// Joins a warp's parts, lane by lane of the eight that share a key, and leaves them in `at`.
template <int C> __device__ __forceinline__ void leave(Part<C> &part, Meeting<C> &at) {
#pragma unroll
  for (int offset = 8; offset < 32; offset <<= 1) {
    float other[8 * C];
#pragma unroll
    for (int i = 0; i < 8 * C; i++) other[i] = __shfl_xor_sync(~0u, part.out[i], offset);
    part.join(__shfl_xor_sync(~0u, part.max, offset), __shfl_xor_sync(~0u, part.sum, offset), other);
  }
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 8;
  if (threadIdx.x % 32 >= 8) return;
  if (lane == 0) at.maxima[warp] = part.max, at.sums[warp] = part.sum;
#pragma unroll
  for (int c = 0; c < C; c++)
#pragma unroll
    for (int i = 0; i < 8; i++) at.outs[warp][(c * 8 + lane) * 8 + i] = part.out[c * 8 + i];
}

// Joins what all warps left: `d` channels of a head's output.
template <typename T, int C> __device__ __forceinline__ void joined(const Meeting<C> &at, int d, T *__restrict__ output) {
  float top = -1e30f, total = 0.f;
#pragma unroll
  for (int w = 0; w < at.WARPS; w++) top = fmaxf(top, at.maxima[w]);
#pragma unroll
  for (int w = 0; w < at.WARPS; w++) total = fmaf(at.sums[w], expf(at.maxima[w] - top), total);
  for (int channel = threadIdx.x; channel < d; channel += blockDim.x) {
    float value = 0.f;
#pragma unroll
    for (int w = 0; w < at.WARPS; w++) value = fmaf(at.outs[w][channel], expf(at.maxima[w] - top), value);
    output[channel] = narrow<T>(value / total);
  }
}

// One (new row, head) per block. Eight lanes share a key, C packs of 8 channels each; every such group of lanes has a part of
// its own, of the keys at one place of the blocks, MANY of which are on their way at a time. All are joined at the end.
// Where each row has a sequence of its own (`alone`) the block of a group's first head appends the row's key and value.
template <typename T, int C, int MANY, bool WHOLE>
__global__ void __launch_bounds__(256) cached(const T *__restrict__ qkv, T *__restrict__ cache, Pages pages, Heads heads,
                                              bool alone, T *__restrict__ output) {
  __shared__ Meeting<C> meeting;
  const int64_t row = blockIdx.x;
  const int head = blockIdx.y, group = head / heads.per_group(), place_in_block = threadIdx.x / 8, lane = threadIdx.x % 8, d = heads.head_dim;
  const int64_t stride = int64_t(heads.groups) * 2 * d;
  const uint32_t *blocks = pages.blocks(row), own = pages.place(row), last = own / Pages::BLOCK;
  const T *new_pair = qkv + row * heads.qkv_width() + heads.key(group);
  T *pairs = cache + int64_t(group) * 2 * d;
  uint32_t at[MANY];
#pragma unroll
  for (int j = 0; j < MANY; j++) at[j] = blocks[min(uint32_t(j), last)];
  float q[8 * C];
#pragma unroll
  for (int c = 0; c < C; c++) {
    const Pack<T, 8> pack = channels<T, WHOLE>(qkv + row * heads.qkv_width() + heads.query(head), (c * 8 + lane) * 8, d);
#pragma unroll
    for (int i = 0; i < 8; i++) q[c * 8 + i] = widen(pack.at[i]) * heads.scale;
  }
  Part<C> part;
  for (uint32_t first = 0; first <= last; first += MANY) {
    Pack<T, 8> keys[MANY][C], values[MANY][C];
#pragma unroll
    for (int j = 0; j < MANY; j++) {
      const uint32_t key = (first + j) * Pages::BLOCK + place_in_block;
      // What is not there is not looked at: any row's numbers do.
      const bool cached_already = alone ? key < own : key <= own;
      const T *from = cached_already ? pairs + (int64_t(at[j]) * Pages::BLOCK + place_in_block) * stride : new_pair;
#pragma unroll
      for (int c = 0; c < C; c++) {
        const int channel = (c * 8 + lane) * 8;
        keys[j][c] = channels<T, WHOLE>(from, channel, d), values[j][c] = channels<T, WHOLE>(from + d, channel, d);
      }
    }
#pragma unroll
    for (int j = 0; j < MANY; j++) at[j] = blocks[min(first + MANY + j, last)];
    float scores[MANY], high = part.max;
#pragma unroll
    for (int j = 0; j < MANY; j++) {
      float score = 0.f;
#pragma unroll
      for (int c = 0; c < C; c++)
#pragma unroll
        for (int i = 0; i < 8; i++) score = fmaf(q[c * 8 + i], widen(keys[j][c].at[i]), score);
#pragma unroll
      for (int offset = 4; offset > 0; offset >>= 1) score += __shfl_xor_sync(~0u, score, offset);
      scores[j] = (first + j) * Pages::BLOCK + place_in_block <= own ? score : -INFINITY;
      high = fmaxf(high, scores[j]);
    }
    const float factor = expf(part.max - high);
    part.max = high, part.sum *= factor;
#pragma unroll
    for (int i = 0; i < 8 * C; i++) part.out[i] *= factor;
#pragma unroll
    for (int j = 0; j < MANY; j++) {
      const float weight = expf(scores[j] - high);
      part.sum += weight;
#pragma unroll
      for (int c = 0; c < C; c++)
#pragma unroll
        for (int i = 0; i < 8; i++) part.out[c * 8 + i] = fmaf(weight, widen(values[j][c].at[i]), part.out[c * 8 + i]);
    }
  }
  leave(part, meeting);
  __syncthreads();
  joined(meeting, d, output + row * heads.output_width() + int64_t(head) * d);
  if (!alone || head % heads.per_group() != 0) return;
  T *to = pairs + (int64_t(blocks[last]) * Pages::BLOCK + own % Pages::BLOCK) * stride;
  for (int i = threadIdx.x; i < 2 * d; i += blockDim.x) to[i] = new_pair[i];
}

template <typename T, int C, int MANY>
static int start(cudaStream_t stream, const Heads &by, const Pages &pages, bool alone, const T *qkv, T *cache, T *output) {
  if (!alone) append<T><<<unsigned(pages.rows), 256, 0, stream>>>(qkv, cache, pages, by);
  const auto kernel = by.head_dim % 8 == 0 && all_aligned(qkv, cache) ? cached<T, C, MANY, true> : cached<T, C, MANY, false>;
  kernel<<<dim3(unsigned(pages.rows), by.heads), 256, 0, stream>>>(qkv, cache, pages, by, alone, output);
  return cudaGetLastError();
}

} // namespace sft

// Appends the keys and values of new rows to the cache, then attends each row to its sequence's keys up to its own.
// where_to, widest, block: as in Pages; sequences: how many have new rows.
extern "C" int sft_attention_cached(void *stream, int format, const SftHeads *heads, const void *qkv, void *cache,
                                    const void *where_to, int64_t sequences, int64_t widest, int64_t block, void *output,
                                    int64_t rows) {
  if (rows == 0) return 0;
  const sft::Heads by(*heads);
  if (by.head_dim > 256 || block != sft::Pages::BLOCK) return sft::REFUSED;
  const sft::Pages pages{(const uint32_t *)where_to, rows, widest};
#define SFT_CACHED(C, MANY)                                                                                            \
  return sft::start<T, C, MANY>(cudaStream_t(stream), by, pages, sequences == rows, (const T *)qkv, (T *)cache, (T *)output)
  SFT_ON_FORMAT(format,
      if (by.head_dim <= 64) SFT_CACHED(1, 4); else if (by.head_dim <= 128) SFT_CACHED(2, 4); else SFT_CACHED(4, 2));
#undef SFT_CACHED
  return sft::REFUSED;
}

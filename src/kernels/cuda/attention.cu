// Attention's way in: which form runs, the row sums of dy∘y, and new tokens against cached keys and values.
#include "attention.cuh"

namespace sft {

// along[row][head] = Σ_channel dy·y. A warp per (row, head).
template <typename T>
__global__ void row_products(const T *__restrict__ y, const T *__restrict__ dy, float *__restrict__ along, int64_t items, int width) {
  const int64_t item = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (item >= items) return;
  float sum = 0.f;
  for (int channel = threadIdx.x; channel < width; channel += 32)
    sum = fmaf(widen(y[item * width + channel]), widen(dy[item * width + channel]), sum);
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_xor_sync(~0u, sum, offset);
  if (threadIdx.x == 0) along[item] = sum;
}

// Where the keys and values of sequences stand in a cache [blocks, BLOCK, groups, 2·head_dim]. list: of each new row its
// sequence, of each its place in it, then of each sequence its blocks, in lines of `widest`.
struct Pages {
  static constexpr uint32_t BLOCK = 32;
  const uint32_t *list;
  int64_t rows, widest;
  __device__ uint32_t place(int64_t row) const { return list[rows + row]; }
  __device__ const uint32_t *blocks(int64_t row) const { return list + 2 * rows + list[row] * widest; }
  // The place of a sequence's token among the cache's, by the sequence's blocks.
  __device__ int64_t at(const uint32_t *blocks, uint32_t key) const { return int64_t(blocks[key / BLOCK]) * BLOCK + key % BLOCK; }
};

// Copies keys and values of new rows behind those cached.
template <typename T>
__global__ void append(const T *__restrict__ qkv, T *__restrict__ cache, Pages pages, Heads heads) {
  const int64_t row = blockIdx.x;
  const int pair = 2 * heads.head_dim;
  T *to = cache + pages.at(pages.blocks(row), pages.place(row)) * heads.groups * pair;
  for (int at = threadIdx.x; at < heads.groups * pair; at += blockDim.x)
    to[at] = qkv[row * heads.qkv_width() + heads.key(at / pair) + at % pair];
}

// One (new row, head) per block. Eight lanes share a key, C packs of 8 channels each; every such group of lanes
// keeps a softmax of its own keys, and all are joined at the end.
template <typename T, int C>
__global__ void __launch_bounds__(256) cached(const T *__restrict__ qkv, const T *__restrict__ cache, Pages pages, Heads heads,
                                              T *__restrict__ output) {
  constexpr int CHANNELS = 64 * C, PARTS = 32;
  __shared__ float maxima[PARTS], sums[PARTS], outs[PARTS][CHANNELS];
  const int64_t row = blockIdx.x;
  const int head = blockIdx.y, part = threadIdx.x / 8, lane = threadIdx.x % 8, d = heads.head_dim;
  const int64_t stride = int64_t(heads.groups) * 2 * d;
  const T *keys = cache + int64_t(head / heads.per_group()) * 2 * d;
  const uint32_t *blocks = pages.blocks(row), count = pages.place(row) + 1;
  float q[C][8], out[C][8] = {}, max = -1e30f, sum = 0.f;
#pragma unroll
  for (int c = 0; c < C; c++)
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int channel = (c * 8 + lane) * 8 + i;
      q[c][i] = channel < d ? widen(qkv[row * heads.qkv_width() + heads.query(head) + channel]) * heads.scale : 0.f;
    }
  const bool whole = d % 8 == 0;
  for (uint32_t first = 0; first < count; first += PARTS) {
    const uint32_t key = first + part;
    const bool seen = key < count;
    const T *from = keys + pages.at(blocks, seen ? key : 0) * stride;
    float score = 0.f, value[C][8];
#pragma unroll
    for (int c = 0; c < C; c++) {
      const int channel = (c * 8 + lane) * 8;
      float k[8] = {};
#pragma unroll
      for (int i = 0; i < 8; i++) value[c][i] = 0.f;
      if (whole && channel < d) {
        load<T, 8>(from + channel, k);
        load<T, 8>(from + d + channel, value[c]);
      } else if (!whole) {
        for (int i = 0; i < 8; i++)
          if (channel + i < d) k[i] = widen(from[channel + i]), value[c][i] = widen(from[d + channel + i]);
      }
#pragma unroll
      for (int i = 0; i < 8; i++) score = fmaf(q[c][i], k[i], score);
    }
#pragma unroll
    for (int offset = 4; offset > 0; offset >>= 1) score += __shfl_xor_sync(~0u, score, offset);
    if (!seen) continue;
    const float high = fmaxf(max, score), factor = expf(max - high), weight = expf(score - high);
    max = high;
    sum = fmaf(sum, factor, weight);
#pragma unroll
    for (int c = 0; c < C; c++)
#pragma unroll
      for (int i = 0; i < 8; i++) out[c][i] = fmaf(out[c][i], factor, weight * value[c][i]);
  }
  if (lane == 0) maxima[part] = max, sums[part] = sum;
#pragma unroll
  for (int c = 0; c < C; c++)
#pragma unroll
    for (int i = 0; i < 8; i++) outs[part][(c * 8 + lane) * 8 + i] = out[c][i];
  __syncthreads();
  float top = -1e30f, total = 0.f;
  for (int p = 0; p < PARTS; p++) top = fmaxf(top, maxima[p]);
  for (int p = 0; p < PARTS; p++) total = fmaf(sums[p], expf(maxima[p] - top), total);
  for (int channel = threadIdx.x; channel < d; channel += blockDim.x) {
    float value = 0.f;
    for (int p = 0; p < PARTS; p++) value = fmaf(outs[p][channel], expf(maxima[p] - top), value);
    output[row * heads.output_width() + int64_t(head) * d + channel] = narrow<T>(value / total);
  }
}

static bool on_tensor_cores(int format, const Heads &heads, const void *a, const void *b) {
  return format != F32 && heads.head_dim % 8 == 0 && heads.head_dim <= 256 && all_aligned(a, b);
}

} // namespace sft

// Rows per tile: sft_attention_* take lists of tiles that cut each sequence at multiples of this.
extern "C" int64_t sft_attention_tile() { return 64; }

// output [tokens, heads·head_dim] and log_sums [tokens, heads] (f32) of qkv, causal within the tiles' sequences.
extern "C" int sft_attention_forward(void *stream, int format, const SftHeads *heads, const SftDropout *dropout,
                                     const SftTile *tiles, int64_t count, const void *qkv, void *output, float *log_sums) {
  if (count == 0) return 0;
  const sft::Heads by(*heads);
  const auto run = sft::on_tensor_cores(format, by, qkv, output) ? sft::attention_mma_forward : sft::attention_plain_forward;
  return run(cudaStream_t(stream), format, by, dropout, tiles, count, qkv, output, log_sums);
}

// dqkv from dy; along is f32 workspace [tokens, heads].
extern "C" int sft_attention_backward(void *stream, int format, const SftHeads *heads, const SftDropout *dropout,
                                      const SftTile *tiles, int64_t count, const void *qkv, const void *output,
                                      const float *log_sums, const void *dy, float *along, void *dqkv, int64_t tokens) {
  if (count == 0) return 0;
  const sft::Heads by(*heads);
  const int64_t items = tokens * by.heads;
  SFT_ON_FORMAT(format, sft::row_products<T><<<sft::ceil_div(items, 8), dim3(32, 8), 0, cudaStream_t(stream)>>>(
                            (const T *)output, (const T *)dy, along, items, by.head_dim));
  const int rc = cudaGetLastError();
  if (rc) return rc;
  const auto run = sft::on_tensor_cores(format, by, qkv, dy) && sft::aligned(dqkv) ? sft::attention_mma_backward : sft::attention_plain_backward;
  return run(cudaStream_t(stream), format, by, dropout, tiles, count, qkv, log_sums, along, dy, dqkv);
}

// Appends the keys and values of new rows to the cache, then attends each row to its sequence's keys up to its own.
// where_to, widest, block: as in Pages.
extern "C" int sft_attention_cached(void *stream, int format, const SftHeads *heads, const void *qkv, void *cache,
                                    const void *where_to, int64_t widest, int64_t block, void *output, int64_t rows) {
  if (rows == 0) return 0;
  const sft::Heads by(*heads);
  if (by.head_dim > 256 || block != sft::Pages::BLOCK) return sft::REFUSED;
  const sft::Pages pages{(const uint32_t *)where_to, rows, widest};
#define SFT_CACHED(C)                                                                                                  \
  sft::cached<T, C><<<dim3(unsigned(rows), by.heads), 256, 0, cudaStream_t(stream)>>>(                                 \
      (const T *)qkv, (const T *)cache, pages, by, (T *)output)
  SFT_ON_FORMAT(format,
      sft::append<T><<<unsigned(rows), 256, 0, cudaStream_t(stream)>>>((const T *)qkv, (T *)cache, pages, by);
      if (by.head_dim <= 64) SFT_CACHED(1); else if (by.head_dim <= 128) SFT_CACHED(2); else SFT_CACHED(4));
#undef SFT_CACHED
  return cudaGetLastError();
}

// Causal attention within sequences in plain f32 arithmetic: for f32 storage and for head widths that tensor cores do not take.
//
// A block has 16 rows of one head, four per warp, and walks over tiles of 32 rows of the other side, one per lane.
#include "attention.cuh"

namespace sft {
namespace {

constexpr int ROWS = 4;            // per warp
constexpr int WARPS = 4;
constexpr int BLOCK = ROWS * WARPS;
constexpr int LANES = 32;          // rows of the other side per tile
constexpr int WIDEST = 8;          // channels per lane: heads up to 256 wide

// Rows from..from + count of one head as f32, row by row with `stride`; zeros from row `to` on.
template <typename T>
__device__ void fetch(float *tile, int stride, const T *head, int64_t row_stride, uint32_t from, uint32_t to, int count, int width) {
  for (int at = threadIdx.x; at < count * width; at += blockDim.x) {
    const int row = at / width, channel = at % width;
    tile[row * stride + channel] = from + row < to ? widen(head[(from + row) * row_stride + channel]) : 0.f;
  }
}

// One number per row: this lane's row of `theirs` against the warp's four rows of `mine`.
__device__ __forceinline__ void dots(float (&sums)[ROWS], const float *mine, const float *theirs, int stride, int width) {
  const float *row = theirs + (threadIdx.x & 31) * stride;
#pragma unroll
  for (int r = 0; r < ROWS; r++) sums[r] = 0.f;
  for (int channel = 0; channel < width; channel++) {
    const float value = row[channel];
#pragma unroll
    for (int r = 0; r < ROWS; r++) sums[r] = fmaf(mine[r * stride + channel], value, sums[r]);
  }
}

// out[r][c] += Σ over the tile's rows of weights[r] (one per lane) · theirs, channel lane + 32·c.
__device__ __forceinline__ void combine(float (&out)[ROWS][WIDEST], const float (&weights)[ROWS], const float *theirs, int stride, int width) {
  const int lane = threadIdx.x & 31;
  for (int row = 0; row < LANES; row++) {
    float weight[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) weight[r] = __shfl_sync(~0u, weights[r], row);
#pragma unroll
    for (int c = 0; c < WIDEST; c++)
      if (lane + 32 * c < width) {
        const float value = theirs[row * stride + lane + 32 * c];
#pragma unroll
        for (int r = 0; r < ROWS; r++) out[r][c] = fmaf(weight[r], value, out[r][c]);
      }
  }
}

template <typename T>
__device__ __forceinline__ void write(T *to, const float (&values)[WIDEST], float factor, int width) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int c = 0; c < WIDEST; c++)
    if (lane + 32 * c < width) to[lane + 32 * c] = narrow<T>(values[c] * factor);
}

// Blocks of 16 rows within a tile of 64.
__device__ __forceinline__ bool part(SftTile &tile) {
  tile.from += blockIdx.z * BLOCK;
  tile.to = min(tile.to, tile.from + BLOCK);
  return tile.from < tile.to;
}

template <typename T>
__global__ void forward(Heads heads, SftDropout dropout, const SftTile *__restrict__ tiles, const T *__restrict__ qkv,
                        T *__restrict__ output, float *__restrict__ log_sums) {
  extern __shared__ float memory[];
  SftTile tile = tiles[blockIdx.x];
  if (!part(tile)) return;
  const int head = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31, d = heads.head_dim, stride = d | 1;
  float *q = memory, *k = q + BLOCK * stride, *v = k + LANES * stride;
  const int64_t row_stride = heads.qkv_width();
  const T *keys = qkv + heads.key(head / heads.per_group());
  fetch(q, stride, qkv + heads.query(head), row_stride, tile.from, tile.to, BLOCK, d);
  float out[ROWS][WIDEST] = {}, max[ROWS], sum[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++) max[r] = -1e30f, sum[r] = 0.f;
  const uint32_t row = tile.from + warp * ROWS;
  for (uint32_t first = tile.begin; first < tile.to; first += LANES) {
    __syncthreads();
    fetch(k, stride, keys, row_stride, first, tile.to, LANES, d);
    fetch(v, stride, keys + d, row_stride, first, tile.to, LANES, d);
    __syncthreads();
    float weights[ROWS];
    dots(weights, q + warp * ROWS * stride, k, stride, d);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const bool seen = first + lane <= row + r;
      const float score = seen ? weights[r] * heads.scale : -1e30f;
      float high = score;
#pragma unroll
      for (int offset = 16; offset > 0; offset >>= 1) high = fmaxf(high, __shfl_xor_sync(~0u, high, offset));
      high = fmaxf(high, max[r]);
      const float factor = expf(max[r] - high);
      max[r] = high;
      weights[r] = seen ? expf(score - high) : 0.f;
      float total = weights[r];
#pragma unroll
      for (int offset = 16; offset > 0; offset >>= 1) total += __shfl_xor_sync(~0u, total, offset);
      sum[r] = sum[r] * factor + total;
#pragma unroll
      for (int c = 0; c < WIDEST; c++) out[r][c] *= factor;
      if (dropout.addresses && seen && row + r < tile.to)
        weights[r] *= probability_factor(dropout, heads, row + r, head, first + lane - tile.begin);
    }
    combine(out, weights, v, stride, d);
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    if (row + r >= tile.to) continue;
    write(output + int64_t(row + r) * heads.output_width() + int64_t(head) * d, out[r], 1.f / sum[r], d);
    if (lane == 0) log_sums[int64_t(row + r) * heads.heads + head] = max[r] + logf(sum[r]);
  }
}

template <typename T>
__global__ void backward_queries(Heads heads, SftDropout dropout, const SftTile *__restrict__ tiles, const T *__restrict__ qkv,
                                 const float *__restrict__ log_sums, const float *__restrict__ along,
                                 const T *__restrict__ dy, T *__restrict__ dqkv) {
  extern __shared__ float memory[];
  SftTile tile = tiles[blockIdx.x];
  if (!part(tile)) return;
  const int head = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31, d = heads.head_dim, stride = d | 1;
  float *q = memory, *g = q + BLOCK * stride, *k = g + BLOCK * stride, *v = k + LANES * stride;
  const int64_t row_stride = heads.qkv_width();
  const T *keys = qkv + heads.key(head / heads.per_group());
  fetch(q, stride, qkv + heads.query(head), row_stride, tile.from, tile.to, BLOCK, d);
  fetch(g, stride, dy + int64_t(head) * d, heads.output_width(), tile.from, tile.to, BLOCK, d);
  float out[ROWS][WIDEST] = {};
  const uint32_t row = tile.from + warp * ROWS;
  for (uint32_t first = tile.begin; first < tile.to; first += LANES) {
    __syncthreads();
    fetch(k, stride, keys, row_stride, first, tile.to, LANES, d);
    fetch(v, stride, keys + d, row_stride, first, tile.to, LANES, d);
    __syncthreads();
    float score[ROWS], slope[ROWS];
    dots(score, q + warp * ROWS * stride, k, stride, d);
    dots(slope, g + warp * ROWS * stride, v, stride, d);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      if (row + r >= tile.to || first + lane > row + r) {
        score[r] = 0.f;
        continue;
      }
      const int64_t at = int64_t(row + r) * heads.heads + head;
      if (dropout.addresses) slope[r] *= probability_factor(dropout, heads, row + r, head, first + lane - tile.begin);
      score[r] = expf(score[r] * heads.scale - log_sums[at]) * (slope[r] - along[at]);
    }
    combine(out, score, k, stride, d);
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++)
    if (row + r < tile.to) write(dqkv + int64_t(row + r) * row_stride + heads.query(head), out[r], heads.scale, d);
}

template <typename T>
__global__ void backward_keys(Heads heads, SftDropout dropout, const SftTile *__restrict__ tiles, const T *__restrict__ qkv,
                              const float *__restrict__ log_sums, const float *__restrict__ along, const T *__restrict__ dy,
                              T *__restrict__ dqkv) {
  extern __shared__ float memory[];
  SftTile tile = tiles[blockIdx.x];
  if (!part(tile)) return;
  const int group = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31, d = heads.head_dim, stride = d | 1;
  float *k = memory, *v = k + BLOCK * stride, *q = v + BLOCK * stride, *g = q + LANES * stride;
  const int64_t row_stride = heads.qkv_width();
  fetch(k, stride, qkv + heads.key(group), row_stride, tile.from, tile.to, BLOCK, d);
  fetch(v, stride, qkv + heads.key(group) + d, row_stride, tile.from, tile.to, BLOCK, d);
  float dk[ROWS][WIDEST] = {}, dv[ROWS][WIDEST] = {};
  const uint32_t row = tile.from + warp * ROWS;
  for (int head = group * heads.per_group(); head < (group + 1) * heads.per_group(); head++)
    for (uint32_t first = tile.from; first < tile.end; first += LANES) {
      __syncthreads();
      fetch(q, stride, qkv + heads.query(head), row_stride, first, tile.end, LANES, d);
      fetch(g, stride, dy + int64_t(head) * d, heads.output_width(), first, tile.end, LANES, d);
      __syncthreads();
      float score[ROWS], slope[ROWS];
      dots(score, k + warp * ROWS * stride, q, stride, d);
      dots(slope, v + warp * ROWS * stride, g, stride, d);
      const uint32_t query = first + lane;
      const int64_t at = int64_t(query) * heads.heads + head;
      const float log_sum = query < tile.end ? log_sums[at] : 0.f, mean = query < tile.end ? along[at] : 0.f;
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        if (query >= tile.end || row + r > query) {
          score[r] = slope[r] = 0.f;
          continue;
        }
        const float p = expf(score[r] * heads.scale - log_sum);
        const float kept = dropout.addresses ? probability_factor(dropout, heads, query, head, row + r - tile.begin) : 1.f;
        score[r] = p * kept;
        slope[r] = p * (slope[r] * kept - mean);
      }
      combine(dv, score, g, stride, d);
      combine(dk, slope, q, stride, d);
    }
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    if (row + r >= tile.to) continue;
    T *to = dqkv + int64_t(row + r) * row_stride + heads.key(group);
    write(to, dk[r], heads.scale, d);
    write(to + d, dv[r], 1.f, d);
  }
}

template <typename K, typename... A> int start(K kernel, dim3 grid, int rows, int width, cudaStream_t stream, A... arguments) {
  const int bytes = rows * (width | 1) * int(sizeof(float));
  const int rc = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (rc) return rc;
  kernel<<<grid, 32 * WARPS, bytes, stream>>>(arguments...);
  return cudaGetLastError();
}

} // namespace

int attention_plain_forward(cudaStream_t stream, int format, const Heads &heads, const SftDropout *dropout, const SftTile *tiles,
                            int64_t count, const void *qkv, void *output, float *log_sums) {
  if (heads.head_dim > 32 * WIDEST) return REFUSED;
  const SftDropout by = dropout ? *dropout : SftDropout{};
  const dim3 grid(unsigned(count), heads.heads, 4);
  SFT_ON_FORMAT(format, return start(forward<T>, grid, BLOCK + 2 * LANES, heads.head_dim, stream, heads, by, tiles,
                                     (const T *)qkv, (T *)output, log_sums));
  return 0;
}

int attention_plain_backward(cudaStream_t stream, int format, const Heads &heads, const SftDropout *dropout,
                             const SftTile *tiles, int64_t count, const void *qkv, const float *log_sums, const float *along,
                             const void *dy, void *dqkv) {
  if (heads.head_dim > 32 * WIDEST) return REFUSED;
  const SftDropout by = dropout ? *dropout : SftDropout{};
  const int rows = 2 * BLOCK + 2 * LANES;
  SFT_ON_FORMAT(format,
      const int rc = start(backward_keys<T>, dim3(unsigned(count), heads.groups, 4), rows, heads.head_dim, stream, heads, by,
                           tiles, (const T *)qkv, log_sums, along, (const T *)dy, (T *)dqkv);
      if (rc) return rc;
      return start(backward_queries<T>, dim3(unsigned(count), heads.heads, 4), rows, heads.head_dim, stream, heads, by, tiles,
                   (const T *)qkv, log_sums, along, (const T *)dy, (T *)dqkv));
  return 0;
}

} // namespace sft

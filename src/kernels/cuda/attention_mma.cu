// Causal attention within sequences on tensor cores (bf16, f16), as FlashAttention orders it (Dao et al.).
//
// A block works on 64 queries (or keys) of one head, 16 per warp, and walks over tiles of 64 keys (or
// queries) that arrive by asynchronous copies one tile ahead. The backward is two walks, one per side,
// so that no two blocks add to one number.
#include "attention.cuh"

namespace sft {
namespace {

constexpr int TILE = 64;     // queries and keys per tile
constexpr int WARPS = 4;     // 16 rows of the tile each
constexpr int THREADS = 32 * WARPS;
constexpr float LOG2_E = 1.4426950408889634f;

template <int D> constexpr int STRIDE = D + 8;   // a row of a tile in shared memory: 16 bytes more, so that rows fall on other banks
template <int D> constexpr int TILE_SIZE = TILE * STRIDE<D>;

__device__ __forceinline__ uint32_t shared_address(const void *p) { return uint32_t(__cvta_generic_to_shared(p)); }

__device__ __forceinline__ void copy_16(void *to, const void *from, bool real) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(real ? 16 : 0));
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;"); }
template <int N> __device__ __forceinline__ void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N)); }

// Rows `from`.. of one head, zeros from row `to` and channel `width` on.
template <typename T, int D>
__device__ __forceinline__ void fetch(T *tile, const T *head, int64_t stride, uint32_t from, uint32_t to, int width) {
#pragma unroll
  for (int part = threadIdx.x; part < TILE * D / 8; part += THREADS) {
    const int row = part / (D / 8), channel = part % (D / 8) * 8;
    const bool real = from + row < to && channel < width;
    copy_16(tile + row * STRIDE<D> + channel, real ? head + (from + row) * stride + channel : head, real);
  }
}

__device__ __forceinline__ void matrices(uint32_t (&r)[4], const void *at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(at)));
}
__device__ __forceinline__ void matrices_transposed(uint32_t (&r)[4], const void *at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(at)));
}

// 16 rows × 16 channels as a left operand.
template <typename T, int D> __device__ __forceinline__ void left(uint32_t (&r)[4], const T *tile, int row, int channel) {
  const int lane = threadIdx.x & 31;
  matrices(r, tile + (row + (lane & 15)) * STRIDE<D> + channel + (lane >> 4) * 8);
}
// 16 rows × 16 channels, the sum running over channels: right operands of two products.
template <typename T, int D> __device__ __forceinline__ void right_by_row(uint32_t (&r)[4], const T *tile, int row, int channel) {
  const int lane = threadIdx.x & 31;
  matrices(r, tile + (row + (lane & 7) + ((lane >> 4) << 3)) * STRIDE<D> + channel + ((lane >> 3) & 1) * 8);
}
// 16 rows × 16 channels, the sum running over rows.
template <typename T, int D> __device__ __forceinline__ void right_by_channel(uint32_t (&r)[4], const T *tile, int row, int channel) {
  const int lane = threadIdx.x & 31;
  matrices_transposed(r, tile + (row + (lane & 15)) * STRIDE<D> + channel + (lane >> 4) * 8);
}

template <typename T> __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <> __device__ __forceinline__ void multiply<bf16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <> __device__ __forceinline__ void multiply<f16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <typename T> __device__ __forceinline__ uint32_t pair(float low, float high) {
  const T both[2] = {narrow<T>(low), narrow<T>(high)};
  return *reinterpret_cast<const uint32_t *>(both);
}

// Two neighbouring 16×8 results as one 16×16 left operand.
template <typename T> __device__ __forceinline__ void as_left(uint32_t (&a)[4], const float (&low)[4], const float (&high)[4]) {
  a[0] = pair<T>(low[0], low[1]);
  a[1] = pair<T>(low[2], low[3]);
  a[2] = pair<T>(high[0], high[1]);
  a[3] = pair<T>(high[2], high[3]);
}

// c[n] (16 × 64) += rows of `a_tile` (16 from `row` on) · rows of `b_tile` (64), over D channels.
template <typename T, int D>
__device__ __forceinline__ void product_of_rows(float (&c)[8][4], const T *a_tile, int row, const T *b_tile) {
#pragma unroll
  for (int channel = 0; channel < D; channel += 16) {
    uint32_t a[4];
    left<T, D>(a, a_tile, row, channel);
#pragma unroll
    for (int n = 0; n < 4; n++) {
      uint32_t b[4];
      right_by_row<T, D>(b, b_tile, n * 16, channel);
      multiply<T>(c[2 * n], a, b[0], b[1]);
      multiply<T>(c[2 * n + 1], a, b[2], b[3]);
    }
  }
}

// c (16 × W channels from `channel` on) += weights (16 × 64) · rows of `tile` (64).
template <typename T, int D, int W>
__device__ __forceinline__ void combine_rows(float (&c)[W / 8][4], const float (&weights)[8][4], const T *tile, int channel) {
#pragma unroll
  for (int k = 0; k < 4; k++) {
    uint32_t a[4];
    as_left<T>(a, weights[2 * k], weights[2 * k + 1]);
#pragma unroll
    for (int n = 0; n < W / 16; n++) {
      uint32_t b[4];
      right_by_channel<T, D>(b, tile, k * 16, channel + n * 16);
      multiply<T>(c[2 * n], a, b[0], b[1]);
      multiply<T>(c[2 * n + 1], a, b[2], b[3]);
    }
  }
}

template <typename T, int D, bool DROP>
__global__ void __launch_bounds__(THREADS) forward(Heads heads, SftDropout dropout, const SftTile *__restrict__ tiles,
                                                   const T *__restrict__ qkv, T *__restrict__ output,
                                                   float *__restrict__ log_sums) {
  extern __shared__ __align__(16) unsigned char memory[];
  T *q = reinterpret_cast<T *>(memory);
  const auto k = [&](int stage) { return q + (1 + stage) * TILE_SIZE<D>; };
  const auto v = [&](int stage) { return q + (3 + stage) * TILE_SIZE<D>; };
  const SftTile tile = tiles[blockIdx.x];
  const int head = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int64_t stride = heads.qkv_width();
  const T *queries = qkv + heads.query(head), *keys = qkv + heads.key(head / heads.per_group()), *values = keys + heads.head_dim;
  const uint32_t last = tile.to;   // keys before the tile's last query
  fetch<T, D>(q, queries, stride, tile.from, tile.to, heads.head_dim);
  fetch<T, D>(k(0), keys, stride, tile.begin, last, heads.head_dim);
  fetch<T, D>(v(0), values, stride, tile.begin, last, heads.head_dim);
  commit();
  float out[D / 8][4] = {}, max[2] = {-1e30f, -1e30f}, sum[2] = {0.f, 0.f};
  const float scale = heads.scale * LOG2_E;
  const uint32_t rows[2] = {tile.from + warp * 16 + lane / 4, tile.from + warp * 16 + lane / 4 + 8};
  int stage = 0;
  for (uint32_t first = tile.begin; first < last; first += TILE, stage ^= 1) {
    __syncthreads();   // everybody is done with the other stage
    if (first + TILE < last) {
      fetch<T, D>(k(stage ^ 1), keys, stride, first + TILE, last, heads.head_dim);
      fetch<T, D>(v(stage ^ 1), values, stride, first + TILE, last, heads.head_dim);
    }
    commit();
    wait<1>();
    __syncthreads();
    float score[8][4] = {};
    product_of_rows<T, D>(score, q, warp * 16, k(stage));
    if (first + TILE > tile.from + warp * 16 + 1) {
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (first + n * 8 + (lane & 3) * 2 + (i & 1) > rows[i >> 1]) score[n][i] = -INFINITY;
    }
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float high = max[half];
#pragma unroll
      for (int n = 0; n < 8; n++) high = fmaxf(high, fmaxf(score[n][2 * half], score[n][2 * half + 1]) * scale);
      high = fmaxf(high, __shfl_xor_sync(~0u, high, 1));
      high = fmaxf(high, __shfl_xor_sync(~0u, high, 2));
      factor[half] = exp2f(max[half] - high);
      max[half] = high;
      float part = 0.f;
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; i++) {
          score[n][i] = exp2f(fmaf(score[n][i], scale, -high));
          part += score[n][i];
        }
      sum[half] = fmaf(sum[half], factor[half], part);   // this thread's columns; joined at the end
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) out[n][i] *= factor[i >> 1];
    if (DROP)
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (rows[i >> 1] < tile.to)
            score[n][i] *= probability_factor(dropout, heads, rows[i >> 1], head,
                                              first - tile.begin + n * 8 + (lane & 3) * 2 + (i & 1));
    combine_rows<T, D, D>(out, score, v(stage), 0);
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
    sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
    if (rows[half] >= tile.to) continue;
    const float share = 1.f / sum[half];
    T *to = output + rows[half] * heads.output_width() + int64_t(head) * heads.head_dim + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
      if (n * 8 < heads.head_dim)
        *reinterpret_cast<uint32_t *>(to + n * 8) = pair<T>(out[n][2 * half] * share, out[n][2 * half + 1] * share);
    if ((lane & 3) == 0) log_sums[int64_t(rows[half]) * heads.heads + head] = max[half] / LOG2_E + logf(sum[half]);
  }
}

// dq of a tile of queries: scale · Σ over keys of ds·k, with ds = p ∘ (mask ∘ dy·vᵀ - along). W channels from blockIdx.z·W on.
template <typename T, int D, int W, bool DROP>
__global__ void __launch_bounds__(THREADS) backward_queries(Heads heads, SftDropout dropout, const SftTile *__restrict__ tiles,
                                                            const T *__restrict__ qkv, const float *__restrict__ log_sums,
                                                            const float *__restrict__ along, const T *__restrict__ dy,
                                                            T *__restrict__ dqkv) {
  extern __shared__ __align__(16) unsigned char memory[];
  T *q = reinterpret_cast<T *>(memory), *d = q + TILE_SIZE<D>;
  const auto k = [&](int stage) { return q + (2 + stage) * TILE_SIZE<D>; };
  const auto v = [&](int stage) { return q + (4 + stage) * TILE_SIZE<D>; };
  const SftTile tile = tiles[blockIdx.x];
  const int head = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int64_t stride = heads.qkv_width();
  const T *keys = qkv + heads.key(head / heads.per_group()), *values = keys + heads.head_dim;
  const uint32_t last = tile.to;
  fetch<T, D>(q, qkv + heads.query(head), stride, tile.from, tile.to, heads.head_dim);
  fetch<T, D>(d, dy + int64_t(head) * heads.head_dim, heads.output_width(), tile.from, tile.to, heads.head_dim);
  fetch<T, D>(k(0), keys, stride, tile.begin, last, heads.head_dim);
  fetch<T, D>(v(0), values, stride, tile.begin, last, heads.head_dim);
  commit();
  const float scale = heads.scale * LOG2_E;
  const uint32_t rows[2] = {tile.from + warp * 16 + lane / 4, tile.from + warp * 16 + lane / 4 + 8};
  float log_sum[2] = {INFINITY, INFINITY}, mean[2] = {0.f, 0.f};
#pragma unroll
  for (int half = 0; half < 2; half++)
    if (rows[half] < tile.to) {
      log_sum[half] = log_sums[int64_t(rows[half]) * heads.heads + head] * LOG2_E;
      mean[half] = along[int64_t(rows[half]) * heads.heads + head];
    }
  float dq[W / 8][4] = {};
  int stage = 0;
  for (uint32_t first = tile.begin; first < last; first += TILE, stage ^= 1) {
    __syncthreads();
    if (first + TILE < last) {
      fetch<T, D>(k(stage ^ 1), keys, stride, first + TILE, last, heads.head_dim);
      fetch<T, D>(v(stage ^ 1), values, stride, first + TILE, last, heads.head_dim);
    }
    commit();
    wait<1>();
    __syncthreads();
    float score[8][4] = {}, slope[8][4] = {};
    product_of_rows<T, D>(score, q, warp * 16, k(stage));
    product_of_rows<T, D>(slope, d, warp * 16, v(stage));
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const uint32_t key = first + n * 8 + (lane & 3) * 2 + (i & 1);
        const float p = key > rows[i >> 1] ? 0.f : exp2f(fmaf(score[n][i], scale, -log_sum[i >> 1]));
        if (DROP && rows[i >> 1] < tile.to)
          slope[n][i] *= probability_factor(dropout, heads, rows[i >> 1], head, key - tile.begin);
        score[n][i] = p * (slope[n][i] - mean[i >> 1]);
      }
    combine_rows<T, D, W>(dq, score, k(stage), blockIdx.z * W);
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    if (rows[half] >= tile.to) continue;
    T *to = dqkv + rows[half] * stride + heads.query(head) + blockIdx.z * W + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < W / 8; n++)
      if (int(blockIdx.z) * W + n * 8 < heads.head_dim)
        *reinterpret_cast<uint32_t *>(to + n * 8) = pair<T>(dq[n][2 * half] * heads.scale, dq[n][2 * half + 1] * heads.scale);
  }
}

// dk and dv of a tile of keys: sums over the group's heads and the queries from the tile on, of p̃ᵀ·dy and scale·dsᵀ·q.
template <typename T, int D, int W, bool DROP>
__global__ void __launch_bounds__(THREADS) backward_keys(Heads heads, SftDropout dropout, const SftTile *__restrict__ tiles,
                                                         const T *__restrict__ qkv, const float *__restrict__ log_sums,
                                                         const float *__restrict__ along, const T *__restrict__ dy,
                                                         T *__restrict__ dqkv) {
  extern __shared__ __align__(16) unsigned char memory[];
  T *k = reinterpret_cast<T *>(memory), *v = k + TILE_SIZE<D>;
  const auto q = [&](int stage) { return k + (2 + stage) * TILE_SIZE<D>; };
  const auto d = [&](int stage) { return k + (4 + stage) * TILE_SIZE<D>; };
  const SftTile tile = tiles[blockIdx.x];
  const int group = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31, per_group = heads.per_group();
  const int64_t stride = heads.qkv_width(), out_stride = heads.output_width();
  fetch<T, D>(k, qkv + heads.key(group), stride, tile.from, tile.to, heads.head_dim);
  fetch<T, D>(v, qkv + heads.key(group) + heads.head_dim, stride, tile.from, tile.to, heads.head_dim);
  // All heads of the group, for each all tiles of queries that see these keys.
  const uint32_t per_head = (tile.end - tile.from + TILE - 1) / TILE, steps = per_head * per_group;
  const auto fetch_step = [&](uint32_t step, int stage) {
    const int head = group * per_group + step / per_head;
    const uint32_t first = tile.from + step % per_head * TILE;
    fetch<T, D>(q(stage), qkv + heads.query(head), stride, first, tile.end, heads.head_dim);
    fetch<T, D>(d(stage), dy + int64_t(head) * heads.head_dim, out_stride, first, tile.end, heads.head_dim);
  };
  fetch_step(0, 0);
  commit();
  const float scale = heads.scale * LOG2_E;
  const uint32_t keys[2] = {tile.from + warp * 16 + lane / 4, tile.from + warp * 16 + lane / 4 + 8};
  float dk[W / 8][4] = {}, dv[W / 8][4] = {};
  int stage = 0;
  for (uint32_t step = 0; step < steps; step++, stage ^= 1) {
    __syncthreads();
    if (step + 1 < steps) fetch_step(step + 1, stage ^ 1);
    commit();
    const int head = group * per_group + step / per_head;
    const uint32_t first = tile.from + step % per_head * TILE;
    wait<1>();
    __syncthreads();
    float score[8][4] = {}, slope[8][4] = {};   // keys × queries
    product_of_rows<T, D>(score, k, warp * 16, q(stage));
    product_of_rows<T, D>(slope, v, warp * 16, d(stage));
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int column = 0; column < 2; column++) {
        const uint32_t query = first + n * 8 + (lane & 3) * 2 + column;
        const bool real = query < tile.end;
        const float log_sum = real ? log_sums[int64_t(query) * heads.heads + head] * LOG2_E : INFINITY;
        const float mean = real ? along[int64_t(query) * heads.heads + head] : 0.f;
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const int i = 2 * half + column;
          const float p = keys[half] > query ? 0.f : exp2f(fmaf(score[n][i], scale, -log_sum));
          const float kept = DROP && real ? probability_factor(dropout, heads, query, head, keys[half] - tile.begin) : 1.f;
          score[n][i] = p * kept;
          slope[n][i] = p * (slope[n][i] * kept - mean);
        }
      }
    combine_rows<T, D, W>(dv, score, d(stage), blockIdx.z * W);
    combine_rows<T, D, W>(dk, slope, q(stage), blockIdx.z * W);
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    if (keys[half] >= tile.to) continue;
    T *to = dqkv + keys[half] * stride + heads.key(group) + blockIdx.z * W + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < W / 8; n++)
      if (int(blockIdx.z) * W + n * 8 < heads.head_dim) {
        *reinterpret_cast<uint32_t *>(to + n * 8) = pair<T>(dk[n][2 * half] * heads.scale, dk[n][2 * half + 1] * heads.scale);
        *reinterpret_cast<uint32_t *>(to + heads.head_dim + n * 8) = pair<T>(dv[n][2 * half], dv[n][2 * half + 1]);
      }
  }
}

template <typename K, typename... A>
int start(K kernel, dim3 grid, int bytes, cudaStream_t stream, A... arguments) {
  const int rc = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (rc) return rc;
  kernel<<<grid, THREADS, bytes, stream>>>(arguments...);
  return cudaGetLastError();
}

template <typename T, int D, bool DROP>
int run_forward(cudaStream_t stream, const Heads &heads, const SftDropout &by, const SftTile *tiles, int64_t count,
                const void *qkv, void *output, float *log_sums) {
  return start(forward<T, D, DROP>, dim3(unsigned(count), heads.heads), 5 * TILE_SIZE<D> * int(sizeof(T)), stream, heads, by,
               tiles, (const T *)qkv, (T *)output, log_sums);
}

template <typename T, int D, bool DROP>
int run_backward(cudaStream_t stream, const Heads &heads, const SftDropout &by, const SftTile *tiles, int64_t count,
                 const void *qkv, const float *log_sums, const float *along, const void *dy, void *dqkv) {
  constexpr int W = D < 128 ? D : 128, bytes = 6 * TILE_SIZE<D> * int(sizeof(T));
  const int rc = start(backward_keys<T, D, W, DROP>, dim3(unsigned(count), heads.groups, D / W), bytes, stream, heads, by, tiles,
                       (const T *)qkv, log_sums, along, (const T *)dy, (T *)dqkv);
  if (rc) return rc;
  return start(backward_queries<T, D, W, DROP>, dim3(unsigned(count), heads.heads, D / W), bytes, stream, heads, by, tiles,
               (const T *)qkv, log_sums, along, (const T *)dy, (T *)dqkv);
}

} // namespace

// The statement with T, D (head_dim rounded up) and DROP; head dims that are no multiple of 8 have no form here.
#define SFT_ON_HEADS(...)                                                                                              \
  const SftDropout by = dropout ? *dropout : SftDropout{};                                                             \
  const auto with = [&](auto type, auto dim, auto drop) {                                                              \
    using T = decltype(type);                                                                                          \
    constexpr int D = decltype(dim)::value;                                                                            \
    constexpr bool DROP = decltype(drop)::value;                                                                       \
    return __VA_ARGS__;                                                                                                \
  };                                                                                                                   \
  const auto with_dim = [&](auto type, auto dim) {                                                                     \
    return dropout ? with(type, dim, std::true_type{}) : with(type, dim, std::false_type{});                           \
  };                                                                                                                   \
  const auto with_type = [&](auto type) {                                                                              \
    if (heads.head_dim <= 64) return with_dim(type, std::integral_constant<int, 64>{});                                \
    if (heads.head_dim <= 128) return with_dim(type, std::integral_constant<int, 128>{});                              \
    return with_dim(type, std::integral_constant<int, 256>{});                                                         \
  };                                                                                                                   \
  return format == BF16 ? with_type(bf16{}) : with_type(f16{})

int attention_mma_forward(cudaStream_t stream, int format, const Heads &heads, const SftDropout *dropout, const SftTile *tiles,
                          int64_t count, const void *qkv, void *output, float *log_sums) {
  SFT_ON_HEADS((run_forward<T, D, DROP>(stream, heads, by, tiles, count, qkv, output, log_sums)));
}

int attention_mma_backward(cudaStream_t stream, int format, const Heads &heads, const SftDropout *dropout, const SftTile *tiles,
                           int64_t count, const void *qkv, const float *log_sums, const float *along, const void *dy,
                           void *dqkv) {
  SFT_ON_HEADS((run_backward<T, D, DROP>(stream, heads, by, tiles, count, qkv, log_sums, along, dy, dqkv)));
}

} // namespace sft

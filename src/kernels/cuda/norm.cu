// layernorm, layernorm1p and rmsnorm, with the residual sum before them and the parameters' gradients beside them.
#include "common.cuh"

namespace sft {

enum NormKind : int { LAYER_NORM = 0, LAYER_NORM_1P = 1, RMS_NORM = 2 };

// (x - mean)·scale, with the same bits in the forward and the backward.
__device__ __forceinline__ float normalize(float x, float2 moment) { return __fmul_rn(x - moment.x, moment.y); }

// The most threads of a block: what is summed over rows stays in registers.
constexpr int row_threads(int v) { return v == 8 ? 256 : 1024; }

// Blocks of the usual width still share a multiprocessor; a row of the widest fills it alone: in f32 more than 8,192 numbers
// need as much shared memory as a Hopper GPU has.
constexpr int places(size_t row) { return row <= 12288 ? 3 : row <= 49152 ? 2 : 1; }
template <typename T, int V, int N, int PARTS>
using RingOfRows = Ring<T, V, N * PARTS, places(sizeof(Pack<T, V>) * N * PARTS * row_threads(V))>;

// A ring of a block's rows of PARTS tensors; null ones are left out.
template <typename T, int V, int N, int PARTS> struct RowRing : RingOfRows<T, V, N, PARTS> {
  using Base = RingOfRows<T, V, N, PARTS>;
  __device__ explicit RowRing(uint4 *memory) : Base{reinterpret_cast<Pack<T, V> *>(memory)} {}

  __device__ Pack<T, V> take(int place, int part, int n) const { return Base::take(place, part * N + n); }
  // Starts a row's copies into a place, if there is such a row.
  __device__ void begin(int place, const T *const (&sources)[PARTS], int64_t row, int64_t rows, int width) const {
    if (row < rows)
#pragma unroll
      for (int part = 0; part < PARTS; part++)
#pragma unroll
        for (int n = 0; n < N; n++) {
          const int at = (n * blockDim.x + threadIdx.x) * V;
          if (sources[part] && at < width) Base::copy(place, part * N + n, sources[part] + row * width + at);
        }
    Base::commit();
  }
  // Starts as many rows as there is room for: the block's first.
  __device__ void fill(const T *const (&sources)[PARTS], int64_t rows, int width) const {
#pragma unroll
    for (int place = 0; place < Base::ROOM; place++)
      begin(place, sources, blockIdx.x + int64_t(place) * gridDim.x, rows, width);
  }
};

enum ForwardPart : int { RESIDUAL, UPDATE, FORWARD_PARTS };

// Block b takes tokens b, b + blocks, …; a token's numbers are in registers, N packs of V per thread.
// sum = residual + dropout(x + bias), y = norm(sum); without x, sum is the residual itself.
template <typename T, int V, int N>
__global__ void __launch_bounds__(row_threads(V), V == 8 && N == 1 ? 5 : 1)
    norm_forward(const T *__restrict__ x, const T *__restrict__ x_bias, SftDropout dropout, const T *__restrict__ residual,
                 T *__restrict__ sum, const T *__restrict__ weight, const T *__restrict__ bias, T *__restrict__ y,
                 float2 *__restrict__ moments, int rows, int width, int kind, float epsilon) {
  using Ring = RowRing<T, V, N, FORWARD_PARTS>;
  extern __shared__ uint4 ring_memory[];
  __shared__ float shared[2 * 32];
  const Ring ring(ring_memory);
  const T *const sources[FORWARD_PARTS] = {residual, x};
  const float offset = kind == LAYER_NORM_1P ? 1.f : 0.f, share = 1.f / width;
  ring.fill(sources, rows, width);
  int place = 0, turn = 0;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x, place = Ring::after(place)) {
    const int64_t base = row * width;
    float values[N][V], total[1] = {0.f};
    ring.wait();
#pragma unroll
    for (int n = 0; n < N; n++) {
      const int at = (n * blockDim.x + threadIdx.x) * V;
      if (at >= width) {
#pragma unroll
        for (int i = 0; i < V; i++) values[n][i] = 0.f;
        continue;
      }
      unpack<T, V>(ring.take(place, RESIDUAL, n), values[n]);
      if (x) {
        float update[V];
        unpack<T, V>(ring.take(place, UPDATE, n), update);
        if (x_bias) {
          float added[V];
          load<T, V>(x_bias + at, added);
#pragma unroll
          for (int i = 0; i < V; i++) update[i] += added[i];
        }
        if (dropout.addresses) {
          float factor[V];
          dropout_factors<V>(dropout, dropout.addresses[row], width, at, factor);
#pragma unroll
          for (int i = 0; i < V; i++) update[i] *= factor[i];
        }
#pragma unroll
        for (int i = 0; i < V; i++) values[n][i] += update[i];
        round_to<T, V>(values[n]);
        store<T, V>(sum + base + at, values[n]);
      }
#pragma unroll
      for (int i = 0; i < V; i++) total[0] += values[n][i];
    }
    ring.begin(place, sources, row + int64_t(Ring::ROOM) * gridDim.x, rows, width);
    float mean = 0.f;
    if (kind != RMS_NORM) {
      block_sum<1>(total, shared, turn);
      turn ^= 1;
      mean = total[0] * share;
    }
    float squares[1] = {0.f};
#pragma unroll
    for (int n = 0; n < N; n++)
      if ((n * blockDim.x + threadIdx.x) * V < width)
#pragma unroll
        for (int i = 0; i < V; i++) squares[0] += (values[n][i] - mean) * (values[n][i] - mean);
    block_sum<1>(squares, shared, turn);
    turn ^= 1;
    const float2 moment = make_float2(mean, rsqrtf(squares[0] * share + epsilon));
    if (threadIdx.x == 0) moments[row] = moment;
#pragma unroll
    for (int n = 0; n < N; n++) {
      const int at = (n * blockDim.x + threadIdx.x) * V;
      if (at >= width) continue;
      float factor[V], out[V];
      load<T, V>(weight + at, factor);
      if (bias) load<T, V>(bias + at, out);
#pragma unroll
      for (int i = 0; i < V; i++)
        out[i] = __fmaf_rn(normalize(values[n][i], moment), factor[i] + offset, bias ? out[i] : 0.f);
      store<T, V>(y + base + at, out);
    }
  }
}

enum BackwardPart : int { X, DY, THROUGH, BACKWARD_PARTS };

// With n = (x - mean)·scale and g = dy·weight: dx = scale·(g - mean(g) - n·mean(g·n)) + residual.
// Block b takes rows b, b + blocks, …; its sums of dy·n, dy and (if asked for) dx go to
// partials[which][b][width]. Where `y` is given, the forward's output is written again, with the same bits;
// it may be the memory of dy.
template <typename T, int V, int N, bool SUM_DX>
__global__ void __launch_bounds__(row_threads(V), V == 8 && N == 1 ? 4 : 1)
    norm_backward(const T *__restrict__ x, const float2 *__restrict__ moments, const T *__restrict__ weight,
                  const T *__restrict__ bias, const T *dy, const T *__restrict__ residual, T *__restrict__ dx, T *y,
                  float *__restrict__ partials, int rows, int width, int kind) {
  using Ring = RowRing<T, V, N, BACKWARD_PARTS>;
  extern __shared__ uint4 ring_memory[];
  __shared__ float shared[2 * 2 * 32];
  const Ring ring(ring_memory);
  const T *const sources[BACKWARD_PARTS] = {x, dy, residual};
  const float offset = kind == LAYER_NORM_1P ? 1.f : 0.f, share = 1.f / width;
  float d_weight[N][V], d_bias[N][V], d_sum[SUM_DX ? N : 1][V];
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int i = 0; i < V; i++) {
      d_weight[n][i] = d_bias[n][i] = 0.f;
      if (SUM_DX) d_sum[n][i] = 0.f;
    }
  ring.fill(sources, rows, width);
  float2 ahead = blockIdx.x < rows ? moments[blockIdx.x] : make_float2(0.f, 0.f);
  int place = 0, turn = 0;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x, turn ^= 1, place = Ring::after(place)) {
    const float2 moment = ahead;
    if (row + gridDim.x < rows) ahead = moments[row + gridDim.x];
    const int64_t base = row * width;
    float normal[N][V], g[N][V], sums[2] = {0.f, 0.f};
    ring.wait();
#pragma unroll
    for (int n = 0; n < N; n++) {
      const int at = (n * blockDim.x + threadIdx.x) * V;
      if (at >= width) continue;
      float factor[V];
      unpack<T, V>(ring.take(place, X, n), normal[n]);
      unpack<T, V>(ring.take(place, DY, n), g[n]);
      load<T, V>(weight + at, factor);
#pragma unroll
      for (int i = 0; i < V; i++) {
        normal[n][i] = normalize(normal[n][i], moment);
        factor[i] += offset;
        d_weight[n][i] += g[n][i] * normal[n][i];
        d_bias[n][i] += g[n][i];
        g[n][i] *= factor[i];
        sums[0] += g[n][i];
        sums[1] += g[n][i] * normal[n][i];
      }
      if (y) {
        float again[V];
        if (bias) load<T, V>(bias + at, again);
#pragma unroll
        for (int i = 0; i < V; i++) again[i] = __fmaf_rn(normal[n][i], factor[i], bias ? again[i] : 0.f);
        store<T, V>(y + base + at, again);
      }
    }
    block_sum<2>(sums, shared, turn);
    const float mean_g = kind == RMS_NORM ? 0.f : sums[0] * share, along = sums[1] * share;
#pragma unroll
    for (int n = 0; n < N; n++) {
      const int at = (n * blockDim.x + threadIdx.x) * V;
      if (at >= width) continue;
      float out[V];
#pragma unroll
      for (int i = 0; i < V; i++) out[i] = moment.y * (g[n][i] - mean_g - normal[n][i] * along);
      if (residual) {
        float added[V];
        unpack<T, V>(ring.take(place, THROUGH, n), added);
#pragma unroll
        for (int i = 0; i < V; i++) out[i] += added[i];
      }
      round_to<T, V>(out);
      if (SUM_DX)
#pragma unroll
        for (int i = 0; i < V; i++) d_sum[n][i] += out[i];
      store<T, V>(dx + base + at, out);
    }
    ring.begin(place, sources, row + int64_t(Ring::ROOM) * gridDim.x, rows, width);
  }
  float *to = partials + int64_t(blockIdx.x) * width;
  const int64_t plane = int64_t(gridDim.x) * width;
#pragma unroll
  for (int n = 0; n < N; n++) {
    const int at = (n * blockDim.x + threadIdx.x) * V;
    if (at >= width) continue;
    store<float, V>(to + at, d_weight[n]);
    store<float, V>(to + plane + at, d_bias[n]);
    if (SUM_DX) store<float, V>(to + 2 * plane + at, d_sum[n]);
  }
}

// Five and four for each multiprocessor of a Hopper GPU: what their registers allow in rows of the usual width.
constexpr int FORWARD_BLOCKS = 660, NORM_BLOCKS = 528;

} // namespace sft

// Numbers of f32 workspace that the backward needs.
extern "C" int64_t sft_norm_backward_workspace(int64_t rows, int64_t width) {
  return 3 * width * (rows < sft::NORM_BLOCKS ? rows : sft::NORM_BLOCKS);
}

extern "C" int sft_add_partials(void *stream, const float *partials, int64_t count, int64_t width, float *first,
                                float *second, float *third);

// Threads per block and packs per thread for a row; false when a row is too long.
static bool norm_shape(int width, int v, int *threads, int *packs) {
  for (int limit : {256, 512, 1024})
    for (int n : {1, 2, 4, 8}) {
      const int needed = sft::ceil_div(sft::ceil_div(width, v * n), 32) * 32;
      if (needed <= limit && limit <= sft::row_threads(v)) {
        *threads = needed;
        *packs = n;
        return true;
      }
    }
  return false;
}

#define SFT_ON_PACKS(packs, ...)                                                                                       \
  switch (packs) {                                                                                                     \
  case 1: { constexpr int N = 1; __VA_ARGS__; } break;                                                                 \
  case 2: { constexpr int N = 2; __VA_ARGS__; } break;                                                                 \
  case 4: { constexpr int N = 4; __VA_ARGS__; } break;                                                                 \
  default: { constexpr int N = 8; __VA_ARGS__; } break;                                                                \
  }

// y = norm(sum), sum = residual + dropout(x + x_bias). Null x: sum is not written, and the residual is normalized.
extern "C" int sft_norm_forward(void *stream, int format, int kind, float epsilon, const void *x, const void *x_bias,
                                const SftDropout *dropout, const void *residual, void *sum, const void *weight,
                                const void *bias, void *y, void *moments, int64_t rows, int64_t width) {
  if (rows == 0 || width == 0) return 0;
  SftDropout by = {};
  if (dropout) by = *dropout;
  const bool eight = width % 8 == 0 && sft::all_aligned(x, x_bias, residual, sum, weight, bias, y);
  int threads, packs;
  if (!norm_shape(int(width), eight ? 8 : 1, &threads, &packs)) return sft::REFUSED;
  const int blocks = int(rows < sft::FORWARD_BLOCKS ? rows : sft::FORWARD_BLOCKS);
  int rc = 0;
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight, SFT_ON_PACKS(packs,
      rc = sft::start_with_ring(sft::norm_forward<T, V, N>, sft::RowRing<T, V, N, sft::FORWARD_PARTS>::bytes(threads), blocks, threads,
                           cudaStream_t(stream), (const T *)x, (const T *)x_bias, by, (const T *)residual, (T *)sum,
                           (const T *)weight, (const T *)bias, (T *)y, (float2 *)moments, int(rows), int(width), kind, epsilon))));
  return rc;
}

// Gradient of the norm's input, plus `residual` if given; adds to the gradients of weight, bias and (of dx's columns) sum.
// Where `y` is given, the norm's output is written there again; it may be the memory of dy.
extern "C" int sft_norm_backward(void *stream, int format, int kind, const void *x, const void *moments,
                                 const void *weight, const void *bias, const void *dy, const void *residual, void *dx,
                                 void *y, float *workspace, float *d_weight, float *d_bias, float *d_sum, int64_t rows,
                                 int64_t width) {
  if (rows == 0 || width == 0) return 0;
  const bool eight = width % 8 == 0 && sft::all_aligned(x, weight, bias, dy, residual, dx, y, workspace);
  int threads, packs, rc = 0;
  if (!norm_shape(int(width), eight ? 8 : 1, &threads, &packs)) return sft::REFUSED;
  const int blocks = int(rows < sft::NORM_BLOCKS ? rows : sft::NORM_BLOCKS);
#define SFT_BACKWARD(SUM)                                                                                              \
  rc = sft::start_with_ring(sft::norm_backward<T, V, N, SUM>, sft::RowRing<T, V, N, sft::BACKWARD_PARTS>::bytes(threads), blocks, \
                       threads, cudaStream_t(stream), (const T *)x, (const float2 *)moments, (const T *)weight,        \
                       (const T *)bias, (const T *)dy, (const T *)residual, (T *)dx, (T *)y, workspace, int(rows),     \
                       int(width), kind)
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight, SFT_ON_PACKS(packs, if (d_sum) SFT_BACKWARD(true); else SFT_BACKWARD(false))));
#undef SFT_BACKWARD
  return rc ? rc : sft_add_partials(stream, workspace, blocks, width, d_weight, d_bias, d_sum);
}

// layernorm, layernorm1p and rmsnorm, with the residual sum before them and the parameters' gradients beside them.
#include "common.cuh"

namespace sft {

enum NormKind : int { LAYER_NORM = 0, LAYER_NORM_1P = 1, RMS_NORM = 2 };

// (x - mean)·scale, with the same bits in the forward and the backward.
__device__ __forceinline__ float normalize(float x, float2 moment) { return __fmul_rn(x - moment.x, moment.y); }

// One block per token, the token's numbers in registers: N packs of V per thread.
// sum = residual + dropout(x + bias), y = norm(sum); without x, sum is the residual itself.
template <typename T, int V, int N>
__global__ void norm_forward(const T *__restrict__ x, const T *__restrict__ x_bias, SftDropout dropout,
                             const T *__restrict__ residual, T *__restrict__ sum, const T *__restrict__ weight,
                             const T *__restrict__ bias, T *__restrict__ y, float2 *__restrict__ moments, int width,
                             int kind, float epsilon) {
  __shared__ float shared[2 * 32];
  const int64_t row = blockIdx.x, base = row * width;
  float values[N][V];
  float total[1] = {0.f};
#pragma unroll
  for (int n = 0; n < N; n++) {
    const int at = (n * blockDim.x + threadIdx.x) * V;
    if (at >= width) {
#pragma unroll
      for (int i = 0; i < V; i++) values[n][i] = 0.f;
      continue;
    }
    load<T, V>(residual + base + at, values[n]);
    if (x) {
      float update[V];
      load<T, V>(x + base + at, update);
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
  float mean = 0.f;
  if (kind != RMS_NORM) {
    block_sum<1>(total, shared, 0);
    mean = total[0] / width;
  }
  float squares[1] = {0.f};
#pragma unroll
  for (int n = 0; n < N; n++)
    if ((n * blockDim.x + threadIdx.x) * V < width)
#pragma unroll
      for (int i = 0; i < V; i++) squares[0] += (values[n][i] - mean) * (values[n][i] - mean);
  block_sum<1>(squares, shared, 1);
  const float scale = rsqrtf(squares[0] / width + epsilon);
  const float2 moment = make_float2(mean, scale);
  if (threadIdx.x == 0) moments[row] = moment;
  const float offset = kind == LAYER_NORM_1P ? 1.f : 0.f;
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

// A thread's numbers of one row, as they lie in memory.
template <typename T, int V, int N> struct NormRow {
  float2 moment;
  Pack<T, V> x[N], dy[N];
};

template <typename T, int V, int N>
__device__ __forceinline__ NormRow<T, V, N> fetch_row(const T *__restrict__ x, const float2 *__restrict__ moments,
                                                      const T *dy, int64_t row, int width) {
  NormRow<T, V, N> fetched;
  fetched.moment = moments[row];
#pragma unroll
  for (int n = 0; n < N; n++) {
    const int at = (n * blockDim.x + threadIdx.x) * V;
    if (at >= width) continue;
    fetched.x[n] = fetch<T, V>(x + row * width + at);
    fetched.dy[n] = fetch<T, V>(dy + row * width + at);
  }
  return fetched;
}

// The most threads of a block: sums of columns stay in registers.
constexpr int backward_threads(int v) { return v == 8 ? 256 : 1024; }

// With n = (x - mean)·scale and g = dy·weight: dx = scale·(g - mean(g) - n·mean(g·n)) + residual.
// Block b takes rows b, b + blocks, …; its sums of dy·n, dy and (if asked for) dx go to
// partials[which][b][width]. Where `y` is given, the forward's output is written again, with the same bits;
// it may be the memory of dy.
template <typename T, int V, int N, bool SUM_DX>
__global__ void __launch_bounds__(backward_threads(V), V == 8 && N == 1 ? 3 : 1)
    norm_backward(const T *__restrict__ x, const float2 *__restrict__ moments, const T *__restrict__ weight,
                  const T *__restrict__ bias, const T *dy, const T *__restrict__ residual, T *__restrict__ dx, T *y,
                  float *__restrict__ partials, int rows, int width, int kind) {
  // The next row is on its way while this one is summed, where it fits into registers.
  constexpr bool AHEAD = N * sizeof(Pack<T, V>) <= 32;
  __shared__ float shared[2 * 2 * 32];
  const float offset = kind == LAYER_NORM_1P ? 1.f : 0.f, share = 1.f / width;
  float d_weight[N][V], d_bias[N][V], d_sum[SUM_DX ? N : 1][V];
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int i = 0; i < V; i++) {
      d_weight[n][i] = d_bias[n][i] = 0.f;
      if (SUM_DX) d_sum[n][i] = 0.f;
    }
  NormRow<T, V, N> next;
  if (AHEAD && blockIdx.x < rows) next = fetch_row<T, V, N>(x, moments, dy, blockIdx.x, width);
  int turn = 0;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x, turn ^= 1) {
    const NormRow<T, V, N> here = AHEAD ? next : fetch_row<T, V, N>(x, moments, dy, row, width);
    if (AHEAD && row + gridDim.x < rows) next = fetch_row<T, V, N>(x, moments, dy, row + gridDim.x, width);
    const float2 moment = here.moment;
    const int64_t base = row * width;
    Pack<T, V> through[N];
    float normal[N][V], g[N][V], sums[2] = {0.f, 0.f};
#pragma unroll
    for (int n = 0; n < N; n++) {
      const int at = (n * blockDim.x + threadIdx.x) * V;
      if (at >= width) continue;
      if (residual) through[n] = fetch<T, V>(residual + base + at);
      float factor[V];
      unpack<T, V>(here.x[n], normal[n]);
      unpack<T, V>(here.dy[n], g[n]);
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
        unpack<T, V>(through[n], added);
#pragma unroll
        for (int i = 0; i < V; i++) out[i] += added[i];
      }
      round_to<T, V>(out);
      if (SUM_DX)
#pragma unroll
        for (int i = 0; i < V; i++) d_sum[n][i] += out[i];
      store<T, V>(dx + base + at, out);
    }
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

// Three for each multiprocessor of a Hopper GPU: what the backward's registers allow.
constexpr int NORM_BLOCKS = 396;

} // namespace sft

// Numbers of f32 workspace that the backward needs.
extern "C" int64_t sft_norm_backward_workspace(int64_t rows, int64_t width) {
  return 3 * width * (rows < sft::NORM_BLOCKS ? rows : sft::NORM_BLOCKS);
}

extern "C" int sft_add_partials(void *stream, const float *partials, int64_t count, int64_t width, float *sum);

// Threads per block, at most `most`, and packs per thread for a row; false when a row is too long.
static bool norm_shape(int width, int v, int most, int *threads, int *packs) {
  for (int limit : {256, 512, 1024})
    for (int n : {1, 2, 4, 8}) {
      const int needed = sft::ceil_div(sft::ceil_div(width, v * n), 32) * 32;
      if (needed <= limit && limit <= most) {
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
  if (!norm_shape(int(width), eight ? 8 : 1, 1024, &threads, &packs)) return sft::REFUSED;
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight, SFT_ON_PACKS(packs,
      sft::norm_forward<T, V, N><<<unsigned(rows), threads, 0, cudaStream_t(stream)>>>(
          (const T *)x, (const T *)x_bias, by, (const T *)residual, (T *)sum, (const T *)weight, (const T *)bias, (T *)y,
          (float2 *)moments, int(width), kind, epsilon))));
  return cudaGetLastError();
}

// Gradient of the norm's input, plus `residual` if given; adds to the gradients of weight, bias and (of dx's columns) sum.
// Where `y` is given, the norm's output is written there again; it may be the memory of dy.
extern "C" int sft_norm_backward(void *stream, int format, int kind, const void *x, const void *moments,
                                 const void *weight, const void *bias, const void *dy, const void *residual, void *dx,
                                 void *y, float *workspace, float *d_weight, float *d_bias, float *d_sum, int64_t rows,
                                 int64_t width) {
  if (rows == 0 || width == 0) return 0;
  const bool eight = width % 8 == 0 && sft::all_aligned(x, weight, bias, dy, residual, dx, y, workspace);
  const int v = eight ? 8 : 1;
  int threads, packs;
  if (!norm_shape(int(width), v, sft::backward_threads(v), &threads, &packs)) return sft::REFUSED;
  const int blocks = int(rows < sft::NORM_BLOCKS ? rows : sft::NORM_BLOCKS);
#define SFT_BACKWARD(SUM)                                                                                              \
  sft::norm_backward<T, V, N, SUM><<<blocks, threads, 0, cudaStream_t(stream)>>>(                                      \
      (const T *)x, (const float2 *)moments, (const T *)weight, (const T *)bias, (const T *)dy, (const T *)residual,   \
      (T *)dx, (T *)y, workspace, int(rows), int(width), kind)
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight, SFT_ON_PACKS(packs, if (d_sum) SFT_BACKWARD(true); else SFT_BACKWARD(false))));
#undef SFT_BACKWARD
  int rc = cudaGetLastError();
  const int64_t plane = int64_t(blocks) * width;
  float *sums[3] = {d_weight, d_bias, d_sum};
  for (int i = 0; i < 3 && !rc; i++)
    if (sums[i]) rc = sft_add_partials(stream, workspace + i * plane, blocks, width, sums[i]);
  return rc;
}

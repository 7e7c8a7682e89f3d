// layernorm, layernorm1p and rmsnorm, with the residual sum before them and the parameters' gradients beside them.
#include "common.cuh"

namespace sft {

enum NormKind : int { LAYER_NORM = 0, LAYER_NORM_1P = 1, RMS_NORM = 2 };

// One block per token, the token's numbers in registers: N packs of V per thread.
// sum = residual + dropout(x + bias), y = norm(sum); without x, sum is the residual itself.
template <typename T, int V, int N>
__global__ void norm_forward(const T *__restrict__ x, const T *__restrict__ x_bias, SftDropout dropout,
                             const T *__restrict__ residual, T *__restrict__ sum, const T *__restrict__ weight,
                             const T *__restrict__ bias, T *__restrict__ y, float2 *__restrict__ moments, int width,
                             int kind, float epsilon) {
  __shared__ float shared[32];
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
    block_sum<1>(total, shared);
    mean = total[0] / width;
  }
  float squares[1] = {0.f};
#pragma unroll
  for (int n = 0; n < N; n++)
    if ((n * blockDim.x + threadIdx.x) * V < width)
#pragma unroll
      for (int i = 0; i < V; i++) squares[0] += (values[n][i] - mean) * (values[n][i] - mean);
  block_sum<1>(squares, shared);
  const float scale = rsqrtf(squares[0] / width + epsilon);
  if (threadIdx.x == 0) moments[row] = make_float2(mean, scale);
  const float offset = kind == LAYER_NORM_1P ? 1.f : 0.f;
#pragma unroll
  for (int n = 0; n < N; n++) {
    const int at = (n * blockDim.x + threadIdx.x) * V;
    if (at >= width) continue;
    float factor[V], out[V];
    load<T, V>(weight + at, factor);
#pragma unroll
    for (int i = 0; i < V; i++) out[i] = (values[n][i] - mean) * scale * (factor[i] + offset);
    if (bias) {
      float added[V];
      load<T, V>(bias + at, added);
#pragma unroll
      for (int i = 0; i < V; i++) out[i] += added[i];
    }
    store<T, V>(y + base + at, out);
  }
}

// With n = (x - mean)·scale and g = dy·weight: dx = scale·(g - mean(g) - n·mean(g·n)) + residual.
// Block b takes rows b, b + blocks, …; its sums of dy·n, dy and (if asked for) dx go to
// partials[which][b][width].
template <typename T, int V, int N, bool SUM_DX>
__global__ void norm_backward(const T *__restrict__ x, const float2 *__restrict__ moments,
                              const T *__restrict__ weight, const T *__restrict__ dy, const T *__restrict__ residual,
                              T *__restrict__ dx, float *__restrict__ partials, int rows, int width, int kind) {
  __shared__ float shared[64];
  const float offset = kind == LAYER_NORM_1P ? 1.f : 0.f, share = 1.f / width;
  float d_weight[N][V], d_bias[N][V], d_sum[SUM_DX ? N : 1][V];
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int i = 0; i < V; i++) {
      d_weight[n][i] = d_bias[n][i] = 0.f;
      if (SUM_DX) d_sum[n][i] = 0.f;
    }
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float2 moment = moments[row];
    const int64_t base = row * width;
    float normal[N][V], g[N][V], sums[2] = {0.f, 0.f};
#pragma unroll
    for (int n = 0; n < N; n++) {
      const int at = (n * blockDim.x + threadIdx.x) * V;
      if (at >= width) continue;
      float factor[V];
      load<T, V>(x + base + at, normal[n]);
      load<T, V>(dy + base + at, g[n]);
      load<T, V>(weight + at, factor);
#pragma unroll
      for (int i = 0; i < V; i++) {
        normal[n][i] = (normal[n][i] - moment.x) * moment.y;
        d_weight[n][i] += g[n][i] * normal[n][i];
        d_bias[n][i] += g[n][i];
        g[n][i] *= factor[i] + offset;
        sums[0] += g[n][i];
        sums[1] += g[n][i] * normal[n][i];
      }
    }
    block_sum<2>(sums, shared);
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
        load<T, V>(residual + base + at, added);
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

constexpr int NORM_BLOCKS = 528;

} // namespace sft

// Numbers of f32 workspace that the backward needs.
extern "C" int64_t sft_norm_backward_workspace(int64_t rows, int64_t width) {
  return 3 * width * (rows < sft::NORM_BLOCKS ? rows : sft::NORM_BLOCKS);
}

extern "C" int sft_add_partials(void *stream, const float *partials, int64_t count, int64_t width, float *sum);

// Threads per block and packs per thread for a row; false when a row is too long.
static bool norm_shape(int width, int v, int *threads, int *packs) {
  for (int limit : {256, 512, 1024})
    for (int n : {1, 2, 4, 8}) {
      const int needed = sft::ceil_div(sft::ceil_div(width, v * n), 32) * 32;
      if (needed <= limit) {
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
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight, SFT_ON_PACKS(packs,
      sft::norm_forward<T, V, N><<<unsigned(rows), threads, 0, cudaStream_t(stream)>>>(
          (const T *)x, (const T *)x_bias, by, (const T *)residual, (T *)sum, (const T *)weight, (const T *)bias, (T *)y,
          (float2 *)moments, int(width), kind, epsilon))));
  return cudaGetLastError();
}

// Gradient of the norm's input, plus `residual` if given; adds to the gradients of weight, bias and (of dx's columns) sum.
extern "C" int sft_norm_backward(void *stream, int format, int kind, const void *x, const void *moments,
                                 const void *weight, const void *dy, const void *residual, void *dx, float *workspace,
                                 float *d_weight, float *d_bias, float *d_sum, int64_t rows, int64_t width) {
  if (rows == 0 || width == 0) return 0;
  const bool eight = width % 8 == 0 && sft::all_aligned(x, weight, dy, residual, dx, workspace);
  int threads, packs;
  if (!norm_shape(int(width), eight ? 8 : 1, &threads, &packs)) return sft::REFUSED;
  const int blocks = int(rows < sft::NORM_BLOCKS ? rows : sft::NORM_BLOCKS);
#define SFT_BACKWARD(SUM)                                                                                              \
  sft::norm_backward<T, V, N, SUM><<<blocks, threads, 0, cudaStream_t(stream)>>>(                                      \
      (const T *)x, (const float2 *)moments, (const T *)weight, (const T *)dy, (const T *)residual, (T *)dx, workspace, \
      int(rows), int(width), kind)
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight, SFT_ON_PACKS(packs, if (d_sum) SFT_BACKWARD(true); else SFT_BACKWARD(false))));
#undef SFT_BACKWARD
  int rc = cudaGetLastError();
  const int64_t plane = int64_t(blocks) * width;
  if (!rc) rc = sft_add_partials(stream, workspace, blocks, width, d_weight);
  if (!rc && d_bias) rc = sft_add_partials(stream, workspace + plane, blocks, width, d_bias);
  if (!rc && d_sum) rc = sft_add_partials(stream, workspace + 2 * plane, blocks, width, d_sum);
  return rc;
}

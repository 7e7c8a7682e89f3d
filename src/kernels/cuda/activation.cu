// Activations of the MLP with the bias before them, plain and gated, and the bias's gradient beside the backward.
#include "curves.cuh"

namespace sft {

template <typename T, int V>
__device__ __forceinline__ void load_biased(const T *x, const T *bias, int64_t base, int at, float (&to)[V]) {
  load<T, V>(x + base + at, to);
  if (bias) {
    float added[V];
    load<T, V>(bias + at, added);
#pragma unroll
    for (int i = 0; i < V; i++) to[i] += added[i];
  }
}

// A block takes 32·V columns of the output, its 8 warps every eighth row of the chunk.
template <typename T, int V, int KIND>
__global__ void activation_forward(const T *__restrict__ x, const T *__restrict__ bias, T *__restrict__ y, int rows,
                                   int out_width, int per_chunk) {
  const int column = (blockIdx.x * 32 + threadIdx.x) * V, width = gated(KIND) ? 2 * out_width : out_width;
  if (column >= out_width) return;
  const int first = blockIdx.y * per_chunk, last = min(rows, first + per_chunk);
#pragma unroll 2
  for (int row = first + threadIdx.y; row < last; row += 8) {
    float values[V], out[V];
    load_biased<T, V>(x, bias, int64_t(row) * width, column, values);
#pragma unroll
    for (int i = 0; i < V; i++) out[i] = curve<KIND>(values[i]).x;
    if constexpr (gated(KIND)) {
      float up[V];
      load_biased<T, V>(x, bias, int64_t(row) * width, out_width + column, up);
#pragma unroll
      for (int i = 0; i < V; i++) out[i] *= up[i];
    }
    store<T, V>(y + int64_t(row) * out_width + column, out);
  }
}

// Rows on their way to one thread of the backward.
template <typename T, int V, int KIND> using RingOfThread = Ring<T, V, gated(KIND) ? 3 : 2, 3>;

// Writes dx and, where `partials` is given, the sums of its columns over the chunk.
template <typename T, int V, int KIND>
__global__ void activation_backward(const T *__restrict__ x, const T *__restrict__ bias, const T *__restrict__ dy,
                                    T *__restrict__ dx, int rows, int out_width, int per_chunk,
                                    float *__restrict__ partials) {
  constexpr int HALVES = gated(KIND) ? 2 : 1;
  extern __shared__ uint4 ring_memory[];
  __shared__ float parts[8][HALVES * 32 * V];
  const int column = (blockIdx.x * 32 + threadIdx.x) * V, width = HALVES * out_width;
  const int first = blockIdx.y * per_chunk, last = min(rows, first + per_chunk);
  float sums[HALVES][V];
#pragma unroll
  for (int i = 0; i < V; i++)
#pragma unroll
    for (int half = 0; half < HALVES; half++) sums[half][i] = 0.f;
  if (column < out_width) {
    const RingOfThread<T, V, KIND> ring{reinterpret_cast<Pack<T, V> *>(ring_memory)};
    const auto begin = [&](int place, int row) {
      if (row < last) {
#pragma unroll
        for (int half = 0; half < HALVES; half++)
          ring.copy(place, half, x + int64_t(row) * width + half * out_width + column);
        ring.copy(place, HALVES, dy + int64_t(row) * out_width + column);
      }
      ring.commit();
    };
#pragma unroll
    for (int place = 0; place < ring.ROOM; place++) begin(place, first + threadIdx.y + 8 * place);
    float added[HALVES][V] = {};
    if (bias)
#pragma unroll
      for (int half = 0; half < HALVES; half++) load<T, V>(bias + half * out_width + column, added[half]);
    int place = 0;
#pragma unroll 1
    for (int row = first + threadIdx.y; row < last; row += 8, place = ring.after(place)) {
      float values[HALVES][V], out[V], slopes[HALVES][V];
      ring.wait();
#pragma unroll
      for (int half = 0; half < HALVES; half++) {
        unpack<T, V>(ring.take(place, half), values[half]);
#pragma unroll
        for (int i = 0; i < V; i++) values[half][i] += added[half][i];
      }
      unpack<T, V>(ring.take(place, HALVES), out);
      begin(place, row + 8 * ring.ROOM);
#pragma unroll
      for (int i = 0; i < V; i++) {
        const float2 both = curve<KIND>(values[0][i]);
        slopes[0][i] = out[i] * both.y;
        if constexpr (gated(KIND)) {
          slopes[0][i] *= values[1][i];
          slopes[1][i] = out[i] * both.x;
        }
      }
#pragma unroll
      for (int half = 0; half < HALVES; half++) {
        round_to<T, V>(slopes[half]);
        store<T, V>(dx + int64_t(row) * width + half * out_width + column, slopes[half]);
#pragma unroll
        for (int i = 0; i < V; i++) sums[half][i] += slopes[half][i];
      }
    }
  }
  if (!partials) return;
#pragma unroll
  for (int half = 0; half < HALVES; half++)
#pragma unroll
    for (int i = 0; i < V; i++) parts[threadIdx.y][(half * V + i) * 32 + threadIdx.x] = sums[half][i];
  __syncthreads();
  if (threadIdx.y || column >= out_width) return;
#pragma unroll
  for (int half = 0; half < HALVES; half++)
#pragma unroll
    for (int i = 0; i < V; i++) {
      float total = 0.f;
#pragma unroll
      for (int part = 0; part < 8; part++) total += parts[part][(half * V + i) * 32 + threadIdx.x];
      partials[int64_t(blockIdx.y) * width + half * out_width + column + i] = total;
    }
}

} // namespace sft

extern "C" int sft_add_partials(void *stream, const float *partials, int64_t count, int64_t width, float *first,
                                float *second, float *third);

#define SFT_ON_KIND(kind, ...)                                                                                         \
  switch (kind) {                                                                                                      \
  case 0: { constexpr int K = 0; __VA_ARGS__; } break;                                                                 \
  case 1: { constexpr int K = 1; __VA_ARGS__; } break;                                                                 \
  case 2: { constexpr int K = 2; __VA_ARGS__; } break;                                                                 \
  case 3: { constexpr int K = 3; __VA_ARGS__; } break;                                                                 \
  case 4: { constexpr int K = 4; __VA_ARGS__; } break;                                                                 \
  case 5: { constexpr int K = 5; __VA_ARGS__; } break;                                                                 \
  case 6: { constexpr int K = 6; __VA_ARGS__; } break;                                                                 \
  default: return sft::REFUSED;                                                                                        \
  }

// y [rows, out_width] of x + bias; x is twice as wide when the kind is gated: gate, then up.
extern "C" int sft_activation_forward(void *stream, int format, int kind, const void *x, const void *bias, void *y,
                                      int64_t rows, int64_t out_width) {
  if (rows == 0 || out_width == 0) return 0;
  const bool eight = out_width % 8 == 0 && sft::all_aligned(x, bias, y);
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight, SFT_ON_KIND(kind,
      sft::activation_forward<T, V, K><<<dim3(sft::ceil_div(out_width, 32 * V), sft::ceil_div(rows, 64)), dim3(32, 8), 0,
                                         cudaStream_t(stream)>>>((const T *)x, (const T *)bias, (T *)y, int(rows),
                                                                 int(out_width), 64))));
  return cudaGetLastError();
}

// dx, as wide as x; adds its column sums to d_bias if given (workspace: sft_column_workspace of dx's shape).
extern "C" int sft_activation_backward(void *stream, int format, int kind, const void *x, const void *bias,
                                       const void *dy, void *dx, float *workspace, float *d_bias, int64_t rows,
                                       int64_t out_width) {
  if (rows == 0 || out_width == 0) return 0;
  const bool eight = out_width % 8 == 0 && sft::all_aligned(x, bias, dy, dx);
  const int chunks = sft::ceil_div(rows, sft::SUMMED_ROWS);
  int rc = 0;
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight, SFT_ON_KIND(kind,
      rc = sft::start_with_ring(sft::activation_backward<T, V, K>, sft::RingOfThread<T, V, K>::bytes(256),
                                dim3(sft::ceil_div(out_width, 32 * V), chunks), dim3(32, 8), cudaStream_t(stream), (const T *)x,
                                (const T *)bias, (const T *)dy, (T *)dx, int(rows), int(out_width), sft::SUMMED_ROWS,
                                d_bias ? workspace : nullptr))));
  if (rc || !d_bias) return rc;
  const int64_t width = kind >= sft::GEGLU ? 2 * out_width : out_width;
  return sft_add_partials(stream, workspace, chunks, width, d_bias, nullptr, nullptr);
}

// The residual sum, dropout, rotary positions, and changes of whole buffers.
#include "common.cuh"

namespace sft {

// y = residual + dropout(x + bias); residual, bias and dropout where given.
template <typename T, int V>
__global__ void residual_forward(const T *__restrict__ x, const T *__restrict__ bias, SftDropout dropout,
                                 const T *__restrict__ residual, T *__restrict__ y, int64_t packs, int width) {
  for (int64_t pack = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; pack < packs; pack += int64_t(gridDim.x) * blockDim.x) {
    const int64_t at = pack * V;
    const int64_t row = at / width;
    const int column = int(at - row * width);
    float values[V], other[V];
    load<T, V>(x + at, values);
    if (bias) {
      load<T, V>(bias + column, other);
#pragma unroll
      for (int i = 0; i < V; i++) values[i] += other[i];
    }
    if (dropout.addresses) {
      dropout_factors<V>(dropout, dropout.addresses[row], width, column, other);
#pragma unroll
      for (int i = 0; i < V; i++) values[i] *= other[i];
    }
    if (residual) {
      load<T, V>(residual + at, other);
#pragma unroll
      for (int i = 0; i < V; i++) values[i] += other[i];
    }
    store<T, V>(y + at, values);
  }
}

// Queries and keys of a row turn; a group holds its query heads, its key, its value. table: (cos, sin) per pair.
template <typename T, int V>
__global__ void rotary(T *__restrict__ qkv, const float2 *__restrict__ table, const uint32_t *__restrict__ positions,
                       int64_t items, int groups, int turning, int head_dim, int pairs, float sign) {
  const int packs = pairs / V;
  for (int64_t item = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; item < items; item += int64_t(gridDim.x) * blockDim.x) {
    const int pair = int(item % packs) * V;
    const int64_t rest = item / packs;
    const int head = int(rest % turning);
    const int64_t group = rest / turning;   // row·groups + group
    const int64_t row = group / groups;
    T *first = qkv + (group * (turning + 1) + head) * head_dim + pair;
    float a[V], b[V], x[V], y[V];
    load<T, V>(first, a);
    load<T, V>(first + pairs, b);
    const float2 *angles = table + int64_t(positions[row]) * pairs + pair;
#pragma unroll
    for (int i = 0; i < V; i++) {
      const float cosine = angles[i].x, sine = sign * angles[i].y;
      x[i] = a[i] * cosine - b[i] * sine;
      y[i] = b[i] * cosine + a[i] * sine;
    }
    store<T, V>(first, x);
    store<T, V>(first + pairs, y);
  }
}

template <typename T, int V> __global__ void scale(T *x, int64_t packs, float factor) {
  for (int64_t pack = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; pack < packs; pack += int64_t(gridDim.x) * blockDim.x) {
    float values[V];
    load<T, V>(x + pack * V, values);
#pragma unroll
    for (int i = 0; i < V; i++) values[i] *= factor;
    store<T, V>(x + pack * V, values);
  }
}

// x += factor·y, in f32 before rounding.
template <typename T, typename U, int V> __global__ void add(T *x, const U *y, int64_t packs, float factor) {
  for (int64_t pack = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; pack < packs; pack += int64_t(gridDim.x) * blockDim.x) {
    float values[V], other[V];
    load<T, V>(x + pack * V, values);
    load<U, V>(y + pack * V, other);
#pragma unroll
    for (int i = 0; i < V; i++) values[i] = fmaf(factor, other[i], values[i]);
    store<T, V>(x + pack * V, values);
  }
}

template <typename T, typename U, int V> __global__ void cast(const T *x, U *y, int64_t packs) {
  for (int64_t pack = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; pack < packs; pack += int64_t(gridDim.x) * blockDim.x) {
    float values[V];
    load<T, V>(x + pack * V, values);
    store<U, V>(y + pack * V, values);
  }
}

// Blocks for a loop over `items` with 256 threads each.
static unsigned blocks_for(int64_t items) {
  const int64_t needed = (items + 255) / 256;
  return unsigned(needed < 132 * 64 ? needed : 132 * 64);
}

} // namespace sft

// y = residual + dropout(x + bias), [rows, width]; bias, dropout and residual may be null.
extern "C" int sft_residual_forward(void *stream, int format, const void *x, const void *bias, const SftDropout *dropout,
                                    const void *residual, void *y, int64_t rows, int64_t width) {
  if (rows == 0 || width == 0) return 0;
  SftDropout by = {};
  if (dropout) by = *dropout;
  const bool eight = width % 8 == 0 && sft::all_aligned(x, bias, residual, y);
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight, const int64_t packs = rows * width / V;
      sft::residual_forward<T, V><<<sft::blocks_for(packs), 256, 0, cudaStream_t(stream)>>>(
          (const T *)x, (const T *)bias, by, (const T *)residual, (T *)y, packs, int(width))));
  return cudaGetLastError();
}

// Turns `pairs` pairs of channels of every query and key head in place; sign -1 turns back.
extern "C" int sft_rotary(void *stream, int format, void *qkv, const void *table, const void *positions, int64_t rows,
                          int64_t groups, int64_t turning, int64_t head_dim, int64_t pairs, float sign) {
  if (rows == 0 || pairs == 0) return 0;
  const bool eight = pairs % 8 == 0 && head_dim % 8 == 0 && sft::aligned(qkv);
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight, const int64_t items = rows * groups * turning * (pairs / V);
      sft::rotary<T, V><<<sft::blocks_for(items), 256, 0, cudaStream_t(stream)>>>(
          (T *)qkv, (const float2 *)table, (const uint32_t *)positions, items, int(groups), int(turning), int(head_dim),
          int(pairs), sign)));
  return cudaGetLastError();
}

// x *= factor.
extern "C" int sft_scale(void *stream, int format, void *x, int64_t count, float factor) {
  if (count == 0) return 0;
  const bool eight = count % 8 == 0 && sft::aligned(x);
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight,
      sft::scale<T, V><<<sft::blocks_for(count / V), 256, 0, cudaStream_t(stream)>>>((T *)x, count / V, factor)));
  return cudaGetLastError();
}

// x += factor·y; the two may differ in format.
extern "C" int sft_add(void *stream, int format, void *x, int y_format, const void *y, int64_t count, float factor) {
  if (count == 0) return 0;
  const bool eight = count % 8 == 0 && sft::all_aligned(x, y);
#define SFT_ADD(U)                                                                                                     \
  sft::add<T, U, V><<<sft::blocks_for(count / V), 256, 0, cudaStream_t(stream)>>>((T *)x, (const U *)y, count / V, factor)
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight, switch (y_format) {
    case sft::F32: SFT_ADD(float); break;
    case sft::BF16: SFT_ADD(sft::bf16); break;
    case sft::F16: SFT_ADD(sft::f16); break;
    default: return sft::REFUSED;
  }));
#undef SFT_ADD
  return cudaGetLastError();
}

// y = x in another format, rounded to nearest even.
extern "C" int sft_cast(void *stream, int format, const void *x, int y_format, void *y, int64_t count) {
  if (count == 0) return 0;
  const bool eight = count % 8 == 0 && sft::all_aligned(x, y);
#define SFT_CAST(U)                                                                                                    \
  sft::cast<T, U, V><<<sft::blocks_for(count / V), 256, 0, cudaStream_t(stream)>>>((const T *)x, (U *)y, count / V)
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight, switch (y_format) {
    case sft::F32: SFT_CAST(float); break;
    case sft::BF16: SFT_CAST(sft::bf16); break;
    case sft::F16: SFT_CAST(sft::f16); break;
    default: return sft::REFUSED;
  }));
#undef SFT_CAST
  return cudaGetLastError();
}

// x = 0.
extern "C" int sft_clear(void *stream, void *x, int64_t bytes) { return cudaMemsetAsync(x, 0, bytes, cudaStream_t(stream)); }

namespace sft {
__global__ void clear_ranges(float *__restrict__ x, const int64_t *__restrict__ ranges) {
  const int64_t end = ranges[2 * blockIdx.x + 1];
  for (int64_t at = ranges[2 * blockIdx.x] + threadIdx.x; at < end; at += blockDim.x) x[at] = 0.f;
}
} // namespace sft

// x = 0 in `count` ranges of numbers, (begin, end) each: many short ones in one launch.
extern "C" int sft_clear_ranges(void *stream, float *x, const int64_t *ranges, int64_t count) {
  if (count == 0) return 0;
  sft::clear_ranges<<<unsigned(count), 256, 0, cudaStream_t(stream)>>>(x, ranges);
  return cudaGetLastError();
}

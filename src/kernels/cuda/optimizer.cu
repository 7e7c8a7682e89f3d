// AdamW over flat buffers in one pass with the parameters in the computing format, and the gradient's norm.
#include "common.cuh"

// kernels/optimizer.rs's `Factors`.
struct SftAdamW {
  float gradient, beta_1, beta_2, rest_1, rest_2, keep, step_size, root_scale, epsilon;
};

namespace sft {

// Where weight decay applies: `bounds` has the begins and ends of ascending ranges that do not touch.
struct Decaying {
  const int64_t *bounds;
  int count;
  // How many bounds an element has passed: it decays where that is odd.
  __device__ int passed(int64_t at) const {
    int low = 0, high = count;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (bounds[middle] <= at) low = middle + 1;
      else high = middle;
    }
    return low;
  }
};

// Parameters in f32; where the model's are in T, these are a rounded copy.
template <typename T> struct Whole {
  float *values;
  T *copy;
  template <int V> __device__ void get(int64_t at, float (&p)[V]) const { load<float, V>(values + at, p); }
  template <int V> __device__ void put(int64_t at, const float (&p)[V]) const {
    store<float, V>(values + at, p);
    if (copy) store<T, V>(copy + at, p);
  }
  bool aligned_to_four() const { return aligned(values) && reinterpret_cast<uintptr_t>(copy) % (4 * sizeof(T)) == 0; }
};

// kernels/masters.rs's `split` and `join`: the bits of bf16 parameters, and of what rounding took from their f32 values.
struct Split {
  uint16_t *copies;
  int16_t *rest;
  template <int V> __device__ void get(int64_t at, float (&p)[V]) const {
    const Pack<uint16_t, V> upper = fetch<uint16_t, V>(copies + at);
    const Pack<int16_t, V> lower = fetch<int16_t, V>(rest + at);
#pragma unroll
    for (int i = 0; i < V; i++) p[i] = __uint_as_float((uint32_t(upper.at[i]) << 16) + uint32_t(int32_t(lower.at[i])));
  }
  template <int V> __device__ void put(int64_t at, const float (&p)[V]) const {
    Pack<uint16_t, V> upper;
    Pack<int16_t, V> lower;
#pragma unroll
    for (int i = 0; i < V; i++) {
      const uint32_t bits = __float_as_uint(p[i]);
      const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
      upper.at[i] = uint16_t(is_nan ? bits >> 16 | 0x40u : (bits + 0x8000u) >> 16);
      lower.at[i] = int16_t(is_nan ? 0u : bits);
    }
    *reinterpret_cast<Pack<uint16_t, V> *>(copies + at) = upper;
    *reinterpret_cast<Pack<int16_t, V> *>(rest + at) = lower;
  }
  bool aligned_to_four() const { return ((reinterpret_cast<uintptr_t>(copies) | reinterpret_cast<uintptr_t>(rest)) & 7) == 0; }
};

// Six blocks a multiprocessor: 40 registers, where one more would cost a block.
template <typename P, int V>
__global__ void __launch_bounds__(256, 6) adamw(P parameters, const float *__restrict__ g, float *__restrict__ m,
                                                float *__restrict__ v, int64_t packs, Decaying decaying, SftAdamW by) {
  const int64_t pack = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pack >= packs) return;
  const int64_t at = pack * V;
  float ps[V], gs[V], ms[V], vs[V];
  parameters.get(at, ps);
  load<float, V>(g + at, gs);
  load<float, V>(m + at, ms);
  load<float, V>(v + at, vs);
  // Most blocks lie between two bounds.
  const int64_t first = int64_t(blockIdx.x) * blockDim.x * V;
  int passed = decaying.passed(first);
  const bool one_kind = passed == decaying.count || decaying.bounds[passed] >= first + int64_t(blockDim.x) * V;
#pragma unroll
  for (int i = 0; i < V; i++) {
    if (!one_kind) passed = decaying.passed(at + i);
    const float keep = passed & 1 ? by.keep : 1.f;
    const float gradient = gs[i] * by.gradient;
    ms[i] = fmaf(by.beta_1, ms[i], by.rest_1 * gradient);
    vs[i] = fmaf(by.beta_2, vs[i], by.rest_2 * gradient * gradient);
    const float divisor = fmaf(sqrtf(vs[i]), by.root_scale, by.epsilon);
    ps[i] = fmaf(keep, ps[i], -(by.step_size * ms[i] / divisor));
  }
  parameters.put(at, ps);
  store<float, V>(m + at, ms);
  store<float, V>(v + at, vs);
}

template <typename P, int V>
int start_adamw(cudaStream_t stream, P parameters, const float *gradients, float *first, float *second, int64_t count,
                Decaying decaying, const SftAdamW &by) {
  const unsigned blocks = unsigned((count / V + 255) / 256);
  adamw<P, V><<<blocks, 256, 0, stream>>>(parameters, gradients, first, second, count / V, decaying, by);
  return cudaGetLastError();
}

template <typename P>
int step(void *stream, P parameters, const float *gradients, float *first, float *second, int64_t count,
         const int64_t *decaying, int64_t bounds, const SftAdamW &by) {
  if (count == 0) return 0;
  const bool four = count % 4 == 0 && all_aligned(gradients, first, second) && parameters.aligned_to_four();
  const Decaying where{decaying, int(bounds)};
  if (four) return start_adamw<P, 4>(cudaStream_t(stream), parameters, gradients, first, second, count, where, by);
  return start_adamw<P, 1>(cudaStream_t(stream), parameters, gradients, first, second, count, where, by);
}

template <int V> __global__ void join(Split parameters, float *__restrict__ values, int64_t packs) {
  const int64_t pack = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pack >= packs) return;
  float p[V];
  parameters.get(pack * V, p);
  store<float, V>(values + pack * V, p);
}

constexpr int SQUARE_BLOCKS = 1056;

// partials[block] = Σ x² over the block's numbers, in f64.
template <typename T, int V> __global__ void squares(const T *__restrict__ x, int64_t packs, double *__restrict__ partials) {
  __shared__ double parts[256];
  double mine[2] = {0., 0.};
  const int64_t stride = int64_t(gridDim.x) * 256;
  for (int64_t pack = int64_t(blockIdx.x) * 256 + threadIdx.x; pack < packs; pack += stride) {
    float values[V];
    load<T, V>(x + pack * V, values);
#pragma unroll
    for (int i = 0; i < V; i++) mine[i & 1] = fma(double(values[i]), double(values[i]), mine[i & 1]);
  }
  parts[threadIdx.x] = mine[0] + mine[1];
  __syncthreads();
  for (int step = 128; step > 0; step >>= 1) {
    if (threadIdx.x < step) parts[threadIdx.x] += parts[threadIdx.x + step];
    __syncthreads();
  }
  if (threadIdx.x == 0) partials[blockIdx.x] = parts[0];
}

__global__ void add_squares(const double *__restrict__ partials, int count, double *__restrict__ total) {
  __shared__ double parts[256];
  double mine = 0.;
  for (int at = threadIdx.x; at < count; at += 256) mine += partials[at];
  parts[threadIdx.x] = mine;
  __syncthreads();
  for (int step = 128; step > 0; step >>= 1) {
    if (threadIdx.x < step) parts[threadIdx.x] += parts[threadIdx.x + step];
    __syncthreads();
  }
  if (threadIdx.x == 0) *total += parts[0];
}

} // namespace sft

// One AdamW step; `copy`, if given, gets the parameters in `copy_format`. Weight decay applies between every even and the
// next odd one of the `bounds` ascending numbers `decaying` (on the device).
extern "C" int sft_adamw(void *stream, float *parameters, const float *gradients, float *first, float *second,
                         int copy_format, void *copy, int64_t count, const int64_t *decaying, int64_t bounds,
                         const SftAdamW *by) {
  SFT_ON_FORMAT(copy_format, return sft::step(stream, sft::Whole<T>{parameters, (T *)copy}, gradients, first, second, count,
                                              decaying, bounds, *by));
}

// The same of bf16 parameters beside which lies what rounding took from their f32 values.
extern "C" int sft_adamw_split(void *stream, void *parameters, void *rest, const float *gradients, float *first,
                               float *second, int64_t count, const int64_t *decaying, int64_t bounds, const SftAdamW *by) {
  const sft::Split both{(uint16_t *)parameters, (int16_t *)rest};
  return sft::step(stream, both, gradients, first, second, count, decaying, bounds, *by);
}

// The f32 values of such parameters.
extern "C" int sft_join_masters(void *stream, void *parameters, void *rest, float *values, int64_t count) {
  if (count == 0) return 0;
  const sft::Split both{(uint16_t *)parameters, (int16_t *)rest};
  const bool four = count % 4 == 0 && sft::aligned(values) && both.aligned_to_four();
  const unsigned blocks = unsigned((count / (four ? 4 : 1) + 255) / 256);
  if (four) sft::join<4><<<blocks, 256, 0, cudaStream_t(stream)>>>(both, values, count / 4);
  else sft::join<1><<<blocks, 256, 0, cudaStream_t(stream)>>>(both, values, count);
  return cudaGetLastError();
}

// Bytes of workspace that a sum of squares needs.
extern "C" int64_t sft_squares_workspace() { return sft::SQUARE_BLOCKS * sizeof(double); }

// *total += Σ x², in f64.
extern "C" int sft_sum_of_squares(void *stream, int format, const void *x, int64_t count, void *workspace, double *total) {
  if (count == 0) return 0;
  const bool eight = count % 8 == 0 && sft::aligned(x);
  int blocks = 0;
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight, const int64_t packs = count / V;
      const int64_t needed = (packs + 255) / 256;
      blocks = int(needed < sft::SQUARE_BLOCKS ? needed : sft::SQUARE_BLOCKS);
      sft::squares<T, V><<<blocks, 256, 0, cudaStream_t(stream)>>>((const T *)x, packs, (double *)workspace)));
  sft::add_squares<<<1, 256, 0, cudaStream_t(stream)>>>((const double *)workspace, blocks, total);
  return cudaGetLastError();
}

// Cross entropy over a vocabulary that may be cut between ranks: statistics, gradient, and both in one pass.
#include "common.cuh"

namespace sft {

// One row's part of the softmax, kernels/cross_entropy.rs's `Row`; label is NaN when it lies in another part.
struct Statistics {
  float max, sum, label;
  uint32_t argmax;
};

// Running maximum, its lowest column, and Σ e^(x - max).
struct Running {
  float max, sum;
  uint32_t argmax;
};

// expf for f32 storage; ex2 is enough where the storage itself rounds to 8 or 11 bits.
template <typename T> __device__ __forceinline__ float power_of_e(float x) {
  if constexpr (sizeof(T) == 4) return expf(x);
  else return __expf(x);
}

template <typename T> __device__ __forceinline__ Running merge(Running a, Running b) {
  const bool a_first = a.max > b.max || (a.max == b.max && a.argmax <= b.argmax);
  const Running high = a_first ? a : b, low = a_first ? b : a;
  const float carried = low.sum != 0.f ? low.sum * power_of_e<T>(low.max - high.max) : 0.f;   // NaN stays
  return Running{high.max, high.sum + carried, high.argmax};
}

template <typename T> __device__ __forceinline__ Running block_merge(Running mine, Running *shared) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1)
    mine = merge<T>(mine, Running{__shfl_xor_sync(~0u, mine.max, offset), __shfl_xor_sync(~0u, mine.sum, offset),
                                  __shfl_xor_sync(~0u, mine.argmax, offset)});
  if ((threadIdx.x & 31) == 0) shared[threadIdx.x >> 5] = mine;
  __syncthreads();
  mine = shared[0];
  for (int warp = 1; warp < int(blockDim.x >> 5); warp++) mine = merge<T>(mine, shared[warp]);
  return mine;
}

// A thread's part of a row's statistics; V numbers at a time, the maximum first. `await` is told which pack of the thread's
// is read next.
template <typename T, int V, typename Await>
__device__ __forceinline__ Running scan(const T *row, int real, Await await) {
  Running mine{-INFINITY, 0.f, 0xffffffffu};
  int number = 0;
  for (int at = threadIdx.x * V; at < real; at += blockDim.x * V) {
    await(number++);
    float values[V];
    const bool whole = at + V <= real;
    if (whole) {
      load<T, V>(row + at, values);
    } else {
#pragma unroll
      for (int i = 0; i < V; i++) values[i] = at + i < real ? widen(row[at + i]) : -INFINITY;
    }
    float max = values[0];
    int best = 0;
#pragma unroll
    for (int i = 1; i < V; i++)
      if (values[i] > max) max = values[i], best = i;
    if (max > mine.max) {
      mine.sum *= power_of_e<T>(mine.max - max);
      mine.max = max;
      mine.argmax = at + best;
    }
    if (mine.max != -INFINITY)
#pragma unroll
      for (int i = 0; i < V; i++) mine.sum += power_of_e<T>(values[i] - mine.max);
  }
  return mine;
}

template <typename T, int V>
__global__ void statistics(const T *__restrict__ logits, const uint32_t *__restrict__ labels, uint32_t first, int columns,
                           int real, Statistics *__restrict__ out) {
  __shared__ Running shared[32];
  const T *row = logits + int64_t(blockIdx.x) * columns;
  const Running all = block_merge<T>(scan<T, V>(row, real, [](int) {}), shared);
  if (threadIdx.x) return;
  const uint32_t label = labels[blockIdx.x] - first;
  out[blockIdx.x] = Statistics{all.max, all.sum, label < uint32_t(real) ? widen(row[label]) : NAN, first + all.argmax};
}

// logits = factor·(softmax - onehot); 0 in padding.
template <typename T, int V>
__global__ void gradient(T *__restrict__ logits, const uint32_t *__restrict__ labels, uint32_t first, int columns, int real,
                         const Statistics *__restrict__ rows, float factor) {
  T *row = logits + int64_t(blockIdx.x) * columns;
  const Statistics by = rows[blockIdx.x];
  const uint32_t label = labels[blockIdx.x] - first;
  const float share = factor / by.sum;
  for (int at = threadIdx.x * V; at < columns; at += blockDim.x * V) {
    float values[V];
    load<T, V>(row + at, values);
#pragma unroll
    for (int i = 0; i < V; i++) {
      values[i] = at + i < real ? power_of_e<T>(values[i] - by.max) * share : 0.f;
      if (uint32_t(at + i) == label && at + i < real) values[i] -= factor;
    }
    store<T, V>(row + at, values);
  }
}

// Both on one rank: the row waits in shared memory between its one read, all of which is on its way from the beginning, and
// its one write.
template <typename T, int V>
__global__ void forward_backward(T *__restrict__ logits, const uint32_t *__restrict__ labels, int columns, int real,
                                 float factor, Statistics *__restrict__ out) {
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ Running shared[32];
  T *kept = reinterpret_cast<T *>(memory);
  T *row = logits + int64_t(blockIdx.x) * columns;
  const uint32_t label = labels[blockIdx.x];
  // A thread reads back only what it copied itself. Its packs arrive in four groups.
  constexpr int GROUPS = 4;
  const int stride = blockDim.x * V, packs_per_group = (real + GROUPS * stride - 1) / (GROUPS * stride);
  for (int group = 0; group < GROUPS; group++) {
    for (int i = 0; i < packs_per_group; i++) {
      const int at = (group * packs_per_group + i) * stride + threadIdx.x * V;
      if (at < real) copy_ahead<T, V>(reinterpret_cast<Pack<T, V> *>(kept + at), row + at);
    }
    __pipeline_commit();
  }
  const Running mine = scan<T, V>(kept, real, [&](int number) {
    if (number % packs_per_group == 0) __pipeline_wait_prior(GROUPS - 1 - number / packs_per_group);
  });
  const Running all = block_merge<T>(mine, shared);
  if (threadIdx.x == 0)
    out[blockIdx.x] = Statistics{all.max, all.sum, label < uint32_t(real) ? widen(row[label]) : NAN, all.argmax};
  __syncthreads();
  const float share = factor / all.sum;
  for (int at = threadIdx.x * V; at < columns; at += blockDim.x * V) {
    float values[V];
    if (at < real) {
      load<T, V>(kept + at, values);
#pragma unroll
      for (int i = 0; i < V; i++) values[i] = at + i < real ? power_of_e<T>(values[i] - all.max) * share : 0.f;
      if (label >= uint32_t(at) && label < uint32_t(at + V))
#pragma unroll
        for (int i = 0; i < V; i++)
          if (uint32_t(at + i) == label) values[i] -= factor;
    } else {
#pragma unroll
      for (int i = 0; i < V; i++) values[i] = 0.f;
    }
    store<T, V>(row + at, values);
  }
}

// A row's statistics from those of its parts, `rows` rows of each part after those of the one before. In full precision: the
// parts' sums are.
__global__ void merge_parts(const Statistics *__restrict__ all, int parts, int64_t rows, Statistics *__restrict__ out) {
  const int64_t row = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  Statistics by = all[row];
  Running whole{by.max, by.sum, by.argmax};
  for (int part = 1; part < parts; part++) {
    const Statistics next = all[part * rows + row];
    whole = merge<float>(whole, Running{next.max, next.sum, next.argmax});
    if (isnan(by.label)) by.label = next.label;
  }
  out[row] = Statistics{whole.max, whole.sum, by.label, whole.argmax};
}

// total += Σ_row (max + log sum - label), in f64 and in a fixed order.
__global__ void loss_sum(const Statistics *__restrict__ rows, int count, double *__restrict__ total) {
  __shared__ double parts[256];
  double mine = 0.;
  for (int row = threadIdx.x; row < count; row += 256)
    mine += double(rows[row].max) + log(double(rows[row].sum)) - double(rows[row].label);
  parts[threadIdx.x] = mine;
  __syncthreads();
  for (int step = 128; step > 0; step >>= 1) {
    if (threadIdx.x < step) parts[threadIdx.x] += parts[threadIdx.x + step];
    __syncthreads();
  }
  if (threadIdx.x == 0) *total += parts[0];
}

} // namespace sft

// How many of `columns` from id `first` on are real ids.
static int real_columns(int64_t first, int64_t columns, int64_t vocab_size) {
  const int64_t left = vocab_size > first ? vocab_size - first : 0;
  return int(left < columns ? left : columns);
}

// out: {f32 max, f32 sum, f32 label (NaN if elsewhere), u32 argmax} per row.
extern "C" int sft_cross_entropy_statistics(void *stream, int format, const void *logits, const void *labels,
                                            int64_t first, int64_t vocab_size, void *out, int64_t rows, int64_t columns) {
  if (rows == 0) return 0;
  const bool eight = columns % 8 == 0 && sft::aligned(logits);
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight,
      sft::statistics<T, V><<<unsigned(rows), 512, 0, cudaStream_t(stream)>>>(
          (const T *)logits, (const uint32_t *)labels, uint32_t(first), int(columns),
          real_columns(first, columns, vocab_size), (sft::Statistics *)out)));
  return cudaGetLastError();
}

// The statistics of whole rows from `parts` parts of them, one after the other.
extern "C" int sft_merge_statistics(void *stream, const void *all, int64_t parts, int64_t rows, void *out) {
  if (rows == 0) return 0;
  sft::merge_parts<<<unsigned((rows + 255) / 256), 256, 0, cudaStream_t(stream)>>>(
      (const sft::Statistics *)all, int(parts), rows, (sft::Statistics *)out);
  return cudaGetLastError();
}

// Replaces logits by factor·(softmax - onehot(label)), from the statistics of all parts.
extern "C" int sft_cross_entropy_gradient(void *stream, int format, void *logits, const void *labels, int64_t first,
                                          int64_t vocab_size, const void *statistics, float factor, int64_t rows,
                                          int64_t columns) {
  if (rows == 0) return 0;
  const bool eight = columns % 8 == 0 && sft::aligned(logits);
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight,
      sft::gradient<T, V><<<unsigned(rows), 512, 0, cudaStream_t(stream)>>>(
          (T *)logits, (const uint32_t *)labels, uint32_t(first), int(columns), real_columns(first, columns, vocab_size),
          (const sft::Statistics *)statistics, factor)));
  return cudaGetLastError();
}

// Statistics out and factor·gradient in place, on one rank that has every column.
extern "C" int sft_cross_entropy(void *stream, int format, void *logits, const void *labels, int64_t vocab_size,
                                 void *statistics, float factor, int64_t rows, int64_t columns) {
  if (rows == 0) return 0;
  const int64_t size = format == sft::F32 ? 4 : 2;
  const int64_t kept = (columns * size + 15) / 16 * 16;
  if (kept > 220 * 1024) {
    const int rc = sft_cross_entropy_statistics(stream, format, logits, labels, 0, vocab_size, statistics, rows, columns);
    return rc ? rc : sft_cross_entropy_gradient(stream, format, logits, labels, 0, vocab_size, statistics, factor, rows, columns);
  }
  const bool eight = columns % 8 == 0 && sft::aligned(logits);
  const int real = real_columns(0, columns, vocab_size);
  // A lone number past the real columns is kept whole: V numbers are stored where any is real.
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight,
      auto kernel = sft::forward_backward<T, V>;
      const int rc = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(kept));
      if (rc) return rc;
      kernel<<<unsigned(rows), 512, kept, cudaStream_t(stream)>>>((T *)logits, (const uint32_t *)labels, int(columns), real,
                                                                  factor, (sft::Statistics *)statistics)));
  return cudaGetLastError();
}

// *total += Σ -log p(label), in f64; a label that no part had makes it NaN.
extern "C" int sft_loss_sum(void *stream, const void *statistics, int64_t rows, double *total) {
  sft::loss_sum<<<1, 256, 0, cudaStream_t(stream)>>>((const sft::Statistics *)statistics, int(rows), total);
  return cudaGetLastError();
}

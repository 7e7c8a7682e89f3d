// The largest number of each row, for greedy decoding: kernels/argmax.rs's rule.
#include "common.cuh"

namespace sft {

constexpr uint32_t NONE = 0xffffffffu;

// The largest number seen, its lowest column, and whether one seen was NaN.
struct Largest {
  float value;
  uint32_t column, broken;
};

__device__ __forceinline__ Largest larger(Largest a, Largest b) {
  const bool first = a.value > b.value || (a.value == b.value && a.column <= b.column);
  return Largest{first ? a.value : b.value, first ? a.column : b.column, a.broken | b.broken};
}

__device__ __forceinline__ void look(Largest &mine, float value, uint32_t column, uint32_t forbidden) {
  if (value != value) mine.broken = 1;
  if (value > mine.value && column != forbidden) mine.value = value, mine.column = column;
}

// A block per row; a thread's columns rise, so that of equals it keeps the lowest.
template <typename T, int V>
__global__ void __launch_bounds__(1024) argmax(const T *__restrict__ rows, const uint32_t *__restrict__ forbidden, int64_t width,
                                               int columns, uint32_t *__restrict__ out) {
  __shared__ Largest shared[1024];
  const T *row = rows + int64_t(blockIdx.x) * width;
  const uint32_t left_out = forbidden[blockIdx.x];
  Largest mine{-INFINITY, NONE, 0};
  const int whole = columns / V * V;
  for (int at = threadIdx.x * V; at < whole; at += blockDim.x * V) {
    float values[V];
    load<T, V>(row + at, values);
#pragma unroll
    for (int i = 0; i < V; i++) look(mine, values[i], at + i, left_out);
  }
  for (int at = whole + threadIdx.x; at < columns; at += blockDim.x) look(mine, widen(row[at]), at, left_out);
  shared[threadIdx.x] = mine;
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) shared[threadIdx.x] = larger(shared[threadIdx.x], shared[threadIdx.x + half]);
  }
  if (threadIdx.x == 0) out[blockIdx.x] = shared[0].broken ? NONE : shared[0].column;
}

} // namespace sft

// out [rows]: of each row of `width` numbers the column of the largest of its first `columns`, the lowest among equals, never
// the row's `forbidden` one (0xffffffff: all are allowed); 0xffffffff where one is NaN or none allowed is above -infinity.
extern "C" int sft_argmax(void *stream, int format, const void *numbers, const void *forbidden, void *out, int64_t rows,
                          int64_t width, int64_t columns) {
  if (rows == 0) return 0;
  if (columns > width || width > INT32_MAX) return sft::REFUSED;
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(width % 8 == 0 && sft::aligned(numbers),
      sft::argmax<T, V><<<unsigned(rows), 1024, 0, cudaStream_t(stream)>>>((const T *)numbers, (const uint32_t *)forbidden, width,
                                                                           int(columns), (uint32_t *)out)));
  return cudaGetLastError();
}

// Sums of columns into f32 gradients: the bias of a linear layer, and the last step of every two-step sum.
#include "common.cuh"

namespace sft {

// sums[plane][c] += Σ_p partials[plane][p][c]. A block takes 32 columns of a plane; its warps take every 16th partial.
struct Sums {
  float *planes[3];
};
constexpr int SUM_WARPS = 16, AT_ONCE = 4;
__global__ void add_partials(const float *__restrict__ partials, int count, int width, Sums sums) {
  __shared__ float parts[SUM_WARPS][33];
  float *const sum = sums.planes[blockIdx.y];
  if (!sum) return;
  partials += int64_t(blockIdx.y) * count * width;
  const int column = blockIdx.x * 32 + threadIdx.x;
  float mine[AT_ONCE] = {};
  if (column < width)
    for (int first = threadIdx.y; first < count; first += AT_ONCE * SUM_WARPS)
#pragma unroll
      for (int i = 0; i < AT_ONCE; i++) {
        const int p = first + i * SUM_WARPS;
        if (p < count) mine[i] += partials[int64_t(p) * width + column];
      }
  float along = 0.f;
#pragma unroll
  for (int i = 0; i < AT_ONCE; i++) along += mine[i];
  parts[threadIdx.y][threadIdx.x] = along;
  __syncthreads();
  if (threadIdx.y == 0 && column < width) {
    float total = 0.f;
#pragma unroll
    for (int i = 0; i < SUM_WARPS; i++) total += parts[i][threadIdx.x];
    sum[column] += total;
  }
}

// partials[chunk][c] = Σ over the chunk's rows of x[row][c].
template <typename T, int V>
__global__ void column_sums(const T *__restrict__ x, int rows, int width, int per_chunk, float *__restrict__ partials) {
  __shared__ float parts[8][32 * V];
  const int column = (blockIdx.x * 32 + threadIdx.x) * V;
  const int first = blockIdx.y * per_chunk, last = min(rows, first + per_chunk);
  float sums[V];
#pragma unroll
  for (int i = 0; i < V; i++) sums[i] = 0.f;
  if (column < width) {
#pragma unroll 4
    for (int row = first + threadIdx.y; row < last; row += 8) {
      float values[V];
      load<T, V>(x + int64_t(row) * width + column, values);
#pragma unroll
      for (int i = 0; i < V; i++) sums[i] += values[i];
    }
  }
#pragma unroll
  for (int i = 0; i < V; i++) parts[threadIdx.y][i * 32 + threadIdx.x] = sums[i];
  __syncthreads();
  if (threadIdx.y == 0 && column < width) {
#pragma unroll
    for (int i = 0; i < V; i++) {
      float total = 0.f;
#pragma unroll
      for (int part = 0; part < 8; part++) total += parts[part][i * 32 + threadIdx.x];
      partials[int64_t(blockIdx.y) * width + column + i] = total;
    }
  }
}

} // namespace sft

// Up to three sums over `count` partials each, which lie one after the other; those of null sums are passed over.
extern "C" int sft_add_partials(void *stream, const float *partials, int64_t count, int64_t width, float *first,
                                float *second, float *third) {
  if (width == 0) return 0;
  const unsigned planes = third ? 3 : second ? 2 : 1;
  sft::add_partials<<<dim3(sft::ceil_div(width, 32), planes), dim3(32, sft::SUM_WARPS), 0, cudaStream_t(stream)>>>(
      partials, int(count), int(width), sft::Sums{{first, second, third}});
  return cudaGetLastError();
}

// Numbers of f32 workspace that sums over rows in chunks need: here and in the activation's backward, alone or in its product.
extern "C" int64_t sft_column_workspace(int64_t rows, int64_t width) { return sft::ceil_div(rows, sft::SUMMED_ROWS) * width; }

// sum[c] += Σ_row x[row][c].
extern "C" int sft_column_sums(void *stream, int format, const void *x, int64_t rows, int64_t width, float *workspace,
                               float *sum) {
  if (rows == 0 || width == 0) return 0;
  const int chunks = sft::ceil_div(rows, sft::SUMMED_ROWS);
  const bool eight = width % 8 == 0 && sft::aligned(x);
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight,
      sft::column_sums<T, V><<<dim3(sft::ceil_div(width, 32 * V), chunks), dim3(32, 8), 0, cudaStream_t(stream)>>>(
          (const T *)x, int(rows), int(width), sft::SUMMED_ROWS, workspace)));
  const int rc = cudaGetLastError();
  return rc ? rc : sft_add_partials(stream, workspace, chunks, width, sum, nullptr, nullptr);
}

// Rows of a table gathered by id, and gradients added back in a fixed order.
#include "common.cuh"

namespace sft {

// out[t] = table[ids[t] - first] (0 outside the table) + positions[place[t]] if given.
template <typename T, int V>
__global__ void gather(const T *__restrict__ table, const uint32_t *__restrict__ ids, uint32_t first, uint32_t rows,
                       const T *__restrict__ positions, const uint32_t *__restrict__ places, T *__restrict__ out,
                       int width) {
  const int64_t token = blockIdx.x;
  const uint32_t row = ids[token] - first;   // wraps below `first`, to beyond the table
  for (int at = threadIdx.x * V; at < width; at += blockDim.x * V) {
    float values[V];
    if (row < rows) {
      load<T, V>(table + int64_t(row) * width + at, values);
    } else {
#pragma unroll
      for (int i = 0; i < V; i++) values[i] = 0.f;
    }
    if (positions) {
      float added[V];
      load<T, V>(positions + int64_t(places[token]) * width + at, added);
#pragma unroll
      for (int i = 0; i < V; i++) values[i] += added[i];
    }
    store<T, V>(out + token * width + at, values);
  }
}

// table[unique[u]] += Σ dy[order[k]] for k in bounds[u]..bounds[u+1], in that order. A warp takes 32·V columns of a row.
template <typename T, typename G, int V>
__global__ void scatter_add(G *__restrict__ table, const uint32_t *__restrict__ unique,
                            const uint32_t *__restrict__ bounds, const uint32_t *__restrict__ order,
                            const T *__restrict__ dy, int width) {
  const int at = ((blockIdx.y * blockDim.y + threadIdx.y) * 32 + threadIdx.x) * V;
  if (at >= width) return;
  const uint32_t from = bounds[blockIdx.x], to = bounds[blockIdx.x + 1];
  float sums[V];
#pragma unroll
  for (int i = 0; i < V; i++) sums[i] = 0.f;
#pragma unroll 8
  for (uint32_t k = from; k < to; k++) {
    float values[V];
    load<T, V>(dy + int64_t(order[k]) * width + at, values);
#pragma unroll
    for (int i = 0; i < V; i++) sums[i] += values[i];
  }
  G *row = table + int64_t(unique[blockIdx.x]) * width + at;
  float old[V];
  load<G, V>(row, old);
#pragma unroll
  for (int i = 0; i < V; i++) old[i] += sums[i];
  store<G, V>(row, old);
}

static unsigned threads_for(int64_t width, int v) {
  const int needed = ceil_div(ceil_div(width, v), 32) * 32;
  return unsigned(needed < 256 ? needed : 256);
}

} // namespace sft

// [tokens, width]; `positions` [.., width] and `places` are both given or both null.
extern "C" int sft_gather(void *stream, int format, const void *table, const void *ids, int64_t first, int64_t rows,
                          const void *positions, const void *places, void *out, int64_t tokens, int64_t width) {
  if (tokens == 0 || width == 0) return 0;
  const bool eight = width % 8 == 0 && sft::all_aligned(table, positions, out);
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight,
      sft::gather<T, V><<<unsigned(tokens), sft::threads_for(width, V), 0, cudaStream_t(stream)>>>(
          (const T *)table, (const uint32_t *)ids, uint32_t(first), uint32_t(rows), (const T *)positions,
          (const uint32_t *)places, (T *)out, int(width))));
  return cudaGetLastError();
}

// Adds the rows of dy to rows of table: row unique[u] gets tokens order[bounds[u]..bounds[u+1]].
extern "C" int sft_scatter_add(void *stream, int table_format, void *table, const void *unique, int64_t count,
                               const void *bounds, const void *order, int format, const void *dy, int64_t width) {
  if (count == 0 || width == 0) return 0;
  const bool eight = width % 8 == 0 && sft::all_aligned(table, dy);
#define SFT_SCATTER(G)                                                                                                 \
  sft::scatter_add<T, G, V><<<dim3(unsigned(count), sft::ceil_div(width, 4 * 32 * V)), dim3(32, 4), 0,                 \
                              cudaStream_t(stream)>>>((G *)table, (const uint32_t *)unique, (const uint32_t *)bounds,  \
                                                      (const uint32_t *)order, (const T *)dy, int(width))
  SFT_ON_FORMAT(format, SFT_ON_VECTOR(eight, if (table_format == sft::F32) SFT_SCATTER(float);
                                      else if (table_format == format) SFT_SCATTER(T); else return sft::REFUSED));
#undef SFT_SCATTER
  return cudaGetLastError();
}

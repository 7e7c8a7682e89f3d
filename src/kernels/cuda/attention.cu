// Attention's way in: which form runs, and the row sums of dy∘y.
#include "attention.cuh"

namespace sft {

// along[row][head] = Σ_channel dy·y. A warp per (row, head).
template <typename T>
__global__ void row_products(const T *__restrict__ y, const T *__restrict__ dy, float *__restrict__ along, int64_t items, int width) {
  const int64_t item = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (item >= items) return;
  float sum = 0.f;
  for (int channel = threadIdx.x; channel < width; channel += 32)
    sum = fmaf(widen(y[item * width + channel]), widen(dy[item * width + channel]), sum);
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_xor_sync(~0u, sum, offset);
  if (threadIdx.x == 0) along[item] = sum;
}

static bool on_tensor_cores(int format, const Heads &heads, const void *a, const void *b) {
  return format != F32 && heads.head_dim % 8 == 0 && heads.head_dim <= 256 && all_aligned(a, b);
}

} // namespace sft

// Rows per tile: sft_attention_* take lists of tiles that cut each sequence at multiples of this.
extern "C" int64_t sft_attention_tile() { return 64; }

// output [tokens, heads·head_dim] and log_sums [tokens, heads] (f32) of qkv, causal within the tiles' sequences.
extern "C" int sft_attention_forward(void *stream, int format, const SftHeads *heads, const SftDropout *dropout,
                                     const SftTile *tiles, int64_t count, const void *qkv, void *output, float *log_sums) {
  if (count == 0) return 0;
  const sft::Heads by(*heads);
  const auto run = sft::on_tensor_cores(format, by, qkv, output) ? sft::attention_mma_forward : sft::attention_plain_forward;
  return run(cudaStream_t(stream), format, by, dropout, tiles, count, qkv, output, log_sums);
}

// dqkv from dy; along is f32 workspace [tokens, heads].
extern "C" int sft_attention_backward(void *stream, int format, const SftHeads *heads, const SftDropout *dropout,
                                      const SftTile *tiles, int64_t count, const void *qkv, const void *output,
                                      const float *log_sums, const void *dy, float *along, void *dqkv, int64_t tokens) {
  if (count == 0) return 0;
  const sft::Heads by(*heads);
  const int64_t items = tokens * by.heads;
  SFT_ON_FORMAT(format, sft::row_products<T><<<sft::ceil_div(items, 8), dim3(32, 8), 0, cudaStream_t(stream)>>>(
                            (const T *)output, (const T *)dy, along, items, by.head_dim));
  const int rc = cudaGetLastError();
  if (rc) return rc;
  const auto run = sft::on_tensor_cores(format, by, qkv, dy) && sft::aligned(dqkv) ? sft::attention_mma_backward : sft::attention_plain_backward;
  return run(cudaStream_t(stream), format, by, dropout, tiles, count, qkv, log_sums, along, dy, dqkv);
}

// What the attention kernels share: where heads lie in the fused qkv tensor, tiles of queries and keys, dropout.
#pragma once

#include "common.cuh"

// Heads of the fused tensor [tokens, per group: query heads, key, value] and of the output [tokens, heads].
struct SftHeads {
  int32_t heads, groups, head_dim;
  float scale;
  // The model's number of the first query head here, and the model's query heads: they address dropout.
  int32_t first_head, all_heads;
};

// Rows from..to are worked on, of the sequence begin..end.
struct SftTile {
  uint32_t from, to, begin, end;
};

namespace sft {

struct Heads : SftHeads {
  __host__ __device__ explicit Heads(const SftHeads &heads) : SftHeads(heads) {}
  __host__ __device__ int per_group() const { return heads / groups; }
  __host__ __device__ int64_t qkv_width() const { return int64_t(heads + 2 * groups) * head_dim; }
  __host__ __device__ int64_t output_width() const { return int64_t(heads) * head_dim; }
  __host__ __device__ int64_t query(int head) const { return int64_t(head + 2 * (head / per_group())) * head_dim; }
  __host__ __device__ int64_t key(int group) const { return int64_t((group + 1) * per_group() + 2 * group) * head_dim; }
};

// Factor of the probability of `key` (counted in its sequence) for the query in `row`: kernels/attention/mod.rs's
// addresses, blocks of four keys, 2^20 blocks a query.
__device__ __forceinline__ uint4 probability_words(const SftDropout &by, const Heads &heads, uint32_t row, int head, uint32_t quad) {
  const uint64_t query = uint64_t(by.addresses[row]) * uint64_t(heads.all_heads) + uint64_t(heads.first_head + head);
  return philox(by.step, (query << 20) + quad, make_uint2(by.key[0], by.key[1]));
}

__device__ __forceinline__ float probability_factor(const SftDropout &by, const Heads &heads, uint32_t row, int head, uint32_t key) {
  const uint4 words = probability_words(by, heads, row, head, key / 4);
  const uint32_t word = (key & 2) ? ((key & 1) ? words.w : words.z) : ((key & 1) ? words.y : words.x);
  return word >= by.threshold ? by.keep : 0.f;
}

// Forms in this room: tensor cores for bf16 and f16, plain f32 arithmetic for the rest.
int attention_mma_forward(cudaStream_t, int format, const Heads &, const SftDropout *, const SftTile *tiles, int64_t count,
                          const void *qkv, void *output, float *log_sums);
int attention_mma_backward(cudaStream_t, int format, const Heads &, const SftDropout *, const SftTile *tiles, int64_t count,
                           const void *qkv, const float *log_sums, const float *along, const void *dy, void *dqkv);
int attention_plain_forward(cudaStream_t, int format, const Heads &, const SftDropout *, const SftTile *tiles, int64_t count,
                            const void *qkv, void *output, float *log_sums);
int attention_plain_backward(cudaStream_t, int format, const Heads &, const SftDropout *, const SftTile *tiles, int64_t count,
                             const void *qkv, const float *log_sums, const float *along, const void *dy, void *dqkv);

} // namespace sft

// Products with the MLP's activation in them, forward and backward, for Hopper's tensor cores.
//
// A block keeps its multiprocessor to the end and makes tiles of 128 features × 256 tokens: two warpgroups multiply, one warp
// fetches for them, and three take finished tiles from shared memory, apply the activation and write, while the two are at
// the next tile. Two blocks of a cluster have neighbouring features of the same tokens and fetch these for each other.
#include "curves.cuh"
#include "hopper.cuh"

// What surrounds the product `before = input·weightᵀ`, or in the backward `input·weight`, of `depth` terms.
struct SftLinearActivation {
  int format, kind;
  const void *input;    // [tokens, depth]
  const void *weight;   // [features, depth]; backward: [depth, features]
  const void *bias;     // [features], or null
  void *before;         // [tokens, features]: before bias and activation; written by the forward, read by the backward
  void *out;            // [tokens, features]
  int64_t tokens, depth, features;
};

extern "C" int sft_add_partials(void *stream, const float *partials, int64_t count, int64_t width, float *first,
                                float *second, float *third);

namespace sft {

constexpr int FEATURES = 128, TOKENS = SUMMED_ROWS, DEPTH = 64;   // a tile, and what of the sum's index is fetched at once
constexpr int STAGES = 3, BLOCKS = 2, MULTIPLYING = 2;
constexpr int FINISHING = 96;   // threads
constexpr int THREADS = 128 * MULTIPLYING + FINISHING + 32;
constexpr uint32_t LEFT_BYTES = FEATURES * DEPTH * 2, RIGHT_BYTES = TOKENS * DEPTH * 2, STAGE_BYTES = LEFT_BYTES + RIGHT_BYTES;
constexpr uint32_t TILE_BYTES = FEATURES * TOKENS * 2, SUMS_BYTES = 2 * (FINISHING / 32) * FEATURES * 4;
constexpr int RING = 8;   // tokens on their way to each finishing thread
constexpr uint32_t TILE_AT = STAGES * STAGE_BYTES, RING_AT = TILE_AT + TILE_BYTES, SUMS_AT = RING_AT + RING * FINISHING * 16;
constexpr uint32_t BARRIERS_AT = SUMS_AT + SUMS_BYTES;
constexpr uint32_t SHARED_BYTES = BARRIERS_AT + 8 * (2 * STAGES + 2) + 1024;

// Which tiles of a cluster there are (a block's tile for each of its blocks, so 256 features × 256 tokens), and in which
// order: the tokens of some of them across at a time, so that what is read again is still in the L2 cache.
struct Tiles {
  int features, tokens, depth;
  __host__ __device__ int across() const { return (features + BLOCKS * FEATURES - 1) / (BLOCKS * FEATURES); }
  __host__ __device__ int down() const { return (tokens + TOKENS - 1) / TOKENS; }
  __host__ __device__ int count() const { return across() * down(); }
  // First feature of the first block, first token.
  __device__ int2 at(int index) const {
    constexpr int GROUP = 8;
    const int whole = GROUP * down(), first = index / whole * GROUP, rest = index % whole;
    const int wide = min(GROUP, across() - first);
    return make_int2((first + rest % wide) * BLOCKS * FEATURES, rest / wide * TOKENS);
  }
};

// What is done with a tile.
template <typename T> struct Epilogue {
  Tiles tiles;
  const T *bias;     // [features], or null
  T *before;         // [tokens, features]: before bias and activation; written by the forward, read by the backward
  T *out;            // [tokens, features]
  float *partials;   // [⌈tokens / 256⌉, features]: sums of `out` over each tile's tokens, or null
};

// Where a stage or a barrier lies, and in which turn of the ring one is.
struct RingPlace {
  int stage = 0, parity = 0;
  __device__ void advance() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

struct SharedPlaces {
  uint32_t base;
  __device__ uint32_t left(int stage) const { return base + stage * STAGE_BYTES; }
  __device__ uint32_t right(int stage) const { return left(stage) + LEFT_BYTES; }
  __device__ uint32_t tile() const { return base + TILE_AT; }
  __device__ uint32_t full(int stage) const { return base + BARRIERS_AT + 8 * stage; }
  __device__ uint32_t empty(int stage) const { return full(STAGES + stage); }
  __device__ uint32_t tile_there() const { return full(2 * STAGES); }
  __device__ uint32_t tile_taken() const { return full(2 * STAGES + 1); }
};

__device__ __forceinline__ int first_tile() { return blockIdx.x / BLOCKS; }
__device__ __forceinline__ int tiles_apart() { return gridDim.x / BLOCKS; }

// One thread keeps the ring full.
template <bool BACKWARD>
__device__ __forceinline__ void fetch_all(const CUtensorMap &left, const CUtensorMap &right, const Tiles &tiles,
                                          SharedPlaces shared) {
  const int rank = int(block_of_cluster());
  RingPlace place;
  for (int index = first_tile(); index < tiles.count(); index += tiles_apart()) {
    const int2 at = tiles.at(index);
    const int feature = at.x + rank * FEATURES;
    for (int depth = 0; depth < tiles.depth; depth += DEPTH, place.advance()) {
      const uint32_t full = shared.full(place.stage), to = shared.left(place.stage);
      // A new barrier counts as past its phase of parity 1: the first round waits for nobody.
      barrier_wait(shared.empty(place.stage), place.parity ^ 1);
      barrier_expect(full, STAGE_BYTES);
      if constexpr (BACKWARD) {
        fetch_tile(to, left, feature, depth, full);
        fetch_tile(to + LEFT_BYTES / 2, left, feature + FEATURES / 2, depth, full);
      } else {
        fetch_tile(to, left, depth, feature, full);
      }
      constexpr uint32_t HALF = RIGHT_BYTES / BLOCKS;
      const int token = at.y + rank * (TOKENS / BLOCKS);
      fetch_tile_for(shared.right(place.stage) + rank * HALF, right, depth, token, full, (1 << BLOCKS) - 1);
    }
  }
}

// A warpgroup multiplies 64 features by the tile's tokens and leaves them, [tokens, 64] in rows of 128 swizzled bytes.
template <typename T, bool BACKWARD>
__device__ __forceinline__ void multiply_all(const Tiles &tiles, SharedPlaces shared, int group) {
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, matrix = lane / 8, row = lane % 8;
  const uint32_t to = shared.tile() + group * (TILE_BYTES / MULTIPLYING) + (8 * (matrix / 2) + row) * 128 +
                      (((2 * warp + matrix % 2) ^ row) << 4);
  // How much further an operand lies 16 terms of the sum on, in a descriptor's units of 16 bytes.
  constexpr uint64_t LEFT_STEP = BACKWARD ? 16 * 128 / 16 : 2, RIGHT_STEP = 2;
  RingPlace place;
  int taken = 1;   // as in fetch_all
  for (int index = first_tile(); index < tiles.count(); index += tiles_apart()) {
    float sums[128];
#pragma unroll
    for (int i = 0; i < 128; i++) sums[i] = 0.f;
    for (int depth = 0; depth < tiles.depth; depth += DEPTH) {
      barrier_wait(shared.full(place.stage), place.parity);
      const uint64_t left = matrix_of_rows(shared.left(place.stage) + group * (LEFT_BYTES / MULTIPLYING));
      const uint64_t right = matrix_of_rows(shared.right(place.stage));
      products_begin();
#pragma unroll
      for (int k = 0; k < DEPTH / 16; k++)
        add_product<T, BACKWARD>(sums, left + k * LEFT_STEP, right + k * RIGHT_STEP);
      products_commit();
      // Meanwhile the other warpgroup's products run.
      products_wait();
      if (lane < BLOCKS) barrier_arrive_at(shared.empty(place.stage), lane);
      place.advance();
    }
    products_are_there(sums);
    barrier_wait(shared.tile_taken(), taken);
    taken ^= 1;
#pragma unroll
    for (int j = 0; j < TOKENS / 16; j++) {
      const float *s = sums + 8 * j;
      const auto pair = [&](int i) { return pack_two(T{}, s[i], s[i + 1]); };
      store_transposed(to + j * 16 * 128, pair(0), pair(2), pair(4), pair(6));
    }
    __syncwarp();
    if (lane == 0) barrier_arrive(shared.tile_there());
  }
}

// First to leave the L2 cache, which has weights and tokens to keep.
template <typename T> __device__ __forceinline__ void put(T *to, const Pack<T, 8> &pack) {
  __stcs(reinterpret_cast<uint4 *>(to), reinterpret_cast<const uint4 &>(pack));
}

// What the three warps keep in shared memory besides the tile: numbers on their way to each thread, and sums of each warp.
template <typename T> struct FinishingPlaces {
  Pack<T, 8> *ring;
  float *sums;
  int thread;

  __device__ Pack<T, 8> *slot(int place) const { return ring + place * FINISHING + thread; }

  // Writes the sums of up to `count` features over all threads, each of which has eight features' of some tokens. Tiles take
  // turns 0 and 1, so that no warp writes what another may still read.
  __device__ void add_up(float (&mine)[8], int turn, float *to, int count) const {
    float *own = sums + turn * (FINISHING / 32) * FEATURES;
#pragma unroll
    for (int j = 0; j < 8; j++) {
      mine[j] += __shfl_xor_sync(~0u, mine[j], 16);
      if (thread % 32 < 16) own[thread / 32 * FEATURES + 8 * (thread % 16) + j] = mine[j];
    }
    __syncwarp();
    asm volatile("bar.sync 1, %0;" ::"n"(FINISHING) : "memory");
    for (int i = thread; i < min(FEATURES, count); i += FINISHING) to[i] = own[i] + own[FEATURES + i] + own[2 * FEATURES + i];
  }
};

// Three warps take finished tiles: a thread has eight features of every sixth token.
template <typename T, int KIND, bool BACKWARD>
__device__ __forceinline__ void finish_all(const Epilogue<T> &to, SharedPlaces shared, char *memory, int thread) {
  constexpr int ROWS = FINISHING / 16;
  const Tiles &tiles = to.tiles;
  const int chunk = thread % 16, row = thread / 16;
  const char *tile = memory + TILE_AT + chunk / 8 * (TILE_BYTES / MULTIPLYING);
  const FinishingPlaces<T> places{reinterpret_cast<Pack<T, 8> *>(memory + RING_AT),
                                  reinterpret_cast<float *>(memory + SUMS_AT), thread};
  int turn = 0;
  for (int index = first_tile(); index < tiles.count(); index += tiles_apart(), turn ^= 1) {
    const int2 at = tiles.at(index);
    const int first = at.x + int(block_of_cluster()) * FEATURES, feature = first + 8 * chunk;
    const int end = feature < tiles.features ? min(TOKENS, tiles.tokens - at.y) : 0;
    const int64_t base = int64_t(at.y) * tiles.features + feature;
    float bias[8] = {}, sums[8] = {};
    if (end && to.bias) load<T, 8>(to.bias + feature, bias);
    const auto copy = [&](int place, int token) {
      if (token < end) copy_ahead<T, 8>(places.slot(place), to.before + base + int64_t(token) * tiles.features);
      __pipeline_commit();
    };
    // What the forward kept in `before` is on its way while the tile is made.
    if constexpr (BACKWARD)
#pragma unroll
      for (int place = 0; place < RING; place++) copy(place, row + ROWS * place);
    barrier_wait(shared.tile_there(), turn);
    int place = 0;
#pragma unroll 2
    for (int token = row; token < end; token += ROWS, place = (place + 1) % RING) {
      const int64_t here = base + int64_t(token) * tiles.features;
      const Pack<T, 8> made = fetch<T, 8>(reinterpret_cast<const T *>(tile + token * 128 + ((chunk % 8 ^ token % 8) << 4)));
      float values[8];
      unpack<T, 8>(made, values);
      if constexpr (BACKWARD) {
        float arguments[8];
        __pipeline_wait_prior(RING - 1);
        load<T, 8>(places.slot(place)->at, arguments);
        copy(place, token + ROWS * RING);
#pragma unroll
        for (int j = 0; j < 8; j++) values[j] *= curve<KIND>(arguments[j] + bias[j]).y;
        round_to<T, 8>(values);
#pragma unroll
        for (int j = 0; j < 8; j++) sums[j] += values[j];
      } else {
#pragma unroll
        for (int j = 0; j < 8; j++) values[j] = curve<KIND>(values[j] + bias[j]).x;
        put(to.before + here, made);
      }
      Pack<T, 8> packed;
#pragma unroll
      for (int j = 0; j < 8; j++) packed.at[j] = narrow<T>(values[j]);
      put(to.out + here, packed);
    }
    barrier_arrive(shared.tile_taken());
    if constexpr (BACKWARD)
      if (to.partials)
        places.add_up(sums, turn, to.partials + int64_t(at.y / TOKENS) * tiles.features + first, tiles.features - first);
  }
}

template <typename T, int KIND, bool BACKWARD>
__global__ void __launch_bounds__(THREADS, 1)
    linear_activation(const __grid_constant__ CUtensorMap left, const __grid_constant__ CUtensorMap right, const Epilogue<T> to) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char unaligned[];
  char *memory = unaligned + (1024 - shared_address(unaligned) % 1024) % 1024;
  const SharedPlaces shared{shared_address(memory)};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; stage++) {
      barrier_init(shared.full(stage), 1);
      barrier_init(shared.empty(stage), BLOCKS * MULTIPLYING * 4);
    }
    barrier_init(shared.tile_there(), MULTIPLYING * 4);
    barrier_init(shared.tile_taken(), FINISHING);
  }
  cluster_sync();
  constexpr int FIRST_FINISHING = 128 * MULTIPLYING;
  const int thread = threadIdx.x;
  // So that the compiler knows it to be one for a warp.
  const int group = __shfl_sync(~0u, thread / 128, 0);
  if (thread < FIRST_FINISHING) multiply_all<T, BACKWARD>(to.tiles, shared, group);
  else if (thread < FIRST_FINISHING + FINISHING) finish_all<T, KIND, BACKWARD>(to, shared, memory, thread - FIRST_FINISHING);
  else if (thread == FIRST_FINISHING + FINISHING) fetch_all<BACKWARD>(left, right, to.tiles, shared);
  // A block must not end while the other still writes into it.
  __syncwarp();
  cluster_sync();
#else
  __trap();   // `takes` says no
#endif
}

namespace {

// 0 where there is no such device.
int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  if (cudaGetDevice(&device) != cudaSuccess || cudaDeviceGetAttribute(&value, which, device) != cudaSuccess) return 0;
  return value;
}

// Clusters that the device has room for at once.
int places() { return attribute(cudaDevAttrMultiProcessorCount) / BLOCKS; }

// The driver's function; null where there is none.
decltype(&cuTensorMapEncodeTiled) encoder() {
  static const auto found = [] {
    void *function = nullptr;
    cudaDriverEntryPointQueryResult result;
    const cudaError_t rc = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result);
    return rc == cudaSuccess && result == cudaDriverEntryPointSuccess ? decltype(&cuTensorMapEncodeTiled)(function) : nullptr;
  }();
  return found;
}

// [rows, columns] of `at`, numbers of 16 bits, in boxes of `box_rows` × 64.
bool describe(CUtensorMap &map, int format, const void *at, int64_t rows, int64_t columns, unsigned box_rows) {
  const cuuint64_t sizes[2] = {cuuint64_t(columns), cuuint64_t(rows)}, strides[1] = {cuuint64_t(columns) * 2};
  const cuuint32_t box[2] = {64, box_rows}, apart[2] = {1, 1};
  const auto encode = encoder();
  return encode && encode(&map, format == BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2,
                          const_cast<void *>(at), sizes, strides, box, apart, CU_TENSOR_MAP_INTERLEAVE_NONE,
                          CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                          CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <typename T, int KIND, bool BACKWARD>
int start(void *stream, const SftLinearActivation &of, float *partials) {
  const Tiles tiles{int(of.features), int(of.tokens), int(of.depth)};
  const Epilogue<T> to{tiles, (const T *)of.bias, (T *)of.before, (T *)of.out, partials};
  CUtensorMap left, right;
  const bool described = (BACKWARD ? describe(left, of.format, of.weight, of.depth, of.features, DEPTH)
                                   : describe(left, of.format, of.weight, of.features, of.depth, FEATURES)) &&
                         describe(right, of.format, of.input, of.tokens, of.depth, TOKENS / BLOCKS);
  if (!described) return REFUSED;
  const auto kernel = linear_activation<T, KIND, BACKWARD>;
  const cudaError_t rc = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_BYTES);
  if (rc != cudaSuccess) return rc;
  const int clusters = min(places(), tiles.count());
  cudaLaunchAttribute cluster;
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = BLOCKS, cluster.val.clusterDim.y = 1, cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(clusters * BLOCKS);
  config.blockDim = dim3(THREADS);
  config.dynamicSmemBytes = SHARED_BYTES;
  config.stream = cudaStream_t(stream);
  config.attrs = &cluster, config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, left, right, to);
}

} // namespace
} // namespace sft

#define SFT_ON_PLAIN_KIND(kind, ...)                                                                                   \
  switch (kind) {                                                                                                      \
  case sft::GELU_TANH: { constexpr int K = sft::GELU_TANH; __VA_ARGS__; } break;                                       \
  case sft::GELU_ERF: { constexpr int K = sft::GELU_ERF; __VA_ARGS__; } break;                                         \
  case sft::RELU: { constexpr int K = sft::RELU; __VA_ARGS__; } break;                                                 \
  case sft::SQUARED_RELU: { constexpr int K = sft::SQUARED_RELU; __VA_ARGS__; } break;                                 \
  default: return sft::REFUSED;                                                                                        \
  }
#define SFT_ON_HALF(format, ...)                                                                                       \
  switch (format) {                                                                                                    \
  case sft::BF16: { using T = sft::bf16; __VA_ARGS__; } break;                                                         \
  case sft::F16: { using T = sft::f16; __VA_ARGS__; } break;                                                           \
  default: return sft::REFUSED;                                                                                        \
  }

// Whether the two functions below have a form for these, and one that pays: with fewer than two tiles for each place, many
// multiprocessors would have none at the end. `before` and `out` are not looked at, and may be null here: for the
// others they begin at multiples of 16 bytes.
extern "C" int sft_linear_activation_takes(const SftLinearActivation *of) {
#if __CUDA_ARCH_LIST__ == 900
  const sft::Tiles tiles{int(of->features), int(of->tokens), int(of->depth)};
  return of->format != sft::F32 && !sft::gated(of->kind) && of->depth % 8 == 0 && of->features % 8 == 0 && of->depth > 0 &&
         sft::all_aligned(of->input, of->weight, of->bias) && tiles.count() >= 2 * sft::places() &&
         sft::attribute(cudaDevAttrComputeCapabilityMajor) == 9 && sft::encoder();
#else
  return 0;
#endif
}

// before = input·weightᵀ, rounded to the format; out = activation(before + bias).
extern "C" int sft_linear_activation_forward(void *stream, const SftLinearActivation *of) {
  SFT_ON_HALF(of->format, SFT_ON_PLAIN_KIND(of->kind, return (sft::start<T, K, false>(stream, *of, nullptr))));
  return sft::REFUSED;
}

// out = input·weight times the activation's derivative at before + bias; its column sums are added to d_bias, if that is
// given (workspace: sft_column_workspace of out's shape).
extern "C" int sft_linear_activation_backward(void *stream, const SftLinearActivation *of, float *workspace, float *d_bias) {
  float *partials = d_bias ? workspace : nullptr;
  int rc = sft::REFUSED;
  SFT_ON_HALF(of->format, SFT_ON_PLAIN_KIND(of->kind, rc = (sft::start<T, K, true>(stream, *of, partials))));
  if (rc || !d_bias) return rc;
  return sft_add_partials(stream, workspace, sft::ceil_div(of->tokens, sft::TOKENS), of->features, d_bias, nullptr, nullptr);
}

// What Hopper's tensor cores need: barriers in shared memory, tiles fetched by the TMA, products of a warpgroup.
//
// All of it is NVIDIA's PTX ISA 8: mbarrier, cp.async.bulk.tensor, wgmma, stmatrix.
#pragma once

#include "common.cuh"
#include <cuda.h>
#include <type_traits>

namespace sft {

__device__ __forceinline__ uint32_t shared_address(const void *at) { return uint32_t(__cvta_generic_to_shared(at)); }

// --- Barriers: a phase ends when all arrivals and all bytes announced have come; its parity is waited for.

__device__ __forceinline__ void barrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

__device__ __forceinline__ void barrier_wait(uint32_t barrier, int parity) {
  asm volatile("{\n.reg .pred done;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
               "@done bra ended;\nbra again;\nended:\n}\n" ::"r"(barrier), "r"(parity) : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// The same barrier of a block of the cluster. It orders nothing for that block: what it tells is that this warp's products
// have read a tile, and the next tile comes by the TMA. (With `.release.cluster` the compiler puts a fence of the whole GPU
// before it, 700 cycles.)
__device__ __forceinline__ void barrier_arrive_at(uint32_t barrier, uint32_t block) {
  asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
               "mbarrier.arrive.shared::cluster.b64 _, [there];\n}\n" ::"r"(barrier), "r"(block) : "memory");
}

__device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ uint32_t block_of_cluster() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Barriers made before it are seen by the whole cluster after it.
__device__ __forceinline__ void cluster_sync() {
  asm volatile("fence.mbarrier_init.release.cluster;\nbarrier.cluster.arrive.release.aligned;\n"
               "barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// --- Tiles: boxes of a tensor whose first element is at `row`, `column`; what lies outside the tensor comes as zeros.

__device__ __forceinline__ void fetch_tile(uint32_t to, const CUtensorMap &map, int column, int row, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
               "l"(&map), "r"(column), "r"(row), "r"(barrier)
               : "memory");
}

// To the same place of every block in `blocks`, whose own barriers hear of it.
__device__ __forceinline__ void fetch_tile_for(uint32_t to, const CUtensorMap &map, int column, int row, uint32_t barrier,
                                               uint16_t blocks) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
               "[%1, {%2, %3}], [%4], %5;" ::"r"(to),
               "l"(&map), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
               : "memory");
}

// A matrix in shared memory as wgmma takes it: rows of 128 bytes, swizzled by 128, eight rows after eight rows. Bits 0 to 13
// are the address / 16, 16 to 29 a distance that this form does not use, 32 to 45 that of eight rows / 16, 62 and 63 the
// swizzle (1: 128 bytes).
__device__ __forceinline__ uint64_t matrix_of_rows(uint32_t at) {
  return uint64_t((at & 0x3FFFF) >> 4) | uint64_t(1) << 16 | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
}

// --- Products.

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_wait() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }
// Keeps the compiler from touching sums before the products that make them have been waited for.
__device__ __forceinline__ void products_are_there(float (&sums)[128]) {
#pragma unroll
  for (int i = 0; i < 128; i++) asm volatile("" : "+f"(sums[i])::"memory");
}

#define SFT_FOUR(s, i) "+f"(s[i]), "+f"(s[i + 1]), "+f"(s[i + 2]), "+f"(s[i + 3])
#define SFT_EIGHT(s, i) SFT_FOUR(s, i), SFT_FOUR(s, i + 4)
#define SFT_32(s, i) SFT_EIGHT(s, i), SFT_EIGHT(s, i + 8), SFT_EIGHT(s, i + 16), SFT_EIGHT(s, i + 24)
#define SFT_PRODUCT(FORMAT)                                                                                            \
  asm volatile("{\nwgmma.mma_async.sync.aligned.m64n256k16.f32." FORMAT "." FORMAT " {"                                   \
               "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,"    \
               "%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,"  \
               "%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,"  \
               "%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,"     \
               "%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,"  \
               "%121,%122,%123,%124,%125,%126,%127}, %128, %129, 1, 1, 1, %130, 0;\n}\n"                            \
               : SFT_32(sums, 0), SFT_32(sums, 32), SFT_32(sums, 64), SFT_32(sums, 96)                                 \
                                        : "l"(left), "l"(right), "n"(LEFT_IS_TRANSPOSED))

// sums [64, 256] += left [64, 16]·right [256, 16]ᵀ; a transposed left lies as [16, 64].
// Thread t has of every 8 columns j the rows r = 16·(t / 32) + t % 32 / 4 and r + 8: sums[4j] and [4j + 1] of row r, columns
// 8j + 2·(t % 4) and one more; [4j + 2] and [4j + 3] of row r + 8.
template <typename T, int LEFT_IS_TRANSPOSED>
__device__ __forceinline__ void add_product(float (&sums)[128], uint64_t left, uint64_t right) {
  if constexpr (std::is_same_v<T, bf16>) SFT_PRODUCT("bf16");
  else SFT_PRODUCT("f16");
}
#undef SFT_PRODUCT
#undef SFT_32
#undef SFT_EIGHT
#undef SFT_FOUR

__device__ __forceinline__ uint32_t pack_two(bf16, float first, float second) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(first, second);
  return reinterpret_cast<const uint32_t &>(both);
}
__device__ __forceinline__ uint32_t pack_two(f16, float first, float second) {
  const __half2 both = __floats2half2_rn(first, second);
  return reinterpret_cast<const uint32_t &>(both);
}

// Stores four 8 × 8 matrices of 16-bit numbers transposed: thread t gives the address of row t % 8 of matrix t / 8, which
// becomes that column.
__device__ __forceinline__ void store_transposed(uint32_t row, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

} // namespace sft

// The functions of one number that the MLP's activations are made of, with their derivatives.
#pragma once

#include "common.cuh"

namespace sft {

// kernels/activation.rs's kinds, in its order.
enum ActivationKind : int { GELU_TANH, GELU_ERF, RELU, SQUARED_RELU, GEGLU, SWIGLU, REGLU };

// 1 / (1 + 2^x).
__device__ __forceinline__ float gate_of(float x) {
  float power, gate;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(gate) : "f"(1.f + power));
  return gate;
}

constexpr float LOG2_E = 1.4426950408889634f;

// The function of one number and its derivative; gated kinds name the function of their gate.
template <int KIND> __device__ __forceinline__ float2 curve(float x) {
  if constexpr (KIND == GELU_TANH || KIND == GEGLU) {
    // (1 + tanh u)/2 = sigmoid(2u), so GELU is x·sigmoid(x·(a + b·x²)) with a = 2·√(2/π), b = 0.044715·a.
    constexpr float A = 1.5957691216057308f, B = 0.044715f * A;
    const float square = x * x;
    const float gate = gate_of(x * fmaf(-LOG2_E * B, square, -LOG2_E * A));
    return make_float2(x * gate, fmaf(x * gate * (1.f - gate), fmaf(3.f * B, square, A), gate));
  } else if constexpr (KIND == GELU_ERF) {
    const float share = 0.5f * erfcf(-0.7071067811865476f * x);
    return make_float2(x * share, fmaf(x, 0.3989422804014327f * __expf(-0.5f * x * x), share));
  } else if constexpr (KIND == RELU || KIND == REGLU) {
    return make_float2(fmaxf(x, 0.f), x > 0.f ? 1.f : 0.f);
  } else if constexpr (KIND == SQUARED_RELU) {
    const float positive = fmaxf(x, 0.f);
    return make_float2(positive * positive, positive + positive);
  } else {
    const float gate = gate_of(-LOG2_E * x);
    return make_float2(x * gate, fmaf(x * gate, 1.f - gate, gate));
  }
}

__host__ __device__ constexpr bool gated(int kind) { return kind >= GEGLU; }

} // namespace sft

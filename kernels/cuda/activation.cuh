// The activations of gated feed-forwards.
#pragma once

#include "kernels/core/backend.h"
#include "kernels/cuda/platform.cuh"

namespace kvasir::cuda {

template <ActivationKind kKind>
__device__ __forceinline__ float Active(float x) {
  if constexpr (kKind == ActivationKind::kSilu) {
    return x / (1.0f + Exp(-x));
  } else if constexpr (kKind == ActivationKind::kGeluTanh) {
    constexpr float kSqrt2OverPi = 0.7978845608028654f;
    const float y = kSqrt2OverPi * Fma(0.044715f * x * x, x, x);
    return x / (1.0f + Exp(-2.0f * y));
  } else {
    constexpr float kSqrtHalf = 0.7071067811865476f;
    return 0.5f * x * Erfc(-x * kSqrtHalf);
  }
}

__device__ __forceinline__ float Active(ActivationKind kind, float x) {
  if (kind == ActivationKind::kSilu) return Active<ActivationKind::kSilu>(x);
  if (kind == ActivationKind::kGeluTanh) return Active<ActivationKind::kGeluTanh>(x);
  return Active<ActivationKind::kGeluErf>(x);
}

}  // namespace kvasir::cuda

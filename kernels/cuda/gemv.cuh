// Backend::MatMul for few rows: every weight is read once for up to eight of them, in fp32.
#pragma once

#include "kernels/core/tensor_view.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/weight_layout.h"

namespace kvasir::cuda {

struct GemvArgs {
  TensorView x;  // [T][K]
  WeightLayout layout;
  const void* weight = nullptr;
  const float* bias = nullptr;  // [N] or null
  bool accumulate = false;
  TensorView out;  // [T][N]
};

// Rows a pass over the weights takes; any T is right, in so many passes.
inline constexpr int kGemvRows = 8;

Status Gemv(Stream stream, const GemvArgs& args);

}  // namespace kvasir::cuda

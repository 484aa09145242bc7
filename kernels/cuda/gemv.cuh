// Backend::MatMul for few rows: every weight is read once for up to eight of them, in fp32.
#pragma once

#include <cstdint>

#include "kernels/core/tensor_view.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/weight_layout.h"

namespace kvasir::cuda {

struct GemvArgs {
  TensorView x;  // [T][K], whole quads
  WeightLayout layout;
  const void* weight = nullptr;
  const float* bias = nullptr;  // [N] or null
  bool accumulate = false;
  TensorView out;  // [T][N]
};

// Every row is so many groups of four values, each at a multiple of 16 bytes: what the kernel
// loads.
inline bool IsWholeQuads(const TensorView& x) {
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.row_stride % 4 == 0 && x.cols % 4 == 0;
}

// Rows a pass over the weights takes; any T is right, in so many passes.
inline constexpr int kGemvRows = 8;

Status Gemv(Stream stream, const GemvArgs& args);

}  // namespace kvasir::cuda

// Products of few rows: every weight is read once for up to eight of them, in fp32. A launch takes
// several matrices at a time, the norm before them and the gate behind them with it: at decode a
// small model is bound by its launches.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/weight_layout.h"

namespace kvasir::cuda {

// One of several matrices over the same input.
struct GemvTarget {
  const WeightLayout* layout = nullptr;
  const void* weight = nullptr;
  const float* bias = nullptr;  // [N] or null
  TensorView out;               // [T][N]
};

// A norm over whole rows of the input.
struct GemvNorm {
  NormKind kind = NormKind::kRms;
  const float* weight = nullptr;  // [K]
  const float* bias = nullptr;    // [K] or null
  float eps = 0.0f;
};

// Every row is so many groups of four values, each at a multiple of 16 bytes: what the kernels
// load.
inline bool IsWholeQuads(const TensorView& x) {
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.row_stride % 4 == 0 && x.cols % 4 == 0;
}

// Rows a pass over the weights takes; any T is right, in so many passes.
inline constexpr int kGemvRows = 8;

// out = (accumulate ? out : 0) + x * weight^T + bias of each target. x [T][K]: whole quads.
Status Gemv(Stream stream, const TensorView& x, std::span<const GemvTarget> targets,
            bool accumulate);

// Whether normed rows of this shape fit a block's shared memory: few rows of whole quads.
bool FitsNormedGemv(const TensorView& x);
// The same of the normed rows, without accumulating.
Status NormedGemv(Stream stream, const TensorView& x, const GemvNorm& norm,
                  std::span<const GemvTarget> targets);

// Whether two matrices lie alike, so that a warp can take rows of both.
bool FitsGatedGemv(const WeightLayout& gate, const WeightLayout& up);
// out [T][F] = activation(h gate^T) * h up^T, h the normed rows.
struct GatedGemvArgs {
  const WeightLayout* layout = nullptr;  // of both
  const void* gate = nullptr;
  const void* up = nullptr;
  ActivationKind activation = ActivationKind::kSilu;
  TensorView out;
};
Status GatedGemv(Stream stream, const TensorView& x, const GemvNorm& norm,
                 const GatedGemvArgs& args);

}  // namespace kvasir::cuda

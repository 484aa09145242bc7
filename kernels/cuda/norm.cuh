// Backend::Norm on the card.
#pragma once

#include <cstdint>

#include "kernels/core/backend.h"
#include "kernels/cuda/device.h"

namespace kvasir::cuda {

struct NormArgs {
  NormKind kind = NormKind::kRms;
  TensorView x, out;  // [R][n * width]; may be the same
  int64_t width = 0;
  const float* weight = nullptr;  // [width]
  const float* bias = nullptr;    // [width] or null
  float eps = 0;
};

Status Norm(Stream stream, const NormArgs& args);
// Whole rows (width = x.cols), rounded to bf16 [R][stride], zeros behind the width; args.out is not
// used. stride: a multiple of 4.
Status NormToBf16(Stream stream, const NormArgs& args, uint16_t* out, int64_t stride);

}  // namespace kvasir::cuda

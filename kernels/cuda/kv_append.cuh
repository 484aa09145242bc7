// Backend::AppendKv on the card: rows of a step are turned and put into their slots.
#pragma once

#include "kernels/core/tensor_view.h"
#include "kernels/cuda/kv_pool.h"
#include "kernels/cuda/rotations.h"

namespace kvasir::cuda {

struct AppendArgs {
  const CudaKvPool* pool = nullptr;
  int32_t layer = 0;
  TensorView k, v;                     // [T][G*D]
  const int32_t* slots = nullptr;      // [T], device
  const int32_t* positions = nullptr;  // [T] local, device
  RotationView rotations;
};

Status AppendKv(Stream stream, const AppendArgs& args);

}  // namespace kvasir::cuda

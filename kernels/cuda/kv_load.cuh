// Backend::LoadKv and ReadKv on the card: stored planes are dequantised, turned to local positions
// and scattered over blocks in one kernel, and read back for diagnostics.
#pragma once

#include "kernels/cuda/kv_pool.h"
#include "kernels/cuda/rotations.h"

namespace kvasir::cuda {

struct LoadArgs {
  const CudaKvPool* pool = nullptr;
  int32_t layer = 0;
  KvLayerPlanes planes;             // its pointers in device memory
  const int32_t* blocks = nullptr;  // device
  RotationView rotations;
};
Status LoadKv(Stream stream, const LoadArgs& args);

struct ReadArgs {
  const CudaKvPool* pool = nullptr;
  int32_t layer = 0, tokens = 0;
  const int32_t* blocks = nullptr;   // device
  float *k = nullptr, *v = nullptr;  // device, [tokens][G*D]
};
Status ReadKv(Stream stream, const ReadArgs& args);

}  // namespace kvasir::cuda

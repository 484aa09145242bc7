// The functions that the CUDA shared object exports, by name and type.
#pragma once

#include <memory>

#include "kernels/cuda/cuda_backend.h"

namespace kvasir {

// Raised whenever a type that crosses the boundary changes: a stale object is refused.
inline constexpr int kCudaAbi = 2;

using CudaAbiFunction = int (*)();
using CudaCreateFunction = void (*)(const CudaOptions* options,
                                    Result<std::unique_ptr<Backend>>* result);

}  // namespace kvasir

// LoadCudaBackend: the CUDA backend from its shared object, opened at the first call and kept open.
// A program that links this needs neither the CUDA libraries nor a driver to start.
//
// The object is libkvasir_kernels_cuda.so, looked for in $KVASIR_CUDA_LIBRARY (a file; nothing else
// is tried then), beside the program, and where the system looks. Thread-safe.
#pragma once

#include <memory>

#include "kernels/cuda/cuda_backend.h"

namespace kvasir {

// With what to do about it: kNotFound where there is no shared object, driver or card, kUnavailable
// where one of them cannot be used (another build's object, an old driver or card).
Result<std::unique_ptr<Backend>> LoadCudaBackend(const CudaOptions& options);

}  // namespace kvasir

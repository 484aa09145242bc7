// The CUDA backend: Backend on one NVIDIA card of compute capability 8.0 or newer. Nothing here
// needs CUDA's headers.
//
// KV pools are fp32, bf16 or int8.
//
// Operators queue work on one stream and return. Download, ReadKv and the end of a step wait for
// it; outside a step SaveKv and attention with wanted weights do, too. A step's integers go to the
// card in one copy, and steps like those before allocate nothing. Errors are kept (status()): after
// the first one operators do nothing and Download returns zeros.
#pragma once

#include <memory>

#include "kernels/core/backend.h"
#include "kernels/core/status.h"

namespace kvasir {

enum class CudaCompute : uint8_t {
  kF32,   // products and attention in fp32: for gates and tests
  kBf16,  // steps of more than eight rows and attention over bf16 and int8 pools on matrix units,
          // with fp32 sums; everything else in fp32
};

struct CudaOptions {
  CudaCompute compute = CudaCompute::kBf16;
  // Decode steps are recorded once for each size and launched as one graph. false: kernel by
  // kernel.
  bool graphs = true;
  // Kernels of a graph take their places while those before them end (programmatic dependent
  // launch), where compute capability is 9.0 or newer. false: one after the other.
  bool overlapped = true;
};

// With what to do about it: kNotFound if there is no driver or no card, kUnavailable if what there
// is cannot be used.
Result<std::unique_ptr<Backend>> CreateCudaBackend(const CudaOptions& options);

}  // namespace kvasir

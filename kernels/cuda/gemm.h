// Gemm: the library's product for many rows. On a card cuBLASLt; in the tests' emulation a plain
// loop. Used by one thread at a time.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/core/status.h"
#include "kernels/cuda/device.h"

namespace kvasir::cuda {

struct GemmArgs {
  const uint16_t* weight = nullptr;  // bf16 [n][k]
  const uint16_t* x = nullptr;       // bf16 [rows][k]
  int64_t n = 0, k = 0, rows = 0;    // k a multiple of 128
  bool accumulate = false;
  float* out = nullptr;  // [rows][out_stride], fp32 sums
  int64_t out_stride = 0;
};

class Gemm {
 public:
  virtual ~Gemm() = default;
  // out = (accumulate ? out : 0) + x * weight^T. A row's bits do not depend on the other rows, nor
  // on their number.
  virtual Status Multiply(Stream stream, const GemmArgs& args) = 0;
  // Chooses how products of weights bf16 [n][k], of which this is one, are computed for up to
  // `most_rows` rows. Multiply chooses for what it meets without; how never changes the bits.
  virtual Status Prepare(Stream stream, const uint16_t* weight, int64_t n, int64_t k,
                         int64_t most_rows) = 0;
};

Result<std::unique_ptr<Gemm>> CreateGemm();

}  // namespace kvasir::cuda

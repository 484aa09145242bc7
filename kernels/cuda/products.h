// Products: MatMul over packed weights, by whichever kernel fits the number of rows.
//
// kF32: everything in fp32, in passes of eight rows: for gates and tests. kBf16: up to eight rows
// as in kF32; more go through the library in bf16 with fp32 sums, so that a row's bits depend on
// whether its step has more than eight rows. Among steps with more they do not depend on how many
// (gemm_choice.h).
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/cuda/device_buffers.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemv.cuh"
#include "kernels/cuda/weight_layout.h"

namespace kvasir::cuda {

class CudaWeight final : public PackedWeight {
 public:
  // data: as Backend::Pack's, valid.
  static Result<std::unique_ptr<CudaWeight>> Create(DType dtype, const void* data, int64_t n,
                                                    int64_t k, Stream stream);
  ~CudaWeight() override { FreeDeviceMemory(data_); }
  const WeightLayout& layout() const { return layout_; }
  const void* data() const { return data_; }

 private:
  WeightLayout layout_;
  void* data_ = nullptr;
};

// How many outputs of a weight are multiplied in bf16 at a time, the last ones aside: all of a
// weight of bf16, of others as many as are dequantised together.
int64_t OutputsAtOnce(const WeightLayout& layout);

class Products {
 public:
  // gemm null = everything in fp32.
  Products(Stream stream, DeviceBuffers* buffers, std::unique_ptr<Gemm> gemm)
      : stream_(stream), buffers_(buffers), gemm_(std::move(gemm)) {}

  // As Backend's. Weights are CudaWeights.
  Status MatMul(const TensorView& x, const CudaWeight& weight, const float* bias, bool accumulate,
                const TensorView& out);
  Status MatMul(const NormedRows& in, std::span<const Projection> projections);
  Status FeedForward(const NormedRows& in, const FeedForwardWeights& weights, bool accumulate,
                     const TensorView& gate, const TensorView& up, const TensorView& out);

  // Backend::Prepare: how the library multiplies each shape of them, and the memory that takes.
  Status Prepare(std::span<const PackedWeight* const> weights, int64_t most_rows);

 private:
  bool IsInF32(int64_t rows) const { return gemm_ == nullptr || rows <= kGemvRows; }
  Status GateInF32(const NormedRows& in, const FeedForwardWeights& weights, const TensorView& gate,
                   const TensorView& up);
  Status MatMulInF32(const TensorView& x, std::span<const GemvTarget> targets, bool accumulate);
  Status NormedInBf16(const NormedRows& in, std::span<const GemvTarget> targets);
  // x: bf16 [rows][padded inputs of the target].
  Status MatMulInBf16(const uint16_t* x, int64_t rows, const GemvTarget& target, bool accumulate);
  Status MultiplyInBf16(const uint16_t* x, int64_t rows, const GemvTarget& target, bool accumulate);
  Result<Scratch> TakeBf16(int64_t rows, int64_t cols);
  // use(outputs [n][K] as bf16, the first one's index, n) for all of the weight's, in order.
  template <typename Use>
  Status ForEachPart(const WeightLayout& layout, const void* weight, const Use& use);
  Result<std::vector<Scratch>> TakeInputs(int64_t k, int64_t most_rows);

  Stream stream_;
  DeviceBuffers* buffers_;
  std::unique_ptr<Gemm> gemm_;
};

}  // namespace kvasir::cuda

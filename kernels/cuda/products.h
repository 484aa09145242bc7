// Products: MatMul over packed weights, by whichever kernel fits the number of rows.
//
// kF32: everything in fp32, in passes of eight rows: for gates and tests. kBf16: up to eight rows
// as in kF32; more go through the library in bf16 with fp32 sums, so that a row's bits depend on
// whether its step has more than eight rows. Among steps with more they do not depend on how many
// (gemm_choice.h).
#pragma once

#include <memory>

#include "kernels/core/backend.h"
#include "kernels/cuda/device_buffers.h"
#include "kernels/cuda/gemm.h"
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

class Products {
 public:
  // gemm null = everything in fp32.
  Products(Stream stream, DeviceBuffers* buffers, std::unique_ptr<Gemm> gemm)
      : stream_(stream), buffers_(buffers), gemm_(std::move(gemm)) {}

  Status MatMul(const TensorView& x, const CudaWeight& weight, const float* bias, bool accumulate,
                const TensorView& out);

 private:
  Status MatMulInF32(const TensorView& x, const CudaWeight& weight, const float* bias,
                     bool accumulate, const TensorView& out);
  Status MatMulInBf16(const TensorView& x, const CudaWeight& weight, bool accumulate,
                      const TensorView& out);

  Stream stream_;
  DeviceBuffers* buffers_;
  std::unique_ptr<Gemm> gemm_;
};

}  // namespace kvasir::cuda

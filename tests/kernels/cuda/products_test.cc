// What products of many rows need is there before the first of them (Backend::Prepare): nothing is
// tried and nothing allocated in a step.
#include "kernels/cuda/products.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/conformance_fixture.h"
#include "tests/kernels/cuda_emulation/device.h"
#include "tests/kernels/cuda_emulation/memory.h"
#include "tests/kernels/random_weights.h"

namespace kvasir {
namespace {

class CudaProducts : public testing::Test {
 protected:
  ~CudaProducts() override { emulation::LimitDeviceMemory(SIZE_MAX); }
  void Make(CudaCompute compute) { backend_ = std::move(*CreateCudaBackend({.compute = compute})); }
  std::unique_ptr<PackedWeight> Weight(DType dtype, int64_t n, int64_t k) {
    return std::move(*backend_->Pack(dtype, RandomWeights(dtype, n, k, random_).data(), n, k));
  }
  void Multiply(const PackedWeight& weight, int64_t rows) {
    Tensor x(*backend_, rows, weight.inputs(),
             Normal(static_cast<size_t>(rows * weight.inputs()), random_));
    Tensor out(*backend_, rows, weight.outputs());
    const emulation::DeviceCalls before = emulation::CallsSoFar();
    backend_->MatMul(x.view(), weight, nullptr, false, out.view());
    trials_ += emulation::CallsSoFar().trials - before.trials;
    allocations_ += emulation::CallsSoFar().allocations - before.allocations;
  }

  std::mt19937 random_{3};
  std::unique_ptr<Backend> backend_;
  size_t trials_ = 0, allocations_ = 0;  // of Multiply
};

TEST_F(CudaProducts, PreparedShapesFindAllThatTheyNeed) {
  Make(CudaCompute::kBf16);
  const auto quantised = Weight(DType::kQ4_0, 40, 256), alike = Weight(DType::kQ8_0, 40, 256);
  const auto plain = Weight(DType::kBF16, 24, 384);
  const PackedWeight* const weights[] = {quantised.get(), alike.get(), plain.get()};
  const size_t before = emulation::CallsSoFar().trials;
  ASSERT_TRUE(backend_->Prepare(weights, 40).ok());
  EXPECT_EQ(emulation::CallsSoFar().trials - before, 2u * 3);  // shapes x 16, 32, 64 rows
  ASSERT_TRUE(backend_->Prepare(weights, 40).ok());
  EXPECT_EQ(emulation::CallsSoFar().trials - before, 2u * 3);
  for (const PackedWeight* weight : weights) {
    for (const int64_t rows : {9, 16, 17, 31, 33, 40}) Multiply(*weight, rows);
  }
  EXPECT_EQ(trials_, 0u);
  EXPECT_EQ(allocations_, 0u);
  Multiply(*plain, 65);
  EXPECT_EQ(trials_, 1u);  // what nobody expected is tried when it is met
}

TEST_F(CudaProducts, NothingIsPreparedForFewRowsNorForFp32) {
  const emulation::DeviceCalls before = emulation::CallsSoFar();
  for (const CudaCompute compute : {CudaCompute::kBf16, CudaCompute::kF32}) {
    Make(compute);
    const auto weight = Weight(DType::kQ4_0, 40, 256);
    const PackedWeight* const weights[] = {weight.get()};
    ASSERT_TRUE(backend_->Prepare(weights, compute == CudaCompute::kF32 ? 100 : 8).ok());
  }
  EXPECT_EQ(emulation::CallsSoFar().trials, before.trials);
}

TEST_F(CudaProducts, NoMemoryForThemIsSaid) {
  Make(CudaCompute::kBf16);
  const auto weight = Weight(DType::kQ4_0, 40, 256);
  const PackedWeight* const weights[] = {weight.get()};
  emulation::LimitDeviceMemory(emulation::DeviceBytesInUse());
  EXPECT_EQ(backend_->Prepare(weights, 40).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(backend_->status().ok());
}

// 64 Mi values a part, and each begins as well as the whole.
TEST_F(CudaProducts, LargeWeightsAreMultipliedInParts) {
  using cuda::LayoutFor;
  using cuda::OutputsAtOnce;
  EXPECT_EQ(OutputsAtOnce(LayoutFor(DType::kQ4_0, 14336, 4096)), 14336);
  EXPECT_EQ(OutputsAtOnce(LayoutFor(DType::kQ4_0, 128256, 4096)), 16384);
  EXPECT_EQ(OutputsAtOnce(LayoutFor(DType::kQ6_K, 151936, 3584)) % 64, 0);
  EXPECT_EQ(OutputsAtOnce(LayoutFor(DType::kBF16, 128256, 4096)), 128256);
}

}  // namespace
}  // namespace kvasir

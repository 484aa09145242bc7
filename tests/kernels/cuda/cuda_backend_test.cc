// The CUDA backend's own promises, on the emulated card: products in bf16, every way in which
// weights are packed, and errors: no card, no memory, a card that is lost.
#include "kernels/cuda/cuda_backend.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/weight_layout.h"
#include "tests/kernels/conformance_fixture.h"
#include "tests/kernels/cuda_emulation/device.h"
#include "tests/kernels/cuda_emulation/memory.h"
#include "tests/kernels/cuda_emulation/platform.h"
#include "tests/kernels/random_weights.h"

namespace kvasir {
namespace {

std::unique_ptr<Backend> Make(CudaCompute compute) {
  auto backend = CreateCudaBackend({.compute = compute});
  KVASIR_CHECK(backend.ok());
  return std::move(*backend);
}

struct ProductCase {
  CudaCompute compute;
  DType dtype;
  int64_t n, k, rows;
  bool accumulate, bias;
};

// In fp32 a sum of K terms is off by K u sum |x w|; activations and weights rounded to bf16 put
// each term off by 2^-9 of itself, twice, and second order.
void ExpectProduct(const ProductCase& c, std::mt19937& random) {
  SCOPED_TRACE(testing::Message() << TraitsOf(c.dtype).name << " [" << c.n << "][" << c.k
                                  << "] rows " << c.rows);
  const auto n = static_cast<size_t>(c.n), k = static_cast<size_t>(c.k);
  const auto source = RandomWeights(c.dtype, c.n, c.k, random);
  std::vector<float> w(n * k);
  DequantizeRow(c.dtype, source.data(), w.size(), w.data());
  const auto x = Normal(static_cast<size_t>(c.rows) * k, random);
  const auto old = Normal(static_cast<size_t>(c.rows) * n, random), bias = Normal(n, random);
  const auto backend = Make(c.compute);
  auto packed = backend->Pack(c.dtype, source.data(), c.n, c.k);
  ASSERT_TRUE(packed.ok());
  Tensor in(*backend, c.rows, c.k, x), b(*backend, 1, c.n, bias), out(*backend, c.rows, c.n, 3);
  if (c.accumulate) {
    for (int64_t row = 0; row < c.rows; ++row) {
      std::copy_n(old.begin() + row * c.n, c.n, out.host.begin() + row * (c.n + 3));
    }
    out.Push();
  }
  backend->MatMul(in.view(), **packed, c.bias ? b.view().f32() : nullptr, c.accumulate, out.view());
  out.Pull();
  ASSERT_TRUE(backend->status().ok()) << backend->status().message();
  const bool rounds = c.compute == CudaCompute::kBf16 && c.rows > 8;
  for (size_t row = 0; row < static_cast<size_t>(c.rows); ++row) {
    for (size_t o = 0; o < n; ++o) {
      double want = (c.accumulate ? old[row * n + o] : 0.0) + (c.bias ? bias[o] : 0.0);
      double magnitude = std::abs(old[row * n + o]) + std::abs(bias[o]);
      for (size_t i = 0; i < k; ++i) {
        const double term = double{x[row * k + i]} * w[o * k + i];
        want += term;
        magnitude += std::abs(term);
      }
      const double relative =
          static_cast<double>(c.k + 4) * kUnit + (rounds ? 2 * 0x1p-9 * 1.01 : 0);
      ASSERT_NEAR(out.at(static_cast<int64_t>(row), static_cast<int64_t>(o)), want,
                  relative * magnitude)
          << "row " << row << " output " << o;
    }
  }
}

TEST(CudaBackend, ProductsOfEveryTypeAndPacking) {
  std::mt19937 random(5);
  for (const DType dtype : kWeightTypes) {
    // Narrow, wide, and wide with a part of the last chunk missing.
    for (const int64_t k : {int64_t{256}, int64_t{1024}, int64_t{3840}}) {
      const auto rows = static_cast<int64_t>(1 + random() % 11);
      const CudaCompute compute = random() % 2 == 0 ? CudaCompute::kF32 : CudaCompute::kBf16;
      ExpectProduct({compute, dtype, 7, k, rows, random() % 2 == 0, random() % 2 == 0}, random);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CudaBackend, ProductsOfManyRowsInBf16) {
  std::mt19937 random(6);
  for (const DType dtype : {DType::kBF16, DType::kQ4_1, DType::kF32}) {
    for (const bool accumulate : {false, true}) {
      ExpectProduct({CudaCompute::kBf16, dtype, 19, 576, 21, accumulate, true}, random);
      if (HasFatalFailure()) return;
    }
  }
}

// Sums of a row's weights would overflow.
TEST(CudaBackend, VocabulariesBeyondItsSumsAreNotSampled) {
  const auto backend = Make(CudaCompute::kBf16);
  EXPECT_TRUE(backend->CanSample(262144));
  EXPECT_TRUE(backend->CanSample(int64_t{1} << 22));
  EXPECT_FALSE(backend->CanSample((int64_t{1} << 22) + 1));
}

TEST(CudaWeights, PackingIsWideWhereItPadsLittle) {
  using cuda::LayoutFor;
  EXPECT_EQ(LayoutFor(DType::kQ4_0, 1, 4096).slices, 8);
  EXPECT_EQ(LayoutFor(DType::kQ4_0, 1, 576).slices, 1);
  EXPECT_EQ(LayoutFor(DType::kQ4_0, 1, 576).padded_inputs(), 640);
  EXPECT_EQ(LayoutFor(DType::kQ8_0, 1, 1536).slices, 4);
  EXPECT_EQ(LayoutFor(DType::kBF16, 1, 14336).padded_inputs(), 14336);
  // Bytes a weight: the file's, where rows are whole chunks.
  EXPECT_EQ(LayoutFor(DType::kQ4_0, 256, 4096).bytes() * 32, size_t{256} * 4096 * 18);
  EXPECT_EQ(LayoutFor(DType::kQ8_0, 256, 4096).bytes() * 32, size_t{256} * 4096 * 34);
}

class CudaErrors : public testing::Test {
 protected:
  ~CudaErrors() override {
    emulation::MissDevice(Status::Ok());
    emulation::LoseDevice(Status::Ok());
    emulation::LimitDeviceMemory(SIZE_MAX);
    EXPECT_TRUE(emulation::TakeLaunchFailure().ok());
  }
};

TEST_F(CudaErrors, NoDeviceIsSaidAtCreation) {
  emulation::MissDevice(Unavailable("no NVIDIA driver is installed"));
  const Status status = CreateCudaBackend({}).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("driver"), std::string::npos);
}

TEST_F(CudaErrors, NoMemoryLeavesTheBackendAsItWas) {
  const auto backend = Make(CudaCompute::kF32);
  emulation::LimitDeviceMemory(emulation::DeviceBytesInUse() + (size_t{64} << 10));
  EXPECT_EQ(backend->Allocate(size_t{1} << 20).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(backend->CreateKvPool({1, 8, 128, DType::kBF16}, 100).status().code(),
            StatusCode::kResourceExhausted);
  const std::vector<float> weights(size_t{256} * 256, 1.0f);
  EXPECT_EQ(backend->Pack(DType::kF32, weights.data(), 256, 256).status().code(),
            StatusCode::kResourceExhausted);
  EXPECT_TRUE(backend->status().ok());
  Tensor fits(*backend, 1, 4, {1, 2, 3, 4});
  EXPECT_EQ(fits.Pull(), (std::vector<float>{1, 2, 3, 4}));
}

TEST_F(CudaErrors, ALostCardIsKeptAndNothingCrashes) {
  const auto backend = Make(CudaCompute::kBf16);
  Tensor x(*backend, 2, 4, {1, 2, 3, 4, 5, 6, 7, 8}), weight(*backend, 1, 4, {1, 1, 1, 1});
  auto pool = std::move(*backend->CreateKvPool({1, 1, 4, DType::kF32}, 2));
  emulation::LoseDevice(Internal("unspecified launch failure"));
  backend->Upload(x.host.data(), x.view().data, 4);
  EXPECT_NE(backend->status().message().find("unspecified"), std::string::npos);
  emulation::LoseDevice(Status::Ok());  // the first error stays
  backend->Norm(NormKind::kRms, x.view(), 4, weight.view().f32(), nullptr, 1e-5f, x.view());
  const std::vector<float> k = {1, 2, 3, 4};
  const Status loaded =
      backend->LoadKv(*pool, 0, {DType::kF32, 1, k.data(), nullptr, k.data(), nullptr},
                      std::vector<int32_t>{0}, nullptr);
  EXPECT_EQ(loaded.code(), StatusCode::kInternal);
  EXPECT_EQ(x.Pull(), std::vector<float>(8, 0.0f));
  EXPECT_EQ(backend->status().code(), StatusCode::kInternal);
  EXPECT_FALSE(backend->Allocate(4).ok());
  EXPECT_FALSE(backend->CreateKvPool({1, 1, 4, DType::kF32}, 2).ok());
}

TEST_F(CudaErrors, AFailedLaunchIsKept) {
  const auto backend = Make(CudaCompute::kF32);
  Tensor x(*backend, 1, 4, {1, 2, 3, 4}), y(*backend, 1, 4, {1, 1, 1, 1});
  emulation::FailNextLaunch(Internal("too many resources requested"));
  backend->Add(x.view(), y.view());
  EXPECT_NE(backend->status().message().find("too many"), std::string::npos);
}

TEST_F(CudaErrors, AllMemoryIsGivenBack) {
  const size_t before = emulation::DeviceBytesInUse();
  {
    const auto backend = Make(CudaCompute::kBf16);
    const auto rope = RopeTable::Plain(RopePairing::kHalfSplit, 64, 10000);
    auto pool = std::move(*backend->CreateKvPool({1, 1, 64, DType::kBF16}, 4));
    const std::vector<float> k(20 * 64, 1.0f);
    EXPECT_TRUE(backend
                    ->LoadKv(*pool, 0, {DType::kF32, 20, k.data(), nullptr, k.data(), nullptr},
                             std::vector<int32_t>{0, 1}, &rope)
                    .ok());
    EXPECT_GT(emulation::DeviceBytesInUse(), before);
  }
  EXPECT_EQ(emulation::DeviceBytesInUse(), before);
}

}  // namespace
}  // namespace kvasir

#include "kernels/cpu/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "tests/kernels/packed_matrix.h"

namespace kvasir {
namespace {

TensorView View(std::vector<float>& values, int64_t rows, int64_t cols, int64_t stride) {
  return {values.data(), DType::kF32, rows, cols, stride};
}

// Checks out = old + x w^T + bias against double. A sum of K products differs from the exact one
// by at most K u sum|x w| (u = 2^-24, to first order), bias and old value add two roundings of
// what is no larger than the sum of all magnitudes.
void ExpectProduct(const PackedMatrix& w, const TensorView& x, const float* bias,
                   const TensorView* old, const TensorView& out) {
  constexpr double kUnit = 0x1p-24;
  for (int64_t row = 0; row < x.rows; ++row) {
    for (int64_t n = 0; n < w.n; ++n) {
      double sum = 0, magnitude = 0;
      const auto add = [&](double value) {
        sum += value;
        magnitude += std::abs(value);
      };
      for (int64_t k = 0; k < w.k; ++k) {
        add(double{x.f32_row(row)[k]} * double{w.values[static_cast<size_t>(n * w.k + k)]});
      }
      if (bias != nullptr) add(bias[n]);
      if (old != nullptr) add(old->f32_row(row)[n]);
      const double tolerance = static_cast<double>(w.k + 3) * kUnit * magnitude * 1.01;
      ASSERT_NEAR(out.f32_row(row)[n], sum, tolerance) << "row " << row << " output " << n;
    }
  }
}

class MatMulTest : public testing::TestWithParam<Isa> {
 protected:
  MatMulTest() : threads_(2), multiplier_(Make(threads_)) {}
  MatrixMultiplier Make(ThreadPool& threads) {
    auto multiplier = MatrixMultiplier::Create(MatMulOpsFor(GetParam()), threads);
    KVASIR_CHECK(multiplier.ok());
    return std::move(*multiplier);
  }

  WeightArena arena_;
  ThreadPool threads_;
  MatrixMultiplier multiplier_;
  std::mt19937 random_{7};
};

TEST_P(MatMulTest, ByHand) {
  // Two outputs of three inputs: (1,2,3) and (-1,0,0.5); x = (2,1,4) -> 16 and 0.
  const std::vector<float> source = {1, 2, 3, -1, 0, 0.5f};
  auto packed = PackMatrix(arena_, threads_, DType::kF32, source.data(), 2, 3);
  ASSERT_TRUE(packed.ok());
  std::vector<float> x = {2, 1, 4}, out = {100, 200};
  const float bias[] = {0.25f, -0.25f};
  multiplier_.MatMul(F32View(x.data(), 1, 3), **packed, nullptr, false, F32View(out.data(), 1, 2));
  EXPECT_EQ(out, (std::vector<float>{16, 0}));
  multiplier_.MatMul(F32View(x.data(), 1, 3), **packed, bias, true, F32View(out.data(), 1, 2));
  EXPECT_EQ(out, (std::vector<float>{32.25f, -0.25f}));
}

TEST_P(MatMulTest, EveryTypeAgreesWithDouble) {
  for (DType dtype : kWeightTypes) {
    const int64_t unit = TraitsOf(dtype).block_elements;
    for (int64_t rows : {1, 2, 3, 5, 8, 13, 29}) {
      const int64_t n = 1 + static_cast<int64_t>(random_() % 90);
      const int64_t k = unit == 1 ? 1 + static_cast<int64_t>(random_() % 100)
                                  : unit * (1 + static_cast<int64_t>(random_() % 4));
      const PackedMatrix w = RandomMatrix(arena_, threads_, dtype, n, k, random_);
      std::vector<float> x = RandomFloats(static_cast<size_t>(rows * k), random_);
      std::vector<float> out(static_cast<size_t>(rows * n), NAN);
      const TensorView in = View(x, rows, k, k), result = View(out, rows, n, n);
      multiplier_.MatMul(in, *w.packed, nullptr, false, result);
      SCOPED_TRACE(testing::Message()
                   << TraitsOf(dtype).name << " rows " << rows << " n " << n << " k " << k);
      ExpectProduct(w, in, nullptr, nullptr, result);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(MatMulTest, ModelShapesWithBiasAccumulationAndStrides) {
  const struct {
    DType dtype;
    int64_t n, k;
  } cases[] = {{DType::kQ4_1, 192, 576}, {DType::kF32, 7, 1},      {DType::kF32, 1, 7},
               {DType::kQ8_0, 61, 1536}, {DType::kQ4_K, 40, 2304}, {DType::kQ6_K, 33, 4608},
               {DType::kF16, 100, 2049}, {DType::kQ4_0, 16, 32},   {DType::kBF16, 130, 384}};
  for (const auto& shape : cases) {
    const PackedMatrix w = RandomMatrix(arena_, threads_, shape.dtype, shape.n, shape.k, random_);
    for (int64_t rows : {1, 4, 31}) {
      const int64_t x_stride = shape.k + 5, out_stride = shape.n + 3;
      std::vector<float> x = RandomFloats(static_cast<size_t>(rows * x_stride), random_);
      std::vector<float> out = RandomFloats(static_cast<size_t>(rows * out_stride), random_);
      std::vector<float> old = out;
      const std::vector<float> bias = RandomFloats(static_cast<size_t>(shape.n), random_);
      const TensorView in = View(x, rows, shape.k, x_stride);
      const TensorView before = View(old, rows, shape.n, out_stride);
      const TensorView after = View(out, rows, shape.n, out_stride);
      multiplier_.MatMul(in, *w.packed, bias.data(), true, after);
      ExpectProduct(w, in, bias.data(), &before, after);
      if (HasFatalFailure()) return;
      for (int64_t row = 0; row < rows; ++row) {  // nothing is written between the rows
        for (int64_t i = shape.n; i < out_stride; ++i) {
          ASSERT_EQ(after.f32_row(row)[i], before.f32_row(row)[i]);
        }
      }
    }
  }
}

// A row's bits are the same alone, in any batch, and on any number of threads.
TEST_P(MatMulTest, BatchInvariantBits) {
  ThreadPool three(3);
  const MatrixMultiplier other = Make(three);
  constexpr int64_t kRows = 70;
  for (DType dtype : kWeightTypes) {
    const int64_t n = 16 * 5 + 3;
    const int64_t k = TraitsOf(dtype).block_elements == 1 ? 2048 + 77 : 2048 + 256;
    const PackedMatrix w = RandomMatrix(arena_, threads_, dtype, n, k, random_);
    std::vector<float> x = RandomFloats(static_cast<size_t>(kRows * k), random_);
    std::vector<float> all(static_cast<size_t>(kRows * n)), part(all.size());
    multiplier_.MatMul(View(x, kRows, k, k), *w.packed, nullptr, false, View(all, kRows, n, n));
    for (int64_t trial = 0; trial < 24; ++trial) {
      const int64_t rows = trial < 14 ? trial + 1 : 1 + static_cast<int64_t>(random_() % kRows);
      const int64_t first = static_cast<int64_t>(random_() % (kRows - rows + 1));
      const MatrixMultiplier& multiplier = trial % 2 == 0 ? multiplier_ : other;
      multiplier.MatMul(RowsOf(View(x, kRows, k, k), first, rows), *w.packed, nullptr, false,
                        View(part, rows, n, n));
      ASSERT_EQ(std::memcmp(part.data(), &all[static_cast<size_t>(first * n)],
                            static_cast<size_t>(rows * n) * sizeof(float)),
                0)
          << TraitsOf(dtype).name << " rows " << rows << " from " << first;
    }
  }
}

TEST_P(MatMulTest, EmbedReadsScaledRows) {
  for (DType dtype : kWeightTypes) {
    const int64_t n = 45, k = 256;
    const PackedMatrix w = RandomMatrix(arena_, threads_, dtype, n, k, random_);
    const std::vector<int32_t> ids = {0, 44, 17, 17};
    std::vector<float> out(static_cast<size_t>(4 * k));
    multiplier_.Embed(*w.packed, ids, 3.0f, View(out, 4, k, k));
    for (size_t row = 0; row < ids.size(); ++row) {
      for (size_t i = 0; i < 256; ++i) {
        ASSERT_EQ(out[row * 256 + i], 3.0f * w.values[static_cast<size_t>(ids[row]) * 256 + i]);
      }
    }
  }
}

TEST_P(MatMulTest, NoRowsIsNoWork) {
  const PackedMatrix w = RandomMatrix(arena_, threads_, DType::kQ4_0, 16, 32, random_);
  multiplier_.MatMul(F32View(nullptr, 0, 32), *w.packed, nullptr, false, F32View(nullptr, 0, 16));
}

TEST_P(MatMulTest, WrongShapesAreOurBug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const PackedMatrix w = RandomMatrix(arena_, threads_, DType::kQ4_0, 16, 32, random_);
  std::vector<float> x(64), out(64);
  EXPECT_DEATH(multiplier_.MatMul(F32View(x.data(), 1, 31), *w.packed, nullptr, false,
                                  F32View(out.data(), 1, 16)),
               "check failed");
}

INSTANTIATE_TEST_SUITE_P(Isas, MatMulTest, testing::ValuesIn(SupportedIsas()),
                         [](const auto& info) { return std::string(IsaName(info.param)); });

}  // namespace
}  // namespace kvasir

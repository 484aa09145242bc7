// Bf16Multiplier where the machine has dot products of bf16 pairs; nothing to test elsewhere.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/block_matmul.h"
#include "kernels/cpu/matmul.h"
#include "tests/kernels/packed_matrix.h"

namespace kvasir {
namespace {

constexpr double kRounding = 0x1p-24;  // unit of fp32
constexpr DType kTypes[] = {DType::kBF16, DType::kF16};

float Rounded(float value) { return BF16ToF32(F32ToBF16(value)); }

// With its values as they are multiplied.
PackedMatrix RoundedMatrix(WeightArena& arena, ThreadPool& threads, DType dtype, int64_t n,
                           int64_t k, std::mt19937& random) {
  PackedMatrix matrix = RandomMatrix(arena, threads, dtype, n, k, random);
  for (float& value : matrix.values) value = Rounded(value);
  return matrix;
}

std::vector<Isa> IsasWithPairDots() {
  std::vector<Isa> isas = SupportedIsas();
  std::erase_if(isas, [](Isa isa) { return Bf16OpsFor(isa) == nullptr; });
  return isas;
}

class Bf16MatMulTest : public testing::TestWithParam<Isa> {
 protected:
  Bf16MatMulTest() : threads_(2), multiplier_(Make(threads_)) {}
  Bf16Multiplier Make(ThreadPool& threads) {
    auto multiplier =
        Bf16Multiplier::Create(*Bf16OpsFor(GetParam()), MatMulOpsFor(GetParam()), threads);
    KVASIR_CHECK(multiplier.ok());
    return std::move(*multiplier);
  }
  static void Multiply(Bf16Multiplier& multiplier, const TensorView& x, const PackedMatrix& w,
                       const float* bias, bool accumulate, const TensorView& out) {
    const Projection projection{w.packed.get(), bias, out};
    multiplier.MatMul(x, nullptr, {&projection, 1}, accumulate);
  }

  WeightArena arena_;
  ThreadPool threads_;
  Bf16Multiplier multiplier_;
  std::mt19937 random_{7};
};

// Against double over rounded values: products of two bf16 are exact in fp32, so that a sum of K of
// them, in any order, is off by at most K u sum|x w|.
void ExpectProduct(const PackedMatrix& w, const TensorView& x, const TensorView& out) {
  for (int64_t row = 0; row < x.rows; ++row) {
    for (int64_t n = 0; n < w.n; ++n) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < w.k; ++k) {
        const double product =
            double{Rounded(x.f32_row(row)[k])} * w.values[static_cast<size_t>(n * w.k + k)];
        sum += product;
        magnitude += std::abs(product);
      }
      const double tolerance = static_cast<double>(w.k) * kRounding * magnitude * 1.01;
      ASSERT_NEAR(out.f32_row(row)[n], sum, tolerance) << "row " << row << " output " << n;
    }
  }
}

TEST_P(Bf16MatMulTest, RoundsToNearestEven) {
  std::vector<float> x = RandomFloats(100, random_);
  const float special[] = {1.00390625f, 1.01171875f, -1.00390625f, 3.4e38f, INFINITY, 0.0f, -0.0f};
  std::copy(std::begin(special), std::end(special), x.begin() + 30);  // ties, overflow
  for (int64_t inputs = 1; inputs <= 100; ++inputs) {
    std::vector<Bf16Block> blocks(static_cast<size_t>((inputs + 31) / 32));
    std::memset(blocks.data(), 0xAA, blocks.size() * sizeof(Bf16Block));
    Bf16OpsFor(GetParam())->round(x.data(), inputs, blocks.data());
    for (size_t i = 0; i < blocks.size() * 32; ++i) {
      const uint32_t pair = blocks[i / 32].pairs[i % 32 / 2];
      const auto got = static_cast<uint16_t>(i % 2 == 0 ? pair : pair >> 16);
      const uint16_t want = i < static_cast<size_t>(inputs) ? F32ToBF16(x[i]) : uint16_t{0};
      ASSERT_EQ(got, want) << "input " << i << " of " << inputs;
    }
  }
}

// (1, 2, 3) and (-1, 0, 0.5) times (2, 1, 4), then with a bias, on top.
TEST_P(Bf16MatMulTest, ByHand) {
  for (const DType dtype : kTypes) {
    std::vector<uint16_t> source;
    for (const float value : {1.0f, 2.0f, 3.0f, -1.0f, 0.0f, 0.5f}) {
      source.push_back(dtype == DType::kF16 ? F32ToF16(value) : F32ToBF16(value));
    }
    auto packed = PackMatrix(arena_, threads_, dtype, source.data(), 2, 3);
    ASSERT_TRUE(packed.ok());
    const PackedMatrix w{std::move(*packed), {}, 2, 3};
    std::vector<float> x = {2, 1, 4}, out = {100, 200};
    const float bias[] = {0.25f, -0.25f};
    const TensorView result = F32View(out.data(), 1, 2);
    Multiply(multiplier_, F32View(x.data(), 1, 3), w, nullptr, false, result);
    EXPECT_EQ(out, (std::vector<float>{16, 0}));
    Multiply(multiplier_, F32View(x.data(), 1, 3), w, bias, true, result);
    EXPECT_EQ(out, (std::vector<float>{32.25f, -0.25f}));
  }
}

TEST_P(Bf16MatMulTest, EveryWidthAgreesWithDouble) {
  constexpr int64_t kWidths[] = {1, 2, 3, 15, 31, 32, 33, 40, 63, 72, 96, 129, 576, 592, 611, 1537};
  constexpr int64_t kRows[] = {1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 23, 24, 25, 29, 49};
  for (const DType dtype : kTypes) {
    for (const int64_t k : kWidths) {
      const int64_t n = 1 + static_cast<int64_t>(random_() % 90);
      const PackedMatrix w = RoundedMatrix(arena_, threads_, dtype, n, k, random_);
      for (const int64_t rows : kRows) {
        std::vector<float> x = RandomFloats(static_cast<size_t>(rows * k), random_);
        std::vector<float> out(static_cast<size_t>(rows * n), NAN);
        const TensorView in = F32View(x.data(), rows, k), result = F32View(out.data(), rows, n);
        Multiply(multiplier_, in, w, nullptr, false, result);
        SCOPED_TRACE(testing::Message()
                     << TraitsOf(dtype).name << " rows " << rows << " n " << n << " k " << k);
        ExpectProduct(w, in, result);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Several projections at once, biases, accumulation, and more rows than one round.
TEST_P(Bf16MatMulTest, ProjectionsShareTheirInput) {
  for (const int64_t k : {592, 2049}) {
    const PackedMatrix a = RoundedMatrix(arena_, threads_, DType::kBF16, 61, k, random_);
    const PackedMatrix b = RoundedMatrix(arena_, threads_, DType::kF16, 16, k, random_);
    const std::vector<float> bias = RandomFloats(61, random_);
    const int64_t rows = (4 << 20) / (k * 2) + 5;
    std::vector<float> x = RandomFloats(static_cast<size_t>(rows * k), random_);
    std::vector<float> first(static_cast<size_t>(rows * 61)),
        second(static_cast<size_t>(rows * 16)), alone = first;
    const TensorView in = F32View(x.data(), rows, k);
    const Projection both[] = {{a.packed.get(), bias.data(), F32View(first.data(), rows, 61)},
                               {b.packed.get(), nullptr, F32View(second.data(), rows, 16)}};
    multiplier_.MatMul(in, nullptr, both, false);
    Multiply(multiplier_, in, a, nullptr, false, F32View(alone.data(), rows, 61));
    for (size_t i = 0; i < alone.size(); ++i) ASSERT_EQ(first[i], alone[i] + bias[i % 61]);
    Multiply(multiplier_, in, a, nullptr, true, F32View(first.data(), rows, 61));
    for (size_t i = 0; i < alone.size(); ++i) {
      ASSERT_EQ(first[i], alone[i] + bias[i % 61] + alone[i]);
    }
    ExpectProduct(b, RowsOf(in, rows - 20, 20),
                  RowsOf(F32View(second.data(), rows, 16), rows - 20, 20));
    if (HasFatalFailure()) return;
  }
}

// A row's bits are the same alone, in any batch, and on any number of threads.
TEST_P(Bf16MatMulTest, BatchInvariantBits) {
  ThreadPool three(3);
  Bf16Multiplier other = Make(three);
  constexpr int64_t kRows = 90, kOutputs = 16 * 5 + 3;
  for (const DType dtype : kTypes) {
    for (const int64_t k : {40, 592, 2049}) {
      const PackedMatrix w = RoundedMatrix(arena_, threads_, dtype, kOutputs, k, random_);
      std::vector<float> x = RandomFloats(static_cast<size_t>(kRows * k), random_);
      std::vector<float> all(static_cast<size_t>(kRows * kOutputs)), part(all.size());
      const TensorView in = F32View(x.data(), kRows, k);
      Multiply(multiplier_, in, w, nullptr, false, F32View(all.data(), kRows, kOutputs));
      for (int64_t trial = 0; trial < 60; ++trial) {
        const int64_t rows = trial < 40 ? trial + 1 : 1 + static_cast<int64_t>(random_() % kRows);
        const int64_t first = static_cast<int64_t>(random_() % (kRows - rows + 1));
        Multiply(trial % 2 == 0 ? multiplier_ : other, RowsOf(in, first, rows), w, nullptr, false,
                 F32View(part.data(), rows, kOutputs));
        ASSERT_EQ(std::memcmp(part.data(), &all[static_cast<size_t>(first * kOutputs)],
                              static_cast<size_t>(rows * kOutputs) * sizeof(float)),
                  0)
            << TraitsOf(dtype).name << " k " << k << " rows " << rows << " from " << first;
      }
    }
  }
}

// What lies behind a matrix whose rows end inside a block is not read into the sums.
TEST_P(Bf16MatMulTest, NeighboursDoNotLeakIn) {
  constexpr int64_t kInputs = 41;
  const PackedMatrix w = RoundedMatrix(arena_, threads_, DType::kBF16, 16, kInputs, random_);
  const std::vector<uint16_t> nans(16 * kInputs, F32ToBF16(NAN));
  auto behind = PackMatrix(arena_, threads_, DType::kBF16, nans.data(), 16, kInputs);
  ASSERT_TRUE(behind.ok());
  for (const int64_t rows : {1, 40}) {
    std::vector<float> x = RandomFloats(static_cast<size_t>(rows * kInputs), random_);
    std::vector<float> out(static_cast<size_t>(rows * 16));
    const TensorView in = F32View(x.data(), rows, kInputs), to = F32View(out.data(), rows, 16);
    Multiply(multiplier_, in, w, nullptr, false, to);
    ExpectProduct(w, in, to);
  }
}

TEST_P(Bf16MatMulTest, NotANumberStaysOne) {
  const PackedMatrix w = RoundedMatrix(arena_, threads_, DType::kBF16, 16, 256, random_);
  std::vector<float> x = RandomFloats(2 * 256, random_), out(32);
  x[40] = NAN;
  x[256 + 9] = INFINITY;
  Multiply(multiplier_, F32View(x.data(), 2, 256), w, nullptr, false, F32View(out.data(), 2, 16));
  for (const float value : out) EXPECT_FALSE(std::isfinite(value));
}

TEST_P(Bf16MatMulTest, TakesSixteenBitTypesAlone) {
  for (const DType dtype : kWeightTypes) {
    const std::vector<uint8_t> source = RandomWeights(dtype, 16, 256, random_);
    auto packed = PackMatrix(arena_, threads_, dtype, source.data(), 16, 256);
    ASSERT_TRUE(packed.ok());
    EXPECT_EQ(Bf16Multiplier::Takes(**packed), dtype == DType::kBF16 || dtype == DType::kF16);
  }
}

TEST_P(Bf16MatMulTest, NoRowsIsNoWork) {
  const PackedMatrix w = RoundedMatrix(arena_, threads_, DType::kBF16, 16, 32, random_);
  Multiply(multiplier_, F32View(nullptr, 0, 32), w, nullptr, false, F32View(nullptr, 0, 16));
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Bf16MatMulTest);
INSTANTIATE_TEST_SUITE_P(Isas, Bf16MatMulTest, testing::ValuesIn(IsasWithPairDots()),
                         [](const auto& info) { return std::string(IsaName(info.param)); });

}  // namespace
}  // namespace kvasir

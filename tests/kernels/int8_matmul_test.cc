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

constexpr double kRounding = 0x1p-24;     // unit of fp32
constexpr double kBf16Rounding = 0x1p-8;  // twice that of bf16

std::vector<DType> QuantizedTypes() {
  std::vector<DType> types;
  for (const DType dtype : kWeightTypes) {
    if (TraitsOf(dtype).block_elements > 1) types.push_back(dtype);
  }
  return types;
}

class Int8MatMulTest : public testing::TestWithParam<Isa> {
 protected:
  Int8MatMulTest() : threads_(2), multiplier_(Make(threads_)) {}
  Int8Multiplier Make(ThreadPool& threads) {
    auto multiplier =
        Int8Multiplier::Create(Int8OpsFor(GetParam()), MatMulOpsFor(GetParam()), threads);
    KVASIR_CHECK(multiplier.ok());
    return std::move(*multiplier);
  }
  std::vector<QuantizedBlock> Quantize(const std::vector<float>& x) const {
    std::vector<QuantizedBlock> blocks(x.size() / kQuantizedInputs);
    Int8OpsFor(GetParam()).round(x.data(), static_cast<int64_t>(x.size()), blocks.data());
    return blocks;
  }
  void Multiply(Int8Multiplier& multiplier, const TensorView& x, const PackedMatrix& w,
                const float* bias, bool accumulate, const TensorView& out) {
    const Projection projection{w.packed.get(), bias, out};
    multiplier.MatMul(x, nullptr, {&projection, 1}, accumulate);
  }

  WeightArena arena_;
  ThreadPool threads_;
  Int8Multiplier multiplier_;
  std::mt19937 random_{7};
};

// Where input i of a block lies among its quants.
size_t PlaceOf(size_t i) { return 8 * (i / 8) + 4 * (i % 2) + i % 8 / 2; }

double OffsetOf(const QuantizedBlock& block) {
  return BF16ToF32(static_cast<uint16_t>(block.correction));
}
double ValueOf(const QuantizedBlock& block, size_t i) {
  return double{block.scale} * block.quants[PlaceOf(i)] + OffsetOf(block);
}

// Values cut into 254 steps of their own range are off by half a step, but for the roundings of the
// middle to bf16, which widens the range to one side, and of scale and the division, each a few
// units of the largest magnitude. The sums that go with them belong to the quants as stored.
void ExpectQuantized(const float* x, const QuantizedBlock& block) {
  const auto [low, high] = std::minmax_element(x, x + kQuantizedInputs);
  const double largest = std::max(std::abs(double{*low}), std::abs(double{*high}));
  const double half_step = (double{*high} - double{*low} + kBf16Rounding * largest) / 508;
  int32_t sums[2] = {0, 0};
  for (size_t i = 0; i < kQuantizedInputs; ++i) {
    ASSERT_NEAR(ValueOf(block, i), x[i], half_step * 1.0001 + 8 * kRounding * largest) << i;
    sums[i / 16] += block.quants[PlaceOf(i)];
  }
  ASSERT_EQ(block.quant_sums[0], sums[0]);
  ASSERT_EQ(block.quant_sums[1], sums[1]);
  ASSERT_EQ(block.start, kDotStart - 8 * (sums[0] + sums[1]));
  const double sum = double{block.scale} * (sums[0] + sums[1]) + 32 * OffsetOf(block);
  const double slack = kBf16Rounding * std::abs(sum) + 200 * kRounding * largest;
  ASSERT_NEAR(BF16ToF32(static_cast<uint16_t>(block.correction >> 16)), sum, slack);
}

TEST_P(Int8MatMulTest, QuantizesToHalfAStepOfTheRange) {
  for (const size_t blocks : {1, 2, 3, 4, 5, 18}) {
    std::vector<float> x = RandomFloats(blocks * kQuantizedInputs, random_);
    for (size_t b = 0; b < blocks; ++b) {
      float* const at = &x[b * kQuantizedInputs];
      if (b % 6 == 1) std::fill_n(at, kQuantizedInputs, -3.25f);              // no range
      if (b % 6 == 2) std::fill_n(at, kQuantizedInputs, 0.0f);                // nothing at all
      if (b % 6 == 3) at[7] = 900.0f;                                         // one that stands out
      if (b % 6 == 4) std::for_each(at, at + 32, [](float& v) { v += 50; });  // far from zero
    }
    const std::vector<QuantizedBlock> quantized = Quantize(x);
    for (size_t b = 0; b < blocks; ++b) {
      SCOPED_TRACE(testing::Message() << "block " << b << " of " << blocks);
      ExpectQuantized(&x[b * kQuantizedInputs], quantized[b]);
      if (HasFatalFailure()) return;
    }
  }
}

// Against double over the same quantised rows. A block adds three products, each rounded a few
// times; none is larger than 4 max|w| (s sum|q| + 32 |o|): weights w = d (t + r) with d t and d r
// at most twice the largest weight of 32 random ones. In d r sum x two factors are rounded to bf16,
// in o d sum t only sums above 256, of 5-bit quants.
void ExpectProduct(const PackedMatrix& w, const std::vector<QuantizedBlock>& x, int64_t rows,
                   const TensorView& out) {
  const int64_t blocks = w.k / kQuantizedInputs;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t n = 0; n < w.n; ++n) {
      double sum = 0, magnitude = 0, rounded = 0;
      for (int64_t b = 0; b < blocks; ++b) {
        const QuantizedBlock& block = x[static_cast<size_t>(row * blocks + b)];
        double largest = 0, quants = 0, values = 0;
        for (size_t i = 0; i < kQuantizedInputs; ++i) {
          const auto at = static_cast<size_t>(n * w.k + b * kQuantizedInputs) + i;
          sum += ValueOf(block, i) * double{w.values[at]};
          largest = std::max(largest, std::abs(double{w.values[at]}));
          quants += std::abs(block.quants[i]);
          values += ValueOf(block, i);
        }
        const double offset = std::abs(OffsetOf(block));
        rounded += kBf16Rounding * 2 * largest * (32 * offset + std::abs(values));
        magnitude += 4 * largest * (double{block.scale} * quants + 32 * offset);
      }
      const double tolerance =
          static_cast<double>(3 * 2 * blocks + 8) * kRounding * magnitude + rounded;
      ASSERT_NEAR(out.f32_row(row)[n], sum, tolerance) << "row " << row << " output " << n;
    }
  }
}

TEST_P(Int8MatMulTest, EveryTypeAgreesWithDouble) {
  for (const DType dtype : QuantizedTypes()) {
    for (const int64_t rows : {1, 2, 3, 4, 5, 7, 8, 11, 13, 24, 29}) {
      const int64_t n = 1 + static_cast<int64_t>(random_() % 90);
      const int64_t k = TraitsOf(dtype).block_elements * (1 + static_cast<int64_t>(random_() % 4));
      const PackedMatrix w = RandomMatrix(arena_, threads_, dtype, n, k, random_);
      std::vector<float> x = RandomFloats(static_cast<size_t>(rows * k), random_);
      std::vector<float> out(static_cast<size_t>(rows * n), NAN);
      const TensorView result = F32View(out.data(), rows, n);
      Multiply(multiplier_, F32View(x.data(), rows, k), w, nullptr, false, result);
      SCOPED_TRACE(testing::Message()
                   << TraitsOf(dtype).name << " rows " << rows << " n " << n << " k " << k);
      ExpectProduct(w, Quantize(x), rows, result);
      if (HasFatalFailure()) return;
    }
  }
}

// A scale of 0 leaves the minimum, whatever the quants are.
TEST_P(Int8MatMulTest, ConstantWeights) {
  constexpr int64_t kOutputs = 35, kInputs = 512, kMostRows = 9;
  for (const DType dtype : {DType::kQ4_1, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K}) {
    std::vector<uint8_t> source = RandomWeights(dtype, kOutputs, kInputs, random_);
    const auto block = static_cast<size_t>(TraitsOf(dtype).block_bytes);
    for (size_t at = 0; at < source.size(); at += block) source[at] = source[at + 1] = 0;
    const PackedMatrix w = PackSource(arena_, threads_, dtype, kOutputs, kInputs, source);
    for (const int64_t rows : {int64_t{1}, kMostRows}) {
      std::vector<float> x = RandomFloats(static_cast<size_t>(rows * kInputs), random_);
      std::vector<float> out(static_cast<size_t>(rows * kOutputs), NAN);
      const TensorView result = F32View(out.data(), rows, kOutputs);
      Multiply(multiplier_, F32View(x.data(), rows, kInputs), w, nullptr, false, result);
      SCOPED_TRACE(testing::Message() << TraitsOf(dtype).name << " rows " << rows);
      ExpectProduct(w, Quantize(x), rows, result);
      if (HasFatalFailure()) return;
    }
  }
}

// Widths that no unroll divides, several projections at once, biases, and more rows than one round.
TEST_P(Int8MatMulTest, ProjectionsShareTheirInput) {
  for (const int64_t k : {576, 1536, 2336}) {
    const PackedMatrix a = RandomMatrix(arena_, threads_, DType::kQ4_1, 61, k, random_);
    const PackedMatrix b = RandomMatrix(arena_, threads_, DType::kQ8_0, 16, k, random_);
    const std::vector<float> bias = RandomFloats(61, random_);
    const auto rows = static_cast<int64_t>((4 << 20) / (k * 2) + 5);
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
    x.resize(static_cast<size_t>(20 * k));
    ExpectProduct(b, Quantize(x), 20, F32View(second.data(), rows, 16));
    if (HasFatalFailure()) return;
  }
}

// A row's bits are the same alone, in any batch, and on any number of threads.
TEST_P(Int8MatMulTest, BatchInvariantBits) {
  ThreadPool three(3);
  Int8Multiplier other = Make(three);
  constexpr int64_t kRows = 70, kOutputs = 16 * 5 + 3, kInputs = 2048 + 256;
  for (const DType dtype : QuantizedTypes()) {
    const PackedMatrix w = RandomMatrix(arena_, threads_, dtype, kOutputs, kInputs, random_);
    std::vector<float> x = RandomFloats(static_cast<size_t>(kRows * kInputs), random_);
    std::vector<float> all(static_cast<size_t>(kRows * kOutputs)), part(all.size());
    const TensorView in = F32View(x.data(), kRows, kInputs);
    Multiply(multiplier_, in, w, nullptr, false, F32View(all.data(), kRows, kOutputs));
    for (int64_t trial = 0; trial < 40; ++trial) {
      const int64_t rows = trial < 30 ? trial + 1 : 1 + static_cast<int64_t>(random_() % kRows);
      const int64_t first = static_cast<int64_t>(random_() % (kRows - rows + 1));
      Multiply(trial % 2 == 0 ? multiplier_ : other, RowsOf(in, first, rows), w, nullptr, false,
               F32View(part.data(), rows, kOutputs));
      ASSERT_EQ(std::memcmp(part.data(), &all[static_cast<size_t>(first * kOutputs)],
                            static_cast<size_t>(rows * kOutputs) * sizeof(float)),
                0)
          << TraitsOf(dtype).name << " rows " << rows << " from " << first;
    }
  }
}

TEST_P(Int8MatMulTest, NotANumberStaysOne) {
  const PackedMatrix w = RandomMatrix(arena_, threads_, DType::kQ4_1, 16, 256, random_);
  std::vector<float> x = RandomFloats(2 * 256, random_), out(32);
  x[40] = NAN;
  x[256 + 9] = INFINITY;
  Multiply(multiplier_, F32View(x.data(), 2, 256), w, nullptr, false, F32View(out.data(), 2, 16));
  for (const float value : out) EXPECT_FALSE(std::isfinite(value));
}

TEST_P(Int8MatMulTest, TakesQuantizedTypesAlone) {
  for (const DType dtype : kWeightTypes) {
    const PackedMatrix w = RandomMatrix(arena_, threads_, dtype, 16, 256, random_);
    EXPECT_EQ(Int8Multiplier::Takes(*w.packed), TraitsOf(dtype).block_elements > 1);
  }
}

TEST_P(Int8MatMulTest, NoRowsIsNoWork) {
  const PackedMatrix w = RandomMatrix(arena_, threads_, DType::kQ4_0, 16, 32, random_);
  Multiply(multiplier_, F32View(nullptr, 0, 32), w, nullptr, false, F32View(nullptr, 0, 16));
}

INSTANTIATE_TEST_SUITE_P(Isas, Int8MatMulTest, testing::ValuesIn(SupportedIsas()),
                         [](const auto& info) { return std::string(IsaName(info.param)); });

}  // namespace
}  // namespace kvasir

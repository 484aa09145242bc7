#include "kernels/cpu/pack.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "tests/kernels/random_weights.h"

namespace kvasir {
namespace {

// One row of Q4_1: scale 0.5, minimum -1, low nibbles 3, high nibbles 12.
TEST(Pack, Q4_1ByHand) {
  std::vector<uint8_t> block(20, 0xC3);
  StoreHalf(block, 0, 0.5f);
  StoreHalf(block, 2, -1.0f);
  WeightArena arena;
  ThreadPool threads(1);
  auto packed = PackMatrix(arena, threads, DType::kQ4_1, block.data(), 1, 32);
  ASSERT_TRUE(packed.ok());
  std::vector<float> row(32);
  DecodeOutput((*packed)->view(), 0, row.data());
  for (size_t i = 0; i < 16; ++i) EXPECT_EQ(row[i], 0.5f);
  for (size_t i = 16; i < 32; ++i) EXPECT_EQ(row[i], 5.0f);
}

// Packing moves values, it does not change them: scale * q is exact in fp32 for every type, so the
// value is rounded once here and there, and the bits are equal.
TEST(Pack, HoldsTheSourcesValues) {
  WeightArena arena;
  ThreadPool threads(2);
  std::mt19937 random(1);
  for (DType dtype : kWeightTypes) {
    const int64_t unit = TraitsOf(dtype).block_elements;
    for (int64_t n : {1, 16, 37}) {
      const int64_t k = unit == 1 ? 45 : 3 * unit;
      const std::vector<uint8_t> source = RandomWeights(dtype, n, k, random);
      auto packed = PackMatrix(arena, threads, dtype, source.data(), n, k);
      ASSERT_TRUE(packed.ok());
      const size_t row_bytes = BytesOf(dtype, static_cast<size_t>(k));
      std::vector<float> expected(static_cast<size_t>(k)), actual(expected.size());
      for (int64_t output = 0; output < n; ++output) {
        DequantizeRow(dtype, source.data() + static_cast<size_t>(output) * row_bytes,
                      expected.size(), expected.data());
        DecodeOutput((*packed)->view(), output, actual.data());
        ASSERT_EQ(actual, expected) << TraitsOf(dtype).name << " output " << output;
      }
    }
  }
}

TEST(Pack, FourBitTypesAndQ8KeepTheFilesSize) {
  WeightArena arena;
  ThreadPool threads(2);
  std::mt19937 random(2);
  for (DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ8_0, DType::kF16, DType::kF32}) {
    const std::vector<uint8_t> source = RandomWeights(dtype, 64, 576, random);
    auto packed = PackMatrix(arena, threads, dtype, source.data(), 64, 576);
    ASSERT_TRUE(packed.ok());
    EXPECT_EQ((*packed)->bytes(), source.size()) << TraitsOf(dtype).name;
  }
}

TEST(Pack, RejectsShapesThatTheTypeDoesNotAllow) {
  WeightArena arena;
  ThreadPool threads(1);
  const std::vector<uint8_t> bytes(1024);
  const auto code = [&](DType dtype, int64_t n, int64_t k) {
    return PackMatrix(arena, threads, dtype, bytes.data(), n, k).status().code();
  };
  EXPECT_EQ(code(DType::kQ4_1, 1, 33), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(DType::kQ6_K, 1, 128), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(DType::kF32, 0, 4), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(DType::kF32, 4, -1), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(DType::kI8, 4, 32), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(DType::kI4, 4, 32), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(DType::kF32, int64_t{1} << 31, int64_t{1} << 31), StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace kvasir

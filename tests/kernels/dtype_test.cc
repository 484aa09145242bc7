#include "kernels/core/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "tests/kernels/random_weights.h"

namespace kvasir {
namespace {

TEST(DType, Traits) {
  EXPECT_EQ(TraitsOf(DType::kQ4_1).name, "Q4_1");
  EXPECT_EQ(BytesOf(DType::kQ4_1, 576), 576u / 32 * 20);
  EXPECT_EQ(BytesOf(DType::kQ6_K, 512), 420u);
  EXPECT_EQ(BytesOf(DType::kI4, 6), 3u);
  EXPECT_EQ(BytesOf(DType::kBF16, 3), 6u);
}

TEST(DType, HalfByHand) {
  EXPECT_EQ(F16ToF32(0x3C00), 1.0f);
  EXPECT_EQ(F16ToF32(0xC500), -5.0f);
  EXPECT_EQ(F16ToF32(0x7BFF), 65504.0f);
  EXPECT_EQ(F16ToF32(0x0001), 0x1p-24f);
  EXPECT_EQ(F16ToF32(0x03FF), 1023 * 0x1p-24f);
  EXPECT_TRUE(std::isinf(F16ToF32(0x7C00)));
  EXPECT_TRUE(std::isnan(F16ToF32(0x7E00)));
  EXPECT_EQ(F32ToF16(65519.996f), 0x7BFF);
  EXPECT_EQ(F32ToF16(65520.0f), 0x7C00);
  EXPECT_EQ(F32ToF16(-1e10f), 0xFC00);
  EXPECT_EQ(F32ToF16(1.0f + 0x1p-11f), 0x3C00);      // a tie, to even
  EXPECT_EQ(F32ToF16(1.0f + 3 * 0x1p-11f), 0x3C02);  // a tie, to even
  EXPECT_EQ(F32ToF16(0x1p-25f), 0x0000);             // a tie, to even
  EXPECT_EQ(F32ToF16(0x1.000002p-25f), 0x0001);
  EXPECT_EQ(F32ToF16(-0.0f), 0x8000);
  EXPECT_EQ(F32ToF16(std::nanf("")) & 0x7C00, 0x7C00);
  EXPECT_NE(F32ToF16(std::nanf("")) & 0x03FF, 0);
}

TEST(DType, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = F16ToF32(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(F32ToF16(value), bits);
  }
}

TEST(DType, HalfRoundsToNearest) {
  std::mt19937 random(3);
  for (int i = 0; i < 200000; ++i) {
    const uint32_t bits = random();
    float value;
    std::memcpy(&value, &bits, 4);
    if (!(std::abs(value) < 65504.0f)) continue;
    const uint16_t half = F32ToF16(value);
    const double error = std::abs(double{F16ToF32(half)} - value);
    for (const int step : {-1, 1}) {
      const auto next = static_cast<uint16_t>(half + step);
      if ((next & 0x7FFF) >= 0x7C00) continue;
      ASSERT_LE(error, std::abs(double{F16ToF32(next)} - value)) << value;
    }
  }
}

TEST(DType, BFloat16RoundsToNearestEven) {
  EXPECT_EQ(F32ToBF16(1.0f), 0x3F80);
  EXPECT_EQ(F32ToBF16(1.0f + 0x1p-8f), 0x3F80);      // a tie, to even
  EXPECT_EQ(F32ToBF16(1.0f + 3 * 0x1p-8f), 0x3F82);  // a tie, to even
  EXPECT_EQ(F32ToBF16(1.0f + 0x1.01p-8f), 0x3F81);
  EXPECT_EQ(F32ToBF16(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_EQ(F32ToBF16(-std::numeric_limits<float>::infinity()), 0xFF80);
  uint32_t bits = 0x7F800001;  // a NaN whose high half alone would be infinity
  float nan;
  std::memcpy(&nan, &bits, 4);
  EXPECT_TRUE(std::isnan(BF16ToF32(F32ToBF16(nan))));
  for (uint32_t b = 0; b < 0x10000; ++b) {
    const float value = BF16ToF32(static_cast<uint16_t>(b));
    if (!std::isnan(value)) {
      ASSERT_EQ(F32ToBF16(value), b);
    }
  }
}

// A block of 32 by hand: scale 0.5 (0x3800), minimum -1 (0xBC00), quants from `q` on.
std::vector<uint8_t> Block(DType dtype, const std::vector<uint8_t>& head) {
  std::vector<uint8_t> bytes(static_cast<size_t>(TraitsOf(dtype).block_bytes), 0);
  std::copy(head.begin(), head.end(), bytes.begin());
  return bytes;
}

std::vector<float> Values(DType dtype, const std::vector<uint8_t>& bytes) {
  std::vector<float> out(static_cast<size_t>(TraitsOf(dtype).block_elements), NAN);
  DequantizeRow(dtype, bytes.data(), out.size(), out.data());
  return out;
}

TEST(DType, BlocksOf32ByHand) {
  auto values = Values(DType::kQ4_0, Block(DType::kQ4_0, {0x00, 0x38, 0xF1}));
  EXPECT_EQ(values[0], (1 - 8) * 0.5f);
  EXPECT_EQ(values[16], (15 - 8) * 0.5f);
  EXPECT_EQ(values[1], -4.0f);
  values = Values(DType::kQ4_1, Block(DType::kQ4_1, {0x00, 0x38, 0x00, 0xBC, 0xF1}));
  EXPECT_EQ(values[0], -0.5f);
  EXPECT_EQ(values[16], 6.5f);
  EXPECT_EQ(values[31], -1.0f);
  // Fifth bits of elements 0 and 17: bit 0 and bit 17.
  values = Values(DType::kQ5_0, Block(DType::kQ5_0, {0x00, 0x38, 0x01, 0x00, 0x02, 0x00, 0xF1}));
  EXPECT_EQ(values[0], (17 - 16) * 0.5f);
  EXPECT_EQ(values[16], (15 - 16) * 0.5f);
  EXPECT_EQ(values[17], (16 - 16) * 0.5f);
  EXPECT_EQ(values[1], -8.0f);
  values = Values(DType::kQ5_1,
                  Block(DType::kQ5_1, {0x00, 0x38, 0x00, 0xBC, 0x01, 0x00, 0x02, 0x00, 0xF1}));
  EXPECT_EQ(values[0], 17 * 0.5f - 1);
  EXPECT_EQ(values[17], 16 * 0.5f - 1);
  values = Values(DType::kQ8_0, Block(DType::kQ8_0, {0x00, 0x38, 0x80, 0x7F}));
  EXPECT_EQ(values[0], -64.0f);
  EXPECT_EQ(values[1], 63.5f);
}

TEST(DType, SuperBlocksByHand) {
  // Q4_K: d 0.5, dmin 1. Group 0: scale byte 0, minimum byte 4. Group 5: low nibbles of byte 9,
  // with the top bits of bytes 1 and 5.
  auto q4 = Block(DType::kQ4_K, {0x00, 0x38, 0x00, 0x3C});
  q4[4 + 0] = 3;           // group 0 scale
  q4[4 + 4] = 2;           // group 0 minimum
  q4[4 + 1] = 0xC0;        // top bits of group 5's scale: 3 << 4
  q4[4 + 5] = 0x40;        // top bits of group 5's minimum: 1 << 4
  q4[4 + 9] = 0x21;        // group 5: low scale bits 1, low minimum bits 2
  q4[16 + 0] = 0x0A;       // group 0, element 0
  q4[16 + 64 + 7] = 0xB0;  // group 5 (high nibbles of the third run), element 7
  auto values = Values(DType::kQ4_K, q4);
  EXPECT_EQ(values[0], 0.5f * 3 * 10 - 2);
  EXPECT_EQ(values[1], -2.0f);
  EXPECT_EQ(values[5 * 32 + 7], 0.5f * 49 * 11 - 18);
  auto q5 = Block(DType::kQ5_K, {0x00, 0x38, 0x00, 0x3C});
  q5[4 + 3] = 7;           // group 3 scale
  q5[16 + 4] = 1 << 3;     // fifth bit of group 3, element 4
  q5[48 + 32 + 4] = 0x90;  // group 3, element 4: 9
  values = Values(DType::kQ5_K, q5);
  EXPECT_EQ(values[3 * 32 + 4], 0.5f * 7 * 25);
  auto q6 = Block(DType::kQ6_K, {});
  q6[208] = 0x00;
  q6[209] = 0x38;
  q6[192 + 8 + 5] = 0xFE;    // second half, run 2, second 16: scale -2
  q6[64 + 20] = 0x70;        // second half, run 2 = high nibbles of low[0..31]
  q6[128 + 32 + 20] = 0x30;  // bits 4, 5
  values = Values(DType::kQ6_K, q6);
  EXPECT_EQ(values[128 + 64 + 20], 0.5f * -2 * (0x37 - 32));
  EXPECT_EQ(values[0], 0.0f);
}

TEST(DType, RowsAreBlocksOneAfterTheOther) {
  std::mt19937 random(5);
  for (const DType dtype : kWeightTypes) {
    const auto bytes = RandomWeights(dtype, 1, 1024, random);
    std::vector<float> row(1024), part(256);
    DequantizeRow(dtype, bytes.data(), row.size(), row.data());
    for (size_t begin = 0; begin < row.size(); begin += 256) {
      DequantizeRow(dtype, bytes.data() + BytesOf(dtype, begin), 256, part.data());
      ASSERT_EQ(std::memcmp(part.data(), &row[begin], 1024), 0) << TraitsOf(dtype).name;
    }
  }
}

TEST(DTypeDeathTest, PartOfABlockIsOurBug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  std::vector<uint8_t> bytes(64);
  std::vector<float> out(64);
  EXPECT_DEATH(DequantizeRow(DType::kQ4_0, bytes.data(), 31, out.data()), "check failed");
  EXPECT_DEATH(DequantizeRow(DType::kI4, bytes.data(), 32, out.data()), "check failed");
  EXPECT_DEATH(DequantizeRow(DType::kI8, bytes.data(), 32, out.data()), "check failed");
}

}  // namespace
}  // namespace kvasir

#include "kernels/core/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace kvasir {
namespace {

std::vector<float> RandomRow(size_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> row(count);
  for (float& value : row) value = normal(random);
  return row;
}

TEST(Rope, ByHand) {
  // Two pairs at frequencies 1 and 0.01; position 3.
  const std::vector<float> x = {1, 2, 3, 4};
  const double c0 = std::cos(3.0), s0 = std::sin(3.0), c1 = std::cos(0.03), s1 = std::sin(0.03);
  std::vector<float> y = x;
  RopeTable::Plain(RopePairing::kInterleaved, 4, 10000).Rotate(3, y.data());
  EXPECT_FLOAT_EQ(y[0], static_cast<float>(c0 - 2 * s0));
  EXPECT_FLOAT_EQ(y[1], static_cast<float>(s0 + 2 * c0));
  EXPECT_FLOAT_EQ(y[2], static_cast<float>(3 * c1 - 4 * s1));
  EXPECT_FLOAT_EQ(y[3], static_cast<float>(3 * s1 + 4 * c1));
  y = x;
  RopeTable::Plain(RopePairing::kHalfSplit, 4, 10000).Rotate(3, y.data());
  EXPECT_FLOAT_EQ(y[0], static_cast<float>(c0 - 3 * s0));
  EXPECT_FLOAT_EQ(y[2], static_cast<float>(s0 + 3 * c0));
  EXPECT_FLOAT_EQ(y[1], static_cast<float>(2 * c1 - 4 * s1));
  EXPECT_FLOAT_EQ(y[3], static_cast<float>(2 * s1 + 4 * c1));
}

TEST(Rope, RotationsComposeAndKeepDotProducts) {
  std::mt19937 random(1);
  for (const RopePairing pairing : {RopePairing::kInterleaved, RopePairing::kHalfSplit}) {
    const RopeTable rope = RopeTable::Plain(pairing, 64, 1e6);
    for (const int64_t base : {0, 7, 4096, 131072}) {
      const std::vector<float> q = RandomRow(64, random), k = RandomRow(64, random);
      std::vector<float> q_far = q, k_far = k, q_near = q, k_near = k;
      rope.Rotate(base + 300, q_far.data());
      rope.Rotate(base + 200, k_far.data());
      rope.Rotate(300, q_near.data());
      rope.Rotate(200, k_near.data());
      double far = 0, near = 0, norm = 0;
      for (size_t d = 0; d < 64; ++d) {
        far += double{q_far[d]} * k_far[d];
        near += double{q_near[d]} * k_near[d];
        norm += std::abs(double{q_far[d]} * k_far[d]);
      }
      // Each of the four rows is rounded once: relative error u an element, u = 2^-24.
      EXPECT_NEAR(far, near, 8 * 0x1p-24 * norm) << base;
    }
  }
}

TEST(Rope, PartialAndNegative) {
  std::mt19937 random(2);
  const RopeTable rope = RopeTable::Plain(RopePairing::kHalfSplit, 20, 10000);
  const std::vector<float> x = RandomRow(80, random);
  std::vector<float> y = x;
  rope.Rotate(1234, y.data());
  for (size_t d = 20; d < 80; ++d) EXPECT_EQ(y[d], x[d]);
  rope.Rotate(-1234, y.data());
  for (size_t d = 0; d < 20; ++d) EXPECT_NEAR(y[d], x[d], 1e-6);
}

TEST(Rope, CosSinCarryTheMagnitude) {
  RopeTable rope = RopeTable::Plain(RopePairing::kInterleaved, 8, 10000);
  rope.magnitude = 1.5f;
  float cos[4], sin[4];
  rope.CosSin(5000, cos, sin);
  for (size_t j = 0; j < 4; ++j) {
    EXPECT_NEAR(std::hypot(cos[j], sin[j]), 1.5, 3e-7);
    EXPECT_EQ(cos[j], static_cast<float>(1.5 * std::cos(5000 * rope.inv_freq[j])));
  }
}

TEST(Rope, NoDimensionsIsNoRotation) {
  const RopeTable rope = RopeTable::Plain(RopePairing::kHalfSplit, 0, 10000);
  float x[2] = {3, 4};
  rope.Rotate(99, x);
  EXPECT_EQ(x[0], 3);
  EXPECT_EQ(x[1], 4);
}

TEST(RopeDeathTest, OddDimensionsAreOurBug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(RopeTable::Plain(RopePairing::kHalfSplit, 3, 10000), "check failed");
}

}  // namespace
}  // namespace kvasir

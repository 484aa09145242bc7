#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "service/eval/bootstrap.h"

namespace kvasir {
namespace {

TEST(Percentile, ByHand) {
  EXPECT_EQ(Percentile({4, 1, 3, 2}, 0), 1);
  EXPECT_EQ(Percentile({4, 1, 3, 2}, 1), 4);
  EXPECT_DOUBLE_EQ(Percentile({4, 1, 3, 2}, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(Percentile({10, 20}, 0.95), 19.5);
  EXPECT_EQ(Percentile({7}, 0.3), 7);
  EXPECT_TRUE(std::isnan(Percentile({}, 0.5)));
  const double infinite = std::numeric_limits<double>::infinity();
  EXPECT_EQ(Percentile({infinite, infinite}, 0.5), infinite);
  EXPECT_TRUE(std::isnan(Percentile({1, std::nan("")}, 0.5)));
}

TEST(Percentile, EqualsSorting) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> uniform;
  for (int round = 0; round < 50; ++round) {
    std::vector<double> values(1 + random() % 40);
    for (double& value : values) value = uniform(random);
    std::vector<double> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    const double p = uniform(random), at = p * static_cast<double>(values.size() - 1);
    const auto below = static_cast<size_t>(at);
    const size_t above = std::min(below + 1, values.size() - 1);
    const double expected =
        sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
    EXPECT_DOUBLE_EQ(Percentile(values, p), expected);
  }
}

TEST(SpreadOf, ByHand) {
  std::vector<double> values;
  for (int i = 100; i >= 0; --i) values.push_back(i);
  const Spread spread = SpreadOf(values);
  EXPECT_EQ(spread.p50, 50);
  EXPECT_EQ(spread.p95, 95);
  EXPECT_EQ(spread.max, 100);
}

TEST(BootstrapTest, OneItemHasNoWidth) {
  const Estimate mean = Bootstrap(1, 7).Mean(std::vector<double>{0.25});
  EXPECT_EQ(mean.value, 0.25);
  EXPECT_EQ(mean.low, 0.25);
  EXPECT_EQ(mean.high, 0.25);
}

// Two items 0 and 1: the mean is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4.
TEST(BootstrapTest, TwoItemsByHand) {
  const Estimate mean = Bootstrap(2, 1).Mean(std::vector<double>{0, 1});
  EXPECT_EQ(mean.value, 0.5);
  EXPECT_EQ(mean.low, 0);
  EXPECT_EQ(mean.high, 1);
}

TEST(BootstrapTest, SeedDecides) {
  std::vector<double> values;
  for (int i = 0; i < 37; ++i) values.push_back(std::sin(i));
  const Estimate first = Bootstrap(37, 5).Mean(values), again = Bootstrap(37, 5).Mean(values);
  const Estimate other = Bootstrap(37, 6).Mean(values);
  EXPECT_EQ(first.low, again.low);
  EXPECT_EQ(first.high, again.high);
  EXPECT_NE(first.low, other.low);
}

// mt19937_64 is fixed by the standard and so is what is made of it: the same on every machine.
TEST(BootstrapTest, TheDrawsNeverChange) {
  std::vector<double> values;
  for (int i = 0; i < 10; ++i) values.push_back(i * i);
  const Estimate mean = Bootstrap(10, 42, 100).Mean(values);
  EXPECT_DOUBLE_EQ(mean.value, 28.5);
  std::mt19937_64 random(42);
  std::vector<double> means;
  for (int resample = 0; resample < 100; ++resample) {
    double sum = 0;
    for (int draw = 0; draw < 10; ++draw) sum += values[(random() >> 32) * 10 >> 32];
    means.push_back(sum / 10);
  }
  EXPECT_EQ(mean.low, Percentile(means, 0.025));
  EXPECT_EQ(mean.high, Percentile(means, 0.975));
}

// For many normal items the interval is mean +- 1.96 s / sqrt(n). The bootstrap's own standard
// error at a 2.5 % quantile of 2000 resamples is about 0.06 standard errors of the mean; 0.3 is
// five times that.
TEST(BootstrapTest, NearTheNormalInterval) {
  std::mt19937_64 random(12);
  std::normal_distribution<double> normal(3, 2);
  std::vector<double> values(400);
  for (double& value : values) value = normal(random);
  const Estimate mean = Bootstrap(400, 1).Mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - mean.value) * (value - mean.value);
  const double error = std::sqrt(squares / 400) / std::sqrt(400);
  EXPECT_NEAR(mean.low, mean.value - 1.96 * error, 0.3 * error);
  EXPECT_NEAR(mean.high, mean.value + 1.96 * error, 0.3 * error);
}

// Items differ by far more than the two rows do: paired, the difference is certain.
TEST(BootstrapTest, PairedDifference) {
  std::vector<double> a, b;
  for (int i = 0; i < 50; ++i) {
    b.push_back(i * 10);
    a.push_back(i * 10 + 0.5);
  }
  const Estimate difference = Bootstrap(50, 2).MeanDifference(a, b);
  EXPECT_DOUBLE_EQ(difference.value, 0.5);
  EXPECT_DOUBLE_EQ(difference.low, 0.5);
  EXPECT_DOUBLE_EQ(difference.high, 0.5);
}

TEST(BootstrapTest, RatioOfMeans) {
  const std::vector<double> a = {8, 16, 24}, b = {1, 2, 3};
  const Estimate ratio = Bootstrap(3, 2).RatioOfMeans(a, b);
  EXPECT_DOUBLE_EQ(ratio.value, 8);
  EXPECT_DOUBLE_EQ(ratio.low, 8);
  EXPECT_DOUBLE_EQ(ratio.high, 8);
}

TEST(BootstrapTest, PooledPercentile) {
  // All in one: 1 2 3 4 5, whichever item they belong to.
  const Estimate median = Bootstrap(2, 3).PooledPercentile({{1, 5}, {2, 3, 4}}, 0.5);
  EXPECT_EQ(median.value, 3);
  // Each resample is one item twice, or both: medians 3, 3 and 3.
  EXPECT_EQ(median.low, 3);
  EXPECT_EQ(median.high, 3);
  const Estimate largest = Bootstrap(2, 3).PooledPercentile({{1, 5}, {2, 3, 4}}, 1);
  EXPECT_EQ(largest.value, 5);
  EXPECT_EQ(largest.low, 4);
  EXPECT_EQ(largest.high, 5);
}

}  // namespace
}  // namespace kvasir

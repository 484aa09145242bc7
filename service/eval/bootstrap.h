// Paired bootstrap (Efron & Tibshirani 1993) over items: how far a mean could lie elsewhere by the
// choice of questions alone.
//
// Pure functions; thread-safe. The draws depend on nothing but the seed and the number of items, so
// the intervals are the same on every machine, and rows with the same items are resampled alike.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvasir {

// A value and its 95 % percentile interval.
struct Estimate {
  double value = 0, low = 0, high = 0;
};

inline constexpr int32_t kBootstrapResamples = 2000;

// The value at share `p` in [0, 1] of the sorted values, between two neighbours in proportion
// (numpy's default). NaN if there are none.
double Percentile(std::vector<double> values, double p);

struct Spread {
  double p50 = 0, p95 = 0, max = 0;  // NaN without values
};
Spread SpreadOf(std::vector<double> values);

// Draws the items once; then as many statistics as wanted are estimated on the same draws.
class Bootstrap {
 public:
  // `items` >= 1 (checked).
  Bootstrap(int64_t items, uint64_t seed, int32_t resamples = kBootstrapResamples);

  // The mean of one value an item.
  Estimate Mean(std::span<const double> values) const;
  // The mean of a - b, item by item.
  Estimate MeanDifference(std::span<const double> a, std::span<const double> b) const;
  // mean(a) / mean(b), both over the same drawn items.
  Estimate RatioOfMeans(std::span<const double> a, std::span<const double> b) const;
  // Percentile `p` of all values of all items pooled, where items bring several values each.
  Estimate PooledPercentile(const std::vector<std::vector<double>>& values, double p) const;

 private:
  template <typename Statistic>
  Estimate Interval(double value, Statistic statistic) const;

  int64_t items_;
  int32_t resamples_;
  std::vector<int32_t> draws_;  // [resamples_, items_] item indices
};

}  // namespace kvasir

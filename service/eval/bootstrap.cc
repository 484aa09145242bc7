#include "service/eval/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "kernels/core/status.h"

namespace kvasir {
namespace {

using Draw = std::span<const int32_t>;  // [items] item indices, with repetition

double MeanOf(std::span<const double> values, Draw draw) {
  double sum = 0;
  for (const int32_t item : draw) sum += values[static_cast<size_t>(item)];
  return sum / static_cast<double>(draw.size());
}

// In [0, bound), by multiplication: std::uniform_int_distribution differs between libraries.
int32_t Below(std::mt19937_64* random, int64_t bound) {
  const uint64_t high = (*random)() >> 32;
  return static_cast<int32_t>(high * static_cast<uint64_t>(bound) >> 32);
}

// Partially orders `values` (not empty).
double PercentileInPlace(std::vector<double>* values, double p) {
  const double at = p * static_cast<double>(values->size() - 1);
  const auto below = static_cast<size_t>(at);
  const auto nth = values->begin() + static_cast<std::ptrdiff_t>(below);
  std::nth_element(values->begin(), nth, values->end());
  const double low = *nth;
  if (below + 1 == values->size() || at == static_cast<double>(below)) return low;
  const double high = *std::min_element(nth + 1, values->end());
  if (low == high) return low;  // also where both are infinite
  return low + (at - static_cast<double>(below)) * (high - low);
}

}  // namespace

double Percentile(std::vector<double> values, double p) {
  const bool bad =
      std::any_of(values.begin(), values.end(), [](double v) { return std::isnan(v); });
  if (values.empty() || bad) return std::numeric_limits<double>::quiet_NaN();
  return PercentileInPlace(&values, std::clamp(p, 0.0, 1.0));
}

Spread SpreadOf(std::vector<double> values) {
  return {Percentile(values, 0.5), Percentile(values, 0.95), Percentile(values, 1)};
}

Bootstrap::Bootstrap(int64_t items, uint64_t seed, int32_t resamples)
    : items_(items), resamples_(resamples) {
  KVASIR_CHECK(items >= 1 && items <= std::numeric_limits<int32_t>::max() && resamples >= 1);
  draws_.resize(static_cast<size_t>(items) * static_cast<size_t>(resamples));
  std::mt19937_64 random(seed);
  for (int32_t& draw : draws_) draw = Below(&random, items);
}

template <typename Statistic>
Estimate Bootstrap::Interval(double value, Statistic statistic) const {
  std::vector<double> values(static_cast<size_t>(resamples_));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto count = static_cast<size_t>(items_);
    values[i] = statistic(Draw(draws_).subspan(i * count, count));
  }
  return {value, Percentile(values, 0.025), Percentile(values, 0.975)};
}

Estimate Bootstrap::Mean(std::span<const double> values) const {
  KVASIR_CHECK(static_cast<int64_t>(values.size()) == items_);
  const double mean =
      std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(items_);
  return Interval(mean, [values](Draw draw) { return MeanOf(values, draw); });
}

Estimate Bootstrap::MeanDifference(std::span<const double> a, std::span<const double> b) const {
  KVASIR_CHECK(a.size() == b.size());
  std::vector<double> differences(a.size());
  std::transform(a.begin(), a.end(), b.begin(), differences.begin(), std::minus<>());
  return Mean(differences);
}

Estimate Bootstrap::RatioOfMeans(std::span<const double> a, std::span<const double> b) const {
  KVASIR_CHECK(static_cast<int64_t>(a.size()) == items_ && a.size() == b.size());
  const double ratio =
      std::accumulate(a.begin(), a.end(), 0.0) / std::accumulate(b.begin(), b.end(), 0.0);
  return Interval(ratio, [a, b](Draw draw) { return MeanOf(a, draw) / MeanOf(b, draw); });
}

Estimate Bootstrap::PooledPercentile(const std::vector<std::vector<double>>& values,
                                     double p) const {
  KVASIR_CHECK(static_cast<int64_t>(values.size()) == items_);
  std::vector<double> all;
  for (const auto& item : values) all.insert(all.end(), item.begin(), item.end());
  const double value = Percentile(all, p);
  std::vector<double> pooled;
  return Interval(value, [&](Draw draw) {
    pooled.clear();
    for (const int32_t item : draw) {
      const auto& more = values[static_cast<size_t>(item)];
      pooled.insert(pooled.end(), more.begin(), more.end());
    }
    return Percentile(std::move(pooled), p);
  });
}

}  // namespace kvasir

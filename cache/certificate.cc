#include "cache/certificate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

namespace kvasir {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
// Of alpha * (n + 1), which shall be a whole number wherever it is one on paper.
constexpr double kRounding = 1e-9;
constexpr size_t kNearest = 20;
// Movements below this differ by rounding alone; beyond the other they are all hopeless.
constexpr double kLeastMovement = 1e-9, kMostMovement = 1e9;

bool Lost(double kl, double epsilon) { return !(kl <= epsilon); }

// The smallest lambda at which the sample is lost by the running maximum. Rung j is where some
// lambda stops exactly if its movement is below that of all earlier rungs, and the first such
// lambda is that movement.
double LostFrom(const CalibrationSample& sample, double epsilon) {
  double from = kNever, least = kNever;
  for (size_t rung = 0; rung < sample.movement.size(); ++rung) {
    const double movement = sample.movement[rung];
    if (!(movement < least)) continue;
    least = movement;
    if (Lost(sample.kl[rung], epsilon)) from = movement;
  }
  return from;
}

std::vector<double> SortedLosses(std::span<const CalibrationSample> samples, double epsilon) {
  std::vector<double> from;
  for (const CalibrationSample& sample : samples) from.push_back(LostFrom(sample, epsilon));
  std::sort(from.begin(), from.end());
  return from;
}

// Every lambda at which anything changes.
std::vector<double> SortedMovements(std::span<const CalibrationSample> samples) {
  std::vector<double> movements;
  for (const CalibrationSample& sample : samples) {
    for (const double movement : sample.movement) {
      if (std::isfinite(movement)) movements.push_back(movement);
    }
  }
  std::sort(movements.begin(), movements.end());
  movements.erase(std::unique(movements.begin(), movements.end()), movements.end());
  return movements;
}

double LogOf(double movement) {
  if (std::isnan(movement)) return std::log(kMostMovement);
  return std::log(std::clamp(movement, kLeastMovement, kMostMovement));
}

// How many of n samples may be lost: lost + 1 <= alpha * (n + 1).
double MayLose(size_t n, double alpha) {
  return std::floor(alpha * static_cast<double>(n + 1) + kRounding) - 1;
}

std::optional<double> LambdaOf(std::span<const CalibrationSample> samples, double epsilon,
                               double alpha) {
  const double may_lose = MayLose(samples.size(), alpha);
  if (samples.empty() || may_lose < 0) return std::nullopt;
  const std::vector<double> losses = SortedLosses(samples, epsilon);
  const auto allowed = static_cast<size_t>(may_lose);
  const double below = allowed < losses.size() ? losses[allowed] : kNever;
  const std::vector<double> movements = SortedMovements(samples);
  const auto end = std::lower_bound(movements.begin(), movements.end(), below);
  if (end == movements.begin()) return std::nullopt;
  return *(end - 1);
}

std::map<uint64_t, std::vector<CalibrationSample>> ByGroup(
    std::span<const CalibrationSample> samples) {
  std::map<uint64_t, std::vector<CalibrationSample>> groups;
  for (const CalibrationSample& sample : samples) groups[sample.group].push_back(sample);
  return groups;
}

CalibrationPoint PointAt(std::span<const CalibrationSample> samples, double epsilon,
                         const std::vector<double>& losses, double lambda) {
  const auto n = static_cast<double>(samples.size());
  CalibrationPoint point;
  point.lambda = lambda;
  const auto lost = std::upper_bound(losses.begin(), losses.end(), lambda) - losses.begin();
  point.risk = static_cast<double>(lost) / n;
  point.bound = static_cast<double>(lost + 1) / (n + 1);
  double known = 0, charged = 0;
  for (const CalibrationSample& sample : samples) {
    const size_t stop = StopAt(sample.movement, lambda);
    const bool exact = stop == sample.movement.size();
    point.exact += exact ? 1 / n : 0;
    point.over += !exact && Lost(sample.kl[stop], epsilon) ? 1 / n : 0;
    if (sample.charged.empty()) continue;
    charged += sample.charged[stop];
    ++known;
  }
  point.charged = known > 0 ? charged / known : 0;
  return point;
}

}  // namespace

bool Fits(const CalibrationSample& sample, size_t rungs) {
  return sample.movement.size() == rungs && sample.kl.size() == rungs &&
         (sample.charged.empty() || sample.charged.size() == rungs + 1);
}

size_t StopAt(std::span<const double> movement, std::optional<double> lambda) {
  if (!lambda) return movement.size();
  size_t rung = 0;
  while (rung < movement.size() && !(movement[rung] <= *lambda)) ++rung;
  return rung;
}

std::optional<double> CalibrateLambda(std::span<const CalibrationSample> samples, double epsilon,
                                      double alpha) {
  std::optional<double> lambda = LambdaOf(samples, epsilon, alpha);
  for (const auto& [group, members] : ByGroup(samples)) {
    if (MayLose(members.size(), alpha) < 0) continue;
    const std::optional<double> own = LambdaOf(members, epsilon, alpha);
    if (!own || !lambda) return std::nullopt;
    lambda = std::min(*lambda, *own);
  }
  return lambda;
}

std::optional<double> PredictKl(std::span<const CalibrationSample> samples, size_t rung,
                                double movement, double alpha) {
  if (samples.empty()) return std::nullopt;
  if (rung >= samples.front().movement.size()) return 0;
  std::vector<std::pair<double, double>> near;  // distance, KL
  for (const CalibrationSample& sample : samples) {
    near.emplace_back(std::abs(LogOf(sample.movement[rung]) - LogOf(movement)), sample.kl[rung]);
  }
  std::sort(near.begin(), near.end());
  near.resize(std::min(near.size(), std::max(kNearest, near.size() / 5)));
  std::vector<double> kl;
  for (const auto& [distance, value] : near) kl.push_back(std::isnan(value) ? kNever : value);
  std::sort(kl.begin(), kl.end());
  const double place = std::ceil(static_cast<double>(kl.size() + 1) * (1 - alpha) - kRounding);
  const auto rank = static_cast<size_t>(std::max(place, 1.0));
  return kl[std::min(rank, kl.size()) - 1];
}

std::vector<CalibrationPoint> CalibrationCurve(std::span<const CalibrationSample> samples,
                                               double epsilon, size_t points,
                                               std::optional<double> also) {
  const std::vector<double> movements = SortedMovements(samples);
  const std::vector<double> losses = SortedLosses(samples, epsilon);
  const size_t count = std::min(points, movements.size());
  std::vector<double> lambdas;
  for (size_t i = 0; i < count; ++i) {
    lambdas.push_back(movements[count == 1 ? 0 : i * (movements.size() - 1) / (count - 1)]);
  }
  if (also && !samples.empty()) lambdas.push_back(*also);
  std::sort(lambdas.begin(), lambdas.end());
  lambdas.erase(std::unique(lambdas.begin(), lambdas.end()), lambdas.end());
  std::vector<CalibrationPoint> curve;
  for (const double lambda : lambdas) curve.push_back(PointAt(samples, epsilon, losses, lambda));
  return curve;
}

}  // namespace kvasir

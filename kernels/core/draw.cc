#include "kernels/core/draw.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/core/random.h"

namespace kvasir {
namespace {

// Integers in the order of floats: NaNs lie below -infinity's or above infinity's, both zeros at 0.
constexpr int32_t OrderedKey(float value) {
  const auto bits = std::bit_cast<int32_t>(value + 0.0f);
  return bits ^ (bits >> 31 & 0x7fffffff);
}
constexpr int32_t kLeastKey = OrderedKey(-std::numeric_limits<float>::infinity());
constexpr int32_t kInfinityKey = OrderedKey(std::numeric_limits<float>::infinity());

constexpr auto kHeavierFirst = [](const auto& a, const auto& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
};

}  // namespace

// Extremes of integers make vectors where those of floats, which are not associative, do not.
int32_t BestToken(std::span<const float> logits) {
  constexpr size_t kRun = 1024;
  int32_t best = kLeastKey;
  std::span<const float> where;
  for (size_t begin = 0; begin < logits.size(); begin += kRun) {
    const auto run = logits.subspan(begin, std::min(kRun, logits.size() - begin));
    int32_t least = kInfinityKey, greatest = kLeastKey;
    for (const float logit : run) {
      const int32_t key = OrderedKey(logit);
      least = std::min(least, key);
      greatest = std::max(greatest, key);
    }
    if (least < kLeastKey || greatest >= kInfinityKey) return -1;
    if (greatest > best) {
      best = greatest;
      where = run;
    }
  }
  if (best == kLeastKey) return -1;
  const auto first = std::max_element(where.begin(), where.end());
  return static_cast<int32_t>(&*first - logits.data());
}

void TokenDrawer::KeepTopK(int32_t k) {
  if (k <= 0 || size_t(k) >= candidates_.size()) return;
  std::nth_element(candidates_.begin(), candidates_.begin() + k, candidates_.end(), kHeavierFirst);
  candidates_.resize(size_t(k));
}

// The shortest run of heaviest candidates whose share reaches p. Sorts only as far as needed.
void TokenDrawer::KeepTopP(double p) {
  if (p >= 1.0) return;
  const double total =
      std::accumulate(candidates_.begin(), candidates_.end(), 0.0,
                      [](double sum, const Candidate& c) { return sum + c.weight; });
  double sum = 0.0;
  size_t sorted = 0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    if (i == sorted) {
      sorted = std::min(candidates_.size(), std::max<size_t>(64, sorted * 4));
      std::partial_sort(candidates_.begin() + std::ptrdiff_t(i),
                        candidates_.begin() + std::ptrdiff_t(sorted), candidates_.end(),
                        kHeavierFirst);
    }
    sum += candidates_[i].weight;
    if (sum >= p * total) {
      candidates_.resize(i + 1);
      return;
    }
  }
}

// The heaviest candidate has weight 1 and is never cut.
void TokenDrawer::KeepMinP(double p) {
  if (p <= 0.0) return;
  std::erase_if(candidates_, [p](const Candidate& c) { return c.weight < p; });
}

int32_t TokenDrawer::Pick(double uniform) const {
  double total = 0.0;
  for (const Candidate& c : candidates_) total += c.weight;
  double left = uniform * total;
  for (const Candidate& c : candidates_) {
    left -= c.weight;
    if (left < 0.0) return c.id;
  }
  // Rounding ate the rest: the last candidate that has any weight.
  const auto last = std::find_if(candidates_.rbegin(), candidates_.rend(),
                                 [](const Candidate& c) { return c.weight > 0.0; });
  return last->id;
}

int32_t TokenDrawer::Draw(std::span<const float> logits, const DrawParams& params) {
  const int32_t best = BestToken(logits);
  if (best < 0 || params.temperature <= 0.0f) return best;
  const double max_logit = double{logits[size_t(best)]};
  candidates_.clear();
  candidates_.reserve(logits.size());
  for (size_t id = 0; id < logits.size(); ++id) {
    const double distance = double{logits[id]} - max_logit;
    candidates_.push_back(
        {static_cast<int32_t>(id), std::exp(distance / double{params.temperature})});
  }
  KeepTopK(params.top_k);
  KeepTopP(params.top_p);
  KeepMinP(params.min_p);
  // nth_element leaves an order that depends on the library: draw in order of ids.
  const auto by_id = [](const Candidate& a, const Candidate& b) { return a.id < b.id; };
  if (!std::is_sorted(candidates_.begin(), candidates_.end(), by_id)) {
    std::sort(candidates_.begin(), candidates_.end(), by_id);
  }
  return Pick(UniformAt(params.seed, params.position));
}

}  // namespace kvasir

#include "kernels/cpu/sample.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "kernels/core/random.h"
#include "kernels/core/status.h"
#include "kernels/core/thread_pool.h"
#include "kernels/cpu/elementwise_ops.h"

namespace kvasir {
namespace {

constexpr size_t kRun = 256;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

size_t RunsOf(size_t count) { return (count + kRun - 1) / kRun; }

template <class T>
std::span<T> RunAt(std::span<T> values, size_t run) {
  return values.subspan(run * kRun, std::min(kRun, values.size() - run * kRun));
}

// In double, in eight places, which a compiler makes vectors of.
double SumOf(std::span<const float> values) {
  constexpr size_t kPlaces = 8;
  double sums[kPlaces] = {};
  size_t at = 0;
  for (; at + kPlaces <= values.size(); at += kPlaces) {
    for (size_t place = 0; place < kPlaces; ++place) sums[place] += double{values[at + place]};
  }
  for (; at < values.size(); ++at) sums[0] += double{values[at]};
  return std::accumulate(sums, sums + kPlaces, 0.0);
}

}  // namespace

bool RowDrawer::IsHigher(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

int32_t RowDrawer::FindBest() {
  run_highest_.resize(RunsOf(logits_.size()));
  float highest = -kInfinity;
  size_t where = 0;
  for (size_t run = 0; run < run_highest_.size(); ++run) {
    const auto logits = RunAt(logits_, run);
    const float value = ops_->greatest(logits.data(), static_cast<int64_t>(logits.size()));
    if (std::isnan(value)) return -1;
    run_highest_[run] = value;
    if (value > highest) {
      highest = value;
      where = run;
    }
  }
  if (highest == -kInfinity) return -1;
  const auto logits = RunAt(logits_, where);
  return static_cast<int32_t>(&*std::max_element(logits.begin(), logits.end()) - logits_.data());
}

void RowDrawer::Weigh(float highest, float temperature) {
  // The inverse of the least temperatures is infinite, and 0 times that is no weight.
  const float inverse = std::min(1.0f / temperature, std::numeric_limits<float>::max());
  weights_.resize(logits_.size());
  run_weights_.resize(run_highest_.size());
  for (size_t run = 0; run < run_weights_.size(); ++run) {
    const auto logits = RunAt(logits_, run);
    const auto weights = RunAt(std::span(weights_), run);
    ops_->weigh(logits.data(), static_cast<int64_t>(logits.size()), highest, inverse,
                weights.data());
    run_weights_[run] = SumOf(weights);
  }
}

double RowDrawer::Total() const {
  return std::accumulate(run_weights_.begin(), run_weights_.end(), 0.0);
}

void RowDrawer::GatherByLogit(float least) {
  for (size_t run = 0; run < run_highest_.size(); ++run) {
    if (run_highest_[run] < least) continue;
    const size_t begin = run * kRun, end = std::min(begin + kRun, logits_.size());
    for (size_t id = begin; id < end; ++id) {
      if (logits_[id] < least) continue;
      candidates_.push_back({static_cast<int32_t>(id), logits_[id], double{weights_[id]}});
    }
  }
}

void RowDrawer::GatherByWeight(double least) {
  for (size_t run = 0; run < run_weights_.size(); ++run) {
    if (run_weights_[run] < least) continue;
    const size_t begin = run * kRun, end = std::min(begin + kRun, logits_.size());
    for (size_t id = begin; id < end; ++id) {
      const double weight = double{weights_[id]};
      if (weight >= least) candidates_.push_back({static_cast<int32_t>(id), logits_[id], weight});
    }
  }
}

// At least k logits are as high as the k-th highest of the runs: those are few, and the highest k
// are among them.
void RowDrawer::KeepTopK(int32_t k) {
  const auto count = static_cast<size_t>(k);
  float least = -kInfinity;
  if (count <= run_highest_.size()) {
    std::vector<float> highest = run_highest_;
    std::nth_element(highest.begin(), highest.begin() + (k - 1), highest.end(), std::greater<>());
    least = highest[count - 1];
  }
  GatherByLogit(least);
  std::nth_element(candidates_.begin(), candidates_.begin() + (k - 1), candidates_.end(), IsHigher);
  candidates_.resize(count);
}

// Keeps the shortest run of the highest whose weights reach the goal. Halves what it may end in.
void RowDrawer::KeepTopP(double goal) {
  constexpr ptrdiff_t kFew = 32;
  const auto weigh = [](double sum, const Candidate& c) { return sum + c.weight; };
  double before = 0;
  auto begin = candidates_.begin(), end = candidates_.end();
  while (end - begin > kFew) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, IsHigher);
    const double with = std::accumulate(begin, middle, before, weigh);
    if (with >= goal) {
      end = middle;
    } else {
      begin = middle;
      before = with;
    }
  }
  std::sort(begin, end, IsHigher);
  for (; begin != end; ++begin) {
    before += begin->weight;
    if (before >= goal) {
      candidates_.erase(begin + 1, candidates_.end());
      return;
    }
  }
}

int32_t RowDrawer::PickFromAll(double uniform) const {
  double left = uniform * Total();
  int32_t last = -1;  // taken if rounding eats the rest
  for (size_t run = 0; run < run_weights_.size(); ++run) {
    if (left >= run_weights_[run] && run + 1 < run_weights_.size()) {
      left -= run_weights_[run];
      continue;
    }
    const size_t begin = run * kRun, end = std::min(begin + kRun, weights_.size());
    for (size_t id = begin; id < end; ++id) {
      left -= double{weights_[id]};
      if (left < 0) return static_cast<int32_t>(id);
      if (weights_[id] > 0) last = static_cast<int32_t>(id);
    }
  }
  if (last >= 0) return last;
  const auto some = std::find_if(weights_.rbegin(), weights_.rend(), [](float w) { return w > 0; });
  return static_cast<int32_t>(weights_.rend() - some) - 1;
}

int32_t RowDrawer::PickFromCandidates(double uniform) {
  std::sort(candidates_.begin(), candidates_.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  double left = 0;
  for (const Candidate& c : candidates_) left += c.weight;
  left *= uniform;
  int32_t last = -1;
  for (const Candidate& c : candidates_) {
    left -= c.weight;
    if (left < 0) return c.id;
    if (c.weight > 0) last = c.id;
  }
  return last;
}

int32_t RowDrawer::Draw(std::span<const float> logits, const DrawParams& params) {
  logits_ = logits;
  const int32_t best = FindBest();
  if (best < 0 || params.temperature <= 0) return best;
  Weigh(logits[static_cast<size_t>(best)], params.temperature);
  const double uniform = UniformAt(params.seed, params.position);
  const bool cuts_k = params.top_k > 0 && static_cast<size_t>(params.top_k) < logits.size();
  const bool cuts_p = params.top_p < 1;
  if (!cuts_k && !cuts_p && params.min_p <= 0) return PickFromAll(uniform);

  candidates_.clear();
  double total = Total();
  if (cuts_k) {
    KeepTopK(params.top_k);
    total = 0;
    for (const Candidate& c : candidates_) total += c.weight;
  } else {
    // All that weigh less than this together are less than top-p leaves out, or are below min-p.
    const double lightest = (1 - double{params.top_p}) * total / static_cast<double>(logits.size());
    GatherByWeight(cuts_p ? 0.999 * lightest : double{params.min_p});
  }
  if (cuts_p) KeepTopP(double{params.top_p} * total);
  std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < double{params.min_p}; });
  return PickFromCandidates(uniform);
}

void CpuSample(ThreadPool& threads, std::span<RowDrawer> drawers, const TensorView& logits,
               std::span<const RowDraw> draws, std::span<int32_t> tokens) {
  KVASIR_CHECK(draws.size() == tokens.size() && logits.dtype == DType::kF32);
  for (const RowDraw& draw : draws) KVASIR_CHECK(draw.row >= 0 && draw.row < logits.rows);
  threads.ParallelFor(static_cast<int64_t>(draws.size()), [&](int64_t task, int thread) {
    const RowDraw& draw = draws[static_cast<size_t>(task)];
    const std::span<const float> row(logits.f32_row(draw.row), static_cast<size_t>(logits.cols));
    tokens[static_cast<size_t>(task)] = drawers[static_cast<size_t>(thread)].Draw(row, draw.params);
  });
}

}  // namespace kvasir

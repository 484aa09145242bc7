#include "cache/selector.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/status.h"

namespace kvasir {
namespace {

struct Candidate {
  size_t segment = 0;
  int32_t local = 0;
  float score = 0;
};

bool IsFused(const SegmentPlan& segment) {
  return segment.blocks != nullptr && segment.reuse == ReuseKind::kFused;
}

bool Before(const Candidate& a, const Candidate& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.segment != b.segment ? a.segment < b.segment : a.local < b.local;
}

std::vector<Candidate> CandidatesOf(const SegmentPlan& segment, size_t index, int32_t base,
                                    const std::vector<float>& scores) {
  std::vector<Candidate> candidates;
  auto taken = segment.recompute.begin();
  for (int32_t local = 0; local < segment.reused(); ++local) {
    if (taken != segment.recompute.end() && *taken == local) {
      ++taken;
      continue;
    }
    candidates.push_back({index, local, scores[static_cast<size_t>(base + local)]});
  }
  return candidates;
}

// Moves the best `count` of the pool to `chosen`.
void Take(size_t count, std::vector<Candidate>* pool, std::vector<Candidate>* chosen) {
  std::sort(pool->begin(), pool->end(), Before);
  count = std::min(count, pool->size());
  chosen->insert(chosen->end(), pool->begin(), pool->begin() + std::ptrdiff_t(count));
  pool->erase(pool->begin(), pool->begin() + std::ptrdiff_t(count));
}

double SumOf(const std::vector<Candidate>& candidates) {
  double sum = 0;
  for (const Candidate& candidate : candidates) sum += candidate.score;
  return sum;
}

// How many of the sorted candidates hold `share` of `total`, `held` of which is chosen already.
size_t RowsForMass(const std::vector<Candidate>& sorted, double share, double total, double held) {
  size_t rows = 0;
  for (; rows < sorted.size() && held < share * total; ++rows) held += sorted[rows].score;
  return rows;
}

void Smooth(int32_t width, std::vector<float>* scores) {
  if (width <= 1) return;
  const std::vector<float> raw = *scores;
  const auto count = static_cast<int32_t>(raw.size());
  for (int32_t i = 0; i < count; ++i) {
    const int32_t begin = std::max(0, i - width / 2), end = std::min(count, i + width / 2 + 1);
    double sum = 0;
    for (int32_t j = begin; j < end; ++j) sum += raw[static_cast<size_t>(j)];
    (*scores)[static_cast<size_t>(i)] = static_cast<float>(sum / (end - begin));
  }
}

}  // namespace

LayerRange LayersOf(const QuerySelector& selector, int32_t layers) {
  const auto begin = static_cast<int32_t>(std::lround(selector.layer_begin * layers));
  const auto end = static_cast<int32_t>(std::lround(selector.layer_end * layers));
  const int32_t first = std::clamp(begin, 0, layers - 1);
  return {first, std::clamp(end, first + 1, layers)};
}

std::vector<float> AttentionScores(const AttentionMass& mass, const QuerySelector& selector) {
  std::vector<float> scores(static_cast<size_t>(mass.positions), 0.0f);
  for (int32_t layer = mass.layer_begin; layer < mass.layer_end; ++layer) {
    const float* from = mass.Of(layer);
    for (int32_t head = 0; head < mass.heads; ++head) {
      for (float& score : scores) {
        const float weight = *from++;
        score = selector.heads == HeadMerge::kSum ? score + weight : std::max(score, weight);
      }
    }
  }
  Smooth(selector.smooth, &scores);
  return scores;
}

std::vector<float> Deviations(const std::vector<float>& fresh, const std::vector<float>& stored,
                              int32_t rows) {
  KVASIR_CHECK(fresh.size() == stored.size() && rows > 0);
  std::vector<float> deviations(static_cast<size_t>(rows), 0.0f);
  const size_t width = fresh.size() / deviations.size();
  for (size_t row = 0; row < deviations.size(); ++row) {
    for (size_t i = row * width; i < (row + 1) * width; ++i) {
      const float distance = fresh[i] - stored[i];
      deviations[row] += distance * distance;
    }
  }
  return deviations;
}

int64_t FusedRows(const PromptPlan& plan) {
  int64_t rows = 0;
  for (const SegmentPlan& segment : plan.segments) rows += IsFused(segment) ? segment.reused() : 0;
  return rows;
}

int32_t SelectRows(const std::vector<float>& scores, const SelectionBudget& budget,
                   PromptPlan* plan) {
  std::vector<Candidate> pool, chosen;
  double total = 0;
  int32_t base = 0;
  for (size_t s = 0; s < plan->segments.size(); ++s) {
    const SegmentPlan& segment = plan->segments[s];
    KVASIR_CHECK(scores.size() >= static_cast<size_t>(base + segment.tokens()));
    if (IsFused(segment)) {
      std::vector<Candidate> own = CandidatesOf(segment, s, base, scores);
      total += SumOf(own);
      Take(static_cast<size_t>(std::lround(budget.floor * segment.reused())), &own, &chosen);
      pool.insert(pool.end(), own.begin(), own.end());
    }
    base += segment.tokens();
  }
  const auto wanted =
      static_cast<size_t>(std::lround(budget.ratio * static_cast<double>(FusedRows(*plan))));
  if (chosen.size() < wanted) {
    std::sort(pool.begin(), pool.end(), Before);
    size_t more = wanted - chosen.size();
    if (budget.mass < 1) {
      more = std::min(more, RowsForMass(pool, budget.mass, total, SumOf(chosen)));
    }
    Take(more, &pool, &chosen);
  }
  for (const Candidate& candidate : chosen) {
    plan->segments[candidate.segment].recompute.push_back(candidate.local);
  }
  for (SegmentPlan& segment : plan->segments) {
    std::sort(segment.recompute.begin(), segment.recompute.end());
  }
  return static_cast<int32_t>(chosen.size());
}

}  // namespace kvasir

// Selector: which rows of reused chunks are computed again. Pure functions from scores to rows; the
// seam at which ways of choosing are tried against each other.
//
// Scores are one number a prompt position, higher = sooner. Candidates are the rows that have
// fused KV (ReuseKind::kFused) and are not in `recompute` yet.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/fusion_policy.h"
#include "kernels/core/attention_mass.h"
#include "kernels/core/prompt_plan.h"

namespace kvasir {

// Layers [begin, end) that a selector asks, of `layers`; at least one.
struct LayerRange {
  int32_t begin = 0, end = 0;
};
LayerRange LayersOf(const QuerySelector& selector, int32_t layers);

// What `mass` says of every position: over its layers summed, over heads summed or the largest,
// then averaged over `smooth` neighbours.
std::vector<float> AttentionScores(const AttentionMass& mass, const QuerySelector& selector);

// Squared distance of values, summed over a row's heads and dimensions: blend's score.
// fresh, stored: fp32 [rows][width]. Source: CacheBlend (Yao et al. 2024), section 4.
std::vector<float> Deviations(const std::vector<float>& fresh, const std::vector<float>& stored,
                              int32_t rows);

struct SelectionBudget {
  double ratio = 0;  // of all rows with fused KV, rounded to the nearest count
  double floor = 0;  // share of every chunk's rows taken first
  double mass = 1;   // stop when the chosen hold this share of all candidates' scores
};

// Adds the candidates with the highest scores (ties: the earlier row) to the plan's `recompute`;
// returns how many. scores [prompt tokens].
int32_t SelectRows(const std::vector<float>& scores, const SelectionBudget& budget,
                   PromptPlan* plan);

// All rows with fused KV.
int64_t FusedRows(const PromptPlan& plan);

}  // namespace kvasir

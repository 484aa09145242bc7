// Repair: chooses the rows of a fused prompt that are computed again, by passes through the model.
//
//   query(r)  a look: the question over the stored KV, its attention gathered on the way
//   blend(r)  a probe: layers 0 and 1 of the whole prompt, V at layer 1 against the stored one
//   shift     a pass over the chosen rows, whose mean change moves the others (service/kv_shift.h)
// Looks and probes are requests like any other (they wait their turn) and block the caller.
// Thread-safe. Sources: ProphetKV and FusionRAG (attention), CacheBlend (deviation).
#pragma once

#include <utility>
#include <vector>

#include "cache/fusion_policy.h"
#include "engine/engine.h"
#include "kernels/core/attention_mass.h"
#include "kernels/core/prompt_plan.h"
#include "kernels/core/status.h"

namespace kvasir {

struct RepairReport {
  double ms = 0;
  int32_t looks = 0;
  int32_t selected = 0;  // rows
  // Rows computed only to choose others, in whole rows: rows x layers / all layers.
  double looked_rows = 0;
};

// The whole prompt as one segment without KV: exact prefill.
PromptPlan FlatPlan(const PromptPlan& plan);

class Repair {
 public:
  // stop_ids end a selector's draft.
  Repair(Engine& engine, std::vector<int32_t> stop_ids)
      : engine_(engine), stop_ids_(std::move(stop_ids)) {}

  // Adds rows to `recompute` of the plan's fused segments as the policy's blend and query terms
  // say; link rows are there already.
  Result<RepairReport> Choose(const FusionPolicy& policy, PromptPlan* plan);

  // One look: attention of the selector's rows and layers over the plan as it is, and, unless
  // null, the logits of its last row.
  Result<AttentionMass> Look(const PromptPlan& plan, const QuerySelector& selector,
                             std::vector<float>* logits = nullptr);

 private:
  Status AddQueryRows(const QuerySelector& query, PromptPlan* plan, RepairReport* report);
  Status AddBlendRows(double ratio, PromptPlan* plan, RepairReport* report);
  // Deviation of V at layer 1 for every prompt position, 0 where nothing is stored.
  Result<std::vector<float>> ProbeDeviations(const PromptPlan& plan);

  Engine& engine_;
  const std::vector<int32_t> stop_ids_;
};

}  // namespace kvasir

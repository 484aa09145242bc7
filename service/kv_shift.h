// KvShift: the policies' add-on `shift`. Rows of chunk KV that stay as they were stored move by the
// mean change of the rows that were computed again: dK and dV a layer, kv head and dimension, dK
// before RoPE. Source: AgentKVShift (2025).
//
// The shifted rows lie in blocks of the request's own, the whole of its chunk KV once more: it
// costs that room in the pool and the time to read and write it, on the caller's thread, and one
// pass over the chosen rows and the question before the answer's.
#pragma once

#include "engine/engine.h"
#include "kernels/core/prompt_plan.h"
#include "kernels/core/status.h"

namespace kvasir {

class KvShift {
 public:
  explicit KvShift(Engine& engine) : engine_(engine) {}

  // Computes the rows in `recompute` of the plan's fused segments, shifts the others, and leaves a
  // plan that computes neither again. Adds the rows of the pass that the answer computes once more
  // to `looked_rows`. Without such rows nothing changes. kResourceExhausted: no room in the pool.
  Status Apply(PromptPlan* plan, double* looked_rows);

 private:
  Engine& engine_;
};

}  // namespace kvasir

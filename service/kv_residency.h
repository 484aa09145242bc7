// KvResidency: what the cached KV of several prompts takes in the engine's pool. Pure.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/prompt_plan.h"

namespace kvasir {

struct KvResidency {
  int64_t handles = 0;        // distinct KvBlocks among the prompts
  int64_t shared_blocks = 0;  // distinct blocks of cached KV: what lies in the pool
  int64_t copied_blocks = 0;  // the same counted once a use: what private copies would take
};

KvResidency ResidencyOf(std::span<const PromptPlan> plans);

}  // namespace kvasir

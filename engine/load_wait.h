// What the engine's thread does about blocks that are still being loaded (KvReadiness): when a
// request may begin, how its step waits, and what becomes of it if a load fails. The engine's
// thread alone, unless said otherwise.
#pragma once

#include <cstdint>
#include <span>

#include "engine/sequence.h"
#include "kernels/core/prompt_plan.h"
#include "kernels/core/status.h"

namespace kvasir {

// Alone, a request begins when the first layer of all its blocks is there, and its step waits for
// the others; beside other requests, which should not wait with it, and where blocks are to be
// copied, when all layers are. Blocks whose load has failed keep nobody waiting.
bool MayBegin(const PromptPlan& plan, bool alone);

bool IsComplete(const PromptPlan& plan);

// Waits until the blocks have layers 0 to `layer`; any thread. kUnavailable: their load failed, or
// brought nothing for seconds.
Status AwaitBlocks(const KvBlocks& blocks, int32_t layer);
// The same of all blocks of the sequences.
Status AwaitLayer(std::span<Sequence* const> sequences, int32_t layer);

// Takes out blocks that are not complete: their tokens are computed instead. Returns what they were
// counted as.
LostRows DropIncomplete(PromptPlan* plan);

}  // namespace kvasir

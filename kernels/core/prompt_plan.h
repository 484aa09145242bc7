// PromptPlan: what the cache's Assembler hands to the engine: one prompt as a list of segments,
// each with the KV that already lies in the pool and the rows that must be computed.
//
// Positions: segment s begins at base(s) = sum of the token counts before it; token j of it has
// position base(s) + j and lies in the pool at *local* position j. Segments side by side all begin
// where the first of them would, and what follows begins behind the longest (BasesOf). Immutable
// once submitted.
#pragma once

#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/core/kv_layout.h"
#include "kernels/core/step_batch.h"

namespace kvasir {

// What a reused token counts as in the accounting.
enum class ReuseKind : uint8_t { kNone, kPrefix, kFused };

struct SegmentPlan {
  std::vector<int32_t> token_ids;
  // KV of the first `blocks->tokens()` tokens (all of a chunk, a leading multiple of kBlockTokens
  // of an exact prefix); null = none. Shared blocks are never written.
  std::shared_ptr<const KvBlocks> blocks;
  ReuseKind reuse = ReuseKind::kNone;
  // Rows with KV in `blocks` that are computed again all the same (sparse re-prefill), sorted,
  // unique, local indices < blocks->tokens(). Written into private copies of their blocks.
  std::vector<int32_t> recompute;
  // Of the reused tokens: rows that an earlier pass of the same answer computed again, whose KV
  // `blocks` holds already. Counted as recomputed.
  int32_t repaired = 0;
  // Shares its positions with the other such segments; all its tokens have KV and none is computed
  // again. ContextScale applies to it.
  bool side_by_side = false;

  int32_t tokens() const { return static_cast<int32_t>(token_ids.size()); }
  int32_t reused() const { return blocks ? blocks->tokens() : 0; }
  // Rows that a pass over the prompt computes.
  int32_t rows() const { return tokens() - reused() + static_cast<int32_t>(recompute.size()); }
  // Reused rows left as they were stored.
  int32_t kept() const { return reused() - repaired - static_cast<int32_t>(recompute.size()); }
};

// The last segment must hold at least one row to compute: the last prompt token, whose logits
// start the answer. Generated tokens continue the last segment.
struct PromptPlan {
  std::vector<SegmentPlan> segments;
  ContextScale context = {};  // of segments side by side

  int64_t rows() const {
    int64_t rows = 0;
    for (const SegmentPlan& segment : segments) rows += segment.rows();
    return rows;
  }
};

// The first position of each segment.
std::vector<int32_t> BasesOf(const PromptPlan& plan);
// Positions that the prompt takes: its tokens, or less with segments side by side.
int64_t PositionsOf(const PromptPlan& plan);

// Exact accounting of a prompt: requested = prefix + fused + recomputed + computed.
struct PromptAccount {
  int64_t requested = 0;   // all prompt tokens
  int64_t prefix = 0;      // reused from an exact prefix
  int64_t fused = 0;       // reused from chunk KV and left as it was
  int64_t recomputed = 0;  // had KV, computed again by the policy
  int64_t computed = 0;    // had no KV
  // Work beside these: rows computed only to choose others, as rows of all layers.
  double looked = 0;
  // Row-layers with fresh Q, K, V over all row-layers of the prompt, the question included.
  double ChargedFraction() const {
    return requested == 0 ? 0.0
                          : (static_cast<double>(recomputed + computed) + looked) /
                                static_cast<double>(requested);
  }
};

// Reused rows whose KV could not be loaded after all, so that they were computed.
struct LostRows {
  int64_t prefix = 0, fused = 0, recomputed = 0;
};
inline void MoveLost(const LostRows& lost, PromptAccount* account) {
  account->prefix -= lost.prefix;
  account->fused -= lost.fused;
  account->recomputed -= lost.recomputed;
  account->computed += lost.prefix + lost.fused + lost.recomputed;
}

inline PromptAccount AccountOf(const PromptPlan& plan) {
  PromptAccount account;
  for (const SegmentPlan& segment : plan.segments) {
    account.requested += segment.tokens();
    account.recomputed += segment.reused() - segment.kept();
    account.computed += segment.tokens() - segment.reused();
    (segment.reuse == ReuseKind::kPrefix ? account.prefix : account.fused) += segment.kept();
  }
  return account;
}

}  // namespace kvasir

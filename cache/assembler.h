// Assembler: anchor, chunks, tail and a policy become a PromptPlan, with exact accounting.
//
//   exact          one segment, nothing reused
//   prefix         one segment, beginning with what PrefixIndex holds of it; chunks in the policy's
//                  order (cache/chunk_order.h)
//   concat, link   anchor | chunk 1 | ... | chunk n | tail, one segment each, so that every run's
//                  KV lies at local positions; a chunk without blocks is computed in its place;
//                  terms that need a look at the model (query, blend) are not applied here
//   parallel       the same with chunks side by side; those without blocks come behind them all
// The last prompt token is always computed. Thread-safe; no I/O, no engine.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cache/fusion_policy.h"
#include "cache/prefix_index.h"
#include "kernels/core/kv_layout.h"
#include "kernels/core/prompt_plan.h"
#include "kernels/core/status.h"

namespace kvasir {

struct AssemblyChunk {
  std::vector<int32_t> token_ids;
  std::shared_ptr<const KvBlocks> blocks;  // of all its tokens; null = compute it in the prompt
};

struct AssemblyInput {
  std::string name_space;           // for PrefixIndex
  std::vector<int32_t> anchor_ids;  // may be empty
  // KV of all of the anchor's tokens or of a leading multiple of kBlockTokens. Null: the prefix
  // index is asked (concat and link; exact computes it, prefix matches the whole prompt).
  std::shared_ptr<const KvBlocks> anchor_blocks;
  std::vector<AssemblyChunk> chunks;  // in the order of the prompt; empty ones are left out
  std::vector<int32_t> tail_ids;      // at least one token
  FusionPolicy policy;
};

struct Assembly {
  PromptPlan plan;
  PromptAccount account;  // of the plan: requested = prefix + fused + recomputed + computed
  FusionPolicy policy;
};

class Assembler {
 public:
  // prefix_index may be null (then prefix means exact); it must outlive this.
  explicit Assembler(PrefixIndex* prefix_index) : prefix_index_(prefix_index) {}

  // kInvalidArgument: no tail. kInternal: blocks that do not fit their tokens.
  Result<Assembly> Assemble(AssemblyInput input) const;

 private:
  void Reorder(AssemblyInput* input) const;
  SegmentPlan Flat(const AssemblyInput& input) const;
  Result<SegmentPlan> Anchor(AssemblyInput& input) const;

  PrefixIndex* prefix_index_;
};

}  // namespace kvasir

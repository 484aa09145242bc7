// PrefixIndex: which pool blocks hold exact KV of which prompt beginnings.
//
// A radix tree a namespace over full blocks of kBlockTokens tokens; edges compare tokens, never
// hashes alone. Only exact KV may enter: computed from position 0 with nothing fused in front.
// Leaves are evicted least recently used first, and never while a request uses their blocks.
// Thread-safe; one mutex, no I/O under it. Blocks are released outside the mutex.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "kernels/core/kv_layout.h"
#include "kernels/core/prompt_plan.h"
#include "kernels/core/status.h"

namespace kvasir {

struct PrefixIndexStats {
  uint64_t nodes = 0, blocks = 0;  // blocks: full blocks that Match can reach
  uint64_t lookups = 0, hits = 0;  // hits: at least one block matched
  uint64_t tokens_asked = 0, tokens_matched = 0;
  uint64_t evicted_blocks = 0;
};

class PrefixIndex {
 public:
  // Holds at most max_blocks blocks that nobody uses; 0 = no bound but reclaiming. Give it a bound
  // (a quarter of the pool, say): prompts seldom return, and without one they fill the pool and
  // crowd out the chunks.
  explicit PrefixIndex(int32_t max_blocks = 0);
  ~PrefixIndex();

  // The longest stored prefix of token_ids, as blocks of a multiple of kBlockTokens tokens; null
  // if not one full block. The result keeps its blocks alive and in place. name_space must name
  // everything that changes KV beside the tokens (tenant; one index serves one model and engine).
  std::shared_ptr<const KvBlocks> Match(std::string_view name_space,
                                        std::span<const int32_t> token_ids);
  // Match without touching recency or counters: tokens that would match (dry runs).
  int32_t MatchedTokens(std::string_view name_space, std::span<const int32_t> token_ids) const;

  // Stores blocks that hold exact KV of the first blocks->tokens() of token_ids; an incomplete
  // last block is left out. Beginnings that are there already keep their first blocks.
  void Insert(std::string_view name_space, std::span<const int32_t> token_ids,
              std::shared_ptr<const KvBlocks> blocks);
  // The same for a prompt that ran (Request::on_prefix). kInvalidArgument for a plan that is not
  // exact: more than one segment, fused reuse or recomputed rows.
  Status InsertPrompt(std::string_view name_space, const PromptPlan& plan,
                      std::shared_ptr<const KvBlocks> blocks);

  // Drops everything of a namespace; blocks in use stay with their users.
  void RemoveNamespace(std::string_view name_space);
  // For Engine::SetReclaimer, after TieredCache's: gives up at least `blocks` blocks if it can,
  // leaves first; returns how many.
  int32_t ReclaimBlocks(int32_t blocks);

  PrefixIndexStats stats() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kvasir

#include "cache/assembler.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "cache/chunk_order.h"

namespace kvasir {
namespace {

std::vector<int32_t> Concatenated(const AssemblyInput& input) {
  std::vector<int32_t> ids = input.anchor_ids;
  for (const AssemblyChunk& chunk : input.chunks) {
    ids.insert(ids.end(), chunk.token_ids.begin(), chunk.token_ids.end());
  }
  ids.insert(ids.end(), input.tail_ids.begin(), input.tail_ids.end());
  return ids;
}

bool HoldsIds(const KvBlocks& blocks) {
  return blocks.tokens() > 0 &&
         blocks.ids().size() == static_cast<size_t>(BlocksFor(blocks.tokens()));
}

std::vector<int32_t> FirstRows(int32_t count) {
  std::vector<int32_t> rows(static_cast<size_t>(count));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

Result<SegmentPlan> ChunkSegment(AssemblyChunk chunk, const FusionPolicy& policy) {
  SegmentPlan segment;
  segment.token_ids = std::move(chunk.token_ids);
  if (!chunk.blocks) return segment;
  if (!HoldsIds(*chunk.blocks) || chunk.blocks->tokens() != segment.tokens()) {
    return Internal("a chunk of " + std::to_string(segment.tokens()) + " tokens came with KV of " +
                    std::to_string(chunk.blocks->tokens()));
  }
  segment.blocks = std::move(chunk.blocks);
  segment.reuse = ReuseKind::kFused;
  segment.recompute = FirstRows(std::min(policy.link_tokens, segment.tokens()));
  segment.side_by_side = policy.parallel;
  return segment;
}

}  // namespace

// Fused chunks stay in the caller's order: they cost the same at any place.
void Assembler::Reorder(AssemblyInput* input) const {
  if (input->policy.order == ChunkOrder::kAsGiven) return;
  std::vector<std::span<const int32_t>> ids;
  for (const AssemblyChunk& chunk : input->chunks) ids.emplace_back(chunk.token_ids);
  std::vector<AssemblyChunk> ordered;
  for (const size_t index :
       OrderOf(input->policy.order, input->name_space, input->anchor_ids, ids, prefix_index_)) {
    ordered.push_back(std::move(input->chunks[index]));
  }
  input->chunks = std::move(ordered);
}

SegmentPlan Assembler::Flat(const AssemblyInput& input) const {
  SegmentPlan segment;
  segment.token_ids = Concatenated(input);
  if (input.policy.kind == PolicyKind::kExact || prefix_index_ == nullptr) return segment;
  // The last token is never matched: its logits start the answer.
  const std::span<const int32_t> reusable(segment.token_ids.data(), segment.token_ids.size() - 1);
  segment.blocks = prefix_index_->Match(input.name_space, reusable);
  if (segment.blocks) segment.reuse = ReuseKind::kPrefix;
  return segment;
}

Result<SegmentPlan> Assembler::Anchor(AssemblyInput& input) const {
  SegmentPlan segment;
  segment.token_ids = std::move(input.anchor_ids);
  segment.blocks = std::move(input.anchor_blocks);
  if (!segment.blocks && prefix_index_ != nullptr) {
    segment.blocks = prefix_index_->Match(input.name_space, segment.token_ids);
  }
  if (!segment.blocks) return segment;
  const int32_t reused = segment.reused();
  const bool whole_blocks = reused % kBlockTokens == 0;
  if (!HoldsIds(*segment.blocks) || reused > segment.tokens() ||
      (reused != segment.tokens() && !whole_blocks)) {
    return Internal("an anchor of " + std::to_string(segment.tokens()) +
                    " tokens came with KV of " + std::to_string(reused));
  }
  segment.reuse = ReuseKind::kPrefix;
  return segment;
}

Result<Assembly> Assembler::Assemble(AssemblyInput input) const {
  if (input.tail_ids.empty()) return InvalidArgument("the prompt has no text after its documents");
  Assembly assembly;
  assembly.policy = input.policy;
  std::vector<SegmentPlan>& segments = assembly.plan.segments;
  std::erase_if(input.chunks, [](const AssemblyChunk& chunk) { return chunk.token_ids.empty(); });
  if (!input.policy.fused() || input.chunks.empty()) {
    Reorder(&input);
    segments.push_back(Flat(input));
  } else {
    KVASIR_ASSIGN_OR_RETURN(SegmentPlan anchor, Anchor(input));
    if (anchor.tokens() > 0) segments.push_back(std::move(anchor));
    for (AssemblyChunk& chunk : input.chunks) {
      KVASIR_ASSIGN_OR_RETURN(SegmentPlan segment, ChunkSegment(std::move(chunk), input.policy));
      segments.push_back(std::move(segment));
    }
    if (input.policy.parallel) {
      assembly.plan.context = {static_cast<float>(input.policy.temperature),
                               static_cast<float>(input.policy.scale)};
    }
    SegmentPlan tail;
    tail.token_ids = std::move(input.tail_ids);
    segments.push_back(std::move(tail));
  }
  assembly.account = AccountOf(assembly.plan);
  return assembly;
}

}  // namespace kvasir

#include "engine/load_wait.h"

#include <algorithm>
#include <chrono>

namespace kvasir {
namespace {

constexpr std::chrono::seconds kLongestWait{2};

// Blocks of the segment are copied before its first step, with all their layers.
bool IsCopied(const SegmentPlan& segment) {
  return !segment.recompute.empty() || segment.tokens() > segment.reused();
}

bool MayBegin(const SegmentPlan& segment, bool alone) {
  if (!segment.blocks || segment.blocks->complete()) return true;
  if (segment.blocks->readiness()->failed()) return true;
  return alone && !IsCopied(segment) && segment.blocks->Has(1);
}

}  // namespace

bool MayBegin(const PromptPlan& plan, bool alone) {
  return std::all_of(plan.segments.begin(), plan.segments.end(),
                     [alone](const SegmentPlan& segment) { return MayBegin(segment, alone); });
}

bool IsComplete(const PromptPlan& plan) {
  return std::all_of(plan.segments.begin(), plan.segments.end(), [](const SegmentPlan& segment) {
    return !segment.blocks || segment.blocks->complete();
  });
}

Status AwaitBlocks(const KvBlocks& blocks, int32_t layer) {
  if (blocks.Has(layer + 1) || blocks.readiness()->WaitFor(layer + 1, kLongestWait)) {
    return Status::Ok();
  }
  return Unavailable("KV of " + std::to_string(blocks.tokens()) + " tokens could not be loaded");
}

Status AwaitLayer(std::span<Sequence* const> sequences, int32_t layer) {
  for (const Sequence* sequence : sequences) {
    for (const SegmentPlan& segment : sequence->request().prompt.segments) {
      if (segment.blocks) KVASIR_RETURN_IF_ERROR(AwaitBlocks(*segment.blocks, layer));
    }
  }
  return Status::Ok();
}

LostRows DropIncomplete(PromptPlan* plan) {
  LostRows lost;
  for (SegmentPlan& segment : plan->segments) {
    if (!segment.blocks || segment.blocks->complete()) continue;
    (segment.reuse == ReuseKind::kPrefix ? lost.prefix : lost.fused) += segment.kept();
    lost.recomputed += segment.reused() - segment.kept();
    segment.blocks.reset();
    segment.reuse = ReuseKind::kNone;
    segment.recompute.clear();
    segment.repaired = 0;
    segment.side_by_side = false;  // computed, it stands behind the others
  }
  return lost;
}

}  // namespace kvasir

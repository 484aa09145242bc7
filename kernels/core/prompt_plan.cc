#include "kernels/core/prompt_plan.h"

#include <algorithm>

namespace kvasir {
namespace {

int32_t WidestOf(const PromptPlan& plan) {
  int32_t widest = 0;
  for (const SegmentPlan& segment : plan.segments) {
    if (segment.side_by_side) widest = std::max(widest, segment.tokens());
  }
  return widest;
}

}  // namespace

std::vector<int32_t> BasesOf(const PromptPlan& plan) {
  std::vector<int32_t> bases;
  int32_t next = 0, shared = -1;
  for (const SegmentPlan& segment : plan.segments) {
    if (segment.side_by_side && shared < 0) {
      shared = next;
      next += WidestOf(plan);
    }
    bases.push_back(segment.side_by_side ? shared : next);
    if (!segment.side_by_side) next += segment.tokens();
  }
  return bases;
}

int64_t PositionsOf(const PromptPlan& plan) {
  int64_t positions = WidestOf(plan);
  for (const SegmentPlan& segment : plan.segments) {
    if (!segment.side_by_side) positions += segment.tokens();
  }
  return positions;
}

}  // namespace kvasir

#include "service/kv_residency.h"

#include <unordered_set>

namespace kvasir {

KvResidency ResidencyOf(std::span<const PromptPlan> plans) {
  KvResidency residency;
  std::unordered_set<const KvBlocks*> handles;
  std::unordered_set<int32_t> blocks;
  for (const PromptPlan& plan : plans) {
    for (const SegmentPlan& segment : plan.segments) {
      if (!segment.blocks) continue;
      const std::vector<int32_t>& ids = segment.blocks->ids();
      handles.insert(segment.blocks.get());
      blocks.insert(ids.begin(), ids.end());
      residency.copied_blocks += static_cast<int64_t>(ids.size());
    }
  }
  residency.handles = static_cast<int64_t>(handles.size());
  residency.shared_blocks = static_cast<int64_t>(blocks.size());
  return residency;
}

}  // namespace kvasir

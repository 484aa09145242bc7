#include "kernels/cpu/weight_arena.h"

#include <algorithm>
#include <utility>

namespace kvasir {

Result<ArenaMemory> WeightArena::Allocate(size_t bytes) {
  if (block_ == nullptr || block_->bytes() - used_ < bytes) {
    KVASIR_ASSIGN_OR_RETURN(AlignedMemory memory,
                            AlignedMemory::Allocate(std::max(bytes, kBlockBytes)));
    block_ = std::make_shared<const AlignedMemory>(std::move(memory));
    used_ = 0;
  }
  ArenaMemory part{block_, block_->As<uint8_t>() + used_, bytes};
  used_ = std::min(block_->bytes(), used_ + (bytes + 63) / 64 * 64);
  return part;
}

}  // namespace kvasir

// WeightArena: memory for packed weights, carved one after the other from large blocks of huge
// pages. A layer's matrices are a few hundred KB each: on pages of 4 KB their products would wait
// for address translation and lose the hardware's prefetching at every page.
//
// Not thread-safe. A block lives as long as any weight in it (or the arena while it fills it).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/core/status.h"
#include "kernels/cpu/aligned_memory.h"

namespace kvasir {

// A 64-byte aligned part of an arena's block; keeps the block alive.
struct ArenaMemory {
  std::shared_ptr<const AlignedMemory> block;
  uint8_t* data = nullptr;
  size_t bytes = 0;
};

class WeightArena {
 public:
  // kResourceExhausted if there is no memory.
  Result<ArenaMemory> Allocate(size_t bytes);

 private:
  static constexpr size_t kBlockBytes = size_t{64} << 20;  // of address space, used as filled

  std::shared_ptr<const AlignedMemory> block_;
  size_t used_ = 0;
};

}  // namespace kvasir

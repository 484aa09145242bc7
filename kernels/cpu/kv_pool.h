// CpuKvPool: KV in host memory, layer-major: [L][blocks][G][K tile | V tile].
//
// A tile holds the 16 slots of one block, kv head and plane, so that attention reads it in order:
//   bf16:  K [D/2][16 slots][2]: one 64-byte load holds two dimensions of 16 keys;
//          V [8][D'][2 slots]:   one 64-byte load holds 16 dimensions of two values;
//   fp32:  K [D][16 slots], V [16 slots][D'];
//   int8:  K and V in the order of bf16, one byte a value; behind K (from the next multiple of 64
//          bytes on) fp32 scales [ceil(D/32)][16 slots], behind V scales [16 slots] (KvLayout says
//          of what).
// D' is D rounded up to 16; the padding of V stays zero. Pages are touched when first written.
// Thread safety: disjoint blocks may be used by different threads.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/kv_ops.h"
#include "kernels/cpu/kv_rotations.h"

namespace kvasir {

class CpuKvPool final : public KvPool {
 public:
  static Result<std::unique_ptr<CpuKvPool>> Create(const KvLayout& layout, int32_t blocks,
                                                   std::span<const float> key_balance);

  const KvTile& tile() const { return tile_; }
  // With the key balance of one head.
  KvTile tile(int32_t layer, int32_t head) const;
  // Tiles of one head, as bytes.
  char* K(int32_t layer, int32_t block, int32_t head) const {
    return Block(layer, block) + head * (tile_.k_bytes() + tile_.v_bytes());
  }
  char* V(int32_t layer, int32_t block, int32_t head) const {
    return K(layer, block, head) + tile_.k_bytes();
  }
  // All tiles of one block and layer: block_bytes() bytes.
  char* Block(int32_t layer, int32_t block) const {
    KVASIR_CHECK(layer >= 0 && layer < layout_.layers && block >= 0 && block < blocks_);
    return memory_.As<char>() + (int64_t{layer} * blocks_ + block) * block_bytes();
  }
  int64_t block_bytes() const {
    return int64_t{layout_.kv_heads} * (tile_.k_bytes() + tile_.v_bytes());
  }
  std::shared_ptr<const Rotations> RotationsFor(const RopeTable* rope, int64_t positions) const {
    return rotations_->Get(rope, positions);
  }

 private:
  void SetKeyBalance(std::span<const float> key_balance);

  KvTile tile_;
  std::vector<float> key_balance_, key_shares_;  // [L][G][D] and 1 / it; empty = ones
  AlignedMemory memory_;
  std::unique_ptr<RotationCache> rotations_ = std::make_unique<RotationCache>();
};

}  // namespace kvasir

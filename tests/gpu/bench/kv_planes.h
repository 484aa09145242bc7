// Chunk KV as the store keeps it, random, in pinned host memory or plain.
#pragma once

#include <memory>
#include <vector>

#include "kernels/core/kv_layout.h"
#include "kernels/core/status.h"
#include "tests/gpu/bench/card.h"

namespace kvasir::bench {

// INT8 planes of all layers of `tokens` tokens. They are shared by as many chunks as one likes:
// what is read is the same.
class KvPlanes {
 public:
  // In plain memory; seeded.
  static KvPlanes Plain(const KvLayout& layout, int32_t tokens, uint64_t seed);
  static Result<KvPlanes> Pinned(const KvLayout& layout, int32_t tokens, uint64_t seed);

  // The first `tokens` tokens of a layer.
  KvLayerPlanes Layer(int32_t layer, int32_t tokens) const;
  std::vector<KvLayerPlanes> Layers() const;
  // What a load of all layers reads.
  double bytes() const;

 private:
  struct Part {
    size_t k = 0, v = 0, v_scale = 0, end = 0;  // k_scale is at 0
  };
  static Part PartOf(const KvLayout& layout, int32_t tokens);
  void Fill(void* data, uint64_t seed);

  KvLayout layout_;
  int32_t tokens_ = 0;
  std::vector<unsigned char> plain_;
  PinnedMemory pinned_;
  const unsigned char* data_ = nullptr;
};

}  // namespace kvasir::bench

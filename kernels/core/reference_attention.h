// The reference backend's KV pool and attention: fp32 values in plain order, rotations and sums in
// double.
#pragma once

#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "kernels/core/backend.h"

namespace kvasir::reference {

// Values [L][2: K, V][blocks][16 slots][G][D]. Memory is touched on first write.
class ReferenceKvPool final : public KvPool {
 public:
  static Result<std::unique_ptr<ReferenceKvPool>> Create(const KvLayout& layout, int32_t blocks,
                                                         std::span<const float> key_balance);

  // [G][D] of slot `slot` = block * kBlockTokens + offset.
  float* K(int32_t layer, int64_t slot) const { return Row(2 * int64_t{layer}, slot); }
  float* V(int32_t layer, int64_t slot) const { return Row(2 * int64_t{layer} + 1, slot); }
  int64_t row_width() const { return int64_t{layout_.kv_heads} * layout_.head_dim; }
  // Rounds x [n] in place as a pool of this dtype keeps it; n values of kI8 share a scale.
  void Round(float* x, int64_t n) const;
  // The same for a whole key [D] of one head, balanced.
  void RoundKey(int32_t layer, int32_t head, float* key) const;

 private:
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };
  float* Row(int64_t plane, int64_t slot) const;

  std::unique_ptr<float[], Free> values_;
  std::vector<float> key_balance_;  // [L][G][D]
};

void CopyBlock(ReferenceKvPool& pool, int32_t from, int32_t to);
void LoadKv(ReferenceKvPool& pool, int32_t layer, const KvLayerPlanes& planes,
            std::span<const int32_t> block_ids, const RopeTable* rope);
void ReadKv(const ReferenceKvPool& pool, int32_t layer, std::span<const int32_t> block_ids,
            int32_t tokens, float* host_k, float* host_v);
void AppendKv(ReferenceKvPool& pool, int32_t layer, const TensorView& k, const TensorView& v,
              const StepBatch& batch, const RopeTable* rope);
void Attention(const AttentionArgs& args);

}  // namespace kvasir::reference

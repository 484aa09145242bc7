// KvLayout: the geometry of a KV pool; KvBlocks: shared ownership of pool blocks; KvLayerPlanes:
// one layer of a chunk's stored KV, as codecs hand it to Backend::LoadKv.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/core/dtype.h"
#include "kernels/core/kv_int8.h"
#include "kernels/core/kv_readiness.h"

namespace kvasir {

// Slots a block. 16 keys fill one 512-bit register of fp32 scores; a chunk wastes 7.5 slots on
// average.
inline constexpr int32_t kBlockTokens = 16;
inline constexpr int32_t kMaxHeadDim = 512;  // D of a pool

struct KvLayout {
  int32_t layers = 0;
  int32_t kv_heads = 0;        // G
  int32_t head_dim = 0;        // D
  DType dtype = DType::kBF16;  // of the pool: kBF16, kI8 (kv_int8.h) or kF32 (gates, tests)

  // Of a key balance (Backend::CreateKvPool).
  int64_t KeyChannels() const { return int64_t{layers} * kv_heads * head_dim; }
  int64_t ValuesPerToken() const { return int64_t{2} * layers * kv_heads * head_dim; }
  size_t BytesPerBlock() const {
    const auto heads = static_cast<size_t>(layers) * static_cast<size_t>(kv_heads);
    const size_t scales = dtype == DType::kI8 ? static_cast<size_t>(KeyScalesOf(head_dim) + 1) : 0;
    return static_cast<size_t>(kBlockTokens) *
           (static_cast<size_t>(ValuesPerToken()) * BytesOf(dtype, 1) +
            heads * scales * sizeof(float));
  }
  friend bool operator==(const KvLayout&, const KvLayout&) = default;
};

inline int32_t BlocksFor(int64_t tokens) {
  return static_cast<int32_t>((tokens + kBlockTokens - 1) / kBlockTokens);
}

// Ids of pool blocks, one reference on each. The last owner's destructor gives the references
// back through `release`. Immutable and thread-safe; shared as shared_ptr<const KvBlocks>.
// `tokens` slots are filled, from slot 0 of the first block on; while they are being loaded, in
// as many layers as `readiness` says (null: in all).
class KvBlocks {
 public:
  using Release = std::function<void(const std::vector<int32_t>& ids)>;
  KvBlocks(std::vector<int32_t> ids, int32_t tokens, Release release,
           std::shared_ptr<const KvReadiness> readiness = nullptr)
      : ids_(std::move(ids)),
        tokens_(tokens),
        release_(std::move(release)),
        readiness_(std::move(readiness)) {}
  ~KvBlocks() {
    if (release_) release_(ids_);
  }
  KvBlocks(const KvBlocks&) = delete;
  KvBlocks& operator=(const KvBlocks&) = delete;

  const std::vector<int32_t>& ids() const { return ids_; }
  int32_t tokens() const { return tokens_; }
  const KvReadiness* readiness() const { return readiness_.get(); }
  bool Has(int32_t layers) const { return !readiness_ || readiness_->Has(layers); }
  bool complete() const { return !readiness_ || readiness_->complete(); }

 private:
  std::vector<int32_t> ids_;
  int32_t tokens_;
  Release release_;
  std::shared_ptr<const KvReadiness> readiness_;
};

// Tokens whose kI4 keys share a grid; whole blocks. Against one grid a chunk of 256 tokens it
// halves the squared error of keys for 0.4 bits a key (cache/kv_codec.h has figures).
inline constexpr int32_t kInt4GroupTokens = 64;
static_assert(kInt4GroupTokens % kBlockTokens == 0);
inline int32_t Int4GroupsFor(int64_t tokens) {
  return static_cast<int32_t>((tokens + kInt4GroupTokens - 1) / kInt4GroupTokens);
}

// Where kI4 values lie: value = low + q * step with q in 0..15. fp16.
struct KvGrid {
  const uint16_t* step = nullptr;
  const uint16_t* low = nullptr;
};

// KV of one layer of a chunk, keys *before* RoPE and after QK-norm. Non-owning host memory.
//   kF32, kF16: k, v [tokens][G][D], scales null.
//   kI8: k int8 [tokens][G][D], value = k * k_scale[G][D] (per channel, over the closed chunk);
//        v int8 [tokens][G][D], value = v * v_scale[tokens][G] (per token and head).
//   kI4: k [tokens][G][D/2] bytes of two values, the even one in the low half; k_grid: step and low
//        [Int4GroupsFor(tokens)][G][D] (per channel, over kInt4GroupTokens tokens);
//        v [tokens][G][D/2] likewise; v_grid: step and low [tokens][G] (per token and head).
struct KvLayerPlanes {
  DType dtype = DType::kI8;
  int32_t tokens = 0;
  const void* k = nullptr;
  const float* k_scale = nullptr;
  const void* v = nullptr;
  const float* v_scale = nullptr;
  KvGrid k_grid = {}, v_grid = {};
};

// KV of freshly computed rows, captured during a forward pass: what ingestion stores.
// k, v: fp32 [layers][tokens][G][D], keys before RoPE and after QK-norm.
struct KvCapture {
  int32_t layers = 0, tokens = 0, kv_heads = 0, head_dim = 0;
  std::vector<float> k, v;

  size_t LayerStride() const {
    return static_cast<size_t>(tokens) * static_cast<size_t>(kv_heads) *
           static_cast<size_t>(head_dim);
  }
  static KvCapture For(const KvLayout& layout, int32_t tokens) {
    KvCapture capture{layout.layers, tokens, layout.kv_heads, layout.head_dim, {}, {}};
    capture.k.resize(capture.LayerStride() * static_cast<size_t>(layout.layers));
    capture.v.resize(capture.k.size());
    return capture;
  }
};

}  // namespace kvasir

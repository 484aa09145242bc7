// Rotation: how a row turns; KvTile: where a value lies in a tile of the pool (kv_pool.h has the
// layout); KvOps: the inner loops that write tiles, one table an instruction set.
#pragma once

#include <cstdint>

#include "kernels/core/kv_layout.h"

namespace kvasir {

// How one row turns: out[d] = x[d] * cos[d] + x[partner(d)] * sin[d] for d < dims, where the
// partner is the other dimension of d's pair and sin carries its sign. dims = 0: not at all.
struct Rotation {
  bool interleaved = false;
  int32_t dims = 0;
  const float* cos = nullptr;  // [dims]
  const float* sin = nullptr;  // [dims], negative for the first of a pair
};

inline constexpr int kTileSlots = 16;

enum class KvForm : uint8_t { kF32, kBf16, kI8 };

struct KvTile {
  KvForm form = KvForm::kBf16;
  int32_t head_dim = 0;  // D, even
  int32_t v_width = 0;   // D', a multiple of 16
  // [D] of the head at hand, kI8 alone: what turned queries are multiplied by, turned keys by its
  // inverse. Null = ones.
  const float* key_balance = nullptr;
  const float* key_shares = nullptr;

  int64_t value_bytes() const { return form == KvForm::kF32 ? 4 : form == KvForm::kBf16 ? 2 : 1; }
  int64_t k_bytes() const {
    return k_scales_at() +
           (form == KvForm::kI8 ? int64_t{KeyScalesOf(head_dim)} * kScalesBytes : 0);
  }
  int64_t v_bytes() const {
    return v_scales_at() + (form == KvForm::kI8 ? int64_t{kScalesBytes} : 0);
  }
  // Indices of values, in elements.
  int64_t KIndex(int64_t slot, int64_t d) const {
    return in_pairs() ? (d / 2 * kTileSlots + slot) * 2 + d % 2 : d * kTileSlots + slot;
  }
  int64_t VIndex(int64_t slot, int64_t d) const {
    return in_pairs() ? (slot / 2 * v_width + d) * 2 + slot % 2 : slot * v_width + d;
  }
  // Scales of kI8: those of the keys' first group of dimensions; of the values.
  float* KScales(void* k_tile) const { return ScalesAt(k_tile, k_scales_at()); }
  const float* KScales(const void* k_tile) const {
    return ScalesAt(const_cast<void*>(k_tile), k_scales_at());
  }
  float* VScales(void* v_tile) const { return ScalesAt(v_tile, v_scales_at()); }
  const float* VScales(const void* v_tile) const {
    return ScalesAt(const_cast<void*>(v_tile), v_scales_at());
  }

 private:
  static constexpr int kScalesBytes = kTileSlots * static_cast<int>(sizeof(float));

  bool in_pairs() const { return form != KvForm::kF32; }
  int64_t k_scales_at() const { return (value_bytes() * kTileSlots * head_dim + 63) / 64 * 64; }
  int64_t v_scales_at() const { return value_bytes() * kTileSlots * v_width; }
  static float* ScalesAt(void* tile, int64_t offset) {
    return reinterpret_cast<float*>(static_cast<char*>(tile) + offset);
  }
};

// Up to 16 tokens of one head as they are stored (see KvLayerPlanes); strides in elements.
struct KvTokens {
  DType dtype = DType::kI8;
  int32_t tokens = 0;
  const void* k = nullptr;         // [tokens][stride], D used
  const float* k_scale = nullptr;  // [D], kI8 alone
  const void* v = nullptr;         // [tokens][stride], D used
  const float* v_scale = nullptr;  // [tokens][scale_stride], kI8 alone
  KvGrid k_grid;                   // [D], kI4 alone
  KvGrid v_grid;                   // [tokens][scale_stride], kI4 alone
  int64_t stride = 0;
  int64_t scale_stride = 0;
};

struct KvOps {
  // Turns k [D] and writes k, v [D] into slot `slot` of two tiles.
  void (*store_token)(const KvTile& tile, int slot, const float* k, const float* v,
                      const Rotation& rotation, void* k_tile, void* v_tile);
  // Writes whole tiles, slots 0..tokens-1 turned by rotations[0..tokens-1], the rest zeros.
  // scratch: fp32 [16][D'], 64-byte aligned.
  void (*load_tile)(const KvTile& tile, const KvTokens& from, const Rotation* rotations,
                    float* scratch, void* k_tile, void* v_tile);
};

extern const KvOps kKvScalar, kKvAvx2, kKvAvx512;

}  // namespace kvasir

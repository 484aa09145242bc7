// How rows become int8 tiles (kernels/core/kv_int8.h, kv_pool.h). Part of kv_kernels.h.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/core/kv_int8.h"
#include "kernels/cpu/kv_ops.h"

namespace kvasir {
namespace {

// The largest magnitude; compared as integers, so that infinities and NaN come out on top.
inline float LargestMagnitude(const float* x, int64_t n) {
  uint32_t top = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    bits &= 0x7FFFFFFFu;
    top = bits > top ? bits : top;
  }
  float magnitude;
  __builtin_memcpy(&magnitude, &top, sizeof magnitude);
  return magnitude;
}

// q [n] = one group; returns its scale. x is read and q written up to a multiple of 16.
inline float QuantizeGroup(const float* x, int64_t n, int8_t* q) {
  const Int8Scale scale = Int8ScaleOf(LargestMagnitude(x, n));
  const Simd::F inverse = Simd::Set(scale.inverse);
  for (int64_t i = 0; i < n; i += Simd::kWidth) {
    Simd::StoreI8(q + i, Simd::Mul(Simd::Load(x + i), inverse));
  }
  return scale.scale;
}

// key [D], readable up to D'.
inline void StoreInt8Key(const KvTile& tile, int slot, const float* key, void* k_tile) {
  alignas(16) int8_t q[kMaxHeadDim];
  float* scales = tile.KScales(k_tile) + slot;
  for (int32_t d = 0; d < tile.head_dim; d += kKeyScaleDims, scales += kTileSlots) {
    const int32_t rest = tile.head_dim - d;
    *scales = QuantizeGroup(key + d, rest < kKeyScaleDims ? rest : kKeyScaleDims, q + d);
  }
  auto* to = static_cast<char*>(k_tile) + 2 * slot;
  for (int32_t d = 0; d < tile.head_dim; d += 2, to += 2 * kTileSlots) {
    __builtin_memcpy(to, q + d, 2);
  }
}

// value [D], readable up to D'.
inline void StoreInt8Value(const KvTile& tile, int slot, const float* value, void* v_tile) {
  alignas(16) int8_t q[kMaxHeadDim];
  tile.VScales(v_tile)[slot] = QuantizeGroup(value, tile.head_dim, q);
  auto* to = static_cast<int8_t*>(v_tile) + tile.VIndex(slot, 0);
  for (int64_t d = 0; d < tile.head_dim; ++d) to[2 * d] = q[d];
  for (int64_t d = tile.head_dim; d < tile.v_width; ++d) to[2 * d] = 0;
}

// Attention's sums are integers and know no NaN: a value that is not finite shows by its key.
inline void MarkNotFinite(const KvTile& tile, int first_slot, int end_slot, void* k_tile,
                          const void* v_tile) {
  constexpr float kMost = std::numeric_limits<float>::max();
  for (int slot = first_slot; slot < end_slot; ++slot) {
    const float scale = tile.VScales(v_tile)[slot];
    if (scale <= kMost && scale >= -kMost) continue;
    tile.KScales(k_tile)[slot] = std::numeric_limits<float>::quiet_NaN();
  }
}

// Stored int8 values have the scales of the tile: they are only put in order.
inline void CopyInt8Values(const KvTile& tile, const KvTokens& from, void* v_tile) {
  alignas(16) static constexpr int8_t kZeros[kMaxHeadDim] = {};
  const auto row = [&](int32_t slot) {
    if (slot >= from.tokens) return kZeros;
    return static_cast<const int8_t*>(from.v) + slot * from.stride;
  };
  auto* to = static_cast<int8_t*>(v_tile);
  for (int32_t slot = 0; slot < kTileSlots; slot += 2, to += 2 * tile.v_width) {
    const int8_t* __restrict first = row(slot);
    const int8_t* __restrict second = row(slot + 1);
    for (int64_t d = 0; d < tile.head_dim; ++d) {
      to[2 * d] = first[d];
      to[2 * d + 1] = second[d];
    }
    for (int64_t d = 2 * int64_t{tile.head_dim}; d < 2 * int64_t{tile.v_width}; ++d) to[d] = 0;
  }
  for (int32_t slot = 0; slot < kTileSlots; ++slot) {
    tile.VScales(v_tile)[slot] = slot < from.tokens ? from.v_scale[slot * from.scale_stride] : 0.0f;
  }
}

}  // namespace
}  // namespace kvasir

// The loops of KvOps in terms of Simd. Include after one simd_*.h, in a translation unit of that
// suffix, which also defines PackKTile and PackVTile.
#pragma once

#include <cstdint>

#include "kernels/cpu/kv_int8_kernels.h"
#include "kernels/cpu/kv_ops.h"
#include "kernels/cpu/kv_rotate.h"

namespace kvasir {
namespace {

inline uint16_t RoundToBf16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

inline void StoreKey(const KvTile& tile, int slot, const float* key, void* k_tile) {
  if (tile.form == KvForm::kI8) {
    StoreInt8Key(tile, slot, key, k_tile);
  } else if (tile.form == KvForm::kBf16) {
    auto* to = static_cast<uint16_t*>(k_tile) + 2 * slot;
    for (int64_t d = 0; d < tile.head_dim; d += 2, to += 2 * kTileSlots) {
      to[0] = RoundToBf16(key[d]);
      to[1] = RoundToBf16(key[d + 1]);
    }
  } else {
    auto* to = static_cast<float*>(k_tile) + slot;
    for (int64_t d = 0; d < tile.head_dim; ++d) to[d * kTileSlots] = key[d];
  }
}

inline void StoreValue(const KvTile& tile, int slot, const float* value, void* v_tile) {
  if (tile.form == KvForm::kI8) {
    StoreInt8Value(tile, slot, value, v_tile);
  } else if (tile.form == KvForm::kBf16) {
    auto* to = static_cast<uint16_t*>(v_tile) + tile.VIndex(slot, 0);
    for (int64_t d = 0; d < tile.head_dim; ++d) to[2 * d] = RoundToBf16(value[d]);
    for (int64_t d = tile.head_dim; d < tile.v_width; ++d) to[2 * d] = 0;
  } else {
    auto* to = static_cast<float*>(v_tile) + tile.VIndex(slot, 0);
    for (int64_t d = 0; d < tile.head_dim; ++d) to[d] = value[d];
    for (int64_t d = tile.head_dim; d < tile.v_width; ++d) to[d] = 0;
  }
}

// x[i] *= scale[i].
inline void ScaleEach(const float* scale, int64_t n, float* x) {
  int64_t i = 0;
  for (; i + Simd::kWidth <= n; i += Simd::kWidth) {
    Simd::Store(x + i, Simd::Mul(Simd::Load(x + i), Simd::Load(scale + i)));
  }
  for (; i < n; ++i) x[i] *= scale[i];
}

inline void StoreToken(const KvTile& tile, int slot, const float* k, const float* v,
                       const Rotation& rotation, void* k_tile, void* v_tile) {
  float row[kMaxHeadDim];
  RotateRow(k, rotation, tile.head_dim, row);
  if (tile.key_shares != nullptr) ScaleEach(tile.key_shares, tile.head_dim, row);
  StoreKey(tile, slot, row, k_tile);
  if (tile.form != KvForm::kI8) return StoreValue(tile, slot, v, v_tile);
  __builtin_memcpy(row, v, static_cast<size_t>(tile.head_dim) * sizeof(float));
  StoreValue(tile, slot, row, v_tile);
  MarkNotFinite(tile, slot, slot + 1, k_tile, v_tile);
}

// Elements [0, n) of a stored row from element `index` (even for kI4) on, unscaled.
inline void WidenRow(DType dtype, const void* row, int64_t index, int64_t n, float* out) {
  int64_t i = 0;
  if (dtype == DType::kI8) {
    const auto* from = static_cast<const int8_t*>(row) + index;
    for (; i + Simd::kWidth <= n; i += Simd::kWidth) Simd::Store(out + i, Simd::LoadI8(from + i));
    for (; i < n; ++i) out[i] = static_cast<float>(from[i]);
  } else if (dtype == DType::kI4) {
    const auto* from = static_cast<const uint8_t*>(row) + index / 2;
    for (; i + Simd::kWidth <= n; i += Simd::kWidth) {
      Simd::Store(out + i, Simd::LoadU4(from + i / 2));
    }
    for (; i < n; ++i) out[i] = static_cast<float>(from[i / 2] >> (i % 2 * 4) & 15);
  } else if (dtype == DType::kF16) {
    const auto* from = static_cast<const uint16_t*>(row) + index;
    for (; i + Simd::kWidth <= n; i += Simd::kWidth) Simd::Store(out + i, Simd::LoadF16(from + i));
    for (; i < n; ++i) out[i] = F16ToF32(from[i]);
  } else {
    const auto* from = static_cast<const float*>(row) + index;
    for (; i + Simd::kWidth <= n; i += Simd::kWidth) Simd::Store(out + i, Simd::Load(from + i));
    for (; i < n; ++i) out[i] = from[i];
  }
}

inline void ScaleAll(float scale, int64_t n, float* x) {
  int64_t i = 0;
  for (; i + Simd::kWidth <= n; i += Simd::kWidth) {
    Simd::Store(x + i, Simd::Mul(Simd::Load(x + i), Simd::Set(scale)));
  }
  for (; i < n; ++i) x[i] *= scale;
}

// x[i] = low[i] + x[i] * step[i].
inline void PlaceEach(const float* step, const float* low, int64_t n, float* x) {
  int64_t i = 0;
  for (; i + Simd::kWidth <= n; i += Simd::kWidth) {
    Simd::Store(x + i, Simd::Fma(Simd::Load(x + i), Simd::Load(step + i), Simd::Load(low + i)));
  }
  for (; i < n; ++i) x[i] = low[i] + x[i] * step[i];
}

inline void PlaceAll(float step, float low, int64_t n, float* x) {
  int64_t i = 0;
  for (; i + Simd::kWidth <= n; i += Simd::kWidth) {
    Simd::Store(x + i, Simd::Fma(Simd::Load(x + i), Simd::Set(step), Simd::Set(low)));
  }
  for (; i < n; ++i) x[i] = low + x[i] * step;
}

inline void ZeroRows(int64_t from, int64_t width, float* scratch) {
  for (int64_t i = from * width; i < kTileSlots * width; ++i) scratch[i] = 0.0f;
}

// Keys of `from`, turned, to scratch [16][D'].
inline void WidenKeys(const KvTile& tile, const KvTokens& from, const Rotation* rotations,
                      float* scratch) {
  float key[kMaxHeadDim], step[kMaxHeadDim], low[kMaxHeadDim];
  if (from.dtype == DType::kI4) {
    WidenRow(DType::kF16, from.k_grid.step, 0, tile.head_dim, step);
    WidenRow(DType::kF16, from.k_grid.low, 0, tile.head_dim, low);
  }
  for (int32_t t = 0; t < from.tokens; ++t) {
    WidenRow(from.dtype, from.k, t * from.stride, tile.head_dim, key);
    if (from.dtype == DType::kI8) ScaleEach(from.k_scale, tile.head_dim, key);
    if (from.dtype == DType::kI4) PlaceEach(step, low, tile.head_dim, key);
    float* row = scratch + int64_t{t} * tile.v_width;
    RotateRow(key, rotations[t], tile.head_dim, row);
    if (tile.key_shares != nullptr) ScaleEach(tile.key_shares, tile.head_dim, row);
  }
  ZeroRows(from.tokens, tile.v_width, scratch);
}

inline void WidenValues(const KvTile& tile, const KvTokens& from, float* scratch) {
  for (int32_t t = 0; t < from.tokens; ++t) {
    float* row = scratch + int64_t{t} * tile.v_width;
    WidenRow(from.dtype, from.v, t * from.stride, tile.head_dim, row);
    const int64_t scale = t * from.scale_stride;
    if (from.dtype == DType::kI8) ScaleAll(from.v_scale[scale], tile.head_dim, row);
    if (from.dtype == DType::kI4) {
      PlaceAll(F16ToF32(from.v_grid.step[scale]), F16ToF32(from.v_grid.low[scale]), tile.head_dim,
               row);
    }
    for (int64_t d = tile.head_dim; d < tile.v_width; ++d) row[d] = 0.0f;
  }
  ZeroRows(from.tokens, tile.v_width, scratch);
}

// scratch [16][D'] -> tiles, value by value.
inline void PackTileByValue(const KvTile& tile, const float* scratch, bool keys, void* to) {
  for (int slot = 0; slot < kTileSlots; ++slot) {
    const float* row = scratch + int64_t{slot} * tile.v_width;
    if (keys) {
      StoreKey(tile, slot, row, to);
    } else {
      StoreValue(tile, slot, row, to);
    }
  }
}

// Defined by the translation unit.
void PackKTile(const KvTile& tile, const float* scratch, void* k_tile);
void PackVTile(const KvTile& tile, const float* scratch, void* v_tile);

inline void LoadTile(const KvTile& tile, const KvTokens& from, const Rotation* rotations,
                     float* scratch, void* k_tile, void* v_tile) {
  WidenKeys(tile, from, rotations, scratch);
  PackKTile(tile, scratch, k_tile);
  if (tile.form == KvForm::kI8 && from.dtype == DType::kI8) {
    CopyInt8Values(tile, from, v_tile);
  } else {
    WidenValues(tile, from, scratch);
    PackVTile(tile, scratch, v_tile);
  }
  if (tile.form == KvForm::kI8) MarkNotFinite(tile, 0, kTileSlots, k_tile, v_tile);
}

constexpr KvOps kKvTable = {StoreToken, LoadTile};

}  // namespace
}  // namespace kvasir

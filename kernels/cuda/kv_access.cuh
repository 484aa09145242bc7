// Values of a KV pool and rotations, as kernels read and write them.
#pragma once

#include "kernels/core/kv_layout.h"
#include "kernels/cuda/kv_pool.h"
#include "kernels/cuda/platform.cuh"
#include "kernels/cuda/rotations.h"

namespace kvasir::cuda {

// cos and sin by position, [positions][dims / 2]; dims 0 = nothing turns. The first 2 * half values
// of a head turn.
struct Turns {
  Global<const Vec2> table = nullptr;
  int32_t half = 0;
  bool interleaved = false;  // pairs (2j, 2j + 1); else (j, j + half)
};

inline Turns TurnsOf(const RotationView& view) {
  return {static_cast<const Vec2*>(view.table), view.half, view.interleaved};
}

// The partners of pair j < D / 2 of a head: turning pairs first, then whatever is left two by two.
struct PairPlace {
  int first, second;
  bool turns;
};
__device__ __forceinline__ PairPlace PlaceOf(const Turns& turns, int pair) {
  if (pair >= turns.half) return {2 * pair, 2 * pair + 1, false};
  if (turns.interleaved) return {2 * pair, 2 * pair + 1, true};
  return {pair, pair + turns.half, true};
}

// (a, b) turned by an angle, given as its cos and sin; and by `position`.
__device__ __forceinline__ Vec2 Turned(const Vec2& angle, float a, float b) {
  return {Fma(a, angle.x, -(b * angle.y)), Fma(a, angle.y, b * angle.x)};
}
__device__ __forceinline__ Vec2 Turned(const Turns& turns, int64_t position, int pair, float a,
                                       float b) {
  return Turned(turns.table[position * turns.half + pair], a, b);
}

// In a block's head of int8 values that are arranged: lane 4 * r + c of a warp takes 16 bytes of
// 512.
//  - Keys, 8 slots and 64 dimensions at a time: slot 8 h + r, of each half of the dimensions the
//    eight from 8 c on.
//  - Values, 16 slots and 32 dimensions: dimensions r, 8 + r, 16 + r, 24 + r, of each the slots 2
//  c,
//    2 c + 1, 2 c + 8 and 2 c + 9.
__device__ __forceinline__ int KeyPlace(int head_dim, int slot, int d) {
  const int lane = 4 * (slot % 8) + d % 32 / 8;
  return (slot / 8 * (head_dim / 64) + d / 64) * 512 + lane * 16 + d / 32 % 2 * 8 + d % 8;
}
__device__ __forceinline__ int ValuePlace(int slot, int d) {
  const int lane = 4 * (d % 8) + slot % 8 / 2;
  return d / 32 * 512 + lane * 16 + d % 32 / 8 * 4 + slot / 8 * 2 + slot % 2;
}

// Where value d of a slot's head lies in a layer, in values.
__device__ __forceinline__ int64_t ValueIndex(const KvGeometry& g, int64_t block, bool value,
                                              int head, int slot, int d) {
  const int64_t plane = block * g.block_values() +
                        int64_t{(value ? g.kv_heads : 0) + head} * kBlockTokens * g.head_dim;
  int place = slot * g.head_dim + d;
  if (g.arranged && g.form == KvForm::kBf16) {
    place = slot * g.head_dim + ((d / 8) ^ (slot % 8)) * 8 + d % 8;
  } else if (g.arranged) {
    place = value ? ValuePlace(slot, d) : KeyPlace(g.head_dim, slot, d);
  }
  return plane + place;
}

// Where the scale of a group of a slot's key lies in a layer of int8, in floats; group
// key_scales() is the value's.
__device__ __forceinline__ int64_t ScaleIndex(const KvGeometry& g, int64_t block, int head,
                                              int group, int slot) {
  const int64_t floats = (block * g.block_values() + g.own_values()) / 4;
  return floats + int64_t{head * (g.key_scales() + 1) + group} * kBlockTokens + slot;
}

// A layer of a pool, of any type.
struct LayerValues {
  Global<float> f32 = nullptr;
  Global<uint16_t> bf16 = nullptr;  // of kI8 the same bytes, as copies take them
  Global<int8_t> i8 = nullptr;
  Global<float> scales = nullptr;                                   // of kI8, the layer as floats
  Global<const float> key_balance = nullptr, key_shares = nullptr;  // [G][D]; null = ones
};
inline LayerValues LayerOf(const CudaKvPool& pool, int32_t layer) {
  char* const data = pool.Layer(layer);
  LayerValues values;
  switch (pool.geometry().form) {
    case KvForm::kF32:
      values.f32 = reinterpret_cast<float*>(data);
      break;
    case KvForm::kBf16:
      values.bf16 = reinterpret_cast<uint16_t*>(data);
      break;
    case KvForm::kI8:
      values.bf16 = reinterpret_cast<uint16_t*>(data);
      values.i8 = reinterpret_cast<int8_t*>(data);
      values.scales = reinterpret_cast<float*>(data);
      values.key_balance = pool.Balance(layer);
      values.key_shares = pool.Shares(layer);
  }
  return values;
}

// Not of int8 pools, whose values are stored by groups (kv_int8.cuh).
__device__ __forceinline__ void StoreValue(const LayerValues& layer, const KvGeometry& g,
                                           int64_t index, float value) {
  if (g.form == KvForm::kBf16) {
    layer.bf16[index] = FloatToBf16(value);
  } else {
    layer.f32[index] = value;
  }
}
// Of int8 pools without its scale.
__device__ __forceinline__ float LoadValue(const LayerValues& layer, const KvGeometry& g,
                                           int64_t index) {
  if (g.form == KvForm::kF32) return layer.f32[index];
  if (g.form == KvForm::kI8) return static_cast<float>(layer.i8[index]);
  return BitsToFloat(static_cast<uint32_t>(layer.bf16[index]) << 16);
}

}  // namespace kvasir::cuda

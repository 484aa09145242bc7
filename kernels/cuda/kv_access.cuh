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

// (a, b) turned by `position`.
__device__ __forceinline__ Vec2 Turned(const Turns& turns, int64_t position, int pair, float a,
                                       float b) {
  const Vec2 t = turns.table[position * turns.half + pair];
  return {Fma(a, t.x, -(b * t.y)), Fma(a, t.y, b * t.x)};
}

// Where value d of a slot's head lies in a layer, in values.
__device__ __forceinline__ int64_t ValueIndex(const KvGeometry& g, int64_t block, bool value,
                                              int head, int slot, int d) {
  const int64_t row = ((block * 2 + (value ? 1 : 0)) * g.kv_heads + head) * kBlockTokens + slot;
  const int place = g.swizzled ? ((d / 8) ^ (slot % 8)) * 8 + d % 8 : d;
  return row * g.head_dim + place;
}

// A layer of a pool, of either type.
struct LayerValues {
  Global<float> f32 = nullptr;
  Global<uint16_t> bf16 = nullptr;
};
inline LayerValues LayerOf(const CudaKvPool& pool, int32_t layer) {
  char* const data = pool.Layer(layer);
  if (pool.geometry().bf16) return {nullptr, reinterpret_cast<uint16_t*>(data)};
  return {reinterpret_cast<float*>(data), nullptr};
}

__device__ __forceinline__ void StoreValue(const LayerValues& layer, bool bf16, int64_t index,
                                           float value) {
  if (bf16) {
    layer.bf16[index] = FloatToBf16(value);
  } else {
    layer.f32[index] = value;
  }
}
__device__ __forceinline__ float LoadValue(const LayerValues& layer, bool bf16, int64_t index) {
  return bf16 ? BitsToFloat(static_cast<uint32_t>(layer.bf16[index]) << 16) : layer.f32[index];
}

}  // namespace kvasir::cuda

// Pairs of a head (kv_access.cuh) as threads move them between rows or stored planes and a pool:
// kPairs pairs at a time, whose values are two runs of kPairs dimensions each. Eight, in accesses
// of 16 bytes where so many are there, if the dimensions allow it (HaveRuns), else one. Not for
// int8 pools, whose values are stored by groups (kv_int8.cuh).
#pragma once

#include "kernels/cuda/kv_access.cuh"

namespace kvasir::cuda {

inline constexpr int kRunPairs = 8;

inline bool HaveRuns(const KvGeometry& g, const Turns& turns) {
  return g.head_dim % (2 * kRunPairs) == 0 && turns.half % kRunPairs == 0;
}

// Where the runs of the pairs from one on begin, and where partners are: in the same place of both
// runs, or side by side.
struct RunPlace {
  int first, second;
  bool turns, across;
};
template <int kPairs>
__device__ __forceinline__ RunPlace RunPlaceOf(const Turns& turns, int pair) {
  const bool turning = pair < turns.half;
  if (turning && !turns.interleaved) return {pair, pair + turns.half, true, true};
  return {2 * pair, 2 * pair + kPairs, turning, false};
}

// ---- kCount values, one or eight, from an address that is a multiple of their size
template <int kCount>
__device__ __forceinline__ void LoadFloats(Global<const float> from, float (&to)[kCount]) {
  if constexpr (kCount == 1) {
    to[0] = from[0];
  } else {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const Vec4 v = LoadAs<Vec4>(from + i);
      to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
    }
  }
}
template <int kCount>
__device__ __forceinline__ void LoadHalves(Global<const uint16_t> from, float (&to)[kCount]) {
  if constexpr (kCount == 1) {
    to[0] = HalfToFloat(from[0]);
  } else {
    const Words4 v = LoadAs<Words4>(from);
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      to[i] = HalfToFloat(static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2))));
    }
  }
}
template <int kCount>
__device__ __forceinline__ void LoadInt8(Global<const int8_t> from, float (&to)[kCount]) {
  if constexpr (kCount == 1) {
    to[0] = static_cast<float>(from[0]);
  } else {
    const Words2 v = LoadAs<Words2>(from);
    const uint32_t words[2] = {v.x, v.y};
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      to[i] = static_cast<float>(static_cast<int8_t>(words[i / 4] >> (8 * (i % 4))));
    }
  }
}
// Of 4 bits, from value `index` on.
template <int kCount>
__device__ __forceinline__ void LoadInt4(Global<const uint8_t> values, int64_t index,
                                         float (&to)[kCount]) {
  const Global<const uint8_t> from = values + index / 2;
  if constexpr (kCount == 1) {
    to[0] = static_cast<float>(from[0] >> (4 * static_cast<int>(index % 2)) & 15);
  } else {
    const uint32_t word = LoadAs<uint32_t>(from);
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = static_cast<float>(word >> (4 * i) & 15u);
  }
}

template <int kCount>
__device__ __forceinline__ void StoreRun(const LayerValues& layer, const KvGeometry& g,
                                         int64_t index, const float (&x)[kCount]) {
  if constexpr (kCount == 1) {
    StoreValue(layer, g, index, x[0]);
  } else if (g.form == KvForm::kBf16) {
    StoreAs(layer.bf16 + index, Words4{PackBf16(x[0], x[1]), PackBf16(x[2], x[3]),
                                       PackBf16(x[4], x[5]), PackBf16(x[6], x[7])});
  } else {
    StoreAs(layer.f32 + index, Vec4{x[0], x[1], x[2], x[3]});
    StoreAs(layer.f32 + (index + 4), Vec4{x[4], x[5], x[6], x[7]});
  }
}

// cos and sin of the pairs from `pair` on.
template <int kPairs>
__device__ __forceinline__ void LoadAngles(const Turns& turns, int64_t position, int pair,
                                           Vec2 (&to)[kPairs]) {
  const Global<const Vec2> from = turns.table + (position * turns.half + pair);
  if constexpr (kPairs == 1) {
    to[0] = from[0];
  } else {
#pragma unroll
    for (int i = 0; i < kPairs; i += 2) {
      const Vec4 two = LoadAs<Vec4>(from + i);
      to[i] = {two.x, two.y}, to[i + 1] = {two.z, two.w};
    }
  }
}

// Value i of two runs that lie side by side.
template <int kCount>
__device__ __forceinline__ float& ValueOf(float (&a)[kCount], float (&b)[kCount], int i) {
  return i < kCount ? a[i] : b[i - kCount];
}

__device__ __forceinline__ void TurnPair(const Vec2& angle, float& a, float& b) {
  const Vec2 turned = Turned(angle, a, b);
  a = turned.x;
  b = turned.y;
}

// The runs a and b of the pairs from `pair` on, turned by `position`.
template <int kPairs>
__device__ __forceinline__ void TurnRuns(const Turns& turns, int64_t position, int pair,
                                         const RunPlace& place, float (&a)[kPairs],
                                         float (&b)[kPairs]) {
  if (!place.turns) return;
  Vec2 angles[kPairs];
  LoadAngles(turns, position, pair, angles);
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    if (place.across) {
      TurnPair(angles[i], a[i], b[i]);
    } else {
      TurnPair(angles[i], ValueOf(a, b, 2 * i), ValueOf(a, b, 2 * i + 1));
    }
  }
}

}  // namespace kvasir::cuda

// How a warp puts one head of a token into an int8 pool (kernels/core/kv_int8.h): groups are
// rounded by their largest magnitude, found by all lanes together.
#pragma once

#include "kernels/cuda/kv_access.cuh"

namespace kvasir::cuda {

struct Int8Slot {
  int64_t block;
  int head, slot;
};

// The warp's largest magnitude; compared as integers, so that infinities and NaN come out on top.
__device__ __forceinline__ float WarpTop(uint32_t magnitude) {
  return BitsToFloat(ReduceWarp(magnitude, [](uint32_t a, uint32_t b) { return a > b ? a : b; }));
}

// Dimensions [begin, end) of a key or value as one group; at(d) = what it is.
template <typename At>
__device__ __forceinline__ void StoreInt8Group(const LayerValues& layer, const KvGeometry& g,
                                               const Int8Slot& to, bool value, int begin, int end,
                                               int lane, const At& at) {
  uint32_t top = 0;
  for (int d = begin + lane; d < end; d += 32) {
    const uint32_t magnitude = FloatToBits(at(d)) & 0x7FFFFFFFu;
    top = magnitude > top ? magnitude : top;
  }
  const Int8Scale scale = Int8ScaleOf(WarpTop(top));
  for (int d = begin + lane; d < end; d += 32) {
    layer.i8[ValueIndex(g, to.block, value, to.head, to.slot, d)] =
        static_cast<int8_t>(RoundToInt(at(d) * scale.inverse));
  }
  const int group = value ? g.key_scales() : begin / kKeyScaleDims;
  if (lane == 0) layer.scales[ScaleIndex(g, to.block, to.head, group, to.slot)] = scale.scale;
}

// key [D] in shared memory: turned and balanced.
__device__ __forceinline__ void StoreInt8Key(const LayerValues& layer, const KvGeometry& g,
                                             const Int8Slot& to, int lane,
                                             const Shared<float>& key) {
  for (int begin = 0; begin < g.head_dim; begin += kKeyScaleDims) {
    const int end = begin + kKeyScaleDims < g.head_dim ? begin + kKeyScaleDims : g.head_dim;
    StoreInt8Group(layer, g, to, false, begin, end, lane,
                   [&](int d) { return static_cast<float>(key[d]); });
  }
}

template <typename At>
__device__ __forceinline__ void StoreInt8Value(const LayerValues& layer, const KvGeometry& g,
                                               const Int8Slot& to, int lane, const At& at) {
  StoreInt8Group(layer, g, to, true, 0, g.head_dim, lane, at);
}

// The key whose dimension d is at(d), turned to `position` and balanced, to shared memory.
template <typename At>
__device__ __forceinline__ void TurnInt8Key(const LayerValues& layer, const KvGeometry& g,
                                            const Turns& turns, int64_t position, int head,
                                            int lane, const At& at, const Shared<float>& key) {
  SyncWarp();  // the key before has been read
  for (int pair = lane; pair < g.head_dim / 2; pair += 32) {
    const PairPlace place = PlaceOf(turns, pair);
    Vec2 x = {at(place.first), at(place.second)};
    if (place.turns) x = Turned(turns, position, pair, x.x, x.y);
    if (layer.key_shares != nullptr) {
      x.x = x.x * layer.key_shares[int64_t{head} * g.head_dim + place.first];
      x.y = x.y * layer.key_shares[int64_t{head} * g.head_dim + place.second];
    }
    key[place.first] = x.x;
    key[place.second] = x.y;
  }
  SyncWarp();
}

}  // namespace kvasir::cuda

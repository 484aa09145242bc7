// What attention's kernels share: parameters, the order in which keys are visited, which of them a
// row sees, and how partial softmaxes are merged. All scores are in units of log 2.
#pragma once

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/kv_access.cuh"
#include "kernels/cuda/rows.cuh"

namespace kvasir::cuda {

struct AttentionParams {
  Matrix q, out;
  LayerValues layer;
  KvGeometry geometry;
  Global<const Piece> pieces = nullptr;
  Global<const Tile> tiles = nullptr;
  Global<const Unit> units = nullptr;
  Global<const int32_t> merges = nullptr;
  Global<const SequenceScale> scales = nullptr;
  Global<const int32_t> positions = nullptr, block_table = nullptr;
  Turns turns;
  float scale = 1;  // times log2(e)
  int32_t window = 0, group = 1;
  Global<float> partial_out = nullptr, partial_stats = nullptr, stats = nullptr;
  int64_t partials = 0;
};

inline AttentionParams ParamsOf(const AttentionCall& call) {
  constexpr float kLog2E = 1.4426950408889634f;
  AttentionParams p;
  p.q = MatrixOf(call.q);
  p.out = MatrixOf(call.out);
  p.layer = LayerOf(*call.pool, call.layer);
  p.geometry = call.pool->geometry();
  p.pieces = call.tables.pieces;
  p.tiles = call.tables.tiles;
  p.merges = call.tables.merges;
  p.scales = call.tables.scales;
  p.positions = call.tables.positions;
  p.block_table = call.tables.block_table;
  p.turns = TurnsOf(call.rotations);
  p.scale = call.scale * kLog2E;
  p.window = call.window;
  p.group = call.group;
  p.partial_out = call.partial_out;
  p.partial_stats = call.partial_stats;
  p.stats = call.stats;
  p.partials = call.partials;
  return p;
}

// A row sees keys at positions (position - window, position], all of them before if window = 0.
__device__ __forceinline__ bool Sees(int32_t position, int32_t window, int32_t key) {
  return key <= position && (window == 0 || key > position - window);
}

// The pieces of a unit, one after the other; [begin, end) of the plan's pieces.
struct PieceRange {
  int begin, end;
};
__device__ __forceinline__ PieceRange RangeOf(const Tile& tile, const Unit& unit) {
  if (unit.split < 0) return {tile.piece_begin, tile.piece_end};
  const int begin = tile.piece_begin + unit.split * kSplitPieces;
  const int end = begin + kSplitPieces;
  return {begin, end < tile.piece_end ? end : tile.piece_end};
}

// A softmax over some keys: maximum score, sum of 2^(score - maximum). The values' sum is kept
// beside it.
struct SoftmaxState {
  float max, sum;
};
__device__ __forceinline__ SoftmaxState EmptyState() { return {-Infinity(), 0.0f}; }

// Factors of the values' sums when `part` is merged into `total`.
struct MergeFactors {
  float total, part;
};
__device__ __forceinline__ MergeFactors MergeInto(SoftmaxState& total, const SoftmaxState& part) {
  const float max = Max(total.max, part.max);
  if (max == -Infinity()) return {0.0f, 0.0f};
  const MergeFactors f = {Exp2(total.max - max), Exp2(part.max - max)};
  total.sum = Fma(part.sum, f.part, total.sum * f.total);
  total.max = max;
  return f;
}
__device__ __forceinline__ float Merged(const MergeFactors& f, float total, float part) {
  return Fma(part, f.part, total * f.total);
}
// 1 / sum, and 0 for a row that sees no key.
__device__ __forceinline__ float ShareOf(const SoftmaxState& state) {
  return state.sum > 0.0f ? 1.0f / state.sum : 0.0f;
}

// Where the partial result of a tile's lane lies, in lanes.
__device__ __forceinline__ int64_t PartialOf(const AttentionParams& p, const Tile& tile, int split,
                                             int lane, int kv_head) {
  const int lanes = tile.lane_end - tile.lane_begin;
  return kv_head * p.partials + tile.partial + int64_t{split} * lanes + (lane - tile.lane_begin);
}

// The query head of a lane, of all H; and its row's values for one.
__device__ __forceinline__ int64_t QueryHead(const AttentionParams& p, int lane, int kv_head) {
  return int64_t{kv_head} * p.group + lane % p.group;
}
__device__ __forceinline__ int64_t QueryOffset(const AttentionParams& p, const Matrix& m, int lane,
                                               int kv_head) {
  return lane / p.group * m.stride + QueryHead(p, lane, kv_head) * p.geometry.head_dim;
}

__device__ __forceinline__ void StoreStats(const AttentionParams& p, int lane, int kv_head,
                                           const SoftmaxState& state) {
  if (p.stats == nullptr) return;
  const int64_t heads = int64_t{p.geometry.kv_heads} * p.group;
  const int64_t at = lane / p.group * heads + QueryHead(p, lane, kv_head);
  p.stats[2 * at] = state.max;
  p.stats[2 * at + 1] = state.sum;
}

// The pair `pair` of a query turned to the frame of a segment at `base`, scaled and brought to the
// balance of the keys; zeros for rows before it, which see none of its keys.
template <bool kBalanced = true>
__device__ __forceinline__ Vec2 TurnedQuery(const AttentionParams& p, Global<const float> q,
                                            int64_t distance, int pair, int kv_head, float factor) {
  if (distance < 0) return {0.0f, 0.0f};
  const PairPlace place = PlaceOf(p.turns, pair);
  Vec2 x = {q[place.first], q[place.second]};
  if (place.turns) x = Turned(p.turns, distance, pair, x.x, x.y);
  x = {x.x * factor, x.y * factor};
  if (!kBalanced || p.layer.key_balance == nullptr) return x;
  const Global<const float> balance = p.layer.key_balance + int64_t{kv_head} * p.geometry.head_dim;
  return {x.x * balance[place.first], x.y * balance[place.second]};
}

// Four consecutive values of a key, from a multiple of four on; of int8 without their scale.
__device__ __forceinline__ Vec4 LoadKeyQuad(const AttentionParams& p, int64_t at) {
  const KvGeometry& g = p.geometry;
  if (g.form == KvForm::kF32) return LoadAs<Vec4>(p.layer.f32 + at);
  if (g.form == KvForm::kI8) {
    const uint32_t w = LoadAs<uint32_t>(p.layer.i8 + at);
    const auto value = [w](int i) { return static_cast<float>(static_cast<int8_t>(w >> (8 * i))); };
    return {value(0), value(1), value(2), value(3)};
  }
  const Words2 w = LoadAs<Words2>(p.layer.bf16 + at);
  return {BitsToFloat(w.x << 16), BitsToFloat(w.x & 0xFFFF0000u), BitsToFloat(w.y << 16),
          BitsToFloat(w.y & 0xFFFF0000u)};
}

// <q, key> over dimensions [begin, end) in ascending order, of int8 without the scale; q [D] in
// shared memory, aligned to 16 bytes.
__device__ __forceinline__ float DotRange(const AttentionParams& p, Shared<float> q, int64_t block,
                                          int kv_head, int slot, int begin, int end) {
  const KvGeometry& g = p.geometry;
  float sum = 0;
  if (g.head_dim % 8 != 0) {
    for (int c = begin; c < end; ++c) {
      const float k = LoadValue(p.layer, g, ValueIndex(g, block, false, kv_head, slot, c));
      sum = Fma(q[c], k, sum);
    }
    return sum;
  }
  for (int c = begin; c < end; c += 4) {
    const Vec4 k = LoadKeyQuad(p, ValueIndex(g, block, false, kv_head, slot, c));
    const Vec4 x = LoadShared<Vec4>(q + c);
    sum = Fma(x.w, k.w, Fma(x.z, k.z, Fma(x.y, k.y, Fma(x.x, k.x, sum))));
  }
  return sum;
}

// <q, key>; of int8 group by group.
__device__ __forceinline__ float DotKey(const AttentionParams& p, Shared<float> q, int64_t block,
                                        int kv_head, int slot) {
  const KvGeometry& g = p.geometry;
  if (g.form != KvForm::kI8) return DotRange(p, q, block, kv_head, slot, 0, g.head_dim);
  float sum = 0;
  for (int begin = 0; begin < g.head_dim; begin += kKeyScaleDims) {
    const int end = begin + kKeyScaleDims < g.head_dim ? begin + kKeyScaleDims : g.head_dim;
    const int64_t scale = ScaleIndex(g, block, kv_head, begin / kKeyScaleDims, slot);
    sum = Fma(DotRange(p, q, block, kv_head, slot, begin, end), p.layer.scales[scale], sum);
  }
  return sum;
}

}  // namespace kvasir::cuda

// The loops of AttentionOps in terms of Simd. Include after one simd_*.h, in a translation unit of
// that suffix.
//
// Register tiles: kLanes lanes by kVectors vectors of keys (scores) or of dimensions (values). A
// loaded key or value serves all lanes of the tile; every lane has one chain of multiply-adds, in
// the order of d (scores) and of keys (values).
#pragma once

#include <cstdint>

#include "kernels/cpu/attention_ops.h"
#include "kernels/cpu/kv_rotate.h"
#include "kernels/cpu/simd_math.h"

namespace kvasir {
namespace {

using F = Simd::F;
constexpr int kTileLanes = Simd::kLanes;
constexpr int kTileVectors = Simd::kVectors;

// How pairs of consecutive values (dimensions of a key; values of two slots) lie in a tile, and how
// either of a pair is loaded. `stride`: values from one pair member's run to the next, fp32 only.
struct Bf16Pairs {
  using Element = uint16_t;
  static constexpr int kPairScale = 2;  // elements a pair position
  static F First(const Element* p, int64_t) { return Simd::LoadBf16First(p); }
  static F Second(const Element* p, int64_t) { return Simd::LoadBf16Second(p); }
};
struct F32Pairs {
  using Element = float;
  static constexpr int kPairScale = 1;
  static F First(const Element* p, int64_t) { return Simd::Load(p); }
  static F Second(const Element* p, int64_t stride) { return Simd::Load(p + stride); }
};

template <typename Pairs>
const typename Pairs::Element* ElementsOf(const void* tile) {
  return static_cast<const typename Pairs::Element*>(tile);
}

// scores[lane][first_key ...] for kTileVectors vectors of keys.
template <typename Pairs, int kCount>
inline void ScoreVectors(const KvTile& tile, const AttentionPiece& piece, int first_key,
                         const float* q, float (*scores)[kPieceKeys]) {
  const typename Pairs::Element* k[kTileVectors];
  for (int v = 0; v < kTileVectors; ++v) {
    const int key = first_key + v * Simd::kWidth;
    k[v] = ElementsOf<Pairs>(piece.k[key / kTileSlots]) + key % kTileSlots * Pairs::kPairScale;
  }
  F sums[kCount][kTileVectors];
  for (int lane = 0; lane < kCount; ++lane) {
    for (int v = 0; v < kTileVectors; ++v) sums[lane][v] = Simd::Set(0);
  }
  const int64_t width = tile.v_width;
  for (int64_t d = 0; d < tile.head_dim; d += 2) {
    const int64_t at = d * kTileSlots;
    F keys[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) keys[v] = Pairs::First(k[v] + at, kTileSlots);
    for (int lane = 0; lane < kCount; ++lane) {
      const F query = Simd::Set(q[lane * width + d]);
      for (int v = 0; v < kTileVectors; ++v) {
        sums[lane][v] = Simd::Fma(query, keys[v], sums[lane][v]);
      }
    }
    for (int v = 0; v < kTileVectors; ++v) keys[v] = Pairs::Second(k[v] + at, kTileSlots);
    for (int lane = 0; lane < kCount; ++lane) {
      const F query = Simd::Set(q[lane * width + d + 1]);
      for (int v = 0; v < kTileVectors; ++v) {
        sums[lane][v] = Simd::Fma(query, keys[v], sums[lane][v]);
      }
    }
  }
  for (int lane = 0; lane < kCount; ++lane) {
    for (int v = 0; v < kTileVectors; ++v) {
      Simd::Store(&scores[lane][first_key + v * Simd::kWidth], sums[lane][v]);
    }
  }
}

// Masks one lane's scores, turns them into weights in place, brings max and sum up to date and
// returns the factor on what was accumulated before.
inline float SoftmaxLane(const KeyRange& range, float* scores, float* max, float* sum) {
  constexpr int kVectors = kPieceKeys / Simd::kWidth;
  F s[kVectors];
  F top = Simd::Set(kMasked);
  for (int v = 0; v < kVectors; ++v) {
    s[v] = Simd::InRange(Simd::Load(scores + v * Simd::kWidth), v * Simd::kWidth, range.lo,
                         range.hi, Simd::Set(kMasked));
    top = Simd::Max(top, s[v]);
  }
  const float piece_max = Simd::ReduceMax(top);
  const float new_max = piece_max > *max ? piece_max : *max;
  F total = Simd::Set(0);
  for (int v = 0; v < kVectors; ++v) {
    s[v] = Exp2(Simd::Sub(s[v], Simd::Set(new_max)));
    Simd::Store(scores + v * Simd::kWidth, s[v]);
    total = Simd::Add(total, s[v]);
  }
  const F factor = Exp2(Simd::Set(*max - new_max));
  Simd::Store(sum, Simd::Fma(Simd::Load(sum), factor, total));
  *max = new_max;
  float factors[Simd::kWidth];
  Simd::Store(factors, factor);
  return factors[0];
}

// acc[lane][column ...] = acc * factor + weights * values, for kColumns vectors of dimensions.
// Values of keys from keys.hi on are not read: they may never have been written.
template <typename Pairs, int kCount, int kColumns>
inline void AddValues(const KvTile& tile, const AttentionPiece& piece, const KeyRange& keys,
                      int64_t column, const float (*weights)[kPieceKeys], const float* factors,
                      float* acc) {
  const int64_t width = tile.v_width;
  F sums[kCount][kColumns];
  for (int lane = 0; lane < kCount; ++lane) {
    const F factor = Simd::Set(factors[lane]);
    for (int c = 0; c < kColumns; ++c) {
      const float* from = acc + lane * width + column + c * Simd::kWidth;
      sums[lane][c] = Simd::Mul(Simd::Load(from), factor);
    }
  }
  const auto add = [&](const F* values, int key) __attribute__((always_inline)) {
    for (int lane = 0; lane < kCount; ++lane) {
      const F weight = Simd::Set(weights[lane][key]);
      for (int c = 0; c < kColumns; ++c) {
        sums[lane][c] = Simd::Fma(weight, values[c], sums[lane][c]);
      }
    }
  };
  for (int key = keys.lo; key < keys.hi; key += 2) {
    const auto* v = ElementsOf<Pairs>(piece.v[key / kTileSlots]) + key % kTileSlots * width +
                    column * Pairs::kPairScale;
    F values[kColumns];
    for (int c = 0; c < kColumns; ++c) {
      values[c] = Pairs::First(v + c * Simd::kWidth * Pairs::kPairScale, width);
    }
    add(values, key);
    if (key + 1 == keys.hi) break;
    for (int c = 0; c < kColumns; ++c) {
      values[c] = Pairs::Second(v + c * Simd::kWidth * Pairs::kPairScale, width);
    }
    add(values, key + 1);
  }
  for (int lane = 0; lane < kCount; ++lane) {
    for (int c = 0; c < kColumns; ++c) {
      Simd::Store(acc + lane * width + column + c * Simd::kWidth, sums[lane][c]);
    }
  }
}

// The last, narrower columns: 1 .. kTileVectors - 1 vectors.
template <typename Pairs, int kCount, int kColumns>
inline void AddLastValues(const KvTile& tile, const AttentionPiece& piece, const KeyRange& keys,
                          int64_t column, const float (*weights)[kPieceKeys], const float* factors,
                          float* acc) {
  if constexpr (kColumns > 0) {
    if (tile.v_width - column == kColumns * Simd::kWidth) {
      AddValues<Pairs, kCount, kColumns>(tile, piece, keys, column, weights, factors, acc);
    } else {
      AddLastValues<Pairs, kCount, kColumns - 1>(tile, piece, keys, column, weights, factors, acc);
    }
  }
}

// All keys that any of the lanes sees, from an even one on.
inline KeyRange UnionOf(const KeyRange* ranges, int n) {
  KeyRange all = {kPieceKeys, 0};
  for (int i = 0; i < n; ++i) {
    if (ranges[i].hi <= ranges[i].lo) continue;
    if (ranges[i].lo < all.lo) all.lo = ranges[i].lo;
    if (ranges[i].hi > all.hi) all.hi = ranges[i].hi;
  }
  all.lo &= ~1;
  return all;
}

template <typename Pairs, int kCount>
void AddPieceToLanes(const KvTile& tile, const AttentionPiece& piece, const float* q,
                     const KeyRange* ranges, const LaneState& state) {
  const KeyRange keys = UnionOf(ranges, kCount);
  if (keys.hi <= keys.lo) return;
  alignas(64) float scores[kCount][kPieceKeys];
  for (int key = 0; key < kPieceKeys; key += kTileVectors * Simd::kWidth) {
    ScoreVectors<Pairs, kCount>(tile, piece, key, q, scores);
  }
  float factors[kCount];
  for (int lane = 0; lane < kCount; ++lane) {
    factors[lane] =
        SoftmaxLane(ranges[lane], scores[lane], state.max + lane, state.sum + lane * kTileSlots);
  }
  int64_t column = 0;
  for (; column + kTileVectors * Simd::kWidth <= tile.v_width;
       column += kTileVectors * Simd::kWidth) {
    AddValues<Pairs, kCount, kTileVectors>(tile, piece, keys, column, scores, factors, state.acc);
  }
  AddLastValues<Pairs, kCount, kTileVectors - 1>(tile, piece, keys, column, scores, factors,
                                                 state.acc);
}

// Full register tiles, then one of n % kTileLanes lanes.
template <typename Pairs, int kCount>
void AddPieceTail(const KvTile& tile, const AttentionPiece& piece, int n, const float* q,
                  const KeyRange* ranges, const LaneState& state) {
  if constexpr (kCount > 0) {
    if (n == kCount) {
      AddPieceToLanes<Pairs, kCount>(tile, piece, q, ranges, state);
    } else {
      AddPieceTail<Pairs, kCount - 1>(tile, piece, n, q, ranges, state);
    }
  }
}

template <typename Pairs>
void AddPieceOf(const KvTile& tile, const AttentionPiece& piece, int n, const float* q,
                const KeyRange* ranges, LaneState state) {
  const int64_t width = tile.v_width;
  for (; n >= kTileLanes; n -= kTileLanes) {
    AddPieceToLanes<Pairs, kTileLanes>(tile, piece, q, ranges, state);
    q += kTileLanes * width;
    ranges += kTileLanes;
    state.max += kTileLanes;
    state.sum += kTileLanes * kTileSlots;
    state.acc += kTileLanes * width;
  }
  AddPieceTail<Pairs, kTileLanes - 1>(tile, piece, n, q, ranges, state);
}

void AddPiece(const KvTile& tile, const AttentionPiece& piece, int n, const float* q,
              const KeyRange* ranges, const LaneState& state) {
  if (tile.bf16) {
    AddPieceOf<Bf16Pairs>(tile, piece, n, q, ranges, state);
  } else {
    AddPieceOf<F32Pairs>(tile, piece, n, q, ranges, state);
  }
}

void RotateQuery(const Rotation& rotation, const float* x, int32_t head_dim, int32_t width,
                 float* out) {
  RotateRow(x, rotation, head_dim, out);
  for (int32_t d = head_dim; d < width; ++d) out[d] = 0.0f;
}

constexpr AttentionOps kAttentionTable = {RotateQuery, AddPiece};

}  // namespace
}  // namespace kvasir

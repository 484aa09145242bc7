// The loops of AttentionOps in terms of Simd. Include after one simd_*.h, in a translation unit of
// that suffix.
//
// Register tiles: kLanes lanes by kVectors vectors of keys (scores) or of dimensions (values). A
// loaded key or value serves all lanes of the tile; every lane has one chain of multiply-adds, in
// the order of d (scores) and of keys (values).
#pragma once

#include <cstdint>
#include <type_traits>

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

// scores[lane][first_key ...] for kTileVectors vectors of keys. kFetchNext: for every line of keys
// that is read, the same line of the next piece is fetched into the cache.
template <typename Pairs, int kCount, bool kFetchNext>
inline void ScoreVectors(const KvTile& tile, const AttentionPiece& piece, int first_key,
                         const float* q, float (*scores)[kPieceKeys]) {
  const typename Pairs::Element* k[kTileVectors];
  const typename Pairs::Element* next[kTileVectors];
  for (int v = 0; v < kTileVectors; ++v) {
    const int key = first_key + v * Simd::kWidth, offset = key % kTileSlots * Pairs::kPairScale;
    k[v] = ElementsOf<Pairs>(piece.k[key / kTileSlots]) + offset;
    next[v] = ElementsOf<Pairs>(piece.next_k[key / kTileSlots]) + offset;
  }
  F sums[kCount][kTileVectors];
  for (int lane = 0; lane < kCount; ++lane) {
    for (int v = 0; v < kTileVectors; ++v) sums[lane][v] = Simd::Set(0);
  }
  const int64_t width = tile.v_width;
  for (int64_t d = 0; d < tile.head_dim; d += 2) {
    const int64_t at = d * kTileSlots;
    if constexpr (kFetchNext) {
      for (int v = 0; v < kTileVectors; ++v) __builtin_prefetch(next[v] + at);
    }
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

// Masks one lane's scores in place and returns their maximum.
inline float MaskLane(const KeyRange& range, float* scores) {
  constexpr int kVectors = kPieceKeys / Simd::kWidth;
  F top = Simd::Set(kMasked);
  if (range.lo <= 0 && range.hi >= kPieceKeys) {
    for (int v = 0; v < kVectors; ++v) top = Simd::Max(top, Simd::Load(scores + v * Simd::kWidth));
    return Simd::ReduceMax(top);
  }
  for (int v = 0; v < kVectors; ++v) {
    const F s = Simd::InRange(Simd::Load(scores + v * Simd::kWidth), v * Simd::kWidth, range.lo,
                              range.hi, Simd::Set(kMasked));
    Simd::Store(scores + v * Simd::kWidth, s);
    top = Simd::Max(top, s);
  }
  return Simd::ReduceMax(top);
}

// Turns one lane's scores into weights in place and brings its sums up to date.
inline void WeighLane(float max, float factor, float* scores, float* sum) {
  F total = Simd::Set(0);
  for (int key = 0; key < kPieceKeys; key += Simd::kWidth) {
    const F weight = Exp2(Simd::Sub(Simd::Load(scores + key), Simd::Set(max)));
    Simd::Store(scores + key, weight);
    total = Simd::Add(total, weight);
  }
  Simd::Store(sum, Simd::Fma(Simd::Load(sum), Simd::Set(factor), total));
}

// One step of the running softmax: scores become weights, max and sum are brought up to date,
// factors [kCount] are what the values so far must be multiplied by.
template <int kCount>
inline void SoftmaxStep(const KeyRange* ranges, float (*scores)[kPieceKeys], float* max, float* sum,
                        float* factors) {
  static_assert(kCount <= Simd::kWidth);
  float change[Simd::kWidth] = {};
  for (int lane = 0; lane < kCount; ++lane) {
    const float top = MaskLane(ranges[lane], scores[lane]);
    const float before = max[lane];
    max[lane] = top > before ? top : before;
    change[lane] = before - max[lane];
  }
  if (kCount > 3) {  // one vector for all lanes; below that its way through memory costs more
    Simd::Store(change, Exp2(Simd::Load(change)));
  } else {
    for (int lane = 0; lane < kCount; ++lane) {
      change[lane] = Simd::First(Exp2(Simd::Set(change[lane])));
    }
  }
  for (int lane = 0; lane < kCount; ++lane) {
    WeighLane(max[lane], change[lane], scores[lane], sum + lane * kTileSlots);
    factors[lane] = change[lane];
  }
}

// acc[lane][column ...] = acc * factor + weights * values, for kColumns vectors of dimensions.
// Values of keys from keys.hi on are not read: they may never have been written.
template <typename Pairs, int kCount, int kColumns, bool kFetchNext>
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
    const int64_t at = key % kTileSlots * width + column * Pairs::kPairScale;
    const auto* v = ElementsOf<Pairs>(piece.v[key / kTileSlots]) + at;
    const auto* next = ElementsOf<Pairs>(piece.next_v[key / kTileSlots]) + at;
    F values[kColumns];
    if constexpr (kFetchNext) {
      for (int c = 0; c < kColumns; ++c) {
        __builtin_prefetch(next + c * Simd::kWidth * Pairs::kPairScale);
      }
    }
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

// All dimensions: register tiles of kColumns vectors while they fit, then narrower ones.
template <typename Pairs, int kCount, int kColumns, bool kFetchNext>
inline void AddColumns(const KvTile& tile, const AttentionPiece& piece, const KeyRange& keys,
                       int64_t column, const float (*weights)[kPieceKeys], const float* factors,
                       float* acc) {
  constexpr int64_t kWidth = kColumns * Simd::kWidth;
  for (; column + kWidth <= tile.v_width; column += kWidth) {
    AddValues<Pairs, kCount, kColumns, kFetchNext>(tile, piece, keys, column, weights, factors,
                                                   acc);
  }
  if constexpr (kColumns > 1) {
    AddColumns<Pairs, kCount, kColumns / 2, kFetchNext>(tile, piece, keys, column, weights, factors,
                                                        acc);
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

// For lanes whose weights are wanted as such: those made here are relative to a maximum that may
// still grow.
template <int kCount>
__attribute__((noinline, cold)) void KeepScores(const float (*scores)[kPieceKeys],
                                                const LaneState& state) {
  for (int lane = 0; lane < kCount; ++lane) {
    float* to = state.scores + lane * state.score_stride;
    for (int key = 0; key < kPieceKeys; key += Simd::kWidth) {
      Simd::Store(to + key, Simd::Load(&scores[lane][key]));
    }
  }
}

}  // namespace
}  // namespace kvasir

#include "kernels/cpu/attention_int8.h"
#ifdef KVASIR_PAIR_DOTS
#include "kernels/cpu/attention_dots.h"
#endif

namespace kvasir {
namespace {

// Bf16Pairs multiplied as pairs.
struct Bf16Dots : Bf16Pairs {};
// Int8 tiles.
struct Int8Words {
  static constexpr int kPairScale = 2;
};

template <typename Pairs, int kCount, bool kFetchNext>
inline void AddPieceByVectors(const KvTile& tile, const AttentionPiece& piece, const float* q,
                              const KeyRange* ranges, const KeyRange& keys,
                              const LaneState& state) {
  alignas(64) float scores[kCount][kPieceKeys];
  for (int key = 0; key < kPieceKeys; key += kTileVectors * Simd::kWidth) {
    ScoreVectors<Pairs, kCount, kFetchNext>(tile, piece, key, q, scores);
  }
  if (state.scores != nullptr) KeepScores<kCount>(scores, state);
  float factors[kCount];
  SoftmaxStep<kCount>(ranges, scores, state.max, state.sum, factors);
  AddColumns<Pairs, kCount, kTileVectors, kFetchNext>(tile, piece, keys, 0, scores, factors,
                                                      state.acc);
}

template <typename Pairs, int kCount, bool kFetchNext>
void AddPieceToLanes(const KvTile& tile, const AttentionPiece& piece, const float* q,
                     const KeyRange* ranges, const LaneState& state) {
  const KeyRange keys = UnionOf(ranges, kCount);
  if (keys.hi <= keys.lo) return;
  if constexpr (std::is_same_v<Pairs, Int8Words>) {
    AddPieceByInts<kCount, kFetchNext>(tile, piece, q, ranges, keys, state);
#ifdef KVASIR_PAIR_DOTS
  } else if constexpr (std::is_same_v<Pairs, Bf16Dots>) {
    AddPieceByDots<kCount, kFetchNext>(tile, piece, q, ranges, keys, state);
#endif
  } else {
    AddPieceByVectors<Pairs, kCount, kFetchNext>(tile, piece, q, ranges, keys, state);
  }
}

// Fewer lanes than a register tile. fp32 pools are for gates and tests: there they go one by one,
// which spares many instances.
template <typename Pairs, int kCount>
void AddPieceTail(const KvTile& tile, const AttentionPiece& piece, int n, const float* q,
                  const KeyRange* ranges, const LaneState& state) {
  if constexpr (Pairs::kPairScale == 1 && kCount > 1) {
    for (int i = 0; i < n; ++i) {
      AddPieceToLanes<Pairs, 1, true>(
          tile, piece, q + i * tile.v_width, ranges + i,
          {state.max + i, state.sum + i * kTileSlots, state.acc + i * int64_t{tile.v_width},
           state.scores + i * state.score_stride, state.score_stride});
    }
  } else if constexpr (kCount > 0) {
    if (n == kCount) {
      AddPieceToLanes<Pairs, kCount, true>(tile, piece, q, ranges, state);
    } else {
      AddPieceTail<Pairs, kCount - 1>(tile, piece, n, q, ranges, state);
    }
  }
}

// The first lanes fetch the next piece, while they work.
template <typename Pairs>
void AddPieceOf(const KvTile& tile, AttentionPiece piece, int n, const float* q,
                const KeyRange* ranges, LaneState state) {
  const int64_t width = tile.v_width;
  for (bool first = true; n >= kTileLanes; n -= kTileLanes, first = false) {
    if (first) {
      AddPieceToLanes<Pairs, kTileLanes, true>(tile, piece, q, ranges, state);
      __builtin_memcpy(piece.next_k, piece.k, sizeof piece.k);
      __builtin_memcpy(piece.next_v, piece.v, sizeof piece.v);
    } else {
      AddPieceToLanes<Pairs, kTileLanes, false>(tile, piece, q, ranges, state);
    }
    q += kTileLanes * width;
    ranges += kTileLanes;
    state.max += kTileLanes;
    state.sum += kTileLanes * kTileSlots;
    state.acc += kTileLanes * width;
    state.scores += kTileLanes * state.score_stride;
  }
  AddPieceTail<Pairs, kTileLanes - 1>(tile, piece, n, q, ranges, state);
}

void AddPiece(const KvTile& tile, const AttentionPiece& piece, int n, const float* q,
              const KeyRange* ranges, const LaneState& state) {
  switch (tile.form) {
    case KvForm::kF32:
      return AddPieceOf<F32Pairs>(tile, piece, n, q, ranges, state);
    case KvForm::kBf16:
      return AddPieceOf<Bf16Pairs>(tile, piece, n, q, ranges, state);
    case KvForm::kI8:
      return AddPieceOf<Int8Words>(tile, piece, n, q, ranges, state);
  }
}

#ifdef KVASIR_PAIR_DOTS
// Bf16 tiles by dot products of pairs.
void AddPieceInPairs(const KvTile& tile, const AttentionPiece& piece, int n, const float* q,
                     const KeyRange* ranges, const LaneState& state) {
  if (TakesPairDots(tile)) return AddPieceOf<Bf16Dots>(tile, piece, n, q, ranges, state);
  AddPiece(tile, piece, n, q, ranges, state);
}
#endif

// out [D'] = x [D] turned, times share; the padding becomes zero.
inline void TurnToFloats(const KvTile& tile, const Rotation& rotation, const float* x, float share,
                         float* out) {
  RotateRow(x, rotation, tile.head_dim, out);
  for (int32_t d = tile.head_dim; d < tile.v_width; ++d) out[d] = 0.0f;
  if (share == 1.0f) return;
  for (int32_t d = 0; d < tile.head_dim; ++d) out[d] *= share;
}

void TurnQuery(const KvTile& tile, const Rotation& rotation, const float* x, float share,
               float* operand) {
  if (tile.form != KvForm::kI8) return TurnToFloats(tile, rotation, x, share, operand);
  alignas(64) float turned[kMaxHeadDim];
  TurnToFloats(tile, rotation, x, share, turned);
  if (tile.key_balance != nullptr) {
    for (int32_t d = 0; d < tile.head_dim; ++d) turned[d] *= tile.key_balance[d];
  }
  TurnQueryToWords(tile, turned, operand);
}

#ifdef KVASIR_PAIR_DOTS
void TurnQueryToPairs(const KvTile& tile, const Rotation& rotation, const float* x, float share,
                      float* operand) {
  if (!TakesPairDots(tile)) return TurnQuery(tile, rotation, x, share, operand);
  alignas(64) float turned[kMaxHeadDim];
  TurnToFloats(tile, rotation, x, share, turned);
  ToPairs(turned, tile.v_width, reinterpret_cast<PairWord*>(operand));
}
#endif

float SumLane(const float* partial_sums) {
  F sum = Simd::Load(partial_sums);
  for (int i = Simd::kWidth; i < kTileSlots; i += Simd::kWidth) {
    sum = Simd::Add(sum, Simd::Load(partial_sums + i));
  }
  return Simd::ReduceAdd(sum);
}

void MergeSplit(float max, float sum, const float* acc, int32_t width, const LaneTotal& total) {
  if (sum == 0.0f) return;
  const float top = max > *total.max ? max : *total.max;
  const F before = Exp2(Simd::Set(*total.max - top)), now = Exp2(Simd::Set(max - top));
  for (int32_t d = 0; d < width; d += Simd::kWidth) {
    const F added = Simd::Mul(Simd::Load(acc + d), now);
    Simd::Store(total.acc + d, Simd::Fma(Simd::Load(total.acc + d), before, added));
  }
  float sums[Simd::kWidth];
  Simd::Store(sums, Simd::Fma(Simd::Set(*total.sum), before, Simd::Mul(Simd::Set(sum), now)));
  *total.sum = sums[0];
  *total.max = top;
}

void AddWeights(const float* scores, const KeyRange& keys, float max, float share, float* mass) {
  const F top = Simd::Set(max), part = Simd::Set(share);
  const auto weights = [&](int key) __attribute__((always_inline)) {
    return Simd::Mul(Exp2(Simd::Sub(Simd::Load(scores + key), top)), part);
  };
  int key = keys.lo;
  for (; key + Simd::kWidth <= keys.hi; key += Simd::kWidth) {
    Simd::Store(mass + key, Simd::Add(Simd::Load(mass + key), weights(key)));
  }
  if (key == keys.hi) return;
  float rest[Simd::kWidth];
  Simd::Store(rest, weights(key));
  for (int i = 0; key < keys.hi; ++key, ++i) mass[key] += rest[i];
}

constexpr AttentionOps kAttentionTable = {TurnQuery, AddPiece, SumLane, MergeSplit, AddWeights};
#ifdef KVASIR_PAIR_DOTS
constexpr AttentionOps kAttentionPairsTable = {TurnQueryToPairs, AddPieceInPairs, SumLane,
                                               MergeSplit, AddWeights};
#endif

}  // namespace
}  // namespace kvasir

// Attention over bf16 tiles by dot products of bf16 pairs with fp32 sums: twice the products of a
// multiply-add in fp32 and no unpacking. Queries and weights are rounded to bf16; maxima, sums and
// accumulators stay fp32. Part of attention_kernels.h where KVASIR_PAIR_DOTS is
// defined.
#pragma once

#include <cstdint>

#include "kernels/cpu/attention_ops.h"

namespace kvasir {
namespace {

// Pairs of neighbouring values, two in a 32-bit word.
using PairWord = uint32_t;

inline constexpr bool TakesPairDots(const KvTile& tile) { return tile.form == KvForm::kBf16; }

// words [count / 2] = x [count] as bf16; count is a multiple of 32, or of 16 at the end.
inline void ToPairs(const float* x, int64_t count, PairWord* words) {
  int64_t i = 0;
  for (; i + 2 * Simd::kWidth <= count; i += 2 * Simd::kWidth) {
    Simd::StorePairs(words + i / 2, Simd::Load(x + i), Simd::Load(x + i + Simd::kWidth));
  }
  if (i < count) Simd::StoreHalfPairs(words + i / 2, Simd::Load(x + i));
}

// scores[lane][first_key ...] for kTileVectors vectors of keys; operands [kCount][D'], whose first
// half is pairs.
template <int kCount, bool kFetchNext>
inline void ScoreDots(const KvTile& tile, const AttentionPiece& piece, int first_key,
                      const float* operands, float (*scores)[kPieceKeys]) {
  const auto word = [&](int lane, int64_t pair) __attribute__((always_inline)) {
    PairWord bits;
    __builtin_memcpy(&bits, operands + lane * int64_t{tile.v_width} + pair, sizeof bits);
    return bits;
  };
  const PairWord* k[Simd::kVectors];
  const PairWord* next[Simd::kVectors];
  for (int v = 0; v < Simd::kVectors; ++v) {
    const int key = first_key + v * Simd::kWidth, offset = key % kTileSlots;
    k[v] = static_cast<const PairWord*>(piece.k[key / kTileSlots]) + offset;
    next[v] = static_cast<const PairWord*>(piece.next_k[key / kTileSlots]) + offset;
  }
  F sums[kCount][Simd::kVectors];
  for (int lane = 0; lane < kCount; ++lane) {
    for (int v = 0; v < Simd::kVectors; ++v) sums[lane][v] = Simd::Set(0);
  }
  for (int64_t pair = 0; pair < tile.head_dim / 2; ++pair) {
    const int64_t at = pair * kTileSlots;
    if constexpr (kFetchNext) {
      for (int v = 0; v < Simd::kVectors; ++v) __builtin_prefetch(next[v] + at);
    }
    Simd::Pairs keys[Simd::kVectors];
    for (int v = 0; v < Simd::kVectors; ++v) keys[v] = Simd::LoadPairs(k[v] + at);
    for (int lane = 0; lane < kCount; ++lane) {
      const Simd::Pairs query = Simd::SetPair(word(lane, pair));
      for (int v = 0; v < Simd::kVectors; ++v) {
        sums[lane][v] = Simd::Dot(sums[lane][v], keys[v], query);
      }
    }
  }
  for (int lane = 0; lane < kCount; ++lane) {
    for (int v = 0; v < Simd::kVectors; ++v) {
      Simd::Store(&scores[lane][first_key + v * Simd::kWidth], sums[lane][v]);
    }
  }
}

// acc[lane][column ...] = acc * factor + weights * values, for kColumns vectors of dimensions.
// Values of keys from keys.hi on count for nothing: they may never have been written.
template <int kCount, int kColumns, bool kFetchNext>
inline void AddValueDots(const KvTile& tile, const AttentionPiece& piece, const KeyRange& keys,
                         int64_t column, const PairWord (*weights)[kPieceKeys / 2],
                         const float* factors, float* acc) {
  const int64_t width = tile.v_width;
  F sums[kCount][kColumns];
  for (int lane = 0; lane < kCount; ++lane) {
    const F factor = Simd::Set(factors[lane]);
    for (int c = 0; c < kColumns; ++c) {
      const float* from = acc + lane * width + column + c * Simd::kWidth;
      sums[lane][c] = Simd::Mul(Simd::Load(from), factor);
    }
  }
  const auto add = [&](int key, auto load) __attribute__((always_inline)) {
    const int64_t at = key % kTileSlots / 2 * width + column;
    const PairWord* v = static_cast<const PairWord*>(piece.v[key / kTileSlots]) + at;
    const PairWord* next = static_cast<const PairWord*>(piece.next_v[key / kTileSlots]) + at;
    Simd::Pairs values[kColumns];
    if constexpr (kFetchNext) {
      for (int c = 0; c < kColumns; ++c) __builtin_prefetch(next + c * Simd::kWidth);
    }
    for (int c = 0; c < kColumns; ++c) values[c] = load(v + c * Simd::kWidth);
    for (int lane = 0; lane < kCount; ++lane) {
      const Simd::Pairs weight = Simd::SetPair(weights[lane][key / 2]);
      for (int c = 0; c < kColumns; ++c) {
        sums[lane][c] = Simd::Dot(sums[lane][c], values[c], weight);
      }
    }
  };
  int key = keys.lo;
  for (; key + 1 < keys.hi; key += 2) add(key, Simd::LoadPairs);
  if (key < keys.hi) add(key, Simd::LoadFirstOfPairs);
  for (int lane = 0; lane < kCount; ++lane) {
    for (int c = 0; c < kColumns; ++c) {
      Simd::Store(acc + lane * width + column + c * Simd::kWidth, sums[lane][c]);
    }
  }
}

template <int kCount, int kColumns, bool kFetchNext>
inline void AddColumnDots(const KvTile& tile, const AttentionPiece& piece, const KeyRange& keys,
                          int64_t column, const PairWord (*weights)[kPieceKeys / 2],
                          const float* factors, float* acc) {
  constexpr int64_t kWidth = kColumns * Simd::kWidth;
  for (; column + kWidth <= tile.v_width; column += kWidth) {
    AddValueDots<kCount, kColumns, kFetchNext>(tile, piece, keys, column, weights, factors, acc);
  }
  if constexpr (kColumns > 1) {
    AddColumnDots<kCount, kColumns / 2, kFetchNext>(tile, piece, keys, column, weights, factors,
                                                    acc);
  }
}

// What the piece adds to kCount lanes; as AddPieceToLanes.
template <int kCount, bool kFetchNext>
inline void AddPieceByDots(const KvTile& tile, const AttentionPiece& piece, const float* q,
                           const KeyRange* ranges, const KeyRange& keys, const LaneState& state) {
  alignas(64) float scores[kCount][kPieceKeys];
  for (int key = 0; key < kPieceKeys; key += Simd::kVectors * Simd::kWidth) {
    ScoreDots<kCount, kFetchNext>(tile, piece, key, q, scores);
  }
  if (state.scores != nullptr) KeepScores<kCount>(scores, state);
  float factors[kCount];
  SoftmaxStep<kCount>(ranges, scores, state.max, state.sum, factors);
  alignas(64) PairWord weights[kCount][kPieceKeys / 2];
  ToPairs(scores[0], int64_t{kCount} * kPieceKeys, weights[0]);
  AddColumnDots<kCount, Simd::kVectors, kFetchNext>(tile, piece, keys, 0, weights, factors,
                                                    state.acc);
}

}  // namespace
}  // namespace kvasir

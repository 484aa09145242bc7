// Attention over int8 tiles by dot products of pairs of 16-bit integers: keys and values are
// widened in registers, queries are rounded to 16 bits of their own range, weights (times the
// scales of the values) to 16 bits of the largest that they may be. Sums of at most 512 products
// are exact integers. Part of attention_kernels.h.
#pragma once

#include <cstdint>

#include "kernels/core/kv_int8.h"
#include "kernels/cpu/attention_ops.h"

namespace kvasir {
namespace {

using WordPair = uint32_t;  // two 16-bit integers
constexpr float kMaxWord = 32767.0f;

// operand [D']: D'/2 pairs, then their scale.
inline void TurnQueryToWords(const KvTile& tile, const float* turned, float* operand) {
  Simd::F tops = Simd::Set(0);
  for (int32_t d = 0; d < tile.v_width; d += Simd::kWidth) {
    const Simd::F x = Simd::Load(turned + d);
    tops = Simd::Max(tops, Simd::Max(x, Simd::Sub(Simd::Set(0), x)));
  }
  const float top = Simd::ReduceMax(tops);
  const F inverse = Simd::Set(top < kLeastInt8Magnitude ? 0.0f : kMaxWord / top);
  for (int32_t d = 0; d < tile.v_width; d += Simd::kWidth) {
    auto* words = reinterpret_cast<WordPair*>(operand + d / 2);
    Simd::StoreWords(words, Simd::Mul(Simd::Load(turned + d), inverse));
  }
  operand[tile.v_width / 2] = top / kMaxWord;
}

// Adds one group of dimensions (kv_int8.h) from `pair` on to the scores of kTileVectors vectors of
// keys; kFirst: sets them.
template <int kCount, bool kFetchNext, bool kFirst>
inline void ScoreGroup(const KvTile& tile, const int8_t* const* k, const int8_t* const* next,
                       const float* const* scales, int64_t pair, const float* operands,
                       float (*scores)[kPieceKeys], int first_key) {
  const int64_t width = tile.v_width, rest = tile.head_dim / 2 - pair;
  const int64_t end = pair + (rest < kKeyScaleDims / 2 ? rest : kKeyScaleDims / 2);
  const int64_t group = pair / (kKeyScaleDims / 2) * kTileSlots;
  const bool last = end == tile.head_dim / 2;
  const auto word = [&](int lane, int64_t at) __attribute__((always_inline)) {
    WordPair bits;
    __builtin_memcpy(&bits, operands + lane * width + at, sizeof bits);
    return Simd::SetWords(bits);
  };
  Simd::I sums[kCount][Simd::kVectors];
  for (int lane = 0; lane < kCount; ++lane) {
    for (int v = 0; v < Simd::kVectors; ++v) sums[lane][v] = Simd::ZeroI();
  }
  for (; pair < end; ++pair) {
    const int64_t at = pair * 2 * kTileSlots;
    if (kFetchNext && pair % 2 == 0) {
      for (int v = 0; v < Simd::kVectors; ++v) __builtin_prefetch(next[v] + at);
    }
    Simd::Words keys[Simd::kVectors];
    for (int v = 0; v < Simd::kVectors; ++v) keys[v] = Simd::LoadI8Words(k[v] + at);
    for (int lane = 0; lane < kCount; ++lane) {
      const Simd::Words query = word(lane, pair);
      for (int v = 0; v < Simd::kVectors; ++v) {
        sums[lane][v] = Simd::DotWords(sums[lane][v], keys[v], query);
      }
    }
  }
  for (int v = 0; v < Simd::kVectors; ++v) {
    const F scale = Simd::Load(scales[v] + group);
    for (int lane = 0; lane < kCount; ++lane) {
      float* score = &scores[lane][first_key + v * Simd::kWidth];
      F sum = Simd::ToF(sums[lane][v]);
      sum = kFirst ? Simd::Mul(sum, scale) : Simd::Fma(sum, scale, Simd::Load(score));
      if (last) sum = Simd::Mul(sum, Simd::Set(operands[lane * width + width / 2]));
      Simd::Store(score, sum);
    }
  }
}

// scores[lane][first_key ...] for kTileVectors vectors of keys.
template <int kCount, bool kFetchNext>
inline void ScoreInts(const KvTile& tile, const AttentionPiece& piece, int first_key,
                      const float* operands, float (*scores)[kPieceKeys]) {
  const int8_t *k[Simd::kVectors], *next[Simd::kVectors];
  const float* scales[Simd::kVectors];
  for (int v = 0; v < Simd::kVectors; ++v) {
    const int key = first_key + v * Simd::kWidth, offset = key % kTileSlots;
    const void* of = piece.k[key / kTileSlots];
    const void* after = piece.next_k[key / kTileSlots];
    k[v] = static_cast<const int8_t*>(of) + 2 * offset;
    next[v] = static_cast<const int8_t*>(after) + 2 * offset;
    scales[v] = tile.KScales(of) + offset;
    if (kFetchNext) __builtin_prefetch(tile.KScales(after) + offset);
  }
  ScoreGroup<kCount, kFetchNext, true>(tile, k, next, scales, 0, operands, scores, first_key);
  for (int64_t pair = kKeyScaleDims / 2; pair < tile.head_dim / 2; pair += kKeyScaleDims / 2) {
    ScoreGroup<kCount, kFetchNext, false>(tile, k, next, scales, pair, operands, scores, first_key);
  }
}

// What turns the weights of a piece into words: they are at most 1, so that weight * share is at
// most kMaxWord, in units of `scale`. Keys out of the range, whose scales may never have been
// written, count for nothing.
struct ValueShares {
  alignas(64) float shares[kPieceKeys];
  float scale;

  ValueShares(const KvTile& tile, const AttentionPiece& piece, const KeyRange& range) {
    F tops = Simd::Set(0);
    for (int key = 0; key < kPieceKeys; key += Simd::kWidth) {
      F scales = Simd::Load(tile.VScales(piece.v[key / kTileSlots]) + key % kTileSlots);
      scales = Simd::InRange(scales, key, range.lo, range.hi, Simd::Set(0));
      Simd::Store(shares + key, scales);
      tops = Simd::Max(tops, Simd::Max(scales, Simd::Sub(Simd::Set(0), scales)));
    }
    const float top = Simd::ReduceMax(tops);
    const F inverse = Simd::Set(top < kLeastInt8Magnitude ? 0.0f : kMaxWord / top);
    for (int key = 0; key < kPieceKeys; key += Simd::kWidth) {
      Simd::Store(shares + key, Simd::Mul(Simd::Load(shares + key), inverse));
    }
    scale = top / kMaxWord;
  }
};

// words [32] of one lane's weights.
inline void WeightsToWords(const ValueShares& values, const float* weights, WordPair* words) {
  for (int key = 0; key < kPieceKeys; key += Simd::kWidth) {
    const F scaled = Simd::Mul(Simd::Load(weights + key), Simd::Load(values.shares + key));
    Simd::StoreWords(words + key / 2, scaled);
  }
}

// acc[lane][column ...] = acc * factor + weights * values, for kColumns vectors of dimensions.
template <int kCount, int kColumns, bool kFetchNext>
inline void AddValueInts(const KvTile& tile, const AttentionPiece& piece, const KeyRange& keys,
                         int64_t column, const WordPair (*words)[kPieceKeys / 2],
                         const float* scales, const float* factors, float* acc) {
  const int64_t width = tile.v_width;
  Simd::I sums[kCount][kColumns];
  for (int lane = 0; lane < kCount; ++lane) {
    for (int c = 0; c < kColumns; ++c) sums[lane][c] = Simd::ZeroI();
  }
  for (int key = keys.lo; key < keys.hi; key += 2) {
    const int64_t at = 2 * (key % kTileSlots / 2 * width + column);
    const int8_t* v = static_cast<const int8_t*>(piece.v[key / kTileSlots]) + at;
    const int8_t* next = static_cast<const int8_t*>(piece.next_v[key / kTileSlots]) + at;
    Simd::Words values[kColumns];
    for (int c = 0; c < kColumns; ++c) {
      if (kFetchNext && c % 2 == 0) __builtin_prefetch(next + 2 * c * Simd::kWidth);
      values[c] = Simd::LoadI8Words(v + 2 * c * Simd::kWidth);
    }
    for (int lane = 0; lane < kCount; ++lane) {
      const Simd::Words weight = Simd::SetWords(words[lane][key / 2]);
      for (int c = 0; c < kColumns; ++c) {
        sums[lane][c] = Simd::DotWords(sums[lane][c], values[c], weight);
      }
    }
  }
  for (int lane = 0; lane < kCount; ++lane) {
    const F factor = Simd::Set(factors[lane]), scale = Simd::Set(scales[lane]);
    for (int c = 0; c < kColumns; ++c) {
      float* to = acc + lane * width + column + c * Simd::kWidth;
      const F added = Simd::Mul(Simd::ToF(sums[lane][c]), scale);
      Simd::Store(to, Simd::Fma(Simd::Load(to), factor, added));
    }
  }
}

template <int kCount, int kColumns, bool kFetchNext>
inline void AddColumnInts(const KvTile& tile, const AttentionPiece& piece, const KeyRange& keys,
                          int64_t column, const WordPair (*words)[kPieceKeys / 2],
                          const float* scales, const float* factors, float* acc) {
  constexpr int64_t kWidth = kColumns * Simd::kWidth;
  for (; column + kWidth <= tile.v_width; column += kWidth) {
    AddValueInts<kCount, kColumns, kFetchNext>(tile, piece, keys, column, words, scales, factors,
                                               acc);
  }
  if constexpr (kColumns > 1) {
    AddColumnInts<kCount, kColumns / 2, kFetchNext>(tile, piece, keys, column, words, scales,
                                                    factors, acc);
  }
}

// What the piece adds to kCount lanes; as AddPieceToLanes.
template <int kCount, bool kFetchNext>
inline void AddPieceByInts(const KvTile& tile, const AttentionPiece& piece, const float* operands,
                           const KeyRange* ranges, const KeyRange& keys, const LaneState& state) {
  alignas(64) float scores[kCount][kPieceKeys];
  for (int key = 0; key < kPieceKeys; key += Simd::kVectors * Simd::kWidth) {
    ScoreInts<kCount, kFetchNext>(tile, piece, key, operands, scores);
  }
  if (state.scores != nullptr) KeepScores<kCount>(scores, state);
  float factors[kCount], scales[kCount];
  SoftmaxStep<kCount>(ranges, scores, state.max, state.sum, factors);
  alignas(64) WordPair words[kCount][kPieceKeys / 2];
  const ValueShares all(tile, piece, keys);
  for (int lane = 0; lane < kCount; ++lane) {
    // A lane's bits depend on the keys that it sees, not on those of its neighbours.
    if (ranges[lane].lo == keys.lo && ranges[lane].hi == keys.hi) {
      WeightsToWords(all, scores[lane], words[lane]);
      scales[lane] = all.scale;
    } else {
      const ValueShares own(tile, piece, ranges[lane]);
      WeightsToWords(own, scores[lane], words[lane]);
      scales[lane] = own.scale;
    }
  }
  AddColumnInts<kCount, Simd::kVectors, kFetchNext>(tile, piece, keys, 0, words, scales, factors,
                                                    state.acc);
}

}  // namespace
}  // namespace kvasir

// AttentionOps: the inner loops of attention, one table an instruction set.
//
// A *lane* is one (row, query head) pair. All lanes of a call share a kv head and read the same
// *piece*: up to four consecutive blocks (64 keys) of one segment. What happens to a lane depends
// on its own inputs alone, bit for bit, whatever the other lanes and however many there are.
#pragma once

#include <cstdint>

#include "kernels/cpu/kv_ops.h"

namespace kvasir {

inline constexpr int kPieceBlocks = 4;
inline constexpr int kPieceKeys = kPieceBlocks * kTileSlots;

// A running maximum below every real score, and a masked score below that.
inline constexpr float kNoScore = -1e30f;
inline constexpr float kMasked = -2e30f;

// Tiles of the piece's blocks; entries behind the last block repeat a valid one. next_k, next_v:
// tiles that will be wanted soon, fetched into the cache on the way; never null.
struct AttentionPiece {
  const void* k[kPieceBlocks];
  const void* v[kPieceBlocks];
  const void* next_k[kPieceBlocks];
  const void* next_v[kPieceBlocks];
};

// Keys [lo, hi) of a piece, as seen by one lane; hi <= lo = none.
struct KeyRange {
  int32_t lo = 0, hi = 0;
};

// Softmax in progress of n lanes, scores in units of log 2.
struct LaneState {
  float* max;  // [n], kNoScore at first
  float* sum;  // [n][16] partial sums of the weights, zeros at first
  float* acc;  // [n][D'] weighted values, zeros at first
  // [n][score_stride]: where the piece's 64 scores of each lane that sees a key of it are kept,
  // those out of its range being anything. Null (and stride 0) = nowhere.
  float* scores = nullptr;
  int64_t score_stride = 0;
};

// Softmax over the splits so far of one lane.
struct LaneTotal {
  float* max;  // kNoScore at first
  float* sum;  // zero at first
  float* acc;  // [D'], zeros at first
};

struct AttentionOps {
  // Makes a lane's operand [D'] of its scaled query x [D]: turned, times `share`, in the form that
  // this table multiplies with tiles of this kind.
  void (*turn)(const KvTile& tile, const Rotation& rotation, const float* x, float share,
               float* operand);
  // Adds a piece to n lanes. operands [n][D'] as `turn` left them; ranges [n].
  void (*add_piece)(const KvTile& tile, const AttentionPiece& piece, int n, const float* operands,
                    const KeyRange* ranges, const LaneState& state);
  // Sum of one lane's [16] partial sums.
  float (*sum)(const float* partial_sums);
  // Adds a split: `sum` and acc [D'] are relative to 2^max. sum = 0 (no key seen) adds nothing.
  void (*merge)(float max, float sum, const float* acc, int32_t width, const LaneTotal& total);
  // mass[key] += 2^(scores[key] - max) * share for the keys of a range. Scores up to a vector (16)
  // behind it are read, not used.
  void (*add_weights)(const float* scores, const KeyRange& keys, float max, float share,
                      float* mass);
};

extern const AttentionOps kAttentionScalar, kAttentionAvx2, kAttentionAvx512;
// With queries and weights rounded to bf16 where the pool is bf16.
extern const AttentionOps kAttentionPairsAvx512;

}  // namespace kvasir

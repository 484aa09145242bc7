// AttentionTables: how one step's attention is cut up for the card, worked out on the host from the
// batch alone. Plain C++.
//
//  - A *lane* is one (row, query head of a kv head): row * group + head. What a warp's matrix
//    product takes at once is 16 lanes of one sequence.
//  - A *piece* is up to 64 consecutive keys of one segment, from the segment's start.
//  - A *split* is eight pieces of a sequence, counted from its first segment; empty pieces pad it
//    where context (ContextScale) begins or ends. Every lane is summed split by split and the
//    splits are merged in order, whoever computes them: a row's bits do not depend on the batch.
//  - A *tile* is up to kSmallTile lanes of a sequence that has no more (decode), else up to
//    kLargeTile. A *unit* is what a block of threads does: a whole tile, or one split of it where
//    tiles are too few to fill the card or too long for one block.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/step_batch.h"

namespace kvasir::cuda {

struct Piece {
  int32_t base = 0;       // position of its segment's first key
  int32_t first_key = 0;  // local position, a multiple of 64
  int32_t keys = 0;       // 1..64; 0 = padding
  int32_t block = 0;      // index into the block table of its first block
  int32_t context = 0;    // ContextScale applies
};

struct Tile {
  int32_t lane_begin = 0, lane_end = 0;
  int32_t piece_begin = 0, piece_end = 0;  // those that begin at or before the last row's position
  int32_t partial = -1;                    // of its first lane's partial results; -1 = not split
  int32_t sequence = 0;
};

// A unit of which there is none: fills tables up to a size that many steps share.
inline constexpr int32_t kNoTile = -1;

struct Unit {
  int32_t tile = 0;
  int32_t split = -1;  // -1 = the whole tile
};

struct SequenceScale {
  float inverse_temperature = 1, scale = 1;
};

inline constexpr int32_t kPieceKeys = 64, kSplitPieces = 8;
inline constexpr int32_t kSmallTile = 16, kLargeTile = 64;

inline int32_t SplitsOf(const Tile& tile) {
  return (tile.piece_end - tile.piece_begin + kSplitPieces - 1) / kSplitPieces;
}

struct AttentionTables {
  std::vector<Piece> pieces;
  std::vector<Tile> tiles;
  std::vector<Unit> small, large;  // of small and of large tiles, those with most keys first
  std::vector<int32_t> merges;     // tiles whose splits are merged
  std::vector<SequenceScale> scales;
  int64_t partials = 0;   // lanes of partial results a kv head
  int64_t rotations = 0;  // positions - base + 1, the largest
};

struct PlanOptions {
  int32_t group = 1;     // query heads a kv head
  int32_t kv_heads = 1;  // blocks of threads a unit
  int32_t multiprocessors = 1;
};

// Fills `small` and `merges` up to powers of two with kNoTile, and gives every lane of partial
// results room in as many splits: what is launched, and how much memory it takes, then depends on
// StepShape alone. Only for steps without large tiles.
struct StepShape {
  int32_t rows = 0, units = 0, merges = 0;
  int64_t partials = 0;
  friend bool operator==(const StepShape&, const StepShape&) = default;
};
StepShape RoundUp(int32_t rows, AttentionTables* tables);

AttentionTables PlanTables(const StepBatch& batch, const PlanOptions& options);

}  // namespace kvasir::cuda

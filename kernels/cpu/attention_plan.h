// CpuAttentionPlan: how one step's attention is cut into pieces, row tiles, splits and tasks. Made
// once a step from the batch alone, used by every layer.
//
//  - A *piece* is up to 64 consecutive keys of one segment, cut from the segment's start.
//  - A *split* is eight consecutive pieces of a sequence, counted from its first segment; empty
//    pieces pad it where context (ContextScale) begins or ends, so that a split is all of it or
//    none. Every row is summed split by split and the splits are merged in order, whoever computes
//    them, so that a row's bits depend neither on the batch nor on the number of threads.
//  - A *row tile* is up to 16 rows of one sequence, which share every key and value that is loaded.
//  - A *unit* is one tile, or one split of a tile where there are too few tiles for the threads, or
//    one split of a *group* of tiles: few rows each, of sequences that share the split's blocks,
//    which are then read once for all.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/cpu/attention_ops.h"

namespace kvasir {

struct PlannedPiece {
  int32_t segment = 0;    // index into StepBatch::segments
  int32_t first_key = 0;  // local position, a multiple of 64
  int32_t keys = 0;       // 1..64; 0 = padding
  int32_t block = 0;      // index into StepBatch::block_table of its first block
};

struct RowTile {
  int32_t row_begin = 0, row_end = 0;
  int32_t piece_begin = 0, piece_end = 0;  // those that begin at or before the last row's position
  int32_t partial = -1;  // index of its first row's partial results, in rows; -1 = not split
  int32_t sequence = 0;  // index into StepBatch::sequences
};

struct AttentionUnit {
  int32_t tile = 0;
  int32_t split = kWholeTile;
  int32_t group = kNoGroup;  // index into groups(); `tile` is its first
  static constexpr int32_t kWholeTile = -1, kNoGroup = -1;
};

// One thread's memory.
struct AttentionScratch {
  std::vector<float> floats;
  std::vector<KeyRange> ranges;
};

class CpuAttentionPlan final : public AttentionPlan {
 public:
  static constexpr int32_t kSplitPieces = 8;
  static constexpr int32_t kTileRows = 16;
  // Of a tile in a group, and of a group together.
  static constexpr int32_t kGroupTileRows = 4, kGroupRows = 32;

  CpuAttentionPlan(const StepBatch& batch, int threads);

  const StepBatch& batch() const { return batch_; }
  const std::vector<PlannedPiece>& pieces() const { return pieces_; }
  const std::vector<RowTile>& tiles() const { return tiles_; }
  // Units of later tiles, which see more keys, come first.
  const std::vector<AttentionUnit>& units() const { return units_; }
  // The same work without groups.
  const std::vector<AttentionUnit>& single_units() const { return single_units_; }
  const std::vector<std::vector<int32_t>>& groups() const { return groups_; }  // of tiles
  // Partial results of split tiles, in rows: sum of rows x splits.
  int64_t partial_rows() const { return partial_rows_; }
  // Largest distance of a row from a base before it, plus one: how many rotations are needed.
  int64_t rotations() const { return rotations_; }

  static int32_t SplitsOf(const RowTile& tile) {
    return (tile.piece_end - tile.piece_begin + kSplitPieces - 1) / kSplitPieces;
  }
  // Per-thread memory of CpuAttention, kept from layer to layer; one call at a time.
  std::vector<AttentionScratch>& scratch() const { return scratch_; }
  std::vector<float>& partials() const { return partials_; }
  std::vector<float>& scores() const { return scores_; }

 private:
  void AddPieces(const SequenceSpan& sequence, size_t first);
  void AddTiles(int32_t sequence, int32_t piece_begin);
  std::vector<int32_t> ContentOf(const RowTile& tile, int32_t split) const;
  void FindGroups();
  void AddUnits(int threads);

  const StepBatch& batch_;
  std::vector<PlannedPiece> pieces_;
  std::vector<RowTile> tiles_;
  std::vector<AttentionUnit> units_, single_units_;
  std::vector<std::vector<int32_t>> groups_;
  std::vector<std::vector<int32_t>> group_of_;  // [tile][split], kNoGroup where empty
  int64_t partial_rows_ = 0;
  int64_t rotations_ = 0;
  mutable std::vector<AttentionScratch> scratch_;
  mutable std::vector<float> partials_, scores_;
};

// The keys of a piece that a row sees.
inline KeyRange SeenKeys(const AttentionArgs& args, int32_t row, const PlannedPiece& piece) {
  const int64_t base = args.batch->segments[static_cast<size_t>(piece.segment)].base;
  const int64_t position = args.batch->positions[static_cast<size_t>(row)];
  const int64_t offset = position - base - piece.first_key;
  const int64_t hi = std::clamp<int64_t>(offset + 1, 0, piece.keys);
  const int64_t lo = args.window == 0 ? 0 : offset + 1 - args.window;
  return {static_cast<int32_t>(std::clamp<int64_t>(lo, 0, piece.keys)), static_cast<int32_t>(hi)};
}

}  // namespace kvasir

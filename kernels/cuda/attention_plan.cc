#include "kernels/cuda/attention_plan.h"

#include <algorithm>
#include <bit>

#include "kernels/core/status.h"

namespace kvasir::cuda {
namespace {

class Planner {
 public:
  Planner(const StepBatch& batch, const PlanOptions& options) : batch_(batch), options_(options) {}

  AttentionTables Run() {
    KVASIR_CHECK(batch_.positions.size() == static_cast<size_t>(batch_.rows()));
    for (size_t i = 0; i < batch_.sequences.size(); ++i) {
      const SequenceSpan& sequence = batch_.sequences[i];
      tables_.scales.push_back({1.0f / sequence.context.temperature, sequence.context.scale});
      const size_t first = tables_.pieces.size();
      AddPieces(sequence, first);
      AddTiles(static_cast<int32_t>(i), static_cast<int32_t>(first));
    }
    AddUnits();
    return std::move(tables_);
  }

 private:
  // `first`: of the sequence's pieces.
  void AddPieces(const SequenceSpan& sequence, size_t first) {
    std::vector<Piece>& pieces = tables_.pieces;
    for (int32_t s = sequence.segment_begin; s < sequence.segment_end; ++s) {
      const SegmentRef& segment = batch_.segments[static_cast<size_t>(s)];
      KVASIR_CHECK(static_cast<size_t>(segment.first_block) + BlocksFor(segment.length) <=
                   batch_.block_table.size());
      const int32_t context = segment.context ? 1 : 0;
      const bool turns = pieces.size() > first && pieces.back().context != context;
      while (turns && (pieces.size() - first) % kSplitPieces != 0) {
        pieces.push_back(pieces.back());
        pieces.back().keys = 0;
      }
      for (int32_t key = 0; key < segment.length; key += kPieceKeys) {
        pieces.push_back({segment.base, key, std::min(segment.length - key, kPieceKeys),
                          segment.first_block + key / kBlockTokens, context});
      }
    }
  }

  void AddTiles(int32_t index, int32_t piece_begin) {
    const SequenceSpan& sequence = batch_.sequences[static_cast<size_t>(index)];
    const int32_t begin = sequence.row_begin * options_.group;
    const int32_t end = sequence.row_end * options_.group;
    const int32_t lanes = end - begin <= kSmallTile ? kSmallTile : kLargeTile;
    for (int32_t lane = begin; lane < end; lane += lanes) {
      Tile tile;
      tile.sequence = index;
      tile.lane_begin = lane;
      tile.lane_end = std::min(lane + lanes, end);
      tile.piece_begin = tile.piece_end = piece_begin;
      AddReach(&tile);
      tables_.tiles.push_back(tile);
    }
  }

  // Which pieces the tile's last row reaches.
  void AddReach(Tile* tile) {
    const auto last_row = static_cast<size_t>((tile->lane_end - 1) / options_.group);
    const int64_t last = batch_.positions[last_row];
    for (size_t p = static_cast<size_t>(tile->piece_begin); p < tables_.pieces.size(); ++p) {
      const Piece& piece = tables_.pieces[p];
      if (int64_t{piece.base} + piece.first_key > last) continue;
      tile->piece_end = static_cast<int32_t>(p) + 1;
      tables_.rotations = std::max(tables_.rotations, last - piece.base + 1);
    }
  }

  static bool IsSmall(const Tile& tile, const AttentionTables& tables) {
    return tile.lane_end - tile.lane_begin <= kSmallTile && !IsPartOfLarge(tile, tables);
  }
  // The last tile of a long sequence may be short, but is computed as the others.
  static bool IsPartOfLarge(const Tile& tile, const AttentionTables& tables) {
    const auto index = &tile - tables.tiles.data();
    return index > 0 && tables.tiles[static_cast<size_t>(index - 1)].sequence == tile.sequence;
  }

  bool Splits(const Tile& tile, bool small, bool few_large) const {
    const SequenceScale& scale = tables_.scales[static_cast<size_t>(tile.sequence)];
    if (scale.scale != 1.0f) return true;  // two sums are kept apart until all is merged
    return SplitsOf(tile) > 1 && (small || few_large);
  }

  void AddUnits() {
    constexpr int64_t kBlocksAProcessor = 2;
    int64_t large = 0;
    for (const Tile& tile : tables_.tiles) large += IsSmall(tile, tables_) ? 0 : 1;
    const bool few =
        large * options_.kv_heads < kBlocksAProcessor * int64_t{options_.multiprocessors};
    for (size_t i = tables_.tiles.size(); i-- > 0;) {
      Tile& tile = tables_.tiles[i];
      const auto index = static_cast<int32_t>(i);
      const bool small = IsSmall(tile, tables_);
      std::vector<Unit>& units = small ? tables_.small : tables_.large;
      if (!Splits(tile, small, few)) {
        units.push_back({index, -1});
        continue;
      }
      tile.partial = static_cast<int32_t>(tables_.partials);
      tables_.partials += int64_t{tile.lane_end - tile.lane_begin} * SplitsOf(tile);
      tables_.merges.push_back(index);
      for (int32_t split = 0; split < SplitsOf(tile); ++split) units.push_back({index, split});
    }
  }

  const StepBatch& batch_;
  const PlanOptions options_;
  AttentionTables tables_;
};

}  // namespace

StepShape RoundUp(int32_t rows, AttentionTables* tables) {
  KVASIR_CHECK(tables->large.empty());
  tables->small.resize(std::bit_ceil(tables->small.size()), {kNoTile, -1});
  if (!tables->merges.empty()) {
    tables->merges.resize(std::bit_ceil(tables->merges.size()), kNoTile);
  }
  tables->partials = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(tables->partials)));
  return {rows, static_cast<int32_t>(tables->small.size()),
          static_cast<int32_t>(tables->merges.size()), tables->partials};
}

AttentionTables PlanTables(const StepBatch& batch, const PlanOptions& options) {
  return Planner(batch, options).Run();
}

}  // namespace kvasir::cuda

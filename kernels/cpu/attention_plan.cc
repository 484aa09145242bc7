#include "kernels/cpu/attention_plan.h"

#include <algorithm>

#include "kernels/core/status.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_ops.h"

namespace kvasir {

CpuAttentionPlan::CpuAttentionPlan(const StepBatch& batch, int threads) : batch_(batch) {
  KVASIR_CHECK(batch.positions.size() == static_cast<size_t>(batch.rows()));
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const size_t first = pieces_.size();
    AddPieces(batch.sequences[i], first);
    AddTiles(static_cast<int32_t>(i), static_cast<int32_t>(first));
  }
  AddUnits(threads);
}

// `first`: of the sequence's pieces.
void CpuAttentionPlan::AddPieces(const SequenceSpan& sequence, size_t first) {
  for (int32_t s = sequence.segment_begin; s < sequence.segment_end; ++s) {
    const SegmentRef& segment = batch_.segments[static_cast<size_t>(s)];
    const bool turns = pieces_.size() > first &&
                       batch_.segments[size_t(pieces_.back().segment)].context != segment.context;
    while (turns && (pieces_.size() - first) % kSplitPieces != 0) {
      pieces_.push_back(pieces_.back());
      pieces_.back().keys = 0;
    }
    KVASIR_CHECK(static_cast<size_t>(segment.first_block) + BlocksFor(segment.length) <=
                 batch_.block_table.size());
    for (int32_t key = 0; key < segment.length; key += kPieceKeys) {
      pieces_.push_back({s, key, std::min(segment.length - key, kPieceKeys),
                         segment.first_block + key / kBlockTokens});
    }
  }
}

void CpuAttentionPlan::AddTiles(int32_t index, int32_t piece_begin) {
  const SequenceSpan& sequence = batch_.sequences[static_cast<size_t>(index)];
  const auto piece_end = static_cast<int32_t>(pieces_.size());
  for (int32_t row = sequence.row_begin; row < sequence.row_end; row += kTileRows) {
    RowTile tile;
    tile.sequence = index;
    tile.row_begin = row;
    tile.row_end = std::min(row + kTileRows, sequence.row_end);
    tile.piece_begin = tile.piece_end = piece_begin;
    const int64_t last = batch_.positions[static_cast<size_t>(tile.row_end - 1)];
    for (int32_t p = piece_begin; p < piece_end; ++p) {
      const PlannedPiece& piece = pieces_[static_cast<size_t>(p)];
      const int64_t base = batch_.segments[static_cast<size_t>(piece.segment)].base;
      if (base + piece.first_key > last) continue;
      tile.piece_end = p + 1;
      rotations_ = std::max(rotations_, last - base + 1);
    }
    tiles_.push_back(tile);
  }
}

void CpuAttentionPlan::AddUnits(int threads) {
  constexpr size_t kTilesAThread = 4;
  split_ = threads > 1 && tiles_.size() < kTilesAThread * static_cast<size_t>(threads);
  for (size_t i = tiles_.size(); i-- > 0;) {
    RowTile& tile = tiles_[i];
    if (!split_ || SplitsOf(tile) < 2) {
      units_.push_back({static_cast<int32_t>(i), AttentionUnit::kWholeTile});
      continue;
    }
    tile.partial = static_cast<int32_t>(partial_rows_);
    partial_rows_ += int64_t{tile.row_end - tile.row_begin} * SplitsOf(tile);
    for (int32_t split = 0; split < SplitsOf(tile); ++split) {
      units_.push_back({static_cast<int32_t>(i), split});
    }
  }
}

std::unique_ptr<AttentionPlan> CpuPlanAttention(const StepBatch& batch, int threads) {
  return std::make_unique<CpuAttentionPlan>(batch, threads);
}

}  // namespace kvasir

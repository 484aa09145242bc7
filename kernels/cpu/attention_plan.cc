#include "kernels/cpu/attention_plan.h"

#include <algorithm>
#include <map>
#include <utility>

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

// What tiles must have in common to share a split: its whole pieces, by what they hold.
std::vector<int32_t> CpuAttentionPlan::ContentOf(const RowTile& tile, int32_t split) const {
  std::vector<int32_t> content;
  const int32_t begin = tile.piece_begin + split * kSplitPieces;
  for (int32_t p = begin; p < begin + kSplitPieces; ++p) {
    const PlannedPiece& piece = pieces_[static_cast<size_t>(p)];
    const SegmentRef& segment = batch_.segments[static_cast<size_t>(piece.segment)];
    content.push_back(piece.first_key);
    content.push_back(piece.keys);
    content.push_back(segment.context ? 1 : 0);
    const auto first = batch_.block_table.begin() + piece.block;
    content.insert(content.end(), first, first + BlocksFor(piece.keys));
  }
  return content;
}

void CpuAttentionPlan::FindGroups() {
  group_of_.resize(tiles_.size());
  if (batch_.sequences.size() < 2) return;
  std::map<std::vector<int32_t>, int32_t> groups;  // by split and content
  std::vector<int32_t> rows;                       // of groups_
  for (size_t t = 0; t < tiles_.size(); ++t) {
    const RowTile& tile = tiles_[t];
    const int32_t count = tile.row_end - tile.row_begin;
    if (count > kGroupTileRows) continue;
    const int32_t whole = (tile.piece_end - tile.piece_begin) / kSplitPieces;
    group_of_[t].assign(static_cast<size_t>(SplitsOf(tile)), AttentionUnit::kNoGroup);
    for (int32_t split = 0; split < whole; ++split) {
      std::vector<int32_t> key = ContentOf(tile, split);
      key.push_back(split);
      const auto [found, fresh] = groups.try_emplace(std::move(key), 0);
      if (fresh || rows[static_cast<size_t>(found->second)] + count > kGroupRows) {
        found->second = static_cast<int32_t>(groups_.size());
        groups_.emplace_back();
        rows.push_back(0);
      }
      groups_[static_cast<size_t>(found->second)].push_back(static_cast<int32_t>(t));
      rows[static_cast<size_t>(found->second)] += count;
      group_of_[t][static_cast<size_t>(split)] = found->second;
    }
  }
}

void CpuAttentionPlan::AddUnits(int threads) {
  constexpr size_t kTilesAThread = 4;
  const bool few = threads > 1 && tiles_.size() < kTilesAThread * static_cast<size_t>(threads);
  FindGroups();
  const auto group_of = [&](size_t tile, int32_t split) {
    if (group_of_[tile].empty()) return AttentionUnit::kNoGroup;
    const int32_t group = group_of_[tile][static_cast<size_t>(split)];
    const bool alone = group < 0 || groups_[static_cast<size_t>(group)].size() < 2;
    return alone ? AttentionUnit::kNoGroup : group;
  };
  for (size_t i = tiles_.size(); i-- > 0;) {
    RowTile& tile = tiles_[i];
    const auto index = static_cast<int32_t>(i);
    bool grouped = false;
    for (int32_t split = 0; split < SplitsOf(tile); ++split) grouped |= group_of(i, split) >= 0;
    if (!grouped && (!few || SplitsOf(tile) < 2)) {
      units_.push_back({index, AttentionUnit::kWholeTile});
      single_units_.push_back(units_.back());
      continue;
    }
    tile.partial = static_cast<int32_t>(partial_rows_);
    partial_rows_ += int64_t{tile.row_end - tile.row_begin} * SplitsOf(tile);
    for (int32_t split = 0; split < SplitsOf(tile); ++split) {
      const int32_t group = group_of(i, split);
      single_units_.push_back({index, split});
      const bool first = group < 0 || groups_[static_cast<size_t>(group)].front() == index;
      if (first) units_.push_back({index, split, group});
    }
  }
}

std::unique_ptr<AttentionPlan> CpuPlanAttention(const StepBatch& batch, int threads) {
  return std::make_unique<CpuAttentionPlan>(batch, threads);
}

}  // namespace kvasir

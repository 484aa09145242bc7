#include "kernels/cpu/attention_scores.h"

#include <algorithm>

namespace kvasir {
namespace {

// About what a core's second-level cache holds.
constexpr int64_t kFloatsAThread = int64_t{1} << 18;

int64_t StrideOf(const RowTile& tile) {
  return int64_t{tile.piece_end - tile.piece_begin} * kPieceKeys;
}

}  // namespace

KeptScores::KeptScores(const AttentionArgs& args, int32_t group, int threads)
    : args_(args),
      plan_(static_cast<const CpuAttentionPlan&>(*args.plan)),
      group_(group),
      places_(plan_.tiles().size()),
      waves_(1) {
  PlaceTiles(kFloatsAThread * threads);
  for (const AttentionUnit& unit : plan_.single_units()) {
    const int32_t wave = places_[static_cast<size_t>(unit.tile)].wave;
    waves_[static_cast<size_t>(std::max(wave, 0))].units.push_back(unit);
  }
}

bool KeptScores::Wanted(const RowTile& tile) const {
  return std::any_of(args_.mass.begin(), args_.mass.end(), [&](const MassRange& range) {
    return std::max(range.row_begin, tile.row_begin) < std::min(range.row_end, tile.row_end);
  });
}

// A tile that exceeds the budget gets a wave of its own.
void KeptScores::PlaceTiles(int64_t budget) {
  const int64_t kv_heads = args_.pool->layout().kv_heads;
  int64_t used = 0, most = 0;
  for (size_t i = 0; i < places_.size(); ++i) {
    const RowTile& tile = plan_.tiles()[i];
    if (!Wanted(tile)) continue;
    const int64_t floats = kv_heads * lanes(tile) * (StrideOf(tile) + 2);
    if (used > 0 && used + floats > budget) {
      waves_.emplace_back();
      used = 0;
    }
    places_[i] = {static_cast<int32_t>(waves_.size()) - 1, used};
    waves_.back().tiles.push_back(static_cast<int32_t>(i));
    used += floats;
    most = std::max(most, used);
  }
  const auto needed = static_cast<size_t>(most + kTileSlots);  // add_weights reads a vector on
  if (plan_.scores().size() < needed) plan_.scores().resize(needed);
}

TileScores KeptScores::Of(int32_t tile, int32_t kv_head) const {
  const Place& place = places_[static_cast<size_t>(tile)];
  if (place.wave < 0) return {};
  const int64_t count = lanes(TileAt(tile)), stride = StrideOf(TileAt(tile));
  float* scores = plan_.scores().data() + place.begin + kv_head * count * (stride + 2);
  return {scores, stride, scores + count * stride, scores + count * (stride + 1)};
}

void KeptScores::AddMass(const AttentionOps& ops, const Wave& wave, int32_t query_head) const {
  for (const int32_t index : wave.tiles) {
    const RowTile& tile = TileAt(index);
    const TileScores kept = Of(index, query_head / group_);
    for (const MassRange& range : args_.mass) {
      const int32_t end = std::min(range.row_end, tile.row_end);
      for (int32_t row = std::max(range.row_begin, tile.row_begin); row < end; ++row) {
        const int64_t lane = int64_t{row - tile.row_begin} * group_ + query_head % group_;
        AddRow(ops, tile, row, kept, lane, range.mass + query_head * range.stride);
      }
    }
  }
}

void KeptScores::AddRow(const AttentionOps& ops, const RowTile& tile, int32_t row,
                        const TileScores& kept, int64_t lane, float* mass) const {
  const float* scores = kept.scores + lane * kept.stride;
  for (int32_t p = tile.piece_begin; p < tile.piece_end; ++p, scores += kPieceKeys) {
    const PlannedPiece& piece = plan_.pieces()[static_cast<size_t>(p)];
    const KeyRange keys = SeenKeys(args_, row, piece);
    if (keys.hi <= keys.lo) continue;
    const int64_t base = args_.batch->segments[static_cast<size_t>(piece.segment)].base;
    ops.add_weights(scores, keys, kept.max[lane], kept.share[lane], mass + base + piece.first_key);
  }
}

}  // namespace kvasir

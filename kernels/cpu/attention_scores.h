// KeptScores: the scores of rows whose softmax weights are wanted (AttentionArgs::mass), from when
// they are computed until the rows' final maximum and sum are known.
//
// Tiles with such rows run in waves, whose scores fit a few MiB. Behind each wave its weights are
// added up row by row in ascending order, each query head by one thread, so that the sum's bits
// depend neither on waves, tiles and splits nor on the number of threads.
//
// Lives for one call; its memory belongs to the plan. Tasks may write the scores of different
// (tile, kv head, split) at once.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/cpu/attention_ops.h"
#include "kernels/cpu/attention_plan.h"

namespace kvasir {

// Of one tile and kv head. A key's score lies at its piece (from the tile's first) * 64 + its place
// in the piece, in units of log 2.
struct TileScores {
  float* scores = nullptr;  // [lanes][stride]; null = not kept
  int64_t stride = 0;
  float* max = nullptr;    // [lanes], final
  float* share = nullptr;  // [lanes], 1 / sum
};

class KeptScores {
 public:
  // What runs together. Tiles of unwanted rows are all in the first wave.
  struct Wave {
    std::vector<AttentionUnit> units;
    std::vector<int32_t> tiles;  // those whose scores are kept, ascending
  };

  // group: query heads a kv head.
  KeptScores(const AttentionArgs& args, int32_t group, int threads);

  const std::vector<Wave>& waves() const { return waves_; }
  TileScores Of(int32_t tile, int32_t kv_head) const;
  // Adds the weights of a wave's rows for one query head; different heads may run at once.
  void AddMass(const AttentionOps& ops, const Wave& wave, int32_t query_head) const;

 private:
  struct Place {
    int32_t wave = -1;  // -1 = not kept
    int64_t begin = 0;  // of the tile's scores in the plan's memory
  };
  const RowTile& TileAt(int32_t tile) const { return plan_.tiles()[static_cast<size_t>(tile)]; }
  int64_t lanes(const RowTile& tile) const {
    return int64_t{tile.row_end - tile.row_begin} * group_;
  }
  bool Wanted(const RowTile& tile) const;
  void PlaceTiles(int64_t budget);
  void AddRow(const AttentionOps& ops, const RowTile& tile, int32_t row, const TileScores& kept,
              int64_t lane, float* mass) const;

  const AttentionArgs& args_;
  const CpuAttentionPlan& plan_;
  const int32_t group_;
  std::vector<Place> places_;  // of the plan's tiles
  std::vector<Wave> waves_;
};

}  // namespace kvasir

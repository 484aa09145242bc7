// How a step's attention is cut up for the card.
#include "kernels/cuda/attention_plan.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "tests/kernels/conformance_fixture.h"

namespace kvasir::cuda {
namespace {

constexpr int32_t kBlocks = 2000;

StepBatch BatchOf(const std::vector<SequenceSpec>& specs) {
  std::mt19937 random(3);
  SceneBuilder builder(kBlocks, random);
  for (const SequenceSpec& spec : specs) builder.Add(spec);
  return std::move(builder.batch);
}

TEST(CudaAttentionPlan, DecodeIsSplitByKeysAlone) {
  // 1,000 + 100 keys: 16 + 2 pieces, three splits of eight; 4 lanes of one small tile.
  const AttentionTables t = PlanTables(BatchOf({{{1000, 100}, {1099}}}), {4, 8, 132});
  EXPECT_EQ(t.pieces.size(), 18u);
  ASSERT_EQ(t.tiles.size(), 1u);
  EXPECT_EQ(t.tiles[0].lane_end, 4);
  EXPECT_EQ(t.small.size(), 3u);
  EXPECT_TRUE(t.large.empty());
  EXPECT_EQ(t.partials, 3 * 4);
  EXPECT_EQ(t.merges, std::vector<int32_t>{0});
  EXPECT_EQ(t.rotations, 1100);
  EXPECT_EQ(t.pieces[17].keys, 36);
  EXPECT_EQ(t.pieces[17].base, 1000);
}

TEST(CudaAttentionPlan, PrefillIsWholeWhereItFillsTheCard) {
  const auto batch = BatchOf({{{2000}, RowRange(0, 2000)}});
  const AttentionTables few = PlanTables(batch, {1, 1, 132}), many = PlanTables(batch, {1, 8, 16});
  EXPECT_EQ(few.tiles.size(), 32u);  // of 64 lanes
  EXPECT_EQ(many.large.size(), 32u);
  EXPECT_EQ(many.partials, 0);
  EXPECT_GT(few.large.size(), 32u);
  // The first tile reaches one piece, the last all; the longest comes first.
  EXPECT_EQ(many.tiles[0].piece_end - many.tiles[0].piece_begin, 1);
  EXPECT_EQ(many.tiles[31].piece_end - many.tiles[31].piece_begin, 32);
  EXPECT_EQ(many.large.front().tile, 31);
}

TEST(CudaAttentionPlan, ContextTurnsOnlyWhereSplitsEnd) {
  StepBatch batch = BatchOf({{{70, 200, 30}, {299}}});
  batch.segments[1].context = true;
  batch.sequences[0].context = {0.5f, 2.0f};
  const AttentionTables t = PlanTables(batch, {1, 1, 132});
  for (size_t i = 0; i < t.pieces.size(); ++i) {
    const size_t split = i / kSplitPieces * kSplitPieces;
    EXPECT_EQ(t.pieces[i].context, t.pieces[split].context) << i;
  }
  const int32_t keys = std::accumulate(t.pieces.begin(), t.pieces.end(), 0,
                                       [](int32_t n, const Piece& p) { return n + p.keys; });
  EXPECT_EQ(keys, 300);
  EXPECT_EQ(t.scales[0].inverse_temperature, 2.0f);
  EXPECT_EQ(t.small.size(), 3u);
}

// A short last tile of a long sequence is computed as the others are; every lane is in one tile.
TEST(CudaAttentionPlan, EveryLaneOnceInTilesOfOneKind) {
  const AttentionTables t =
      PlanTables(BatchOf({{{500}, RowRange(430, 500)}, {{9}, {3, 8}}, {{1}, {0}}}), {3, 2, 4});
  std::vector<int> seen(73 * 3, 0);
  for (const Tile& tile : t.tiles) {
    for (int32_t lane = tile.lane_begin; lane < tile.lane_end; ++lane) {
      ++seen[static_cast<size_t>(lane)];
    }
  }
  EXPECT_EQ(seen, std::vector<int>(73 * 3, 1));
  for (const Unit& unit : t.small) EXPECT_NE(t.tiles[static_cast<size_t>(unit.tile)].sequence, 0);
  for (const Unit& unit : t.large) EXPECT_EQ(t.tiles[static_cast<size_t>(unit.tile)].sequence, 0);
}

}  // namespace
}  // namespace kvasir::cuda

#include "cache/selector.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace kvasir {
namespace {

SegmentPlan Segment(int32_t tokens, bool reused, ReuseKind kind = ReuseKind::kFused) {
  SegmentPlan segment;
  segment.token_ids.assign(static_cast<size_t>(tokens), 1);
  if (!reused) return segment;
  std::vector<int32_t> ids(static_cast<size_t>(BlocksFor(tokens)));
  segment.blocks = std::make_shared<const KvBlocks>(ids, tokens, nullptr);
  segment.reuse = kind;
  return segment;
}

// anchor 3 | chunk 4 | fresh chunk 2 | chunk 6 | tail 2
PromptPlan Plan() {
  PromptPlan plan;
  plan.segments = {Segment(3, true, ReuseKind::kPrefix), Segment(4, true), Segment(2, false),
                   Segment(6, true), Segment(2, false)};
  return plan;
}

TEST(SelectRows, TakesTheBestOfTheFusedRowsAlone) {
  PromptPlan plan = Plan();
  //                          anchor   | chunk      | fresh| chunk            | tail
  std::vector<float> scores = {9, 9, 9, 1, 5, 0, 2, 9, 9, 3, 4, 0, 0, 0, 6, 9, 9};
  EXPECT_EQ(SelectRows(scores, {0.3, 0, 1}, &plan), 3);  // of 10 rows
  EXPECT_EQ(plan.segments[1].recompute, std::vector<int32_t>({1}));
  EXPECT_EQ(plan.segments[3].recompute, std::vector<int32_t>({1, 5}));
  EXPECT_TRUE(plan.segments[0].recompute.empty() && plan.segments[2].recompute.empty());
}

TEST(SelectRows, RowsThatAreThereAlreadyAreNotTakenTwice) {
  PromptPlan plan = Plan();
  plan.segments[1].recompute = {0, 1};
  std::vector<float> scores = {0, 0, 0, 8, 9, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0};
  EXPECT_EQ(SelectRows(scores, {0.2, 0, 1}, &plan), 2);
  EXPECT_EQ(plan.segments[1].recompute, std::vector<int32_t>({0, 1, 2}));
  EXPECT_EQ(plan.segments[3].recompute, std::vector<int32_t>({0}));
}

TEST(SelectRows, EqualScoresGoToEarlierRowsAndAllMeansAll) {
  PromptPlan plan = Plan();
  const std::vector<float> scores(17, 1.0f);
  EXPECT_EQ(SelectRows(scores, {0.5, 0, 1}, &plan), 5);
  EXPECT_EQ(plan.segments[1].recompute, std::vector<int32_t>({0, 1, 2, 3}));
  EXPECT_EQ(plan.segments[3].recompute, std::vector<int32_t>({0}));
  EXPECT_EQ(SelectRows(scores, {1, 0, 1}, &plan), 5);
  EXPECT_EQ(plan.segments[3].recompute.size(), 6u);
  EXPECT_EQ(SelectRows(scores, {1, 0, 1}, &plan), 0);
}

TEST(SelectRows, FloorGivesEveryChunkItsShare) {
  PromptPlan plan = Plan();
  std::vector<float> scores(17, 0.0f);
  std::fill_n(scores.begin() + 9, 6, 5.0f);
  EXPECT_EQ(SelectRows(scores, {0.4, 0.25, 1}, &plan), 4);
  EXPECT_EQ(plan.segments[1].recompute, std::vector<int32_t>({0}));
  EXPECT_EQ(plan.segments[3].recompute.size(), 3u);
}

TEST(SelectRows, MassStopsWhereTheScoresAreConcentrated) {
  PromptPlan plan = Plan();
  std::vector<float> scores(17, 0.0f);
  scores[4] = 80;
  scores[10] = 15;
  scores[11] = 5;
  EXPECT_EQ(SelectRows(scores, {1, 0, 0.9}, &plan), 2);
  EXPECT_EQ(plan.segments[1].recompute, std::vector<int32_t>({1}));
  EXPECT_EQ(plan.segments[3].recompute, std::vector<int32_t>({1}));
}

TEST(SelectRows, RandomPlansKeepTheContractOfPlans) {
  std::mt19937 random(7);
  for (int turn = 0; turn < 200; ++turn) {
    PromptPlan plan;
    for (int s = 0; s < 6; ++s) {
      plan.segments.push_back(Segment(1 + static_cast<int32_t>(random() % 40), random() % 3 != 0));
    }
    std::vector<float> scores(240);
    for (float& score : scores) score = static_cast<float>(random() % 50);
    const double ratio = static_cast<double>(random() % 1001) / 1000;
    const int32_t rows = SelectRows(scores, {ratio, 0, 1}, &plan);
    EXPECT_EQ(rows, std::lround(ratio * static_cast<double>(FusedRows(plan))));
    for (const SegmentPlan& segment : plan.segments) {
      EXPECT_TRUE(std::adjacent_find(segment.recompute.begin(), segment.recompute.end(),
                                     std::greater_equal<>()) == segment.recompute.end());
      for (const int32_t row : segment.recompute) EXPECT_LT(row, segment.reused());
    }
  }
}

TEST(AttentionScores, SumsOrTakesTheLargestOverLayersAndHeads) {
  AttentionMass mass;
  mass.layer_begin = 1;
  mass.layer_end = 3;
  mass.heads = 2;
  mass.positions = 3;
  mass.mass = {1, 2, 3, 0, 5, 0, 1, 0, 0, 4, 0, 1};
  QuerySelector selector;
  EXPECT_EQ(AttentionScores(mass, selector), std::vector<float>({6, 7, 4}));
  selector.heads = HeadMerge::kMax;
  EXPECT_EQ(AttentionScores(mass, selector), std::vector<float>({4, 5, 3}));
  selector.smooth = 3;
  EXPECT_EQ(AttentionScores(mass, selector), std::vector<float>({4.5, 4, 4}));
}

TEST(LayersOf, LastThirdAndAtLeastOneLayer) {
  QuerySelector selector;
  EXPECT_EQ(LayersOf(selector, 30).begin, 20);
  EXPECT_EQ(LayersOf(selector, 30).end, 30);
  EXPECT_EQ(LayersOf(selector, 1).end - LayersOf(selector, 1).begin, 1);
  selector.layer_begin = 0;
  selector.layer_end = 0.01;
  EXPECT_EQ(LayersOf(selector, 24).end, 1);
}

TEST(Deviations, SquaredDistanceOfEveryRow) {
  EXPECT_EQ(Deviations({1, 2, 3, 4}, {1, 0, 0, 0}, 2), std::vector<float>({4, 25}));
}

}  // namespace
}  // namespace kvasir

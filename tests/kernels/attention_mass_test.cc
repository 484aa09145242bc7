#include "kernels/core/attention_mass.h"

#include <gtest/gtest.h>

#include <vector>

namespace kvasir {
namespace {

// Rows at 3 and 19 of a sequence of 20 keys, and row 4 of one with 5 keys, 3 of them at base 2.
StepBatch TwoSequences() {
  StepBatch batch;
  batch.positions = {3, 19, 4};
  batch.token_ids = {0, 0, 0};
  batch.sequences = {{0, 2, 0, 1}, {2, 3, 1, 3}};
  batch.segments = {{0, 20, 0}, {0, 2, 2}, {2, 3, 3}};
  return batch;
}

void Check(const std::vector<MassRange>& ranges) { CheckMassRanges(ranges, TwoSequences()); }

TEST(AttentionMass, LayersLieOneBehindTheOther) {
  AttentionMass mass;
  mass.layer_begin = 3;
  mass.layer_end = 5;
  mass.heads = 2;
  mass.positions = 7;
  mass.mass.resize(28);
  EXPECT_EQ(mass.Of(3), mass.mass.data());
  EXPECT_EQ(mass.Of(4), mass.mass.data() + 14);
}

TEST(MassRanges, WhatFitsPasses) {
  float mass = 0;
  Check({});
  Check({{0, 2, &mass, 20}, {2, 3, &mass, 5}});
  Check({{0, 1, &mass, 4}});    // a row sees nothing behind itself
  Check({{1, 1, nullptr, 0}});  // no rows
}

TEST(MassRangesDeathTest, WhatWouldWriteOutOfBoundsAborts) {
  float mass = 0;
  EXPECT_DEATH(Check({{0, 2, &mass, 19}}), "stride");
  EXPECT_DEATH(Check({{2, 3, &mass, 4}}), "stride");
  EXPECT_DEATH(Check({{0, 2, nullptr, 20}}), "mass != nullptr");
  EXPECT_DEATH(Check({{-1, 1, &mass, 20}}), "row_begin");
  EXPECT_DEATH(Check({{1, 3, &mass, 20}}), "row_end");  // two sequences
  EXPECT_DEATH(Check({{2, 4, &mass, 20}}), "row_end");
  EXPECT_DEATH(Check({{3, 4, &mass, 20}}), "sequences.end");
  EXPECT_DEATH(Check({{1, 2, &mass, 20}, {0, 1, &mass, 20}}), "row_begin");
}

}  // namespace
}  // namespace kvasir

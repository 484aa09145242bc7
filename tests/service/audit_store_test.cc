#include "service/audit_store.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "retrieval/record.h"
#include "tests/retrieval/test_support.h"

namespace kvasir {
namespace {

using testing::MapStore;

CalibrationSample Sample(double value) {
  return {{value, 2, 3}, {value / 2, 0.1, 0}, {0.1, 0.3, 0.8, 1.5}};
}

const AuditScope kScope = {"model", "fixed", "int8", "ladder"};

std::vector<CalibrationSample> Load(AuditStore& store, const AuditScope& scope) {
  const auto samples = store.Load(scope);
  EXPECT_TRUE(samples.ok()) << samples.status().ToString();
  return samples.ok() ? **samples : std::vector<CalibrationSample>();
}

TEST(AuditStore, KeepsSamplesAcrossOpening) {
  MapStore records;
  {
    AuditStore store(records);
    EXPECT_TRUE(Load(store, kScope).empty());
    ASSERT_TRUE(store.Add(kScope, Sample(1)).ok());
    ASSERT_TRUE(store.Add(kScope, Sample(std::numeric_limits<double>::infinity())).ok());
    EXPECT_EQ(Load(store, kScope).size(), 2u);
  }
  AuditStore store(records);
  const auto samples = Load(store, kScope);
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_EQ(samples[0].movement, Sample(1).movement);
  EXPECT_EQ(samples[0].kl, Sample(1).kl);
  EXPECT_EQ(samples[0].charged, Sample(1).charged);
  EXPECT_TRUE(std::isinf(samples[1].movement[0]));
}

TEST(AuditStore, KnowsTheKindOfSamplesAndReadsThoseWithout) {
  MapStore records;
  AuditStore store(records);
  CalibrationSample sample = Sample(1);
  sample.group = 0xFEDCBA9876543210ULL;
  ASSERT_TRUE(store.Add(kScope, sample, 5).ok());
  ASSERT_TRUE(store.Add(kScope, sample, 6).ok());
  // The first as programs before kinds wrote it.
  RecordWriter old(RecordKind{0xD1});
  old.Int(5);
  for (const auto* values : {&sample.movement, &sample.kl, &sample.charged}) {
    old.Array(std::span<const double>(*values));
  }
  records.map.begin()->second = old.Finish();
  AuditStore again(records);
  const auto samples = Load(again, kScope);
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_EQ(samples[0].group, 0u);
  EXPECT_EQ(samples[0].kl, sample.kl);
  EXPECT_EQ(samples[1].group, sample.group);
  EXPECT_EQ(again.unreadable(), 0);
}

TEST(AuditStore, KeepsScopesApart) {
  MapStore records;
  AuditStore store(records);
  ASSERT_TRUE(store.Add(kScope, Sample(1)).ok());
  for (const AuditScope& other : {AuditScope{"other", "fixed", "int8", "ladder"},
                                  AuditScope{"model", "bare", "int8", "ladder"},
                                  AuditScope{"model", "fixed", "f16", "ladder"},
                                  AuditScope{"model", "fixed", "int8", "other"}}) {
    EXPECT_TRUE(Load(store, other).empty());
  }
}

TEST(AuditStore, AQuestionCountsOnce) {
  MapStore records;
  AuditStore store(records);
  ASSERT_TRUE(store.Add(kScope, Sample(1), 7).ok());
  ASSERT_TRUE(store.Add(kScope, Sample(2), 8).ok());
  ASSERT_TRUE(store.Add(kScope, Sample(3), 7).ok());
  ASSERT_TRUE(store.Add(kScope, Sample(4)).ok());
  ASSERT_TRUE(store.Add(kScope, Sample(5)).ok());  // live ones have no number
  AuditStore again(records);
  const auto samples = Load(again, kScope);
  ASSERT_EQ(samples.size(), 4u);
  EXPECT_EQ(samples[0].movement[0], 2);
  EXPECT_EQ(samples[1].movement[0], 3);
  EXPECT_EQ(records.map.size(), 4u);
}

TEST(AuditStore, DropsTheOldest) {
  MapStore records;
  AuditStore store(records);
  for (size_t i = 0; i < kMaxAuditSamples + 3; ++i) {
    ASSERT_TRUE(store.Add(kScope, Sample(static_cast<double>(i))).ok());
  }
  EXPECT_EQ(records.map.size(), kMaxAuditSamples);
  AuditStore again(records);
  const auto samples = Load(again, kScope);
  ASSERT_EQ(samples.size(), kMaxAuditSamples);
  EXPECT_EQ(samples.front().movement[0], 3);
}

TEST(AuditStore, LeavesOutWhatCannotBeRead) {
  MapStore records;
  AuditStore store(records);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(store.Add(kScope, Sample(i)).ok());
  records.map.begin()->second[9] ^= 1;
  std::next(records.map.begin())->second.resize(4);
  AuditStore again(records);
  EXPECT_EQ(Load(again, kScope).size(), 1u);
  EXPECT_EQ(again.unreadable(), 2);
  ASSERT_TRUE(again.Add(kScope, Sample(9)).ok());
  EXPECT_EQ(Load(again, kScope).size(), 2u);
}

TEST(AuditStore, AFailedWriteKeepsNothing) {
  MapStore records;
  AuditStore store(records);
  records.fail_writes_with = ResourceExhausted("full");
  EXPECT_EQ(store.Add(kScope, Sample(1)).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(Load(store, kScope).empty());
}

}  // namespace
}  // namespace kvasir

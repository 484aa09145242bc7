#include "kernels/cuda/gemm_choice.h"

#include <gtest/gtest.h>

#include <vector>

namespace kvasir::cuda {
namespace {

TEST(GemmChoice, BucketsDoubleUpToTheLast) {
  EXPECT_EQ(RowBucket(1), 16);
  EXPECT_EQ(RowBucket(16), 16);
  EXPECT_EQ(RowBucket(17), 32);
  EXPECT_EQ(RowBucket(1025), 2048);
  EXPECT_EQ(RowBucket(1 << 20), 2048);
}

TEST(GemmChoice, EveryNumberOfRowsUpToTheMostHasItsBucket) {
  EXPECT_EQ(RowBuckets(9), (std::vector<int64_t>{16}));
  EXPECT_EQ(RowBuckets(256), (std::vector<int64_t>{16, 32, 64, 128, 256}));
  EXPECT_EQ(RowBuckets(257).back(), 512);
  EXPECT_EQ(RowBuckets(1 << 20).size(), 8u);
  EXPECT_EQ(RowBuckets(1 << 20).back(), 2048);
}

TEST(GemmChoice, TrialsTakeWholeProbesAndLittleMemory) {
  EXPECT_EQ(TrialRows(16, 4096, 4096), 16);
  EXPECT_EQ(TrialRows(2048, 4096, 4096), 2048);
  const int64_t rows = TrialRows(2048, 128256, 4096);
  EXPECT_EQ(rows % kProbeRows, 0);
  EXPECT_LE(rows * (2 * 4096 + 4 * 128256), int64_t{256} << 20);
  EXPECT_GT(rows, 400);
  EXPECT_EQ(TrialRows(2048, int64_t{1} << 30, 4096), kProbeRows);
}

TEST(GemmChoice, ProbesAreTheSameInEveryRunAndOfBothSigns) {
  const std::vector<uint16_t> probe = MakeProbe(256);
  ASSERT_EQ(probe.size(), size_t{16} * 256);
  EXPECT_EQ(probe, MakeProbe(256));
  int negative = 0;
  for (const uint16_t value : probe) negative += value >> 15;
  EXPECT_GT(negative, 1500);
  EXPECT_LT(negative, 2600);
  EXPECT_NE(std::vector<uint16_t>(probe.begin(), probe.begin() + 256),
            std::vector<uint16_t>(probe.begin() + 256, probe.begin() + 512));
}

struct Candidate {
  bool same_bits = true;
  double seconds = 1;
};

class FakeTrials final : public GemmTrials {
 public:
  explicit FakeTrials(std::vector<Candidate> candidates) : candidates_(std::move(candidates)) {}
  int count() const override { return static_cast<int>(candidates_.size()); }
  Result<bool> GivesSameBits(int index) override {
    if (lost) return Internal("the card is lost");
    return candidates_[static_cast<size_t>(index)].same_bits;
  }
  Result<double> Seconds(int index) override {
    timed.push_back(index);
    return candidates_[static_cast<size_t>(index)].seconds;
  }

  bool lost = false;
  std::vector<int> timed;

 private:
  std::vector<Candidate> candidates_;
};

TEST(GemmChoice, TheFastestOfThoseWithTheSameBits) {
  FakeTrials trials({{true, 3}, {false, 1}, {true, 2}, {true, 2.5}});
  EXPECT_EQ(*ChooseAlgorithm(trials), 2);
  EXPECT_EQ(trials.timed, (std::vector<int>{0, 2, 3}));  // others are not even timed
}

TEST(GemmChoice, NoneWithTheSameBits) {
  FakeTrials none({}), others({{false, 1}, {false, 2}});
  EXPECT_EQ(*ChooseAlgorithm(none), -1);
  EXPECT_EQ(*ChooseAlgorithm(others), -1);
}

TEST(GemmChoice, AnErrorOfTheCardIsHandedOn) {
  FakeTrials trials({{true, 1}});
  trials.lost = true;
  EXPECT_EQ(ChooseAlgorithm(trials).status().code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace kvasir::cuda

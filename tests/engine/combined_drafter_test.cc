#include "engine/combined_drafter.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace kvasir {
namespace {

// Always the same guess; fails from its n-th call on.
class Fixed final : public Drafter {
 public:
  Fixed(Guess guess, int calls) : guess_(std::move(guess)), calls_(calls) {}
  void Append(int32_t) override { Count(); }
  Guess Draft(int32_t) override {
    Count();
    return guess_;
  }

 private:
  void Count() {
    if (calls_-- == 0) throw std::runtime_error("broken");
  }
  Guess guess_;
  int calls_;
};

std::unique_ptr<Drafter> Says(int32_t token, double expected, int calls = 1000) {
  return std::make_unique<Fixed>(Guess{{token}, expected, DraftSource::kPrompt}, calls);
}

TEST(CombinedDrafter, TheGuessThatMostIsExpectedOfCounts) {
  CombinedDrafter drafter;
  EXPECT_TRUE(drafter.Draft(8).tokens.empty());
  drafter.Add(nullptr);
  drafter.Add(Says(1, 0.5));
  drafter.Add(Says(2, 1.5));
  drafter.Add(Says(3, 1.5));
  drafter.Append(7);
  EXPECT_EQ(drafter.Draft(8).tokens, std::vector<int32_t>{2}) << "the first of equal ones";
}

// Makes guesses of up to so many tokens, and says more than it is asked for.
class Long final : public Drafter {
 public:
  Long(int32_t most, int32_t* asked) : most_(most), asked_(asked) {}
  void Append(int32_t) override {}
  Guess Draft(int32_t most) override {
    *asked_ = most;
    return {std::vector<int32_t>(100, 1), 1};
  }
  int32_t Most() const override { return most_; }

 private:
  int32_t most_, *asked_;
};

TEST(CombinedDrafter, EachIsAskedForAsMuchAsItMakes) {
  CombinedDrafter drafter;
  EXPECT_EQ(drafter.Most(), 0);
  int32_t usual = 0, more = 0;
  drafter.Add(std::make_unique<Long>(kMostDrafts, &usual));
  EXPECT_EQ(drafter.Most(), kMostDrafts);
  drafter.Add(std::make_unique<Long>(64, &more));
  EXPECT_EQ(drafter.Most(), 64);
  EXPECT_EQ(drafter.Draft(64).tokens.size(), size_t(kMostDrafts)) << "the first of equal ones, cut";
  EXPECT_EQ(usual, kMostDrafts);
  EXPECT_EQ(more, 64);
  drafter.Draft(3);
  EXPECT_EQ(more, 3);
}

TEST(CombinedDrafter, OneThatFailsIsDropped) {
  CombinedDrafter drafter;
  drafter.Add(Says(1, 9, /*calls=*/2));
  drafter.Add(Says(2, 1));
  drafter.Append(7);
  EXPECT_EQ(drafter.Draft(8).tokens, std::vector<int32_t>{1});
  EXPECT_EQ(drafter.Draft(8).tokens, std::vector<int32_t>{2});
  EXPECT_EQ(drafter.dropped(), 1);
  drafter.Add(Says(3, 9, /*calls=*/0));
  drafter.Append(7);
  EXPECT_EQ(drafter.dropped(), 2);
  EXPECT_EQ(drafter.Draft(8).tokens, std::vector<int32_t>{2});
}

}  // namespace
}  // namespace kvasir

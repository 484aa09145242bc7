#include "cache/prefix_index.h"

#include <set>
#include <string>

#include "tests/cache/fixture.h"

namespace kvasir {
namespace {

std::vector<int32_t> Count(int32_t from, int32_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), from);
  return ids;
}

std::vector<int32_t> Joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(PrefixIndex, ByHand) {
  PrefixIndex index;
  const auto ids = Count(0, 40);
  index.Insert("kb", ids, FakeBlocks(100, 40));  // blocks 100, 101; 102 is incomplete
  EXPECT_EQ(index.Match("kb", Count(0, 15)), nullptr);
  EXPECT_EQ(index.Match("kb", Count(0, 31))->ids(), (std::vector<int32_t>{100}));
  const auto both = index.Match("kb", Count(0, 48));
  EXPECT_EQ(both->ids(), (std::vector<int32_t>{100, 101}));
  EXPECT_EQ(both->tokens(), 32);
  EXPECT_EQ(index.Match("other", ids), nullptr);
  EXPECT_EQ(index.Match("kb", Count(1, 40)), nullptr);
  EXPECT_EQ(index.stats().blocks, 2u);
}

TEST(PrefixIndex, BranchesShareTheirStem) {
  PrefixIndex index;
  const auto stem = Count(0, 32);
  const auto a = Joined(stem, Count(1000, 32)), b = Joined(stem, Count(2000, 32));
  index.Insert("kb", a, FakeBlocks(0, 64));
  index.Insert("kb", b, FakeBlocks(10, 64));
  EXPECT_EQ(index.Match("kb", a)->ids(), (std::vector<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(index.Match("kb", b)->ids(), (std::vector<int32_t>{0, 1, 12, 13}));
  EXPECT_EQ(index.Match("kb", Joined(stem, Count(3000, 32)))->ids(), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(index.stats().blocks, 6u);
}

TEST(PrefixIndex, MatchesKeepTheirBlocksAlive) {
  bool released = false;
  PrefixIndex index;
  index.Insert("kb", Count(0, 32), FakeBlocks(0, 32, [&](const auto&) { released = true; }));
  auto held = index.Match("kb", Count(0, 16));
  EXPECT_EQ(index.ReclaimBlocks(100), 0);  // in use
  index.RemoveNamespace("kb");
  EXPECT_FALSE(released);
  held.reset();
  EXPECT_TRUE(released);
}

TEST(PrefixIndex, ReclaimsLeavesLeastRecentlyUsedFirst) {
  std::vector<int> released;
  const auto blocks = [&](int name) {
    return FakeBlocks(name * 10, 48, [&released, name](const auto&) { released.push_back(name); });
  };
  PrefixIndex index;
  const auto stem = Count(0, 16);
  const auto a = Joined(stem, Count(1000, 32)), b = Joined(stem, Count(2000, 32)),
             c = Joined(Count(500, 16), Count(3000, 32));
  index.Insert("kb", a, blocks(1));
  index.Insert("kb", b, blocks(2));
  index.Insert("kb", c, blocks(3));
  (void)index.Match("kb", b);
  (void)index.Match("kb", a);  // order of use: c, b, a
  EXPECT_EQ(index.ReclaimBlocks(1), 3);
  EXPECT_EQ(released, (std::vector<int>{3}));
  EXPECT_EQ(index.ReclaimBlocks(1), 2);  // b's own two; the stem is a's
  EXPECT_EQ(released, (std::vector<int>{3, 2}));
  EXPECT_EQ(index.MatchedTokens("kb", b), 16);
  EXPECT_EQ(index.ReclaimBlocks(100), 3);
  EXPECT_EQ(released, (std::vector<int>{3, 2, 1}));
  EXPECT_EQ(index.stats().nodes, 0u);
  EXPECT_EQ(index.stats().blocks, 0u);
}

TEST(PrefixIndex, KeepsItsBudget) {
  PrefixIndex index(4);
  index.Insert("kb", Count(0, 32), FakeBlocks(0, 32));
  index.Insert("kb", Count(1000, 32), FakeBlocks(10, 32));
  const auto used = index.Match("kb", Count(0, 32));
  index.Insert("kb", Count(2000, 32), FakeBlocks(20, 32));
  EXPECT_EQ(index.stats().blocks, 4u);
  EXPECT_EQ(index.MatchedTokens("kb", Count(1000, 32)), 0);
  EXPECT_EQ(index.MatchedTokens("kb", Count(0, 32)), 32);
  EXPECT_EQ(index.MatchedTokens("kb", Count(2000, 32)), 32);
}

TEST(PrefixIndex, OnlyExactPromptsMayEnter) {
  PrefixIndex index;
  PromptPlan plan;
  plan.segments.resize(1);
  plan.segments[0].token_ids = Count(0, 32);
  EXPECT_TRUE(index.InsertPrompt("kb", plan, FakeBlocks(0, 32)).ok());
  plan.segments[0].reuse = ReuseKind::kFused;
  EXPECT_FALSE(index.InsertPrompt("kb", plan, FakeBlocks(0, 32)).ok());
  plan.segments[0].reuse = ReuseKind::kPrefix;
  plan.segments[0].recompute = {0};
  EXPECT_FALSE(index.InsertPrompt("kb", plan, FakeBlocks(0, 32)).ok());
  plan.segments[0].recompute.clear();
  plan.segments.resize(2);
  EXPECT_FALSE(index.InsertPrompt("kb", plan, FakeBlocks(0, 32)).ok());
}

TEST(PrefixIndex, BadInputIsIgnored) {
  PrefixIndex index;
  index.Insert("kb", Count(0, 32), nullptr);
  index.Insert("kb", {}, FakeBlocks(0, 32));
  index.Insert("kb", Count(0, 32), FakeBlocks(0, 15));
  // Says 64 tokens, names one block: only that one is believed.
  index.Insert("kb", Count(0, 64),
               std::make_shared<const KvBlocks>(std::vector<int32_t>{7}, 64, nullptr));
  EXPECT_EQ(index.Match("kb", Count(0, 64))->ids(), (std::vector<int32_t>{7}));
  EXPECT_EQ(index.Match("kb", {}), nullptr);
}

// Against a list of everything inserted: the longest common prefix in full blocks. Few distinct
// tokens, so that runs are split at every depth.
TEST(PrefixIndex, AgreesWithBruteForce) {
  std::mt19937 random(3);
  PrefixIndex index;
  std::vector<std::vector<int32_t>> stored;
  const auto draw = [&] {
    std::vector<int32_t> ids;
    const uint32_t blocks = 1 + random() % 6;
    for (uint32_t i = 0; i < blocks; ++i) {
      ids.insert(ids.end(), kBlockTokens, static_cast<int32_t>(random() % 2));
    }
    ids.resize(ids.size() - random() % kBlockTokens);
    return ids;
  };
  for (int round = 0; round < 3000; ++round) {
    const auto ids = draw();
    if (random() % 3 == 0) {
      index.Insert("kb", ids, FakeBlocks(round * 100, static_cast<int32_t>(ids.size())));
      stored.push_back(ids);
      continue;
    }
    size_t best = 0;
    for (const auto& other : stored) {
      const size_t most = std::min(ids.size(), other.size()) / kBlockTokens * kBlockTokens;
      size_t common = 0;
      while (common < most && ids[common] == other[common]) ++common;
      best = std::max(best, common / kBlockTokens * kBlockTokens);
    }
    ASSERT_EQ(index.MatchedTokens("kb", ids), static_cast<int32_t>(best));
    const auto match = index.Match("kb", ids);
    ASSERT_EQ(match ? static_cast<size_t>(match->tokens()) : 0u, best);
    ASSERT_EQ(match ? match->ids().size() * kBlockTokens : 0u, best);
  }
}

// Every matched block holds KV of the tokens that were asked for: block ids encode the prefix
// that they were inserted with. Reclaiming runs all the while, with some matches held.
TEST(PrefixIndex, BlocksAlwaysBelongToTheirTokens) {
  std::mt19937 random(4);
  PrefixIndex index;
  std::map<int32_t, std::vector<int32_t>> prefix_of_block;  // block id -> tokens up to its end
  std::set<int32_t> alive;
  std::vector<std::shared_ptr<const KvBlocks>> held;
  int32_t next_id = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<int32_t> ids;
    for (uint32_t i = 0, n = 1 + random() % 6; i < n; ++i) {
      ids.insert(ids.end(), kBlockTokens, static_cast<int32_t>(random() % 2));
    }
    const auto count = static_cast<int32_t>(ids.size()) / kBlockTokens;
    if (random() % 2 == 0) {
      for (int32_t i = 0; i < count; ++i) {
        alive.insert(next_id + i);
        prefix_of_block[next_id + i] = {ids.begin(), ids.begin() + (i + 1) * kBlockTokens};
      }
      index.Insert("kb", ids,
                   FakeBlocks(next_id, count * kBlockTokens, [&](const std::vector<int32_t>& gone) {
                     for (const int32_t id : gone) alive.erase(id);
                   }));
      next_id += count;
    } else if (auto match = index.Match("kb", ids)) {
      for (size_t i = 0; i < match->ids().size(); ++i) {
        const int32_t id = match->ids()[i];
        ASSERT_TRUE(alive.contains(id));
        const std::vector<int32_t> upto(ids.begin(), ids.begin() + static_cast<long>(i + 1) * 16);
        ASSERT_EQ(prefix_of_block[id], upto);
      }
      held.push_back(std::move(match));
    }
    if (held.size() > 3) held.erase(held.begin() + random() % held.size());
    if (random() % 8 == 0) index.ReclaimBlocks(static_cast<int32_t>(random() % 6));
    for (const auto& blocks : held) {
      for (const int32_t id : blocks->ids()) ASSERT_TRUE(alive.contains(id));
    }
  }
  held.clear();
  index.ReclaimBlocks(1 << 30);
  EXPECT_TRUE(alive.empty());
  EXPECT_EQ(index.stats().nodes, 0u);
}

}  // namespace
}  // namespace kvasir

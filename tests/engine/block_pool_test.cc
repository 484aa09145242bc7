#include "engine/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

namespace kvasir {
namespace {

using Ids = std::vector<int32_t>;

TEST(BlockPool, CountsByHand) {
  BlockPool pool(4);
  const Ids a = *pool.Allocate(3);
  EXPECT_EQ(pool.free(), 1);
  EXPECT_EQ(pool.RefCount(a[0]), 1);
  pool.Ref(a);
  EXPECT_EQ(pool.RefCount(a[1]), 2);
  pool.Unref(a);
  EXPECT_EQ(pool.free(), 1);
  pool.Unref(Ids{a[0]});
  EXPECT_EQ(pool.free(), 2);
  EXPECT_EQ(pool.RefCount(a[0]), 0);
  EXPECT_FALSE(pool.AllOwned(a));
  EXPECT_TRUE(pool.AllOwned(Ids{a[1], a[2]}));
  EXPECT_FALSE(pool.AllOwned(Ids{-1}));
  EXPECT_FALSE(pool.AllOwned(Ids{4}));
}

TEST(BlockPool, AllocatesAllOrNothing) {
  BlockPool pool(5);
  const auto first = pool.Allocate(4);
  ASSERT_TRUE(first);
  EXPECT_FALSE(pool.Allocate(2));
  EXPECT_EQ(pool.free(), 1);
  EXPECT_TRUE(pool.Allocate(1));
  EXPECT_TRUE(pool.Allocate(0));
  EXPECT_EQ(std::set<int32_t>(first->begin(), first->end()).size(), 4u);
}

TEST(BlockPool, HandlesShareBlocks) {
  BlockPool pool(4);
  auto chunk = pool.Own(*pool.Allocate(2), 20);
  auto again = pool.Share(chunk->ids(), 20);
  EXPECT_EQ(pool.RefCount(chunk->ids()[0]), 2);
  EXPECT_EQ(pool.RefCount(chunk->ids()[1]), 2);
  chunk.reset();
  EXPECT_EQ(pool.free(), 2);
  again.reset();
  EXPECT_EQ(pool.free(), 4);
}

TEST(BlockPool, HandleMayOutliveThePool) {
  std::vector<int32_t> freed;
  std::shared_ptr<const KvBlocks> handle;
  {
    BlockPool pool(2, [&](int32_t block) { freed.push_back(block); });
    handle = pool.Own(*pool.Allocate(1), 3);
  }
  handle.reset();  // the hook, which points at things of the pool's owner, is not called any more
  EXPECT_TRUE(freed.empty());
}

TEST(BlockPool, FreedHookRunsBeforeTheBlockCanBeHadAgain) {
  BlockPool* known = nullptr;
  std::vector<std::pair<int32_t, int32_t>> calls;  // block, free blocks then
  BlockPool pool(3, [&](int32_t block) { calls.push_back({block, known->free()}); });
  known = &pool;
  const Ids ids = *pool.Allocate(3);
  pool.Ref(Ids{ids[1]});
  pool.Unref(ids);
  EXPECT_EQ(calls, (std::vector<std::pair<int32_t, int32_t>>{{ids[0], 0}, {ids[2], 0}}));
  pool.Unref(Ids{ids[1]});
  EXPECT_EQ(calls.back(), (std::pair<int32_t, int32_t>{ids[1], 2}));
}

// Random allocations, forks and releases beside a plain model of the counts.
TEST(BlockPool, RandomTraceLeaksNothing) {
  constexpr int32_t kBlocks = 97;
  BlockPool pool(kBlocks);
  std::vector<int32_t> counts(kBlocks, 0);
  std::vector<Ids> held;
  std::mt19937 random(7);
  for (int step = 0; step < 20000; ++step) {
    const auto action = random() % 4;
    if (action == 0 || held.empty()) {
      const auto want = static_cast<int32_t>(random() % 9);
      const auto free = std::count(counts.begin(), counts.end(), 0);
      const auto ids = pool.Allocate(want);
      ASSERT_EQ(ids.has_value(), want <= free);
      if (!ids) continue;
      for (const int32_t id : *ids) ASSERT_EQ(counts[size_t(id)]++, 0);
      held.push_back(*ids);
    } else if (action == 1) {
      const Ids ids = held[random() % held.size()];
      pool.Ref(ids);
      for (const int32_t id : ids) ++counts[size_t(id)];
      held.push_back(ids);
    } else {
      const size_t victim = random() % held.size();
      pool.Unref(held[victim]);
      for (const int32_t id : held[victim]) --counts[size_t(id)];
      held.erase(held.begin() + std::ptrdiff_t(victim));
    }
    for (int32_t id = 0; id < kBlocks; ++id) ASSERT_EQ(pool.RefCount(id), counts[size_t(id)]);
  }
  for (const Ids& ids : held) pool.Unref(ids);
  EXPECT_EQ(pool.free(), kBlocks);
}

TEST(BlockPool, ThreadsNeverGetTheSameBlock) {
  BlockPool pool(64);
  std::vector<int> owners(64, 0);  // written without a lock: a race if two threads own one block
  std::vector<std::thread> threads;
  for (int t = 1; t <= 4; ++t) {
    threads.emplace_back([&pool, &owners, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = 0; i < 3000; ++i) {
        const auto ids = pool.Allocate(static_cast<int32_t>(random() % 20));
        if (!ids) continue;
        for (const int32_t id : *ids) owners[size_t(id)] = t;
        for (const int32_t id : *ids) ASSERT_EQ(owners[size_t(id)], t);
        auto handle = pool.Own(*ids, static_cast<int32_t>(ids->size()) * kBlockTokens);
        const auto copy = pool.Share(handle->ids(), handle->tokens());
        handle.reset();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool.free(), 64);
}

}  // namespace
}  // namespace kvasir

#include "service/answer_store.h"

#include <gtest/gtest.h>

#include "service/name_space.h"
#include "tests/retrieval/test_support.h"

namespace kvasir {
namespace {

using Ids = std::vector<int32_t>;
using testing::MapStore;

const AnswerScope kScope = {"model", "docs", "", ""};

// An answer of `count` tokens that no other first token gives.
Ids AnswerOf(int32_t first, int32_t count = 20) {
  Ids tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back(first * 1000 + i);
  return tokens;
}

Ids Draft(const std::shared_ptr<AnswerShelf>& shelf, int32_t first) {
  const Ids tail = {first * 1000 + 2, first * 1000 + 3};
  return shelf->index()->Draft(tail, 1).tokens;
}

bool Knows(const std::shared_ptr<AnswerShelf>& shelf, int32_t first) {
  return Draft(shelf, first) == Ids{first * 1000 + 4};
}

void Add(AnswerStore& store, const AnswerScope& scope, int32_t first, int32_t count = 20) {
  store.Add(store.Open(scope), AnswerOf(first, count));
  store.Flush();
}

TEST(AnswerStore, KeepsAnswersAcrossOpening) {
  MapStore records;
  {
    AnswerStore store(records);
    const auto shelf = store.Open(kScope);
    EXPECT_FALSE(Knows(shelf, 1));
    store.Add(shelf, AnswerOf(1));
    store.Add(shelf, AnswerOf(2));
    store.Flush();
    EXPECT_TRUE(Knows(shelf, 1)) << "an open shelf sees what comes";
    store.Add(shelf, AnswerOf(3));  // written by the destructor
    store.Add(shelf, {1, 2, 3});    // too short
  }
  AnswerStore store(records);
  EXPECT_EQ(store.stats().answers, 0) << "read when first asked for";
  const auto shelf = store.Open(kScope);
  for (const int32_t first : {1, 2, 3}) EXPECT_TRUE(Knows(shelf, first)) << first;
  EXPECT_EQ(store.stats().answers, 3);
  EXPECT_EQ(shelf->index()->answers(), 3u);
}

TEST(AnswerStore, KeepsScopesApart) {
  MapStore records;
  const std::vector<AnswerScope> others = {{"other", "docs", "", ""},
                                           {"model", "other", "", ""},
                                           {"model", "docs", "salt", ""},
                                           {"model", "docs", "", TenantOf("key")},
                                           {"model", "docs", "", TenantOf("other key")}};
  {
    AnswerStore store(records);
    Add(store, kScope, 1);
    for (const AnswerScope& other : others) EXPECT_FALSE(Knows(store.Open(other), 1));
    Add(store, others[3], 2);
    EXPECT_FALSE(Knows(store.Open(kScope), 2));
    EXPECT_FALSE(Knows(store.Open(others[4]), 2));
  }
  AnswerStore store(records);
  for (const AnswerScope& other : others) EXPECT_FALSE(Knows(store.Open(other), 1));
  EXPECT_TRUE(Knows(store.Open(kScope), 1));
  EXPECT_TRUE(Knows(store.Open(others[3]), 2));
  for (const auto& [key, value] : records.map) {
    EXPECT_EQ(value.find("other key"), std::string::npos) << "keys are secrets";
  }
}

TEST(AnswerStore, TheSameAnswerIsKeptOnceAndCounts) {
  MapStore records;
  Ids more = AnswerOf(1), less = AnswerOf(1);
  more[5] = 7, less[5] = 8;
  {
    AnswerStore store(records);
    const auto shelf = store.Open(kScope);
    for (int i = 0; i < 3; ++i) store.Add(shelf, more);
    store.Add(shelf, less);
    store.Flush();
    EXPECT_EQ(store.stats().answers, 2);
    EXPECT_EQ(records.map.size(), 2u);
  }
  AnswerStore store(records);
  const Ids tail = {1003, 1004};
  EXPECT_EQ(store.Open(kScope)->index()->Draft(tail, 1).tokens, Ids{7});
}

TEST(AnswerStore, TheLeastRecentlyGivenGo) {
  MapStore records;
  AnswerStoreOptions options;
  options.bytes = 4000;  // of answers of 20 tokens: 656 bytes each
  options.shelf_bytes = 2000;
  AnswerStore store(records, options);
  for (int32_t first = 1; first <= 3; ++first) Add(store, kScope, first);
  Add(store, kScope, 1);  // again
  Add(store, kScope, 4);
  const auto shelf = store.Open(kScope);
  EXPECT_TRUE(Knows(shelf, 1) && Knows(shelf, 3) && Knows(shelf, 4));
  EXPECT_FALSE(Knows(shelf, 2));
  EXPECT_EQ(records.map.size(), 3u) << "on disk as well";
  for (int32_t i = 0; i < 4; ++i) {
    Add(store, {"model", "docs", "salt " + std::to_string(i), ""}, 9);
  }
  EXPECT_EQ(store.stats().answers, 6) << "all of them together";
  EXPECT_LE(store.stats().bytes, 4000);
  EXPECT_FALSE(Knows(shelf, 3)) << "the oldest of any shelf";
  EXPECT_TRUE(Knows(shelf, 4));
  EXPECT_EQ(records.map.size(), 6u);
}

TEST(AnswerStore, SmallerBoundsHoldAtTheNextStart) {
  MapStore records;
  {
    AnswerStore store(records);
    for (int32_t first = 1; first <= 9; ++first) Add(store, kScope, first);
  }
  AnswerStoreOptions options;
  options.bytes = 2000;
  options.shelf_bytes = 2000;
  AnswerStore store(records, options);
  EXPECT_TRUE(Knows(store.Open(kScope), 9));
  EXPECT_FALSE(Knows(store.Open(kScope), 1));
  EXPECT_LE(store.stats().bytes, 2000);
  Add(store, kScope, 10);
  EXPECT_EQ(records.map.size(), 3u);
}

TEST(AnswerStore, DamagedRecordsAreDropped) {
  MapStore records;
  {
    AnswerStore store(records);
    for (int32_t first = 1; first <= 3; ++first) Add(store, kScope, first);
  }
  auto at = records.map.begin();
  at->second[at->second.size() / 2] ^= 1;
  std::next(at)->second.resize(9);
  {
    AnswerStore store(records);
    const auto shelf = store.Open(kScope);
    EXPECT_FALSE(Knows(shelf, 1));
    EXPECT_FALSE(Knows(shelf, 2));
    EXPECT_TRUE(Knows(shelf, 3));
    EXPECT_EQ(store.stats().unreadable, 2);
    Add(store, kScope, 4);
  }
  EXPECT_EQ(records.map.size(), 2u) << "with the next write they are gone";
  // A record under another scope's key is not believed.
  const AnswerScope other = {"model", "docs", "salt", ""};
  const std::string value = records.map.begin()->second;
  records.map[other.KeyPrefix() + std::string(8, '\1')] = value;
  AnswerStore store(records);
  EXPECT_FALSE(Knows(store.Open(other), 3));
  EXPECT_EQ(store.stats().unreadable, 1);
}

TEST(AnswerStore, ErasesACollectionOfEveryTenant) {
  MapStore records;
  AnswerStore store(records);
  const AnswerScope salted = {"model", "docs", "salt", "tenant"}, other = {"model", "x", "", ""};
  for (const AnswerScope& scope : {kScope, salted, other}) Add(store, scope, 1);
  const auto before = store.Open(kScope);
  ASSERT_TRUE(store.Erase("docs").ok());
  EXPECT_FALSE(Knows(before, 1)) << "also for requests that run";
  EXPECT_FALSE(Knows(store.Open(kScope), 1));
  EXPECT_FALSE(Knows(store.Open(salted), 1));
  EXPECT_TRUE(Knows(store.Open(other), 1));
  EXPECT_EQ(records.map.size(), 1u);
  store.Add(before, AnswerOf(2));  // its request saw what was erased
  store.Flush();
  EXPECT_EQ(records.map.size(), 1u);
  Add(store, kScope, 3);
  EXPECT_EQ(records.map.size(), 2u);
  ASSERT_TRUE(AnswerStore::EraseAll(records).ok());
  EXPECT_TRUE(records.map.empty());
}

TEST(AnswerStore, ErasesWhatWasNeverRead) {
  MapStore records;
  {
    AnswerStore store(records);
    Add(store, kScope, 1);
  }
  AnswerStore store(records);
  ASSERT_TRUE(store.Erase("docs").ok());
  EXPECT_TRUE(records.map.empty());
  EXPECT_FALSE(Knows(store.Open(kScope), 1));
}

TEST(AnswerStore, AFailingDiskCostsOnlyPersistence) {
  MapStore records;
  AnswerStore store(records);
  records.fail_writes_with = ResourceExhausted("full");
  Add(store, kScope, 1);
  EXPECT_TRUE(Knows(store.Open(kScope), 1));
  EXPECT_EQ(store.stats().failed_writes, 1);
}

TEST(AnswerStore, ManyScopesWithoutAnswersAreForgotten) {
  MapStore records;
  AnswerStore store(records);
  const auto held = store.Open({"model", "docs", "held", ""});
  for (int i = 0; i < 5000; ++i) store.Open({"model", "docs", std::to_string(i), ""});
  store.Add(held, AnswerOf(1));
  store.Flush();
  EXPECT_TRUE(Knows(store.Open({"model", "docs", "held", ""}), 1));
}

}  // namespace
}  // namespace kvasir

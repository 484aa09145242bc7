#include "retrieval/vector_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <map>
#include <thread>

#include "test_support.h"

namespace kvasir {
namespace {

using testing::RandomUnitVector;

std::unique_ptr<VectorIndex> Make(int32_t dimension, int64_t flat_limit = 50000) {
  VectorIndexOptions options;
  options.dimension = dimension;
  options.flat_limit = flat_limit;
  auto made = VectorIndex::Create(options);
  EXPECT_TRUE(made.ok()) << made.status().ToString();
  return std::move(made).value();
}

void Add(VectorIndex& index, std::vector<int64_t> ids, const std::vector<float>& vectors) {
  const Status status = index.Add(ids, vectors);
  ASSERT_TRUE(status.ok()) << status.ToString();
}

std::vector<int64_t> Ids(const std::vector<VectorHit>& hits) {
  std::vector<int64_t> ids;
  for (const VectorHit& hit : hits) ids.push_back(hit.id);
  return ids;
}

// The same in double, one by one.
class BruteForce {
 public:
  std::map<int64_t, std::vector<float>> vectors;

  std::vector<int64_t> Best(const std::vector<float>& query, size_t k,
                            const VectorIndex::Filter& filter = nullptr) const {
    std::vector<std::pair<double, int64_t>> all;
    for (const auto& [id, vector] : vectors) {
      double score = 0;
      for (size_t i = 0; i < query.size(); ++i) score += double{query[i]} * double{vector[i]};
      if (!filter || filter(id)) all.emplace_back(-score, id);
    }
    std::sort(all.begin(), all.end());
    std::vector<int64_t> ids;
    for (size_t i = 0; i < std::min(k, all.size()); ++i) ids.push_back(all[i].second);
    return ids;
  }
};

TEST(VectorIndex, HandCase) {
  const auto index = Make(2);
  Add(*index, {10, 20, 30, 5}, {1, 0, 0, 1, 0.6f, 0.8f, 0.6f, 0.8f});
  const auto hits = index->Search(std::vector<float>{0, 1}, 3);
  ASSERT_TRUE(hits.ok());
  EXPECT_EQ(*hits, (std::vector<VectorHit>{{20, 1.0f}, {5, 0.8f}, {30, 0.8f}})) << "ties by id";
  EXPECT_EQ(index->Remove(std::vector<int64_t>{20, 99}), 1);
  EXPECT_EQ(Ids(*index->Search(std::vector<float>{0, 1}, 9)), (std::vector<int64_t>{5, 30, 10}));
  EXPECT_EQ(index->size(), 3);
  const auto odd = index->Search(std::vector<float>{0, 1}, 9, [](int64_t id) { return id > 5; });
  EXPECT_EQ(Ids(*odd), (std::vector<int64_t>{30, 10}));
}

TEST(VectorIndex, RefusesBadInput) {
  const auto index = Make(2);
  EXPECT_TRUE(index->Search(std::vector<float>{0, 1}, 3)->empty());
  Add(*index, {1}, {1, 0});
  const auto add = [&](std::vector<int64_t> ids, std::vector<float> vectors) {
    return index->Add(ids, vectors).code();
  };
  EXPECT_EQ(add({1}, {1, 0}), StatusCode::kAlreadyExists);
  EXPECT_EQ(add({2, 2}, {1, 0, 1, 0}), StatusCode::kAlreadyExists);
  EXPECT_EQ(add({2}, {1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(add({2}, {1, std::nanf("")}), StatusCode::kInvalidArgument);
  EXPECT_EQ(index->size(), 1) << "a refused call adds nothing";
  EXPECT_FALSE(index->Search(std::vector<float>{1}, 1).ok());
  EXPECT_FALSE(index->Search(std::vector<float>{1, INFINITY}, 1).ok());
  EXPECT_FALSE(index->Search(std::vector<float>{1, 0}, 0).ok());
  VectorIndexOptions options;
  options.dimension = 0;
  EXPECT_FALSE(VectorIndex::Create(options).ok());
}

// Random additions, removals and filtered searches; exact below the limit. Scores of distinct
// random vectors differ by far more than fp32 rounding, so the order is that of the double sums.
TEST(VectorIndex, FlatEqualsBruteForce) {
  std::mt19937 random(3);
  const auto index = Make(24);
  BruteForce expected;
  int64_t next = 1;
  for (int round = 0; round < 60; ++round) {
    std::vector<int64_t> ids;
    std::vector<float> vectors;
    for (int i = 0; i < 40; ++i) {
      const auto vector = RandomUnitVector(&random, 24);
      ids.push_back(next);
      vectors.insert(vectors.end(), vector.begin(), vector.end());
      expected.vectors[next++] = vector;
    }
    Add(*index, ids, vectors);
    std::vector<int64_t> gone;
    for (const auto& [id, vector] : expected.vectors) {
      if (random() % 3 == 0) gone.push_back(id);
    }
    EXPECT_EQ(index->Remove(gone), static_cast<int64_t>(gone.size()));
    for (const int64_t id : gone) expected.vectors.erase(id);
    ASSERT_EQ(index->size(), static_cast<int64_t>(expected.vectors.size()));
    const auto query = RandomUnitVector(&random, 24);
    EXPECT_EQ(Ids(*index->Search(query, 10)), expected.Best(query, 10));
    const auto odd = [](int64_t id) { return id % 2 == 1; };
    EXPECT_EQ(Ids(*index->Search(query, 7, odd)), expected.Best(query, 7, odd));
  }
  EXPECT_FALSE(index->approximate());
}

// Above the limit: recall over many queries, removals unseen, filters exact.
TEST(VectorIndex, GraphAboveTheLimit) {
  std::mt19937 random(5);
  const auto index = Make(16, 1000);
  BruteForce expected;
  std::vector<int64_t> ids;
  std::vector<float> vectors;
  for (int64_t id = 0; id < 3000; ++id) {
    const auto vector = RandomUnitVector(&random, 16);
    expected.vectors[id] = vector;
    ids.push_back(id);
    vectors.insert(vectors.end(), vector.begin(), vector.end());
    if (ids.size() < 500) continue;
    Add(*index, ids, vectors);
    ids.clear();
    vectors.clear();
  }
  index->WaitUntilBuilt();
  EXPECT_TRUE(index->approximate());
  std::vector<int64_t> gone;
  for (int64_t id = 0; id < 3000; id += 4) gone.push_back(id);
  index->Remove(gone);
  for (const int64_t id : gone) expected.vectors.erase(id);
  int found = 0;
  for (int query_number = 0; query_number < 50; ++query_number) {
    const auto query = RandomUnitVector(&random, 16);
    const auto hits = Ids(*index->Search(query, 10));
    ASSERT_EQ(hits.size(), 10u);
    for (const int64_t id : expected.Best(query, 10)) {
      found += static_cast<int>(std::count(hits.begin(), hits.end(), id));
    }
    for (const int64_t id : hits) EXPECT_NE(id % 4, 0) << "removed";
    const auto filter = [](int64_t id) { return id % 64 == 1; };
    EXPECT_EQ(Ids(*index->Search(query, 10, filter)), expected.Best(query, 10, filter));
  }
  EXPECT_GE(found, 495) << "recall@10 of 0.99";
  // Most rows gone: swept, and small enough for an exact index again.
  gone.clear();
  for (int64_t id = 100; id < 3000; ++id) gone.push_back(id);
  index->Remove(gone);
  EXPECT_EQ(index->size(), 75);
  EXPECT_FALSE(index->approximate());
  EXPECT_EQ(index->Search(RandomUnitVector(&random, 16), 200)->size(), 75u);
}

// Exact while the graph is being built, whatever is added and removed meanwhile; an id may come
// back with another vector.
TEST(VectorIndex, ChangesWhileTheGraphIsBuilt) {
  std::mt19937 random(7);
  const auto index = Make(32, 500);
  BruteForce expected;
  const auto add = [&](int64_t id) {
    expected.vectors[id] = RandomUnitVector(&random, 32);
    Add(*index, {id}, expected.vectors[id]);
  };
  for (int64_t id = 0; id < 1500; ++id) add(id);  // a build starts at 501
  for (int64_t id = 0; id < 1500; id += 5) {
    EXPECT_EQ(index->Remove(std::vector<int64_t>{id}), 1);
    expected.vectors.erase(id);
    if (id % 2 == 0) add(id);
  }
  index->WaitUntilBuilt();
  ASSERT_EQ(index->size(), static_cast<int64_t>(expected.vectors.size()));
  int found = 0;
  for (int round = 0; round < 30; ++round) {
    const auto query = RandomUnitVector(&random, 32);
    const auto exact = index->Search(query, 10, [](int64_t) { return true; });
    EXPECT_EQ(Ids(*exact), expected.Best(query, 10)) << "every vector is the present one";
    const auto hits = Ids(*index->Search(query, 10));
    for (const int64_t id : expected.Best(query, 10)) {
      found += static_cast<int>(std::count(hits.begin(), hits.end(), id));
    }
  }
  EXPECT_GE(found, 297) << "recall@10 of 0.99";
}

// A graph grows by copies of itself, one build after the other.
TEST(VectorIndex, GraphIsExtended) {
  std::mt19937 random(12);
  const auto index = Make(16, 400);
  BruteForce expected;
  for (int64_t id = 0; id < 2400; ++id) {
    expected.vectors[id] = RandomUnitVector(&random, 16);
    Add(*index, {id}, expected.vectors[id]);
    if (id % 300 == 299) index->WaitUntilBuilt();
  }
  int found = 0;
  for (int round = 0; round < 30; ++round) {
    const auto query = RandomUnitVector(&random, 16);
    const auto hits = Ids(*index->Search(query, 10));
    for (const int64_t id : expected.Best(query, 10)) {
      found += static_cast<int>(std::count(hits.begin(), hits.end(), id));
    }
  }
  EXPECT_GE(found, 297) << "recall@10 of 0.99";
}

TEST(VectorIndex, EndsWhileTheGraphIsBuilt) {
  std::mt19937 random(7);
  const auto index = Make(64, 100);
  for (int64_t id = 0; id < 3000; ++id) Add(*index, {id}, RandomUnitVector(&random, 64));
}

TEST(VectorIndex, SearchesBesideWriters) {
  const auto index = Make(8, 200);
  std::atomic<bool> stop = false;
  std::thread reader([&] {
    std::mt19937 random(1);
    while (!stop) {
      const auto hits = index->Search(RandomUnitVector(&random, 8), 5);
      ASSERT_TRUE(hits.ok());
    }
  });
  std::mt19937 random(2);
  for (int64_t id = 0; id < 600; ++id) {
    Add(*index, {id}, RandomUnitVector(&random, 8));
    if (id >= 300) index->Remove(std::vector<int64_t>{id - 300});
  }
  stop = true;
  reader.join();
  EXPECT_EQ(index->size(), 300);
}

}  // namespace
}  // namespace kvasir

#include "cache/statistics.h"

#include <rocksdb/db.h>

#include <thread>

#include "cache/rocks.h"
#include "tests/cache/fixture.h"

namespace kvasir {
namespace {

ChunkKey KeyOf(uint32_t seed) { return MakeChunkKey("kb", {1, 2}, RandomTokens(5, seed)); }

ChunkLookup Hit(Tier tier) {
  ChunkLookup lookup;
  lookup.blocks = FakeBlocks(0, 16);
  lookup.tier = tier;
  lookup.load_ms = 2.0;
  return lookup;
}

PromptAccount Account(int64_t prefix, int64_t fused, int64_t recomputed, int64_t computed) {
  return {prefix + fused + recomputed + computed, prefix, fused, recomputed, computed};
}

TEST(Statistics, ByHand) {
  const auto statistics = Statistics::Open(nullptr);
  statistics->RecordRequest(Account(16, 100, 32, 12));
  statistics->RecordRequest(Account(0, 0, 0, 40));
  statistics->RecordChunk(KeyOf(1), Hit(Tier::kPool), 60);
  statistics->RecordChunk(KeyOf(2), Hit(Tier::kDisk), 40);
  statistics->RecordChunk(KeyOf(1), Hit(Tier::kMemory), 60);
  statistics->RecordChunk(KeyOf(3), ChunkLookup(), 0);
  const StatisticsSnapshot snapshot = statistics->Snapshot();
  EXPECT_EQ(snapshot.totals.requests, 2u);
  EXPECT_EQ(snapshot.totals.requested, 200u);
  EXPECT_EQ(snapshot.totals.requested, snapshot.totals.prefix + snapshot.totals.fused +
                                           snapshot.totals.recomputed + snapshot.totals.computed);
  EXPECT_EQ(snapshot.totals.chunk_hits_pool, 1u);
  EXPECT_EQ(snapshot.totals.chunk_misses, 1u);
  EXPECT_DOUBLE_EQ(snapshot.totals.load_ms, 6.0);
  EXPECT_EQ(snapshot.chunks_hit, 2u);
  ASSERT_EQ(snapshot.top_chunks.size(), 2u);
  EXPECT_EQ(snapshot.top_chunks[0].key, KeyOf(1));
  EXPECT_EQ(snapshot.top_chunks[0].hits, 2u);
  EXPECT_EQ(snapshot.top_chunks[0].tokens, 120u);
}

TEST(Statistics, SurviveRestartsAndAgreeWithAModel) {
  TempFolder folder;
  std::map<uint32_t, uint64_t> hits;
  uint64_t requests = 0;
  std::mt19937 random(1);
  for (int session = 0; session < 3; ++session) {
    StatisticsOptions options;
    options.flush_entries = 4;  // flushes in between
    const auto statistics = Statistics::Open(OpenDatabase(folder.Sub("db")), options);
    for (int i = 0; i < 100; ++i) {
      const uint32_t chunk = random() % 10;
      ++hits[chunk];
      statistics->RecordChunk(KeyOf(chunk), Hit(Tier::kPool), 5);
      statistics->RecordRequest(Account(1, 2, 3, 4));
      ++requests;
    }
    const StatisticsSnapshot snapshot = statistics->Snapshot(100);
    EXPECT_EQ(snapshot.totals.requests, requests);
    EXPECT_EQ(snapshot.session.requests, 100u);
    ASSERT_EQ(snapshot.top_chunks.size(), hits.size());
    for (const ChunkUsage& usage : snapshot.top_chunks) {
      const auto expected = std::find_if(hits.begin(), hits.end(), [&](const auto& entry) {
        return KeyOf(entry.first) == usage.key;
      });
      ASSERT_NE(expected, hits.end());
      EXPECT_EQ(usage.hits, expected->second);
      EXPECT_EQ(usage.tokens, 5 * expected->second);
    }
    EXPECT_TRUE(std::is_sorted(snapshot.top_chunks.begin(), snapshot.top_chunks.end(),
                               [](const auto& a, const auto& b) { return a.hits > b.hits; }));
    EXPECT_EQ(statistics->Snapshot(3).top_chunks.size(), 3u);
  }
}

TEST(Statistics, ForgottenChunksLoseTheirCounts) {
  TempFolder folder;
  const auto statistics = Statistics::Open(OpenDatabase(folder.Sub("db")));
  statistics->RecordChunk(KeyOf(1), Hit(Tier::kPool), 5);
  ASSERT_STATUS_OK(statistics->Flush());
  statistics->RecordChunk(KeyOf(1), Hit(Tier::kPool), 5);
  statistics->Forget(KeyOf(1));
  EXPECT_EQ(statistics->Snapshot().chunks_hit, 0u);
  EXPECT_EQ(statistics->Snapshot().totals.chunk_hits_pool, 2u);
}

TEST(Statistics, UnreadableRecordsStartAnew) {
  TempFolder folder;
  const auto database = OpenDatabase(folder.Sub("db"));
  const Database::Rocks& rocks = database->rocks();
  ASSERT_TRUE(rocks.db->Put({}, rocks.stats, "T", "short").ok());
  ASSERT_TRUE(rocks.db->Put({}, rocks.stats, std::string("U").append(KeyOf(1).Bytes()), "x").ok());
  ASSERT_TRUE(rocks.db->Put({}, rocks.stats, "Unokey", "x").ok());
  const auto statistics = Statistics::Open(database);
  statistics->RecordChunk(KeyOf(1), Hit(Tier::kPool), 5);
  ASSERT_STATUS_OK(statistics->Flush());
  EXPECT_EQ(statistics->Snapshot().totals.chunk_hits_pool, 1u);
  EXPECT_EQ(statistics->Snapshot().top_chunks[0].hits, 1u);
}

TEST(Statistics, ThreadsLoseNothing) {
  TempFolder folder;
  StatisticsOptions options;
  options.flush_entries = 3;
  const auto statistics = Statistics::Open(OpenDatabase(folder.Sub("db")), options);
  std::vector<std::thread> threads;
  for (uint32_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (uint32_t i = 0; i < 200; ++i) {
        statistics->RecordChunk(KeyOf((thread + i) % 5), Hit(Tier::kPool), 1);
        if (i % 50 == 0) (void)statistics->Snapshot();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t hits = 0;
  const StatisticsSnapshot snapshot = statistics->Snapshot();
  for (const ChunkUsage& usage : snapshot.top_chunks) hits += usage.hits;
  EXPECT_EQ(hits, 800u);
  EXPECT_EQ(snapshot.totals.chunk_hits_pool, 800u);
}

}  // namespace
}  // namespace kvasir

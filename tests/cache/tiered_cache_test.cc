#include "cache/tiered_cache.h"

#include <thread>

#include "tests/cache/fixture.h"

namespace kvasir {
namespace {

// Records of MakeTestChunk(., 20) all have this size.
size_t ChunkBytes() { return MakeTestChunk(0).encoded.bytes(); }

class TieredCacheTest : public testing::Test {
 protected:
  // Blocks of 16 tokens: a chunk of 20 takes two.
  void Make(size_t memory_chunks, int32_t pool_blocks, bool disk = true) {
    TieredCacheOptions options;
    options.memory_bytes = memory_chunks * ChunkBytes();
    if (disk && !database_) database_ = OpenDatabase(folder_.Sub("db"));
    if (disk) store_ = OpenStore(database_);
    pool_ = std::make_unique<FakePool>(pool_blocks);
    cache_ = std::make_unique<TieredCache>(
        store_, [this](std::span<const KvLayerPlanes> layers) { return LoadOrReclaim(layers); },
        options);
  }

  // As the engine does: when the pool is full it asks the cache to give up blocks.
  Result<std::shared_ptr<const KvBlocks>> LoadOrReclaim(std::span<const KvLayerPlanes> layers) {
    if (on_load_) on_load_();
    auto blocks = pool_->Load(layers);
    if (blocks.ok() || cache_->ReclaimBlocks(BlocksFor(layers[0].tokens)) == 0) return blocks;
    return pool_->Load(layers);
  }

  Status Insert(const TestChunk& chunk, bool persist = true) {
    return cache_->Insert(chunk.key, chunk.ids, chunk.encoded, {persist});
  }
  ChunkLookup Lookup(const TestChunk& chunk) { return cache_->Lookup(chunk.key, chunk.ids); }
  std::optional<Tier> Where(const TestChunk& chunk) {
    return cache_->Contains(chunk.key, chunk.ids);
  }
  void ExpectContent(const ChunkLookup& lookup, const TestChunk& chunk) {
    ASSERT_TRUE(lookup.hit()) << MissReasonName(lookup.miss);
    const auto planes = DecodePlanes(chunk.encoded).value();
    EXPECT_EQ(pool_->Content(*lookup.blocks),
              std::string(static_cast<const char*>(planes[0].k), chunk.ids.size()));
    EXPECT_EQ(lookup.blocks->tokens(), static_cast<int32_t>(chunk.ids.size()));
  }

  TempFolder folder_;
  std::shared_ptr<Database> database_;
  std::shared_ptr<ChunkStore> store_;
  std::unique_ptr<FakePool> pool_;
  std::function<void()> on_load_;
  std::unique_ptr<TieredCache> cache_;  // before the pool: it gives blocks back
};

TEST_F(TieredCacheTest, EachTierInTurn) {
  Make(10, 100);
  const TestChunk chunk = MakeTestChunk(1);
  EXPECT_EQ(Lookup(chunk).miss, MissReason::kAbsent);
  EXPECT_EQ(Where(chunk), std::nullopt);
  ASSERT_STATUS_OK(Insert(chunk));
  EXPECT_EQ(Where(chunk), Tier::kMemory);
  EXPECT_EQ(Lookup(chunk).tier, Tier::kMemory);
  EXPECT_EQ(Lookup(chunk).tier, Tier::kPool);
  cache_->DropUpperTiers(/*memory_too=*/false);
  EXPECT_EQ(Where(chunk), Tier::kMemory);
  cache_->DropUpperTiers(/*memory_too=*/true);
  EXPECT_EQ(Where(chunk), Tier::kDisk);
  const ChunkLookup from_disk = Lookup(chunk);
  EXPECT_EQ(from_disk.tier, Tier::kDisk);
  EXPECT_GT(from_disk.load_ms, 0.0);
  ExpectContent(from_disk, chunk);
  EXPECT_EQ(Where(chunk), Tier::kPool);

  const CacheCounters counters = cache_->counters();
  EXPECT_EQ(counters.hits_pool, 1u);
  EXPECT_EQ(counters.hits_memory, 1u);
  EXPECT_EQ(counters.hits_disk, 1u);
  EXPECT_EQ(counters.misses, 1u);
  EXPECT_EQ(counters.absent, 1u);
  EXPECT_EQ(counters.disk_bytes_written, chunk.encoded.bytes());
  EXPECT_EQ(counters.disk_bytes_read, chunk.encoded.bytes());
  EXPECT_EQ(counters.pool_bytes_loaded, 2 * chunk.encoded.bytes());
}

TEST_F(TieredCacheTest, SurvivesARestart) {
  const TestChunk chunk = MakeTestChunk(1);
  Make(10, 100);
  ASSERT_STATUS_OK(Insert(chunk));
  cache_.reset();
  Make(10, 100);
  ExpectContent(Lookup(chunk), chunk);
}

TEST_F(TieredCacheTest, MemoryBudgetEvictsTheLeastRecentlyUsed) {
  Make(3, 100);
  std::vector<TestChunk> chunks;
  for (uint32_t seed = 0; seed < 4; ++seed) chunks.push_back(MakeTestChunk(seed));
  for (int i = 0; i < 3; ++i) ASSERT_STATUS_OK(Insert(chunks[static_cast<size_t>(i)]));
  (void)Lookup(chunks[0]);
  cache_->DropUpperTiers(false);
  ASSERT_STATUS_OK(Insert(chunks[3]));  // in order of use: 1 goes
  EXPECT_EQ(Where(chunks[0]), Tier::kMemory);
  EXPECT_EQ(Where(chunks[1]), Tier::kDisk);
  EXPECT_EQ(Where(chunks[2]), Tier::kMemory);
  EXPECT_EQ(Where(chunks[3]), Tier::kMemory);
  EXPECT_EQ(cache_->occupancy().memory_bytes, 3 * ChunkBytes());
  EXPECT_EQ(cache_->counters().evicted_memory, 1u);
}

TEST_F(TieredCacheTest, NoMemoryTierStillServesFromDisk) {
  Make(0, 100);
  const TestChunk chunk = MakeTestChunk(1);
  ASSERT_STATUS_OK(Insert(chunk));
  EXPECT_EQ(Lookup(chunk).tier, Tier::kDisk);
  EXPECT_EQ(Lookup(chunk).tier, Tier::kPool);
  EXPECT_EQ(cache_->occupancy().memory_chunks, 0u);
}

TEST_F(TieredCacheTest, PoolGivesUpUnusedBlocksOnly) {
  Make(10, 4);
  const TestChunk a = MakeTestChunk(1), b = MakeTestChunk(2), c = MakeTestChunk(3);
  for (const TestChunk* chunk : {&a, &b, &c}) ASSERT_STATUS_OK(Insert(*chunk));
  const auto held = Lookup(a).blocks;
  (void)Lookup(b);
  ExpectContent(Lookup(c), c);  // b goes, though a was used longer ago
  EXPECT_EQ(Where(a), Tier::kPool);
  EXPECT_EQ(Where(b), Tier::kMemory);
  const auto held_too = Lookup(c).blocks;
  const ChunkLookup full = Lookup(b);
  EXPECT_EQ(full.miss, MissReason::kPoolFull);
  EXPECT_EQ(full.detail.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(cache_->ReclaimBlocks(100), 0);
  EXPECT_EQ(cache_->counters().pool_full, 1u);
}

// A policy that has seen fast prefills and slow loads declines what is not in the pool, for those
// alone who allow it.
TEST_F(TieredCacheTest, WhatIsSoonerComputedIsNotLoaded) {
  Make(10, 100);
  const TestChunk chunk = MakeTestChunk(1), absent = MakeTestChunk(2);
  ASSERT_STATUS_OK(Insert(chunk));
  const auto ask = [&](const TestChunk& asked, bool may_compute) {
    const ChunkRequest request{asked.key, asked.ids, may_compute};
    return cache_->LookupMany({&request, 1})[0];
  };
  EXPECT_EQ(ask(chunk, true).tier, Tier::kMemory) << "nothing is known yet";
  for (uint64_t i = 1; i <= 8; ++i) {
    cache_->load_policy().RecordDisk(1000000, 1);
    cache_->load_policy().RecordPool(1000000, 1);
    cache_->load_policy().SamplePrefill(i * 10000000, static_cast<double>(i));
  }
  EXPECT_EQ(ask(chunk, true).tier, Tier::kPool) << "the pool costs nothing";
  for (const bool memory_too : {false, true}) {
    cache_->DropUpperTiers(memory_too);
    const ChunkLookup declined = ask(chunk, true);
    EXPECT_FALSE(declined.hit());
    EXPECT_EQ(declined.miss, MissReason::kSlower);
    EXPECT_EQ(MissReasonName(declined.miss), "slower_than_computing");
  }
  EXPECT_EQ(ask(absent, true).miss, MissReason::kAbsent) << "to be computed and stored";
  EXPECT_EQ(Where(chunk), Tier::kDisk);
  EXPECT_EQ(ask(chunk, false).tier, Tier::kDisk);
  const CacheCounters counters = cache_->counters();
  EXPECT_EQ(counters.slower, 2u);
  EXPECT_EQ(counters.misses, 3u);
}

TEST_F(TieredCacheTest, LoadsTeachThePolicy) {
  Make(10, 100);
  for (uint32_t seed = 0; seed < LoadPolicy::kLeastSamples; ++seed) {
    const TestChunk chunk = MakeTestChunk(seed);
    ASSERT_STATUS_OK(Insert(chunk));
    EXPECT_EQ(cache_->load_policy().rates().pool_bytes_per_second, 0);
    cache_->DropUpperTiers(/*memory_too=*/true);
    ExpectContent(Lookup(chunk), chunk);
  }
  EXPECT_GT(cache_->load_policy().rates().pool_bytes_per_second, 0);
  EXPECT_GT(cache_->load_policy().rates().disk_bytes_per_second, 0);
}

TEST_F(TieredCacheTest, ReclaimCountsBlocksAndReturnsThem) {
  Make(10, 100);
  for (uint32_t seed = 0; seed < 5; ++seed) {
    ASSERT_STATUS_OK(Insert(MakeTestChunk(seed)));
    ASSERT_TRUE(Lookup(MakeTestChunk(seed)).hit());
  }
  EXPECT_EQ(pool_->free(), 90);
  EXPECT_EQ(cache_->ReclaimBlocks(3), 4);  // whole chunks
  EXPECT_EQ(pool_->free(), 94);
  EXPECT_EQ(Where(MakeTestChunk(0)), Tier::kMemory);
  EXPECT_EQ(Where(MakeTestChunk(1)), Tier::kMemory);
  EXPECT_EQ(Where(MakeTestChunk(2)), Tier::kPool);
  EXPECT_EQ(cache_->ReclaimBlocks(100), 6);
  EXPECT_EQ(cache_->occupancy().pool_blocks, 0u);
}

TEST_F(TieredCacheTest, EvictAndReloadIsBitEqual) {
  Make(10, 100);
  const TestChunk chunk = MakeTestChunk(1);
  ASSERT_STATUS_OK(Insert(chunk));
  for (const bool memory_too : {false, true, false, true}) {
    ExpectContent(Lookup(chunk), chunk);
    cache_->DropUpperTiers(memory_too);
  }
}

TEST_F(TieredCacheTest, ForgedHashesMissInEveryTier) {
  Make(10, 100);
  const TestChunk chunk = MakeTestChunk(1);
  std::vector<int32_t> other = chunk.ids;
  other[3] ^= 1;
  ASSERT_STATUS_OK(Insert(chunk));
  for (int tier = 0; tier < 3; ++tier) {  // memory, pool, disk
    EXPECT_EQ(cache_->Lookup(chunk.key, other).miss, MissReason::kTokenMismatch);
    EXPECT_EQ(cache_->Contains(chunk.key, other), std::nullopt);
    if (tier == 0) (void)Lookup(chunk);
    if (tier == 1) cache_->DropUpperTiers(true);
  }
  EXPECT_EQ(cache_->counters().rejected_tokens, 3u);
  ExpectContent(Lookup(chunk), chunk);
}

TEST_F(TieredCacheTest, AnotherFingerprintIsCountedApart) {
  Make(10, 100);
  const TestChunk chunk = MakeTestChunk(1);
  ASSERT_STATUS_OK(Insert(chunk));
  FingerprintFields fields = SomeFields();
  fields.model_digest = "another model";
  const ChunkKey foreign = MakeChunkKey("tenant/kb", Fingerprint(fields), chunk.ids);
  EXPECT_EQ(cache_->Lookup(foreign, chunk.ids).miss, MissReason::kForeign);
  EXPECT_EQ(cache_->counters().rejected_fingerprint, 1u);
}

TEST_F(TieredCacheTest, RemovedMeansGone) {
  Make(10, 100);
  const TestChunk chunk = MakeTestChunk(1);
  ASSERT_STATUS_OK(Insert(chunk));
  const auto in_use = Lookup(chunk).blocks;
  EXPECT_TRUE(*cache_->Remove(chunk.key));
  EXPECT_EQ(Where(chunk), std::nullopt);
  EXPECT_FALSE(Lookup(chunk).hit());
  EXPECT_EQ(in_use->tokens(), 20);  // whoever has it may finish
  EXPECT_FALSE(*cache_->Remove(chunk.key));
}

// A text encoded behind three contexts: one in the pool, one on disk alone, one in memory alone;
// and what must stay: the one to keep, the text in another namespace, another text.
TEST_F(TieredCacheTest, ATextIsRemovedUnderEveryFingerprint) {
  Make(10, 100);
  TestChunk pool = MakeTestChunk(1);
  TestChunk disk = pool, memory = pool, kept = pool, elsewhere = pool;
  disk.key.fingerprint.low ^= 1;
  memory.key.fingerprint.low ^= 2;
  kept.key.fingerprint.low ^= 4;
  elsewhere.key.name_space += "x";
  TestChunk other = MakeTestChunk(2);
  ASSERT_STATUS_OK(Insert(disk));
  cache_->DropUpperTiers(/*memory_too=*/true);
  for (const TestChunk* chunk : {&pool, &kept, &elsewhere, &other})
    ASSERT_STATUS_OK(Insert(*chunk));
  ASSERT_STATUS_OK(Insert(memory, /*persist=*/false));
  ASSERT_TRUE(Lookup(pool).hit());
  const auto keep = [&](const ChunkKey& key) { return key == kept.key; };
  const auto gone = cache_->RemoveText(pool.key.name_space, pool.key.tokens, keep);
  ASSERT_TRUE(gone.ok()) << gone.status().ToString();
  EXPECT_EQ(gone->size(), 3u);
  for (const TestChunk* chunk : {&pool, &disk, &memory}) EXPECT_EQ(Where(*chunk), std::nullopt);
  for (const TestChunk* chunk : {&kept, &elsewhere, &other})
    EXPECT_EQ(Where(*chunk), Tier::kMemory);
  EXPECT_TRUE(cache_->RemoveText(pool.key.name_space, pool.key.tokens, keep)->empty());
  Make(10, 100);  // nor after a restart
  for (const TestChunk* chunk : {&pool, &disk, &memory}) EXPECT_EQ(Where(*chunk), std::nullopt);
  EXPECT_EQ(Where(kept), Tier::kDisk);
  EXPECT_EQ(cache_->RemoveText(pool.key.name_space, pool.key.tokens)->size(), 1u);
  EXPECT_EQ(Where(kept), std::nullopt);
}

TEST_F(TieredCacheTest, ALoadUnderWayBringsNothingBack) {
  Make(10, 100);
  const TestChunk chunk = MakeTestChunk(1);
  ASSERT_STATUS_OK(Insert(chunk));
  cache_->DropUpperTiers(true);
  on_load_ = [&] { EXPECT_TRUE(*cache_->Remove(chunk.key)); };  // between disk and pool
  (void)Lookup(chunk);
  on_load_ = nullptr;
  EXPECT_EQ(Where(chunk), std::nullopt);
  EXPECT_FALSE(Lookup(chunk).hit());
}

TEST_F(TieredCacheTest, AFailedInsertIsVisibleNowhere) {
  Make(10, 100);
  TestChunk chunk = MakeTestChunk(1);
  EncodedChunk torn = chunk.encoded;
  torn.groups.clear();
  EXPECT_FALSE(cache_->Insert(chunk.key, chunk.ids, torn).ok());
  EXPECT_EQ(Where(chunk), std::nullopt);
  EXPECT_EQ(cache_->counters().insert_failures, 1u);
}

TEST_F(TieredCacheTest, UnpersistedChunksLiveInMemoryAlone) {
  Make(1, 100);
  const TestChunk a = MakeTestChunk(1), b = MakeTestChunk(2);
  ASSERT_STATUS_OK(Insert(a, /*persist=*/false));
  ExpectContent(Lookup(a), a);
  EXPECT_FALSE(store_->Contains(a.key, a.ids));
  ASSERT_STATUS_OK(Insert(b, /*persist=*/false));
  cache_->DropUpperTiers(false);
  EXPECT_EQ(Lookup(a).miss, MissReason::kAbsent);
  Make(0, 100);
  EXPECT_EQ(Insert(a, /*persist=*/false).code(), StatusCode::kResourceExhausted);
}

TEST_F(TieredCacheTest, WorksWithoutADisk) {
  Make(2, 100, /*disk=*/false);
  const TestChunk chunk = MakeTestChunk(1);
  EXPECT_EQ(Lookup(chunk).miss, MissReason::kAbsent);
  ASSERT_STATUS_OK(Insert(chunk));
  ExpectContent(Lookup(chunk), chunk);
  EXPECT_TRUE(*cache_->Remove(chunk.key));
}

TEST_F(TieredCacheTest, LookupsThatComeTogetherLoadOnce) {
  Make(10, 100);
  const TestChunk chunk = MakeTestChunk(1);
  ASSERT_STATUS_OK(Insert(chunk));
  cache_->DropUpperTiers(true);
  constexpr int kThreads = 8;
  std::atomic<int> arrived{0};
  on_load_ = [&] {  // give the others time to come
    while (arrived < kThreads) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  };
  std::vector<std::shared_ptr<const KvBlocks>> blocks(kThreads);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      ++arrived;
      blocks[i] = Lookup(chunk).blocks;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool_->loads(), 1);
  for (const auto& held : blocks) EXPECT_EQ(held, blocks[0]);
  const CacheCounters counters = cache_->counters();
  EXPECT_EQ(counters.disk_bytes_read, chunk.encoded.bytes());
  EXPECT_EQ(counters.hits_disk + counters.hits_pool, 8u);
}

TEST_F(TieredCacheTest, LookupManyAnswersInOrder) {
  Make(10, 100);
  std::vector<TestChunk> chunks;
  std::vector<ChunkRequest> requests;
  for (uint32_t seed = 0; seed < 9; ++seed) {
    chunks.push_back(MakeTestChunk(seed, 20 + static_cast<int32_t>(seed)));
    if (seed == 4) continue;
    ASSERT_STATUS_OK(Insert(chunks.back()));
  }
  for (const TestChunk& chunk : chunks) requests.push_back({chunk.key, chunk.ids});
  requests.push_back(requests[0]);  // the same one twice
  cache_->DropUpperTiers(true);
  const auto lookups = cache_->LookupMany(requests);
  ASSERT_EQ(lookups.size(), 10u);
  for (size_t i = 0; i < 9; ++i) {
    if (i == 4) {
      EXPECT_EQ(lookups[i].miss, MissReason::kAbsent);
    } else {
      ExpectContent(lookups[i], chunks[i]);
    }
  }
  EXPECT_EQ(lookups[9].blocks, lookups[0].blocks);
  EXPECT_TRUE(cache_->LookupMany({}).empty());
}

// Threads insert, look up, remove and reclaim at random: whatever is served is the right content,
// and in the end no block is lost.
TEST_F(TieredCacheTest, RandomThreads) {
  Make(3, 8);
  std::vector<TestChunk> chunks;
  for (uint32_t seed = 0; seed < 8; ++seed) chunks.push_back(MakeTestChunk(seed));
  std::vector<std::thread> threads;
  for (uint32_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937 random(thread);
      for (int i = 0; i < 150; ++i) {
        const TestChunk& chunk = chunks[random() % chunks.size()];
        const uint32_t action = random() % 16;
        if (action < 3) {
          EXPECT_TRUE(Insert(chunk, action != 0).ok());
        } else if (action == 3) {
          EXPECT_TRUE(cache_->Remove(chunk.key).ok());
        } else if (action == 4) {
          cache_->ReclaimBlocks(3);
        } else if (action == 5) {
          cache_->DropUpperTiers(true);
        } else {
          const ChunkLookup lookup = Lookup(chunk);
          if (lookup.hit()) ExpectContent(lookup, chunk);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  cache_->DropUpperTiers(true);
  EXPECT_EQ(pool_->free(), 8);
  EXPECT_EQ(cache_->occupancy().pool_chunks, 0u);
  EXPECT_EQ(cache_->occupancy().memory_bytes, 0u);
}

}  // namespace
}  // namespace kvasir

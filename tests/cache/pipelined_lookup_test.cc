// Look-ups that return before their loads are done, and the loads behind them.
#include <algorithm>
#include <chrono>
#include <future>
#include <thread>

#include "cache/layer_load.h"
#include "cache/tiered_cache.h"
#include "tests/cache/fixture.h"

namespace kvasir {
namespace {

constexpr int32_t kLayers = 3;  // of SmallLayout

// Keeps what was loaded, and the order of all layers of all fills; may hold every load up.
class FakeLoader {
 public:
  using Order = std::vector<std::pair<int32_t, int32_t>>;  // first block, layer

  class Fill final : public KvFill {
   public:
    Fill(FakeLoader& loader, int32_t first, int32_t tokens)
        : loader_(loader), readiness_(std::make_shared<KvReadiness>(kLayers)) {
      std::vector<int32_t> ids(static_cast<size_t>(BlocksFor(tokens)));
      std::iota(ids.begin(), ids.end(), first);
      blocks_ = std::make_shared<const KvBlocks>(std::move(ids), tokens, nullptr, readiness_);
    }
    ~Fill() override { readiness_->Fail(); }
    const std::shared_ptr<const KvBlocks>& blocks() const override { return blocks_; }
    Status Load(const KvLayerPlanes& planes) override {
      loader_.Note(blocks_->ids()[0], next_, planes);
      readiness_->Publish(++next_);
      return Status::Ok();
    }

   private:
    FakeLoader& loader_;
    std::shared_ptr<KvReadiness> readiness_;
    std::shared_ptr<const KvBlocks> blocks_;
    int32_t next_ = 0;
  };

  Result<std::unique_ptr<KvFill>> Open(int32_t tokens) {
    if (full_) return ResourceExhausted("the pool is full");
    const int32_t first = next_block_;
    next_block_ += BlocksFor(tokens);
    return std::unique_ptr<KvFill>(std::make_unique<Fill>(*this, first, tokens));
  }
  // Until Release nothing is loaded.
  void Hold() { held_ = true; }
  void Release() { gate_.set_value(); }
  void SetFull(bool full) { full_ = full; }
  Order order() const {
    const std::lock_guard lock(mutex_);
    return order_;
  }
  // Bytes of K of a layer of the chunk that begins at this block.
  std::string Content(const KvBlocks& blocks, int32_t layer) const {
    const std::lock_guard lock(mutex_);
    return content_.at({blocks.ids()[0], layer});
  }

 private:
  void Note(int32_t first, int32_t layer, const KvLayerPlanes& planes) {
    if (held_) opened_.wait();
    const std::lock_guard lock(mutex_);
    order_.emplace_back(first, layer);
    content_[{first, layer}] =
        std::string(static_cast<const char*>(planes.k), static_cast<size_t>(planes.tokens) * 16);
  }

  std::promise<void> gate_;
  std::shared_future<void> opened_ = gate_.get_future().share();
  std::atomic<bool> held_{false}, full_{false};
  int32_t next_block_ = 0;
  mutable std::mutex mutex_;
  Order order_;
  std::map<std::pair<int32_t, int32_t>, std::string> content_;
};

class PipelinedLookup : public testing::Test {
 protected:
  void OpenCache(bool always_overlap, int threads) {
    TieredCacheOptions options;
    options.opener = [this](int32_t tokens) { return loader_.Open(tokens); };
    options.always_overlap = always_overlap;
    options.loader_threads = threads;
    cache_ = std::make_unique<TieredCache>(
        store_,
        [](std::span<const KvLayerPlanes>) -> Result<std::shared_ptr<const KvBlocks>> {
          return ResourceExhausted("nothing is loaded at once here");
        },
        options);
  }
  void SetUp() override {
    database_ = OpenDatabase(folder_.Sub("db"));
    store_ = OpenStore(database_);
    OpenCache(/*always_overlap=*/true, /*threads=*/1);  // one order of all layers
    for (uint32_t seed = 0; seed < 3; ++seed) {
      chunks_.push_back(MakeTestChunk(seed));
      ASSERT_STATUS_OK(
          cache_->Insert(chunks_.back().key, chunks_.back().ids, chunks_.back().encoded));
    }
  }
  std::vector<ChunkLookup> LookupAll() {
    std::vector<ChunkRequest> requests;
    for (const TestChunk& chunk : chunks_) requests.push_back({chunk.key, chunk.ids});
    return cache_->LookupMany(requests);
  }
  std::optional<Tier> Where(const TestChunk& chunk) {
    return cache_->Contains(chunk.key, chunk.ids);
  }
  // A loader may hold the blocks for a moment after its last layer; blocks in use stay.
  void DropFromPool(bool memory_too) {
    const auto in_pool = [this] {
      return std::any_of(chunks_.begin(), chunks_.end(),
                         [this](const TestChunk& chunk) { return Where(chunk) == Tier::kPool; });
    };
    for (int tries = 0; tries < 2000; ++tries) {
      cache_->DropUpperTiers(memory_too);
      if (!in_pool()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    FAIL() << "chunks stay in the pool";
  }
  void ExpectContent(const ChunkLookup& lookup, const TestChunk& chunk) {
    ASSERT_TRUE(lookup.hit());
    const auto planes = DecodePlanes(chunk.encoded).value();
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      EXPECT_EQ(loader_.Content(*lookup.blocks, layer),
                std::string(static_cast<const char*>(planes[static_cast<size_t>(layer)].k),
                            chunk.ids.size() * 16));
    }
  }

  TempFolder folder_;
  std::shared_ptr<Database> database_;
  std::shared_ptr<ChunkStore> store_;
  FakeLoader loader_;
  std::vector<TestChunk> chunks_;
  std::unique_ptr<TieredCache> cache_;
};

TEST_F(PipelinedLookup, ReturnsBeforeItsLoadsAndLoadsLayerByLayer) {
  for (const bool from_disk : {false, true}) {
    DropFromPool(/*memory_too=*/from_disk);
    const auto lookups = LookupAll();
    cache_->FinishLoads();
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(lookups[i].tier, from_disk ? Tier::kDisk : Tier::kMemory);
      EXPECT_TRUE(lookups[i].blocks->complete());
      ExpectContent(lookups[i], chunks_[i]);
      EXPECT_EQ(Where(chunks_[i]), Tier::kPool);
    }
  }
  const FakeLoader::Order order = loader_.order();
  ASSERT_EQ(order.size(), 18u);
  for (size_t i = 0; i < 9; ++i) EXPECT_EQ(order[i].second, static_cast<int32_t>(i / 3)) << i;
  const CacheCounters counters = cache_->counters();
  EXPECT_EQ(counters.hits_memory, 3u);
  EXPECT_EQ(counters.hits_disk, 3u);
  EXPECT_EQ(counters.disk_bytes_read, 3 * chunks_[0].encoded.bytes());
  EXPECT_EQ(counters.pool_bytes_loaded, 6 * chunks_[0].encoded.bytes());
  EXPECT_EQ(cache_->occupancy().memory_chunks, 3u) << "what came from disk stays in memory";
}

TEST_F(PipelinedLookup, WhatIsBeingLoadedIsFoundInThePool) {
  loader_.Hold();
  const auto first = LookupAll();
  const auto second = LookupAll();
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_FALSE(first[i].blocks->Has(1));
    EXPECT_EQ(second[i].tier, Tier::kPool);
    EXPECT_EQ(second[i].blocks, first[i].blocks) << "loaded once";
  }
  EXPECT_EQ(cache_->ReclaimBlocks(100), 0) << "what is being loaded is in use";
  loader_.Release();
  cache_->FinishLoads();
  EXPECT_EQ(loader_.order().size(), 9u);
}

TEST_F(PipelinedLookup, WhatWasRemovedStaysRemoved) {
  cache_->DropUpperTiers(/*memory_too=*/true);
  loader_.Hold();
  const auto lookups = LookupAll();
  ASSERT_TRUE(*cache_->Remove(chunks_[1].key));
  loader_.Release();
  cache_->FinishLoads();
  EXPECT_EQ(Where(chunks_[0]), Tier::kPool);
  EXPECT_EQ(Where(chunks_[1]), std::nullopt);
  EXPECT_EQ(cache_->occupancy().memory_chunks, 2u);
}

TEST_F(PipelinedLookup, ADamagedGroupFailsItsLoadAlone) {
  cache_->DropUpperTiers(/*memory_too=*/true);
  loader_.Hold();
  const auto lookups = LookupAll();
  ASSERT_TRUE(lookups[1].hit());
  ASSERT_TRUE(*store_->Remove(chunks_[1].key));  // its payload is gone before it is read
  loader_.Release();
  cache_->FinishLoads();
  // The first chunk's first layer was under way; the second one's group had not been read.
  EXPECT_TRUE(lookups[1].blocks->readiness()->failed());
  EXPECT_TRUE(lookups[0].blocks->complete());
  EXPECT_TRUE(lookups[2].blocks->complete());
  EXPECT_EQ(Where(chunks_[1]), std::nullopt) << "nobody gets the failed blocks";
  EXPECT_EQ(cache_->counters().lost, 1u);
}

TEST_F(PipelinedLookup, MissesAreKnownAtOnce) {
  loader_.SetFull(true);
  for (const ChunkLookup& lookup : LookupAll()) EXPECT_EQ(lookup.miss, MissReason::kPoolFull);
  loader_.SetFull(false);
  const TestChunk absent = MakeTestChunk(77);
  const ChunkRequest request{absent.key, absent.ids};
  EXPECT_EQ(cache_->LookupMany({&request, 1})[0].miss, MissReason::kAbsent);
  cache_->DropUpperTiers(/*memory_too=*/true);
  const std::vector<int32_t> other = RandomTokens(20, 500);
  const ChunkRequest collision{chunks_[0].key, other};
  EXPECT_EQ(cache_->LookupMany({&collision, 1})[0].miss, MissReason::kTokenMismatch);
}

TEST_F(PipelinedLookup, OverlapsWhereLoadsWaitForTheDisk) {
  OpenCache(/*always_overlap=*/false, /*threads=*/2);
  const auto at_once = [](const ChunkLookup& lookup) {
    return lookup.miss == MissReason::kPoolFull;
  };
  for (const ChunkLookup& lookup : LookupAll()) EXPECT_TRUE(at_once(lookup)) << "rates unknown";
  cache_->DropUpperTiers(/*memory_too=*/true);
  for (int i = 0; i < 8; ++i) {
    cache_->load_policy().RecordDisk(100000000, 0.1);  // 1 GB/s
    cache_->load_policy().RecordPool(100000000, 0.1);
  }
  for (const ChunkLookup& lookup : LookupAll()) EXPECT_TRUE(at_once(lookup)) << "a fast disk";
  cache_->DropUpperTiers(/*memory_too=*/true);
  for (int i = 0; i < 8; ++i) cache_->load_policy().RecordDisk(100000000, 1);  // 100 MB/s
  loader_.Hold();
  const auto lookups = LookupAll();
  for (const ChunkLookup& lookup : lookups) {
    ASSERT_TRUE(lookup.hit());
    EXPECT_FALSE(lookup.blocks->complete());
  }
  loader_.Release();
  cache_->FinishLoads();
  for (size_t i = 0; i < chunks_.size(); ++i) ExpectContent(lookups[i], chunks_[i]);
}

TEST_F(PipelinedLookup, TheCacheEndsAfterItsLoads) {
  const auto lookups = LookupAll();
  cache_.reset();
  for (const ChunkLookup& lookup : lookups) EXPECT_TRUE(lookup.blocks->complete());
}

TEST(LayerLoad, GroupsAreReadWhenTheyAreNeeded) {
  const TestChunk chunk = MakeTestChunk(1, 256, {30, 3, 64, DType::kF32});
  ASSERT_EQ(chunk.encoded.groups.size(), 3u);
  std::vector<int32_t> read_at;  // layers loaded when each group was read
  int32_t loaded = 0;
  class Counting final : public KvFill {
   public:
    explicit Counting(int32_t* loaded) : loaded_(loaded) {}
    const std::shared_ptr<const KvBlocks>& blocks() const override { return blocks_; }
    Status Load(const KvLayerPlanes&) override {
      ++*loaded_;
      return Status::Ok();
    }

   private:
    int32_t* loaded_;
    std::shared_ptr<const KvBlocks> blocks_;
  };
  std::vector<LayerLoad> loads;
  loads.emplace_back(
      chunk.encoded.shape,
      [&](size_t group) -> Result<RecordBytes> {
        read_at.push_back(loaded);
        return chunk.encoded.groups.at(group);
      },
      std::make_unique<Counting>(&loaded));
  int finished = 0;
  LoadByLayers(loads, [&](size_t, const Status& status) {
    EXPECT_TRUE(status.ok());
    ++finished;
  });
  EXPECT_EQ(finished, 1);
  EXPECT_EQ(loaded, 30);
  EXPECT_EQ(read_at, (std::vector<int32_t>{0, 10, 20}));
  EXPECT_TRUE(SameBytes(loads[0].chunk(), chunk.encoded));
}

}  // namespace
}  // namespace kvasir

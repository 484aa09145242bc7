// What TieredCache is made of: its state, and a load while it is under way. Private to cache/.
// tiered_cache.cc has stores and removals, tiered_lookup.cc look-ups and loads.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "cache/layer_load.h"
#include "cache/load_policy.h"
#include "cache/tier_table.h"
#include "cache/tiered_cache.h"
#include "cache/worker_pool.h"

namespace kvasir {

inline double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// One load under way; those who ask for the same chunk meanwhile wait for it.
struct Flight {
  SharedTokens token_ids;
  std::condition_variable finished;  // with State::mutex
  bool done = false;
  // The chunk was removed or replaced meanwhile: what was read is not kept.
  bool overtaken = false;
  ChunkLookup result;
};

// A load that goes on after its look-up.
struct Loading {
  ChunkKey key;
  SharedTokens token_ids;
  std::shared_ptr<const KvBlocks> blocks;
  bool from_disk = false;
};
struct Loads {
  std::vector<Loading> loadings;
  std::vector<LayerLoad> layers;  // of the same indices
};

// What a load found, before it is entered into the tiers.
struct Fetched {
  ChunkLookup lookup;
  std::shared_ptr<const EncodedChunk> chunk;
  uint64_t disk_bytes = 0, pool_bytes = 0;
  double disk_seconds = 0, pool_seconds = 0;
};

struct TieredCache::State {
  State(std::shared_ptr<ChunkStore> chunk_store, PoolLoader pool_loader,
        const TieredCacheOptions& options)
      : store(std::move(chunk_store)),
        loader(std::move(pool_loader)),
        opener(options.opener),
        always_overlap(options.always_overlap),
        table(options.memory_bytes),
        workers(options.loader_threads) {}

  // Whether look-ups return before their loads.
  bool Overlaps() const {
    return opener && workers.threads() > 0 && (always_overlap || policy.DiskBound());
  }
  // With `loads`: what is found is not loaded yet, but left there to be loaded.
  ChunkLookup Lookup(const ChunkKey& key, std::span<const int32_t> token_ids,
                     Loads* loads = nullptr);
  // Whether it is stored, not in the pool, not being loaded, and sooner computed than loaded.
  bool SoonerComputed(const ChunkRequest& request);
  ChunkLookup LookupOrCompute(const ChunkRequest& request, Loads* loads = nullptr);
  Fetched Begin(const ChunkKey& key, const SharedTokens& token_ids,
                std::shared_ptr<const EncodedChunk> in_memory, Loads* loads);
  void StartLoads(std::shared_ptr<Loads> loads);
  void EndLoad(const Loading& loading, const LayerLoad& layers, const Status& status);
  Fetched Fetch(const ChunkKey& key, std::span<const int32_t> token_ids,
                std::shared_ptr<const EncodedChunk> in_memory);
  void ReadDisk(const ChunkKey& key, std::span<const int32_t> token_ids, Fetched& fetched);
  void LoadPool(Fetched& fetched);
  ChunkLookup Land(const ChunkKey& key, const std::shared_ptr<Flight>& flight, Fetched fetched);
  Status Insert(const ChunkKey& key, std::span<const int32_t> token_ids, EncodedChunk chunk,
                const InsertOptions& options);
  Status Persist(const ChunkKey& key, std::span<const int32_t> token_ids,
                 const EncodedChunk& chunk);
  Result<bool> Remove(const ChunkKey& key);
  void Overtake(const ChunkKey& key);
  void CountLocked(const ChunkLookup& lookup);
  std::mutex& WriterOf(const ChunkKey& key) {
    return writers[ChunkKeyHash()(key) % writers.size()];
  }

  const std::shared_ptr<ChunkStore> store;  // may be null
  const PoolLoader loader;
  const decltype(TieredCacheOptions::opener) opener;  // may be empty
  const bool always_overlap;
  LoadPolicy policy;
  // Held while a chunk is stored or removed, disk write included, so that the two cannot
  // interleave for one key. Never taken by look-ups. Taken before `mutex`.
  std::array<std::mutex, 16> writers;

  mutable std::mutex mutex;  // guards what follows
  TierTable table;
  std::unordered_map<ChunkKey, std::shared_ptr<Flight>, ChunkKeyHash> flights;
  CacheCounters counters;
  int loads_under_way = 0;
  std::condition_variable loads_changed;

  WorkerPool workers;  // last: its threads use all of the above
};

}  // namespace kvasir

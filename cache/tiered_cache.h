// TieredCache: chunk KV by key, from the pool, from memory or from RocksDB, the fastest that has
// it. A hit in a lower tier fills those above; pool content always comes from decoding a record,
// so that evicting and loading again gives the same bits.
//
// Pool tier: shared KvBlocks, given up when the engine asks (ReclaimBlocks). Memory tier: encoded
// records up to a budget in bytes, least recently used out first. Disk: ChunkStore, or none.
// Thread-safe. One mutex guards the maps and is never held across disk reads or pool loads;
// lookups of one chunk that come together load it once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "cache/chunk_key.h"
#include "cache/chunk_store.h"
#include "cache/kv_codec.h"
#include "cache/load_policy.h"
#include "kernels/core/kv_layout.h"
#include "kernels/core/status.h"

namespace kvasir {

enum class Tier : uint8_t { kPool, kMemory, kDisk };
std::string_view TierName(Tier tier);  // "pool", "memory", "disk"

enum class MissReason : uint8_t {
  kNone,           // a hit
  kAbsent,         // never stored, or evicted from a cache without disk
  kForeign,        // stored under another fingerprint
  kTokenMismatch,  // hash collision
  kCorrupt,        // failed its checksum, quarantined
  kUnreadable,     // the disk failed
  kPoolFull,       // found, but the pool has no room: compute it inside the prompt
  kSlower,         // found, but computing it inside the prompt is expected to be sooner done
};
std::string_view MissReasonName(MissReason reason);

struct ChunkLookup {
  std::shared_ptr<const KvBlocks> blocks;  // null = miss
  Tier tier = Tier::kPool;                 // where it was found
  MissReason miss = MissReason::kNone;
  double load_ms = 0;  // disk and pool load; 0 for a pool hit
  Status detail;       // for kCorrupt, kUnreadable, kPoolFull
  bool hit() const { return blocks != nullptr; }
};

struct ChunkRequest {
  ChunkKey key;
  std::span<const int32_t> token_ids;  // must outlive the call
  // The load policy may answer kSlower for what is not in the pool.
  bool may_compute = false;
};

struct InsertOptions {
  // Write to disk, durably, before the chunk becomes visible anywhere. False: memory tier only
  // (chunk_cache.store = false, or a disk that is full).
  bool persist = true;
};

struct TieredCacheOptions {
  // Budget of the memory tier, bytes of records. 0 = no memory tier.
  size_t memory_bytes = size_t{256} << 20;
  // Threads that LookupMany uses beside the caller's, for disk reads and pool loads.
  int loader_threads = 2;
  // Opens blocks to be filled layer by layer: Engine::BeginLoad. With it LookupMany returns before
  // its loads are done where they mostly wait for the disk (LoadPolicy::DiskBound), and the blocks'
  // readers wait for the layers that they need. Null: it always waits.
  std::function<Result<std::unique_ptr<KvFill>>(int32_t tokens)> opener;
  bool always_overlap = false;  // whatever the disk's rate (tests)
};

struct CacheCounters {
  uint64_t hits_pool = 0, hits_memory = 0, hits_disk = 0;
  uint64_t misses = 0;  // all of them, by reason:
  uint64_t absent = 0, rejected_fingerprint = 0, rejected_tokens = 0, rejected_checksum = 0,
           unreadable = 0, pool_full = 0, slower = 0;
  uint64_t joined = 0;  // lookups that waited for another's load
  uint64_t lost = 0;    // hits whose load failed after they were handed out
  uint64_t inserted = 0, insert_failures = 0, removed = 0;
  uint64_t evicted_pool = 0, evicted_pool_blocks = 0, evicted_memory = 0;
  uint64_t disk_bytes_read = 0, disk_bytes_written = 0, pool_bytes_loaded = 0;  // record bytes
  double disk_read_seconds = 0, disk_write_seconds = 0, pool_load_seconds = 0;
};

struct CacheOccupancy {
  uint64_t pool_chunks = 0, pool_blocks = 0;
  uint64_t memory_chunks = 0, memory_bytes = 0, memory_budget = 0;
};

class TieredCache {
 public:
  // Copies a chunk's layers to fresh pool blocks: Engine::LoadBlocks.
  using PoolLoader =
      std::function<Result<std::shared_ptr<const KvBlocks>>(std::span<const KvLayerPlanes>)>;

  // store null = no disk tier. The loader must stay callable as long as the cache lives.
  TieredCache(std::shared_ptr<ChunkStore> store, PoolLoader loader,
              const TieredCacheOptions& options = {});
  ~TieredCache();

  ChunkLookup Lookup(const ChunkKey& key, std::span<const int32_t> token_ids);
  // The same for many at once, loads side by side; results in the order of the requests. With an
  // opener the blocks of hits may still be loading (KvBlocks::readiness).
  std::vector<ChunkLookup> LookupMany(std::span<const ChunkRequest> requests);

  // Makes a freshly encoded chunk visible, replacing any older one. On failure nothing changes:
  // an Insert that failed to persist is visible in no tier.
  Status Insert(const ChunkKey& key, std::span<const int32_t> token_ids, EncodedChunk chunk,
                const InsertOptions& options = {});
  // Where a lookup would find this text now; nullopt = nowhere. Loads and counts nothing.
  std::optional<Tier> Contains(const ChunkKey& key, std::span<const int32_t> token_ids) const;
  // Gone from every tier, durably, when this returns; a load under way brings nothing back.
  // Requests that hold its blocks keep them. False = there was none.
  Result<bool> Remove(const ChunkKey& key);
  // The same for a text under every fingerprint, whatever stood before it when it was encoded, but
  // those that `keep` (may be null) says true to. Returns the keys that went.
  Result<std::vector<ChunkKey>> RemoveText(
      std::string_view name_space, const Digest128& tokens,
      const std::function<bool(const ChunkKey&)>& keep = nullptr);

  // For Engine::SetReclaimer: drops least recently used pool entries that only the cache holds
  // until at least `blocks` blocks are given up or none is left; returns how many blocks.
  int32_t ReclaimBlocks(int32_t blocks);
  // Waits for loads that LookupMany left behind: before the engine ends.
  void FinishLoads();
  // Empties pool and memory tiers of what nobody uses (tests, benchmarks: "cold" lookups).
  void DropUpperTiers(bool memory_too);

  // Learns from every load; whoever asks with may_compute tells it of the engine's prefills.
  LoadPolicy& load_policy();

  CacheCounters counters() const;
  CacheOccupancy occupancy() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kvasir

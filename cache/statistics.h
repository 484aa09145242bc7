// Statistics: what the cache was worth. Totals of tokens by source and hits a chunk, kept across
// restarts in the `stats` column family.
//
// Counts are buffered in memory and written now and then and on close, without sync: a crash
// loses the last few seconds of counts, never anything else. Unreadable statistics start anew.
// Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cache/chunk_key.h"
#include "cache/database.h"
#include "cache/tiered_cache.h"
#include "kernels/core/prompt_plan.h"
#include "kernels/core/status.h"

namespace kvasir {

struct StatisticsTotals {
  uint64_t requests = 0;
  // requested = prefix + fused + recomputed + computed, to the token.
  uint64_t requested = 0, prefix = 0, fused = 0, recomputed = 0, computed = 0;
  uint64_t chunk_hits_pool = 0, chunk_hits_memory = 0, chunk_hits_disk = 0, chunk_misses = 0;
  double load_ms = 0;  // disk and pool loads, summed over requests
};

struct ChunkUsage {
  ChunkKey key;
  uint64_t hits = 0;
  uint64_t tokens = 0;  // served from this chunk's KV
  int64_t last_hit_unix_s = 0;
};

struct StatisticsSnapshot {
  StatisticsTotals totals;             // since the store was made
  StatisticsTotals session;            // since this process opened it
  uint64_t chunks_hit = 0;             // chunks hit at least once
  std::vector<ChunkUsage> top_chunks;  // most hits first
};

struct StatisticsOptions {
  // Written when this many chunks have unwritten counts, or after this many seconds.
  size_t flush_entries = 1024;
  double flush_seconds = 30;
};

class Statistics {
 public:
  // database null = in memory only.
  static std::unique_ptr<Statistics> Open(std::shared_ptr<Database> database,
                                          const StatisticsOptions& options = {});
  ~Statistics();  // flushes

  void RecordRequest(const PromptAccount& account);
  // One chunk of a request: its look-up and how many of its tokens are served from KV.
  void RecordChunk(const ChunkKey& key, const ChunkLookup& lookup, int64_t tokens_reused);
  // The chunk was removed: its counts go with it (totals stay).
  void Forget(const ChunkKey& key);

  StatisticsSnapshot Snapshot(size_t top_chunks = 20) const;
  Status Flush();

 private:
  struct State;
  explicit Statistics(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kvasir

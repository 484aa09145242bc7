#include "cache/tiered_cache.h"

#include <array>
#include <chrono>
#include <limits>
#include <mutex>
#include <string>

#include "cache/tiered_state.h"

namespace kvasir {

std::string_view TierName(Tier tier) {
  constexpr std::array<std::string_view, 3> kNames = {"pool", "memory", "disk"};
  return kNames[static_cast<size_t>(tier)];
}

std::string_view MissReasonName(MissReason reason) {
  constexpr std::array<std::string_view, 8> kNames = {
      "none",    "absent",     "foreign",   "token_mismatch",
      "corrupt", "unreadable", "pool_full", "slower_than_computing"};
  return kNames[static_cast<size_t>(reason)];
}

Status TieredCache::State::Persist(const ChunkKey& key, std::span<const int32_t> token_ids,
                                   const EncodedChunk& chunk) {
  const auto start = std::chrono::steady_clock::now();
  const Status stored = store->Store(key, token_ids, chunk);
  const std::lock_guard<std::mutex> lock(mutex);
  counters.disk_write_seconds += SecondsSince(start);
  if (stored.ok()) counters.disk_bytes_written += chunk.bytes();
  return stored;
}

Status TieredCache::State::Insert(const ChunkKey& key, std::span<const int32_t> token_ids,
                                  EncodedChunk chunk, const InsertOptions& options) {
  if (token_ids.size() != static_cast<size_t>(chunk.shape.tokens)) {
    return InvalidArgument("chunk of " + std::to_string(chunk.shape.tokens) + " tokens with " +
                           std::to_string(token_ids.size()) + " token ids");
  }
  const std::lock_guard<std::mutex> writer(WriterOf(key));
  const bool on_disk = options.persist && store != nullptr;
  if (on_disk) {
    KVASIR_RETURN_IF_ERROR(Persist(key, token_ids, chunk));
  } else if (!table.FitsMemory(chunk)) {
    return ResourceExhausted("a chunk of " + std::to_string(chunk.bytes()) +
                             " bytes does not fit the memory tier, and is not kept on disk");
  }
  TierTable::Dropped dropped;
  const std::lock_guard<std::mutex> lock(mutex);
  Overtake(key);
  table.Erase(key, dropped);
  if (table.FitsMemory(chunk)) {
    const size_t before = table.memory_chunks();
    table.SetMemory(
        key, std::make_shared<const std::vector<int32_t>>(token_ids.begin(), token_ids.end()),
        std::make_shared<const EncodedChunk>(std::move(chunk)), dropped);
    counters.evicted_memory += before + 1 - table.memory_chunks();
  }
  ++counters.inserted;
  return Status::Ok();
}

Result<bool> TieredCache::State::Remove(const ChunkKey& key) {
  const std::lock_guard<std::mutex> writer(WriterOf(key));
  bool found = false;
  if (store) {
    KVASIR_ASSIGN_OR_RETURN(found, store->Remove(key));
  }
  TierTable::Dropped dropped;
  const std::lock_guard<std::mutex> lock(mutex);
  Overtake(key);
  found |= table.Erase(key, dropped);
  counters.removed += found ? 1 : 0;
  return found;
}

Result<std::vector<ChunkKey>> TieredCache::RemoveText(
    std::string_view name_space, const Digest128& tokens,
    const std::function<bool(const ChunkKey&)>& keep) {
  std::vector<ChunkKey> keys;
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    keys = state_->table.KeysOf(name_space, tokens);
  }
  if (state_->store) {
    KVASIR_ASSIGN_OR_RETURN(const auto stored, state_->store->KeysOf(name_space, tokens));
    keys.insert(keys.end(), stored.begin(), stored.end());
  }
  std::vector<ChunkKey> gone;
  for (const ChunkKey& key : keys) {
    if (keep && keep(key)) continue;
    KVASIR_ASSIGN_OR_RETURN(const bool found, state_->Remove(key));
    if (found) gone.push_back(key);
  }
  return gone;
}

TieredCache::TieredCache(std::shared_ptr<ChunkStore> store, PoolLoader loader,
                         const TieredCacheOptions& options)
    : state_(std::make_unique<State>(std::move(store), std::move(loader), options)) {}
TieredCache::~TieredCache() = default;

ChunkLookup TieredCache::Lookup(const ChunkKey& key, std::span<const int32_t> token_ids) {
  return state_->Lookup(key, token_ids);
}

std::vector<ChunkLookup> TieredCache::LookupMany(std::span<const ChunkRequest> requests) {
  std::vector<ChunkLookup> lookups(requests.size());
  if (state_->Overlaps()) {
    // One job a loader thread: each goes through the layers of its part of the chunks.
    std::vector<std::shared_ptr<Loads>> parts(static_cast<size_t>(state_->workers.threads()));
    for (std::shared_ptr<Loads>& part : parts) part = std::make_shared<Loads>();
    for (size_t i = 0; i < requests.size(); ++i) {
      lookups[i] = state_->LookupOrCompute(requests[i], parts[i % parts.size()].get());
    }
    for (std::shared_ptr<Loads>& part : parts) state_->StartLoads(std::move(part));
    return lookups;
  }
  state_->workers.ForEach(requests.size(),
                          [&](size_t i) { lookups[i] = state_->LookupOrCompute(requests[i]); });
  return lookups;
}

Status TieredCache::Insert(const ChunkKey& key, std::span<const int32_t> token_ids,
                           EncodedChunk chunk, const InsertOptions& options) {
  const Status status = state_->Insert(key, token_ids, std::move(chunk), options);
  if (!status.ok()) {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    ++state_->counters.insert_failures;
  }
  return status;
}

LoadPolicy& TieredCache::load_policy() { return state_->policy; }

std::optional<Tier> TieredCache::Contains(const ChunkKey& key,
                                          std::span<const int32_t> token_ids) const {
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    if (const TierTable::Entry* entry = state_->table.Find(key)) {
      if (!SameTokens(entry->token_ids, token_ids)) return std::nullopt;
      return entry->pool ? Tier::kPool : Tier::kMemory;
    }
  }
  if (state_->store && state_->store->Contains(key, token_ids)) return Tier::kDisk;
  return std::nullopt;
}

Result<bool> TieredCache::Remove(const ChunkKey& key) { return state_->Remove(key); }

int32_t TieredCache::ReclaimBlocks(int32_t blocks) {
  TierTable::Dropped dropped;  // released after the lock: that takes the engine's own lock
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const int32_t freed = state_->table.EvictPool(blocks, dropped);
  state_->counters.evicted_pool += dropped.blocks.size();
  state_->counters.evicted_pool_blocks += static_cast<uint64_t>(freed);
  return freed;
}

void TieredCache::FinishLoads() {
  std::unique_lock<std::mutex> lock(state_->mutex);
  state_->loads_changed.wait(lock, [this] { return state_->loads_under_way == 0; });
}

void TieredCache::DropUpperTiers(bool memory_too) {
  TierTable::Dropped dropped;
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->table.EvictPool(std::numeric_limits<int32_t>::max(), dropped);
  if (memory_too) state_->table.EvictMemory(0, dropped);
}

CacheCounters TieredCache::counters() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->counters;
}

CacheOccupancy TieredCache::occupancy() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const TierTable& table = state_->table;
  return {table.pool_chunks(), table.pool_blocks(), table.memory_chunks(), table.memory_bytes(),
          table.memory_budget()};
}

}  // namespace kvasir
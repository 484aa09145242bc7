#include <string>

#include "cache/chunk_record.h"
#include "cache/tiered_state.h"

namespace kvasir {
namespace {

using Clock = std::chrono::steady_clock;

MissReason ReasonOf(LoadOutcome outcome) {
  switch (outcome) {
    case LoadOutcome::kLoaded:
      return MissReason::kNone;
    case LoadOutcome::kMissing:
      return MissReason::kAbsent;
    case LoadOutcome::kForeign:
      return MissReason::kForeign;
    case LoadOutcome::kTokenMismatch:
      return MissReason::kTokenMismatch;
    case LoadOutcome::kCorrupt:
      return MissReason::kCorrupt;
    case LoadOutcome::kFailed:
      return MissReason::kUnreadable;
  }
  return MissReason::kUnreadable;
}

ChunkLookup Miss(MissReason reason, Tier tier = Tier::kDisk, Status detail = {}) {
  ChunkLookup lookup;
  lookup.tier = tier;
  lookup.miss = reason;
  lookup.detail = std::move(detail);
  return lookup;
}

}  // namespace

void TieredCache::State::CountLocked(const ChunkLookup& lookup) {
  if (lookup.hit()) {
    ++(lookup.tier == Tier::kPool     ? counters.hits_pool
       : lookup.tier == Tier::kMemory ? counters.hits_memory
                                      : counters.hits_disk);
    return;
  }
  ++counters.misses;
  uint64_t* const by_reason[] = {nullptr,
                                 &counters.absent,
                                 &counters.rejected_fingerprint,
                                 &counters.rejected_tokens,
                                 &counters.rejected_checksum,
                                 &counters.unreadable,
                                 &counters.pool_full,
                                 &counters.slower};
  ++*by_reason[static_cast<size_t>(lookup.miss)];
}

ChunkLookup TieredCache::State::Lookup(const ChunkKey& key, std::span<const int32_t> token_ids,
                                       Loads* loads) {
  const auto start = Clock::now();
  std::unique_lock<std::mutex> lock(mutex);
  for (;;) {
    const TierTable::Entry* entry = table.Find(key);
    if (entry != nullptr && !SameTokens(entry->token_ids, token_ids)) {
      const ChunkLookup miss = Miss(MissReason::kTokenMismatch, Tier::kMemory);
      CountLocked(miss);
      return miss;
    }
    if (entry != nullptr && entry->pool) {
      ChunkLookup hit;
      hit.blocks = entry->pool;
      table.Touch(key);
      CountLocked(hit);
      return hit;
    }
    const auto under_way = flights.find(key);
    if (under_way == flights.end()) break;
    const std::shared_ptr<Flight> flight = under_way->second;
    flight->finished.wait(lock, [&] { return flight->done; });
    if (!SameTokens(flight->token_ids, token_ids)) continue;
    ChunkLookup joined = flight->result;
    joined.load_ms = SecondsSince(start) * 1e3;
    ++counters.joined;
    CountLocked(joined);
    return joined;
  }
  auto flight = std::make_shared<Flight>();
  flight->token_ids =
      std::make_shared<const std::vector<int32_t>>(token_ids.begin(), token_ids.end());
  flights[key] = flight;
  const TierTable::Entry* entry = table.Find(key);
  std::shared_ptr<const EncodedChunk> in_memory = entry != nullptr ? entry->memory : nullptr;
  lock.unlock();
  return Land(key, flight,
              loads ? Begin(key, flight->token_ids, std::move(in_memory), loads)
                    : Fetch(key, token_ids, std::move(in_memory)));
}

// Finds the chunk's record and opens blocks for it.
Fetched TieredCache::State::Begin(const ChunkKey& key, const SharedTokens& token_ids,
                                  std::shared_ptr<const EncodedChunk> in_memory, Loads* loads) {
  Fetched fetched;
  ChunkShape shape;
  LayerLoad::GroupReader read;
  const bool from_disk = !in_memory;
  if (in_memory) {
    fetched.lookup.tier = Tier::kMemory;
    shape = in_memory->shape;
    read = [in_memory](size_t group) -> Result<RecordBytes> { return in_memory->groups.at(group); };
  } else {
    const auto opened = store ? store->OpenChunk(key, *token_ids) : ChunkStore::Opened{};
    fetched.lookup = Miss(ReasonOf(opened.outcome), Tier::kDisk, opened.detail);
    if (!opened.record) return fetched;
    shape = opened.record->shape;
    read = [this, key, record = opened.record](size_t group) {
      return store->LoadGroup(key, *record, group);
    };
  }
  auto fill = opener(shape.tokens);
  if (!fill.ok()) {
    fetched.lookup = Miss(MissReason::kPoolFull, fetched.lookup.tier, fill.status());
    return fetched;
  }
  fetched.lookup.blocks = (*fill)->blocks();
  fetched.lookup.miss = MissReason::kNone;
  loads->loadings.push_back({key, token_ids, fetched.lookup.blocks, from_disk});
  loads->layers.emplace_back(shape, std::move(read), *std::move(fill));
  return fetched;
}

void TieredCache::State::StartLoads(std::shared_ptr<Loads> loads) {
  if (loads->layers.empty()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    ++loads_under_way;
  }
  workers.Post([this, loads] {
    LoadByLayers(loads->layers, [&](size_t i, const Status& status) {
      EndLoad(loads->loadings[i], loads->layers[i], status);
    });
    const std::lock_guard<std::mutex> lock(mutex);
    --loads_under_way;
    loads_changed.notify_all();
  });
}

// What was removed or replaced meanwhile stays out of the tiers.
void TieredCache::State::EndLoad(const Loading& loading, const LayerLoad& layers,
                                 const Status& status) {
  const uint64_t bytes = layers.chunk().bytes();
  if (loading.from_disk) policy.RecordDisk(bytes, layers.read_seconds());
  if (status.ok()) policy.RecordPool(bytes, layers.fill_seconds());
  TierTable::Dropped dropped;
  const std::lock_guard<std::mutex> lock(mutex);
  if (loading.from_disk) {
    counters.disk_bytes_read += bytes;
    counters.disk_read_seconds += layers.read_seconds();
  }
  counters.pool_bytes_loaded += status.ok() ? bytes : 0;
  counters.pool_load_seconds += layers.fill_seconds();
  counters.lost += status.ok() ? 0 : 1;
  const TierTable::Entry* entry = table.Find(loading.key);
  if (entry == nullptr || entry->pool != loading.blocks) return;
  if (!status.ok()) {
    table.ErasePool(loading.key, dropped);
  } else if (loading.from_disk && table.FitsMemory(layers.chunk())) {
    const size_t before = table.memory_chunks();
    table.SetMemory(loading.key, loading.token_ids,
                    std::make_shared<const EncodedChunk>(layers.chunk()), dropped);
    counters.evicted_memory += before + 1 - table.memory_chunks();
  }
}

bool TieredCache::State::SoonerComputed(const ChunkRequest& request) {
  const auto tokens = static_cast<int64_t>(request.token_ids.size());
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const TierTable::Entry* entry = table.Find(request.key);
    if (flights.contains(request.key) || (entry != nullptr && entry->pool)) return false;
    if (entry != nullptr && entry->memory) {
      return policy.ShouldCompute(/*on_disk=*/false, entry->memory->bytes(), tokens);
    }
  }
  if (!store || policy.rates().disk_bytes_per_second == 0) return false;
  const auto info = store->Info(request.key);
  return info.ok() && info->has_value() &&
         policy.ShouldCompute(/*on_disk=*/true, (*info)->bytes, tokens);
}

ChunkLookup TieredCache::State::LookupOrCompute(const ChunkRequest& request, Loads* loads) {
  if (!request.may_compute || !SoonerComputed(request)) {
    return Lookup(request.key, request.token_ids, loads);
  }
  const ChunkLookup miss = Miss(MissReason::kSlower);
  const std::lock_guard<std::mutex> lock(mutex);
  CountLocked(miss);
  return miss;
}

Fetched TieredCache::State::Fetch(const ChunkKey& key, std::span<const int32_t> token_ids,
                                  std::shared_ptr<const EncodedChunk> in_memory) {
  const auto start = Clock::now();
  Fetched fetched;
  fetched.lookup.tier = Tier::kMemory;
  fetched.chunk = std::move(in_memory);
  if (!fetched.chunk) ReadDisk(key, token_ids, fetched);
  if (fetched.chunk) LoadPool(fetched);
  fetched.lookup.load_ms = SecondsSince(start) * 1e3;
  return fetched;
}

void TieredCache::State::ReadDisk(const ChunkKey& key, std::span<const int32_t> token_ids,
                                  Fetched& fetched) {
  if (!store) {
    fetched.lookup = Miss(MissReason::kAbsent);
    return;
  }
  const auto start = Clock::now();
  LoadedChunk loaded = store->Load(key, token_ids);
  fetched.disk_seconds = SecondsSince(start);
  fetched.disk_bytes = loaded.chunk.bytes();
  policy.RecordDisk(fetched.disk_bytes, fetched.disk_seconds);
  fetched.lookup = Miss(ReasonOf(loaded.outcome), Tier::kDisk, std::move(loaded.detail));
  if (loaded.outcome == LoadOutcome::kLoaded) {
    fetched.chunk = std::make_shared<const EncodedChunk>(std::move(loaded.chunk));
  }
}

void TieredCache::State::LoadPool(Fetched& fetched) {
  const auto start = Clock::now();
  const auto planes = DecodePlanes(*fetched.chunk);
  if (!planes.ok()) {
    fetched.lookup = Miss(MissReason::kCorrupt, fetched.lookup.tier, planes.status());
    return;
  }
  auto blocks = loader(*planes);
  fetched.pool_seconds = SecondsSince(start);
  if (!blocks.ok()) {
    fetched.lookup = Miss(MissReason::kPoolFull, fetched.lookup.tier, blocks.status());
    return;
  }
  fetched.pool_bytes = fetched.chunk->bytes();
  policy.RecordPool(fetched.pool_bytes, fetched.pool_seconds);
  fetched.lookup.blocks = *std::move(blocks);
  fetched.lookup.miss = MissReason::kNone;
}

// Enters what was fetched into the tiers, unless it was overtaken, and wakes who waits for it.
ChunkLookup TieredCache::State::Land(const ChunkKey& key, const std::shared_ptr<Flight>& flight,
                                     Fetched fetched) {
  TierTable::Dropped dropped;  // destroyed after the lock
  const std::lock_guard<std::mutex> lock(mutex);
  counters.disk_bytes_read += fetched.disk_bytes;
  counters.disk_read_seconds += fetched.disk_seconds;
  counters.pool_bytes_loaded += fetched.pool_bytes;
  counters.pool_load_seconds += fetched.pool_seconds;
  if (!flight->overtaken) {
    flights.erase(key);
    const size_t before = table.memory_chunks();
    if (fetched.chunk && fetched.lookup.tier == Tier::kDisk && table.FitsMemory(*fetched.chunk)) {
      table.SetMemory(key, flight->token_ids, std::move(fetched.chunk), dropped);
      counters.evicted_memory += before + 1 - table.memory_chunks();
    }
    if (fetched.lookup.hit()) {
      table.SetPool(key, flight->token_ids, fetched.lookup.blocks, dropped);
      table.Touch(key);
    }
  }
  flight->result = fetched.lookup;
  flight->done = true;
  flight->finished.notify_all();
  CountLocked(fetched.lookup);
  return fetched.lookup;
}

// With `mutex` held: a load of this key that is under way must not enter the tiers, and look-ups
// from now on must not wait for it.
void TieredCache::State::Overtake(const ChunkKey& key) {
  const auto under_way = flights.find(key);
  if (under_way == flights.end()) return;
  under_way->second->overtaken = true;
  flights.erase(under_way);
}

}  // namespace kvasir

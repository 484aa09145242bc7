#include "cache/tiered_cache.h"

#include <array>
#include <chrono>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <string>
#include <unordered_map>

#include "cache/tier_table.h"
#include "cache/worker_pool.h"

namespace kvasir {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

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

// One load under way; those who ask for the same chunk meanwhile wait for it.
struct Flight {
  SharedTokens token_ids;
  std::condition_variable finished;  // with State::mutex
  bool done = false;
  // The chunk was removed or replaced meanwhile: what was read is not kept.
  bool overtaken = false;
  ChunkLookup result;
};

// What a load found, before it is entered into the tiers.
struct Fetched {
  ChunkLookup lookup;
  std::shared_ptr<const EncodedChunk> chunk;
  uint64_t disk_bytes = 0, pool_bytes = 0;
  double disk_seconds = 0, pool_seconds = 0;
};

}  // namespace

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

struct TieredCache::State {
  State(std::shared_ptr<ChunkStore> chunk_store, PoolLoader pool_loader,
        const TieredCacheOptions& options)
      : store(std::move(chunk_store)),
        loader(std::move(pool_loader)),
        table(options.memory_bytes),
        workers(options.loader_threads) {}

  ChunkLookup Lookup(const ChunkKey& key, std::span<const int32_t> token_ids);
  // Whether it is stored, not in the pool, not being loaded, and sooner computed than loaded.
  bool SoonerComputed(const ChunkRequest& request);
  ChunkLookup LookupOrCompute(const ChunkRequest& request);
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
  LoadPolicy policy;
  // Held while a chunk is stored or removed, disk write included, so that the two cannot
  // interleave for one key. Never taken by look-ups. Taken before `mutex`.
  std::array<std::mutex, 16> writers;

  mutable std::mutex mutex;  // guards what follows
  TierTable table;
  std::unordered_map<ChunkKey, std::shared_ptr<Flight>, ChunkKeyHash> flights;
  CacheCounters counters;

  WorkerPool workers;  // last: its threads use all of the above
};

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

ChunkLookup TieredCache::State::Lookup(const ChunkKey& key, std::span<const int32_t> token_ids) {
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
  return Land(key, flight, Fetch(key, token_ids, std::move(in_memory)));
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

ChunkLookup TieredCache::State::LookupOrCompute(const ChunkRequest& request) {
  if (!request.may_compute || !SoonerComputed(request)) {
    return Lookup(request.key, request.token_ids);
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

Status TieredCache::State::Persist(const ChunkKey& key, std::span<const int32_t> token_ids,
                                   const EncodedChunk& chunk) {
  const auto start = Clock::now();
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

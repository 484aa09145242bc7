#include "cache/statistics.h"

#include <rocksdb/write_batch.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <mutex>
#include <unordered_map>

#include "cache/byte_io.h"
#include "cache/rocks.h"

namespace kvasir {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kTotalsKey[] = "T";
constexpr char kUsageDomain = 'U';  // + ChunkKey::Bytes()

struct Usage {
  uint64_t hits = 0, tokens = 0;
  int64_t last_hit_unix_s = 0;

  void Add(const Usage& other) {
    hits += other.hits;
    tokens += other.tokens;
    last_hit_unix_s = std::max(last_hit_unix_s, other.last_hit_unix_s);
  }
  std::string Encode() const {
    ByteWriter out;
    return out.Put(hits).Put(tokens).Put(last_hit_unix_s).Take();
  }
  static Usage Parse(std::string_view bytes) {  // zeros if malformed
    ByteReader in(bytes);
    Usage usage;
    usage.hits = in.Get<uint64_t>();
    usage.tokens = in.Get<uint64_t>();
    usage.last_hit_unix_s = in.Get<int64_t>();
    return in.AtEnd() ? usage : Usage();
  }
};

using UsageMap = std::unordered_map<ChunkKey, Usage, ChunkKeyHash>;

template <typename Totals, typename Visit>
void VisitTotals(Totals& totals, const Visit& visit) {
  visit(totals.requests);
  visit(totals.requested);
  visit(totals.prefix);
  visit(totals.fused);
  visit(totals.recomputed);
  visit(totals.computed);
  visit(totals.chunk_hits_pool);
  visit(totals.chunk_hits_memory);
  visit(totals.chunk_hits_disk);
  visit(totals.chunk_misses);
  visit(totals.load_ms);
}

std::string EncodeTotals(const StatisticsTotals& totals) {
  ByteWriter out;
  VisitTotals(totals, [&](const auto& field) { out.Put(field); });
  return out.Take();
}

StatisticsTotals ParseTotals(std::string_view bytes) {
  ByteReader in(bytes);
  StatisticsTotals totals;
  VisitTotals(totals, [&](auto& field) { field = in.Get<std::decay_t<decltype(field)>>(); });
  return in.AtEnd() ? totals : StatisticsTotals();
}

std::string UsageKey(const ChunkKey& key) { return kUsageDomain + key.Bytes(); }

void CountRequest(StatisticsTotals& totals, const PromptAccount& account) {
  ++totals.requests;
  totals.requested += static_cast<uint64_t>(account.requested);
  totals.prefix += static_cast<uint64_t>(account.prefix);
  totals.fused += static_cast<uint64_t>(account.fused);
  totals.recomputed += static_cast<uint64_t>(account.recomputed);
  totals.computed += static_cast<uint64_t>(account.computed);
}

void CountLookup(StatisticsTotals& totals, const ChunkLookup& lookup) {
  totals.load_ms += lookup.load_ms;
  ++(!lookup.hit()                  ? totals.chunk_misses
     : lookup.tier == Tier::kPool   ? totals.chunk_hits_pool
     : lookup.tier == Tier::kMemory ? totals.chunk_hits_memory
                                    : totals.chunk_hits_disk);
}

bool MoreHits(const ChunkUsage& a, const ChunkUsage& b) {
  if (a.hits != b.hits) return a.hits > b.hits;
  return a.key.Bytes() < b.key.Bytes();  // a fixed order among equals
}

}  // namespace

struct Statistics::State {
  std::shared_ptr<Database> database;  // null: in memory only
  StatisticsOptions options;

  bool Persistent() const { return database && !database->read_only(); }
  Status WriteUsage(const UsageMap& usage, const StatisticsTotals& totals) const;
  Usage ReadUsage(const std::string& key) const;
  UsageMap AllUsage() const;
  bool FlushDue() const {
    return pending.size() >= options.flush_entries ||
           std::chrono::duration<double>(Clock::now() - last_flush).count() >=
               options.flush_seconds;
  }

  std::mutex flush_mutex;    // one writer of `stats` at a time; taken before `mutex`
  mutable std::mutex mutex;  // guards what follows; never held across the disk
  UsageMap pending;          // not yet written
  StatisticsTotals totals, session;
  Clock::time_point last_flush = Clock::now();
};

Usage Statistics::State::ReadUsage(const std::string& key) const {
  std::string bytes;
  const Database::Rocks& rocks = database->rocks();
  const rocksdb::Status status = rocks.db->Get(rocksdb::ReadOptions(), rocks.stats, key, &bytes);
  return status.ok() ? Usage::Parse(bytes) : Usage();
}

Status Statistics::State::WriteUsage(const UsageMap& usage, const StatisticsTotals& now) const {
  const Database::Rocks& rocks = database->rocks();
  rocksdb::WriteBatch batch;
  for (const auto& [key, added] : usage) {
    Usage sum = ReadUsage(UsageKey(key));
    sum.Add(added);
    batch.Put(rocks.stats, UsageKey(key), sum.Encode());
  }
  batch.Put(rocks.stats, kTotalsKey, EncodeTotals(now));
  return FromRocks(rocks.db->Write(rocksdb::WriteOptions(), &batch), "cannot write statistics");
}

// What is on disk; unreadable records count as nothing.
UsageMap Statistics::State::AllUsage() const {
  UsageMap all;
  if (!database) return all;
  const Database::Rocks& rocks = database->rocks();
  const std::unique_ptr<rocksdb::Iterator> it(
      rocks.db->NewIterator(rocksdb::ReadOptions(), rocks.stats));
  const std::string prefix(1, kUsageDomain);
  for (it->Seek(prefix); it->Valid() && it->key().starts_with(prefix); it->Next()) {
    const auto key = ChunkKey::Parse(ToView(it->key()).substr(1));
    if (key.ok()) all[*key] = Usage::Parse(ToView(it->value()));
  }
  it->status().PermitUncheckedError();
  return all;
}

Statistics::Statistics(std::unique_ptr<State> state) : state_(std::move(state)) {}

std::unique_ptr<Statistics> Statistics::Open(std::shared_ptr<Database> database,
                                             const StatisticsOptions& options) {
  auto state = std::make_unique<State>();
  state->database = std::move(database);
  state->options = options;
  if (state->database) {
    std::string bytes;
    const Database::Rocks& rocks = state->database->rocks();
    if (rocks.db->Get(rocksdb::ReadOptions(), rocks.stats, kTotalsKey, &bytes).ok()) {
      state->totals = ParseTotals(bytes);
    }
  }
  return std::unique_ptr<Statistics>(new Statistics(std::move(state)));
}

Statistics::~Statistics() { (void)Flush(); }

void Statistics::RecordRequest(const PromptAccount& account) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  CountRequest(state_->totals, account);
  CountRequest(state_->session, account);
}

void Statistics::RecordChunk(const ChunkKey& key, const ChunkLookup& lookup,
                             int64_t tokens_reused) {
  bool due = false;
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    CountLookup(state_->totals, lookup);
    CountLookup(state_->session, lookup);
    if (lookup.hit()) {
      state_->pending[key].Add({1, static_cast<uint64_t>(std::max<int64_t>(tokens_reused, 0)),
                                static_cast<int64_t>(std::time(nullptr))});
    }
    due = state_->Persistent() && state_->FlushDue();
  }
  if (due) (void)Flush();  // lost counts are no reason to fail a request
}

void Statistics::Forget(const ChunkKey& key) {
  const std::lock_guard<std::mutex> flushing(state_->flush_mutex);
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->pending.erase(key);
  }
  if (!state_->Persistent()) return;
  const Database::Rocks& rocks = state_->database->rocks();
  rocks.db->Delete(rocksdb::WriteOptions(), rocks.stats, UsageKey(key)).PermitUncheckedError();
}

Status Statistics::Flush() {
  const std::lock_guard<std::mutex> flushing(state_->flush_mutex);
  if (!state_->Persistent()) return Status::Ok();
  UsageMap usage;
  StatisticsTotals totals;
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    usage.swap(state_->pending);
    totals = state_->totals;
    state_->last_flush = Clock::now();
  }
  const Status status = state_->WriteUsage(usage, totals);
  if (status.ok()) return status;
  const std::lock_guard<std::mutex> lock(state_->mutex);  // keep them for the next time
  for (const auto& [key, added] : usage) state_->pending[key].Add(added);
  return status;
}

StatisticsSnapshot Statistics::Snapshot(size_t top_chunks) const {
  const std::lock_guard<std::mutex> flushing(state_->flush_mutex);
  UsageMap all = state_->AllUsage();
  StatisticsSnapshot snapshot;
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    for (const auto& [key, added] : state_->pending) all[key].Add(added);
    snapshot.totals = state_->totals;
    snapshot.session = state_->session;
  }
  snapshot.chunks_hit = all.size();
  std::vector<ChunkUsage> chunks;
  for (const auto& [key, usage] : all) {
    chunks.push_back({key, usage.hits, usage.tokens, usage.last_hit_unix_s});
  }
  const auto kept = static_cast<std::ptrdiff_t>(std::min(top_chunks, chunks.size()));
  std::partial_sort(chunks.begin(), chunks.begin() + kept, chunks.end(), MoreHits);
  chunks.resize(static_cast<size_t>(kept));
  snapshot.top_chunks = std::move(chunks);
  return snapshot;
}

}  // namespace kvasir

// ChunkStore: encoded chunks in RocksDB; what is visible is whole, durable and verified.
//
// A chunk is one `meta` record (shape, token ids, digest and size of each group) and one `kv`
// value a layer group. Storing writes the groups together with an intent record and syncs, then
// swaps the intent for the meta record in one synced batch: a crash in between leaves an intent,
// whose groups are swept at the next open, and never a visible key. Every load compares token ids
// and checks XXH3 of every byte before anyone sees it. A damaged chunk is quarantined: its meta
// record is moved aside, its groups deleted, and the load reports a typed miss.
// Removed payloads are garbage until a background thread collects it (Database::CollectGarbage),
// whenever kGarbageTrigger bytes more have been removed.
// Thread-safe; calls block on the disk. No lock is held across reads.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cache/chunk_key.h"
#include "cache/database.h"
#include "cache/kv_codec.h"
#include "cache/worker_pool.h"
#include "kernels/core/status.h"

namespace kvasir {

struct ChunkRecord;  // cache/chunk_record.h

enum class LoadOutcome : uint8_t {
  kLoaded,
  kMissing,        // no such chunk
  kForeign,        // the same text is stored, but under another fingerprint
  kTokenMismatch,  // same key, other token ids: a hash collision
  kCorrupt,        // damaged; quarantined
  kFailed,         // the disk could not be read; the chunk is left as it is
};

struct LoadedChunk {
  LoadOutcome outcome = LoadOutcome::kMissing;
  EncodedChunk chunk;  // kLoaded only
  Status detail;       // why, for kCorrupt and kFailed
};

struct ChunkInfo {
  ChunkKey key;
  ChunkShape shape;
  uint64_t bytes = 0;  // of all groups
  int64_t created_unix_s = 0;
};

// A chunk whose payload is durable but not yet visible: Publish or Abandon it. What a crash leaves
// unpublished is swept at the next open.
struct PreparedChunk {
  ChunkKey key;
  std::string record;      // the meta record to come
  std::string intent_key;  // names the payload until then
  std::vector<std::string> group_keys;
};

struct ScrubReport {
  uint64_t chunks = 0, bytes = 0;  // examined
  uint64_t corrupt = 0;            // quarantined
};

class ChunkStore {
 public:
  // Sweeps what crashes left behind.
  static Result<std::unique_ptr<ChunkStore>> Open(std::shared_ptr<Database> database);
  ~ChunkStore();
  static constexpr uint64_t kGarbageTrigger = uint64_t{256} << 20;

  // Prepare and Publish in one. On failure no key is visible (an older chunk of this key stays).
  Status Store(const ChunkKey& key, std::span<const int32_t> token_ids, const EncodedChunk& chunk);
  Result<PreparedChunk> Prepare(const ChunkKey& key, std::span<const int32_t> token_ids,
                                const EncodedChunk& chunk);
  // All of them become visible at once, or none. Replaces older chunks of the same keys.
  Status Publish(std::span<const PreparedChunk> prepared);
  Status Abandon(const PreparedChunk& prepared);

  LoadedChunk Load(const ChunkKey& key, std::span<const int32_t> token_ids);
  // The same in parts: first the record alone, then one verified group after the other. A chunk
  // with a damaged group is set aside (kDataLoss).
  struct Opened {
    LoadOutcome outcome = LoadOutcome::kMissing;
    std::shared_ptr<const ChunkRecord> record;  // of kLoaded
    Status detail;
  };
  Opened OpenChunk(const ChunkKey& key, std::span<const int32_t> token_ids);
  Result<RecordBytes> LoadGroup(const ChunkKey& key, const ChunkRecord& record, size_t group);
  // Reads the meta record alone.
  Result<std::optional<ChunkInfo>> Info(const ChunkKey& key) const;
  // Whether Load would find this very text (payload digests unread).
  bool Contains(const ChunkKey& key, std::span<const int32_t> token_ids) const;
  Result<std::vector<int32_t>> TokenIds(const ChunkKey& key) const;

  // The keys of a text's chunks, one a fingerprint.
  Result<std::vector<ChunkKey>> KeysOf(std::string_view name_space, const Digest128& tokens) const;

  // Gone, durably, when this returns. False = there was none.
  Result<bool> Remove(const ChunkKey& key);
  // Visits the chunks of a namespace (nullopt: all) until `visit` says false.
  Status Scan(std::optional<std::string_view> name_space,
              const std::function<bool(const ChunkInfo&)>& visit) const;
  // Reads and checks everything; stops early when `stop` becomes true.
  Result<ScrubReport> Scrub(const std::atomic<bool>* stop = nullptr);

  uint64_t quarantined() const { return quarantined_; }      // since open
  uint64_t swept_at_open() const { return swept_at_open_; }  // unpublished chunks found
  bool read_only() const { return database_->read_only(); }

 private:
  explicit ChunkStore(std::shared_ptr<Database> database);
  Status SweepIntents();
  // nullopt: none. kDataLoss: damaged.
  Result<std::optional<ChunkRecord>> ReadRecord(const ChunkKey& key) const;
  LoadedChunk LoadGroups(const ChunkKey& key, const ChunkRecord& record) const;
  bool SetAside(const ChunkKey& key, std::optional<uint64_t> generation, const Status& reason);
  void CountRemoved(uint64_t bytes);
  bool HasOtherFingerprint(const ChunkKey& key) const;
  Status ScanRecords(std::optional<std::string_view> name_space,
                     const std::function<bool(const ChunkKey&, std::string_view)>& visit) const;

  std::shared_ptr<Database> database_;
  std::mutex write_mutex_;  // publish, remove, quarantine: each reads the old record, then replaces
  std::atomic<uint64_t> next_generation_;
  std::atomic<uint64_t> quarantined_{0};
  uint64_t swept_at_open_ = 0;
  std::atomic<uint64_t> removed_bytes_{0};  // since garbage was last collected
  std::unique_ptr<WorkerPool> background_ = std::make_unique<WorkerPool>(1);
};

}  // namespace kvasir

// AnswerStore: token ids of answers given before, which later answers are drafted from
// (engine/suffix_index.h). Drafts change no answer, but they show in an answer's speed and usage:
// so answers are kept apart by everything that keeps requests apart (AnswerScope).
//
// A shelf holds the answers of one scope; the least recently given go when it, or all together,
// grow beyond the bounds. Kept in the data folder: read back at the first Open, records that cannot
// be read are dropped with a warning. Open and Erase block on the disk; Add only queues: one thread
// of its own sorts answers in and writes them, several at a time. A full queue drops answers.
// Thread-safe; the OrderedStore must outlive this. The destructor writes what is queued.
#pragma once

#include <compare>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/suffix_index.h"
#include "kernels/core/ordered_store.h"
#include "kernels/core/status.h"

namespace kvasir {

// Whose answers of what. Answers are shared within it and never beyond.
struct AnswerScope {
  std::string model_digest, collection;
  std::string salt;    // cache_salt
  std::string tenant;  // TenantOf (service/name_space.h)
  friend auto operator<=>(const AnswerScope&, const AnswerScope&) = default;

  std::string KeyPrefix() const;  // 32 bytes, the first 16 of the collection
};

struct AnswerStoreOptions {
  // Of all answers: tokens, index and books, in memory. On disk they take about a quarter of it.
  size_t bytes = size_t{16} << 20;
  // Of one shelf; 0 = an eighth of all.
  size_t shelf_bytes = 0;
  // Answers that wait to be sorted in.
  size_t queue = 256;
};

inline constexpr size_t kLeastAnswerTokens = 4;    // shorter ones are not kept
inline constexpr size_t kMostAnswerTokens = 4096;  // longer ones are cut
inline constexpr uint32_t kMostTimes = 255;        // that an answer counts for

struct AnswerStoreStats {
  int64_t answers = 0, bytes = 0;
  int64_t evicted = 0, dropped = 0;  // dropped: the queue was full
  int64_t unreadable = 0;            // records
  int64_t failed_writes = 0;
};

// What a request holds of its scope's answers.
class AnswerShelf {
 public:
  // Waits for nothing but a copy of a pointer. Never null.
  std::shared_ptr<const SuffixIndex> index() const;

 private:
  friend class AnswerStore;
  struct Entry {
    std::shared_ptr<const PastAnswer> answer;
    uint64_t digest = 0;  // of its tokens
  };
  explicit AnswerShelf(AnswerScope scope) : scope_(std::move(scope)) {}

  const AnswerScope scope_;
  // Guarded by the store's mutex, down to the next one.
  std::map<uint64_t, Entry> entries_;                 // by number, the last given last
  std::unordered_map<uint64_t, uint64_t> by_digest_;  // of tokens -> number
  size_t bytes_ = 0;
  bool indexed_ = false;  // index_ holds what entries_ hold
  bool erased_ = false;   // takes no more answers

  mutable std::mutex index_mutex_;
  std::shared_ptr<const SuffixIndex> index_ = std::make_shared<SuffixIndex>();  // by index_mutex_
};

class AnswerStore {
 public:
  explicit AnswerStore(OrderedStore& store, const AnswerStoreOptions& options = {});
  ~AnswerStore();
  AnswerStore(const AnswerStore&) = delete;
  AnswerStore& operator=(const AnswerStore&) = delete;

  // Never fails: what cannot be read is not there.
  std::shared_ptr<AnswerShelf> Open(const AnswerScope& scope);
  // The answer may be drafted from once the store's thread has sorted it in. Never blocks.
  void Add(std::shared_ptr<AnswerShelf> shelf, std::vector<int32_t> tokens);
  // Removes all answers of a collection, of every tenant, durably; answers under way on shelves
  // opened before are not kept. When it fails some may be left on disk.
  Status Erase(std::string_view collection);
  // Returns when what was added before is sorted in and written.
  void Flush();
  AnswerStoreStats stats() const;

  // Removes whatever a store has kept: for a service that keeps none.
  static Status EraseAll(OrderedStore& store);

 private:
  struct Job {
    std::shared_ptr<AnswerShelf> shelf;
    std::vector<int32_t> tokens;
  };
  struct Change {
    SuffixIndex::Answers added, gone;
  };
  // What a batch changes, by shelf and on disk.
  struct Changes {
    std::map<std::shared_ptr<AnswerShelf>, Change> shelves;
    WriteOperations write;
  };

  void Loop();
  void SortIn(std::vector<Job> jobs);
  void Load();  // mutex_ held, as all below
  bool LoadRecord(std::string_view key, std::string_view value);
  std::shared_ptr<AnswerShelf> ShelfOf(const AnswerScope& scope);
  void PruneShelves();
  void AddTo(const std::shared_ptr<AnswerShelf>& shelf, std::vector<int32_t> tokens,
             Changes* changes);
  void Insert(const std::shared_ptr<AnswerShelf>& shelf, uint64_t number,
              std::shared_ptr<const PastAnswer> answer);
  void Remove(const std::shared_ptr<AnswerShelf>& shelf, uint64_t number, Changes* changes);
  void Evict(const std::shared_ptr<AnswerShelf>& shelf, Changes* changes);
  static void Reindex(AnswerShelf& shelf, const Change& change);

  OrderedStore& store_;
  const AnswerStoreOptions options_;

  std::mutex write_mutex_;  // one writer of the disk at a time; taken before `mutex_`
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  bool loaded_ = false;
  std::map<AnswerScope, std::shared_ptr<AnswerShelf>> shelves_;
  std::map<uint64_t, std::shared_ptr<AnswerShelf>> by_number_;  // of all answers
  uint64_t last_number_ = 0;
  std::vector<std::string> stale_keys_;  // of records to delete at the next write
  size_t prune_at_ = 256;                // shelves
  AnswerStoreStats stats_;

  mutable std::mutex queue_mutex_;
  std::condition_variable wake_, idle_;
  // Guarded by queue_mutex_.
  std::vector<Job> queue_;
  int64_t dropped_ = 0;
  bool working_ = false, stopping_ = false;

  std::thread thread_;  // last: starts when all else stands
};

}  // namespace kvasir

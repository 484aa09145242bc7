#include "service/answer_store.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <span>
#include <utility>

#include "cache/digest.h"
#include "retrieval/record.h"
#include "service/log.h"

namespace kvasir {
namespace {

// Beside the kinds of documents, audits and choices.
constexpr RecordKind kAnswerRecord{0xD4};
constexpr size_t kNumberBytes = 8;
constexpr size_t kEntryBytes = 256;  // of an answer's books, about

// Ascending numbers are ascending keys.
std::string BigEndian(uint64_t number) {
  std::string bytes;
  for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(number >> shift);
  return bytes;
}

uint64_t NumberOf(std::string_view bytes) {
  uint64_t number = 0;
  for (const char c : bytes) number = number << 8 | static_cast<uint8_t>(c);
  return number;
}

std::string CollectionPrefix(std::string_view collection) {
  return DigestBuilder("answers of a collection").Add("collection", collection).Finish().Bytes();
}

uint64_t DigestOfTokens(const std::vector<int32_t>& tokens) {
  return Digest64Of(
      {reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(int32_t)});
}

size_t BytesOf(const PastAnswer& answer) {
  return kEntryBytes + answer.tokens.size() * SuffixIndex::kBytesPerToken;
}

std::string Encode(const AnswerScope& scope, const PastAnswer& answer) {
  RecordWriter writer(kAnswerRecord);
  for (const std::string* text :
       {&scope.model_digest, &scope.collection, &scope.salt, &scope.tenant}) {
    writer.Text(*text);
  }
  writer.Int(answer.times);
  writer.Array(std::span<const int32_t>(answer.tokens));
  return writer.Finish();
}

Status Decode(std::string_view bytes, AnswerScope* scope, PastAnswer* answer) {
  KVASIR_ASSIGN_OR_RETURN(RecordReader reader,
                          RecordReader::Open(kAnswerRecord, bytes, "a past answer"));
  for (std::string* text :
       {&scope->model_digest, &scope->collection, &scope->salt, &scope->tenant}) {
    *text = reader.Text();
  }
  const int64_t times = reader.Int();
  answer->tokens = reader.Array<int32_t>();
  KVASIR_RETURN_IF_ERROR(reader.Finish());
  const std::vector<int32_t>& tokens = answer->tokens;
  if (times < 1 || times > kMostTimes || tokens.empty() || tokens.size() > kMostAnswerTokens ||
      *std::min_element(tokens.begin(), tokens.end()) < 0) {
    return DataLoss("a past answer holds values that were never written");
  }
  answer->times = static_cast<uint32_t>(times);
  return Status::Ok();
}

Status EraseBelow(OrderedStore& store, std::string_view prefix) {
  WriteOperations write;
  KVASIR_RETURN_IF_ERROR(store.Scan(prefix, [&](std::string_view key, std::string_view) {
    write.deletes.emplace_back(key);
    return true;
  }));
  return write.deletes.empty() ? Status::Ok() : store.Write(write);
}

}  // namespace

std::string AnswerScope::KeyPrefix() const {
  DigestBuilder digest("answer scope");
  digest.Add("model", model_digest).Add("collection", collection);
  digest.Add("salt", salt).Add("tenant", tenant);
  return CollectionPrefix(collection) + digest.Finish().Bytes();
}

std::shared_ptr<const SuffixIndex> AnswerShelf::index() const {
  const std::lock_guard lock(index_mutex_);
  return index_;
}

AnswerStore::AnswerStore(OrderedStore& store, const AnswerStoreOptions& options)
    : store_(store), options_(options), thread_([this] { Loop(); }) {}

AnswerStore::~AnswerStore() {
  {
    const std::lock_guard lock(queue_mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

// ---- the queue

void AnswerStore::Add(std::shared_ptr<AnswerShelf> shelf, std::vector<int32_t> tokens) {
  if (tokens.size() < kLeastAnswerTokens) return;
  if (tokens.size() > kMostAnswerTokens) tokens.resize(kMostAnswerTokens);
  {
    const std::lock_guard lock(queue_mutex_);
    if (stopping_ || queue_.size() >= options_.queue) {
      ++dropped_;
      return;
    }
    queue_.push_back({std::move(shelf), std::move(tokens)});
  }
  wake_.notify_one();
}

void AnswerStore::Loop() {
  while (true) {
    std::vector<Job> jobs;
    {
      std::unique_lock lock(queue_mutex_);
      working_ = false;
      idle_.notify_all();
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      jobs.swap(queue_);
      working_ = true;
    }
    try {
      SortIn(std::move(jobs));
    } catch (const std::exception& error) {  // out of memory: the answers are lost, no more
      LogWarning(std::string("past answers were not kept: ") + error.what());
    }
  }
}

void AnswerStore::Flush() {
  std::unique_lock lock(queue_mutex_);
  idle_.wait(lock, [this] { return queue_.empty() && !working_; });
}

void AnswerStore::SortIn(std::vector<Job> jobs) {
  const std::lock_guard writing(write_mutex_);
  Changes changes;
  {
    const std::lock_guard lock(mutex_);
    for (Job& job : jobs) {
      if (!job.shelf->erased_) AddTo(job.shelf, std::move(job.tokens), &changes);
    }
    for (const auto& [shelf, change] : changes.shelves) Reindex(*shelf, change);
    std::move(stale_keys_.begin(), stale_keys_.end(), std::back_inserter(changes.write.deletes));
    stale_keys_.clear();
  }
  const Status written = store_.Write(changes.write);
  if (written.ok()) return;
  const std::lock_guard lock(mutex_);
  if (stats_.failed_writes++ == 0) {
    LogWarning("past answers were not written: " + written.message());
  }
}

// ---- shelves

std::shared_ptr<AnswerShelf> AnswerStore::Open(const AnswerScope& scope) {
  const std::lock_guard lock(mutex_);
  if (!loaded_) Load();
  std::shared_ptr<AnswerShelf> shelf = ShelfOf(scope);
  if (!shelf->indexed_) {
    Change all;
    for (const auto& [number, entry] : shelf->entries_) all.added.push_back(entry.answer);
    shelf->indexed_ = true;
    Reindex(*shelf, all);
  }
  return shelf;
}

std::shared_ptr<AnswerShelf> AnswerStore::ShelfOf(const AnswerScope& scope) {
  const auto found = shelves_.find(scope);
  if (found != shelves_.end()) return found->second;
  PruneShelves();
  std::shared_ptr<AnswerShelf> shelf(new AnswerShelf(scope));
  shelves_.emplace(scope, shelf);
  return shelf;
}

// Scopes come from clients: one that holds nothing and that nobody holds is forgotten.
void AnswerStore::PruneShelves() {
  if (shelves_.size() < prune_at_) return;
  std::erase_if(shelves_, [](const auto& item) {
    return item.second->entries_.empty() && item.second.use_count() == 1;
  });
  prune_at_ = std::max<size_t>(256, 2 * shelves_.size());
}

void AnswerStore::Load() {
  loaded_ = true;
  const Status status = store_.Scan("", [this](std::string_view key, std::string_view value) {
    if (!LoadRecord(key, value)) {
      ++stats_.unreadable;
      stale_keys_.emplace_back(key);
    }
    return true;
  });
  if (!status.ok()) LogWarning("past answers could not be read: " + status.message());
  if (stats_.unreadable > 0) {
    LogWarning(std::to_string(stats_.unreadable) + " records of past answers are damaged: dropped");
  }
  Changes changes;
  for (const auto& [scope, shelf] : std::map(shelves_)) Evict(shelf, &changes);
  std::move(changes.write.deletes.begin(), changes.write.deletes.end(),
            std::back_inserter(stale_keys_));
}

bool AnswerStore::LoadRecord(std::string_view key, std::string_view value) {
  AnswerScope scope;
  PastAnswer answer;
  if (!Decode(value, &scope, &answer).ok()) return false;
  const std::string prefix = scope.KeyPrefix();
  if (key.size() != prefix.size() + kNumberBytes || !key.starts_with(prefix)) return false;
  const uint64_t number = NumberOf(key.substr(prefix.size()));
  last_number_ = std::max(last_number_, number);
  if (by_number_.contains(number)) return false;
  Insert(ShelfOf(scope), number, std::make_shared<const PastAnswer>(std::move(answer)));
  return true;
}

void AnswerStore::Insert(const std::shared_ptr<AnswerShelf>& shelf, uint64_t number,
                         std::shared_ptr<const PastAnswer> answer) {
  const size_t bytes = BytesOf(*answer);
  const uint64_t digest = DigestOfTokens(answer->tokens);
  shelf->bytes_ += bytes;
  stats_.bytes += static_cast<int64_t>(bytes);
  ++stats_.answers;
  shelf->by_digest_[digest] = number;
  shelf->entries_[number] = {std::move(answer), digest};
  by_number_[number] = shelf;
}

void AnswerStore::Remove(const std::shared_ptr<AnswerShelf>& shelf, uint64_t number,
                         Changes* changes) {
  const auto at = shelf->entries_.find(number);
  const AnswerShelf::Entry& entry = at->second;
  const size_t bytes = BytesOf(*entry.answer);
  shelf->bytes_ -= bytes;
  stats_.bytes -= static_cast<int64_t>(bytes);
  --stats_.answers;
  const auto same = shelf->by_digest_.find(entry.digest);
  if (same != shelf->by_digest_.end() && same->second == number) shelf->by_digest_.erase(same);
  SuffixIndex::Answers& added = changes->shelves[shelf].added;
  if (const auto fresh = std::find(added.begin(), added.end(), entry.answer);
      fresh != added.end()) {
    added.erase(fresh);
  } else {
    changes->shelves[shelf].gone.push_back(entry.answer);
  }
  const std::string key = shelf->scope_.KeyPrefix() + BigEndian(number);
  std::erase_if(changes->write.puts, [&](const auto& put) { return put.first == key; });
  changes->write.deletes.push_back(key);
  by_number_.erase(number);
  shelf->entries_.erase(at);
}

// The oldest of the shelf, then the oldest of all.
void AnswerStore::Evict(const std::shared_ptr<AnswerShelf>& shelf, Changes* changes) {
  const size_t most = options_.shelf_bytes > 0 ? options_.shelf_bytes : options_.bytes / 8;
  while (shelf->bytes_ > most) {
    Remove(shelf, shelf->entries_.begin()->first, changes);
    ++stats_.evicted;
  }
  while (static_cast<size_t>(stats_.bytes) > options_.bytes) {
    const auto [number, oldest] = *by_number_.begin();
    Remove(oldest, number, changes);
    ++stats_.evicted;
  }
}

// An answer that is there already is given once more: it counts for more and is the newest.
void AnswerStore::AddTo(const std::shared_ptr<AnswerShelf>& shelf, std::vector<int32_t> tokens,
                        Changes* changes) {
  PastAnswer answer{std::move(tokens), 1};
  const auto same = shelf->by_digest_.find(DigestOfTokens(answer.tokens));
  if (same != shelf->by_digest_.end()) {
    const PastAnswer& before = *shelf->entries_.at(same->second).answer;
    if (before.tokens == answer.tokens) {
      answer.times = std::min(before.times + 1, kMostTimes);
      Remove(shelf, same->second, changes);
    }
  }
  const uint64_t number = ++last_number_;
  auto stored = std::make_shared<const PastAnswer>(std::move(answer));
  changes->write.puts.emplace_back(shelf->scope_.KeyPrefix() + BigEndian(number),
                                   Encode(shelf->scope_, *stored));
  changes->shelves[shelf].added.push_back(stored);
  Insert(shelf, number, std::move(stored));
  Evict(shelf, changes);
}

void AnswerStore::Reindex(AnswerShelf& shelf, const Change& change) {
  if (!shelf.indexed_) return;  // built when it is opened
  auto index = std::make_shared<const SuffixIndex>(*shelf.index(), change.added, change.gone);
  const std::lock_guard lock(shelf.index_mutex_);
  shelf.index_ = std::move(index);
}

Status AnswerStore::Erase(std::string_view collection) {
  const std::lock_guard writing(write_mutex_);
  const Status erased = EraseBelow(store_, CollectionPrefix(collection));
  const std::lock_guard lock(mutex_);
  Changes changes;  // on disk they are gone already
  std::vector<std::shared_ptr<AnswerShelf>> shelves;
  for (const auto& [scope, shelf] : shelves_) {
    if (scope.collection == collection) shelves.push_back(shelf);
  }
  for (const auto& shelf : shelves) {
    while (!shelf->entries_.empty()) Remove(shelf, shelf->entries_.begin()->first, &changes);
    shelf->erased_ = true;
    {
      const std::lock_guard swapping(shelf->index_mutex_);
      shelf->index_ = std::make_shared<SuffixIndex>();
    }
    shelves_.erase(shelf->scope_);
  }
  return erased;
}

Status AnswerStore::EraseAll(OrderedStore& store) { return EraseBelow(store, ""); }

AnswerStoreStats AnswerStore::stats() const {
  AnswerStoreStats stats;
  {
    const std::lock_guard lock(mutex_);
    stats = stats_;
  }
  const std::lock_guard lock(queue_mutex_);
  stats.dropped = dropped_;
  return stats;
}

}  // namespace kvasir

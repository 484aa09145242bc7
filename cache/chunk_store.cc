#include "cache/chunk_store.h"

#include <rocksdb/write_batch.h>

#include <algorithm>
#include <ctime>
#include <new>
#include <random>

#include "cache/byte_io.h"
#include "cache/chunk_record.h"
#include "cache/kv_record.h"
#include "cache/rocks.h"

namespace kvasir {
namespace {

std::string MetaKey(char domain, const ChunkKey& key) { return domain + key.Bytes(); }

std::vector<std::string> GroupKeys(const ChunkKey& key, const ChunkRecord& record) {
  std::vector<std::string> keys;
  for (size_t i = 0; i < record.groups.size(); ++i) {
    keys.push_back(GroupKey(key, record.generation, i));
  }
  return keys;
}

std::string EncodeIntent(std::span<const std::string> group_keys) {
  ByteWriter out;
  for (const std::string& key : group_keys) out.PutBytes(key);
  return out.Take();
}

void DeleteIntended(const Database::Rocks& rocks, std::string_view intent,
                    rocksdb::WriteBatch& batch) {
  ByteReader in(intent);
  while (in.ok() && !in.AtEnd()) {
    const std::string_view key = in.GetBytes();
    if (in.ok()) batch.Delete(rocks.kv, ToSlice(key));
  }
}

// Deletes the payload of a record; of a damaged one everything that its key can own.
void DeletePayload(const Database::Rocks& rocks, const ChunkKey& key, const ChunkRecord* record,
                   rocksdb::WriteBatch& batch) {
  if (record == nullptr) {
    const std::string begin = key.Bytes();
    batch.DeleteRange(rocks.kv, begin, PrefixEnd(begin));
    return;
  }
  for (const std::string& group : GroupKeys(key, *record)) batch.Delete(rocks.kv, group);
}

ChunkRecord RecordOf(std::span<const int32_t> token_ids, const EncodedChunk& chunk,
                     const std::vector<RecordHeader>& headers, uint64_t generation) {
  ChunkRecord record;
  record.shape = chunk.shape;
  record.generation = generation;
  record.created_unix_s = static_cast<int64_t>(std::time(nullptr));
  record.token_ids.assign(token_ids.begin(), token_ids.end());
  for (size_t i = 0; i < chunk.groups.size(); ++i) {
    record.groups.push_back({chunk.groups[i].size(), headers[i].header_digest});
  }
  return record;
}

Result<std::vector<RecordHeader>> HeadersOf(const EncodedChunk& chunk) {
  std::vector<RecordHeader> headers;
  for (const RecordBytes& group : chunk.groups) {
    KVASIR_ASSIGN_OR_RETURN(const RecordHeader header, ReadHeader(group.view()));
    headers.push_back(header);
  }
  return headers;
}

// Our own digest is checked over every byte, so RocksDB need not check its slower one as well.
// A damaged table may name any size: what cannot be allocated is damage too.
rocksdb::Status ReadValue(const Database::Rocks& rocks, const std::string& key,
                          rocksdb::PinnableSlice* value) {
  rocksdb::ReadOptions options;
  options.verify_checksums = false;
  options.fill_cache = false;
  try {
    return rocks.db->Get(options, rocks.kv, key, value);
  } catch (const std::bad_alloc&) {
    return rocksdb::Status::Corruption("a stored size is absurd");
  }
}

Result<RecordBytes> ReadGroup(const Database::Rocks& rocks, const std::string& key,
                              const ChunkRecord::Group& expected) {
  auto value = std::make_shared<rocksdb::PinnableSlice>();
  const rocksdb::Status status = ReadValue(rocks, key, value.get());
  if (status.IsNotFound() || status.IsPathNotFound()) return DataLoss("a layer group is gone");
  KVASIR_RETURN_IF_ERROR(FromRocks(status, "cannot read a layer group"));
  if (value->size() != expected.bytes) return DataLoss("a layer group has another size");
  KVASIR_RETURN_IF_ERROR(VerifyRecord(ToView(*value)));
  KVASIR_ASSIGN_OR_RETURN(const RecordHeader header, ReadHeader(ToView(*value)));
  if (header.header_digest != expected.header_digest) {
    return DataLoss("a layer group is not the one that was stored");
  }
  return RecordBytes(value->data(), value->size(), value);
}

ChunkInfo InfoOf(const ChunkKey& key, const ChunkRecord& record) {
  return {key, record.shape, record.bytes(), record.created_unix_s};
}

bool SameTokens(const ChunkRecord& record, std::span<const int32_t> token_ids) {
  return std::equal(record.token_ids.begin(), record.token_ids.end(), token_ids.begin(),
                    token_ids.end());
}

uint64_t RandomStart() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

// What the keys of a text's records begin with.
std::string TextPrefix(std::string_view name_space, const Digest128& tokens) {
  return meta_domain::kChunk + ChunkKey::NamespaceBytes(name_space) + tokens.Bytes();
}

}  // namespace

ChunkStore::ChunkStore(std::shared_ptr<Database> database)
    : database_(std::move(database)), next_generation_(RandomStart()) {}

Result<std::unique_ptr<ChunkStore>> ChunkStore::Open(std::shared_ptr<Database> database) {
  std::unique_ptr<ChunkStore> store(new ChunkStore(std::move(database)));
  if (!store->read_only()) KVASIR_RETURN_IF_ERROR(store->SweepIntents());
  return store;
}

ChunkStore::~ChunkStore() {
  database_->StopCollecting();
  background_.reset();
  database_->AllowCollecting();
}

void ChunkStore::CountRemoved(uint64_t bytes) {
  if (removed_bytes_.fetch_add(bytes) + bytes < kGarbageTrigger) return;
  removed_bytes_ = 0;
  background_->Post([this] { (void)database_->CollectGarbage(); });  // what fails is tried again
}

Status ChunkStore::SweepIntents() {
  const Database::Rocks& rocks = database_->rocks();
  const std::string prefix(1, meta_domain::kIntent);
  rocksdb::WriteBatch batch;
  const std::unique_ptr<rocksdb::Iterator> it(
      rocks.db->NewIterator(rocksdb::ReadOptions(), rocks.meta));
  for (it->Seek(prefix); it->Valid() && it->key().starts_with(prefix); it->Next()) {
    DeleteIntended(rocks, ToView(it->value()), batch);
    batch.Delete(rocks.meta, it->key());
    ++swept_at_open_;
  }
  if (it->status().IsCorruption()) return Status::Ok();  // a scan will say so; sweeping can wait
  KVASIR_RETURN_IF_ERROR(FromRocks(it->status(), "cannot look for unpublished chunks"));
  if (batch.Count() == 0) return Status::Ok();
  return WriteSynced(rocks, batch, "cannot sweep unpublished chunks");
}

Status ChunkStore::Store(const ChunkKey& key, std::span<const int32_t> token_ids,
                         const EncodedChunk& chunk) {
  KVASIR_ASSIGN_OR_RETURN(const PreparedChunk prepared, Prepare(key, token_ids, chunk));
  return Publish({&prepared, 1});
}

Result<PreparedChunk> ChunkStore::Prepare(const ChunkKey& key, std::span<const int32_t> token_ids,
                                          const EncodedChunk& chunk) {
  if (token_ids.size() != static_cast<size_t>(chunk.shape.tokens)) {
    return InvalidArgument("chunk of " + std::to_string(chunk.shape.tokens) + " tokens with " +
                           std::to_string(token_ids.size()) + " token ids");
  }
  KVASIR_RETURN_IF_ERROR(DecodePlanes(chunk).status());
  KVASIR_ASSIGN_OR_RETURN(const std::vector<RecordHeader> headers, HeadersOf(chunk));
  const ChunkRecord record = RecordOf(token_ids, chunk, headers, next_generation_++);
  PreparedChunk prepared{key, record.Encode(key), std::string(1, meta_domain::kIntent),
                         GroupKeys(key, record)};
  AppendBigEndian(prepared.intent_key, record.generation);

  const Database::Rocks& rocks = database_->rocks();
  rocksdb::WriteBatch batch(chunk.bytes() + 4096);
  batch.Put(rocks.meta, prepared.intent_key, EncodeIntent(prepared.group_keys));
  for (size_t i = 0; i < chunk.groups.size(); ++i) {
    batch.Put(rocks.kv, prepared.group_keys[i], ToSlice(chunk.groups[i].view()));
  }
  KVASIR_RETURN_IF_ERROR(WriteSynced(rocks, batch, "cannot store chunk " + key.Id()));
  return prepared;
}

Status ChunkStore::Publish(std::span<const PreparedChunk> prepared) {
  const Database::Rocks& rocks = database_->rocks();
  const std::lock_guard<std::mutex> lock(write_mutex_);
  rocksdb::WriteBatch batch;
  uint64_t replaced = 0;
  for (const PreparedChunk& chunk : prepared) {
    const auto old = ReadRecord(chunk.key);
    if (old.ok() && old->has_value()) {
      DeletePayload(rocks, chunk.key, &**old, batch);
      replaced += (*old)->bytes();
    }
    batch.Put(rocks.meta, MetaKey(meta_domain::kChunk, chunk.key), chunk.record);
    batch.Delete(rocks.meta, chunk.intent_key);
  }
  KVASIR_RETURN_IF_ERROR(WriteSynced(rocks, batch, "cannot publish chunks"));
  CountRemoved(replaced);
  return Status::Ok();
}

Status ChunkStore::Abandon(const PreparedChunk& prepared) {
  const Database::Rocks& rocks = database_->rocks();
  rocksdb::WriteBatch batch;
  for (const std::string& key : prepared.group_keys) batch.Delete(rocks.kv, key);
  batch.Delete(rocks.meta, prepared.intent_key);
  return WriteSynced(rocks, batch, "cannot drop an unpublished chunk");
}

Result<std::optional<ChunkRecord>> ChunkStore::ReadRecord(const ChunkKey& key) const {
  const Database::Rocks& rocks = database_->rocks();
  std::string bytes;
  const rocksdb::Status status =
      rocks.db->Get(rocksdb::ReadOptions(), rocks.meta, MetaKey(meta_domain::kChunk, key), &bytes);
  if (status.IsNotFound()) return std::optional<ChunkRecord>();
  KVASIR_RETURN_IF_ERROR(FromRocks(status, "cannot read the record of chunk " + key.Id()));
  KVASIR_ASSIGN_OR_RETURN(ChunkRecord record, ChunkRecord::Parse(key, bytes));
  return std::optional<ChunkRecord>(std::move(record));
}

LoadedChunk ChunkStore::LoadGroups(const ChunkKey& key, const ChunkRecord& record) const {
  LoadedChunk loaded{LoadOutcome::kLoaded, {record.shape, {}}, Status::Ok()};
  for (size_t i = 0; i < record.groups.size(); ++i) {
    auto group =
        ReadGroup(database_->rocks(), GroupKey(key, record.generation, i), record.groups[i]);
    if (!group.ok()) {
      const bool damaged = group.status().code() == StatusCode::kDataLoss;
      return {damaged ? LoadOutcome::kCorrupt : LoadOutcome::kFailed, {}, group.status()};
    }
    loaded.chunk.groups.push_back(*std::move(group));
  }
  const Status planes = DecodePlanes(loaded.chunk).status();
  if (!planes.ok()) return {LoadOutcome::kCorrupt, {}, planes};
  return loaded;
}

ChunkStore::Opened ChunkStore::OpenChunk(const ChunkKey& key, std::span<const int32_t> token_ids) {
  for (;;) {
    auto record = ReadRecord(key);
    if (!record.ok()) {
      if (record.status().code() != StatusCode::kDataLoss) {
        return {LoadOutcome::kFailed, nullptr, record.status()};
      }
      if (SetAside(key, std::nullopt, record.status())) {
        return {LoadOutcome::kCorrupt, nullptr, record.status()};
      }
      continue;  // replaced since
    }
    if (!record->has_value()) {
      return {
          HasOtherFingerprint(key) ? LoadOutcome::kForeign : LoadOutcome::kMissing, nullptr, {}};
    }
    if (!SameTokens(**record, token_ids)) return {LoadOutcome::kTokenMismatch, nullptr, {}};
    return {LoadOutcome::kLoaded, std::make_shared<const ChunkRecord>(**std::move(record)), {}};
  }
}

Result<RecordBytes> ChunkStore::LoadGroup(const ChunkKey& key, const ChunkRecord& record,
                                          size_t group) {
  auto bytes = ReadGroup(database_->rocks(), GroupKey(key, record.generation, group),
                         record.groups.at(group));
  if (bytes.status().code() == StatusCode::kDataLoss) {
    SetAside(key, record.generation, bytes.status());
  }
  return bytes;
}

LoadedChunk ChunkStore::Load(const ChunkKey& key, std::span<const int32_t> token_ids) {
  for (;;) {
    const Opened opened = OpenChunk(key, token_ids);
    if (!opened.record) return {opened.outcome, {}, opened.detail};
    LoadedChunk loaded = LoadGroups(key, *opened.record);
    if (loaded.outcome != LoadOutcome::kCorrupt ||
        SetAside(key, opened.record->generation, loaded.detail)) {
      return loaded;
    }
  }
}

// False if the record is no longer the damaged one: replaced or removed by another thread.
bool ChunkStore::SetAside(const ChunkKey& key, std::optional<uint64_t> generation,
                          const Status& reason) {
  const Database::Rocks& rocks = database_->rocks();
  const std::lock_guard<std::mutex> lock(write_mutex_);
  const auto now = ReadRecord(key);
  const bool same =
      now.ok() ? now->has_value() && (*now)->generation == generation : !generation.has_value();
  if (!same) return false;
  ++quarantined_;
  if (rocks.read_only) return true;  // met again at the next load; never served either way
  rocksdb::WriteBatch batch;
  DeletePayload(rocks, key, now.ok() ? &**now : nullptr, batch);
  batch.Put(rocks.meta, MetaKey(meta_domain::kQuarantine, key), reason.message());
  batch.Delete(rocks.meta, MetaKey(meta_domain::kChunk, key));
  (void)WriteSynced(rocks, batch, "cannot quarantine");  // if not, the next load meets it again
  return true;
}

Result<std::vector<ChunkKey>> ChunkStore::KeysOf(std::string_view name_space,
                                                 const Digest128& tokens) const {
  const Database::Rocks& rocks = database_->rocks();
  const std::string prefix = TextPrefix(name_space, tokens);
  const std::unique_ptr<rocksdb::Iterator> it(
      rocks.db->NewIterator(rocksdb::ReadOptions(), rocks.meta));
  std::vector<ChunkKey> keys;
  for (it->Seek(prefix); it->Valid() && it->key().starts_with(prefix); it->Next()) {
    Result<ChunkKey> key = ChunkKey::Parse(ToView(it->key()).substr(1));
    if (key.ok()) keys.push_back(*std::move(key));
  }
  KVASIR_RETURN_IF_ERROR(FromRocks(it->status(), "cannot list a text's chunks"));
  return keys;
}

bool ChunkStore::HasOtherFingerprint(const ChunkKey& key) const {
  const Database::Rocks& rocks = database_->rocks();
  const std::string prefix = TextPrefix(key.name_space, key.tokens);
  const std::unique_ptr<rocksdb::Iterator> it(
      rocks.db->NewIterator(rocksdb::ReadOptions(), rocks.meta));
  it->Seek(prefix);
  return it->Valid() && it->key().starts_with(prefix);
}

Result<std::optional<ChunkInfo>> ChunkStore::Info(const ChunkKey& key) const {
  KVASIR_ASSIGN_OR_RETURN(const auto record, ReadRecord(key));
  if (!record) return std::optional<ChunkInfo>();
  return std::optional<ChunkInfo>(InfoOf(key, *record));
}

bool ChunkStore::Contains(const ChunkKey& key, std::span<const int32_t> token_ids) const {
  const auto record = ReadRecord(key);
  return record.ok() && record->has_value() && SameTokens(**record, token_ids);
}

Result<std::vector<int32_t>> ChunkStore::TokenIds(const ChunkKey& key) const {
  KVASIR_ASSIGN_OR_RETURN(auto record, ReadRecord(key));
  if (!record) return NotFound("no chunk " + key.Id());
  return std::move(record->token_ids);
}

Result<bool> ChunkStore::Remove(const ChunkKey& key) {
  const Database::Rocks& rocks = database_->rocks();
  const std::lock_guard<std::mutex> lock(write_mutex_);
  const auto record = ReadRecord(key);
  const bool damaged = record.status().code() == StatusCode::kDataLoss;
  if (!record.ok() && !damaged) return record.status();
  if (!damaged && !record->has_value()) return false;
  rocksdb::WriteBatch batch;
  batch.Delete(rocks.meta, MetaKey(meta_domain::kChunk, key));
  DeletePayload(rocks, key, damaged ? nullptr : &**record, batch);
  KVASIR_RETURN_IF_ERROR(WriteSynced(rocks, batch, "cannot delete chunk " + key.Id()));
  CountRemoved(damaged ? 0 : (*record)->bytes());
  return true;
}

Status ChunkStore::ScanRecords(
    std::optional<std::string_view> name_space,
    const std::function<bool(const ChunkKey&, std::string_view)>& visit) const {
  const Database::Rocks& rocks = database_->rocks();
  std::string prefix(1, meta_domain::kChunk);
  if (name_space) prefix += ChunkKey::NamespaceBytes(*name_space);
  const std::unique_ptr<rocksdb::Iterator> it(
      rocks.db->NewIterator(rocksdb::ReadOptions(), rocks.meta));
  for (it->Seek(prefix); it->Valid() && it->key().starts_with(prefix); it->Next()) {
    const auto key = ChunkKey::Parse(ToView(it->key()).substr(1));
    if (key.ok() && !visit(*key, ToView(it->value()))) break;
  }
  return FromRocks(it->status(), "cannot list chunks");
}

Status ChunkStore::Scan(std::optional<std::string_view> name_space,
                        const std::function<bool(const ChunkInfo&)>& visit) const {
  return ScanRecords(name_space, [&](const ChunkKey& key, std::string_view bytes) {
    const auto record = ChunkRecord::Parse(key, bytes);
    return !record.ok() || visit(InfoOf(key, *record));  // damaged ones: Scrub's and Load's affair
  });
}

Result<ScrubReport> ChunkStore::Scrub(const std::atomic<bool>* stop) {
  std::vector<ChunkKey> keys;
  KVASIR_RETURN_IF_ERROR(ScanRecords(std::nullopt, [&](const ChunkKey& key, std::string_view) {
    keys.push_back(key);
    return true;
  }));
  ScrubReport report;
  const uint64_t before = quarantined_;
  for (const ChunkKey& key : keys) {
    if (stop != nullptr && stop->load()) break;
    const auto record = ReadRecord(key);
    if (record.ok() && !record->has_value()) continue;  // removed since
    ++report.chunks;
    std::vector<int32_t> ids;
    if (record.ok()) ids = (*record)->token_ids;
    const LoadedChunk loaded = Load(key, ids);
    if (loaded.outcome == LoadOutcome::kFailed) return loaded.detail;
    report.bytes += loaded.chunk.bytes();
  }
  report.corrupt = quarantined_ - before;
  return report;
}

}  // namespace kvasir

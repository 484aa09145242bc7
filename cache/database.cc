#include "cache/database.h"

#include <malloc.h>
#include <rocksdb/cache.h>
#include <rocksdb/table.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <system_error>
#include <vector>

#include "cache/rocks.h"

namespace kvasir {
namespace {

constexpr std::array<std::string_view, 4> kFamilies = {"default", "meta", "kv", "stats"};
constexpr std::string_view kVersionText = "kvasir store format ";
constexpr uint64_t kMinBlobBytes = uint64_t{64} << 10;

const std::string& VersionKey() {
  static const std::string key(1, meta_domain::kVersion);
  return key;
}

rocksdb::DBOptions BaseOptions(const DatabaseOptions& options) {
  rocksdb::DBOptions db;
  if (options.env != nullptr) db.env = options.env;
  db.create_if_missing = true;
  db.create_missing_column_families = true;
  db.paranoid_checks = !options.salvage;
  // A torn tail is a crash; damage anywhere else is refused, not silently dropped.
  db.wal_recovery_mode = options.salvage ? rocksdb::WALRecoveryMode::kSkipAnyCorruptedRecords
                                         : rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  db.max_total_wal_size = 4 * options.kv_write_buffer_bytes;
  db.max_background_jobs = 2;
  db.keep_log_file_num = 2;
  db.max_log_file_size = size_t{1} << 20;
  db.bytes_per_sync = size_t{1} << 20;
  return db;
}

rocksdb::ColumnFamilyOptions SmallFamily(const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.checksum = rocksdb::kXXH3;
  rocksdb::ColumnFamilyOptions family;
  family.write_buffer_size = size_t{4} << 20;
  family.compression = rocksdb::kNoCompression;
  family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return family;
}

rocksdb::ColumnFamilyOptions PayloadFamily(const DatabaseOptions& options,
                                           const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::ColumnFamilyOptions family = SmallFamily(cache);
  family.write_buffer_size = options.kv_write_buffer_bytes;
  family.max_write_buffer_number = 2;
  family.enable_blob_files = true;
  family.min_blob_size = kMinBlobBytes;
  family.blob_file_size = options.blob_file_bytes;
  family.blob_compression_type = rocksdb::kNoCompression;
  // Not during compactions: tables here are tiny beside their blobs, so that every compaction spans
  // the whole store and would rewrite all old payloads. CollectGarbage does it when it pays.
  family.enable_blob_garbage_collection = false;
  return family;
}

std::vector<rocksdb::ColumnFamilyDescriptor> Families(const DatabaseOptions& options) {
  const auto cache = rocksdb::NewLRUCache(options.block_cache_bytes);
  return {{"default", SmallFamily(cache)},
          {"meta", SmallFamily(cache)},
          {"kv", PayloadFamily(options, cache)},
          {"stats", SmallFamily(cache)}};
}

Status OpenError(const rocksdb::Status& status, const std::string& path) {
  const std::string text = status.ToString();
  if (text.find("/LOCK: ") != std::string::npos && text.find("lock") != std::string::npos &&
      text.find("Permission denied") == std::string::npos) {
    return FailedPrecondition("data folder " + path +
                              " is in use by another process: stop it, or name another folder");
  }
  if (IsDiskFull(status)) {
    return ResourceExhausted("the disk of data folder " + path + " is full: free space (" + text +
                             ")");
  }
  if (status.IsCorruption()) {
    return DataLoss("data folder " + path + " is damaged (" + text +
                    "): restore it from a copy, or open it once with salvage, which drops what "
                    "cannot be read");
  }
  return Unavailable("cannot open data folder " + path + ": " + text +
                     "; check that it exists and may be written");
}

Status NotOurs(const std::string& path, const std::string& what) {
  return FailedPrecondition("data folder " + path + " " + what +
                            ": name another folder; nothing in it was changed");
}

// A database with only RocksDB's own "default" family is ours if a crash cut its creation short,
// which leaves it empty.
Status CheckDefaultEmpty(const std::string& path) {
  rocksdb::DB* raw = nullptr;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(rocksdb::Options(), path, &raw);
  if (!status.ok()) return OpenError(status, path);
  const std::unique_ptr<rocksdb::DB> db(raw);
  const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(rocksdb::ReadOptions()));
  it->SeekToFirst();
  if (it->Valid()) return NotOurs(path, "holds a RocksDB database that is not Kvasir's");
  return Status::Ok();
}

// Looks before anything is written.
Status CheckFamilies(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(std::filesystem::path(path) / "CURRENT", ignored)) {
    return Status::Ok();
  }
  std::vector<std::string> found;
  const rocksdb::Status status =
      rocksdb::DB::ListColumnFamilies(rocksdb::DBOptions(), path, &found);
  if (!status.ok()) return OpenError(status, path);
  for (const std::string& name : found) {
    if (std::find(kFamilies.begin(), kFamilies.end(), name) == kFamilies.end()) {
      return NotOurs(
          path, "holds a database of another program or version (column family '" + name + "')");
    }
  }
  return found.size() == 1 ? CheckDefaultEmpty(path) : Status::Ok();
}

Status MakeFolder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error) return Status::Ok();
  if (error == std::errc::no_space_on_device) {
    return ResourceExhausted("cannot create data folder " + path + ": the disk is full");
  }
  return Unavailable("cannot create data folder " + path + ": " + error.message());
}

rocksdb::Status OpenHandles(const DatabaseOptions& options, bool read_only,
                            Database::Rocks& rocks) {
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* raw = nullptr;
  const auto families = Families(options);
  const rocksdb::DBOptions db = BaseOptions(options);
  const rocksdb::Status status =
      read_only ? rocksdb::DB::OpenForReadOnly(db, rocks.path, families, &handles, &raw)
                : rocksdb::DB::Open(db, rocks.path, families, &handles, &raw);
  if (!status.ok()) return status;
  rocks.db.reset(raw);
  rocks.other = handles[0];
  rocks.meta = handles[1];
  rocks.kv = handles[2];
  rocks.stats = handles[3];
  rocks.read_only = read_only;
  return status;
}

bool MetaEmpty(const Database::Rocks& rocks) {
  const std::unique_ptr<rocksdb::Iterator> it(
      rocks.db->NewIterator(rocksdb::ReadOptions(), rocks.meta));
  it->SeekToFirst();
  return it->status().ok() && !it->Valid();
}

Status CompareVersion(const std::string& path, std::string_view found) {
  uint32_t number = 0;
  const bool readable = found.starts_with(kVersionText);
  if (readable) {
    found.remove_prefix(kVersionText.size());
    std::from_chars(found.data(), found.data() + found.size(), number);
  }
  if (readable && number == kStoreFormatVersion) return Status::Ok();
  return FailedPrecondition(
      "data folder " + path + " was made by another version (store format " +
      (readable ? std::to_string(number) : std::string("unknown")) + ", this program uses " +
      std::to_string(kStoreFormatVersion) +
      "): run the program that made it, or ingest into a new folder; nothing in it was changed");
}

Status CheckVersion(const Database::Rocks& rocks) {
  std::string found;
  const rocksdb::Status status =
      rocks.db->Get(rocksdb::ReadOptions(), rocks.meta, VersionKey(), &found);
  if (status.ok()) return CompareVersion(rocks.path, found);
  if (!status.IsNotFound()) return OpenError(status, rocks.path);
  if (!MetaEmpty(rocks)) return CompareVersion(rocks.path, "");
  rocksdb::WriteBatch batch;
  batch.Put(rocks.meta, VersionKey(),
            std::string(kVersionText) + std::to_string(kStoreFormatVersion));
  return WriteSynced(rocks, batch, "cannot set up data folder " + rocks.path);
}

// Freed buffers of up to 8 MiB stay in the process: a fresh mapping's page faults cost several
// times the copy itself.
void RetainReadBuffers() {
  constexpr int kRetained = 8 << 20;
  mallopt(M_MMAP_THRESHOLD, kRetained);
  mallopt(M_TRIM_THRESHOLD, 4 * kRetained);
}

}  // namespace

Database::Database(std::unique_ptr<Rocks> rocks) : rocks_(std::move(rocks)) {}
Database::~Database() = default;

Result<std::shared_ptr<Database>> Database::Open(const std::string& path,
                                                 const DatabaseOptions& options) {
  if (options.retain_read_buffers) RetainReadBuffers();
  KVASIR_RETURN_IF_ERROR(MakeFolder(path));
  KVASIR_RETURN_IF_ERROR(CheckFamilies(path));
  auto rocks = std::make_unique<Rocks>();
  rocks->path = path;
  rocksdb::Status status = OpenHandles(options, /*read_only=*/false, *rocks);
  if (!status.ok() && IsDiskFull(status) && options.degrade_when_full) {
    status = OpenHandles(options, /*read_only=*/true, *rocks);
  }
  if (!status.ok()) return OpenError(status, path);
  KVASIR_RETURN_IF_ERROR(CheckVersion(*rocks));
  return std::shared_ptr<Database>(new Database(std::move(rocks)));
}

const std::string& Database::path() const { return rocks_->path; }
bool Database::read_only() const { return rocks_->read_only; }

Status Database::Flush() {
  if (rocks_->read_only) return Status::Ok();
  return FromRocks(
      rocks_->db->Flush(rocksdb::FlushOptions(), {rocks_->meta, rocks_->kv, rocks_->stats}),
      "cannot flush data folder " + rocks_->path);
}

uint64_t Database::GarbageBytes() const {
  uint64_t garbage = 0;
  rocks_->db->GetIntProperty(rocks_->kv, rocksdb::DB::Properties::kLiveBlobFileGarbageSize,
                             &garbage);
  return garbage;
}

Result<bool> Database::CollectGarbage(double min_share) {
  if (rocks_->read_only) return false;
  // Without moving payloads first: this finds out what is garbage, and drops files of nothing else.
  rocksdb::CompactRangeOptions options;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  const auto compact = [&] {
    const rocksdb::Status status = rocks_->db->CompactRange(options, rocks_->kv, nullptr, nullptr);
    // Stopped, or paused by a close: it can be done another time.
    return status.IsIncomplete() ? Status::Ok() : FromRocks(status, "cannot collect garbage");
  };
  KVASIR_RETURN_IF_ERROR(compact());
  uint64_t live = 0;
  rocks_->db->GetIntProperty(rocks_->kv, rocksdb::DB::Properties::kLiveBlobFileSize, &live);
  const uint64_t garbage = GarbageBytes();
  if (garbage == 0 || static_cast<double>(garbage) < min_share * static_cast<double>(live)) {
    return false;
  }
  options.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kForce;
  options.blob_garbage_collection_age_cutoff = 1.0;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForce;
  KVASIR_RETURN_IF_ERROR(compact());
  return true;
}

void Database::StopCollecting() { rocks_->db->DisableManualCompaction(); }
void Database::AllowCollecting() { rocks_->db->EnableManualCompaction(); }

DatabaseSize Database::Size() const {
  DatabaseSize size;
  const auto sum = [this](const char* property, uint64_t& into) {
    for (rocksdb::ColumnFamilyHandle* family : {rocks_->meta, rocks_->kv, rocks_->stats}) {
      uint64_t value = 0;
      if (rocks_->db->GetIntProperty(family, property, &value)) into += value;
    }
  };
  sum("rocksdb.total-sst-files-size", size.disk_bytes);
  sum("rocksdb.total-blob-file-size", size.disk_bytes);
  sum("rocksdb.size-all-mem-tables", size.memory_bytes);
  sum("rocksdb.estimate-table-readers-mem", size.memory_bytes);
  uint64_t cached = 0;  // one cache, shared by the families
  if (rocks_->db->GetIntProperty(rocks_->meta, "rocksdb.block-cache-usage", &cached)) {
    size.memory_bytes += cached;
  }
  return size;
}

}  // namespace kvasir

// Database: the one RocksDB of a data folder, opened once a process.
//
// Column families: `meta` (small records; every write is synced), `kv` (chunk payloads, RocksDB's
// BlobDB), `stats` (counters, written without sync). The folder carries a format version; a store
// of another version is refused, never converted or emptied.
// Thread-safe. Held by shared_ptr: whatever stands on it (stores, tiers, statistics) keeps it open.
// Closing flushes memory tables, so that the next start replays nothing.
// Limit: one process at a time. Opening takes RocksDB's file lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "kernels/core/ordered_store.h"
#include "kernels/core/status.h"

namespace rocksdb {
class Env;
}

namespace kvasir {

struct DatabaseOptions {
  // Cache of SST blocks, bytes. Payloads never enter it.
  size_t block_cache_bytes = size_t{8} << 20;
  // Memory table of `kv`, bytes; two at most. Larger = fewer and larger blob files.
  size_t kv_write_buffer_bytes = size_t{16} << 20;
  // Size at which a blob file is closed.
  uint64_t blob_file_bytes = uint64_t{256} << 20;
  // On a full disk open read only (read_only() says so) instead of failing: hits are still served.
  bool degrade_when_full = true;
  // Keep freed memory of a few MiB in the process instead of giving every read buffer back to the
  // kernel (mallopt, process-wide): large reads are several times faster.
  bool retain_read_buffers = true;
  // Open although logs or tables are damaged, dropping what cannot be read. Only ever set by an
  // explicit command of the operator: it may lose acknowledged writes.
  bool salvage = false;
  // File system to work on; null = the machine's own. For fault injection in tests; must outlive
  // the database.
  rocksdb::Env* env = nullptr;
};

struct DatabaseSize {
  uint64_t disk_bytes = 0;    // tables and blob files
  uint64_t memory_bytes = 0;  // memory tables, table readers, block cache
};

class Database {
 public:
  // kFailedPrecondition: the folder is in use by another process, was made by another format
  // version, or is not a Kvasir store; kResourceExhausted: disk full; kDataLoss: damaged (the
  // message names the file and what to do); kUnavailable: not readable or writable.
  static Result<std::shared_ptr<Database>> Open(const std::string& path,
                                                const DatabaseOptions& options = {});
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  const std::string& path() const;
  // True after a degraded start: reads work, every write is kResourceExhausted.
  bool read_only() const;
  DatabaseSize Size() const;
  // Writes memory tables to files now (a clean close does the same).
  Status Flush();

  // Gives the disk space of removed and replaced payloads back: rewrites the payloads that are
  // still alive if at least `min_share` of the blob files' bytes are garbage. False = it did not
  // pay. Takes as long as reading and writing them; reads and writes go on meanwhile.
  Result<bool> CollectGarbage(double min_share = 0.5);
  // Garbage that the last compaction found, bytes.
  uint64_t GarbageBytes() const;
  // Ends a CollectGarbage under way, for closing; none works until as many AllowCollecting.
  void StopCollecting();
  void AllowCollecting();

  // A durable view of `meta` under its own key space: views with different prefixes never see each
  // other, whatever the bytes in prefix and keys. Keeps the database open. See
  // kernels/core/ordered_store.h.
  static std::unique_ptr<OrderedStore> Store(std::shared_ptr<Database> database,
                                             std::string_view prefix);

  // RocksDB's handles, for cache/ itself (cache/rocks.h).
  struct Rocks;
  Rocks& rocks() const { return *rocks_; }

 private:
  explicit Database(std::unique_ptr<Rocks> rocks);
  std::unique_ptr<Rocks> rocks_;
};

// "kvasir store format N": the number that a data folder records.
inline constexpr uint32_t kStoreFormatVersion = 1;

}  // namespace kvasir

// RocksDB behind Database: handles, options of reads and writes, and translation of its errors.
// Private to cache/: the only header here that names RocksDB types.
#pragma once

#include <rocksdb/db.h>

#include <memory>
#include <string>
#include <string_view>

#include "cache/database.h"
#include "kernels/core/status.h"

namespace kvasir {

struct Database::Rocks {
  std::string path;
  std::unique_ptr<rocksdb::DB> db;
  rocksdb::ColumnFamilyHandle* other = nullptr;  // "default", always empty
  rocksdb::ColumnFamilyHandle* meta = nullptr;
  rocksdb::ColumnFamilyHandle* kv = nullptr;
  rocksdb::ColumnFamilyHandle* stats = nullptr;
  bool read_only = false;

  Rocks() = default;
  Rocks(const Rocks&) = delete;
  Rocks& operator=(const Rocks&) = delete;
  ~Rocks();
};

// First byte of every key in `meta`.
namespace meta_domain {
inline constexpr char kVersion = 'V';
inline constexpr char kChunk = 'C';       // + ChunkKey::Bytes()
inline constexpr char kIntent = 'I';      // + generation: payload written, not yet published
inline constexpr char kQuarantine = 'Q';  // + ChunkKey::Bytes()
inline constexpr char kStore = 'S';       // + length-prefixed view prefix + key
}  // namespace meta_domain

inline rocksdb::Slice ToSlice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
inline std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

inline rocksdb::WriteOptions SyncedWrite() {
  rocksdb::WriteOptions options;
  options.sync = true;
  return options;
}

// Ok for ok; else a Status whose message begins with `doing` ("cannot write chunk").
Status FromRocks(const rocksdb::Status& status, std::string_view doing);
bool IsDiskFull(const rocksdb::Status& status);

// Applies a batch durably; refuses in a degraded (read-only) store.
Status WriteSynced(const Database::Rocks& rocks, rocksdb::WriteBatch& batch,
                   std::string_view doing);

// The smallest key greater than all keys that begin with `prefix`; "" = none.
std::string PrefixEnd(std::string_view prefix);

}  // namespace kvasir

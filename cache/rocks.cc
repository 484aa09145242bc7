#include "cache/rocks.h"

#include <rocksdb/write_batch.h>

namespace kvasir {

Database::Rocks::~Rocks() {
  if (!db) return;
  if (!read_only) {
    // Best effort: everything acknowledged is in the log already.
    db->Flush(rocksdb::FlushOptions(), {meta, kv, stats}).PermitUncheckedError();
  }
  for (rocksdb::ColumnFamilyHandle* handle : {other, meta, kv, stats}) {
    if (handle != nullptr) db->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  }
  db->Close().PermitUncheckedError();
}

bool IsDiskFull(const rocksdb::Status& status) {
  return status.subcode() == rocksdb::Status::SubCode::kNoSpace || status.IsNoSpace() ||
         status.ToString().find("No space left") != std::string::npos;
}

namespace {

StatusCode CodeOf(const rocksdb::Status& status) {
  if (IsDiskFull(status)) return StatusCode::kResourceExhausted;
  if (status.IsNotFound()) return StatusCode::kNotFound;
  if (status.IsCorruption()) return StatusCode::kDataLoss;
  if (status.IsInvalidArgument()) return StatusCode::kInternal;
  return StatusCode::kUnavailable;
}

}  // namespace

Status FromRocks(const rocksdb::Status& status, std::string_view doing) {
  if (status.ok()) return Status::Ok();
  return {CodeOf(status), std::string(doing) + ": " + status.ToString()};
}

Status WriteSynced(const Database::Rocks& rocks, rocksdb::WriteBatch& batch,
                   std::string_view doing) {
  if (rocks.read_only) {
    return ResourceExhausted(std::string(doing) + ": the store in " + rocks.path +
                             " was opened read only because its disk is full; free space and "
                             "restart");
  }
  return FromRocks(rocks.db->Write(SyncedWrite(), &batch), doing);
}

std::string PrefixEnd(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

}  // namespace kvasir

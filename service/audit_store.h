// AuditStore: calibration samples of certify, kept in the data folder.
//
// Samples are kept apart by scope: what must be alike for one request to say anything about
// another. The newest kMaxAuditSamples of a scope stay. Records are those of retrieval/record.h;
// one that cannot be read is left out and counted, never an error. Thread-safe; the store must
// outlive this.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cache/certificate.h"
#include "kernels/core/ordered_store.h"
#include "kernels/core/status.h"

namespace kvasir {

struct AuditScope {
  std::string model_digest;
  std::string ingestion;  // condition, and the digest of the fixed primer
  std::string codec;
  std::string ladder;  // LadderName()

  std::string Key() const;  // 16 bytes
};

inline constexpr size_t kMaxAuditSamples = 2000;

class AuditStore {
 public:
  explicit AuditStore(OrderedStore& store) : store_(store) {}

  // Oldest first.
  using Samples = std::shared_ptr<const std::vector<CalibrationSample>>;
  Result<Samples> Load(const AuditScope& scope);

  // `question` (0 = none) takes the place of an earlier sample of the same number, so that
  // calibrating twice on the same questions counts each once.
  Status Add(const AuditScope& scope, const CalibrationSample& sample, uint64_t question = 0);

  // Records that could not be read.
  int64_t unreadable() const;

 private:
  struct Entry {
    uint64_t number = 0, question = 0;
    CalibrationSample sample;
  };
  struct Shelf {
    std::vector<Entry> entries;  // by number
    Samples samples;             // the same, for readers; null = make it anew
  };
  Result<Shelf*> OpenLocked(const std::string& key);

  OrderedStore& store_;
  mutable std::mutex mutex_;
  std::map<std::string, Shelf> shelves_;  // guarded by mutex_, as all below
  int64_t unreadable_ = 0;
};

}  // namespace kvasir

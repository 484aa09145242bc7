// OrderedStore: a small ordered map of byte strings that survives restarts. The seam by which
// retrieval/ keeps documents and vectors without knowing RocksDB (cache/ implements it).
//
// Thread-safe. A batch is applied whole or not at all and is durable when Write returns Ok.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/core/status.h"

namespace kvasir {

struct WriteOperations {
  std::vector<std::pair<std::string, std::string>> puts;
  std::vector<std::string> deletes;
};

class OrderedStore {
 public:
  virtual ~OrderedStore() = default;
  // nullopt = no such key.
  virtual Result<std::optional<std::string>> Get(std::string_view key) const = 0;
  virtual Status Write(const WriteOperations& operations) = 0;
  // Visits keys that begin with `prefix`, ascending, over one snapshot, until `visit` says false.
  virtual Status Scan(
      std::string_view prefix,
      const std::function<bool(std::string_view key, std::string_view value)>& visit) const = 0;
};

}  // namespace kvasir

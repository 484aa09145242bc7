// The vocabulary of the retrieval tests: an OrderedStore in memory, a hand-made Embedder, models.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/ordered_store.h"
#include "retrieval/document_store.h"
#include "retrieval/embedder.h"

namespace kvasir::testing {

// Public members, so that tests can damage records.
class MapStore : public OrderedStore {
 public:
  Result<std::optional<std::string>> Get(std::string_view key) const override {
    std::lock_guard lock(mutex);
    const auto found = map.find(key);
    return found == map.end() ? std::optional<std::string>() : found->second;
  }
  Status Write(const WriteOperations& operations) override {
    std::lock_guard lock(mutex);
    if (!fail_writes_with.ok()) return fail_writes_with;
    ++writes;
    for (const auto& [key, value] : operations.puts) map[key] = value;
    for (const std::string& key : operations.deletes) map.erase(key);
    return Status::Ok();
  }
  Status Scan(std::string_view prefix,
              const std::function<bool(std::string_view, std::string_view)>& visit) const override {
    std::map<std::string, std::string, std::less<>> snapshot;
    {
      std::lock_guard lock(mutex);
      snapshot = map;
    }
    for (auto at = snapshot.lower_bound(prefix); at != snapshot.end(); ++at) {
      if (!at->first.starts_with(prefix) || !visit(at->first, at->second)) break;
    }
    return Status::Ok();
  }

  mutable std::mutex mutex;
  std::map<std::string, std::string, std::less<>> map;
  Status fail_writes_with;
  int writes = 0;
};

// Counts words by a hash of their lower-cased letters into `kWidth` bins and norms: alike texts get
// alike vectors, and a test can work them out.
class WordEmbedder : public Embedder {
 public:
  static constexpr int32_t kWidth = 64;
  Result<std::vector<float>> Embed(std::span<const std::string> texts) override;
  int32_t dimension() const override { return kWidth; }
  const std::string& identity() const override { return name; }
  size_t weight_bytes() const override { return 0; }

  std::string name = "words";
  std::atomic<int> embedded = 0;  // texts so far
};

std::vector<float> RandomUnitVector(std::mt19937* random, int32_t dimension);
NewDocument OneChunkDocument(const std::string& collection, const std::string& id,
                             const std::string& text);
// Chunks without vectors, one a text.
NewDocument DocumentOf(const std::string& collection, const std::string& id,
                       const std::vector<std::string>& texts);

// "d7". (GCC 12 warns wrongly of "d" + std::to_string(7) once it is inlined.)
std::string Numbered(const char* prefix, int64_t number);

// The model file or folder below the first of $KVASIR_MODEL_DIR, $XDG_CACHE_HOME/kvasir/models and
// ~/.cache/kvasir/models that holds it; "" if none does.
std::string FindModel(const std::string& name);
std::string ReadAll(const std::string& path);  // "" if there is no such file

}  // namespace kvasir::testing

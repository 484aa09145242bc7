// Vocabulary of the cache tests: temporary folders, random KV, a pool that counts its blocks.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cache/chunk_key.h"
#include "cache/chunk_store.h"
#include "cache/database.h"
#include "cache/kv_codec.h"
#include "kernels/core/kv_layout.h"

namespace kvasir {

#define ASSERT_STATUS_OK(expression)                                     \
  do {                                                                   \
    const ::kvasir::Status status_under_test = (expression);             \
    ASSERT_TRUE(status_under_test.ok()) << status_under_test.ToString(); \
  } while (false)

class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "kvasir-cache-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }
  std::string Sub(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

inline KvLayout SmallLayout() { return {3, 2, 8, DType::kF32}; }

// Normally distributed values with a different size in every channel, as real keys have.
inline KvCapture RandomCapture(const KvLayout& layout, int32_t tokens, uint32_t seed) {
  KvCapture capture = KvCapture::For(layout, tokens);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const auto channels = static_cast<size_t>(layout.kv_heads * layout.head_dim);
  for (size_t i = 0; i < capture.k.size(); ++i) {
    capture.k[i] = normal(random) * (0.1f + static_cast<float>(i % channels));
    capture.v[i] = normal(random);
  }
  return capture;
}

inline std::vector<int32_t> RandomTokens(int32_t count, uint32_t seed, int32_t vocabulary = 50000) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(vocabulary));
  return ids;
}

inline FingerprintFields SomeFields() {
  FingerprintFields fields;
  fields.model_digest = "0123456789abcdef0123456789abcdef";
  fields.tokenizer = "gpt2/smollm/chatml";
  fields.context = EncodingContext::kAnchor;
  fields.anchor_ids = {1, 2, 3};
  fields.layout = SmallLayout();
  fields.ropes = {RopeTable{RopePairing::kHalfSplit, 8, {1.0, 0.1, 0.01, 0.001}, 1.0f}};
  fields.layer_rope = {0, 0, 0};
  fields.layer_window = {0, 0, 0};
  fields.numerics = "matmul=f32";
  return fields;
}

// A chunk with everything that goes with it.
struct TestChunk {
  std::vector<int32_t> ids;
  ChunkKey key;
  EncodedChunk encoded;
};

inline TestChunk MakeTestChunk(uint32_t seed, int32_t tokens = 20,
                               const KvLayout& layout = SmallLayout(),
                               const std::string& name_space = "tenant/kb") {
  TestChunk chunk;
  chunk.ids = RandomTokens(tokens, seed);
  chunk.key = MakeChunkKey(name_space, Fingerprint(SomeFields()), chunk.ids);
  chunk.encoded = EncodeChunk(RandomCapture(layout, tokens, seed), KvCodec::kInt8).value();
  return chunk;
}

inline bool SameBytes(const EncodedChunk& a, const EncodedChunk& b) {
  return a.shape == b.shape && a.groups.size() == b.groups.size() &&
         std::equal(
             a.groups.begin(), a.groups.end(), b.groups.begin(),
             [](const RecordBytes& x, const RecordBytes& y) { return x.view() == y.view(); });
}

inline std::shared_ptr<Database> OpenDatabase(const std::string& path,
                                              const DatabaseOptions& options = {}) {
  auto database = Database::Open(path, options);
  EXPECT_TRUE(database.ok()) << database.status().ToString();
  return database.ok() ? *database : nullptr;
}

inline std::unique_ptr<ChunkStore> OpenStore(const std::shared_ptr<Database>& database) {
  auto store = ChunkStore::Open(database);
  EXPECT_TRUE(store.ok()) << store.status().ToString();
  return store.ok() ? *std::move(store) : nullptr;
}

// Stands in for the engine's pool: hands out ids, keeps what was loaded, takes ids back.
class FakePool {
 public:
  explicit FakePool(int32_t blocks) : free_(blocks) {}

  Result<std::shared_ptr<const KvBlocks>> Load(std::span<const KvLayerPlanes> layers) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++loads_;
    const int32_t tokens = layers[0].tokens;
    const int32_t blocks = BlocksFor(tokens);
    if (blocks > free_) return ResourceExhausted("the pool is full");
    free_ -= blocks;
    std::vector<int32_t> ids(static_cast<size_t>(blocks));
    std::iota(ids.begin(), ids.end(), next_id_);
    next_id_ += blocks;
    const auto* first = static_cast<const char*>(layers[0].k);
    content_[ids[0]] = std::string(first, static_cast<size_t>(tokens));
    return std::make_shared<const KvBlocks>(std::move(ids), tokens,
                                            [this](const std::vector<int32_t>& released) {
                                              const std::lock_guard<std::mutex> release(mutex_);
                                              free_ += static_cast<int32_t>(released.size());
                                            });
  }
  // The first bytes that were loaded into these blocks.
  std::string Content(const KvBlocks& blocks) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return content_.at(blocks.ids()[0]);
  }
  int32_t free() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return free_;
  }
  int loads() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return loads_;
  }

 private:
  mutable std::mutex mutex_;
  int32_t free_;
  int32_t next_id_ = 0;
  int loads_ = 0;
  std::map<int32_t, std::string> content_;
};

// Blocks with ids first, first + 1, ... and no pool behind them.
inline std::shared_ptr<const KvBlocks> FakeBlocks(int32_t first, int32_t tokens,
                                                  KvBlocks::Release release = nullptr) {
  std::vector<int32_t> ids(static_cast<size_t>(BlocksFor(tokens)));
  std::iota(ids.begin(), ids.end(), first);
  return std::make_shared<const KvBlocks>(std::move(ids), tokens, std::move(release));
}

}  // namespace kvasir

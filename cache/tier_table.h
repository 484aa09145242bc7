// TierTable: the maps of the pool and memory tiers, with their recency lists. Private to cache/.
// Not thread-safe and without I/O: TieredCache holds its mutex around every call. What a call
// drops is handed to the caller's Dropped, to be destroyed outside the mutex.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "cache/chunk_key.h"
#include "cache/kv_codec.h"
#include "kernels/core/kv_layout.h"

namespace kvasir {

using SharedTokens = std::shared_ptr<const std::vector<int32_t>>;

bool SameTokens(const SharedTokens& stored, std::span<const int32_t> token_ids);

class TierTable {
 public:
  struct Entry {
    SharedTokens token_ids;
    std::shared_ptr<const EncodedChunk> memory;  // null = not in this tier
    std::shared_ptr<const KvBlocks> pool;
  };
  struct Dropped {
    std::vector<std::shared_ptr<const KvBlocks>> blocks;
    std::vector<std::shared_ptr<const EncodedChunk>> chunks;
  };

  explicit TierTable(size_t memory_budget) : memory_budget_(memory_budget) {}

  const Entry* Find(const ChunkKey& key) const;
  // The keys of a text's entries. Looks at all entries.
  std::vector<ChunkKey> KeysOf(std::string_view name_space, const Digest128& tokens) const;
  void Touch(const ChunkKey& key);  // most recently used, in each tier that holds it
  bool FitsMemory(const EncodedChunk& chunk) const { return chunk.bytes() <= memory_budget_; }
  // The tokens must be those of the entry, if there is one. Memory evicts others to keep the
  // budget; a chunk larger than all of it is not taken.
  void SetMemory(const ChunkKey& key, const SharedTokens& token_ids,
                 std::shared_ptr<const EncodedChunk> chunk, Dropped& dropped);
  void SetPool(const ChunkKey& key, const SharedTokens& token_ids,
               std::shared_ptr<const KvBlocks> blocks, Dropped& dropped);
  bool Erase(const ChunkKey& key, Dropped& dropped);
  void ErasePool(const ChunkKey& key, Dropped& dropped);
  // Drops unused pool entries, least recently used first, until `blocks` blocks are dropped.
  int32_t EvictPool(int32_t blocks, Dropped& dropped);
  void EvictMemory(size_t budget, Dropped& dropped);

  uint64_t pool_chunks() const { return pool_order_.size(); }
  uint64_t pool_blocks() const { return pool_blocks_; }
  uint64_t memory_chunks() const { return memory_order_.size(); }
  uint64_t memory_bytes() const { return memory_bytes_; }
  uint64_t memory_budget() const { return memory_budget_; }

 private:
  struct Slot;
  using Map = std::unordered_map<ChunkKey, Slot, ChunkKeyHash>;
  using Order = std::list<const ChunkKey*>;  // most recently used first; points into the map
  struct Slot {
    Entry entry;
    Order::iterator memory_at, pool_at;  // valid while the entry is in that tier
  };

  Map::iterator Place(const ChunkKey& key, const SharedTokens& token_ids);
  void LeaveMemory(Slot& slot, Dropped& dropped);
  void LeavePool(Slot& slot, Dropped& dropped);
  void ForgetIfEmpty(Map::iterator at);

  size_t memory_budget_;
  Map map_;
  Order memory_order_, pool_order_;
  size_t memory_bytes_ = 0;
  uint64_t pool_blocks_ = 0;
};

}  // namespace kvasir

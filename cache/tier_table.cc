#include "cache/tier_table.h"

#include <algorithm>

namespace kvasir {

bool SameTokens(const SharedTokens& stored, std::span<const int32_t> token_ids) {
  return std::equal(stored->begin(), stored->end(), token_ids.begin(), token_ids.end());
}

const TierTable::Entry* TierTable::Find(const ChunkKey& key) const {
  const auto at = map_.find(key);
  return at == map_.end() ? nullptr : &at->second.entry;
}

std::vector<ChunkKey> TierTable::KeysOf(std::string_view name_space,
                                        const Digest128& tokens) const {
  std::vector<ChunkKey> keys;
  for (const auto& [key, slot] : map_) {
    if (key.tokens == tokens && key.name_space == name_space) keys.push_back(key);
  }
  return keys;
}

void TierTable::Touch(const ChunkKey& key) {
  const auto at = map_.find(key);
  if (at == map_.end()) return;
  Slot& slot = at->second;
  if (slot.entry.memory) memory_order_.splice(memory_order_.begin(), memory_order_, slot.memory_at);
  if (slot.entry.pool) pool_order_.splice(pool_order_.begin(), pool_order_, slot.pool_at);
}

TierTable::Map::iterator TierTable::Place(const ChunkKey& key, const SharedTokens& token_ids) {
  const auto [at, fresh] = map_.try_emplace(key);
  if (fresh) at->second.entry.token_ids = token_ids;
  return at;
}

void TierTable::SetMemory(const ChunkKey& key, const SharedTokens& token_ids,
                          std::shared_ptr<const EncodedChunk> chunk, Dropped& dropped) {
  if (!FitsMemory(*chunk)) return;
  const auto at = Place(key, token_ids);
  Slot& slot = at->second;
  LeaveMemory(slot, dropped);
  memory_bytes_ += chunk->bytes();
  slot.entry.memory = std::move(chunk);
  slot.memory_at = memory_order_.insert(memory_order_.begin(), &at->first);
  EvictMemory(memory_budget_, dropped);
}

void TierTable::SetPool(const ChunkKey& key, const SharedTokens& token_ids,
                        std::shared_ptr<const KvBlocks> blocks, Dropped& dropped) {
  const auto at = Place(key, token_ids);
  Slot& slot = at->second;
  LeavePool(slot, dropped);
  pool_blocks_ += blocks->ids().size();
  slot.entry.pool = std::move(blocks);
  slot.pool_at = pool_order_.insert(pool_order_.begin(), &at->first);
}

void TierTable::LeaveMemory(Slot& slot, Dropped& dropped) {
  if (!slot.entry.memory) return;
  memory_bytes_ -= slot.entry.memory->bytes();
  memory_order_.erase(slot.memory_at);
  dropped.chunks.push_back(std::move(slot.entry.memory));
  slot.entry.memory = nullptr;
}

void TierTable::LeavePool(Slot& slot, Dropped& dropped) {
  if (!slot.entry.pool) return;
  pool_blocks_ -= slot.entry.pool->ids().size();
  pool_order_.erase(slot.pool_at);
  dropped.blocks.push_back(std::move(slot.entry.pool));
  slot.entry.pool = nullptr;
}

void TierTable::ForgetIfEmpty(Map::iterator at) {
  if (!at->second.entry.memory && !at->second.entry.pool) map_.erase(at);
}

bool TierTable::Erase(const ChunkKey& key, Dropped& dropped) {
  const auto at = map_.find(key);
  if (at == map_.end()) return false;
  LeaveMemory(at->second, dropped);
  LeavePool(at->second, dropped);
  map_.erase(at);
  return true;
}

void TierTable::ErasePool(const ChunkKey& key, Dropped& dropped) {
  const auto at = map_.find(key);
  if (at == map_.end()) return;
  LeavePool(at->second, dropped);
  ForgetIfEmpty(at);
}

int32_t TierTable::EvictPool(int32_t blocks, Dropped& dropped) {
  int32_t freed = 0;
  for (auto it = pool_order_.end(); it != pool_order_.begin() && freed < blocks;) {
    --it;
    const auto at = map_.find(**it);
    // Only this table can make new owners, so a count of one cannot grow behind our back.
    if (at->second.entry.pool.use_count() > 1) continue;
    freed += static_cast<int32_t>(at->second.entry.pool->ids().size());
    ++it;  // past the node that is about to go
    LeavePool(at->second, dropped);
    ForgetIfEmpty(at);
  }
  return freed;
}

void TierTable::EvictMemory(size_t budget, Dropped& dropped) {
  while (memory_bytes_ > budget) {
    const auto at = map_.find(*memory_order_.back());
    LeaveMemory(at->second, dropped);
    ForgetIfEmpty(at);
  }
}

}  // namespace kvasir

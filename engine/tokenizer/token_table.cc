#include "engine/tokenizer/token_table.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace kvasir {
namespace {

uint64_t Mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace

uint64_t HashBytes(std::string_view bytes) {
  constexpr uint64_t kSeed = 0x9E3779B97F4A7C15u, kStep = 0xD6E8FEB86659FD93u;
  uint64_t hash = kSeed ^ bytes.size();
  const char* at = bytes.data();
  size_t left = bytes.size();
  for (; left > 8; left -= 8, at += 8) {
    uint64_t word;
    std::memcpy(&word, at, sizeof word);
    hash = Mix(hash ^ word, kStep);
  }
  uint64_t word = 0;
  if (left > 0) std::memcpy(&word, at, left);
  return Mix(hash ^ word, kStep);
}

void TokenTable::Reserve(size_t tokens, size_t bytes) {
  ends_.reserve(tokens + 1);
  bytes_.reserve(bytes);
}

int32_t TokenTable::Add(std::string_view text) {
  bytes_.append(text);
  ends_.push_back(static_cast<uint32_t>(bytes_.size()));
  return size() - 1;
}

void TokenTable::AllocateSlots() {
  slots_.assign(std::bit_ceil(2 * std::max<size_t>(ends_.size(), 8)), Slot{});
}

void TokenTable::Insert(int32_t id) {
  const std::string_view text = Text(id);
  if (text.empty()) return;
  const uint64_t hash = HashBytes(text);
  const auto tag = static_cast<uint32_t>(hash >> 32);
  size_t at = hash & (slots_.size() - 1);
  for (; slots_[at].id >= 0; at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].tag == tag && Text(slots_[at].id) == text) return;
  }
  slots_[at] = {tag, id};
  longest_ = std::max(longest_, text.size());
}

int32_t TokenTable::Find(std::string_view text) const {
  if (text.empty() || text.size() > longest_) return -1;
  const uint64_t hash = HashBytes(text);
  const auto tag = static_cast<uint32_t>(hash >> 32);
  for (size_t at = hash & (slots_.size() - 1); slots_[at].id >= 0;
       at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].tag == tag && Text(slots_[at].id) == text) return slots_[at].id;
  }
  return -1;
}

}  // namespace kvasir

// FlatMap: a hash table from 64-bit keys to small values, filled once and then only read.
//
// Open addressing in one vector; a miss touches one cache line as a rule. Thread-safe for reading.
// The key ~0 is not allowed.
#pragma once

#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

namespace kvasir {

template <typename Value>
class FlatMap {
 public:
  // The value of `key`; nullptr if there is none.
  const Value* Find(uint64_t key) const {
    for (size_t at = Home(key);; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].first == key) return &slots_[at].second;
      if (slots_[at].first == kFree) return nullptr;
    }
  }

  // Inserts unless the key is there already; the value that the table then holds.
  Value& Insert(uint64_t key, const Value& value) {
    if (2 * (size_ + 1) > slots_.size()) Grow();
    for (size_t at = Home(key);; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].first == key) return slots_[at].second;
      if (slots_[at].first != kFree) continue;
      ++size_;
      slots_[at] = {key, value};
      return slots_[at].second;
    }
  }

  size_t size() const { return size_; }

 private:
  static constexpr uint64_t kFree = ~uint64_t{0};
  using Slot = std::pair<uint64_t, Value>;

  size_t Home(uint64_t key) const {
    const uint64_t mixed = (key ^ (key >> 32)) * 0x9E3779B97F4A7C15u;
    return (mixed >> 32) & (slots_.size() - 1);
  }
  void Grow() {
    std::vector<Slot> old(2 * slots_.size(), Slot{kFree, Value{}});
    old.swap(slots_);
    size_ = 0;
    for (const Slot& slot : old) {
      if (slot.first != kFree) Insert(slot.first, slot.second);
    }
  }

  std::vector<Slot> slots_ = std::vector<Slot>(16, Slot{kFree, Value{}});
  size_t size_ = 0;
};

}  // namespace kvasir

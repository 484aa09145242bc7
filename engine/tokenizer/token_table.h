// TokenTable: the texts of a vocabulary in one block of memory, and the way back from text to id.
//
// Filled once, then read from any thread. Ids are 0, 1, 2, ... in the order of Add.
// Limits: 2^31 - 1 tokens, 4 GiB of text (callers check the sizes a file claims).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir {

// A fast 64-bit hash of bytes, equal on every run.
uint64_t HashBytes(std::string_view bytes);

class TokenTable {
 public:
  void Reserve(size_t tokens, size_t bytes);
  int32_t Add(std::string_view text);
  // Makes every token with wanted(id) findable by its text; empty texts never are, and of equal
  // texts the lowest id wins. Call once, after the last Add.
  template <typename Wanted>
  void BuildIndex(const Wanted& wanted) {
    AllocateSlots();
    for (int32_t id = 0; id < size(); ++id) {
      if (wanted(id)) Insert(id);
    }
  }

  int32_t Find(std::string_view text) const;  // -1 if there is none
  std::string_view Text(int32_t id) const {
    const auto i = static_cast<size_t>(id);
    return {bytes_.data() + ends_[i], ends_[i + 1] - ends_[i]};
  }
  int32_t size() const { return static_cast<int32_t>(ends_.size()) - 1; }
  bool Contains(int32_t id) const { return id >= 0 && id < size(); }
  size_t longest() const { return longest_; }  // bytes of the longest findable text

 private:
  struct Slot {
    uint32_t tag = 0;  // upper half of the hash
    int32_t id = -1;   // -1 = free
  };
  void AllocateSlots();
  void Insert(int32_t id);

  std::string bytes_;
  std::vector<uint32_t> ends_{0};    // text of id: [ends_[id], ends_[id + 1])
  std::vector<Slot> slots_{Slot{}};  // open addressing, a power of two, at most half full
  size_t longest_ = 0;
};

}  // namespace kvasir

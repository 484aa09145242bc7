// WordCache: ids of words that were tokenized lately, one direct-mapped table a thread (256 KiB).
//
// Words repeat: on English prose nine of ten are found here. A word that hashes to an occupied
// entry replaces it; long words and words of many tokens are not kept. Entries name the tokenizer
// they come from by a number that is never used again, so that tokenizers may come and go.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "engine/tokenizer/token_table.h"

namespace kvasir {

class WordCache {
 public:
  static WordCache& OfThisThread() {
    thread_local WordCache cache;
    return cache;
  }
  static uint64_t NewOwner() {
    static std::atomic<uint64_t> last{0};
    return ++last;
  }

  // Appends the ids of `word` if they are known; whether they are.
  bool Append(uint64_t owner, std::string_view word, std::vector<int32_t>* ids) const {
    if (word.size() > kLongest) return false;
    const Entry& entry = entries_[Home(word)];
    if (entry.owner != owner || entry.length != word.size() ||
        std::memcmp(entry.text.data(), word.data(), word.size()) != 0) {
      return false;
    }
    ids->insert(ids->end(), entry.ids.begin(), entry.ids.begin() + entry.count);
    return true;
  }

  // Keeps ids[from, end) as those of `word`, if they fit.
  void Store(uint64_t owner, std::string_view word, const std::vector<int32_t>& ids, size_t from) {
    if (word.size() > kLongest || ids.size() - from > kMostIds) return;
    Entry& entry = entries_[Home(word)];
    entry.owner = owner;
    entry.length = static_cast<uint8_t>(word.size());
    entry.count = static_cast<uint8_t>(ids.size() - from);
    std::memcpy(entry.text.data(), word.data(), word.size());
    std::memcpy(entry.ids.data(), ids.data() + from, (ids.size() - from) * sizeof(int32_t));
  }

 private:
  static constexpr size_t kEntries = 4096, kLongest = 30, kMostIds = 6;
  struct alignas(64) Entry {
    uint64_t owner = 0;  // 0 = free
    uint8_t length = 0, count = 0;
    std::array<char, kLongest> text{};
    std::array<int32_t, kMostIds> ids{};
  };
  static_assert(sizeof(Entry) == 64);
  static size_t Home(std::string_view word) { return HashBytes(word) & (kEntries - 1); }

  std::unique_ptr<Entry[]> entries_ = std::make_unique<Entry[]>(kEntries);
};

}  // namespace kvasir

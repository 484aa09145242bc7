// MergeSymbols: byte-pair encoding of one word: joins the adjacent pair of best priority, leftmost
// first, until no pair can be joined.
//
// `lookup(left, right)` says what two adjacent symbols join to. Short words are scanned, long ones
// go through a heap: O(n log n) for any input, with equal results.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace kvasir {

struct Symbol {
  uint32_t begin = 0, end = 0;  // bytes of the word
  int32_t id = -1;              // -1 = not in the vocabulary
};

// What a pair of symbols joins to.
struct Merge {
  uint32_t priority = 0;  // lower goes first
  int32_t id = -1;        // -1 = the pair cannot be joined
};

// Reused from word to word, so that words cost no allocation. One per thread.
struct MergeScratch {
  struct Entry {
    uint64_t order;  // priority << 32 | index of the left symbol
    uint32_t end;    // of the right symbol: an entry whose pair has changed is stale
    int32_t id;
    bool operator<(const Entry& other) const { return order > other.order; }  // for max-heaps
  };
  std::vector<Symbol> symbols;
  std::vector<Merge> merges;
  std::vector<Entry> heap;
  std::vector<int32_t> next, previous;
};

namespace internal {

inline constexpr size_t kScannedSymbols = 32;

template <typename Lookup>
void MergeByScan(const Lookup& lookup, MergeScratch* scratch) {
  auto& symbols = scratch->symbols;
  auto& merges = scratch->merges;
  merges.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    merges.push_back(lookup(symbols[i], symbols[i + 1]));
  }
  const auto better = [](const Merge& a, const Merge& b) {
    return a.id >= 0 && (b.id < 0 || a.priority < b.priority);
  };
  while (!merges.empty()) {
    const auto best = std::min_element(merges.begin(), merges.end(), better);
    if (best->id < 0) return;
    const auto i = static_cast<size_t>(best - merges.begin());
    symbols[i] = {symbols[i].begin, symbols[i + 1].end, best->id};
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(i) + 1);
    merges.erase(best);
    if (i > 0) merges[i - 1] = lookup(symbols[i - 1], symbols[i]);
    if (i < merges.size()) merges[i] = lookup(symbols[i], symbols[i + 1]);
  }
}

// The list of living symbols and the queue of pairs.
template <typename Lookup>
class HeapMerger {
 public:
  HeapMerger(const Lookup& lookup, MergeScratch* scratch)
      : lookup_(lookup), s_(*scratch), count_(static_cast<int32_t>(s_.symbols.size())) {
    s_.heap.clear();
    s_.next.resize(s_.symbols.size());
    s_.previous.resize(s_.symbols.size());
    for (int32_t i = 0; i < count_; ++i) {
      s_.next[Index(i)] = i + 1;
      s_.previous[Index(i)] = i - 1;
    }
    for (int32_t i = 0; i + 1 < count_; ++i) Push(i);
  }

  void Run() {
    while (!s_.heap.empty()) {
      std::pop_heap(s_.heap.begin(), s_.heap.end());
      const MergeScratch::Entry entry = s_.heap.back();
      s_.heap.pop_back();
      const auto left = static_cast<int32_t>(entry.order & 0xFFFFFFFFu);
      if (IsCurrent(left, entry)) Join(left, entry.id);
    }
    Compact();
  }

 private:
  static size_t Index(int32_t i) { return static_cast<size_t>(i); }
  Symbol& At(int32_t i) { return s_.symbols[Index(i)]; }

  void Push(int32_t left) {
    const int32_t right = s_.next[Index(left)];
    if (right >= count_) return;
    const Merge merge = lookup_(At(left), At(right));
    if (merge.id < 0) return;
    s_.heap.push_back(
        {uint64_t{merge.priority} << 32 | static_cast<uint32_t>(left), At(right).end, merge.id});
    std::push_heap(s_.heap.begin(), s_.heap.end());
  }
  // A joined symbol's `next` is -1; a grown pair ends elsewhere.
  bool IsCurrent(int32_t left, const MergeScratch::Entry& entry) {
    const int32_t right = s_.next[Index(left)];
    return right >= 0 && right < count_ && At(right).end == entry.end;
  }
  void Join(int32_t left, int32_t id) {
    const int32_t right = s_.next[Index(left)], after = s_.next[Index(right)];
    At(left) = {At(left).begin, At(right).end, id};
    s_.next[Index(right)] = -1;
    s_.next[Index(left)] = after;
    if (after < count_) s_.previous[Index(after)] = left;
    if (s_.previous[Index(left)] >= 0) Push(s_.previous[Index(left)]);
    Push(left);
  }
  void Compact() {
    size_t kept = 0;
    for (int32_t i = 0; i < count_; i = s_.next[Index(i)]) s_.symbols[kept++] = At(i);
    s_.symbols.resize(kept);
  }

  const Lookup& lookup_;
  MergeScratch& s_;
  int32_t count_;
};

}  // namespace internal

// Joins scratch->symbols in place.
template <typename Lookup>
void MergeSymbols(const Lookup& lookup, MergeScratch* scratch) {
  if (scratch->symbols.size() <= internal::kScannedSymbols) {
    internal::MergeByScan(lookup, scratch);
  } else {
    internal::HeapMerger<Lookup>(lookup, scratch).Run();
  }
}

}  // namespace kvasir

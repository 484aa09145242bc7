#include "retrieval/near_duplicate.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace kvasir {
namespace {

// Bytes beyond ASCII count as letters.
bool IsWordByte(char c) {
  return static_cast<unsigned char>(c) >= 0x80 || std::isalnum(static_cast<unsigned char>(c));
}

uint64_t Mix(uint64_t state, uint64_t value) {
  state = (state ^ value) * 0x9E3779B97F4A7C15;
  return state ^ (state >> 29);
}

}  // namespace

NearDuplicates::Pairs NearDuplicates::PairsOf(std::string_view text) {
  Pairs words;
  for (size_t i = 0; i < text.size();) {
    if (!IsWordByte(text[i])) {
      ++i;
      continue;
    }
    uint64_t word = 1;
    for (; i < text.size() && IsWordByte(text[i]); ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      word = Mix(word, byte < 0x80 ? static_cast<unsigned char>(std::tolower(byte)) : byte);
    }
    words.push_back(word);
  }
  Pairs pairs;
  for (size_t i = 1; i < words.size(); ++i) pairs.push_back(Mix(words[i - 1], words[i]));
  if (words.size() == 1) pairs = words;
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  return pairs;
}

double NearDuplicates::Overlap(const Pairs& a, const Pairs& b) {
  size_t shared = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i] == b[j]) ++shared;
    const bool step_a = a[i] <= b[j], step_b = b[j] <= a[i];
    i += step_a;
    j += step_b;
  }
  const size_t all = a.size() + b.size() - shared;
  return all == 0 ? 1.0 : static_cast<double>(shared) / static_cast<double>(all);
}

bool NearDuplicates::SeenOrAdd(std::string_view text) {
  Pairs pairs = PairsOf(text);
  for (const Pairs& other : seen_) {
    if (pairs == other || Overlap(pairs, other) >= overlap_) return true;
  }
  seen_.push_back(std::move(pairs));
  return false;
}

}  // namespace kvasir

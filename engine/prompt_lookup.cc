#include "engine/prompt_lookup.h"

#include <algorithm>

namespace kvasir {

PromptLookup::PromptLookup(const PromptPlan& prompt) {
  for (const SegmentPlan& segment : prompt.segments) {
    for (const int32_t token : segment.token_ids) Append(token);
  }
}

// FNV-1a over the last tokens. Places are compared before they are used.
uint64_t PromptLookup::HashOfLast(int length) const {
  uint64_t hash = 14695981039346656037ULL;
  for (size_t i = text_.size() - static_cast<size_t>(length); i < text_.size(); ++i) {
    hash = (hash ^ static_cast<uint32_t>(text_[i])) * 1099511628211ULL;
  }
  return hash;
}

bool PromptLookup::SameAsLast(size_t end, int length) const {
  return std::equal(text_.end() - length, text_.end(),
                    text_.begin() + std::ptrdiff_t(end) - length);
}

// What the text ends with is entered when something follows it.
void PromptLookup::Append(int32_t token) {
  for (int length = kShortestMatch; length <= kLongestMatch; ++length) {
    if (text_.size() < static_cast<size_t>(length)) break;
    places_[static_cast<size_t>(length - kShortestMatch)][HashOfLast(length)] = text_.size();
  }
  text_.push_back(token);
}

// How many tokens before `end` are those that the text ends with.
int32_t PromptLookup::MatchBefore(size_t end) const {
  int32_t length = 0;
  while (length < kLongestCounted && static_cast<size_t>(length) < end &&
         text_[end - 1 - static_cast<size_t>(length)] ==
             text_[text_.size() - 1 - static_cast<size_t>(length)]) {
    ++length;
  }
  return length;
}

Guess PromptLookup::Draft(int32_t most) {
  Guess guess;
  for (int length = kLongestMatch; length >= kShortestMatch; --length) {
    if (most < 1 || text_.size() < static_cast<size_t>(length)) continue;
    const auto& places = places_[static_cast<size_t>(length - kShortestMatch)];
    const auto found = places.find(HashOfLast(length));
    if (found == places.end() || !SameAsLast(found->second, length)) continue;
    const auto begin = text_.begin() + std::ptrdiff_t(found->second);
    guess.tokens = {begin, begin + std::min<std::ptrdiff_t>(most, text_.end() - begin)};
    const int32_t matched = MatchBefore(found->second);
    for (size_t k = 1; k <= guess.tokens.size(); ++k) {
      guess.expected += ChanceBehind(matched, static_cast<int32_t>(k));
    }
    break;
  }
  return guess;
}

}  // namespace kvasir

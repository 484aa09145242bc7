#include "engine/suffix_index.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <unordered_set>

namespace kvasir {
namespace {

constexpr int32_t kAnswerEnd = std::numeric_limits<int32_t>::min();
constexpr int kMostWays = 64;  // with more, none is likely

}  // namespace

int32_t SuffixIndex::TokenAt(const Suffix& suffix, int32_t depth) {
  const size_t at = suffix.offset + static_cast<size_t>(depth);
  if (at == 0) return kAnswerBegin;
  const std::vector<int32_t>& tokens = suffix.answer->tokens;
  return at <= tokens.size() ? tokens[at - 1] : kAnswerEnd;
}

bool SuffixIndex::Less(const Suffix& a, const Suffix& b) {
  for (int32_t depth = 0; depth < kDepth; ++depth) {
    const int32_t left = TokenAt(a, depth), right = TokenAt(b, depth);
    if (left != right) return left < right;
    if (left == kAnswerEnd) return false;
  }
  return false;
}

SuffixIndex::SuffixIndex(const SuffixIndex& before, const Answers& added, const Answers& gone) {
  std::unordered_set<const PastAnswer*> without;
  for (const auto& answer : gone) without.insert(answer.get());
  std::copy_if(before.answers_.begin(), before.answers_.end(), std::back_inserter(answers_),
               [&](const auto& answer) { return !without.contains(answer.get()); });
  answers_.insert(answers_.end(), added.begin(), added.end());
  std::vector<Suffix> fresh;
  for (const auto& answer : added) {
    // The last token alone has nothing behind it.
    for (size_t i = 0; i < answer->tokens.size(); ++i) {
      fresh.push_back({answer.get(), static_cast<uint32_t>(i), 0});
    }
  }
  std::stable_sort(fresh.begin(), fresh.end(), Less);
  std::vector<Suffix> kept;
  std::copy_if(before.suffixes_.begin(), before.suffixes_.end(), std::back_inserter(kept),
               [&](const Suffix& suffix) { return !without.contains(suffix.answer); });
  suffixes_.reserve(kept.size() + fresh.size());
  std::merge(kept.begin(), kept.end(), fresh.begin(), fresh.end(), std::back_inserter(suffixes_),
             Less);
  for (Suffix& suffix : suffixes_) {
    suffix.before = times_;
    times_ += suffix.answer->times;
  }
}

uint32_t SuffixIndex::TimesOf(const Range& range) const {
  const auto before = [&](size_t at) {
    return at == suffixes_.size() ? times_ : suffixes_[at].before;
  };
  return before(range.end) - before(range.begin);
}

SuffixIndex::Range SuffixIndex::WithToken(const Range& range, int32_t depth, int32_t token) const {
  const auto begin = suffixes_.begin() + static_cast<std::ptrdiff_t>(range.begin);
  const auto end = suffixes_.begin() + static_cast<std::ptrdiff_t>(range.end);
  const auto low = std::partition_point(
      begin, end, [&](const Suffix& suffix) { return TokenAt(suffix, depth) < token; });
  const auto high = std::partition_point(
      low, end, [&](const Suffix& suffix) { return TokenAt(suffix, depth) <= token; });
  return {static_cast<size_t>(low - suffixes_.begin()),
          static_cast<size_t>(high - suffixes_.begin())};
}

SuffixIndex::Range SuffixIndex::Matching(std::span<const int32_t> pattern) const {
  Range range{0, suffixes_.size()};
  for (size_t depth = 0; depth < pattern.size() && !range.empty(); ++depth) {
    range = WithToken(range, static_cast<int32_t>(depth), pattern[depth]);
  }
  return range;
}

SuffixIndex::Range SuffixIndex::Likeliest(const Range& range, int32_t depth) const {
  Range best, rest = range;
  int ways = 0;
  while (!rest.empty()) {
    if (++ways > kMostWays) return {};
    const Range way = WithToken(rest, depth, TokenAt(suffixes_[rest.begin], depth));
    if (best.empty() || TimesOf(way) > TimesOf(best)) best = way;
    rest.begin = way.end;
  }
  if (best.empty() || TokenAt(suffixes_[best.begin], depth) == kAnswerEnd) return {};
  return best;
}

Guess SuffixIndex::Follow(Range range, int32_t matched, int32_t most) const {
  Guess guess;
  guess.source = DraftSource::kAnswers;
  double share = 1;
  for (int32_t k = 1; k <= std::min(most, kDepth - matched); ++k) {
    const int32_t depth = matched + k - 1;
    const Range next = Likeliest(range, depth);
    if (next.empty()) break;
    share *= static_cast<double>(TimesOf(next)) / TimesOf(range);
    const double chance = share * ChanceBehind(matched, k);
    if (chance < kLeastChance) break;
    guess.tokens.push_back(TokenAt(suffixes_[next.begin], depth));
    guess.expected += chance;
    range = next;
  }
  return guess;
}

Guess SuffixIndex::Draft(std::span<const int32_t> tail, int32_t most) const {
  Guess best;
  best.source = DraftSource::kAnswers;
  if (most < 1 || suffixes_.empty()) return best;
  // Where few tokens match nothing, more of them do not either: mostly one look suffices.
  const auto longest = std::min<size_t>(tail.size(), kLongestMatch);
  for (auto length = static_cast<size_t>(kShortestMatch); length <= longest; ++length) {
    const Range range = Matching(tail.last(length));
    if (range.empty()) break;
    Guess guess = Follow(range, static_cast<int32_t>(length), most);
    if (guess.expected >= best.expected) best = std::move(guess);
  }
  return best;
}

}  // namespace kvasir

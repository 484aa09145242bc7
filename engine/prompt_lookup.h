// PromptLookup: drafts what followed the answer's last tokens where they stood before, in the
// prompt or in the answer. Answers over documents quote them, so it hits where caching pays.
//
// The longest of kLongestMatch ... kShortestMatch last tokens that has stood before counts, at its
// latest place. Time: a few hash look-ups a token; memory: an entry a token and length.
// Source: prompt lookup decoding (Saxena 2023), LLMA (Yang et al. 2023).
#pragma once

#include <array>
#include <unordered_map>

#include "engine/drafter.h"
#include "kernels/core/prompt_plan.h"

namespace kvasir {

class PromptLookup final : public Drafter {
 public:
  static constexpr int kShortestMatch = 2, kLongestMatch = 4;
  static constexpr int32_t kLongestCounted = 16;  // of a match's length, for what to expect of it

  explicit PromptLookup(const PromptPlan& prompt);
  void Append(int32_t token) override;
  Guess Draft(int32_t most) override;

 private:
  uint64_t HashOfLast(int length) const;
  bool SameAsLast(size_t end, int length) const;
  int32_t MatchBefore(size_t end) const;

  std::vector<int32_t> text_;
  // By length: hash of the tokens -> the place behind them.
  std::array<std::unordered_map<uint64_t, size_t>, kLongestMatch - kShortestMatch + 1> places_;
};

}  // namespace kvasir

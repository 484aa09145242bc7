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

  explicit PromptLookup(const PromptPlan& prompt);
  void Append(int32_t token) override;
  std::vector<int32_t> Draft(int32_t most) const override;

 private:
  uint64_t HashOfLast(int length) const;
  bool SameAsLast(size_t end, int length) const;

  std::vector<int32_t> text_;
  // By length: hash of the tokens -> the place behind them.
  std::array<std::unordered_map<uint64_t, size_t>, kLongestMatch - kShortestMatch + 1> places_;
};

}  // namespace kvasir

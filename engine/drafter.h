// Drafter: guesses the next tokens of one answer; the engine verifies them all in one step.
//
// One object an answer, on the engine's thread alone; it must not block. A wrong guess costs the
// rows that verified it, never the answer: every token is drawn from the model's own distribution
// as without drafts. A drafter that throws is dropped, and the answer goes on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace kvasir {

// Where a guess comes from.
enum class DraftSource : uint8_t { kPrompt, kAnswers, kModel };
inline constexpr size_t kDraftSources = 3;

constexpr std::string_view DraftSourceName(DraftSource source) {
  if (source == DraftSource::kPrompt) return "prompt_lookup";
  return source == DraftSource::kAnswers ? "answers" : "draft_model";
}

struct Guess {
  std::vector<int32_t> tokens;
  double expected = 0;  // how many of them are likely right, to compare guesses by
  DraftSource source = DraftSource::kPrompt;
};

// The chance taken for the k-th token (from 1) behind a match of `matched` tokens that went on in
// one way only: each token behind a match of m is right in m of m + 1 cases, so the product is
// matched / (matched + k).
constexpr double ChanceBehind(int32_t matched, int32_t k) {
  return static_cast<double>(matched) / (matched + k);
}

class Drafter {
 public:
  virtual ~Drafter() = default;
  // The answer went on by this token.
  virtual void Append(int32_t token) = 0;
  // At most `most` tokens that may follow; none without a good guess.
  virtual Guess Draft(int32_t most) = 0;
};

}  // namespace kvasir

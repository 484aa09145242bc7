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
enum class DraftSource : uint8_t { kPrompt, kAnswers, kModel, kDraftRun };
inline constexpr size_t kDraftSources = 4;

constexpr std::string_view DraftSourceName(DraftSource source) {
  constexpr std::string_view kNames[kDraftSources] = {"prompt_lookup", "answers", "draft_model",
                                                      "draft_run"};
  return kNames[static_cast<size_t>(source)];
}

// Tokens of a guess, unless its drafter says otherwise.
inline constexpr int32_t kMostDrafts = 8;

struct Guess {
  std::vector<int32_t> tokens;
  double expected = 0;  // how many of them are likely right, to compare guesses by
  DraftSource source = DraftSource::kPrompt;
  bool whole = false;  // verified as it is, without asking how many drafts pay
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
  // It is never asked for more.
  virtual int32_t Most() const { return kMostDrafts; }
};

}  // namespace kvasir

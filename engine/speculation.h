// Speculation: how many tokens are worth drafting, from what verifying costs on this machine and
// how many drafts were right.
//
// A step of r rows takes about a + b r seconds, by decayed least squares over the steps that only
// decode. With a share p of right drafts, k of them bring (1 - p^(k+1)) / (1 - p) tokens a step.
// The k that brings most tokens a second is taken; none is where verifying costs more than it
// brings, and then every kProbeEvery-th guess is tried all the same, so that p stays known.
// Pure state without clocks; the engine's thread alone.
#pragma once

#include <cstdint>

namespace kvasir {

inline constexpr int32_t kMostDrafts = 8;

// Of one answer.
struct DraftRecord {
  int64_t drafted = 0, accepted = 0;
  // Decayed; they begin as if four drafts had been tried and two been right.
  double tried = 4, right = 2;
  int32_t declined = 0;  // guesses since the last one that was tried

  double share() const { return right / tried; }
};

class Speculation {
 public:
  static constexpr int32_t kProbeEvery = 16;

  // A step that only decoded.
  void RecordStep(int32_t rows, double seconds);
  // Drafts of one answer in a step that has `rows_beside` rows of others; 0 = do not draft.
  int32_t Length(const DraftRecord& record, int32_t rows_beside) const;
  // The same, with its turn among the probes.
  int32_t NextLength(DraftRecord* record, int32_t rows_beside) const;
  // `accepted` of `drafted` were right; those behind the first wrong one were not tried.
  static void RecordDrafts(int32_t drafted, int32_t accepted, DraftRecord* record);

  // Estimated seconds of a step of so many rows, relative to one row; 1 + (rows - 1) / 8 until
  // steps of several sizes were seen.
  double Cost(int32_t rows) const;

 private:
  double weight_ = 0, rows_ = 0, seconds_ = 0, squares_ = 0, products_ = 0;  // decayed sums
};

}  // namespace kvasir

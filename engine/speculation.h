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

#include "engine/drafter.h"

namespace kvasir {

// Of one answer.
struct DraftRecord {
  int64_t drafted = 0, accepted = 0;
  // Decayed; they begin as if four drafts had been tried and two been right.
  double tried = 4, right = 2;
  int32_t declined = 0;  // guesses since the last one that was tried

  double share() const { return right / tried; }
};

// What steps of a model take: the line a + b rows through the steps seen, the older ones fading.
class StepTimes {
 public:
  void Record(int32_t rows, double seconds);
  // b / (a + b): what one more row costs beside the first; 1/8 until steps of several sizes were
  // seen.
  double Slope() const;
  double Seconds(int32_t rows) const;  // 0 = nothing seen

 private:
  double weight_ = 0, rows_ = 0, seconds_ = 0, squares_ = 0, products_ = 0;  // decayed sums
};

class Speculation {
 public:
  static constexpr int32_t kProbeEvery = 16;
  static constexpr double kDraftDecay = 0.9;  // a draft's weight halves in about 7

  // A step that only decoded.
  void RecordStep(int32_t rows, double seconds) { times_.Record(rows, seconds); }
  // Drafts of one answer in a step that has `rows_beside` rows of others; 0 = do not draft.
  // draft_cost: of making one draft, relative to a step of one row.
  int32_t Length(const DraftRecord& record, int32_t rows_beside, double draft_cost = 0) const;
  // Steps of one row that drafting the best length saves over `tokens` tokens of the answer.
  double Saved(const DraftRecord& record, int32_t rows_beside, double draft_cost,
               int32_t tokens) const;
  // The same, with its turn among the probes.
  int32_t NextLength(DraftRecord* record, int32_t rows_beside) const;
  // `accepted` of `drafted` were right; those behind the first wrong one were not tried.
  static void RecordDrafts(int32_t drafted, int32_t accepted, DraftRecord* record,
                           double decay = kDraftDecay);

  // Estimated seconds of a step of so many rows, relative to one row; 1 + (rows - 1) / 8 until
  // steps of several sizes were seen.
  double Cost(int32_t rows) const { return 1 + times_.Slope() * (rows - 1); }
  // Seconds of a step of one row; 0 = nothing seen.
  double OneRow() const { return times_.Seconds(1); }

 private:
  // Tokens that all of a step's answers gain in the time of a step of one row.
  double Rate(double share, int32_t drafts, int32_t rows_beside, double draft_cost) const;

  StepTimes times_;
};

}  // namespace kvasir

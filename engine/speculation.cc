#include "engine/speculation.h"

#include <algorithm>
#include <cmath>

namespace kvasir {
namespace {

constexpr double kStepDecay = 0.995;  // a step's weight halves in about 140
constexpr double kUnknownSlope = 1.0 / 8;

// Tokens that a step with k drafts brings, of which a share p is right.
double TokensOf(double p, int32_t k) {
  double tokens = 1, power = 1;
  for (int32_t i = 0; i < k; ++i) tokens += power *= p;
  return tokens;
}

}  // namespace

void StepTimes::Record(int32_t rows, double seconds) {
  if (rows < 1 || !(seconds > 0)) return;
  for (double* sum : {&weight_, &rows_, &seconds_, &squares_, &products_}) *sum *= kStepDecay;
  weight_ += 1;
  rows_ += rows;
  seconds_ += seconds;
  squares_ += double{1} * rows * rows;
  products_ += rows * seconds;
}

double StepTimes::Slope() const {
  const double spread = weight_ * squares_ - rows_ * rows_;
  if (weight_ > 0 && spread > 0.01 * weight_ * weight_) {
    const double b = (weight_ * products_ - rows_ * seconds_) / spread;
    const double one = (seconds_ - b * rows_) / weight_ + b;  // seconds of one row
    if (one > 0) return std::max(0.0, b / one);
  }
  return kUnknownSlope;
}

// The line of this slope through the mean of the steps.
double StepTimes::Seconds(int32_t rows) const {
  if (!(weight_ > 0)) return 0;
  const double slope = Slope();
  return seconds_ / weight_ * (1 + slope * (rows - 1)) / (1 + slope * (rows_ / weight_ - 1));
}

double Speculation::Rate(double share, int32_t drafts, int32_t rows_beside,
                         double draft_cost) const {
  return (rows_beside + TokensOf(share, drafts)) /
         (Cost(rows_beside + 1 + drafts) + drafts * draft_cost);
}

int32_t Speculation::Length(const DraftRecord& record, int32_t rows_beside,
                            double draft_cost) const {
  int32_t best = 0;
  double most = 0;
  for (int32_t k = 0; k <= kMostDrafts; ++k) {
    const double rate = Rate(record.share(), k, rows_beside, draft_cost);
    if (rate <= most * 1.02 && k > 0) continue;  // worth its noise
    most = rate;
    best = k;
  }
  return best;
}

double Speculation::Saved(const DraftRecord& record, int32_t rows_beside, double draft_cost,
                          int32_t tokens) const {
  const int32_t length = Length(record, rows_beside, draft_cost);
  const double without = Rate(record.share(), 0, rows_beside, draft_cost);
  const double with = Rate(record.share(), length, rows_beside, draft_cost);
  return double{1} * tokens * (rows_beside + 1) * (1 / without - 1 / with);
}

int32_t Speculation::NextLength(DraftRecord* record, int32_t rows_beside) const {
  const int32_t length = Length(*record, rows_beside);
  if (length > 0 || ++record->declined < kProbeEvery) return length;
  return 1;
}

void Speculation::RecordDrafts(int32_t drafted, int32_t accepted, DraftRecord* record,
                               double decay) {
  if (drafted == 0) return;
  record->declined = 0;
  record->drafted += drafted;
  record->accepted += accepted;
  const int32_t tried = std::min(drafted, accepted + 1);
  for (int32_t i = 0; i < tried; ++i) {
    record->tried = record->tried * decay + 1;
    record->right = record->right * decay + (i < accepted ? 1 : 0);
  }
}

}  // namespace kvasir

#include "engine/speculation.h"

#include <algorithm>
#include <cmath>

namespace kvasir {
namespace {

constexpr double kStepDecay = 0.995;  // a step's weight halves in about 140
constexpr double kDraftDecay = 0.9;   // a draft's in about 7
constexpr double kUnknownSlope = 1.0 / 8;

// Tokens that a step with k drafts brings, of which a share p is right.
double TokensOf(double p, int32_t k) {
  double tokens = 1, power = 1;
  for (int32_t i = 0; i < k; ++i) tokens += power *= p;
  return tokens;
}

}  // namespace

void Speculation::RecordStep(int32_t rows, double seconds) {
  if (rows < 1 || !(seconds > 0)) return;
  for (double* sum : {&weight_, &rows_, &seconds_, &squares_, &products_}) *sum *= kStepDecay;
  weight_ += 1;
  rows_ += rows;
  seconds_ += seconds;
  squares_ += double{1} * rows * rows;
  products_ += rows * seconds;
}

double Speculation::Cost(int32_t rows) const {
  double slope = kUnknownSlope;
  const double spread = weight_ * squares_ - rows_ * rows_;
  if (weight_ > 0 && spread > 0.01 * weight_ * weight_) {
    const double b = (weight_ * products_ - rows_ * seconds_) / spread;
    const double one = (seconds_ - b * rows_) / weight_ + b;  // seconds of one row
    if (one > 0) slope = std::max(0.0, b / one);
  }
  return 1 + slope * (rows - 1);
}

int32_t Speculation::Length(const DraftRecord& record, int32_t rows_beside) const {
  int32_t best = 0;
  double most = 0;
  for (int32_t k = 0; k <= kMostDrafts; ++k) {
    const double rate = (rows_beside + TokensOf(record.share(), k)) / Cost(rows_beside + 1 + k);
    if (rate <= most * 1.02 && k > 0) continue;  // worth its noise
    most = rate;
    best = k;
  }
  return best;
}

int32_t Speculation::NextLength(DraftRecord* record, int32_t rows_beside) const {
  const int32_t length = Length(*record, rows_beside);
  if (length > 0 || ++record->declined < kProbeEvery) return length;
  return 1;
}

void Speculation::RecordDrafts(int32_t drafted, int32_t accepted, DraftRecord* record) {
  if (drafted == 0) return;
  record->declined = 0;
  record->drafted += drafted;
  record->accepted += accepted;
  const int32_t tried = std::min(drafted, accepted + 1);
  for (int32_t i = 0; i < tried; ++i) {
    record->tried = record->tried * kDraftDecay + 1;
    record->right = record->right * kDraftDecay + (i < accepted ? 1 : 0);
  }
}

}  // namespace kvasir

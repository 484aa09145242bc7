// Which of the library's algorithms computes a product. Sums of fp32 depend on the order in which
// they are taken, and algorithms differ in it; a row's bits must not depend on how many rows lie
// beside it. So one algorithm per weight shape, the library's proposal for many rows that splits no
// sum, says what the bits are, and for every number of rows the fastest of those is taken that give
// exactly these bits on random rows. Clocks decide about time alone: the bits are the same in every
// run on the same card and library.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/status.h"

namespace kvasir::cuda {

// Algorithms are chosen for 16, 32, 64, ... 2048 rows, and those used up to so many (and beyond).
int64_t RowBucket(int64_t rows);
// Those that products of up to `most_rows` rows come upon.
std::vector<int64_t> RowBuckets(int64_t most_rows);

// Rows in which algorithms are compared: a larger product repeats them.
inline constexpr int64_t kProbeRows = 16;
// bf16 [kProbeRows][k], of magnitude about 1, the same in every run.
std::vector<uint16_t> MakeProbe(int64_t k);
// As many rows as a bucket's trial takes, a multiple of kProbeRows: fewer where inputs and outputs
// would need more than 256 MiB.
int64_t TrialRows(int64_t bucket, int64_t n, int64_t k);

// What can be tried.
class GemmTrials {
 public:
  virtual ~GemmTrials() = default;
  virtual int count() const = 0;
  // Whether algorithm `index` runs and gives the wanted bits in every row.
  virtual Result<bool> GivesSameBits(int index) = 0;
  virtual Result<double> Seconds(int index) = 0;
};

// The fastest that gives the same bits; -1 if none does. An error is the card's.
Result<int> ChooseAlgorithm(GemmTrials& trials);

}  // namespace kvasir::cuda

#include "kernels/cuda/gemm_choice.h"

#include <algorithm>

#include "kernels/core/dtype.h"

namespace kvasir::cuda {
namespace {

constexpr int64_t kMostRows = 2048;
constexpr int64_t kTrialBytes = int64_t{256} << 20;

}  // namespace

int64_t RowBucket(int64_t rows) {
  int64_t bucket = kProbeRows;
  while (bucket < rows && bucket < kMostRows) bucket *= 2;
  return bucket;
}

std::vector<int64_t> RowBuckets(int64_t most_rows) {
  std::vector<int64_t> buckets = {kProbeRows};
  while (buckets.back() < RowBucket(most_rows)) buckets.push_back(2 * buckets.back());
  return buckets;
}

std::vector<uint16_t> MakeProbe(int64_t k) {
  std::vector<uint16_t> probe(static_cast<size_t>(kProbeRows * k));
  uint64_t state = 0x9E3779B97F4A7C15u;
  for (uint16_t& value : probe) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    // Uniform in [-2, 2): sums of both signs, so that another order shows in the last bits.
    const float uniform = static_cast<float>(state >> 40) * 0x1p-22f - 2.0f;
    value = F32ToBF16(uniform);
  }
  return probe;
}

int64_t TrialRows(int64_t bucket, int64_t n, int64_t k) {
  const int64_t row_bytes = 2 * k + 4 * n;
  const int64_t most = kTrialBytes / row_bytes / kProbeRows * kProbeRows;
  return std::clamp<int64_t>(most, kProbeRows, bucket);
}

Result<int> ChooseAlgorithm(GemmTrials& trials) {
  int best = -1;
  double best_seconds = 0;
  for (int i = 0; i < trials.count(); ++i) {
    KVASIR_ASSIGN_OR_RETURN(const bool same, trials.GivesSameBits(i));
    if (!same) continue;
    KVASIR_ASSIGN_OR_RETURN(const double seconds, trials.Seconds(i));
    if (best >= 0 && seconds >= best_seconds) continue;
    best = i;
    best_seconds = seconds;
  }
  return best;
}

}  // namespace kvasir::cuda

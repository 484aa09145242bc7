// Trials of cuBLASLt's algorithms (gemm_choice.h) on the card: memory of their own, given back with
// the trials, random rows, and the weight that the product is about.
#pragma once

#include <vector>

#include "kernels/cuda/cublas_product.cuh"
#include "kernels/cuda/gemm_choice.h"

namespace kvasir::cuda {

// Device memory that dies with its owner.
class TrialMemory {
 public:
  TrialMemory() = default;
  TrialMemory(const TrialMemory&) = delete;
  TrialMemory& operator=(const TrialMemory&) = delete;
  ~TrialMemory() { FreeDeviceMemory(data_); }
  Status Allocate(int64_t bytes) {
    KVASIR_ASSIGN_OR_RETURN(data_, AllocateDeviceMemory(static_cast<size_t>(bytes)));
    return Status::Ok();
  }
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

class CublasTrials final : public GemmTrials {
 public:
  // Over `weight`, bf16 [n][k], as it lies when work queued on `stream` so far is done.
  CublasTrials(const Cublas& cublas, Stream stream, const void* weight)
      : cublas_(cublas), stream_(stream), weight_(weight) {}
  ~CublasTrials() override;

  // Candidates for products like `shape` of up to `bucket` rows; `reference` says what the bits
  // are. kResourceExhausted where the card has no room for a trial.
  Status Prepare(const ProductShape& shape, int64_t bucket, const Algorithm& reference);

  int count() const override { return static_cast<int>(candidates_.size()); }
  Result<bool> GivesSameBits(int index) override;
  Result<double> Seconds(int index) override;
  const Algorithm& candidate(int index) const { return candidates_[static_cast<size_t>(index)]; }

 private:
  Status Gather(const Algorithm& reference);
  Status FillInputs(int64_t k);
  Status ComputeWanted(const ProductShape& shape, const Algorithm& reference);
  // Rows [first, first + kProbeRows) of the output, [kProbeRows][n].
  Result<std::vector<float>> ReadRows(int64_t first) const;
  ProductOperands Operands() const;

  const Cublas& cublas_;
  const Stream stream_;
  const void* const weight_;
  int64_t n_ = 0, rows_ = 0;
  CublasProduct product_;
  std::vector<Algorithm> candidates_;
  TrialMemory x_, out_;        // bf16 [rows][k], fp32 [rows][n]
  std::vector<float> wanted_;  // [kProbeRows][n]
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace kvasir::cuda

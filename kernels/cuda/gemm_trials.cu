#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "kernels/cuda/gemm_trials.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kTimedRuns = 3;

Status Done(const char* what, cudaError_t error) {
  if (error == cudaSuccess) return Status::Ok();
  std::string message = "CUDA: ";
  return Internal(message.append(what).append(": ").append(cudaGetErrorString(error)));
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

CublasTrials::~CublasTrials() {
  if (begin_ != nullptr) cudaEventDestroy(begin_);
  if (end_ != nullptr) cudaEventDestroy(end_);
}

Status CublasTrials::Prepare(const ProductShape& shape, int64_t bucket,
                             const Algorithm& reference) {
  n_ = shape.n;
  rows_ = TrialRows(bucket, shape.n, shape.k);
  KVASIR_RETURN_IF_ERROR(x_.Allocate(2 * rows_ * shape.k));
  KVASIR_RETURN_IF_ERROR(out_.Allocate(4 * rows_ * shape.n));
  KVASIR_RETURN_IF_ERROR(Done("an event", cudaEventCreate(&begin_)));
  KVASIR_RETURN_IF_ERROR(Done("an event", cudaEventCreate(&end_)));
  KVASIR_RETURN_IF_ERROR(FillInputs(shape.k));
  KVASIR_RETURN_IF_ERROR(ComputeWanted(shape, reference));
  const ProductShape trial = {shape.n, shape.k, rows_, shape.n, shape.aligned};
  KVASIR_ASSIGN_OR_RETURN(product_, CublasProduct::Create(cublas_, trial));
  return Gather(reference);
}

Status CublasTrials::Gather(const Algorithm& reference) {
  KVASIR_ASSIGN_OR_RETURN(candidates_, product_.Proposals());
  candidates_.push_back(reference);
  return Status::Ok();
}

// The probe, again and again.
Status CublasTrials::FillInputs(int64_t k) {
  const std::vector<uint16_t> probe = MakeProbe(k);
  const auto bytes = static_cast<size_t>(2 * k) * kProbeRows;
  char* const x = static_cast<char*>(x_.data());
  KVASIR_RETURN_IF_ERROR(CopyToDevice(x, probe.data(), bytes, stream_));
  for (int64_t row = kProbeRows; row < rows_; row += kProbeRows) {
    const Runs run = {bytes, 1, bytes, bytes};
    KVASIR_RETURN_IF_ERROR(CopyRuns(x + 2 * row * k, x, run, stream_));
  }
  return Synchronize(stream_);  // `probe` ends here
}

Status CublasTrials::ComputeWanted(const ProductShape& shape, const Algorithm& reference) {
  const ProductShape few = {shape.n, shape.k, kProbeRows, shape.n, true};
  KVASIR_ASSIGN_OR_RETURN(const CublasProduct product, CublasProduct::Create(cublas_, few));
  KVASIR_RETURN_IF_ERROR(product.Run(stream_, reference, Operands()));
  KVASIR_ASSIGN_OR_RETURN(wanted_, ReadRows(0));
  return Status::Ok();
}

ProductOperands CublasTrials::Operands() const {
  return {weight_, x_.data(), static_cast<float*>(out_.data()), false};
}

Result<std::vector<float>> CublasTrials::ReadRows(int64_t first) const {
  std::vector<float> rows(static_cast<size_t>(kProbeRows * n_));
  const float* const from = static_cast<const float*>(out_.data()) + first * n_;
  KVASIR_RETURN_IF_ERROR(CopyToHost(rows.data(), from, rows.size() * sizeof(float), stream_));
  KVASIR_RETURN_IF_ERROR(Synchronize(stream_));
  return rows;
}

Result<bool> CublasTrials::GivesSameBits(int index) {
  if (!product_.Runs(candidate(index))) return false;
  // What the library refuses to run is no candidate; a lost card shows in the reading.
  if (!product_.Run(stream_, candidate(index), Operands()).ok()) return false;
  for (const int64_t first : {int64_t{0}, rows_ - kProbeRows}) {
    KVASIR_ASSIGN_OR_RETURN(const std::vector<float> rows, ReadRows(first));
    if (!SameBits(rows, wanted_)) return false;
  }
  return true;
}

Result<double> CublasTrials::Seconds(int index) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  float best = std::numeric_limits<float>::infinity();
  for (int run = 0; run < kTimedRuns; ++run) {
    KVASIR_RETURN_IF_ERROR(Done("an event", cudaEventRecord(begin_, stream)));
    KVASIR_RETURN_IF_ERROR(product_.Run(stream_, candidate(index), Operands()));
    KVASIR_RETURN_IF_ERROR(Done("an event", cudaEventRecord(end_, stream)));
    KVASIR_RETURN_IF_ERROR(Synchronize(stream_));
    float milliseconds = 0;
    KVASIR_RETURN_IF_ERROR(Done("an event", cudaEventElapsedTime(&milliseconds, begin_, end_)));
    best = std::min(best, milliseconds);
  }
  return 1e-3 * best;
}

}  // namespace kvasir::cuda

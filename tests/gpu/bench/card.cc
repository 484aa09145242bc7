#include "tests/gpu/bench/card.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

namespace kvasir::bench {
namespace {

double Now() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

}  // namespace

Result<std::shared_ptr<Backend>> OpenCard(CudaCompute compute, bool overlapped) {
  CudaOptions options;
  options.compute = compute;
  options.overlapped = overlapped;
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, CreateCudaBackend(options));
  return std::shared_ptr<Backend>(std::move(backend));
}

Result<Finisher> Finisher::Create(Backend& backend) {
  Finisher finisher;
  finisher.backend_ = &backend;
  KVASIR_ASSIGN_OR_RETURN(finisher.word_, backend.Allocate(sizeof(float)));
  const float zero = 0;
  backend.Upload(&zero, finisher.word_->data(), sizeof zero);
  return Result<Finisher>(std::move(finisher));
}

Status Finisher::Finish() const {
  float word;
  backend_->Download(word_->data(), &word, sizeof word);
  return backend_->status();
}

Result<double> TimeOf(const Bench& bench, const std::function<Status()>& run,
                      const std::function<Status()>& finish) {
  KVASIR_RETURN_IF_ERROR(run());
  KVASIR_RETURN_IF_ERROR(finish());
  int64_t runs = 1;
  while (true) {
    const double begin = Now();
    for (int64_t i = 0; i < runs; ++i) KVASIR_RETURN_IF_ERROR(run());
    KVASIR_RETURN_IF_ERROR(finish());
    const double took = Now() - begin;
    if (took >= bench.seconds || runs > 100000) return took / static_cast<double>(runs);
    const double factor = 1.2 * bench.seconds / std::max(took, 1e-6);
    runs = std::max(runs + 1, static_cast<int64_t>(factor * static_cast<double>(runs)));
  }
}

Result<CardMemory> CardBytes(size_t bytes) {
  KVASIR_ASSIGN_OR_RETURN(void* const memory, cuda::AllocateDeviceMemory(bytes));
  return CardMemory(memory);
}

Result<PinnedMemory> PinnedBytes(size_t bytes) {
  KVASIR_ASSIGN_OR_RETURN(void* const memory, cuda::AllocatePinnedMemory(bytes));
  return PinnedMemory(memory);
}

std::string TypeName(DType dtype) { return std::string(TraitsOf(dtype).name); }

void FillRandom(uint64_t seed, void* to, size_t bytes) {
  uint64_t state = seed * 0x9E3779B97F4A7C15u + 0x2545F4914F6CDD1Du;
  auto* at = static_cast<unsigned char*>(to);
  for (size_t i = 0; i < bytes; i += sizeof state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::memcpy(at + i, &state, std::min(sizeof state, bytes - i));
  }
}

}  // namespace kvasir::bench

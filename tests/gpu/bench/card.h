// What every section of the benchmark is given: the card behind its seams, how much to run, where
// figures go, and a clock over finished work.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "kernels/core/backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"
#include "tests/gpu/bench/report.h"

namespace kvasir::bench {

// Measured once, at the start; what others are shares of.
struct Ceilings {
  double copy = 0;    // bytes a second, read and written, on the card
  double matmul = 0;  // bf16 operations a second
};

struct Bench {
  Report report;
  bool smoke = false;        // tiny shapes: tests the program, not the card
  double seconds = 0.2;      // each figure is timed for at least so long
  std::string model = {};    // a GGUF file; empty = none
  std::string prompts = {};  // token ids for it, in the form of tests/golden
  Ceilings ceilings = {};
  cuda::DeviceInfo device = {};
};

// What a section runs. An error ends the section, not the run.
using SectionFunction = Status (*)(Bench& bench);
Status RunCeilings(Bench& bench);
Status RunProducts(Bench& bench);
Status RunAttention(Bench& bench);
Status RunKvLoads(Bench& bench);
Status RunGeneration(Bench& bench);
Status RunFirstToken(Bench& bench);
Status RunLogits(Bench& bench);
Status RunGreedyText(Bench& bench);

Result<std::shared_ptr<Backend>> OpenCard(CudaCompute compute, bool overlapped = true);

// Waits until everything queued on the backend is done; its first error.
class Finisher {
 public:
  static Result<Finisher> Create(Backend& backend);
  Status Finish() const;

 private:
  Backend* backend_ = nullptr;
  std::unique_ptr<Buffer> word_;
};

// Seconds of one run(): once to warm up, then as often as bench.seconds asks for.
Result<double> TimeOf(const Bench& bench, const std::function<Status()>& run,
                      const std::function<Status()>& finish);

// Memory on the card, or pinned on the host, that dies with its owner.
struct FreeCard {
  void operator()(void* memory) const { cuda::FreeDeviceMemory(memory); }
};
struct FreePinned {
  void operator()(void* memory) const { cuda::FreePinnedMemory(memory); }
};
using CardMemory = std::unique_ptr<void, FreeCard>;
using PinnedMemory = std::unique_ptr<void, FreePinned>;
Result<CardMemory> CardBytes(size_t bytes);
Result<PinnedMemory> PinnedBytes(size_t bytes);

std::string TypeName(DType dtype);

// Random bytes, the same in every run.
void FillRandom(uint64_t seed, void* to, size_t bytes);

}  // namespace kvasir::bench

#include "kernels/cpu/roof.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>

#include "kernels/core/thread_pool.h"
#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/roof_ops.h"

namespace kvasir {
namespace {

using Clock = std::chrono::steady_clock;

const RoofOps& BestOps() {
  switch (SupportedIsas().back()) {
    case Isa::kAvx512:
      return kRoofAvx512;
    case Isa::kAvx2:
      return kRoofAvx2;
    default:
      return kRoofScalar;
  }
}

// Seconds of the fastest of several runs of all tasks, repeated for about `budget` seconds: other
// load on the machine can only make a run slower.
template <typename Body>
double BestSeconds(ThreadPool& threads, int64_t tasks, double budget, const Body& body) {
  double best = 1e30, spent = 0;
  while (spent < budget) {
    const auto begin = Clock::now();
    threads.ParallelFor(tasks, [&](int64_t task, int) { body(task); });
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    best = std::min(best, seconds);
    spent += seconds;
  }
  return best;
}

double MeasureOperations(ThreadPool& threads, double (*loop)(int64_t)) {
  if (loop == nullptr) return 0;
  constexpr int64_t kRounds = 20'000;  // about 0.05 ms
  const int64_t tasks = 64 * threads.threads();
  const double seconds = BestSeconds(threads, tasks, 0.15, [&](int64_t) { loop(kRounds); });
  return loop(1) * static_cast<double>(kRounds * tasks) / seconds * 1e-9;
}

Result<double> MeasureRead(ThreadPool& threads, uint64_t (*read)(const uint8_t*, size_t)) {
  constexpr size_t kChunk = size_t{2} << 20;
  constexpr int64_t kChunks = 96;
  KVASIR_ASSIGN_OR_RETURN(AlignedMemory memory, AlignedMemory::Allocate(kChunk * kChunks));
  memory.Prefault();
  std::atomic<uint64_t> sink{0};
  const double seconds = BestSeconds(threads, kChunks, 0.25, [&](int64_t chunk) {
    sink += read(memory.As<const uint8_t>() + static_cast<size_t>(chunk) * kChunk, kChunk);
  });
  return static_cast<double>(kChunk * kChunks) / seconds * 1e-9;
}

}  // namespace

Result<Roof> MeasureRoof(int threads) {
  if (threads < 1) {
    return InvalidArgument("a roof needs at least one thread, not " + std::to_string(threads));
  }
  const RoofOps& ops = BestOps();
  ThreadPool pool(threads);
  Roof roof;
  roof.gflops_fp32 = MeasureOperations(pool, ops.fp32);
  roof.gflops_bf16 = MeasureOperations(pool, ops.bf16);
  roof.gops_int8 = MeasureOperations(pool, ops.int8);
  KVASIR_ASSIGN_OR_RETURN(roof.dram_gbps, MeasureRead(pool, ops.read));
  return roof;
}

}  // namespace kvasir

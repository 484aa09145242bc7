// Block: the threads of one emulated CUDA block as fibres on the calling thread.
//
// Order: at every round the threads run in another order, drawn from the seed, each as far as it
// can; so a read that some barrier should have ordered finds, for some seed, what was there before.
// Found at once, whatever the order, and reported with a message and an abort:
//  - threads of a block waiting at different barriers, or some gone while others wait;
//  - two threads touching the same shared memory, one of them writing, with no barrier between
//    (SyncBlock; within a warp SyncWarp too; shuffles order no memory);
//  - shared memory that lies outside of what the launch asked for;
//  - global memory touched, or the kernel left, by a thread that has not awaited earlier kernels
//    (only constants may be read before).
// Shared memory begins as 0xFF bytes (NaN) in every block.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "tests/kernels/cuda_emulation/fibre.h"

namespace kvasir::emulation {

inline constexpr int kWarp = 32;

// Reports a fault of a kernel and aborts.
[[noreturn]] void Fault(const char* format, ...) __attribute__((format(printf, 1, 2)));

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

// Where a barrier or collective stands in the source.
struct Site {
  const char* what = nullptr;
  const char* file = nullptr;
  unsigned line = 0;
  friend bool operator==(const Site&, const Site&) = default;
};

// SplitMix64 (Steele et al. 2014): orders are drawn at every round, so it has to be quick.
class OrderBits {
 public:
  using result_type = uint64_t;
  explicit OrderBits(uint64_t seed) : state_(seed) {}
  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return UINT64_MAX; }
  uint64_t operator()() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
  }

 private:
  uint64_t state_;
};

class Block {
 public:
  Block(int threads, size_t shared_bytes, uint64_t seed);
  ~Block();

  // Runs body once a thread. `enter` is called before a thread goes on, to make it current.
  void Run(const std::function<void()>& body, const std::function<void(int thread)>& enter);

  // ---- called by the running thread
  int thread() const { return current_; }
  static void AwaitEarlierKernels() { awaited_ = true; }
  // An access to global memory that earlier kernels may touch.
  static void CheckAwaited() {
    if (!awaited_) ReportNotAwaited("touches global memory");
  }
  void SyncBlock(const Site& site);
  // A collective of the running thread's whole warp: each lane leaves `bytes` of input, the last
  // one to come calls combine(inputs, outputs), arrays of 32 lanes, and each lane gets its output.
  static constexpr size_t kLaneBytes = 64;
  using Lanes = std::array<std::array<std::byte, kLaneBytes>, kWarp>;
  using Combine = void (*)(const Lanes& inputs, Lanes& outputs, const void* argument);
  void Collect(const Site& site, const void* input, void* output, size_t bytes, Combine combine,
               const void* argument);
  void SyncWarp(const Site& site);

  std::byte* shared() { return shared_.data(); }
  size_t shared_bytes() const { return shared_bytes_; }
  // Checks an access to shared memory against its end and against other threads' accesses.
  void Touch(const std::byte* address, size_t bytes, bool write) {
    const ptrdiff_t offset = address - shared_.data();
    if (offset < 0 || static_cast<size_t>(offset) + bytes > shared_bytes_) {
      ReportOutside(offset, bytes, write);
    }
    const Access now = Now();
    const size_t begin = static_cast<size_t>(offset) / kCellBytes;
    for (size_t i = begin; i < begin + (bytes + kCellBytes - 1) / kCellBytes; ++i) {
      Cell& cell = cells_[i];
      if (!Ordered(cell.write) || (cell.atomic && !Ordered(cell.other_add))) {
        ReportRace(cell, i * kCellBytes, write);
      }
      if (!write) {
        const bool first = cell.read < block_epoch_ << 32 || ThreadOf(cell.read) == current_;
        (first ? cell.read : cell.other_read) = now;
        continue;
      }
      if (!Ordered(cell.read) || !Ordered(cell.other_read)) {
        ReportRace(cell, i * kCellBytes, write);
      }
      cell.write = now;
      cell.atomic = false;
    }
  }

  // The same for an atomic addition: others may add to it without a barrier between.
  void TouchAtomic(const std::byte* address, size_t bytes);

  // The block whose threads run on this thread of the host; null outside of launches.
  static Block* Current();

 private:
  struct Thread {
    std::unique_ptr<Fibre> fibre;
    bool waits = false, finished = false, awaited = false;
    uint64_t done = 0;  // value of its barrier's counter that frees it
    const uint64_t* counter = nullptr;
    Site site;
  };
  // Barrier state of a warp or of the block.
  struct Meeting {
    int arrived = 0;
    uint64_t passed = 0;
    Site site;
    Lanes inputs, outputs;
  };
  // An access: block epoch (32 bits), warp epoch (20), thread + 1 (12). 0 = none. Block epochs only
  // grow, so whatever is below the present one is ordered before.
  using Access = uint64_t;
  // The last accesses to two bytes of shared memory.
  struct Cell {
    Access write = 0, read = 0;
    Access other_read = 0;  // of another thread, if two read
    Access other_add = 0;   // likewise, if `write` was an atomic addition
    bool atomic = false;
  };
  static constexpr int kThreadBits = 12, kWarpEpochBits = 20;
  static int ThreadOf(Access access) {
    return static_cast<int>(access & ((1u << kThreadBits) - 1)) - 1;
  }
  static uint64_t WarpEpochOf(Access access) {
    return access >> kThreadBits & ((1u << kWarpEpochBits) - 1);
  }

  void RunRound();
  bool Ready(const Thread& thread) const;
  [[noreturn]] void ReportStall() const;
  [[noreturn]] static void ReportNotAwaited(const char* does);
  void Arrive(Meeting& meeting, int expected, const Site& site);
  void Wait(Meeting& meeting, uint64_t passed);
  // Whether an earlier access is ordered before one that the running thread makes now.
  bool Ordered(Access before) const {
    if (before < block_epoch_ << 32 || ThreadOf(before) == current_) return true;
    const int warp = current_ / kWarp;
    return ThreadOf(before) / kWarp == warp &&
           WarpEpochOf(before) < warp_epochs_[static_cast<size_t>(warp)];
  }
  Access Now() const {
    return block_epoch_ << 32 | warp_epochs_[static_cast<size_t>(current_ / kWarp)] << kThreadBits |
           static_cast<uint64_t>(current_ + 1);
  }
  [[noreturn]] void ReportRace(const Cell& cell, size_t offset, bool write) const;
  [[noreturn]] void ReportOutside(ptrdiff_t offset, size_t bytes, bool write) const;
  static void RunBody(void* block);

  // Two bytes are the smallest values that kernels keep in shared memory.
  static constexpr size_t kCellBytes = 2;

  // What a thread of the host keeps from launch to launch.
  struct Kept {
    std::vector<std::unique_ptr<Fibre>> fibres;
    std::vector<Cell> cells;
    uint64_t block_epoch = 1;
  };
  static thread_local Kept kept_;
  // By the running thread; outside of kernels, true.
  static inline constinit thread_local bool awaited_ = true;

  const int threads_;
  const size_t shared_bytes_;
  OrderBits random_;
  std::vector<std::byte> shared_;
  std::vector<Cell> cells_;
  std::vector<Thread> all_;
  std::vector<int> order_;
  Meeting block_;
  std::vector<Meeting> warps_;
  std::vector<uint64_t> warp_epochs_;
  uint64_t block_epoch_ = 1;
  int current_ = -1;
  int finished_ = 0;
  const std::function<void()>* body_ = nullptr;
  const std::function<void(int)>* enter_ = nullptr;
};

}  // namespace kvasir::emulation

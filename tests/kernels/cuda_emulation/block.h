// Block: the threads of one emulated CUDA block as fibres on the calling thread.
//
// Order: at every round the threads run in another order, drawn from the seed, each as far as it
// can; so a read that some barrier should have ordered finds, for some seed, what was there before.
// Found at once, whatever the order, and reported with a message and an abort:
//  - threads of a block waiting at different barriers, or some gone while others wait;
//  - two threads touching the same shared memory, one of them writing, with no barrier between
//    (SyncBlock; within a warp SyncWarp too; shuffles order no memory);
//  - shared memory that lies outside of what the launch asked for.
// Shared memory begins as 0xFF bytes (NaN) in every block.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
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

class Block {
 public:
  Block(int threads, size_t shared_bytes, uint64_t seed);

  // Runs body once a thread. `enter` is called before a thread goes on, to make it current.
  void Run(const std::function<void()>& body, const std::function<void(int thread)>& enter);

  // ---- called by the running thread
  int thread() const { return current_; }
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
  void Touch(const std::byte* address, size_t bytes, bool write);

  // The block whose threads run on this thread of the host; null outside of launches.
  static Block* Current();

 private:
  struct Thread {
    Fibre fibre;
    bool waits = false;
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
  // The last accesses to two bytes of shared memory, as (thread + 1, block epoch, warp epoch).
  struct Access {
    int32_t thread = 0;
    uint32_t block_epoch = 0, warp_epoch = 0;
  };
  struct Cell {
    Access write, read;
    Access other_read;  // of another thread, if two read
  };

  void RunRound();
  bool Ready(const Thread& thread) const;
  [[noreturn]] void ReportStall() const;
  void Arrive(Meeting& meeting, int expected, const Site& site);
  void Wait(Meeting& meeting, uint64_t passed);
  bool Ordered(const Access& before) const;
  Access Now() const;
  static void RunBody(void* block);

  const int threads_;
  const size_t shared_bytes_;
  std::mt19937_64 random_;
  std::vector<std::byte> shared_;
  std::vector<Cell> cells_;
  std::vector<Thread> all_;
  std::vector<int> order_;
  Meeting block_;
  std::vector<Meeting> warps_;
  std::vector<uint32_t> warp_epochs_;
  uint32_t block_epoch_ = 1;
  int current_ = -1;
  int finished_ = 0;
  const std::function<void()>* body_ = nullptr;
  const std::function<void(int)>* enter_ = nullptr;
};

}  // namespace kvasir::emulation

#include "tests/kernels/cuda_emulation/block.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

namespace kvasir::emulation {
namespace {

thread_local Block* current_block = nullptr;

// Two bytes are the smallest values that kernels keep in shared memory.
constexpr size_t kCellBytes = 2;

}  // namespace

void Fault(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::fputs("CUDA emulation: ", stderr);
  std::vfprintf(stderr, format, arguments);
  std::fputs("\n", stderr);
  va_end(arguments);
  std::abort();
}

Block* Block::Current() { return current_block; }

Block::Block(int threads, size_t shared_bytes, uint64_t seed)
    : threads_(threads),
      shared_bytes_(shared_bytes),
      random_(seed),
      shared_(shared_bytes),
      cells_(shared_bytes / kCellBytes + 1),
      all_(static_cast<size_t>(threads)),
      order_(static_cast<size_t>(threads)),
      warps_(static_cast<size_t>(threads) / kWarp),
      warp_epochs_(warps_.size(), 1) {
  if (threads % kWarp != 0) Fault("a block of %d threads is not made of whole warps", threads);
  std::iota(order_.begin(), order_.end(), 0);
}

void Block::RunBody(void* block) { (*static_cast<Block*>(block)->body_)(); }

void Block::Run(const std::function<void()>& body, const std::function<void(int)>& enter) {
  std::fill(shared_.begin(), shared_.end(), std::byte{0xFF});
  ++block_epoch_;  // what an earlier block touched is ordered before
  body_ = &body;
  enter_ = &enter;
  finished_ = 0;
  for (Thread& thread : all_) {
    thread.waits = false;
    thread.fibre.Start(&Block::RunBody, this);
  }
  Block* const outer = current_block;
  current_block = this;
  while (finished_ < threads_) RunRound();
  current_block = outer;
}

bool Block::Ready(const Thread& thread) const {
  return !thread.fibre.finished() && (!thread.waits || *thread.counter >= thread.done);
}

void Block::RunRound() {
  std::shuffle(order_.begin(), order_.end(), random_);
  bool moved = false;
  for (const int index : order_) {
    Thread& thread = all_[static_cast<size_t>(index)];
    if (!Ready(thread)) continue;
    moved = true;
    thread.waits = false;
    current_ = index;
    (*enter_)(index);
    thread.fibre.Resume();
    if (thread.fibre.finished()) ++finished_;
  }
  if (!moved) ReportStall();
}

void Block::ReportStall() const {
  for (size_t i = 0; i < all_.size(); ++i) {
    const Thread& thread = all_[i];
    if (thread.fibre.finished()) continue;
    Fault("thread %zu waits for ever at %s (%s:%u): %d of %d threads have ended", i,
          thread.site.what, thread.site.file, thread.site.line, finished_, threads_);
  }
  Fault("no thread can go on");
}

void Block::Arrive(Meeting& meeting, int expected, const Site& site) {
  if (meeting.arrived == 0) meeting.site = site;
  if (!(meeting.site == site)) {
    Fault("divergent barrier: thread %d is at %s (%s:%u), others wait at %s (%s:%u)", current_,
          site.what, site.file, site.line, meeting.site.what, meeting.site.file, meeting.site.line);
  }
  all_[static_cast<size_t>(current_)].site = site;
  if (++meeting.arrived == expected) {
    meeting.arrived = 0;
    ++meeting.passed;
  }
}

void Block::Wait(Meeting& meeting, uint64_t passed) {
  Thread& thread = all_[static_cast<size_t>(current_)];
  if (meeting.passed >= passed) return;
  thread.waits = true;
  thread.counter = &meeting.passed;
  thread.done = passed;
  thread.fibre.Yield();
}

void Block::SyncBlock(const Site& site) {
  const uint64_t passed = block_.passed + 1;
  Arrive(block_, threads_, site);
  if (block_.passed == passed) ++block_epoch_;
  Wait(block_, passed);
}

void Block::Collect(const Site& site, const void* input, void* output, size_t bytes,
                    Combine combine, const void* argument) {
  if (bytes > kLaneBytes) Fault("a collective of %zu bytes a lane", bytes);
  const auto lane = static_cast<size_t>(current_ % kWarp);
  Meeting& warp = warps_[static_cast<size_t>(current_ / kWarp)];
  std::memcpy(warp.inputs[lane].data(), input, bytes);
  const uint64_t passed = warp.passed + 1;
  Arrive(warp, kWarp, site);
  if (warp.passed == passed) combine(warp.inputs, warp.outputs, argument);
  Wait(warp, passed);
  std::memcpy(output, warp.outputs[lane].data(), bytes);
}

void Block::SyncWarp(const Site& site) {
  const auto index = static_cast<size_t>(current_ / kWarp);
  Meeting& warp = warps_[index];
  const uint64_t passed = warp.passed + 1;
  Arrive(warp, kWarp, site);
  if (warp.passed == passed) ++warp_epochs_[index];
  Wait(warp, passed);
}

Block::Access Block::Now() const {
  return {current_ + 1, block_epoch_, warp_epochs_[static_cast<size_t>(current_ / kWarp)]};
}

// Whether an earlier access is ordered before one that the running thread makes now.
bool Block::Ordered(const Access& before) const {
  if (before.thread == 0 || before.thread == current_ + 1) return true;
  if (before.block_epoch < block_epoch_) return true;
  const int warp = current_ / kWarp;
  return (before.thread - 1) / kWarp == warp &&
         before.warp_epoch < warp_epochs_[static_cast<size_t>(warp)];
}

void Block::Touch(const std::byte* address, size_t bytes, bool write) {
  const ptrdiff_t offset = address - shared_.data();
  if (offset < 0 || static_cast<size_t>(offset) + bytes > shared_bytes_) {
    Fault("thread %d %s shared memory at %td, %zu bytes, of %zu", current_,
          write ? "writes" : "reads", offset, bytes, shared_bytes_);
  }
  const Access now = Now();
  for (size_t i = static_cast<size_t>(offset) / kCellBytes;
       i < (static_cast<size_t>(offset) + bytes + kCellBytes - 1) / kCellBytes; ++i) {
    Cell& cell = cells_[i];
    const bool reads_ordered = !write || (Ordered(cell.read) && Ordered(cell.other_read));
    if (!Ordered(cell.write) || !reads_ordered) {
      Fault(
          "race: thread %d %s shared memory at %zu, which thread %d has touched with no barrier "
          "between",
          current_, write ? "writes" : "reads", i * kCellBytes,
          (!Ordered(cell.write) ? cell.write.thread
                                : (!Ordered(cell.read) ? cell.read : cell.other_read).thread) -
              1);
    }
    if (write) {
      cell.write = now;
    } else if (cell.read.thread == now.thread || cell.read.block_epoch < block_epoch_) {
      cell.read = now;
    } else {
      cell.other_read = now;
    }
  }
}

}  // namespace kvasir::emulation

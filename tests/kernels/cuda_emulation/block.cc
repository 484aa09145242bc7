#include "tests/kernels/cuda_emulation/block.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <utility>

namespace kvasir::emulation {
namespace {

thread_local Block* current_block = nullptr;

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

thread_local Block::Kept Block::kept_;

Block* Block::Current() { return current_block; }

Block::Block(int threads, size_t shared_bytes, uint64_t seed)
    : threads_(threads),
      shared_bytes_(shared_bytes),
      random_(seed),
      shared_(shared_bytes),
      cells_(std::move(kept_.cells)),
      all_(static_cast<size_t>(threads)),
      order_(static_cast<size_t>(threads)),
      warps_(static_cast<size_t>(threads) / kWarp),
      warp_epochs_(warps_.size(), 1),
      block_epoch_(kept_.block_epoch) {
  if (threads % kWarp != 0 || threads > 1024) {
    Fault("a block of %d threads is not made of whole warps", threads);
  }
  std::iota(order_.begin(), order_.end(), 0);
  cells_.resize(std::max(cells_.size(), shared_bytes / kCellBytes + 1));
  for (Thread& thread : all_) {
    if (kept_.fibres.empty()) kept_.fibres.push_back(std::make_unique<Fibre>());
    thread.fibre = std::move(kept_.fibres.back());
    kept_.fibres.pop_back();
  }
}

Block::~Block() {
  for (Thread& thread : all_) kept_.fibres.push_back(std::move(thread.fibre));
  kept_.cells = std::move(cells_);
  kept_.block_epoch = block_epoch_;
}

void Block::RunBody(void* block) { (*static_cast<Block*>(block)->body_)(); }

void Block::Run(const std::function<void()>& body, const std::function<void(int)>& enter) {
  std::fill(shared_.begin(), shared_.end(), std::byte{0xFF});
  ++block_epoch_;  // what an earlier block touched is ordered before
  std::fill(warp_epochs_.begin(), warp_epochs_.end(), 1);
  body_ = &body;
  enter_ = &enter;
  finished_ = 0;
  for (Thread& thread : all_) {
    thread.waits = thread.finished = thread.awaited = false;
    thread.fibre->Start(&Block::RunBody, this);
  }
  Block* const outer = current_block;
  current_block = this;
  const bool outer_awaited = awaited_;
  while (finished_ < threads_) RunRound();
  awaited_ = outer_awaited;
  current_block = outer;
}

bool Block::Ready(const Thread& thread) const {
  return !thread.finished && (!thread.waits || *thread.counter >= thread.done);
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
    awaited_ = thread.awaited;
    thread.fibre->Resume();
    thread.awaited = awaited_;
    thread.finished = thread.fibre->finished();
    if (thread.finished && !thread.awaited) ReportNotAwaited("ends");
    if (thread.finished) ++finished_;
  }
  if (!moved) ReportStall();
}

void Block::ReportStall() const {
  for (size_t i = 0; i < all_.size(); ++i) {
    const Thread& thread = all_[i];
    if (thread.finished) continue;
    Fault("thread %zu waits for ever at %s (%s:%u): %d of %d threads have ended", i,
          thread.site.what, thread.site.file, thread.site.line, finished_, threads_);
  }
  Fault("no thread can go on");
}

void Block::ReportNotAwaited(const char* does) {
  Fault("thread %d %s and has not called AwaitEarlierKernels", current_block->current_, does);
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
  thread.fibre->Yield();
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
  if (warp.passed == passed && ++warp_epochs_[index] >> kWarpEpochBits != 0) {
    Fault("a million SyncWarps with no SyncBlock");
  }
  Wait(warp, passed);
}

void Block::TouchAtomic(const std::byte* address, size_t bytes) {
  const ptrdiff_t offset = address - shared_.data();
  if (offset < 0 || static_cast<size_t>(offset) + bytes > shared_bytes_) {
    ReportOutside(offset, bytes, true);
  }
  const size_t begin = static_cast<size_t>(offset) / kCellBytes;
  for (size_t i = begin; i < begin + (bytes + kCellBytes - 1) / kCellBytes; ++i) {
    Cell& cell = cells_[i];
    const bool after = Ordered(cell.write) && (!cell.atomic || Ordered(cell.other_add));
    if ((!after && !cell.atomic) || !Ordered(cell.read) || !Ordered(cell.other_read)) {
      ReportRace(cell, i * kCellBytes, true);
    }
    const bool first = after || ThreadOf(cell.write) == current_;
    if (after) cell.other_add = 0;
    (first ? cell.write : cell.other_add) = Now();
    cell.atomic = true;
  }
}

void Block::ReportOutside(ptrdiff_t offset, size_t bytes, bool write) const {
  Fault("thread %d %s shared memory at %td, %zu bytes, of %zu", current_,
        write ? "writes" : "reads", offset, bytes, shared_bytes_);
}

void Block::ReportRace(const Cell& cell, size_t offset, bool write) const {
  Access other = cell.write;
  if (Ordered(other) && cell.atomic && !Ordered(cell.other_add)) other = cell.other_add;
  if (Ordered(other)) other = Ordered(cell.read) ? cell.other_read : cell.read;
  Fault(
      "race: thread %d %s shared memory at %zu, which thread %d has touched with no barrier "
      "between",
      current_, write ? "writes" : "reads", offset, ThreadOf(other));
}

}  // namespace kvasir::emulation

// StepGraphs: what whole steps queued, kept to be queued again by one call. A step's graph holds
// addresses and launch sizes; everything else (ids, positions, tables) it reads from memory. So it
// serves every step of the same key, until an address in it may have changed.
//
// The step's thread alone.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/device.h"

namespace kvasir::cuda {

// Rows that a step of `rows` is filled up to, so that few sizes are recorded; 0 = too many.
int32_t BucketOf(int32_t rows);
// `batch` with rows behind its own that write and see nothing.
void PadRows(const StepBatch& batch, int32_t rows, StepBatch* padded);

class StepGraphs {
 public:
  // A graph of a model of 32 layers is about 400 launches and a megabyte on the card.
  static constexpr size_t kMost = 64;

  struct Key {
    StepKey step;
    StepShape shape;
    friend bool operator==(const Key&, const Key&) = default;
  };
  // Of all that could move what graphs point at: while it stays, they are right.
  struct Stamp {
    uint64_t tables = 0, rotations = 0, frees = 0;
    friend bool operator==(const Stamp&, const Stamp&) = default;
  };

  // overlapped: BeginRecording's (device.h).
  StepGraphs(Stream stream, bool overlapped) : stream_(stream), overlapped_(overlapped) {}
  ~StepGraphs();
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

  // Does the step: the first time by `queue`, which allocates and loads what it needs; the second
  // time `queue` is recorded; then its graph is launched alone. What cannot be recorded is queued.
  Status Run(const Key& key, const std::function<Stamp()>& stamp,
             const std::function<Status()>& queue);
  // Whether `queue` is being recorded: it must not wait, nor copy from memory that is not pinned.
  bool recording() const { return recording_; }

 private:
  struct Entry {
    Key key;
    Stamp stamp;
    bool queued = false;  // under this stamp
    bool barred = false;  // it could not be recorded
    Graph graph = nullptr;
    uint64_t used = 0;
  };
  Entry& EntryOf(const Key& key);
  static void Drop(Entry& entry);
  Result<Graph> Record(const std::function<Status()>& queue);

  const Stream stream_;
  const bool overlapped_;
  std::vector<Entry> entries_;
  uint64_t clock_ = 0;
  bool recording_ = false;
};

}  // namespace kvasir::cuda

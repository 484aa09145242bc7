// Scheduler: which rows run in the next step. Pure logic: no thread, no clock, no model.
//
// Continuous batching: every step is formed anew from one row of every answering sequence (and its
// drafts' rows) and slices of prompts in their order (ScheduleOrder), under a budget of rows. A
// sequence is admitted when the pool has blocks for its prompt and the beginning of its answer;
// the answer's further blocks come as it grows. When there are none, the sequence that was admitted
// last goes back to waiting and is computed again later, with all its blocks set aside, so that
// each is preempted once at most. Waiting requests hold the shared blocks of their plans; when
// nothing runs and the first does not fit, later ones may go first, and `stalled` says that none
// fits. Requests whose blocks are still being loaded are passed (engine/load_wait.h).
//
// Not thread-safe: the engine's thread alone. Owns its sequences; the pool must outlive it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "engine/block_pool.h"
#include "engine/schedule_order.h"
#include "engine/sequence.h"
#include "kernels/core/step_batch.h"

namespace kvasir {

struct SchedulerOptions {
  int32_t step_rows = 512;                        // rows a step at most, >= 1
  int32_t max_sequences = 64;                     // running at once; never more than step_rows
  ScheduleOrder order = ScheduleOrder::kArrival;  // of prompts
};

// What to run: make the copies in order, then compute the batch. sequences[i] owns the batch's
// span i.
struct StepPlan {
  std::vector<BlockCopy> copies;
  StepBatch batch;
  std::vector<Sequence*> sequences;
  bool stalled = false;   // nothing runs and no waiting request fits the pool
  bool loading = false;   // nothing runs and a waiting request's blocks are being loaded
  bool awaiting = false;  // the one sequence's blocks are still being loaded

  bool empty() const { return sequences.empty(); }
  // Whether a request of it ends before the last layer (Request::layers).
  bool has_probe() const;
};

class Scheduler {
 public:
  // Asked to free at least so many blocks; may be empty.
  using Reclaimer = std::function<int32_t(int32_t blocks)>;

  Scheduler(BlockPool* pool, const SchedulerOptions& options, Reclaimer reclaimer);
  ~Scheduler();

  void Enqueue(std::unique_ptr<Sequence> sequence);

  // Admits what fits and forms the next step. Complete must follow before the next call.
  StepPlan Schedule();
  // The rows of the plan have been computed. Sequences that were removed meanwhile must not be in
  // the plan any more.
  void Complete(const StepPlan& plan);

  // Takes a sequence out, waiting or running, and gives its own blocks back. Null if unknown.
  std::unique_ptr<Sequence> Remove(RequestId id);

  const std::deque<std::unique_ptr<Sequence>>& waiting() const { return waiting_; }
  const std::vector<std::unique_ptr<Sequence>>& running() const { return running_; }
  uint64_t preemptions() const { return preemptions_; }

 private:
  // Smaller = sooner.
  double RankOf(const Sequence& sequence) const;
  template <typename Prompts>
  void SortByRank(Prompts* prompts) const;
  void Admit(StepPlan* plan);
  bool TryAdmit(size_t index, StepPlan* plan);
  // Null if there are none, not even after asking for them.
  std::optional<std::vector<int32_t>> Allocate(int32_t blocks);
  void GrowAnswers();
  bool GrowAnswer(Sequence* sequence);
  // The preemptible sequence that was admitted last goes back to waiting. False: there is none.
  bool PreemptLast();
  void AddDecodes(StepPlan* plan);
  // Rows a step for prompts of requests that bind nobody (Request::rows_beside).
  int32_t BoundRows() const;
  void AddPrefills(StepPlan* plan);

  BlockPool* pool_;
  SchedulerOptions options_;
  Reclaimer reclaimer_;
  uint64_t preemptions_ = 0;
  int64_t rows_done_ = 0;                           // scheduled so far: the clock of ageing
  std::deque<std::unique_ptr<Sequence>> waiting_;   // by rank
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of admission
};

}  // namespace kvasir

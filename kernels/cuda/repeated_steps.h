// RepeatedSteps: Backend::RunStep on the card. Steps of a few rows a sequence (decode, verification
// of drafts) are filled up to a size that many steps share, their integers go to the card in one
// copy, and the rest is a graph (step_graphs.h).
//
// The step's thread alone.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/cuda/attention_step.h"
#include "kernels/cuda/step_graphs.h"

namespace kvasir::cuda {

class RepeatedSteps {
 public:
  using Queue = std::function<Status(const StepBatch&)>;

  RepeatedSteps(const AttentionContext& context, bool overlapped)
      : context_(context), graphs_(context.stream, overlapped) {}

  // Query heads a kv head, and kv heads, of the attention that a key's steps call.
  void Learn(const StepKey& key, int32_t group, int32_t kv_heads);
  // Whether a step like this comes again, and its key's heads are known.
  bool Takes(const StepBatch& batch, const StepKey& key) const;
  // The step; what `queue` says goes to *queued. An error is the card's.
  Status Run(const StepBatch& batch, const StepKey& key, const Queue& queue, Status* queued);

  // The plan of the batch that Run gives to `queue`; null for every other batch.
  const CudaAttentionPlan* PlanOf(const StepBatch& batch) const {
    return &batch == &padded_ ? plan_ : nullptr;
  }
  bool recording() const { return graphs_.recording(); }
  // Does an operator's work while a step is recorded. An error spoils the recording alone.
  template <typename Work>
  bool Record(const Work& work) {
    if (recorded_.ok()) recorded_ = work();
    return recorded_.ok();
  }
  // What an operator says that waits, or copies from memory that is not pinned.
  static Status CannotRecord() { return Internal("a step calls what cannot be recorded"); }

 private:
  struct Heads {
    StepKey key;
    int32_t group = 0, kv_heads = 0;
  };
  class Planned;

  const Heads* HeadsOf(const StepKey& key) const;
  Status Prepare(const CudaAttentionPlan& plan, const Heads& heads, StepShape* shape);
  StepGraphs::Stamp StampNow() const;
  Status Call(const Queue& queue, Status* queued);

  const AttentionContext context_;
  StepGraphs graphs_;
  std::vector<Heads> heads_;
  StepBatch padded_;                         // of the step at hand
  const CudaAttentionPlan* plan_ = nullptr;  // of padded_
  Status recorded_;                          // of the operators of a recording
};

}  // namespace kvasir::cuda

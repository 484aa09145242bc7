#include "kernels/cuda/repeated_steps.h"

#include <algorithm>

namespace kvasir::cuda {

// Names the plan of padded_ while the step is queued, however that ends.
class RepeatedSteps::Planned {
 public:
  Planned(RepeatedSteps* steps, const CudaAttentionPlan* plan) : steps_(steps) {
    steps_->plan_ = plan;
  }
  ~Planned() { steps_->plan_ = nullptr; }
  Planned(const Planned&) = delete;
  Planned& operator=(const Planned&) = delete;

 private:
  RepeatedSteps* steps_;
};

const RepeatedSteps::Heads* RepeatedSteps::HeadsOf(const StepKey& key) const {
  const auto found = std::find_if(heads_.begin(), heads_.end(),
                                  [&](const Heads& heads) { return heads.key == key; });
  return found == heads_.end() ? nullptr : &*found;
}

void RepeatedSteps::Learn(const StepKey& key, int32_t group, int32_t kv_heads) {
  constexpr size_t kMostKeys = 8;  // a model and its draft model have one each
  if (group == 0) return;
  std::erase_if(heads_, [&](const Heads& heads) { return heads.key == key; });
  if (heads_.size() == kMostKeys) heads_.erase(heads_.begin());
  heads_.push_back({key, group, kv_heads});
}

bool RepeatedSteps::Takes(const StepBatch& batch, const StepKey& key) const {
  const Heads* const heads = HeadsOf(key);
  if (heads == nullptr || batch.rows() == 0 || BucketOf(batch.rows()) == 0) return false;
  if (batch.logit_rows.size() != batch.token_ids.size()) return false;
  return std::all_of(batch.sequences.begin(), batch.sequences.end(), [&](const SequenceSpan& s) {
    return (s.row_end - s.row_begin) * heads->group <= kSmallTile;
  });
}

// Brings padded_ to the card, and everything up to date that graphs read.
Status RepeatedSteps::Prepare(const CudaAttentionPlan& plan, const Heads& heads, StepShape* shape) {
  KVASIR_ASSIGN_OR_RETURN(*shape, plan.MakeRepeatable(heads.group, heads.kv_heads));
  KVASIR_ASSIGN_OR_RETURN(const CudaAttentionPlan::Made* made,
                          plan.For(heads.group, heads.kv_heads));
  int64_t positions = made->rotations;
  for (const int32_t position : padded_.local_positions) {
    positions = std::max(positions, int64_t{position} + 1);
  }
  return context_.rotations->Cover(positions, context_.stream);
}

StepGraphs::Stamp RepeatedSteps::StampNow() const {
  return {context_.step->layout(), context_.rotations->version(), DeviceMemoryFrees()};
}

// A recording also fails where an operator does.
Status RepeatedSteps::Call(const Queue& queue, Status* queued) {
  recorded_ = Status::Ok();
  *queued = queue(padded_);
  if (!recording()) return Status::Ok();
  return queued->ok() ? recorded_ : *queued;
}

Status RepeatedSteps::Run(const StepBatch& batch, const StepKey& key, const Queue& queue,
                          Status* queued) {
  PadRows(batch, BucketOf(batch.rows()), &padded_);
  const CudaAttentionPlan plan(padded_, context_);
  StepShape shape;
  KVASIR_RETURN_IF_ERROR(Prepare(plan, *HeadsOf(key), &shape));
  const Planned planned(this, &plan);
  return graphs_.Run(
      {key, shape}, [&] { return StampNow(); }, [&] { return Call(queue, queued); });
}

}  // namespace kvasir::cuda

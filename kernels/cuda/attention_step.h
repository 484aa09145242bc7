// CudaAttentionPlan: the tables of one step in device memory, and RunAttention, which queues all of
// an Attention call's kernels.
#pragma once

#include <memory>

#include "kernels/core/backend.h"
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/device_buffers.h"
#include "kernels/cuda/host_fetches.h"
#include "kernels/cuda/step_tables.h"

namespace kvasir::cuda {

// What attention needs of its backend. Calls come from one thread.
struct AttentionContext {
  Stream stream = nullptr;
  DeviceBuffers* buffers = nullptr;
  RotationTables* rotations = nullptr;
  StepTables* step = nullptr;
  HostFetches* fetches = nullptr;
  int multiprocessors = 1;
  bool matrix_units = false;  // where they fit; else everything in fp32
};

// Made for one number of query heads and uploaded with the rest of the batch; anew if an attention
// call has another number, or if another plan was uploaded in between.
class CudaAttentionPlan final : public AttentionPlan {
 public:
  CudaAttentionPlan(const StepBatch& batch, const AttentionContext& context)
      : batch_(batch), context_(context) {}

  struct Made {
    PlanOptions options;
    DeviceTables tables;
    int64_t partials = 0, rotations = 0;
    uint64_t upload = 0;  // StepTables::uploads()
  };
  const StepBatch& batch() const { return batch_; }
  // Made and uploaded as For does, rounded up to what many steps share (attention_plan.h).
  Result<StepShape> MakeRepeatable(int32_t group, int32_t kv_heads) const;
  bool Has(int32_t group, int32_t kv_heads) const;
  Result<const Made*> For(int32_t group, int32_t kv_heads) const;

 private:
  Status Upload(const PlanOptions& options, const AttentionTables& tables) const;

  const StepBatch& batch_;
  const AttentionContext context_;
  mutable Made made_;
};

// Queues an attention call, args as Backend::Attention's, checked. Weights that are wanted are
// handed out by context.fetches.
Status RunAttention(const AttentionContext& context, const AttentionArgs& args);

}  // namespace kvasir::cuda

// CudaAttentionPlan: the tables of one step in device memory, and RunAttention, which queues all of
// an Attention call's kernels.
#pragma once

#include <memory>

#include "kernels/core/backend.h"
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/device_buffers.h"

namespace kvasir::cuda {

// What attention needs of its backend. Calls come from one thread.
struct AttentionContext {
  Stream stream = nullptr;
  DeviceBuffers* buffers = nullptr;
  RotationTables* rotations = nullptr;
  int multiprocessors = 1;
  bool matrix_units = false;  // where they fit; else everything in fp32
};

// Tables are made and copied at the first call for each number of query heads; models have one.
class CudaAttentionPlan final : public AttentionPlan {
 public:
  CudaAttentionPlan(const StepBatch& batch, const AttentionContext& context)
      : batch_(batch), context_(context) {}

  struct Made {
    PlanOptions options;
    DeviceTables tables;
    int64_t partials = 0, rotations = 0;
    Scratch memory;
  };
  const StepBatch& batch() const { return batch_; }
  Result<const Made*> For(int32_t group, int32_t kv_heads) const;

 private:
  Result<std::unique_ptr<Made>> Make(const PlanOptions& options) const;

  const StepBatch& batch_;
  const AttentionContext context_;
  mutable std::vector<std::unique_ptr<Made>> made_;
};

// args as Backend::Attention's, checked.
Status RunAttention(const AttentionContext& context, const AttentionArgs& args);

}  // namespace kvasir::cuda

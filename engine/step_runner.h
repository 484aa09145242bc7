// StepRunner: computes a StepPlan on the backend. A step that fails as a whole is repeated one
// sequence at a time, so that the failure reaches only the sequences that cause it; so is a step
// with a probe (Request::layers), whose rows end earlier than the others'.
//
// The engine's thread alone. Model, backend and pools must outlive it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/block_pool.h"
#include "engine/model/forward.h"
#include "engine/model/model.h"
#include "engine/scheduler.h"
#include "kernels/core/backend.h"

namespace kvasir {

class StepRunner {
 public:
  // logits [rows][V] of the sequence's rows that wanted them (the last of a prompt; the decode row
  // and its drafts), empty if there are none or the step failed; valid during the call.
  using Handler =
      std::function<void(Sequence& sequence, const Status& status, std::span<const float> logits)>;

  StepRunner(const Model& model, Backend& backend, KvPool& pool, const BlockPool& blocks)
      : model_(model), backend_(backend), pool_(pool), blocks_(blocks), workspace_(backend) {}

  // Makes the plan's copies and computes its batch, tells `computed` (the scheduler advances), then
  // hands each sequence's part to `handle`, which may destroy the sequence.
  void Run(const StepPlan& plan, const std::function<void()>& computed, const Handler& handle);

 private:
  // Writes logits_ [logit rows of the batch][V].
  Status Compute(const StepBatch& batch, std::span<Sequence* const> sequences);
  Status TryCompute(const StepBatch& batch, std::span<Sequence* const> sequences);
  void CheckOwners(const StepPlan& plan) const;
  void RunEachAlone(const StepPlan& plan, const Handler& handle);
  std::span<const float> LogitsOf(size_t logit_row, size_t rows) const;

  const Model& model_;
  Backend& backend_;
  KvPool& pool_;
  const BlockPool& blocks_;  // who owns what, looked at in debug builds
  Workspace workspace_;
  std::vector<float> logits_;
};

}  // namespace kvasir

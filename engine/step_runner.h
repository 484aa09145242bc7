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

// What a step says of a sequence's rows that want a token (the last of a prompt; the decode row and
// its drafts): the tokens that the backend drew [rows] (-1: none could be), or logits [rows][V] to
// draw from. Both empty if there are no such rows or the step failed.
struct StepOutput {
  std::span<const int32_t> tokens;
  std::span<const float> logits;
};

class StepRunner {
 public:
  // `output` is valid during the call.
  using Handler =
      std::function<void(Sequence& sequence, const Status& status, const StepOutput& output)>;

  // draws_on_device: tokens are drawn by the backend where it can and nothing else wants the
  // logits.
  StepRunner(const Model& model, Backend& backend, KvPool& pool, const BlockPool& blocks,
             bool draws_on_device)
      : model_(model),
        backend_(backend),
        pool_(pool),
        blocks_(blocks),
        draws_on_device_(draws_on_device && backend.CanSample(model.config.vocab)),
        workspace_(backend) {}

  // Makes the plan's copies and computes its batch, tells `computed` (the scheduler advances), then
  // hands each sequence's part to `handle`, which may destroy the sequence.
  void Run(const StepPlan& plan, const std::function<void()>& computed, const Handler& handle);

 private:
  // One sequence's part of a step's results, taken in order.
  class Outputs;

  // Writes logits_, draws_ and tokens_ (ForwardOptions).
  Status Compute(const StepBatch& batch, std::span<Sequence* const> sequences);
  Status TryCompute(const StepBatch& batch, std::span<Sequence* const> sequences);
  void CheckOwners(const StepPlan& plan) const;
  void AddDraws(const StepBatch& batch, std::span<Sequence* const> sequences);
  void RunEachAlone(const StepPlan& plan, const Handler& handle);

  const Model& model_;
  Backend& backend_;
  KvPool& pool_;
  const BlockPool& blocks_;  // who owns what, looked at in debug builds
  const bool draws_on_device_;
  Workspace workspace_;
  std::vector<float> logits_;
  std::vector<RowDraw> draws_;
  std::vector<int32_t> tokens_;
};

}  // namespace kvasir

// SequenceRunner: drives Forward for tests, sequences side by side in one pool, without an engine.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/model/forward.h"
#include "engine/model/model.h"

namespace kvasir::test {

// Tokens [begin, end) of the run's sequence `sequence` that a step computes.
struct RunSlice {
  int32_t sequence = 0;
  std::vector<int32_t> ids;  // appended behind what the sequence holds already
  bool all_logits = false;   // else those of the last row
  bool no_logits = false;
};

class SequenceRunner {
 public:
  // Room for `sequences` sequences of `max_tokens` tokens each. balance_ids: EngineOptions.
  SequenceRunner(std::shared_ptr<const Model> model, Backend& backend, int32_t sequences,
                 int32_t max_tokens, DType kv_dtype = DType::kF32,
                 std::span<const int32_t> balance_ids = {});

  // One step over the slices, in this order. Returns logits [wanted rows][V]; fails the test and
  // returns nothing on an error.
  std::vector<std::vector<float>> Step(const std::vector<RunSlice>& slices,
                                       const std::vector<CaptureRange>& captures = {});
  // One sequence alone, from where it stands.
  std::vector<float> Last(const std::vector<int32_t>& ids, int32_t sequence = 0);

  StepBatch BatchOf(const std::vector<RunSlice>& slices);  // and advances the sequences
  Backend& backend() { return workspace_.backend(); }
  KvPool& pool() { return *pool_; }
  Workspace& workspace() { return workspace_; }
  std::vector<int32_t> BlocksOf(int32_t sequence) const;

 private:
  std::shared_ptr<const Model> model_;
  int32_t blocks_each_;
  std::vector<int32_t> lengths_;
  std::unique_ptr<KvPool> pool_;
  Workspace workspace_;
};

}  // namespace kvasir::test

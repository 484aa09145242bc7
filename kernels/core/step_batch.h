// StepBatch: the rows of one step as flat arrays. Decode, prefill slices, draft verification and
// the sparse re-prefill of scattered tokens are all just rows; there are no mode flags. The mask
// is always key_position <= query_position (and the window), never a row index.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/kv_layout.h"

namespace kvasir {

// A run of KV visible to one sequence: `length` slots of consecutive local positions 0..length-1,
// at absolute positions base + local. Its blocks are block_table[first_block ...
// first_block + BlocksFor(length)). length includes rows of this very step.
struct SegmentRef {
  int32_t base = 0;
  int32_t length = 0;
  int32_t first_block = 0;
  bool context = false;  // ContextScale applies to its keys
};

// How much the context counts in a sequence's attention (APE, Yang et al. 2025): scores of context
// keys are divided by `temperature`, and their sum S = log(sum of exp(score)) counts as scale * S
// beside the other keys.
struct ContextScale {
  float temperature = 1, scale = 1;
};

// Rows [row_begin, row_end) of the batch, sorted by position, see segments
// [segment_begin, segment_end). Segments may share a base or overlap.
struct SequenceSpan {
  int32_t row_begin = 0, row_end = 0;
  int32_t segment_begin = 0, segment_end = 0;
  ContextScale context = {};
};

inline constexpr int32_t kNoSlot = -1;

struct StepBatch {
  // One entry a row, all of size T.
  std::vector<int32_t> token_ids;
  std::vector<int32_t> positions;        // absolute: mask and query rotation
  std::vector<int32_t> local_positions;  // key rotation: positions - base of the row's segment
  std::vector<int32_t> slots;  // block id * kBlockTokens + offset, where K, V are written;
                               // kNoSlot only in rows that a backend adds (RunStep)

  std::vector<SequenceSpan> sequences;
  std::vector<SegmentRef> segments;
  std::vector<int32_t> block_table;

  std::vector<int32_t> logit_rows;  // rows whose logits are wanted, ascending

  int32_t rows() const { return static_cast<int32_t>(token_ids.size()); }
};

}  // namespace kvasir

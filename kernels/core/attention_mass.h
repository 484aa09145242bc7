// AttentionMass: where a prompt's last rows look. Gathered inside their own attention, with no
// second pass over the keys; what a selector of rows to recompute decides by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/step_batch.h"

namespace kvasir {

struct AttentionMass {
  // Asked for: the last `rows` rows of the prompt (0 = all that the prompt computes in its last
  // segment), layers [layer_begin, layer_end), layer_end 0 = all.
  int32_t rows = 4;
  int32_t layer_begin = 0, layer_end = 0;
  // The rows of answer tokens too, as they are fed back (all but the last token's).
  bool answer = false;

  // What comes back, sized by the engine. mass [layer_end - layer_begin][heads][positions]: softmax
  // weight that the asked rows give the key at a position, summed over these rows in their order.
  int32_t heads = 0;      // H, query heads
  int32_t positions = 0;  // prompt tokens, and with `answer` max_tokens more
  std::vector<float> mass;

  float* Of(int32_t layer) {
    return mass.data() + static_cast<size_t>(layer - layer_begin) * static_cast<size_t>(heads) *
                             static_cast<size_t>(positions);
  }
  const float* Of(int32_t layer) const { return const_cast<AttentionMass*>(this)->Of(layer); }
};

// What one Attention call adds to: the weights of batch rows [row_begin, row_end), all of one
// sequence, go to mass [H][stride] in host memory, at the absolute position of each key: its
// segment's base + its place there (keys of segments that overlap add up). Masked keys add nothing.
//
// Each weight is rounded to fp32 and added to what `mass` holds, row by row in ascending order, so
// the bits depend neither on the batch nor on how rows are cut into ranges and calls.
struct MassRange {
  int32_t row_begin = 0, row_end = 0;
  float* mass = nullptr;
  int64_t stride = 0;  // > the largest key position that the rows see
};

// Aborts unless the ranges are as AttentionArgs wants them and within their strides.
void CheckMassRanges(std::span<const MassRange> ranges, const StepBatch& batch);

}  // namespace kvasir

// AttentionMass: where a prompt's last rows look. Gathered inside their own attention, with no
// second pass over the keys; what a selector of rows to recompute decides by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvasir {

struct AttentionMass {
  // Asked for: the last `rows` rows of the prompt (0 = all that the prompt computes in its last
  // segment), layers [layer_begin, layer_end), layer_end 0 = all.
  int32_t rows = 4;
  int32_t layer_begin = 0, layer_end = 0;

  // The answer, sized by the engine. mass [layer_end - layer_begin][heads][positions]: softmax
  // weight that the asked rows give the key at a position, summed over these rows in their order.
  int32_t heads = 0;      // H, query heads
  int32_t positions = 0;  // prompt tokens
  std::vector<float> mass;

  float* Of(int32_t layer) {
    return mass.data() + static_cast<size_t>(layer - layer_begin) * static_cast<size_t>(heads) *
                             static_cast<size_t>(positions);
  }
  const float* Of(int32_t layer) const { return const_cast<AttentionMass*>(this)->Of(layer); }
};

// What one Attention call adds to: the weights of batch rows [row_begin, row_end), all of one
// sequence, go to mass [H][stride] in host memory, at the absolute position of each key. The sum
// runs over the rows in their order, so its bits do not depend on the batch.
struct MassRange {
  int32_t row_begin = 0, row_end = 0;
  float* mass = nullptr;
  int64_t stride = 0;  // > the largest key position that the rows see
};

}  // namespace kvasir

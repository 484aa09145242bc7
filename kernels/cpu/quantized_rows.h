// QuantizedBlock: 32 consecutive inputs of one row of activations in 8 bits.
//
// The range between the smallest and the largest of the 32 is cut into 255 steps, so that a block
// whose values lean to one side loses no bit to the other: on SmolLM2 less than half the
// divergence of a symmetric scale. One block is one cache line.
#pragma once

#include <cstdint>

namespace kvasir {

inline constexpr int kQuantizedInputs = 32;

struct alignas(64) QuantizedBlock {
  // x is about scale * q + offset. Of every 8 inputs the even ones come first, then the odd ones:
  // the order in which packed quants are read (packed_weight.h).
  int8_t quants[kQuantizedInputs];
  float scale, offset;
  float sum;        // of all 32 values scale * q + offset
  float halves[2];  // of the first and last 16
  float unused[3];
};
static_assert(sizeof(QuantizedBlock) == 64);

}  // namespace kvasir

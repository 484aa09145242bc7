// QuantizedBlock: 32 consecutive inputs of one row of activations in 8 bits.
//
// The range between the smallest and the largest of the 32 is cut into 254 steps around its middle,
// so that a block whose values lean to one side loses no bit to the other: on SmolLM2 less than
// half the divergence of a symmetric scale. The middle is rounded to bf16 before the steps are
// laid, so that products with it in bf16 pairs lose nothing. One block is one cache line.
#pragma once

#include <cstdint>

namespace kvasir {

inline constexpr int kQuantizedInputs = 32;

// A sum of products begins at the bits of 1.5 * 2^23 as a float: up to 2^22 either way they stay
// those of 1.5 * 2^23 + sum, and a subtraction takes the place of a conversion, which would compete
// with the products for execution ports.
inline constexpr int32_t kDotStart = 0x4B400000;
inline constexpr float kDotStartValue = 12582912.0f;

struct alignas(64) QuantizedBlock {
  // x is about scale * q + offset, q in [-127, 127]. Of every 8 inputs the even ones come first,
  // then the odd ones: the order in which packed quants are read (packed_weight.h).
  int8_t quants[kQuantizedInputs];
  float scale;
  uint32_t offsets;       // bf16 pair: offset twice
  uint32_t correction;    // bf16 pair: offset low, sum of all scale * q + offset high
  int32_t start;          // kDotStart - 8 * sum of quants: where a sum over 4-bit weights begins
  int32_t quant_sums[2];  // of the first and last 16
  uint32_t unused[2];
};
static_assert(sizeof(QuantizedBlock) == 64);

}  // namespace kvasir

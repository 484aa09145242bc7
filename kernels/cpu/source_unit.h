// SourceUnit: one unit of a row in a GGUF block format, taken apart: what packing rearranges.
#pragma once

#include <cstdint>

#include "kernels/core/dtype.h"
#include "kernels/cpu/packed_weight.h"

namespace kvasir {

struct SourceUnit {
  uint16_t scale = 0;     // fp16
  uint16_t minimum = 0;   // fp16, where the kind has one
  uint8_t sub_scale[16];  // of 256-input units: 8 of 32 inputs, or 16 of 16 (signed)
  uint8_t sub_minimum[16];
  uint8_t quant[256];  // as packed: 4-bit or unsigned 8-bit values
};

// Any type but kI8.
PackedKind PackedKindOf(DType dtype);

// Quantised types only. Reads the unit at `source` (TraitsOf(dtype).block_bytes bytes).
void ReadSourceUnit(DType dtype, const uint8_t* source, SourceUnit* unit);

}  // namespace kvasir

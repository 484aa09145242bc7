// Random weights as a model file holds them, for programs that count or time.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/core/dtype.h"

namespace kvasir {

// Blocks of random quants under one modest scale, or modest 16-bit values of either sign.
inline std::vector<uint8_t> RandomSource(DType dtype, int64_t count, std::mt19937& random) {
  std::vector<uint8_t> source(BytesOf(dtype, static_cast<size_t>(count)));
  for (uint8_t& byte : source) byte = static_cast<uint8_t>(random());
  const DTypeTraits& traits = TraitsOf(dtype);
  const uint16_t scale = F32ToF16(0.01f);
  for (size_t at = 0; at < source.size(); at += static_cast<size_t>(traits.block_bytes)) {
    if (traits.block_elements == 1) {
      const int exponent = dtype == DType::kF16 ? 0x28 : 0x3C;  // 2^-5 or 2^-7
      source[at + 1] = static_cast<uint8_t>((source[at + 1] & 0x80) | exponent);
      continue;
    }
    std::memcpy(&source[at], &scale, sizeof scale);
    if (dtype == DType::kQ4_1) std::memcpy(&source[at + 2], &scale, sizeof scale);
  }
  return source;
}

}  // namespace kvasir

// Element types of tensors, as they lie in model files and in KV pools.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace kvasir {

// The quantised types are GGUF's block formats: a row of K elements is K / block_elements blocks.
enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kI8,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,  // blocks of 32
  kQ4_K,
  kQ5_K,
  kQ6_K,  // super-blocks of 256
  kI4,    // two a byte, the first in the low half: stored KV alone (kv_layout.h)
};

struct DTypeTraits {
  std::string_view name;
  int32_t block_elements;  // elements a block, 1 for plain types
  int32_t block_bytes;     // bytes a block
};

const DTypeTraits& TraitsOf(DType dtype);

// Bytes of `elements` consecutive elements; `elements` must be a multiple of block_elements.
inline size_t BytesOf(DType dtype, size_t elements) {
  const DTypeTraits& traits = TraitsOf(dtype);
  return elements / static_cast<size_t>(traits.block_elements) *
         static_cast<size_t>(traits.block_bytes);
}

float F16ToF32(uint16_t bits);
uint16_t F32ToF16(float value);  // round to nearest even
inline float BF16ToF32(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  __builtin_memcpy(&value, &wide, sizeof value);
  return value;
}
uint16_t F32ToBF16(float value);  // round to nearest even

// Dequantises one row of `elements` elements of any dtype but kI8 and kI4 into out[elements].
void DequantizeRow(DType dtype, const void* row, size_t elements, float* out);

}  // namespace kvasir

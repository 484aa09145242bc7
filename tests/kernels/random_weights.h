// Random weight matrices in every type of a model file, for tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/core/dtype.h"

namespace kvasir {

inline constexpr DType kWeightTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ4_0,
                                         DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
                                         DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

// Offsets of the fp16 fields (scale, minimum) of a quantised block; -1 = none.
struct HalfFields {
  int scale = -1, minimum = -1;
};
inline HalfFields HalfFieldsOf(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kQ5_0:
    case DType::kQ8_0:
      return {0, -1};
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ6_K:
      return {208, -1};
    default:
      return {};
  }
}

inline void StoreHalf(std::vector<uint8_t>& bytes, size_t at, float value) {
  const uint16_t bits = F32ToF16(value);
  std::memcpy(&bytes[at], &bits, sizeof bits);
}

// Random quants under random fp16 scales of about 0.02.
inline std::vector<uint8_t> RandomQuantized(DType dtype, size_t elements, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<uint8_t> bytes(BytesOf(dtype, elements));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  const HalfFields fields = HalfFieldsOf(dtype);
  const auto block = static_cast<size_t>(TraitsOf(dtype).block_bytes);
  for (size_t at = 0; at < bytes.size(); at += block) {
    StoreHalf(bytes, at + static_cast<size_t>(fields.scale), normal(random));
    if (fields.minimum >= 0) {
      StoreHalf(bytes, at + static_cast<size_t>(fields.minimum), normal(random));
    }
  }
  return bytes;
}

inline std::vector<float> RandomFloats(size_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// [n][k] of `dtype`, row-major.
inline std::vector<uint8_t> RandomWeights(DType dtype, int64_t n, int64_t k, std::mt19937& random) {
  const auto elements = static_cast<size_t>(n * k);
  if (TraitsOf(dtype).block_elements > 1) return RandomQuantized(dtype, elements, random);
  const std::vector<float> values = RandomFloats(elements, random);
  std::vector<uint8_t> bytes(BytesOf(dtype, elements));
  for (size_t i = 0; i < elements; ++i) {
    if (dtype == DType::kF32) {
      std::memcpy(&bytes[4 * i], &values[i], 4);
    } else {
      const uint16_t bits = dtype == DType::kF16 ? F32ToF16(values[i]) : F32ToBF16(values[i]);
      std::memcpy(&bytes[2 * i], &bits, 2);
    }
  }
  return bytes;
}

}  // namespace kvasir

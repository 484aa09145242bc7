// DequantizeRow: GGUF's block formats, read byte by byte as the files lay them out. Scales are
// little-endian fp16; nothing here assumes alignment.
#include <cstring>

#include "kernels/core/dtype.h"
#include "kernels/core/status.h"

namespace kvasir {
namespace {

float ReadF16(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return F16ToF32(bits);
}

uint32_t ReadU32(const uint8_t* bytes) {
  uint32_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return bits;
}

// Blocks of 32. Nibble formats: low nibbles are elements 0..15, high nibbles 16..31.

void BlockQ4_0(const uint8_t* block, float* out) {
  const float scale = ReadF16(block);
  const uint8_t* q = block + 2;
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>((q[j] & 15) - 8) * scale;
    out[j + 16] = static_cast<float>((q[j] >> 4) - 8) * scale;
  }
}

void BlockQ4_1(const uint8_t* block, float* out) {
  const float scale = ReadF16(block), minimum = ReadF16(block + 2);
  const uint8_t* q = block + 4;
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>(q[j] & 15) * scale + minimum;
    out[j + 16] = static_cast<float>(q[j] >> 4) * scale + minimum;
  }
}

// Element j's fifth bit is bit j of `high`.
int Low5(const uint8_t* q, uint32_t high, int j) {
  return (q[j] & 15) | static_cast<int>(((high >> j) & 1u) << 4);
}
int High5(const uint8_t* q, uint32_t high, int j) {
  return (q[j] >> 4) | static_cast<int>(((high >> (j + 16)) & 1u) << 4);
}

void BlockQ5_0(const uint8_t* block, float* out) {
  const float scale = ReadF16(block);
  const uint32_t high = ReadU32(block + 2);
  const uint8_t* q = block + 6;
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>(Low5(q, high, j) - 16) * scale;
    out[j + 16] = static_cast<float>(High5(q, high, j) - 16) * scale;
  }
}

void BlockQ5_1(const uint8_t* block, float* out) {
  const float scale = ReadF16(block), minimum = ReadF16(block + 2);
  const uint32_t high = ReadU32(block + 4);
  const uint8_t* q = block + 8;
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>(Low5(q, high, j)) * scale + minimum;
    out[j + 16] = static_cast<float>(High5(q, high, j)) * scale + minimum;
  }
}

void BlockQ8_0(const uint8_t* block, float* out) {
  const float scale = ReadF16(block);
  for (int j = 0; j < 32; ++j) {
    out[j] = static_cast<float>(static_cast<int8_t>(block[2 + j])) * scale;
  }
}

// Super-blocks of 256: eight groups of 32 with a 6-bit scale and a 6-bit minimum each, packed in
// 12 bytes: groups 0..3 in the low six bits of bytes 0..3 (scale) and 4..7 (minimum), groups 4..7
// as low nibble (scale) and high nibble (minimum) of bytes 8..11 with their top two bits in the
// top bits of bytes 0..3 and 4..7.
struct GroupScale {
  float scale, minimum;
};

GroupScale UnpackGroup(const uint8_t* packed, int group) {
  if (group < 4) {
    return {static_cast<float>(packed[group] & 63), static_cast<float>(packed[group + 4] & 63)};
  }
  const int scale = (packed[group + 4] & 15) | ((packed[group - 4] >> 6) << 4);
  const int minimum = (packed[group + 4] >> 4) | ((packed[group] >> 6) << 4);
  return {static_cast<float>(scale), static_cast<float>(minimum)};
}

// Bytes: fp16 scale, fp16 minimum, packed[12], then nibbles: group 2i in the low and 2i + 1 in the
// high half of q[32 * i ...].
void BlockQ4_K(const uint8_t* block, float* out) {
  const float scale = ReadF16(block), minimum = ReadF16(block + 2);
  const uint8_t* packed = block + 4;
  for (int group = 0; group < 8; ++group) {
    const GroupScale g = UnpackGroup(packed, group);
    const uint8_t* q = block + 16 + 32 * (group / 2);
    const int shift = 4 * (group % 2);
    for (int j = 0; j < 32; ++j) {
      const auto value = static_cast<float>((q[j] >> shift) & 15);
      out[32 * group + j] = scale * g.scale * value - minimum * g.minimum;
    }
  }
}

// As Q4_K with 32 bytes of fifth bits before the nibbles: bit `group` of high[j].
void BlockQ5_K(const uint8_t* block, float* out) {
  const float scale = ReadF16(block), minimum = ReadF16(block + 2);
  const uint8_t* packed = block + 4;
  const uint8_t* high = block + 16;
  for (int group = 0; group < 8; ++group) {
    const GroupScale g = UnpackGroup(packed, group);
    const uint8_t* q = block + 48 + 32 * (group / 2);
    const int shift = 4 * (group % 2);
    for (int j = 0; j < 32; ++j) {
      const int value = ((q[j] >> shift) & 15) | (((high[j] >> group) & 1) << 4);
      out[32 * group + j] = scale * g.scale * static_cast<float>(value) - minimum * g.minimum;
    }
  }
}

// Bytes: low[128] nibbles, high[64] bit pairs, int8 scales[16], fp16 scale. Each half of 128
// elements is four runs of 32: run r takes nibble r / 2 of low[32 * (r % 2) + j] and bits 2r of
// high[j].
void BlockQ6_K(const uint8_t* block, float* out) {
  const float scale = ReadF16(block + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* low = block + 64 * half;
    const uint8_t* high = block + 128 + 32 * half;
    const uint8_t* scales = block + 192 + 8 * half;
    for (int run = 0; run < 4; ++run) {
      for (int j = 0; j < 32; ++j) {
        const int nibble = (low[32 * (run % 2) + j] >> (4 * (run / 2))) & 15;
        const int q = (nibble | (((high[j] >> (2 * run)) & 3) << 4)) - 32;
        const auto group = static_cast<float>(static_cast<int8_t>(scales[2 * run + j / 16]));
        out[128 * half + 32 * run + j] = scale * group * static_cast<float>(q);
      }
    }
  }
}

using BlockFunction = void (*)(const uint8_t* block, float* out);

BlockFunction BlockFunctionOf(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
      return BlockQ4_0;
    case DType::kQ4_1:
      return BlockQ4_1;
    case DType::kQ5_0:
      return BlockQ5_0;
    case DType::kQ5_1:
      return BlockQ5_1;
    case DType::kQ8_0:
      return BlockQ8_0;
    case DType::kQ4_K:
      return BlockQ4_K;
    case DType::kQ5_K:
      return BlockQ5_K;
    case DType::kQ6_K:
      return BlockQ6_K;
    default:
      return nullptr;
  }
}

template <float (*Widen)(uint16_t)>
void WidenRow(const uint8_t* row, size_t elements, float* out) {
  for (size_t i = 0; i < elements; ++i) {
    uint16_t bits;
    std::memcpy(&bits, row + 2 * i, sizeof bits);
    out[i] = Widen(bits);
  }
}

}  // namespace

void DequantizeRow(DType dtype, const void* row, size_t elements, float* out) {
  const auto* bytes = static_cast<const uint8_t*>(row);
  if (dtype == DType::kF32) {
    if (elements != 0) std::memcpy(out, row, elements * sizeof(float));
  } else if (dtype == DType::kF16) {
    WidenRow<F16ToF32>(bytes, elements, out);
  } else if (dtype == DType::kBF16) {
    WidenRow<BF16ToF32>(bytes, elements, out);
  } else {
    const DTypeTraits& traits = TraitsOf(dtype);
    const BlockFunction block = BlockFunctionOf(dtype);
    KVASIR_CHECK(block != nullptr);
    const auto width = static_cast<size_t>(traits.block_elements);
    KVASIR_CHECK(elements % width == 0);
    for (size_t i = 0; i < elements; i += width, bytes += traits.block_bytes) block(bytes, out + i);
  }
}

}  // namespace kvasir
